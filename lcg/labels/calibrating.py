"""Probabilities of scores, where some labels are known: p = sigmoid(a x + b).

Platt (1999), "Probabilistic outputs for support vector machines", fits both numbers by maximum likelihood, with targets
(n_1 + 1) / (n_1 + 2) and 1 / (n_0 + 2) in the place of 1 and 0, so that they stay finite where scores part the labels.
A temperature (Guo et al. 2017, arXiv:1706.04599) is the same with b = 0: p = sigmoid(x / T), x a logit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
STEPS = 100


def platt(x: Doubles, labels: Doubles, intercept: bool = True) -> tuple[float, float]:
    """Slope a and intercept b, by Newton's method.

    Args:
        x: (N,) scores or logits, finite.
        labels: (N,) of 0 and 1, both of which occur.
        intercept: whether there is one; 0 otherwise.

    Raises:
        ValueError: labels of one kind only.
    """
    positive, negative = int((labels > 0.5).sum()), int((labels <= 0.5).sum())
    if not positive or not negative:
        raise ValueError(f"calibration needs labels of both kinds, got {positive} positive and {negative} negative")
    target = np.where(labels > 0.5, (positive + 1) / (positive + 2), 1 / (negative + 2))
    scale = float(x.std()) or 1.0
    columns = np.stack([x / scale, np.ones_like(x)], axis=1)[:, : 2 if intercept else 1]
    parameters = np.zeros(columns.shape[1])
    loss = _loss(columns @ parameters, target)
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(columns @ parameters, -500, 500)))
        gradient = columns.T @ (p - target)
        hessian = (columns * (p * (1 - p))[:, None]).T @ columns + 1e-9 * np.eye(len(parameters))
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while size > 1e-8 and _loss(columns @ (parameters - size * step), target) > loss:
            size /= 2
        parameters = parameters - size * step
        before, loss = loss, _loss(columns @ parameters, target)
        if before - loss < 1e-12 * len(x):
            break
    return float(parameters[0] / scale), float(parameters[1]) if intercept else 0.0


def _loss(u: Doubles, target: Doubles) -> float:
    return float((np.logaddexp(0, u) - target * u).sum())
