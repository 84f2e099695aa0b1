"""How good a noisy classifier is, per attribute and noise level: what guidance by it can be expected to do.

Of each attribute, read alone, over validation latents noised to a band of t:

    accuracy, AUROC        does it tell the values apart?  (AUROC: of one value against the rest, averaged over values)
    NLL                    -log p(y | z_t) in nats, beside the entropy of the labels, which is what one knows at t = 1
    ECE                    is it as sure as it may be?  (`lcg.metrics.calibration`)

For continuous attributes the last is the error of central intervals: from F(y | z_t), uniform for an honest
classifier (Dawid 1984), the mass |2 F - 1| of the smallest central interval that holds y; a share p of all rows must
have at most the mass p. F of a joint head is that of its mixture, exactly.
"""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from lcg.metrics.calibration import BINS, bin_of, expected_by_chance, expected_calibration_error, top_label
from lcg.metrics.temperature import Observed, Readings, band_of, compare_readings
from lcg.nets.heads import HeadOutputs, JointOutputs, independent, log_likelihood
from lcg.schema import Attribute, Kind, Schema

NAN = math.nan
COVERAGES = torch.arange(1, 10, dtype=torch.float64) / 10
FINER = 2
"""Curves over t have this many points per band."""


@dataclass(frozen=True)
class Figures:
    """One attribute in one band: a row of calibration.csv. NaN where a figure means nothing.

    Attributes:
        attribute: its name.
        kind: binary, categorical or continuous.
        t_from: lower end of the band.
        t_to: upper end.
        n: rows in which the attribute is labelled.
        majority: share of the most frequent value, the accuracy of a guess.
        accuracy: share of rows whose most probable value is the true one.
        auroc: area under the receiver's operating characteristic, .5 by chance; of a categorical attribute the mean
            over the values that occur, each against the rest.
        entropy: NLL of knowing nothing but the labels' frequencies, or their mean and variance, nats.
        nll_before: negative log-likelihood before temperature.
        nll_after: and after.
        ece_before: expected calibration error before temperature.
        ece_after: and after.
        ece_by_chance: what an honest classifier's would be with as many rows.
        overconfidence: mean confidence less accuracy, or intervals' nominal less actual coverage, after temperature.
        coverage_50: share of continuous labels within the central half of their distribution, after temperature.
        coverage_90: within the central nine tenths.
    """

    attribute: str
    kind: Kind
    t_from: float
    t_to: float
    n: int = 0
    majority: float = NAN
    accuracy: float = NAN
    auroc: float = NAN
    entropy: float = NAN
    nll_before: float = NAN
    nll_after: float = NAN
    ece_before: float = NAN
    ece_after: float = NAN
    ece_by_chance: float = NAN
    overconfidence: float = NAN
    coverage_50: float = NAN
    coverage_90: float = NAN

    @property
    def skill(self) -> float:
        """The share of what there is to know: 1 - NLL / entropy, or of the variance; 0 is nothing, 1 everything."""
        if self.kind == "continuous":
            return 1 - math.exp(min(2 * (self.nll_after - self.entropy), 700.0))  # beyond it math.exp raises
        return 1 - self.nll_after / self.entropy if self.entropy > 0 else NAN


@dataclass(frozen=True, eq=False)
class Reliability:
    """Sums of the predictions in each bin of confidence, all binary and categorical attributes together, (bands, bins).

    Attributes:
        count: how many.
        confidence: sum of the probabilities of the predicted values.
        correct: how many were right.
    """

    count: Tensor
    confidence: Tensor
    correct: Tensor

    @property
    def ece(self) -> Tensor:
        """(bands,)."""
        return expected_calibration_error(self.count, self.confidence, self.correct)


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Everything that is reported of a noisy classifier.

    Attributes:
        schema: the attributes.
        bands: how many noise bands.
        joint: whether the head models attributes jointly.
        table: figures of every attribute in every band, attribute by attribute.
        curves: the same in `FINER` times as many bands.
        before: reliability before temperature.
        after: and after.
        log_temperature: (levels,) the temperature, at evenly spaced t.
        readings: how a joint head compares with its marginals.
    """

    schema: Schema
    bands: int
    joint: bool
    table: tuple[Figures, ...]
    curves: tuple[Figures, ...]
    before: Reliability
    after: Reliability
    log_temperature: Tensor
    readings: Readings

    def of(self, attribute: Attribute, finer: bool = False) -> tuple[Figures, ...]:
        """The figures of one attribute, in order of t."""
        return tuple(row for row in (self.curves if finer else self.table) if row.attribute == attribute.name)

    def to_csv(self) -> str:
        """The table as CSV, one row per attribute and band; what means nothing is left empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Figures)], lineterminator="\n")
        writer.writeheader()
        for row in self.table:
            values = asdict(row)
            writer.writerow({name: _plain(value) for name, value in values.items()})
        return text.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def diagnose(observed: Observed, log_temperature: Tensor, bands: int) -> Diagnosis:
    """Measures a classifier.

    Args:
        observed: what it says of noised latents, untempered.
        log_temperature: (levels,) its temperature.
        bands: noise bands.
    """
    log_temperature = log_temperature.detach().double().cpu()
    before, after = _Read.of(observed, torch.zeros_like(log_temperature)), _Read.of(observed, log_temperature)
    return Diagnosis(
        observed.schema,
        bands,
        isinstance(observed.outputs, JointOutputs),
        _table(observed, before, after, bands),
        _table(observed, before, after, FINER * bands),
        _reliability(observed, before, bands),
        _reliability(observed, after, bands),
        log_temperature,
        compare_readings(observed, log_temperature, bands),
    )


@dataclass(frozen=True, eq=False)
class _Read:
    """Every attribute alone, in float64, by name: outputs, log-likelihood of the label, mass of its interval."""

    heads: HeadOutputs
    log_p: Mapping[str, Tensor]
    mass: Mapping[str, Tensor]

    @classmethod
    def of(cls, observed: Observed, log_temperature: Tensor) -> "_Read":
        alone = replace(observed, outputs=independent(observed.outputs)).double()
        heads = independent(alone.tempered(log_temperature))
        label = {a.name: alone.labels[:, j] for j, a in enumerate(observed.schema)}
        log_p = {a.name: log_likelihood(a, heads[a.name], label[a.name]) for a in observed.schema}
        continuous = [a.name for a in observed.schema.of_kind("continuous")]
        return cls(heads, log_p, {name: central_mass(heads[name], label[name]) for name in continuous})


def central_mass(output: Tensor, label: Tensor) -> Tensor:
    """|2 F(y) - 1|, how much of a normal distribution lies nearer its mean than the label.

    Args:
        output: (B, 2), mean and log-variance.
        label: (B,), NaN where missing.

    Returns:
        (B,) in [0, 1], NaN where the label is missing.
    """
    mean, log_variance = output.unbind(-1)
    return torch.erf((label - mean).abs() * torch.exp(-0.5 * log_variance) / math.sqrt(2))


def _table(observed: Observed, before: _Read, after: _Read, bands: int) -> tuple[Figures, ...]:
    band = band_of(observed.t.double(), bands)
    rows = []
    for j, attribute in enumerate(observed.schema):
        y = observed.labels[:, j].double()
        for b in range(bands):
            chosen = ((band == b) & ~y.isnan()).nonzero()[:, 0]
            rows.append(_figures(attribute, (b / bands, (b + 1) / bands), y[chosen], chosen, before, after))
    return tuple(rows)


def _figures(
    attribute: Attribute, between: tuple[float, float], y: Tensor, rows: Tensor, before: _Read, after: _Read
) -> Figures:
    """Figures of some rows, in which the attribute has the labels `y`."""
    known = Figures(attribute.name, attribute.kind, *between)
    if len(y) == 0:
        return known
    nll_before, nll_after = (-float(read.log_p[attribute.name][rows].mean()) for read in (before, after))
    known = replace(known, n=len(y), nll_before=nll_before, nll_after=nll_after)
    if attribute.kind == "continuous":
        return _of_intervals(known, y, *(read.mass[attribute.name][rows] for read in (before, after)))
    return _of_values(known, attribute, y, *(read.heads[attribute.name][rows] for read in (before, after)))


def _of_values(known: Figures, attribute: Attribute, y: Tensor, before: Tensor, after: Tensor) -> Figures:
    """Of a binary or categorical attribute, by its logits."""
    frequency = torch.bincount(y.long()).double() / len(y)
    count, confidence, correct = _bins(attribute, after, y)
    return replace(
        known,
        majority=float(frequency.max()),
        accuracy=float(correct.sum() / len(y)),
        auroc=auroc(attribute, after, y),
        entropy=float(torch.special.entr(frequency).sum()),
        ece_before=float(expected_calibration_error(*_bins(attribute, before, y))),
        ece_after=float(expected_calibration_error(count, confidence, correct)),
        ece_by_chance=float(expected_by_chance(count, confidence)),
        overconfidence=float((confidence.sum() - correct.sum()) / len(y)),
    )


def _of_intervals(known: Figures, y: Tensor, before: Tensor, after: Tensor) -> Figures:
    """Of a continuous attribute, by the mass of the smallest central interval that holds each label."""
    shares_before, shares = ((mass[:, None] <= COVERAGES).double().mean(0) for mass in (before, after))
    variance = float(y.var(correction=0))
    return replace(
        known,
        entropy=0.5 * math.log(2 * math.pi * math.e * variance) if variance > 0 else NAN,
        ece_before=float((shares_before - COVERAGES).abs().mean()),
        ece_after=float((shares - COVERAGES).abs().mean()),
        ece_by_chance=float((2 / math.pi / len(y) * COVERAGES * (1 - COVERAGES)).sqrt().mean()),
        overconfidence=float((COVERAGES - shares).mean()),
        coverage_50=float(shares[4]),
        coverage_90=float(shares[8]),
    )


def auroc(attribute: Attribute, output: Tensor, label: Tensor) -> float:
    """Area under the receiver's operating characteristic.

    Args:
        attribute: a binary or categorical one.
        output: its logits, (n,) or (n, C).
        label: (n,), all known.

    Returns:
        In [0, 1]: the share of pairs of unlike labels that the logits put in the right order. Of a categorical
        attribute the mean over the values that occur, each against the rest. NaN where all labels are alike.
    """
    if attribute.kind == "binary":
        return _binary_auroc(output, label == 1)
    areas = []
    for value in label.unique().long().tolist():
        others = torch.cat((output[:, :value], output[:, value + 1 :]), dim=1).logsumexp(1)
        areas.append(_binary_auroc(output[:, value] - others, label == value))
    return sum(areas) / len(areas)


def _binary_auroc(score: Tensor, positive: Tensor) -> float:
    if positive.all() or not positive.any():
        return NAN
    # Only the order counts. Ranks keep it where probabilities, which torchmetrics makes of logits, would all be 1.
    order = score.unique(return_inverse=True)[1].double()
    return float(binary_auroc(order / order.max().clamp(min=1), positive.long(), validate_args=False))


def _bins(attribute: Attribute, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, sum of confidence and number of right predictions by bin of confidence, (bins,)."""
    confidence, correct = top_label(attribute, output, y)
    sums = torch.zeros(3, BINS, dtype=torch.float64)
    sums.index_add_(1, bin_of(confidence), torch.stack((torch.ones_like(confidence), confidence, correct.double())))
    return sums[0], sums[1], sums[2]


def _reliability(observed: Observed, read: _Read, bands: int) -> Reliability:
    """All binary and categorical attributes together."""
    band, sums = band_of(observed.t.double(), bands), torch.zeros(3, bands, BINS, dtype=torch.float64)
    for attribute in observed.schema.of_kind("binary", "categorical"):
        y = observed.labels[:, observed.schema.index(attribute.name)].double()
        for b in range(bands):
            rows = ((band == b) & ~y.isnan()).nonzero()[:, 0]
            sums[:, b] += torch.stack(_bins(attribute, read.heads[attribute.name][rows], y[rows]))
    return Reliability(*sums)
