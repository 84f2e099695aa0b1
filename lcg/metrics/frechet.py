"""Frechet distance: how far two sets of features are apart, each taken as a normal distribution,

    d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2})

(Dowson & Landau 1982; Heusel et al. 2017, arXiv:1706.08500, equation 6, where the features are Inception's and the name
is FID). It is the squared 2-Wasserstein distance of the two normal distributions, in squared units of the features.

With S = C_1^{1/2} C_2^{1/2} the matrix under the outer root is S S^T, so the trace of its root is the sum of the
singular values of S. That is how it is computed, in float64: S S^T would lose half of the digits.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Moments = tuple[Tensor, Tensor]
"""(mean (F,), covariance (F, F)), both float64."""

NEGLIGIBLE = 1e-8
"""Asymmetry and negative eigenvalues of a covariance up to this share of its largest entry are rounding."""


def moments(features: Float[Tensor, "n features"], weights: Float[Tensor, " n"] | None = None) -> Moments:
    """Mean and unbiased covariance of a set of features.

    With weights, which are taken to be proportional to probabilities and are normalised here,

        m = sum_i w_i f_i,      C = sum_i w_i (f_i - m)(f_i - m)^T / (1 - sum_i w_i^2),

    which is the usual division by N - 1 when they are all equal.

    Args:
        features: (N, F), N > F.
        weights: (N,), non-negative; more than F of them positive. None for all equal.

    Returns:
        Mean (F,) and covariance (F, F), float64, on the features' device.

    Raises:
        ValueError: features that are no matrix or not finite; too few of them for a covariance of full rank; weights of
            another number, negative, or not finite.
    """
    if features.ndim != 2:
        raise ValueError(f"`features` must be (N, F), got shape {tuple(features.shape)}; flatten them")
    wrong = int((~features.isfinite()).any(dim=1).sum())
    if wrong:
        raise ValueError(f"`features` must be finite, got {wrong} of {len(features)} rows with NaN or infinity")
    f = features.detach().double()
    w = torch.ones(len(f), dtype=torch.float64, device=f.device) if weights is None else _checked_weights(weights, f)
    count, size = int((w > 0).sum()), f.shape[1]
    if count <= size:
        what = "rows" if weights is None else "rows of positive weight"
        raise ValueError(
            f"`features` must have more {what} than dimensions for a covariance of full rank, got N={count}, F={size}; "
            "take more samples"
        )
    w = w / w.sum()
    mean = w @ f
    centred = f - mean
    return mean, (w[:, None] * centred).T @ centred / (1 - w.square().sum())


def frechet_distance(
    mean_1: Float[Tensor, " features"],
    covariance_1: Float[Tensor, "features features"],
    mean_2: Float[Tensor, " features"],
    covariance_2: Float[Tensor, "features features"],
) -> float:
    """d^2 of two normal distributions.

    Args:
        mean_1: (F,).
        covariance_1: (F, F), symmetric and positive semi-definite.
        mean_2: (F,).
        covariance_2: (F, F), likewise.

    Returns:
        d^2 >= 0; 0 for equal distributions, to rounding.

    Raises:
        ValueError: shapes that differ, values that are not finite, or a covariance that is none.

    Example:
        >>> identity = torch.eye(2)
        >>> round(frechet_distance(torch.zeros(2), identity, torch.ones(2), 4 * identity), 6)
        4.0
    """
    size = mean_1.shape[-1]
    for name, tensor, shape in (
        ("mean_1", mean_1, (size,)),
        ("covariance_1", covariance_1, (size, size)),
        ("mean_2", mean_2, (size,)),
        ("covariance_2", covariance_2, (size, size)),
    ):
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"`{name}` must have shape {shape}, as `mean_1` has {size} features, got {tuple(tensor.shape)}; "
                "take both sets of features from the same network"
            )
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"`{name}` must be finite, got NaN or infinity")
    root_1 = _symmetric_root(covariance_1.double(), "covariance_1")
    root_2 = _symmetric_root(covariance_2.double(), "covariance_2")
    traces = covariance_1.double().trace() + covariance_2.double().trace()
    overlap = torch.linalg.svdvals(root_1 @ root_2).sum()
    distance = (mean_1.double() - mean_2.double()).square().sum() + traces - 2 * overlap
    return max(float(distance), 0.0)  # equal distributions may end up a rounding error below zero


def frechet_between(
    features_1: Float[Tensor, "n features"],
    features_2: Float[Tensor, "m features"],
    weights_2: Float[Tensor, " m"] | None = None,
) -> float:
    """d^2 between two sets of features.

    Args:
        features_1: (N, F) of the samples.
        features_2: (M, F) of the reference.
        weights_2: (M,) weights of the reference, such as `lcg.metrics.reference.marginal_weights`.

    Returns:
        d^2. Few samples bias it upwards: compare distances of equal N only; that of two real sets is the floor.

    Raises:
        ValueError: as `moments` and `frechet_distance` do.
    """
    return frechet_distance(*moments(features_1), *moments(features_2, weights_2))


def _symmetric_root(covariance: Tensor, name: str) -> Tensor:
    """The symmetric positive semi-definite R with R R = covariance."""
    largest = covariance.abs().max()
    if bool((covariance - covariance.T).abs().max() > NEGLIGIBLE * largest):
        raise ValueError(f"`{name}` must be symmetric, it differs from its transpose; see `moments`")
    values, vectors = torch.linalg.eigh(covariance)
    if bool(values[0] < -NEGLIGIBLE * largest):
        raise ValueError(
            f"`{name}` must be positive semi-definite, got an eigenvalue {float(values[0]):.3g}; see `moments`"
        )
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _checked_weights(weights: Tensor, features: Tensor) -> Tensor:
    if weights.shape != (len(features),):
        raise ValueError(f"`weights` must be ({len(features)},), one per row of features, got {tuple(weights.shape)}")
    if not bool(weights.isfinite().all()) or bool((weights < 0).any()):
        raise ValueError("`weights` must be finite and >= 0; see `marginal_weights`")
    return weights.detach().to(features)
