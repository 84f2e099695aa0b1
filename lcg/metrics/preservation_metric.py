"""Preservation over batches and processes: `lcg.metrics.preservation` as sums."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from lcg.guidance.formula import Formula
from lcg.metrics.estimate import Estimate, estimate_mean, estimate_share, require_rows
from lcg.metrics.formula_metric import check_formula
from lcg.metrics.labels import check_labels
from lcg.metrics.preservation import edit_success, kept
from lcg.metrics.streaming import merge_parts, part_of
from lcg.schema import Schema

NAMES = ("joint_accuracy", "kept", "kept_fine", "edit_success")


class Preservation(Metric):
    """What became of the sources of an edit.

    Args:
        schema: the columns of the labels.
        edit: what was asked for: edits made one after another are their conjunction.
        bound: the largest change outside the edited region that counts as none, in [0, 1]; see `edit_success`.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: the edit was parsed with another schema, or a bound out of range.
    """

    is_differentiable = False
    full_state_update = False
    hits: Tensor
    counts: Tensor
    outside: Tensor

    def __init__(self, schema: Schema, edit: Formula, bound: float = 0.03, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_formula(schema, edit)
        if not 0 <= bound <= 1:
            raise ValueError(f"`bound` must be in [0, 1], got {bound}")
        self.schema, self.edit, self.bound = schema, edit, bound
        for state in ("hits", "counts"):
            self.add_state(state, torch.zeros(len(NAMES), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("outside", torch.zeros(2, 2, dtype=torch.float64), dist_reduce_fx=merge_parts)

    def update(
        self,
        before: Float[Tensor, "n attributes"],
        after: Float[Tensor, "n attributes"],
        outside: Float[Tensor, " n"] | None = None,
    ) -> None:
        """Counts a batch.

        Args:
            before: (N, A) labels of the sources, NaN where a detail does not apply.
            after: (N, A) labels of the results.
            outside: (N,) change outside the edited region, see `l1_outside`; None where no region is known: such
                sources do not count for `l1_outside`, and succeed by their attributes alone.

        Raises:
            TypeError: labels or changes that are not floating point.
            ValueError: labels or changes of another shape, or changes that are not in [0, 1].
        """
        check_labels(self.schema, before=before, after=after)
        n, edited = len(before), self.edit.attributes
        present = self.edit.holds(after)
        coarse = kept(self.schema, before, after, edited)
        fine = kept(self.schema, before, after, edited, ("binary", "categorical"))
        if outside is not None:
            self._check_outside(outside, n)
            self.outside = merge_parts(torch.stack((self.outside, part_of(outside[:, None]))))
        success = edit_success(present, coarse, outside, self.bound)
        self.hits += torch.stack((present, coarse, fine, success)).sum(1)
        self.counts += n

    def compute(self) -> dict[str, Estimate]:
        """`joint_accuracy`, `kept`, `kept_fine`, `edit_success` and `l1_outside`; the last NaN without regions.

        Raises:
            ValueError: no rows were taken in.
        """
        require_rows(self.counts, type(self).__name__)
        shares = {name: estimate_share(*pair) for name, *pair in zip(NAMES, self.hits, self.counts, strict=True)}
        return {**shares, "l1_outside": estimate_mean(self.outside)}

    def _check_outside(self, outside: Tensor, n: int) -> None:
        if not outside.is_floating_point():
            raise TypeError(f"`outside` must be floating point, got {outside.dtype}; see `l1_outside`")
        if outside.shape != (n,):
            raise ValueError(f"`outside` must be ({n},), a change per source, got {tuple(outside.shape)}")
        if not bool(((outside >= 0) & (outside <= 1)).all()):
            raise ValueError("`outside` must be in [0, 1], got other values or NaN; see `l1_outside`")
