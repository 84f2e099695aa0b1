"""Satisfaction of a formula: the share of samples that satisfy it, what each atom adds, and what comes along unasked.

A joint accuracy that is low says nothing of why. The marginals do: of the formula's own atoms they tell which one
fails, and of the other binary attributes whether asking for some brings others along that nobody asked for, when they
are compared with the training set's (`lcg.metrics.reference.marginals`).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric

from lcg.guidance.formula import Formula
from lcg.metrics.estimate import Estimate, estimate_share, require_rows
from lcg.metrics.labels import check_labels
from lcg.schema import Schema


def satisfaction(
    schema: Schema, formula: Formula, labels: Float[Tensor, "n attributes"]
) -> dict[str, Bool[Tensor, " n"]]:
    """Which samples satisfy a formula, which its atoms, and which have the binary attributes that it does not name.

    Args:
        schema: the columns, with which the formula was parsed.
        formula: what was asked for.
        labels: (N, A) of the samples, NaN where unknown: what is unknown is not satisfied.

    Returns:
        `joint_accuracy`, `marginal/ATOM` for each different atom and `marginal/NAME` for every other binary attribute,
        each (N,).

    Raises:
        ValueError: labels without a column that the formula needs.
    """
    hits = {"joint_accuracy": formula.holds(labels)}
    for atom in formula.atoms():
        hits[f"marginal/{atom}"] = atom.holds(labels)
    for attribute in schema.of_kind("binary"):
        if attribute.name not in formula.attributes:
            hits[f"marginal/{attribute.name}"] = labels[:, schema.index(attribute.name)] > 0.5
    return hits


def check_formula(schema: Schema, formula: Formula) -> None:
    """Raises ValueError for a formula that was parsed with a schema of other columns."""
    for atom in formula.atoms():
        if schema.index(atom.name) != atom.column:
            raise ValueError(
                f"`formula` must have {atom.name!r} in column {schema.index(atom.name)}, as the schema has, got column "
                f"{atom.column}; parse it with this schema"
            )


class FormulaSatisfaction(Metric):
    """Shares of the samples for which `satisfaction` holds.

    Args:
        schema: the columns of the labels.
        formula: what was asked for.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: the formula was parsed with another schema.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    hits: Tensor
    n: Tensor

    def __init__(self, schema: Schema, formula: Formula, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_formula(schema, formula)
        self.schema, self.formula = schema, formula
        self.names = tuple(satisfaction(schema, formula, torch.empty(0, len(schema))))
        self.add_state("hits", torch.zeros(len(self.names), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, labels: Float[Tensor, "n attributes"]) -> None:
        """Counts the labels (N, A) of a batch of samples, NaN where unknown.

        Raises:
            TypeError: labels that are not floating point.
            ValueError: labels of another shape.
        """
        check_labels(self.schema, labels=labels)
        self.hits += torch.stack(tuple(satisfaction(self.schema, self.formula, labels).values())).sum(1)
        self.n += len(labels)

    def compute(self) -> dict[str, Estimate]:
        """The shares, by the names of `satisfaction`.

        Raises:
            ValueError: no rows were taken in.
        """
        require_rows(self.n, type(self).__name__)
        return {name: estimate_share(hits, self.n) for name, hits in zip(self.names, self.hits, strict=True)}
