"""Combinations that a store never had: what a prior can extrapolate to, but has no conditional for."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from lcg.schema import Attribute, Schema

EXPECTED = 10.0
"""Rows that would have a pair, were its attributes independent, from which it is telling that none has."""

MAX_VALUES = 64
"""Attributes of more values are left out, as each of their pairs is rare."""


def unseen_pairs(schema: Schema, labels: Tensor) -> list[tuple[str, float]]:
    """Pairs of values that no row has, though some should have, were attributes independent.

    Pairs of an attribute and a detail of it are left out: that a bald head has no hair colour is no news.

    Args:
        schema: the attributes, of which continuous ones play no part.
        labels: (N, A), NaN where unknown.

    Returns:
        Each as a formula, and the rows expected of it: n_a n_b / n among the n rows in which both are known. The most
        expected first.
    """
    kept = [a for a in schema.of_kind("binary", "categorical") if len(a.values) <= MAX_VALUES]
    shown = {a.name: _values(a, labels[:, schema.index(a.name)]) for a in kept}
    found = []
    for one, other in combinations(kept, 2):
        if one.name in _parents(other) or other.name in _parents(one):
            continue
        (a, names_a), (b, names_b) = shown[one.name], shown[other.name]
        known = ~labels[:, [schema.index(one.name), schema.index(other.name)]].isnan().any(1)
        a, b = a[known], b[known]
        expected = a.sum(0)[:, None] * b.sum(0) / max(1, len(a))
        for i, j in ((a.T @ b == 0) & (expected >= EXPECTED)).nonzero().tolist():
            found.append((f"{names_a[i]} & {names_b[j]}", float(expected[i, j])))
    return sorted(found, key=lambda pair: -pair[1])


def _parents(attribute: Attribute) -> tuple[str, ...]:
    return *attribute.detail_of, *attribute.applies_if


def _values(attribute: Attribute, column: Tensor) -> tuple[Tensor, list[str]]:
    """Which rows have which value, (N, values) float64, and the formulas of the values."""
    if attribute.kind == "binary":
        names = [f"~{attribute.name}", attribute.name]
    else:
        names = [f"{attribute.name}={value}" for value in attribute.values]
    return (column[:, None] == torch.arange(len(names))).double(), names
