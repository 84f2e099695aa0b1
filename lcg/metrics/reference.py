"""Reference sets for conditionals: real rows reweighted so that their other attributes have the prior's marginals.

A distance between samples of `glasses & smile` and all real images measures mostly what was asked for. The right
reference are real images that satisfy the formula; but rendered from independent attributes they would have half of all
people in beards where the prior has a third. Iterative proportional fitting gives the rows weights

    w <- w * (m_j / m_j(w) where attribute j holds, (1 - m_j) / (1 - m_j(w)) where not),      for j = 1, 2, ... in turn,

until every weighted marginal m_j(w) is m_j (Deming & Stephan 1940, "On a least squares adjustment of a sampled
frequency table when the expected marginal totals are known"). Of all weights with these marginals the limit is the
nearest to equal ones in Kullback-Leibler divergence (Csiszar 1975, "I-divergence geometry of probability distributions
and minimization problems").
"""

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.schema import Schema

TOLERANCE = 1e-9
"""Largest error of a marginal."""

SWEEPS = 2000
"""Sweeps over all attributes. A handful is the rule; where these are not enough, marginals contradict each other."""


def marginals(labels: Float[Tensor, "n attributes"], schema: Schema) -> dict[str, float]:
    """How often each binary attribute holds, among the rows where it is known.

    Args:
        labels: (N, A), NaN where missing.
        schema: the columns.

    Returns:
        Name to share in [0, 1], in schema order; NaN for an attribute without a label.

    Raises:
        ValueError: labels of another schema.
    """
    _check_columns(labels, schema)
    return {a.name: float(labels[:, schema.index(a.name)].double().nanmean()) for a in schema.of_kind("binary")}


def marginal_weights(
    labels: Float[Tensor, "n attributes"], schema: Schema, target: Mapping[str, float], fixed: Collection[str]
) -> Float[Tensor, " n"]:
    """Weights of rows under which binary attributes have given marginals.

    Args:
        labels: (N, A) of the reference, all of whose rows satisfy the formula.
        schema: the columns.
        target: binary attribute to the share of rows in which it shall hold, in [0, 1], such as `marginals` of the
            training set. Attributes without a target are left as they are.
        fixed: attributes that the formula speaks of; their targets are passed over. So are those of attributes that are
            constant among the rows: no weight can change them.

    Returns:
        (N,) float64, non-negative, with sum 1.

    Raises:
        ValueError: no rows, labels of another schema, an unknown or not binary name, a target outside [0, 1], a missing
            label in a column that counts, or marginals that these rows cannot have together.
    """
    _check_columns(labels, schema)
    if not len(labels):
        raise ValueError("`labels` must have at least one row, got none; draw more reference images")
    for name in fixed:
        schema.index(name)
    for name, share in target.items():
        if schema[name].kind != "binary":
            raise ValueError(f"`target` must name binary attributes, got {name!r}, which is {schema[name].kind}")
        if not 0 <= share <= 1:
            raise ValueError(f"`target` of {name!r} must be in [0, 1], got {share}")

    holds, shares = [], []
    for name, share in target.items():
        y = labels[:, schema.index(name)]
        if name in fixed or bool((y == y[0]).all()):
            continue
        if bool(y.isnan().any()):
            raise ValueError(
                f"`labels` of {name!r} must be known to weigh rows by it, got {int(y.isnan().sum())} missing; "
                "leave those rows out, or leave the attribute out of `target`"
            )
        holds.append(y.double())
        shares.append(share)
    weights = torch.full((len(labels),), 1 / len(labels), dtype=torch.float64, device=labels.device)
    if not holds:
        return weights
    return _fit(weights, torch.stack(holds), torch.tensor(shares, dtype=torch.float64, device=labels.device))


def effective_sample_size(weights: Float[Tensor, " n"]) -> float:
    """(sum w)^2 / sum w^2: how many equally weighted rows tell as much (Kish 1965, "Survey Sampling").

    Args:
        weights: (N,), non-negative, in any scale.

    Returns:
        Between 1 and N.

    Raises:
        ValueError: negative weights, or weights without a positive and finite sum.
    """
    w = weights.double()
    if bool((w < 0).any()) or not 0 < float(w.sum()) < float("inf"):
        raise ValueError("`weights` must be >= 0 with a positive finite sum")
    w = w / w.max()  # squares of tiny weights would vanish
    return float(w.sum() ** 2 / w.square().sum())


def _fit(w: Tensor, holds: Tensor, shares: Tensor) -> Tensor:
    """The sweeps. holds: (J, N) 0 or 1, shares: (J,)."""
    for _ in range(SWEEPS):
        for held, share in zip(holds, shares, strict=True):
            now = w @ held
            up = torch.where(now > 0, share / now, 0.0)  # rows that earlier targets of 0 or 1 have removed stay removed
            down = torch.where(now < 1, (1 - share) / (1 - now), 0.0)
            w = w * (held * up + (1 - held) * down)
            w = w / w.sum()  # NaN when two targets of 0 or 1 leave no row, and so never within the tolerance
        if bool(((holds @ w - shares).abs() <= TOLERANCE).all()):
            return w
    raise ValueError(
        "the marginals of `target` cannot be met together by these rows (two attributes that exclude each other cannot "
        "both be common); leave one out of `target`, or draw reference images of more kinds"
    )


def _check_columns(labels: Tensor, schema: Schema) -> None:
    if labels.ndim != 2 or labels.shape[1] != len(schema):
        raise ValueError(f"`labels` must be (N, {len(schema)}), a column per attribute, got {tuple(labels.shape)}")
