"""Figures of labels: how balanced they are, how they depend on each other, how far two tables agree.

Dependence of two attributes, in [0, 1] but for the last, over the images where both are known:
  two with values          Cramer's V without its bias (Bergsma 2013, "A bias-correction for Cramer's V")
  values and a number      the correlation ratio eta, sqrt(variance between the values' means / variance)
  two numbers              Pearson's r, in [-1, 1]; so is it for two binary attributes, where it carries the sign

Agreement beyond chance: Cohen's kappa = (p_o - p_e) / (1 - p_e), for ordered values with quadratic weights (Cohen 1960,
1968); for numbers the concordance coefficient 2 s_ab / (s_a^2 + s_b^2 + (m_a - m_b)^2) (Lin 1989), to which weighted
kappa comes down.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcg.labels.base import Floats
from lcg.schema import Attribute, Schema

Doubles = NDArray[np.float64]
SUPPORT = 20
"""Fewer images of a combination are few to learn it from."""


def balance(attribute: Attribute, labels: Floats) -> dict[str, Any]:
    """What the labels (N,) of an attribute come to, in JSON primitives."""
    known = labels[np.isfinite(labels)]
    told: dict[str, Any] = {
        "kind": attribute.kind,
        "known": len(known),
        "missing": 1 - len(known) / max(1, len(labels)),
    }
    if attribute.kind == "continuous":
        if len(known):
            quantiles = np.quantile(known, (0, 0.05, 0.5, 0.95, 1)).tolist()
            told |= {"mean": float(known.mean()), "deviation": float(known.std()), "quantiles": quantiles}
        return told
    counts = np.bincount(known.astype(np.int64), minlength=len(names_of(attribute)))
    return told | {"counts": dict(zip(names_of(attribute), counts.tolist(), strict=True))}


def names_of(attribute: Attribute) -> tuple[str, ...]:
    """The values of a binary or categorical attribute, in label order."""
    return ("no", "yes") if attribute.kind == "binary" else attribute.values


def dependences(schema: Schema, labels: Floats) -> Doubles:
    """(A, A), symmetric, 1 on the diagonal; NaN where too little is known of both."""
    size = len(schema)
    table = np.eye(size)
    for i, j in combinations(range(size), 2):
        both = np.isfinite(labels[:, i]) & np.isfinite(labels[:, j])
        a, b = labels[both, i].astype(np.float64), labels[both, j].astype(np.float64)
        table[i, j] = table[j, i] = dependence(schema.attributes[i], schema.attributes[j], a, b)
    return table


def dependence(one: Attribute, other: Attribute, a: Doubles, b: Doubles) -> float:
    """Of known labels (N,) of two attributes; NaN where one does not vary."""
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return float("nan")
    kinds = {one.kind, other.kind}
    if "categorical" not in kinds and (kinds != {"binary", "continuous"}):
        return float(np.corrcoef(a, b)[0, 1])
    if "continuous" not in kinds:
        return cramers_v(a, b)
    return correlation_ratio(b, a) if one.kind == "continuous" else correlation_ratio(a, b)


def cramers_v(a: Doubles, b: Doubles) -> float:
    """Cramer's V of two columns (N,) of values, corrected for its bias."""
    _, rows = np.unique(a, return_inverse=True)
    _, columns = np.unique(b, return_inverse=True)
    r, c, n = int(rows.max()) + 1, int(columns.max()) + 1, len(a)
    table = np.zeros((r, c))
    np.add.at(table, (rows, columns), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / n
    phi = ((table - expected) ** 2 / expected).sum() / n
    phi = max(0.0, phi - (r - 1) * (c - 1) / (n - 1))
    least = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(phi / least)) if least > 0 else float("nan")


def correlation_ratio(values: Doubles, numbers: Doubles) -> float:
    """eta of numbers (N,) by values (N,)."""
    _, group = np.unique(values, return_inverse=True)
    sizes = np.bincount(group)
    means = np.bincount(group, numbers) / sizes
    return float(np.sqrt(np.clip((sizes * (means - numbers.mean()) ** 2).sum() / (len(numbers) * numbers.var()), 0, 1)))


def agreement(attribute: Attribute, one: Floats, other: Floats) -> dict[str, float]:
    """How far two columns (N,) of labels agree, over the images where both are known.

    Returns:
        `both` the number of these, `equal` the share of equal labels (not of numbers), `kappa`; NaN for what cannot be
        told, such as the kappa of two columns that are constant.
    """
    both = np.isfinite(one) & np.isfinite(other)
    a, b = one[both].astype(np.float64), other[both].astype(np.float64)
    if not len(a):
        return {"both": 0, "equal": float("nan"), "kappa": float("nan")}
    if attribute.kind == "continuous":
        spread = a.var() + b.var() + (a.mean() - b.mean()) ** 2
        kappa = 2 * ((a - a.mean()) * (b - b.mean())).mean() / spread if spread else float("nan")
        return {"both": len(a), "equal": float("nan"), "kappa": float(kappa)}
    return {"both": len(a), "equal": float((a == b).mean()), "kappa": cohens_kappa(a, b, attribute.ordered)}


def cohens_kappa(a: Doubles, b: Doubles, ordered: bool = False) -> float:
    """Kappa of two columns (N,) of values; weighted by the squared distance where they are ordered."""
    disagreed = (a - b) ** 2 if ordered else (a != b).astype(np.float64)
    values_a, shares_a = np.unique(a, return_counts=True)
    values_b, shares_b = np.unique(b, return_counts=True)
    distance = values_a[:, None] - values_b
    cost = distance**2 if ordered else (distance != 0).astype(np.float64)
    by_chance = (shares_a[:, None] * shares_b * cost).sum() / len(a) ** 2
    return float(1 - disagreed.mean() / by_chance) if by_chance else float("nan")


def rare_pairs(schema: Schema, labels: Floats, most: int = 20) -> list[dict[str, Any]]:
    """Combinations of two attributes' values with fewer than `SUPPORT` images, the rarest of those one expects first.

    Returns:
        `formula`, `count`, and `expected`, the count if the two attributes were independent; at most `most` of them.
    """
    found: list[tuple[float, dict[str, Any]]] = []
    with_values = [(j, a) for j, a in enumerate(schema) if a.kind != "continuous"]
    for (i, one), (j, other) in combinations(with_values, 2):
        if {one.name, other.name} & {*one.applies_if, *other.applies_if, *one.detail_of, *other.detail_of}:
            continue  # a detail depends on what it belongs to by its meaning
        both = np.isfinite(labels[:, i]) & np.isfinite(labels[:, j])
        a, b = labels[both, i].astype(np.int64), labels[both, j].astype(np.int64)
        table = np.zeros((len(names_of(one)), len(names_of(other))), np.int64)
        np.add.at(table, (a, b), 1)
        expected = table.sum(1, keepdims=True) * table.sum(0) / max(1, len(a))
        for v, w in product(*map(range, table.shape)):
            if table[v, w] < SUPPORT and expected[v, w] > 0:
                formula = f"{atom(one, v)} & {atom(other, w)}"
                count, chance = int(table[v, w]), float(expected[v, w])
                found.append((count - chance, {"formula": formula, "count": count, "expected": chance}))
    return [entry for _, entry in sorted(found, key=lambda pair: pair[0])[:most]]


def atom(attribute: Attribute, value: int) -> str:
    """One value, as formulas write it."""
    if attribute.kind == "binary":
        return attribute.name if value else f"~{attribute.name}"
    return f"{attribute.name}={attribute.values[value]}"
