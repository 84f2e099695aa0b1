"""Ways to choose a rule's threshold on data, each a class that a configuration names.

Without labels: a fixed number, a quantile where the share of positives is known, or the place where two groups of
scores part (`lcg.labels.bimodal`). With some labels: the best threshold for an aim (`lcg.labels.cutting`), or a
calibration to probabilities with the threshold at one half (`lcg.labels.calibrating`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcg.labels.bimodal import Doubles, fit_mixture, otsu
from lcg.labels.calibrating import platt
from lcg.labels.cutting import Aim, best_cut
from lcg.labels.rules import Threshold, logit


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what is to be known of it.

    Attributes:
        settings: of the `Threshold`, those that are chosen.
        told: in JSON primitives.
        doubts: sentences on why it should not be trusted; none where nothing is wrong.
    """

    settings: dict[str, Any]
    told: dict[str, Any]
    doubts: tuple[str, ...] = ()


class Method(ABC):
    """Chooses a threshold."""

    needs_labels = False

    @abstractmethod
    def choose(self, scores: Doubles, labels: Doubles, probabilities: bool) -> Choice:
        """The choice on scores (N,), finite, with labels (N,) of 0 and 1, NaN where unknown.

        Args:
            scores: of images.
            labels: of the same; all NaN where nobody knows.
            probabilities: whether scores are probabilities in [0, 1].

        Raises:
            ValueError: the data do not allow one.
        """

    def apply(self, rule: Threshold, scores: NDArray[Any], labels: NDArray[Any]) -> tuple[Threshold, Choice]:
        """The rule with the chosen settings, and the choice.

        Raises:
            ValueError: the data do not allow one, or no image has a score.
        """
        s, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
        finite = np.isfinite(s)
        if not finite.any():
            raise ValueError(f"no image of {len(s)} has a finite score; look at other images")
        if self.needs_labels and not np.isfinite(y[finite]).any():
            raise ValueError(
                f"{type(self).__name__} needs images whose labels are known, got none; give a table with this column, "
                "or choose Quantile, Otsu or Mixture"
            )
        choice = self.choose(s[finite], y[finite], rule.probability and rule.platt is None)
        told = {"method": type(self).__name__, **choice.told, "images": int(finite.sum())}
        if choice.doubts:
            told["doubts"] = list(choice.doubts)
        return Threshold(**{**rule.settings(), **choice.settings}), Choice(choice.settings, told, choice.doubts)


class Fixed(Method):
    """A number.

    Args:
        threshold: in the score's units.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def choose(self, scores: Doubles, labels: Doubles, probabilities: bool) -> Choice:
        return Choice(_raw(self.threshold), {"positive": float((scores > self.threshold).mean())})


class Quantile(Method):
    """So that a known share is positive.

    Args:
        share: of positives, in (0, 1).

    Raises:
        ValueError: the share is out of range.
    """

    def __init__(self, share: float) -> None:
        if not 0 < share < 1:
            raise ValueError(f"`share` of positives must be in (0, 1), got {share}")
        self.share = share

    def choose(self, scores: Doubles, labels: Doubles, probabilities: bool) -> Choice:
        threshold = float(np.quantile(scores, 1 - self.share))
        share = float((scores > threshold).mean())
        doubts = (
            ()
            if abs(share - self.share) < 0.01 + 1 / len(scores)
            else (f"many scores are equal: {share:.1%} are positive",)
        )
        return Choice(_raw(threshold), {"share": self.share, "positive": share}, doubts)


class Otsu(Method):
    """Where the variance between both sides is largest; probabilities are taken in logits."""

    def choose(self, scores: Doubles, labels: Doubles, probabilities: bool) -> Choice:
        x = logit(scores) if probabilities else scores
        threshold, explained = otsu(x)
        bimodal = fit_mixture(x).bimodal(x)
        told = {"explained_variance": explained, "bimodal": bimodal, "positive": float((x > threshold).mean())}
        return Choice(_raw(_back(threshold, probabilities)), told, _doubts(bimodal))


class Mixture(Method):
    """Where two normal distributions, fitted to the scores, are as probable; probabilities are taken in logits."""

    def choose(self, scores: Doubles, labels: Doubles, probabilities: bool) -> Choice:
        x = logit(scores) if probabilities else scores
        mixture = fit_mixture(x)
        bimodal = mixture.bimodal(x)
        told = {
            "weights": mixture.weights.tolist(),
            "means": mixture.means.tolist(),
            "deviations": mixture.deviations.tolist(),
            "bimodal": bimodal,
            "positive": float((x > mixture.threshold).mean()),
        }
        return Choice(_raw(_back(mixture.threshold, probabilities)), told, _doubts(bimodal))


class Labelled(Method):
    """What serves best on labelled images.

    Args:
        aim: balanced_accuracy, f1, or precision: then as many positives as possible with a precision of `floor`.
        floor: least precision.
        draws: bootstrap samples for the intervals.
        seed: of their draw.

    Raises:
        ValueError: `floor` is out of range, or there are no draws.
    """

    needs_labels = True

    def __init__(self, aim: Aim = "balanced_accuracy", floor: float = 0.9, draws: int = 200, seed: int = 0) -> None:
        if not 0 < floor <= 1:
            raise ValueError(f"`floor` of the precision must be in (0, 1], got {floor}")
        if draws < 1:
            raise ValueError(f"`draws` must be >= 1, got {draws}")
        self.aim, self.floor, self.draws, self.seed = aim, floor, draws, seed

    def choose(self, scores: Doubles, labels: Doubles, probabilities: bool) -> Choice:
        known = np.isfinite(labels)
        cut = best_cut(scores[known], labels[known], self.aim, self.floor, self.draws, self.seed)
        told = {
            "aim": self.aim,
            self.aim: cut.figure,
            f"{self.aim}_interval": list(cut.figure_interval),
            "threshold_interval": list(cut.interval),
            "recall": cut.recall,
            "labelled": int(known.sum()),
        }
        return Choice(_raw(cut.threshold), told, _few(labels[known]))


class Platt(Method):
    """Probabilities by logistic regression on labelled images; positive from one half.

    Args:
        band: half the width, in probability, of the range around one half that is left open.
    """

    needs_labels, intercept = True, True

    def __init__(self, band: float = 0.0) -> None:
        self.band = band

    def choose(self, scores: Doubles, labels: Doubles, probabilities: bool) -> Choice:
        known = np.isfinite(labels)
        x = logit(scores) if probabilities else scores
        slope, offset = platt(x[known], labels[known], self.intercept)
        doubts = _few(labels[known])
        if slope <= 0:
            doubts = (
                *doubts,
                "larger scores do not make the label more probable: the score says nothing, or the opposite",
            )
        settings = {"threshold": 0.5, "band": self.band, "platt": [slope, offset], "logit": probabilities}
        return Choice(settings, {"labelled": int(known.sum())}, doubts)


class Temperature(Platt):
    """As `Platt`, with a slope alone; for scores whose zero, or one half, is right."""

    intercept = False


def _raw(threshold: float) -> dict[str, Any]:
    """Settings of a threshold of the score as it is."""
    return {"threshold": threshold, "platt": None, "logit": False}


def _back(x: float, probabilities: bool) -> float:
    return float(1 / (1 + np.exp(-x))) if probabilities else x


def _doubts(bimodal: bool) -> tuple[str, ...]:
    return () if bimodal else ("scores are not bimodal: nothing in them says where the threshold belongs",)


def _few(labels: Doubles) -> tuple[str, ...]:
    least = int(min((labels > 0.5).sum(), (labels <= 0.5).sum()))
    return (f"only {least} labelled images of the rarer kind",) if least < 20 else ()
