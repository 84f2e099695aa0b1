"""How far samples are from the truth, each measure beside its floor: what exact samples of the same number score.

All of them compare n samples with a reference of many more exact samples. Total variation is that of histograms whose
bins hold equal shares of the reference along an axis, so that in one dimension its floor depends on numbers only,

    E[TV] = 1/2 sum_b E|p_b_hat - p_b| = sqrt((m - 1) / (2 pi n))            for m bins and n samples,

and a histogram never has empty tails. Lengths are in standard deviations of the reference.
"""

import math

import torch
from torch import Tensor


def total_variation(samples: Tensor, reference: Tensor, axes: Tensor | None = None, bins: int = 16) -> float:
    """1/2 sum_b |p_b - q_b| over the bins of a histogram of one or two projections.

    Args:
        samples: (N, D).
        reference: (M, D), M >> N.
        axes: projections (D, 1) or (D, 2); the first one or two coordinates when left out.
        bins: in all; per axis their number's square root for two, rounded.

    Returns:
        In [0, 1].

    Raises:
        ValueError: more than two axes, or samples that are not finite.
    """
    if not bool(samples.isfinite().all()):
        raise ValueError("`samples` must be finite, got NaN or infinity; the method diverged")
    axes = torch.eye(samples.shape[1])[:, :2] if axes is None else axes
    if axes.ndim != 2 or axes.shape[1] not in (1, 2):
        raise ValueError(f"`axes` must have shape (D, 1) or (D, 2), got {tuple(axes.shape)}")
    axes = axes.to(reference)
    side = bins if axes.shape[1] == 1 else round(math.sqrt(bins))
    quantiles = torch.linspace(0, 1, side + 1, dtype=reference.dtype)[1:-1]
    counts = []
    projected = reference @ axes
    edges = [torch.quantile(column, quantiles) for column in projected.T]
    for points in (samples.to(reference) @ axes, projected):
        cell = torch.zeros(len(points), dtype=torch.long)
        for column, edge in zip(points.T, edges, strict=True):
            cell = cell * side + torch.bucketize(column.contiguous(), edge)
        counts.append(torch.bincount(cell, minlength=side ** axes.shape[1]) / len(points))
    return float(0.5 * (counts[0] - counts[1]).abs().sum())


def total_variation_floor(n: int, bins: int = 16) -> float:
    """The expected total variation of n exact samples in `bins` bins of equal probability."""
    return math.sqrt((bins - 1) / (2 * math.pi * n))


def sliced_wasserstein(samples: Tensor, reference: Tensor, directions: int = 32, seed: int = 0) -> float:
    """The mean over random directions of the 1-Wasserstein distance of the projections.

    (Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures".) With sorted projections x and the
    reference's quantiles q at (i + 1/2) / N it is the mean of |x_i - q_i|, in the reference's standard deviations.

    Args:
        samples: (N, D).
        reference: (M, D).
        directions: how many; in one dimension there is only one.
        seed: of the directions.
    """
    dim = reference.shape[1]
    rng = torch.Generator().manual_seed(seed)
    unit = torch.randn(dim, directions if dim > 1 else 1, generator=rng, dtype=reference.dtype)
    unit = unit / unit.norm(dim=0)
    x, q = (samples.to(reference) @ unit).sort(dim=0).values, (reference @ unit).sort(dim=0).values
    rows = ((torch.arange(len(x)) + 0.5) / len(x) * len(q)).long()
    return float(((x - q[rows]).abs().mean(0) / q.std(0)).mean())


def moment_errors(samples: Tensor, reference: Tensor) -> tuple[float, float]:
    """(mean, covariance): the largest error of a coordinate's mean, and of an entry of the covariance.

    In standard deviations of the reference's coordinates and products of them.
    """
    scale = reference.std(0)
    mean = ((samples.to(reference).mean(0) - reference.mean(0)) / scale).abs().max()
    difference = torch.cov(samples.to(reference).T) - torch.cov(reference.T)
    return float(mean), float((difference.reshape(len(scale), -1) / scale.outer(scale)).abs().max())
