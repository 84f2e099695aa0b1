"""Rules: how scores become a label.

    binary       y = [s > c]                      NaN where |s - c| < band
    ordinal      y = #{k: s > c_k}                NaN where min_k |s - c_k| < band
    categorical  y = arg max_v s_v                NaN where the best two are closer than `margin`
    continuous   y = (s - low) / (high - low)

A binary rule may calibrate its score first, to a probability p = sigmoid(slope x + intercept), with x the score itself
or, of a score in [0, 1], its logit (Platt 1999, "Probabilistic outputs for support vector machines"); then s is p.

A rule knows numbers only: which score it reads is said by the scores' names. The score of attribute `smile` is `smile`
unless the rule names another one, those of a categorical attribute `hair` are `hair=blond`, `hair=red`, ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lcg.labels.base import Floats
from lcg.schema import Attribute, unknown_name

EDGE = 1e-6
"""Scores in [0, 1] are kept so far from both ends before their logit is taken."""


class Rule(ABC):
    """Turns scores into labels of one attribute."""

    @abstractmethod
    def reads(self, name: str, known: Sequence[str]) -> tuple[str, ...]:
        """The scores, in the order in which they are wanted, for attribute `name`.

        Raises:
            ValueError: one of them is not among the `known`.
        """

    @abstractmethod
    def attribute(self, name: str, read: Sequence[str]) -> Attribute:
        """What the labels mean, given the names of the scores that are read."""

    @abstractmethod
    def labels(self, scores: Floats) -> Floats:
        """Labels (N,) of scores (N, K), NaN where unknown."""

    def margins(self, scores: Floats) -> Floats:
        """How far each is from where its label would change (N,), >= 0; NaN where there is no such place."""
        return np.full(len(scores), np.nan, np.float32)

    def probabilities(self, scores: Floats) -> Floats:
        """Of a binary attribute being 1 (N,), NaN where the rule gives none."""
        return np.full(len(scores), np.nan, np.float32)

    def places(self) -> tuple[float, ...]:
        """Scores at which the label changes, ascending; for pictures."""
        return ()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, in JSON primitives."""


class OneScore(Rule):
    """A rule that reads one score.

    Args:
        score: its name; None for that of the attribute.
    """

    def __init__(self, score: str | None = None) -> None:
        self.score = score

    def reads(self, name: str, known: Sequence[str]) -> tuple[str, ...]:
        return (_found(self.score or name, known, name),)


class Threshold(OneScore):
    """A binary attribute: 1 where the score is larger than the threshold.

    Args:
        threshold: c, in the score's units, or a probability where the score is calibrated.
        score: its name; None for that of the attribute.
        band: half the width of the range around the threshold in which the label is left open.
        platt: slope and intercept of the calibration; None to take scores as they are.
        logit: whether the calibration begins with the logit of the score, which then is in [0, 1].
        probability: whether scores are probabilities as they are; calibrated ones always are.

    Raises:
        ValueError: the band is negative, or `platt` are not two numbers.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        score: str | None = None,
        band: float = 0.0,
        platt: list[float] | None = None,
        logit: bool = False,
        probability: bool = False,
    ) -> None:
        super().__init__(score)
        if platt is not None and len(platt) != 2:
            raise ValueError(f"`platt` must be slope and intercept, got {platt}; give two numbers or leave it out")
        self.threshold, self.band, self.logit = threshold, _not_negative("band", band), logit
        self.platt = None if platt is None else [float(number) for number in platt]
        self.probability = probability

    def attribute(self, name: str, read: Sequence[str]) -> Attribute:
        return Attribute(name)

    def labels(self, scores: Floats) -> Floats:
        s = self._calibrated(scores)
        return _open(s > self.threshold, np.isnan(s) | (np.abs(s - self.threshold) < self.band))

    def margins(self, scores: Floats) -> Floats:
        return np.abs(self._calibrated(scores) - self.threshold).astype(np.float32)

    def probabilities(self, scores: Floats) -> Floats:
        if self.platt is None and not self.probability:
            return super().probabilities(scores)
        return self._calibrated(scores).astype(np.float32)

    def places(self) -> tuple[float, ...]:
        """Of the score itself, before any calibration."""
        if self.platt is None:
            return (self.threshold,)
        slope, intercept = self.platt
        if slope == 0 or not 0 < self.threshold < 1:
            return ()
        x = (float(np.log(self.threshold / (1 - self.threshold))) - intercept) / slope
        return (float(1 / (1 + np.exp(-x))) if self.logit else x,)

    def settings(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "score": self.score,
            "band": self.band,
            "platt": self.platt,
            "logit": self.logit,
            "probability": self.probability,
        }

    def _calibrated(self, scores: Floats) -> np.ndarray:
        s = scores[:, 0].astype(np.float64)
        if self.platt is None:
            return s
        slope, intercept = self.platt
        u = slope * (logit(s) if self.logit else s) + intercept
        return np.asarray(np.exp(-np.logaddexp(0, -u)))


class Cuts(OneScore):
    """An ordinal attribute: how many of the cut points the score is larger than.

    Args:
        cuts: ascending, in the score's units.
        values: the names of the values from low to high, one more than cuts.
        score: its name; None for that of the attribute.
        band: half the width of the range around a cut point in which the label is left open.

    Raises:
        ValueError: the cuts do not ascend, the names are not one more, or the band is negative.
    """

    def __init__(self, cuts: list[float], values: list[str], score: str | None = None, band: float = 0.0) -> None:
        super().__init__(score)
        if not cuts or any(b <= a for a, b in pairwise(cuts)):
            raise ValueError(f"`cuts` must be ascending numbers, at least one, got {cuts}; sort them")
        if len(values) != len(cuts) + 1:
            raise ValueError(f"`values` must be {len(cuts) + 1} names, one more than `cuts`, got {values}")
        self.cuts, self.values = [float(cut) for cut in cuts], list(values)
        self.band = _not_negative("band", band)

    def attribute(self, name: str, read: Sequence[str]) -> Attribute:
        return Attribute(name, "categorical", tuple(self.values), ordered=True)

    def labels(self, scores: Floats) -> Floats:
        s = scores[:, 0].astype(np.float64)
        return _open(np.searchsorted(self.cuts, s, side="left"), np.isnan(s) | (self.margins(scores) < self.band))

    def margins(self, scores: Floats) -> Floats:
        return np.abs(scores[:, :1].astype(np.float64) - self.cuts).min(1).astype(np.float32)

    def places(self) -> tuple[float, ...]:
        return tuple(self.cuts)

    def settings(self) -> dict[str, Any]:
        return {"cuts": self.cuts, "values": self.values, "score": self.score, "band": self.band}


class ArgMax(Rule):
    """A categorical attribute: the value with the largest score.

    Args:
        values: names of the values; None for those that the scores `attribute=value` name.
        scores: the score of each value; None for `attribute=value`.
        margin: how much larger than the second the largest must be; the label is left open otherwise.
        ordered: whether the values are in ascending order.

    Raises:
        ValueError: `scores` without `values` or of another number, or the margin is negative.
    """

    def __init__(
        self,
        values: list[str] | None = None,
        scores: list[str] | None = None,
        margin: float = 0.0,
        ordered: bool = False,
    ) -> None:
        if scores is not None and (values is None or len(values) != len(scores)):
            raise ValueError(f"`scores` must be one for each of `values`, got {scores} for {values}; name both")
        self.values, self.scores, self.margin = values, scores, _not_negative("margin", margin)
        self.ordered = ordered

    def reads(self, name: str, known: Sequence[str]) -> tuple[str, ...]:
        if self.scores is not None:
            return tuple(_found(score, known, name) for score in self.scores)
        if self.values is not None:
            return tuple(_found(f"{name}={value}", known, name) for value in self.values)
        found = tuple(score for score in known if score.startswith(f"{name}="))
        return found or (_found(f"{name}=...", known, name),)

    def attribute(self, name: str, read: Sequence[str]) -> Attribute:
        values = self.values or [score.partition("=")[2] for score in read]
        return Attribute(name, "categorical", tuple(values), ordered=self.ordered)

    def labels(self, scores: Floats) -> Floats:
        return _open(scores.argmax(1), np.isnan(scores).any(1) | (self.margins(scores) < self.margin))

    def margins(self, scores: Floats) -> Floats:
        best = np.sort(scores, axis=1)[:, -2:]
        return np.asarray(best[:, 1] - best[:, 0])

    def settings(self) -> dict[str, Any]:
        return {"values": self.values, "scores": self.scores, "margin": self.margin, "ordered": self.ordered}


class Linear(OneScore):
    """A continuous attribute: (score - low) / (high - low), so that `low` becomes 0 and `high` becomes 1.

    Args:
        low: the score of label 0.
        high: the score of label 1.
        score: its name; None for that of the attribute.
        clip: whether labels are kept in [0, 1].

    Raises:
        ValueError: `low` and `high` are equal.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0, score: str | None = None, clip: bool = False) -> None:
        super().__init__(score)
        if low == high:
            raise ValueError(f"`low` and `high` must differ, both are {low}; give the scores of labels 0 and 1")
        self.low, self.high, self.clip = low, high, clip

    def attribute(self, name: str, read: Sequence[str]) -> Attribute:
        return Attribute(name, "continuous")

    def labels(self, scores: Floats) -> Floats:
        y = (scores[:, 0].astype(np.float64) - self.low) / (self.high - self.low)
        return (y.clip(0, 1) if self.clip else y).astype(np.float32)

    def settings(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "score": self.score, "clip": self.clip}


def default_rules(names: Sequence[str], probabilities: bool) -> dict[str, Rule]:
    """For scores without rules: `a` a threshold, at 0.5 for probabilities and at 0 otherwise; `a=v` the arg max."""
    rules: dict[str, Rule] = {}
    for name in names:
        attribute, equals, _ = name.partition("=")
        if equals:
            rules[attribute] = ArgMax()
        else:
            rules[attribute] = Threshold(0.5 if probabilities else 0.0, probability=probabilities)
    return rules


def logit(p: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) with p kept `EDGE` away from 0 and 1."""
    inner = np.clip(p, EDGE, 1 - EDGE)
    return np.asarray(np.log(inner) - np.log1p(-inner))


def _open(labels: np.ndarray, unknown: np.ndarray) -> Floats:
    return np.where(unknown, np.nan, labels).astype(np.float32)


def _found(score: str, known: Sequence[str], attribute: str) -> str:
    if score not in known:
        raise unknown_name(f"score (of {attribute!r})", score, known, "the scorer")
    return score


def _not_negative(name: str, value: float) -> float:
    if value < 0:
        raise ValueError(f"`{name}` must be >= 0, got {value}; 0 leaves nothing open")
    return value
