"""Linear maps between two latent spaces from pairs (x_i, y_i), latents of one image each, both centred. y_i ~ x_i M.

    ridge       M = argmin |X M - Y|^2 + lambda |M|^2, of elements of variance 1: the least error, shrunk where in doubt
    cca         M = C_x^-1/2 U V^T C_y^1/2 with C_x^-1/2 C_xy C_y^-1/2 = U S V^T: canonical variates take each other's
                places at full variance; ridge would multiply them by their correlations S (Hotelling 1936)
    procrustes  M = c U V^T with C_xy = U S V^T, c = tr S / tr C_x: rotation and scale only (Schoenemann 1966)
    relative    M = c (A_y^T A_y + lambda I)^-1 A_y^T A_x, transposed, with the pairs as anchors, A their directions

All are exact where one space is a rotated and scaled image of the other; ridge and cca for every invertible map. Ridge
gives the conditional mean of y, cca and procrustes keep the spread: a prior's samples stay as varied as they were.

The last is the way through relative representations, r_k(x) = cos(x, a_k) of anchors a_k (Moschella et al. 2023,
arXiv:2209.15430), and back by the other space's anchors (Maiorca et al. 2024, arXiv:2406.15057, whose pseudo-inverse is
lambda = 0). A cosine forgets the norm |x|. With the norm carried over, and scaled by c, the ratio of the mean norms,
the whole way is linear in x.

lambda is a share of the largest eigenvalue of the matrix that it is added to.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal, get_args

import torch
from torch import Tensor

How = Literal["ridge", "cca", "procrustes", "relative"]
"""How a map between two latent spaces is fitted."""

HOW: tuple[How, ...] = get_args(How)
"""All of these."""


def ridge(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """M (D_x, D_y) of centred x (N, D_x), y (N, D_y); strength lambda >= 0."""
    s_x, s_y = spread(x), spread(y)
    return regularised(x / s_x, strength) @ (y / s_y) / s_x[:, None] * s_y


def cca(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """As `ridge`; lambda is added to both covariances."""
    (to_x, _), (to_y, from_y) = roots(x, strength), roots(y, strength)
    return to_x @ orthogonal((x @ to_x).T @ (y @ to_y)) @ from_y


def procrustes(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """As `ridge`; there is nothing to regularise, lambda is ignored."""
    del strength
    cross = x.T @ y
    rotation = orthogonal(cross)
    return rotation * ((rotation * cross).sum() / x.square().sum())


def relative(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """As `ridge`; every pair is an anchor, and lambda regularises the way back."""
    norm_x, norm_y = x.norm(dim=1), y.norm(dim=1)
    anchors_x, anchors_y = x / norm_x[:, None], y / norm_y[:, None]
    return (norm_y.mean() / norm_x.mean()) * anchors_x.T @ regularised(anchors_y, strength).T


SOLVERS: MappingProxyType[How, Callable[[Tensor, Tensor, float], Tensor]] = MappingProxyType(
    {"ridge": ridge, "cca": cca, "procrustes": procrustes, "relative": relative}
)


def regularised(x: Tensor, strength: float) -> Tensor:
    """(X^T X + lambda I)^-1 X^T (D, N); with lambda = 0 the pseudo-inverse."""
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    kept = s > s[:1] * max(x.shape) * torch.finfo(x.dtype).eps
    factor = torch.where(kept, s / (s.square() + strength * s[:1].square()).where(kept, 1.0), 0.0)
    return (vh.T * factor) @ u.T


def roots(x: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """(C + lambda I)^-1/2 and (C + lambda I)^1/2 of the covariance C of x, each (D, D)."""
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    largest = values[-1].clamp(min=torch.finfo(x.dtype).tiny)
    root = (values.clamp(min=0) + (strength + 1e-12) * largest).sqrt()
    return (vectors / root) @ vectors.T, (vectors * root) @ vectors.T


def orthogonal(cross: Tensor) -> Tensor:
    """U V^T of U S V^T: the nearest matrix whose shorter side is orthonormal."""
    u, _, vh = torch.linalg.svd(cross, full_matrices=False)
    return u @ vh


def spread(x: Tensor) -> Tensor:
    """Root mean square (D,) of the elements of x; 1 for one that never varies."""
    s = x.square().mean(0).sqrt()
    return torch.where(s > 0, s, 1.0)
