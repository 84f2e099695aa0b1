"""Fidelity and variety apart: which generated features lie among real ones, and which real ones are reached.

A Frechet distance adds up what is wrong with samples and what is missing among them. Balls around features tell the
two apart. With r_k(x) the distance of x to its k-th nearest neighbour in its own set, itself left out, real features
x_1..x_N and generated ones y_1..y_M,

    precision = 1/M sum_j 1[ y_j in some B(x_i, r_k(x_i)) ]     recall   = 1/N sum_i 1[ x_i in some B(y_j, r_k(y_j)) ]
    density = 1/(k M) sum_j sum_i 1[ y_j in B(x_i, r_k(x_i)) ]  coverage = 1/N sum_i 1[ some y_j in B(x_i, r_k(x_i)) ]

(Kynkaanniemi et al. 2019, arXiv:1904.06991, section 2; Naeem et al. 2020, arXiv:2002.09797, section 3). One real
outlier makes precision accept whatever falls into its large ball, and generated outliers do so for recall; density
counts how many balls a sample is in, and coverage has balls around real features only. For a generator that draws from
the distribution of the real features, whatever that is, E[density] = 1 and E[coverage] is `expected_coverage`, while
precision and recall have no such value to be compared with.

Balls are closed, as in the first paper, also for density and coverage, so that copies of real features count where
neighbours coincide; of features with a density the published code, with open balls, gives the same.

Diversity is the mean distance of two different samples, 2 / (M (M - 1)) sum_{i<j} |y_i - y_j|: unbiased, and free of
any reference. It sees when all samples are alike, not whether they are any good.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

PAIRS = 2**22
"""Distances computed at once: 32 MiB of float64."""

ROUNDING = 1e-12
"""Share of |x|^2 + |y|^2, both centred, by which a squared distance from a matrix product may be off in float64."""


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares in [0, 1].

    Attributes:
        precision: of generated features that lie among real ones.
        recall: of real features that lie among generated ones.
    """

    precision: float
    recall: float


@dataclass(frozen=True)
class DensityCoverage:
    """How often real neighbourhoods are met.

    Attributes:
        density: mean number of real balls that a generated feature is in, over k; >= 0, 1 in expectation for a perfect
            generator, more when samples crowd where real ones are dense.
        coverage: share in [0, 1] of real balls that hold a generated feature.
    """

    density: float
    coverage: float


def precision_recall(
    real: Float[Tensor, "n *feature"], generated: Float[Tensor, "m *feature"], k: int = 3
) -> PrecisionRecall:
    """Improved precision and recall; the two sets change places with the two figures.

    Args:
        real: (N, *feature) features of real images, on any scale.
        generated: (M, *feature) features of samples. Take M = N to compare figures: both depend on the sizes.
        k: which neighbour gives the radius, 1 <= k < min(N, M); 3 in the paper.

    Returns:
        Precision and recall.

    Raises:
        ValueError: features of different shapes or on different devices, not finite, or too few for k.
    """
    real, generated = _prepared(real, generated, k)
    if k >= len(generated):
        raise ValueError(f"`k` must be in [1, {len(generated)}), below the number of generated features, got {k}")
    balls, _ = _balls(generated, real, _squared_radii(real, k))
    reached, _ = _balls(real, generated, _squared_radii(generated, k))
    return PrecisionRecall(float((balls > 0).double().mean()), float((reached > 0).double().mean()))


def density_coverage(
    real: Float[Tensor, "n *feature"], generated: Float[Tensor, "m *feature"], k: int = 5
) -> DensityCoverage:
    """Density and coverage of real neighbourhoods.

    Args:
        real: (N, *feature) features of real images, on any scale.
        generated: (M, *feature) features of samples, M >= 1.
        k: which neighbour gives the radius, 1 <= k < N; 5 in the paper; see `expected_coverage`.

    Returns:
        Density and coverage.

    Raises:
        ValueError: features of different shapes or on different devices, not finite, or too few for k.
    """
    real, generated = _prepared(real, generated, k)
    balls, reached = _balls(generated, real, _squared_radii(real, k))
    return DensityCoverage(float(balls.sum()) / (k * len(generated)), float(reached.double().mean()))


def expected_coverage(n: int, m: int, k: int = 5) -> float:
    """The coverage that a perfect generator has on average.

    A real feature's ball is missed when its k nearest of the N - 1 + M others are all real, and of exchangeable
    features every set of k is as likely to be the nearest (Naeem et al. 2020, in their analysis of coverage):
    1 - prod_{i=1}^k (N - i) / (N + M - i), whatever the distribution, as long as no two distances are equal.

    Args:
        n: real features, N.
        m: generated features, M >= 1.
        k: which neighbour gives the radius, 1 <= k < N.

    Returns:
        The expectation, in (0, 1).

    Raises:
        ValueError: numbers out of range.

    Example:
        >>> round(expected_coverage(10_000, 10_000, k=5), 3)
        0.969
    """
    if m < 1:
        raise ValueError(f"`m` must be >= 1 generated features, got {m}")
    if not 1 <= k < n:
        raise ValueError(f"`k` must be in [1, {n}), below the number of real features, got {k}")
    return 1 - math.prod((n - i) / (n + m - i) for i in range(1, k + 1))


def diversity(features: Float[Tensor, "m *feature"]) -> float:
    """The mean Euclidean distance of two different samples.

    Args:
        features: (M, *feature), M >= 2, finite.

    Returns:
        The mean over all pairs, >= 0, in the features' unit.

    Raises:
        ValueError: fewer than two features, or features that are not finite.
    """
    if features.ndim < 2 or len(features) < 2:
        raise ValueError(f"`features` must be at least two, (M, *feature), got shape {tuple(features.shape)}")
    _check_finite(features, "features")
    y = features.detach().flatten(1).double()
    y = y - y.mean(0)
    total = 0.0
    for rows, squared in _squared_distances(y, y):
        squared[torch.arange(len(rows), device=rows.device), rows] = (
            0  # no rounding error of a sample's distance to itself
        )
        total += float(squared.sqrt().sum())
    return total / (len(y) * (len(y) - 1))


def _prepared(real: Tensor, generated: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Both sets (., D) in float64, about the mean of the real ones: products of large means would cancel."""
    for name, x in (("real", real), ("generated", generated)):
        if x.ndim < 2 or not len(x):
            raise ValueError(f"`{name}` must be at least one feature, (N, *feature), got shape {tuple(x.shape)}")
    if generated.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"`generated` must be features of shape {tuple(real.shape[1:])}, as the real ones are, "
            f"got {tuple(generated.shape[1:])}; take both from one extractor"
        )
    if generated.device != real.device:
        raise ValueError(f"`generated` must be on {real.device}, as the real ones are, got {generated.device}; move it")
    _check_finite(real, "real")
    _check_finite(generated, "generated")
    if not 1 <= k < len(real):
        raise ValueError(f"`k` must be in [1, {len(real)}), below the number of real features, got {k}")
    x, y = real.detach().flatten(1).double(), generated.detach().flatten(1).double()
    centre = x.mean(0)
    return x - centre, y - centre


def _squared_distances(queries: Tensor, centres: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers of some queries, and their squared distances (rows, centres), at most `PAIRS` at once."""
    of_centres = centres.square().sum(1)
    for rows in torch.arange(len(queries), device=queries.device).split(max(1, PAIRS // len(centres))):
        part = queries[rows]
        squared = torch.addmm(of_centres, part, centres.T, alpha=-2) + part.square().sum(1, keepdim=True)
        yield rows, squared.clamp_(min=0)


def _squared_radii(x: Tensor, k: int) -> Tensor:
    """r_k(x)^2, (N,)."""
    radii = []
    for rows, squared in _squared_distances(x, x):
        squared[torch.arange(len(rows), device=rows.device), rows] = math.inf
        radii.append(squared.topk(k, dim=1, largest=False, sorted=False).values.amax(1))
    return torch.cat(radii)


def _balls(queries: Tensor, centres: Tensor, squared_radii: Tensor) -> tuple[Tensor, Tensor]:
    """In how many balls each query is, (queries,), and whether each ball holds one, (centres,)."""
    counts, reached = [], torch.zeros(len(centres), dtype=torch.bool, device=centres.device)
    bound = squared_radii + ROUNDING * centres.square().sum(1)
    for rows, squared in _squared_distances(queries, centres):
        inside = squared <= bound + ROUNDING * queries[rows].square().sum(1, keepdim=True)
        counts.append(inside.sum(1))
        reached |= inside.any(0)
    return torch.cat(counts), reached


def _check_finite(x: Tensor, name: str) -> None:
    if not bool(x.isfinite().all()):
        raise ValueError(f"`{name}` must be finite, got NaN or infinity; leave out the rows that have no feature")
