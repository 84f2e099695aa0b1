"""Accuracy and calibration of the time-conditioned classifier, per attribute and noise band.

Guidance follows the gradient of log p_phi(y | z_t, t), so it is only as good as those probabilities are honest. The
expected calibration error compares the probability of the predicted label with how often it is right (Guo et al. 2017,
arXiv:1706.04599, equation 3),

    ECE = sum_b (n_b / n) |accuracy_b - confidence_b|      over bins b of confidence.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lcg.nets.heads import HeadOutputs
from lcg.schema import Schema


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

    def __init__(self, schema: Schema, bands: int, bins: int = 15, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.schema, self.bands, self.bins = schema, bands, bins
        self.attributes = schema.of_kind("binary", "categorical")
        for state in ("count", "confidence", "correct"):
            zeros = torch.zeros(len(self.attributes), bands, bins, dtype=torch.float64)
            self.add_state(state, default=zeros, dist_reduce_fx="sum")

    def update(self, outputs: HeadOutputs, labels: Tensor, band: int) -> None:
        """Counts a batch.

        Args:
            outputs: raw head outputs at times within the band.
            labels: (B, A), NaN where missing.
            band: which band.
        """
        for row, attribute in enumerate(self.attributes):
            y = labels[:, self.schema.index(attribute.name)]
            known = ~y.isnan()
            output = outputs[attribute.name].detach()[known].float()
            if attribute.kind == "binary":
                output = torch.stack((torch.zeros_like(output), output), dim=-1)
            confidence, predicted = output.softmax(-1).max(-1)
            bin_ = (confidence * self.bins).long().clamp(max=self.bins - 1)
            for state, value in (
                (self.count, torch.ones_like(confidence)),
                (self.confidence, confidence),
                (self.correct, (predicted == y[known].long())),
            ):
                state[row, band].index_add_(0, bin_, value.double())

    def compute(self) -> dict[str, Tensor]:
        """`accuracy` and `ece`, each (attributes, bands)."""
        return {
            "accuracy": self.correct.sum(-1) / self.count.sum(-1),
            "ece": expected_calibration_error(self.count, self.confidence, self.correct),
        }
