"""Consistency sampling with the exact probability-flow map of Gaussians: right in one evaluation, and in more."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import CosineSchedule, Denoiser, GaussianDenoiser, Schedule, eps_from_z0, generators, randn
from lcg.diffusion.samplers.consistency import Consistency, GuidedConsistency
from lcg.guidance import GuidedDenoiser
from lcg.guidance.terms import Term

A = torch.tensor([1.0, -0.5, 0.0], dtype=torch.float64)
"""log p(y | z_0) = A.z_0 + const: with N(0, I) latents the conditional is N(A, I)."""


def noise(n: int, dim: int) -> Tensor:
    return randn((n, dim), torch.Generator().manual_seed(0), dtype=torch.float64)


def flow_map(gaussian: GaussianDenoiser) -> Denoiser:
    """The exact consistency function of a Gaussian, as eps_hat."""

    def denoiser(z_t: Tensor, t: Tensor) -> Tensor:
        return eps_from_z0(gaussian.schedule, z_t, t, gaussian.flow(z_t, t, torch.zeros_like(t)))

    return denoiser


def identity(schedule: Schedule) -> Denoiser:
    """The exact consistency function of N(0, I)."""
    return flow_map(GaussianDenoiser(torch.zeros(3), torch.eye(3), schedule))


def linear_score(schedule: Schedule) -> Callable[[Tensor, Tensor], Tensor]:
    """The noisy score of log p(y | z_0) = A.z_0 under N(0, I): E[A.z_0 | z_t] = alpha_t A.z_t."""
    return lambda z_t, t: schedule.alpha(t)[:, None] * A.expand(len(z_t), -1)


class Linear(Term):
    """The same as a term."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        return self.schedule.alpha(t) * (z_t @ A)


# --- sampling ---------------------------------------------------------------------------------------------------------


def test_one_evaluation_is_the_probability_flow(gaussian: GaussianDenoiser) -> None:
    z, t = noise(32, 4), torch.full((32,), 0.99, dtype=torch.float64)
    found = Consistency(gaussian.schedule, steps=1).sample(flow_map(gaussian), z)
    assert_close(found, gaussian.flow(z, t, torch.zeros(32).double()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [2, 4])
def test_more_evaluations_keep_the_distribution(gaussian: GaussianDenoiser, steps: int) -> None:
    sampler = Consistency(gaussian.schedule, steps)
    z_0 = sampler.sample(flow_map(gaussian), noise(40_000, 4), torch.Generator().manual_seed(1))
    exact = gaussian.sample(40_000, torch.Generator().manual_seed(2))
    assert_close(z_0.mean(0), exact.mean(0), rtol=0, atol=0.04)
    assert_close(torch.cov(z_0.T), torch.cov(exact.T), rtol=0, atol=0.06)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_times_begin_at_t_start_and_stay_above_t_end(schedule: Schedule, steps: int) -> None:
    times = Consistency(schedule, steps, t_start=0.9, t_end=0.5).times()
    assert_close(times, 0.9 - 0.4 / steps * torch.arange(steps).double())


def test_times_are_a_stride_apart_by_default(schedule: Schedule) -> None:
    assert Consistency(schedule, 4).times().tolist() == pytest.approx([0.99, 0.79, 0.59, 0.39])
    assert Consistency(schedule, 20).times()[-1] > 0.1


def test_a_row_does_not_depend_on_its_batch(gaussian: GaussianDenoiser) -> None:
    sampler, f, z = Consistency(gaussian.schedule, 3), flow_map(gaussian), noise(4, 4)
    together = sampler.sample(f, z, generators(range(4)))
    alone = [sampler.sample(f, z[i : i + 1], generators([i])) for i in range(4)]
    assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)
    assert (together - sampler.sample(f, z, generators(range(4, 8)))).abs().min() > 0


def test_one_evaluation_draws_nothing_and_progress_is_told(gaussian: GaussianDenoiser) -> None:
    generator, told = torch.Generator().manual_seed(0), []
    before = generator.get_state()
    Consistency(gaussian.schedule, 1).sample(flow_map(gaussian), noise(2, 4), generator)
    assert torch.equal(generator.get_state(), before)
    Consistency(gaussian.schedule, 3).sample(
        flow_map(gaussian), noise(2, 4), generator, progress=lambda *step: told.append(step)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


# --- guidance ---------------------------------------------------------------------------------------------------------


def test_one_guided_evaluation_is_the_conditional_flow(schedule: Schedule) -> None:
    """The conditional N(A, I) is N(alpha_t A, I) at t, and flows by z_t + (1 - alpha_t) A."""
    guided = GuidedConsistency(identity(schedule), linear_score(schedule), schedule)
    z, t = noise(64, 3), torch.linspace(0.05, 0.99, 64).double()
    z_0_hat = (z - schedule.sigma(t)[:, None] * guided(z, t)) / schedule.alpha(t)[:, None]
    assert_close(z_0_hat, z + (1 - schedule.alpha(t))[:, None] * A, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_any_number_of_guided_evaluations_samples_the_conditional(steps: int) -> None:
    schedule, z = CosineSchedule(), noise(40_000, 3)
    guided = GuidedConsistency(identity(schedule), linear_score(schedule), schedule)
    z_0 = Consistency(schedule, steps).sample(guided, z, torch.Generator().manual_seed(1))
    assert_close(z_0.mean(0), A, rtol=0, atol=0.04)
    assert_close(torch.cov(z_0.T), torch.eye(3).double(), rtol=0, atol=0.04)


def test_the_shift_of_the_posterior_mean_goes_too_far() -> None:
    """What `GuidedDenoiser` adds is for solvers: after a consistency function it is 1 + alpha_t times too much."""
    schedule = CosineSchedule()
    guided = GuidedDenoiser(identity(schedule), [Linear(schedule)], schedule)
    z_0 = Consistency(schedule, 4).sample(guided, noise(4000, 3), torch.Generator().manual_seed(1))
    assert (z_0.mean(0) - A).norm() > 0.4


def test_weight_zero_is_unguided(gaussian: GaussianDenoiser) -> None:
    def never(z_t: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("the score was asked for")

    guided = GuidedConsistency(flow_map(gaussian), never, gaussian.schedule, weight=0.0)
    z, sampler = noise(8, 4), Consistency(gaussian.schedule, 3)
    plain = sampler.sample(flow_map(gaussian), z, torch.Generator().manual_seed(1))
    assert_close(sampler.sample(guided, z, torch.Generator().manual_seed(1)), plain, rtol=1e-9, atol=1e-9)


def test_a_weight_may_depend_on_time() -> None:
    schedule, t = CosineSchedule(), torch.tensor([0.3, 0.9], dtype=torch.float64)
    score, z = linear_score(schedule), noise(2, 3)
    late = GuidedConsistency(identity(schedule), score, schedule, weight=lambda t: torch.where(t < 0.5, 3.0, 0.0))
    always = GuidedConsistency(identity(schedule), score, schedule, weight=3.0)
    assert_close(late.shifted(z, t)[0], always.shifted(z, t)[0])
    assert_close(late.shifted(z, t)[1], z[1], rtol=0, atol=0)


def test_moves_share_the_way_and_follow_a_score_that_turns() -> None:
    """log p = -|z - c|^2 / 2: one long move goes beyond c, many short ones come to rest at it."""
    schedule, t, c = CosineSchedule(), torch.full((5,), 0.9, dtype=torch.float64), torch.full((3,), 2.0).double()
    z = noise(5, 3)

    def after(moves: int) -> Tensor:
        guided = GuidedConsistency(identity(schedule), lambda z, t: c - z, schedule, weight=0.4, moves=moves)
        return (guided.shifted(z, t) - c) / (z - c)

    reach = 0.4 * (1 / math.cos(0.9 * math.pi / 2) - 1)
    for moves in (1, 2, 3):
        assert_close(
            after(moves), torch.full((5, 3), (1 - reach / moves) ** moves, dtype=torch.float64), rtol=1e-9, atol=1e-9
        )
    assert (after(1) < -1).all() and (after(3).abs() < 0.2).all()


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_cannot_work_is_refused() -> None:
    schedule = CosineSchedule()
    with pytest.raises(ValueError, match=r"`steps` must be at least 1, got 0; 4 is usual"):
        Consistency(schedule, steps=0)
    with pytest.raises(ValueError, match=r"0 < t_end < t_start <= 1, got t_start=0.3, t_end=0.4"):
        Consistency(schedule, steps=1, t_start=0.3, t_end=0.4)
    with pytest.raises(ValueError, match=r"`weight` must be >= 0, got -1.0; .* negate it"):
        GuidedConsistency(identity(schedule), linear_score(schedule), schedule, weight=-1.0)
    with pytest.raises(ValueError, match=r"`moves` must be at least 1, got 0; 2 is usual"):
        GuidedConsistency(identity(schedule), linear_score(schedule), schedule, moves=0)
