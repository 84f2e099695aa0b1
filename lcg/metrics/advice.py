"""What the figures of a noisy classifier mean for who guides by it, in words, and their tables as Markdown.

Of every attribute: below which t it is decided, so that guidance there only confirms it; above which t it is at chance,
so that guidance there says nothing; whether it is surer than it may be. Every statement is a threshold on a figure of
`lcg.metrics.diagnostics`, and quotes it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

import torch

from lcg.metrics.diagnostics import Diagnosis, Figures
from lcg.nets.heads import between_levels
from lcg.schema import Attribute

DECIDED = 0.9
"""Accuracy of an attribute that is decided; it also makes at most half as many errors as a guess."""

CHANCE = 0.6
"""AUROC below which an attribute is at chance."""

DECIDED_SKILL, CHANCE_SKILL = 0.8, 0.05
"""The same for continuous attributes, as shares of the variance."""

MISCALIBRATED = 0.05
"""Calibration error worth a word, where it is also twice what chance explains."""

HOT, COLD = 1.1, 0.9
"""Temperatures beyond which the network was over- or underconfident."""

WORTHWHILE = 0.01
"""Nats per label for which it is worth training otherwise."""

FEW = 30
"""Labels in a band below which nothing is said about an attribute."""


def advise(diagnosis: Diagnosis) -> list[str]:
    """Three sentences on the classifier as a whole, and one on each attribute, or on all of which the same is true."""
    attributes: dict[str, list[str]] = {}
    for attribute in diagnosis.schema:
        attributes.setdefault(_on_attribute(attribute, diagnosis), []).append(attribute.name)
    whole = [_on_range(diagnosis), _on_temperature(diagnosis), _on_readings(diagnosis)]
    return whole + [f"{', '.join(names)}: {sentence}" for sentence, names in attributes.items()]


def report(diagnosis: Diagnosis) -> str:
    """Advice and tables, as Markdown that is also read easily as it stands."""
    parts = ["# Calibration of the noisy classifier", "\n".join(f"- {line}" for line in advise(diagnosis))]
    for title, table in tables(diagnosis).items():
        parts += [f"## {title}", table]
    return "\n\n".join(parts) + "\n"


def tables(diagnosis: Diagnosis) -> dict[str, str]:
    """Title to Markdown table: a row per attribute, a column per band of t."""
    discrete, continuous = diagnosis.schema.of_kind("binary", "categorical"), diagnosis.schema.of_kind("continuous")
    shown: dict[str, str] = {}
    if discrete:
        shown["Accuracy (AUROC); guess: the most frequent value"] = _table(
            diagnosis,
            discrete,
            "guess",
            lambda rows: f"{rows[0].majority:.2f}",
            lambda row: f"{row.accuracy:.2f} ({row.auroc:.2f})",
        )
    if continuous:
        shown["Share of the variance that is explained (coverage of the central 90 %)"] = _table(
            diagnosis, continuous, "guess", lambda _: "0", lambda row: f"{row.skill:.2f} ({row.coverage_90:.2f})"
        )
    shown["Negative log-likelihood in nats, before -> after temperature; entropy: knowing only the frequencies"] = (
        _table(
            diagnosis,
            diagnosis.schema,
            "entropy",
            lambda rows: f"{rows[0].entropy:.2f}",
            lambda row: f"{row.nll_before:.3f} -> {row.nll_after:.3f}",
        )
    )
    shown["Expected calibration error, before -> after temperature; chance: what an honest one has, at most"] = _table(
        diagnosis,
        diagnosis.schema,
        "chance",
        lambda rows: f"{max(row.ece_by_chance for row in rows):.3f}",
        lambda row: f"{row.ece_before:.3f} -> {row.ece_after:.3f}",
    )
    return shown


def _table(
    diagnosis: Diagnosis,
    attributes: Iterable[Attribute],
    reference: str,
    to_compare: Callable[[Sequence[Figures]], str],
    cell: Callable[[Figures], str],
) -> str:
    bands = [f"t {b / diagnosis.bands:g} to {(b + 1) / diagnosis.bands:g}" for b in range(diagnosis.bands)]
    lines = [["attribute", "n", reference, *bands]]
    for attribute in attributes:
        rows = diagnosis.of(attribute)
        lines.append([attribute.name, str(rows[0].n), to_compare(rows), *map(cell, rows)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = [
        " | ".join([line[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    rule = " | ".join(["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])])
    return "\n".join(f"| {line} |" for line in (padded[0], rule, *padded[1:]))


def _on_range(diagnosis: Diagnosis) -> str:
    """Between which t guidance has something to say at all."""
    curves = {attribute.name: diagnosis.of(attribute, finer=True) for attribute in diagnosis.schema}
    until = {name: informed for name, curve in curves.items() if (informed := _informed_until(curve)) > 0}
    if not until:
        return "guidance: no attribute is learnt, guidance by this classifier is noise"
    first, decided = max(until, key=lambda name: until[name]), min(_decided_until(curves[name]) for name in until)
    count = f"all {len(curves)}" if len(until) == len(curves) else f"{len(until)} of {len(curves)}"
    end = f", and decided below t = {decided:g}, where guidance only confirms" if decided else ""
    return f"guidance: {count} attributes are learnt, from t = {until[first]:g} on down ({first} first){end}"


def _on_temperature(diagnosis: Diagnosis) -> str:
    """Where the network was over- or underconfident, what that costs, and what would help."""
    T = diagnosis.log_temperature.exp()
    if bool((T == 1).all()):
        return (
            "temperature: T = 1, none was fitted; `lcg fit` does it when it ends, also if it goes on from a checkpoint"
        )
    readings, bands = diagnosis.readings, range(diagnosis.bands)
    middle = between_levels(diagnosis.log_temperature, (torch.arange(len(bands)) + 0.5) / len(bands)).exp().tolist()
    gain = [before - after for before, after in zip(readings.joint_before, readings.joint_after, strict=True)]
    words = []
    for word, wrong, remedy in (
        ("overconfident", [b for b in bands if middle[b] > HOT], "more samples, fewer steps or more dropout"),
        ("underconfident", [b for b in bands if middle[b] < COLD], "longer training"),
    ):
        if wrong:
            most = max(wrong, key=lambda b: abs(math.log(middle[b])))
            best = max(gain[b] for b in wrong)
            helps = f"; {remedy} would help" if best >= WORTHWHILE else ""
            words.append(
                f"{word} at t = {_spans(wrong, len(bands))} without it (T = {middle[most]:.2f}, worth "
                f"{max(best, 0.0):.4f} nats per label){helps}"
            )
    levels = ", ".join(f"{value:.2f}" for value in T.tolist())
    return f"temperature: T = {levels} from t = 0 to 1; {'; '.join(words) or 'about 1 everywhere, as it should be'}"


def _on_readings(diagnosis: Diagnosis) -> str:
    """Whether formulas are better read jointly, and by how much."""
    if not diagnosis.joint:
        return (
            "reading: attributes are independent given z_t (`components: 1`); more components model them jointly, "
            "which makes guidance by several attributes at once more exact"
        )
    readings, bands = diagnosis.readings, range(diagnosis.bands)
    gain = [
        i - j if n else -math.inf
        for i, j, n in zip(readings.independent_after, readings.joint_after, readings.count, strict=True)
    ]
    mean = readings.mean(readings.independent_after) - readings.mean(readings.joint_after)
    most = max(bands, key=lambda b: gain[b])
    if readings.dependence == "joint":
        return (
            f"reading: attributes are read jointly, {mean:.3f} nats per label better than as independent given z_t; "
            f"most at t = {_spans([most], len(bands))} ({gain[most]:.3f})"
        )
    return (
        f"reading: attributes are read as independent given z_t, {-mean:.3f} nats per label better than jointly; "
        "fewer components or more samples would help"
    )


def _on_attribute(attribute: Attribute, diagnosis: Diagnosis) -> str:
    curve = diagnosis.of(attribute, finer=True)
    fewest = min(row.n for row in curve)
    if fewest < FEW:
        return f"too few labels to judge, {fewest} in a band of t"
    if all(math.isnan(row.skill) for row in curve):
        return "all validation labels are alike: nothing to learn, and no guidance"
    informed, decided = _informed_until(curve), _decided_until(curve)
    if informed == 0:
        return (
            f"never learnt ({_quality(curve[0])} at t < {curve[0].t_to:g}), do not guide by it; "
            "are its labels right, and does the latent hold it?"
        )
    continuous = attribute.kind == "continuous"
    words = f"not decided at any t ({_quality(curve[0])} at t < {curve[0].t_to:g})"
    if decided:
        above = f"over {DECIDED_SKILL:g} of the variance" if continuous else f"accuracy above {DECIDED:g}"
        words = f"decided below t = {decided:g} ({above})"
    if informed < 1:
        below = f"under {CHANCE_SKILL:g} of the variance" if continuous else f"AUROC below {CHANCE:g}"
        words += f", at chance above t = {informed:g} ({below})"
    return "; ".join([words, *_on_confidence(diagnosis.of(attribute))])


def _on_confidence(rows: Sequence[Figures]) -> list[str]:
    """Where an attribute's probabilities are wrong after the temperature, which all attributes share."""
    words = []
    for word, sign, remedy in (("overconfident", 1, "less"), ("underconfident", -1, "more")):
        wrong = [
            band
            for band, row in enumerate(rows)
            if row.ece_after > max(MISCALIBRATED, 2 * row.ece_by_chance) and sign * row.overconfidence > 0
        ]
        if wrong:
            ece = max(rows[band].ece_after for band in wrong)
            words.append(f"{word} at t = {_spans(wrong, len(rows))} (ECE {ece:.2f}), weigh it {remedy}")
    return words


def _decided_until(curve: Sequence[Figures]) -> float:
    """Where the bands in which the attribute is decided, from t = 0 on, end; 0 when there are none."""

    def decided(row: Figures) -> bool:
        if row.kind == "continuous":
            return row.skill >= DECIDED_SKILL
        return row.accuracy >= DECIDED and 1 - row.accuracy <= 0.5 * (1 - row.majority)

    return max((row.t_to for row in takewhile(decided, curve)), default=0.0)


def _informed_until(curve: Sequence[Figures]) -> float:
    """Where the bands in which the attribute is at chance, up to t = 1, begin; 1 when there are none."""

    def at_chance(row: Figures) -> bool:  # so is a band of which nothing is known
        return not (row.skill >= CHANCE_SKILL if row.kind == "continuous" else row.auroc >= CHANCE)

    return min((row.t_from for row in takewhile(at_chance, reversed(curve))), default=1.0)


def _quality(row: Figures) -> str:
    """How good a band is, in its own figure."""
    if row.kind == "continuous":
        return f"{max(row.skill, 0.0):.2f} of the variance"
    return f"accuracy {row.accuracy:.2f}, AUROC {row.auroc:.2f}"


def _spans(chosen: Sequence[int], bands: int) -> str:
    """Such as `0 to 0.4 and 0.8 to 1`, of bands in ascending order."""
    spans: list[list[int]] = []
    for band in chosen:
        if spans and spans[-1][1] == band:
            spans[-1][1] += 1
        else:
            spans.append([band, band + 1])
    return " and ".join(f"{start / bands:g} to {end / bands:g}" for start, end in spans)
