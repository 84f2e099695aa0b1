"""How honest the classifier's probabilities are at the noise levels that guidance passes through.

Guidance climbs log p_phi(y | z_t, t), so it goes where it should only as far as p_phi is honest there. Held-out real
latents are noised to fixed times, z_t = alpha_t z_0 + sigma_t eps, and the trained classifier with its temperature is
asked as `ClassifierTerm` asks it. Of every binary and categorical attribute, read alone,

    ece       sum_b (n_b / n) |accuracy_b - confidence_b|     over bins b of confidence (Guo et al. 2017,
              arXiv:1706.04599, equation 3), with ece_chance, what honest probabilities would have with as many rows
    nll       mean -log p_phi(y | z_t, t), nats
    accuracy  how often the most probable value is the true one.

With the signs s_b of accuracy_b - confidence_b the error is itself a mean, of s_b (correct_i - confidence_i) over
rows, and its standard error is that mean's. It takes the signs as known, and so is too large where bins are right to
within chance, as |x| scatters less than x does.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from lcg.benchmarks.figures import Figure
from lcg.diffusion import diffuse, randn
from lcg.diffusion.schedule import Schedule
from lcg.guidance import Dependence
from lcg.metrics.accuracy import proportion
from lcg.metrics.calibration import BINS, bin_of, expected_by_chance, expected_calibration_error, top_label
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import HeadOutputs, JointOutputs, Outputs, in_float, independent, log_likelihood
from lcg.schema import Attribute, Schema

METHOD = "classifier"
"""What these figures are of, in `results.csv`."""

TIMES = (0.05, 0.25, 0.5, 0.75, 0.95)
ROWS_AT_ONCE = 2048


def calibration_figures(
    classifier: TimeConditionedClassifier,
    schedule: Schedule,
    z_0: Tensor,
    labels: Tensor,
    bands: tuple[float, ...] = TIMES,
    seed: int = 0,
    dependence: Dependence = "independent",
) -> Iterator[Figure]:
    """Measures the classifier at some noise levels.

    Args:
        classifier: in evaluation mode.
        schedule: of the noise, that of the prior.
        z_0: (N, *latent) standardised latents of real images that nothing was trained on.
        labels: (N, A) true labels, NaN where unknown: such rows are left out for that attribute.
        bands: times t in (0, 1].
        seed: of the noise, >= 0.
        dependence: `joint` measures the marginals of a joint head, which formulas are read from where it is calibrated
            best; `independent` its heads for single attributes. A classifier without a joint head has the latter only.

    Yields:
        For every t and attribute `ece/ATTR/t=T`, `ece_chance/ATTR/t=T`, `nll/ATTR/t=T`, `accuracy/ATTR/t=T`; and of all
        attributes together `accuracy_in_bin/t=T/K` and `confidence_in_bin/t=T/K`, K = 0, ..., bins - 1, for bins that
        are not empty, `n` being how many predictions one holds. Predictions for one latent's attributes depend on each
        other, which the standard errors of the bins leave out. Attributes without any label are passed over.

    Raises:
        ValueError: labels that are not a row per latent and a column per attribute, a time out of range, or latents of
            another shape than the classifier's.
    """
    schema = classifier.schema
    if labels.shape != (len(z_0), len(schema)):
        raise ValueError(
            f"`labels` must be ({len(z_0)}, {len(schema)}), a row per latent and a column per attribute of the "
            f"classifier, got {tuple(labels.shape)}; take those of the same images"
        )
    if not bands or not all(0 < t <= 1 for t in bands):
        raise ValueError(f"`bands` must be times t in (0, 1], at least one, got {bands}; at 0 there is no noise to see")
    generator, labels = torch.Generator().manual_seed(seed), labels.cpu()
    for t in bands:
        eps = randn(z_0.shape, generator, dtype=z_0.dtype, device=z_0.device)
        heads = _heads(classifier, schedule, z_0, t, eps, dependence)
        pooled = torch.zeros(3, BINS, dtype=torch.float64)
        for attribute in schema.of_kind("binary", "categorical"):
            y = labels[:, schema.index(attribute.name)]
            known = ~y.isnan()
            if known.any():
                yield from _of_attribute(attribute, heads[attribute.name][known], y[known], f"t={t:g}", pooled)
        yield from _in_bins(pooled, f"t={t:g}")


def marginals(schema: Schema, outputs: JointOutputs) -> HeadOutputs:
    """Logits of each binary and categorical attribute alone, summed over the components of a joint head.

    Args:
        schema: the attributes.
        outputs: of a batch.

    Returns:
        Binary (B,) and categorical (B, C) by name; log p = log sum_k pi_k p_k, so that their softmax is p.
    """
    rows = outputs.rows()
    heads = {a.name: outputs.mix(rows[a.name].log_softmax(-1)) for a in schema.of_kind("categorical")}
    for attribute in schema.of_kind("binary"):
        yes, no = (outputs.mix(functional.logsigmoid(sign * rows[attribute.name])) for sign in (1, -1))
        heads[attribute.name] = yes - no
    return heads


def _heads(
    classifier: TimeConditionedClassifier,
    schedule: Schedule,
    z_0: Tensor,
    t: float,
    eps: Tensor,
    dependence: Dependence,
) -> HeadOutputs:
    """What the classifier says of each attribute alone at z_t, for all rows, on the CPU."""
    parts = []
    for z, noise in zip(z_0.split(ROWS_AT_ONCE), eps.split(ROWS_AT_ONCE), strict=True):
        times = torch.full((len(z),), t, dtype=z.dtype, device=z.device)
        with torch.no_grad():
            outputs: Outputs = in_float(classifier(diffuse(schedule, z, times, noise), times))
        if dependence == "joint" and isinstance(outputs, JointOutputs):
            parts.append(marginals(classifier.schema, outputs))
        else:
            parts.append(independent(outputs))
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def _of_attribute(attribute: Attribute, output: Tensor, y: Tensor, where: str, pooled: Tensor) -> Iterator[Figure]:
    """The figures of one attribute, from logits of rows whose labels (n,) are known; adds to the pooled bins."""
    n, name = len(y), f"{attribute.name}/{where}"
    confidence, correct = top_label(attribute, output.double(), y)
    bins = bin_of(confidence)
    sums = torch.zeros(3, BINS, dtype=torch.float64)
    sums.index_add_(1, bins, torch.stack((torch.ones_like(confidence), confidence, correct.double())))
    pooled += sums
    gap = (sums[2] - sums[1]).sign()[bins] * (correct.double() - confidence)
    yield Figure(f"ece/{name}", float(expected_calibration_error(*sums)), _stderr(gap), n)
    yield Figure(f"ece_chance/{name}", float(expected_by_chance(sums[0], sums[1])), n=n)
    nll = -log_likelihood(attribute, output.double(), y)
    yield Figure(f"nll/{name}", float(nll.mean()), _stderr(nll), n)
    yield Figure(f"accuracy/{name}", *proportion(correct), n)


def _in_bins(pooled: Tensor, where: str) -> Iterator[Figure]:
    """The reliability diagram, of (3, bins) counts, sums of confidence and right predictions."""
    for k, (count, confidence, right) in enumerate(pooled.T.tolist()):
        if count:
            share = right / count
            stderr = (share * (1 - share) / count) ** 0.5
            yield Figure(f"accuracy_in_bin/{where}/{k}", share, stderr, int(count))
            yield Figure(f"confidence_in_bin/{where}/{k}", confidence / count, n=int(count))


def _stderr(values: Tensor) -> float:
    """Of the mean of values (n,); NaN of a single one."""
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")
