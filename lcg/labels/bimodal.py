"""Two groups in scores without labels: where they part, and whether there are two at all.

Otsu: the threshold that makes the variance between the two sides largest,

    max_c  P(s <= c) P(s > c) (E[s | s > c] - E[s | s <= c])^2,

exactly, over all places between two scores (Otsu 1979, "A threshold selection method from gray-level histograms").

Mixture: w_0 N(m_0, v_0) + w_1 N(m_1, v_1), fitted by expectation maximisation; the threshold is where, between the
means, both components are as probable: Bayes' decision if scores are distributed so.

Both find a threshold for whatever they are given, so it is told beside it whether scores are bimodal: two components
describe them better than one by the Bayesian information criterion, and there is a valley between: somewhere between
the means a window of a quarter of their distance holds less than `VALLEY` of what it holds at either mean. Scores that
are skewed, or flat, pass the first test and not the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
STEPS = 500
GRID = 2001
PLACES = 25
VALLEY = 0.7
SMALLEST = 1e-3
"""Least standard deviation of a component, as a share of that of all scores: a component on one point has no end."""


@dataclass(frozen=True)
class Mixture:
    """Two normal distributions, the one with the lower mean first.

    Attributes:
        weights: (2,), sum 1.
        means: (2,), ascending.
        deviations: (2,), > 0.
        gain: by how much the Bayesian information criterion prefers two components to one; negative against.
    """

    weights: Doubles
    means: Doubles
    deviations: Doubles
    gain: float

    def log_density(self, s: Doubles) -> Doubles:
        """log w_k N(s; m_k, v_k) of each component, (..., 2)."""
        u = (s[..., None] - self.means) / self.deviations
        return np.log(self.weights) - np.log(self.deviations) - 0.5 * u**2 - 0.5 * np.log(2 * np.pi)

    @property
    def threshold(self) -> float:
        """Where both components are as probable, between the means; the middle where that is nowhere."""
        s = np.linspace(self.means[0], self.means[1], GRID)
        difference = self.log_density(s) @ np.array([-1.0, 1.0])
        if not difference[0] < 0 < difference[-1]:
            return float(self.means.mean())
        right = int((difference > 0).argmax())
        low, high = difference[right - 1], difference[right]
        return float(s[right - 1] - low / (high - low) * (s[right] - s[right - 1]))

    def bimodal(self, scores: Doubles) -> bool:
        """Whether the scores (N,) that it was fitted to come in two groups."""
        low, high = self.means
        if self.gain <= 0 or low == high:
            return False
        s, half = np.sort(scores), (high - low) / 8
        centres = np.linspace(low, high, PLACES)
        counts = np.searchsorted(s, centres + half, side="right") - np.searchsorted(s, centres - half, side="left")
        return bool(counts.min() < VALLEY * min(counts[0], counts[-1]))


def otsu(scores: Doubles) -> tuple[float, float]:
    """The threshold, in the middle of the gap, and the share of the variance that it explains, in [0, 1].

    Args:
        scores: (N,), finite.

    Raises:
        ValueError: all scores are equal.
    """
    s = np.sort(_varied(scores))
    count, below = len(s), np.arange(1, len(s))
    low = np.cumsum(s)[:-1] / below
    high = (s.sum() - np.cumsum(s)[:-1]) / (count - below)
    between = below * (count - below) * (high - low) ** 2 / count**2
    between[s[1:] == s[:-1]] = -1.0  # no threshold parts equal scores
    best = int(between.argmax())
    return float((s[best] + s[best + 1]) / 2), float(between[best] / s.var())


def fit_mixture(scores: Doubles) -> Mixture:
    """Two components by expectation maximisation, begun at Otsu's threshold.

    Args:
        scores: (N,), finite.

    Raises:
        ValueError: all scores are equal.
    """
    s = _varied(scores)
    floor = SMALLEST * s.std()
    high = (s > otsu(s)[0]).astype(np.float64)
    previous = -np.inf
    for _ in range(STEPS):
        share = np.stack([1 - high, high])
        sizes = share.sum(1).clip(1e-9)
        means = share @ s / sizes
        deviations = np.sqrt((share * (s - means[:, None]) ** 2).sum(1) / sizes).clip(floor)
        fitted = Mixture((sizes / sizes.sum()).clip(1e-12), means, deviations, 0.0)
        parts = fitted.log_density(s)
        total = np.logaddexp.reduce(parts, axis=-1)
        high = np.exp(parts[:, 1] - total)
        if total.sum() - previous < 1e-9 * len(s):
            break
        previous = total.sum()
    one = -0.5 * len(s) * (np.log(2 * np.pi * s.var()) + 1)
    gain = 2 * (total.sum() - one) - 3 * np.log(len(s))  # five parameters in the place of two
    order = np.argsort(fitted.means)
    return Mixture(fitted.weights[order], fitted.means[order], fitted.deviations[order], float(gain))


def _varied(scores: Doubles) -> Doubles:
    s = np.asarray(scores, np.float64)
    if len(s) < 2 or s.min() == s.max():
        raise ValueError(
            f"`scores` must differ to be parted into two groups, got {len(s)} equal ones; look at more images"
        )
    return s
