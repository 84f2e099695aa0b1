"""Zero-shot accuracy: how well formulas are satisfied of which the training set holds no example.

    accuracy = 1/K sum_k p_k,      stderr = sqrt(sum_k stderr_k^2) / K

over the K formulas that no training row satisfies, where p_k is the joint accuracy of the samples that were asked for
formula k. Every formula counts alike, whatever the
number of its samples, and the standard error is that of the samples, for these formulas and not for others. A training
row satisfies a formula when its known labels decide that it does (`Formula.holds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from lcg.guidance.formula import Formula
from lcg.metrics.estimate import Estimate, estimate_share, require_rows
from lcg.metrics.formula_metric import check_formula
from lcg.metrics.labels import check_labels
from lcg.schema import Schema


def zero_shot_accuracy(accuracy: Mapping[str, Estimate], seen: Mapping[str, bool]) -> Estimate:
    """The mean joint accuracy over the formulas that the training set never satisfies.

    Args:
        accuracy: formula to its joint accuracy.
        seen: formula to whether a training row satisfies it.

    Returns:
        The mean with its standard error; n counts the samples of all formulas that enter it.

    Raises:
        ValueError: the two speak of different formulas, all formulas are seen, or one that is not has no samples.
    """
    if set(accuracy) != set(seen):
        raise ValueError(
            f"`seen` must be of the formulas of `accuracy`, {', '.join(accuracy)}, got {', '.join(seen) or 'none'}"
        )
    unseen = {formula: share for formula, share in accuracy.items() if not seen[formula]}
    if not unseen:
        raise ValueError(
            f"none of {', '.join(accuracy) or 'no formulas'} is unseen, training rows satisfy every one; "
            "ask for combinations that the training set leaves out"
        )
    for formula, share in unseen.items():
        if not share.n:
            raise ValueError(f"`accuracy` of {formula} rests on no samples; draw some, or leave the formula out")
    value = torch.stack([share.value for share in unseen.values()]).mean()
    stderr = torch.stack([share.stderr for share in unseen.values()]).norm() / len(unseen)
    return Estimate(value, stderr, torch.stack([share.n for share in unseen.values()]).sum())


class ZeroShotAccuracy(Metric):
    """`zero_shot_accuracy` of samples, where the training set's labels go by in batches too.

    Args:
        schema: the columns of the labels.
        formulas: those that may be asked for, all different.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: no formulas, one that is given twice, or one that was parsed with another schema.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    examples: Tensor
    hits: Tensor
    n: Tensor

    def __init__(self, schema: Schema, formulas: Sequence[Formula], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.schema, self.formulas = schema, {str(formula): formula for formula in formulas}
        if not formulas or len(self.formulas) < len(formulas):
            raise ValueError(f"`formulas` must be one or more, all different, got {[str(f) for f in formulas]}")
        for formula in formulas:
            check_formula(schema, formula)
        for state in ("examples", "hits", "n"):
            self.add_state(state, torch.zeros(len(formulas), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, labels: Float[Tensor, "n attributes"], asked: Formula | None) -> None:
        """Counts a batch.

        Args:
            labels: (N, A), NaN where unknown.
            asked: the formula that these samples were asked for; None for rows of the training set.

        Raises:
            TypeError: labels that are not floating point.
            ValueError: labels of another shape, or a formula that the metric was not made for.
        """
        check_labels(self.schema, labels=labels)
        if asked is None:
            self.examples += torch.stack([formula.holds(labels).sum() for formula in self.formulas.values()])
            return
        if str(asked) not in self.formulas:
            raise ValueError(f"`asked` must be None or one of {', '.join(self.formulas)}, got {asked}")
        row = list(self.formulas).index(str(asked))
        self.hits[row] += asked.holds(labels).sum()
        self.n[row] += len(labels)

    def compute(self) -> Estimate:
        """The mean over the formulas without examples.

        Raises:
            ValueError: no samples were taken in, every formula has examples, or one that has none has no samples.
        """
        require_rows(self.n, type(self).__name__)
        shares = map(estimate_share, self.hits, self.n)
        seen = map(bool, self.examples)
        return zero_shot_accuracy(
            dict(zip(self.formulas, shares, strict=True)), dict(zip(self.formulas, seen, strict=True))
        )
