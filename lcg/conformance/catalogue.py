"""The worlds of the suite, small enough to sample in seconds, each chosen for what it brings out.

    line          a normal latent, two attributes that look the same way: dependence in its purest form
    line_mixture  two unequal modes on a line, the same two attributes
    plane         three modes in two dimensions: three dependent attributes, a component's label
    latent_class  many dimensions; attributes independent given the component, so that a mixture of products is exact
    cloud         a correlated Gaussian in many dimensions with a continuous attribute: the linear-Gaussian case
    modes         many dimensions, eight modes apart, some of them `chosen`: strong guidance turns a path sharply

Attributes named `a`, `b` are positively dependent everywhere: for opposed attributes a product of classifiers happens
to be nearly right, and a test with them would have no power.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lcg.conformance.worlds import Known, Linear, Membership, Probit, World
from lcg.diffusion.schedule import CosineSchedule, Schedule


def line(schedule: Schedule | None = None) -> World:
    """z_0 ~ N(0, 1) with two attributes that prefer large z_0, P(a) = P(b) = 1/2."""
    attributes: list[Known] = [Probit("a", (3.0,)), Probit("b", (3.0,))]
    return _world([1.0], [[0.0]], [[[1.0]]], attributes, schedule)


def line_mixture(schedule: Schedule | None = None) -> World:
    """A narrow mode of weight 0.4 above a broad one, with two attributes that prefer large z_0."""
    attributes: list[Known] = [Probit("a", (3.0,)), Probit("b", (2.5,), -0.3), Membership("upper", (0, 1))]
    return _world([0.6, 0.4], [[-0.8], [1.1]], [[[0.36]], [[0.12]]], attributes, schedule)


def plane(schedule: Schedule | None = None) -> World:
    """Three overlapping modes; probits `a` and `b` dependent, `c` across them; the components' `mode`."""
    attributes: list[Known] = [
        Probit("a", (2.5, 0.6)),
        Probit("b", (2.2, 1.0), -0.2),
        Probit("c", (0.3, 2.5), 0.2),
        Membership("mode", (0, 1, 2), ("left", "right", "top")),
        Membership("high", (0, 0, 1)),
    ]
    covariances = [[[0.30, 0.10], [0.10, 0.25]], [[0.25, -0.08], [-0.08, 0.20]], [[0.20, 0.0], [0.0, 0.12]]]
    return _world([0.4, 0.35, 0.25], [[-0.9, -0.4], [0.9, -0.3], [0.2, 1.0]], covariances, attributes, schedule)


def latent_class(dim: int = 16, schedule: Schedule | None = None, seed: int = 0) -> World:
    """Three components with independent coordinates; attributes `a`, `b`, `c` of a coordinate each.

    The components' means make the attributes dependent, and given the component they are not: a mixture of products
    with three components is their exact joint (`World.joint_outputs`).

    Args:
        dim: of the latents, at least 3.
        schedule: of the noise; cosine when left out.
        seed: of what the other coordinates are like.
    """
    rng = torch.Generator().manual_seed(seed)
    means = 0.5 * torch.randn(3, dim, generator=rng, dtype=torch.float64)
    means[:, :3] = torch.tensor([[1.0, 1.0, 0.8], [-0.9, -0.9, 0.7], [-0.7, -0.8, -0.9]], dtype=torch.float64)
    variances = 0.2 + 0.5 * torch.rand(3, dim, generator=rng, dtype=torch.float64)
    attributes: list[Known] = [
        *(Probit(name, tuple(3.0 * (i == j) for i in range(dim))) for j, name in enumerate("abc")),
        Membership("kind", (0, 1, 2), ("first", "second", "third")),
        Membership("first", (1, 0, 0)),
    ]
    return _world([0.4, 0.35, 0.25], means, variances.diag_embed(), attributes, schedule)


def cloud(dim: int = 8, schedule: Schedule | None = None, seed: int = 0) -> World:
    """A Gaussian with standard deviations from 0.4 to 1.2 in turned axes; `a`, `b` dependent, `age` continuous.

    Args:
        dim: of the latents, at least 2.
        schedule: of the noise; cosine when left out.
        seed: of the axes and directions.
    """
    rng = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(dim, dim, generator=rng, dtype=torch.float64)).Q
    std = torch.linspace(1.2, 0.4, dim, dtype=torch.float64)
    mean = 0.3 * torch.randn(dim, generator=rng, dtype=torch.float64)
    attributes: list[Known] = [
        Probit("a", _tuple(2.5 * basis[:, 0])),
        Probit("b", _tuple(2.3 * basis[:, 0] + 1.0 * basis[:, 1]), -0.2),
        Linear("age", _tuple(basis[:, 0] - basis[:, 1]), 0.5, std=0.4),
    ]
    return _world([1.0], mean[None], (basis * std.square() @ basis.T)[None], attributes, schedule)


def modes(dim: int = 16, schedule: Schedule | None = None, seed: int = 0) -> World:
    """Eight Gaussians a few of their standard deviations apart, standardised like latents; the first three `chosen`.

    Args:
        dim: of the latents.
        schedule: of the noise; cosine when left out.
        seed: of the modes.
    """
    rng = torch.Generator().manual_seed(seed)
    means = torch.randn(8, dim, generator=rng, dtype=torch.float64)
    bases = torch.linalg.qr(torch.randn(8, dim, dim, generator=rng, dtype=torch.float64)).Q
    std = 0.3 + 0.5 * torch.rand(8, dim, generator=rng, dtype=torch.float64)
    weights = (0.3 * torch.randn(8, generator=rng, dtype=torch.float64)).softmax(0)
    covariances = bases * std[:, None].square() @ bases.mT
    means = means - weights @ means
    scale = (weights @ (covariances.diagonal(dim1=1, dim2=2) + means.square())).sqrt()
    chosen = Membership("chosen", (1, 1, 1, 0, 0, 0, 0, 0))
    return _world(weights.tolist(), means / scale, covariances / scale.outer(scale), [chosen], schedule)


def _tuple(direction: Tensor) -> tuple[float, ...]:
    return tuple(direction.tolist())


def _world(
    weights: list[float],
    means: Tensor | list[list[float]],
    covariances: Tensor | list[list[list[float]]],
    attributes: Sequence[Known],
    schedule: Schedule | None,
) -> World:
    as_double = (torch.as_tensor(x, dtype=torch.float64) for x in (weights, means, covariances))
    w, m, s = as_double
    return World(w.log(), m, s, attributes, CosineSchedule() if schedule is None else schedule)
