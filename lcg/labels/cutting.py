"""The threshold that serves best on images whose labels are known, and how far it can be trusted.

Every place between two scores is tried. Labels are few, so the figure that the best threshold reaches on them flatters:
what is told instead is the mean over bootstrap samples of what their best thresholds reach on the images that they left
out, with the interval from the 5 % to the 95 % quantile, of figure and threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Aim = Literal["balanced_accuracy", "f1", "precision"]


@dataclass(frozen=True)
class Cut:
    """A threshold chosen on labels.

    Attributes:
        threshold: positive are larger scores.
        interval: of the threshold, from 5 % to 95 %.
        figure: what the aim comes to on images that were left out.
        figure_interval: from 5 % to 95 %.
        recall: share of the positives found, on all images.
    """

    threshold: float
    interval: tuple[float, float]
    figure: float
    figure_interval: tuple[float, float]
    recall: float


def best_cut(
    scores: Doubles,
    labels: Doubles,
    aim: Aim = "balanced_accuracy",
    floor: float = 0.9,
    draws: int = 200,
    seed: int = 0,
) -> Cut:
    """The best threshold for scores (N,) and labels (N,) of 0 and 1.

    Args:
        scores: finite.
        labels: of both kinds.
        aim: what is made largest; for `precision` the share of positives found is, as long as precision is `floor`.
        floor: least precision.
        draws: bootstrap samples.
        seed: of their draw.

    Raises:
        ValueError: labels of one kind only, or no threshold reaches the floor.
    """
    truth = labels > 0.5
    if truth.all() or not truth.any():
        raise ValueError(
            f"a threshold needs labels of both kinds, got {int(truth.sum())} positive and {int((~truth).sum())} "
            "negative; label more images"
        )
    threshold = _best(scores, truth, aim, floor)
    if threshold is None:
        raise ValueError(
            f"no threshold has a precision of {floor} on {len(scores)} labelled images; lower `floor` or score better"
        )
    generator, thresholds, figures = np.random.default_rng(seed), [], []
    for _ in range(draws):
        rows = generator.integers(len(scores), size=len(scores))
        out = np.setdiff1d(np.arange(len(scores)), rows)
        if truth[rows].all() or not truth[rows].any() or truth[out].all() or not truth[out].any():
            continue
        found = _best(scores[rows], truth[rows], aim, floor)
        if found is not None:
            thresholds.append(found)
            figures.append(figure(scores[out] > found, truth[out], aim))
    return Cut(
        threshold,
        _interval(thresholds),
        float(np.nanmean(figures)) if figures else float("nan"),
        _interval(figures),
        float((scores > threshold)[truth].mean()),
    )


def figure(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], aim: Aim) -> float:
    """Balanced accuracy, F1 or precision; NaN for the precision of nothing."""
    hits, false = int((predicted & truth).sum()), int((predicted & ~truth).sum())
    if aim == "precision":
        return hits / (hits + false) if hits + false else float("nan")
    if aim == "f1":
        return 2 * hits / max(1, hits + false + int(truth.sum()))
    return (hits / truth.sum() + 1 - false / (~truth).sum()) / 2


def _best(scores: Doubles, truth: NDArray[np.bool_], aim: Aim, floor: float) -> float | None:
    """The best place between two scores, or beyond all; the highest of equally good ones."""
    order = np.argsort(-scores, kind="stable")
    s, hits = scores[order], np.cumsum(truth[order])
    ends = np.append(s[1:] < s[:-1], True)  # only here may a threshold lie: below the score at this place
    false, positives = np.arange(1, len(s) + 1) - hits, hits[-1]
    if aim == "balanced_accuracy":
        value = hits / positives - false / (len(s) - positives)
    elif aim == "f1":
        value = 2 * hits / (hits + false + positives)
    else:
        value = np.where(hits >= floor * (hits + false), hits, 0)
    value = np.where(ends, value, -np.inf)
    best = int(value.argmax())
    if aim == "precision" and value[best] <= 0:
        return None
    return float((s[best] + s[best + 1]) / 2) if best + 1 < len(s) else float(np.nextafter(s[-1], -np.inf))


def _interval(values: list[float]) -> tuple[float, float]:
    known = [value for value in values if np.isfinite(value)]
    low, high = np.quantile(known, (0.05, 0.95)) if known else (np.nan, np.nan)
    return float(low), float(high)
