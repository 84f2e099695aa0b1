"""Accuracy and calibration of the time-conditioned classifier, per attribute and noise band.

Guidance follows the gradient of log p_phi(y | z_t, t), so it is only as good as those probabilities are honest. The
expected calibration error compares the probability of the predicted label with how often it is right (Guo et al. 2017,
arXiv:1706.04599, equation 3),

    ECE = sum_b (n_b / n) |accuracy_b - confidence_b|      over bins b of confidence.

An honest classifier has an error too, as a share of n_b right predictions scatters: `expected_by_chance`.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric

from lcg.nets.heads import Outputs, independent
from lcg.schema import Attribute, Schema

BINS = 15
"""Bins of confidence in [0, 1], as many as Guo et al. use."""


def top_label(
    attribute: Attribute, output: Tensor, label: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """How probable a binary or categorical attribute's most probable value is, and whether it is the true one.

    Args:
        attribute: which attribute.
        output: logits, binary (n,) or categorical (n, C).
        label: (n,), all known.
    """
    if attribute.kind == "binary":
        output = torch.stack((torch.zeros_like(output), output), dim=-1)
    confidence, predicted = output.softmax(-1).max(-1)
    return confidence, predicted == label.long()


def bin_of(confidence: Float[Tensor, " n"], bins: int = BINS) -> Tensor:
    """(n,) int64, which bin of [0, 1] a confidence falls into."""
    return (confidence * bins).long().clamp(max=bins - 1)


def expected_calibration_error(count: Tensor, confidence: Tensor, correct: Tensor) -> Tensor:
    """ECE from sums per bin of confidence.

    Args:
        count: (..., bins) how many predictions fell into each bin.
        confidence: (..., bins) sum of their probabilities.
        correct: (..., bins) how many were right.

    Returns:
        (...), in [0, 1]; NaN without predictions.
    """
    return (correct - confidence).abs().sum(-1) / count.sum(-1)


def expected_by_chance(count: Tensor, confidence: Tensor) -> Tensor:
    """The ECE to expect of honest probabilities: |N(0, n_b c_b (1 - c_b))| has the mean sqrt(2/pi n_b c_b (1 - c_b)).

    Args:
        count: (..., bins) how many predictions fell into each bin.
        confidence: (..., bins) sum of their probabilities.

    Returns:
        (...), in [0, 1]; NaN without predictions.
    """
    variance = confidence * (1 - confidence / count.clamp(min=1))
    return (2 / math.pi * variance.clamp(min=0)).sqrt().sum(-1) / count.sum(-1)


class BandedCalibration(Metric):
    """Accuracy and expected calibration error per attribute and noise band, for binary and categorical attributes.

    Args:
        schema: the attributes; continuous ones are passed over.
        bands: number of noise bands.
        bins: bins of confidence in [0, 1].
    """

    full_state_update = False
    count: Tensor
    confidence: Tensor
    correct: Tensor

    def __init__(self, schema: Schema, bands: int, bins: int = BINS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.schema, self.bands, self.bins = schema, bands, bins
        self.attributes = schema.of_kind("binary", "categorical")
        for state in ("count", "confidence", "correct"):
            zeros = torch.zeros(len(self.attributes), bands, bins, dtype=torch.float64)
            self.add_state(state, default=zeros, dist_reduce_fx="sum")

    def update(self, outputs: Outputs, labels: Tensor, band: int) -> None:
        """Counts a batch.

        Args:
            outputs: raw head outputs at times within the band.
            labels: (B, A), NaN where missing.
            band: which band.
        """
        heads = independent(outputs)
        for row, attribute in enumerate(self.attributes):
            y = labels[:, self.schema.index(attribute.name)]
            known = ~y.isnan()
            confidence, correct = top_label(attribute, heads[attribute.name].detach()[known].float(), y[known])
            bin_ = bin_of(confidence, self.bins)
            for state, value in (
                (self.count, torch.ones_like(confidence)),
                (self.confidence, confidence),
                (self.correct, correct),
            ):
                state[row, band].index_add_(0, bin_, value.double())

    def compute(self) -> dict[str, Tensor]:
        """`accuracy` and `ece`, each (attributes, bands)."""
        return {
            "accuracy": self.correct.sum(-1) / self.count.sum(-1),
            "ece": expected_calibration_error(self.count, self.confidence, self.correct),
        }
