"""Side effects and disentangled edit strength over batches and processes: `lcg.metrics.side_effects` as sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from lcg.metrics.estimate import Estimate, estimate_share, require_rows
from lcg.metrics.labels import check_labels
from lcg.metrics.side_effects import SideEffects, changes, disentangled_edit_strength
from lcg.schema import Schema, unknown_name


class EditCounts(Metric):
    """How often an edit of e was seen to change a, for metrics that are made of that.

    Args:
        schema: the columns of the labels.
        edited: the attributes that are edited, one at a time: the rows.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: no edited attributes, one that is given twice, or one that is unknown.
    """

    is_differentiable = False
    full_state_update = False
    changed: Tensor
    counts: Tensor
    n: Tensor

    def __init__(self, schema: Schema, edited: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not edited or len(set(edited)) < len(edited):
            raise ValueError(f"`edited` must be one or more attributes, all different, got {list(edited)}")
        for name in edited:
            schema.index(name)
        self.schema, self.edited = schema, tuple(edited)
        self.attributes = tuple(attribute.name for attribute in schema.of_kind("binary", "categorical"))
        for state in ("changed", "counts"):
            zeros = torch.zeros(len(edited), len(self.attributes), dtype=torch.int64)
            self.add_state(state, zeros, dist_reduce_fx="sum")
        self.add_state("n", torch.zeros(len(edited), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, edited: str, before: Float[Tensor, "n attributes"], after: Float[Tensor, "n attributes"]) -> None:
        """Counts a batch.

        Args:
            edited: the attribute that was edited.
            before: (N, A) labels of the sources, NaN where a detail does not apply.
            after: (N, A) labels of the results.

        Raises:
            TypeError: labels that are not floating point.
            ValueError: labels of another shape, or an attribute that the metric was not made for.
        """
        check_labels(self.schema, before=before, after=after)
        row = self._row(edited)
        changed, counts = changes(self.schema, edited, before, after)
        self.changed[row] += changed
        self.counts[row] += counts
        self.n[row] += len(before)

    def _row(self, edited: str) -> int:
        if edited not in self.edited:
            raise unknown_name("edited attribute", edited, self.edited, f"this {type(self).__name__}")
        return self.edited.index(edited)


class SideEffectMatrix(EditCounts):
    """The matrix S: row e, column a is the share of the sources on which an edit of e has changed a.

    Args:
        schema: the columns of the labels.
        edited: the attributes that are edited, one at a time: the rows.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: no edited attributes, one that is given twice, or one that is unknown.
    """

    higher_is_better = False

    def compute(self) -> dict[str, dict[str, Estimate]]:
        """Edited attribute to every binary and categorical one to its `Estimate`, `S[e][a]`; NaN on 0 rows if free.

        Raises:
            ValueError: no rows were taken in.
        """
        require_rows(self.n, type(self).__name__)
        return {
            edited: dict(zip(self.attributes, map(estimate_share, changed, counts), strict=True))
            for edited, changed, counts in zip(self.edited, self.changed, self.counts, strict=True)
        }


class DisentangledEditStrength(EditCounts):
    """DES: what each edit brings about less what it breaks, and the mean over edits.

    Args:
        schema: the columns of the labels.
        wanted: edited attribute to the label that is asked for, 0 or 1 or the index of a categorical value.
        loss: what is subtracted, the largest or the mean side effect; see `disentangled_edit_strength`.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: no edits, an unknown attribute, a label that is NaN, or an unknown `loss`.
    """

    higher_is_better = True
    gained: Tensor

    def __init__(
        self, schema: Schema, wanted: Mapping[str, float], loss: Literal["max", "mean"] = "max", **kwargs: Any
    ) -> None:
        super().__init__(schema, tuple(wanted), **kwargs)
        if loss not in ("max", "mean"):
            raise unknown_name("loss", loss, ("max", "mean"), type(self).__name__)
        for name, label in wanted.items():
            if label != label:
                raise ValueError(f"`wanted[{name!r}]` must be the label that was asked for, got nan")
        self.wanted: dict[str, float] = dict(wanted)
        self.loss: Literal["max", "mean"] = loss
        self.add_state("gained", torch.zeros(len(wanted), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, edited: str, before: Float[Tensor, "n attributes"], after: Float[Tensor, "n attributes"]) -> None:
        super().update(edited, before, after)
        row, column, label = self._row(edited), self.schema.index(edited), self.wanted[edited]
        self.gained[row] += (after[:, column] == label).sum() - (before[:, column] == label).sum()

    def compute(self) -> dict[str, Tensor]:
        """`disentangled_edit_strength/NAME` of each edit and, without a name, their mean; float64 in [-2, 1].

        Raises:
            ValueError: an edit of which no rows were taken in.
        """
        for name, n in zip(self.edited, self.n, strict=True):
            require_rows(n, f"{type(self).__name__} of {name!r}")
        effects = SideEffects(self.edited, self.attributes, self.changed.double() / self.counts, self.counts)
        gains = (self.gained.double() / self.n).tolist()
        strength = disentangled_edit_strength(effects, dict(zip(self.edited, gains, strict=True)), self.loss)
        tensors = {
            name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in strength.items()
        }
        key = "disentangled_edit_strength"
        return {key: torch.stack(tuple(tensors.values())).mean(), **{f"{key}/{e}": v for e, v in tensors.items()}}
