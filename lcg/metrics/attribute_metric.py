"""Accuracy of attributes over batches and processes: `lcg.metrics.accuracy` as sums."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from lcg.metrics.accuracy import right_labels
from lcg.metrics.estimate import Estimate, estimate_share, require_rows
from lcg.metrics.labels import check_labels
from lcg.schema import Schema


class AttributeAccuracy(Metric):
    """How often each attribute is as wanted, and all binary ones together; what counts is said in `right_labels`.

    Args:
        schema: the attributes; continuous ones are passed over.
        **kwargs: of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    right: Tensor
    counts: Tensor
    n: Tensor

    def __init__(self, schema: Schema, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.schema = schema
        self.names = (*(f"accuracy/{a.name}" for a in schema.of_kind("binary", "categorical")), "joint_accuracy")
        for state in ("right", "counts"):
            self.add_state(state, torch.zeros(len(self.names), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Float[Tensor, "n attributes"], wanted: Float[Tensor, "n attributes"]) -> None:
        """Counts a batch.

        Args:
            predicted: (N, A) labels of the samples, NaN where a detail does not apply.
            wanted: (N, A) labels asked for, NaN where anything will do.

        Raises:
            TypeError: labels that are not floating point.
            ValueError: labels of another shape.
        """
        check_labels(self.schema, predicted=predicted, wanted=wanted)
        right, counts = right_labels(self.schema, predicted, wanted)
        self.right += right.sum(0)
        self.counts += counts.sum(0)
        self.n += len(wanted)

    def compute(self) -> dict[str, Estimate]:
        """`accuracy/NAME` of each attribute and `joint_accuracy`; NaN on 0 rows for one of which no label was wanted.

        Raises:
            ValueError: no rows were taken in.
        """
        require_rows(self.n, type(self).__name__)
        return {name: estimate_share(*pair) for name, *pair in zip(self.names, self.right, self.counts, strict=True)}
