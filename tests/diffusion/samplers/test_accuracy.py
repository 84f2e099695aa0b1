"""How few evaluations suffice: a mixture in 16 dimensions, guided by the exact noisy posterior of its components.

The event A is "z_0 comes from one of the first three of eight components". Its noisy posterior is their sum of r_k.
With q_A the diffused mixture of these alone, grad log P(A | z_t) = grad log q_A - grad log q, so that weight w gives

    eps_hat = (1 - w) eps + w eps_A,

exact at any weight. At weight 1 it is the conditional's own denoiser, whose samples are known; at other weights the
converged probability-flow ODE is what a solver is held against.
"""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import DDIM, CosineSchedule, DPMSolverPP2M, MixtureDenoiser, Sampler, Spacing, eps_from_score, randn
from lcg.diffusion.samplers.multistep import Multistep, recommended_order
from lcg.diffusion.samplers.unipc import UniPC

SCHEDULE = CosineSchedule()
COMPONENTS, A, DIM = 8, 3, 16


@dataclass(frozen=True)
class World:
    """The prior, and the conditional on A."""

    prior: MixtureDenoiser
    conditional: MixtureDenoiser

    def guided(self, weight: float) -> "Guided":
        return Guided(self, weight)


@dataclass(frozen=True)
class Guided:
    world: World
    weight: float

    def __call__(self, z_t: Tensor, t: Tensor) -> Tensor:
        eps_A = self.world.conditional(z_t, t)
        return eps_A if self.weight == 1 else (1 - self.weight) * self.world.prior(z_t, t) + self.weight * eps_A


@cache
def make(seed: int) -> World:
    """Eight Gaussians with centres a few of their standard deviations apart, standardised like latents."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(COMPONENTS, DIM, generator=generator, dtype=torch.float64)
    bases = torch.linalg.qr(torch.randn(COMPONENTS, DIM, DIM, generator=generator, dtype=torch.float64)).Q
    std = 0.3 + 0.5 * torch.rand(COMPONENTS, DIM, generator=generator, dtype=torch.float64)
    log_weights = (0.3 * torch.randn(COMPONENTS, generator=generator, dtype=torch.float64)).log_softmax(0)
    covariances = bases * std[:, None].square() @ bases.mT
    weights, centre = log_weights.exp(), log_weights.exp() @ means
    scale = (weights @ (covariances.diagonal(dim1=1, dim2=2) + (means - centre).square())).sqrt()
    means, covariances = (means - centre) / scale, covariances / scale / scale[:, None]
    covariances = (covariances + covariances.mT) / 2
    return World(
        MixtureDenoiser(log_weights, means, covariances, SCHEDULE),
        MixtureDenoiser(log_weights[:A], means[:A], covariances[:A], SCHEDULE),
    )


def noise(n: int, seed: int) -> Tensor:
    return randn((n, DIM), torch.Generator().manual_seed(seed), dtype=torch.float64)


@cache
def case(weight: float, n: int, seed: int = 0) -> tuple[World, Tensor, Tensor]:
    """A world, noise, and what the probability-flow ODE makes of that."""
    world, z = make(seed), noise(n, 100 + seed)
    return world, z, UniPC(SCHEDULE, steps=150, spacing="log_snr").sample(world.guided(weight), z)


def sliced_wasserstein(x: Tensor, y: Tensor, slices: int = 128) -> float:
    """Mean distance W_1 of projections on random unit vectors, always the same; x and y (N, D)."""
    directions = noise(slices, seed=7).T / noise(slices, seed=7).norm(dim=1)
    return ((x @ directions).sort(0).values - (y @ directions).sort(0).values).abs().mean().item()


def rms(x: Tensor, y: Tensor) -> float:
    return (x - y).square().mean().sqrt().item()


def test_guidance_of_the_world_is_the_gradient_of_the_exact_posterior() -> None:
    world, z_t, t = make(0), noise(8, 1).requires_grad_(), torch.linspace(0.1, 0.9, 8).double()
    log_p = world.prior.responsibilities(z_t, t)[:, :A].logsumexp(1)
    (G,) = torch.autograd.grad(log_p.sum(), z_t)
    z_t = z_t.detach()
    for weight in (0.0, 1.0, 8.0):
        expected = world.prior(z_t, t) + eps_from_score(SCHEDULE, z_t, t, weight * G)
        assert_close(world.guided(weight)(z_t, t), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ten_evaluations_are_as_good_as_the_converged_ode(seed: int) -> None:
    """Within 5 % of its distance to the target; and five times closer to it than two sets of samples to each other."""
    n = 1000
    world, z, ode = case(1.0, n, seed)
    target = world.conditional.sample(n, torch.Generator().manual_seed(9))
    z_0 = UniPC(SCHEDULE, 10, t_start=0.99, t_end=0.04, spacing="log_snr").sample(world.guided(1.0), z)
    assert sliced_wasserstein(z_0, target) < 1.05 * sliced_wasserstein(ode, target)
    assert sliced_wasserstein(z_0, ode) < 0.2 * sliced_wasserstein(ode, target)
    ddim = DDIM(SCHEDULE, 10, t_start=0.99, t_end=0.04, spacing="log_snr").sample(world.guided(1.0), z)
    assert sliced_wasserstein(ddim, target) > 1.5 * sliced_wasserstein(ode, target)


@pytest.mark.parametrize("weight", [1.0, 8.0])
def test_twenty_evaluations_beat_a_hundred_of_ddim(weight: float) -> None:
    world, z, ode = case(weight, 200)
    few = UniPC(SCHEDULE, 20).sample(world.guided(weight), z)
    many = DDIM(SCHEDULE, 100).sample(world.guided(weight), z)
    assert rms(few, ode) < rms(many, ode)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize(("weight", "bound"), [(1.0, 0.025), (8.0, 0.05), (32.0, 0.06)])
def test_fifteen_evaluations_follow_the_converged_ode_sample_by_sample(seed: int, weight: float, bound: float) -> None:
    """Within a twentieth of the data's standard deviation at weight 8, where even steps in lambda_t need 20."""
    world, z, ode = case(weight, 200, seed)
    asinh = UniPC(SCHEDULE, 15, t_end=0.02, spacing="asinh")
    even = UniPC(SCHEDULE, 15, t_end=0.02, spacing="log_snr")
    assert error(asinh, world, weight, z, ode) < bound
    assert error(asinh, world, weight, z, ode) < error(even, world, weight, z, ode)


def error(sampler: Sampler, world: World, weight: float, z: Tensor, ode: Tensor) -> float:
    return rms(sampler.sample(world.guided(weight), z), ode)


@pytest.mark.parametrize("method", [DPMSolverPP2M, UniPC])
def test_few_evaluations_under_strong_guidance_need_first_order(method: type[Multistep]) -> None:
    weight = 16.0
    world, z, ode = case(weight, 200)
    first, second = (error(method(SCHEDULE, 8, spacing="karras", order=p), world, weight, z, ode) for p in (1, 2))
    assert second > 5 * first
    assert recommended_order(8, weight, "karras") == 1


@pytest.mark.parametrize("method", [DPMSolverPP2M, UniPC])
@pytest.mark.parametrize("weight", [1.0, 8.0, 32.0])
@pytest.mark.parametrize("spacing", ["uniform", "log_snr", "karras", "asinh"])
def test_where_second_order_is_advised_it_is_better(method: type[Multistep], weight: float, spacing: Spacing) -> None:
    world, z, ode = case(weight, 200)
    steps = next(n for n in range(5, 99) if recommended_order(n, weight, spacing) == 2)
    first, second = (error(method(SCHEDULE, steps, spacing=spacing, order=p), world, weight, z, ode) for p in (1, 2))
    assert second < first
