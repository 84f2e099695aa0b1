"""Consistency sampling with the exact probability-flow map of Gaussians: right in one evaluation, and in more."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import (
    Consistency,
    CosineSchedule,
    Denoiser,
    GaussianDenoiser,
    Schedule,
    eps_from_z0,
    generators,
    randn,
)


def noise(n: int, dim: int) -> Tensor:
    return randn((n, dim), torch.Generator().manual_seed(0), dtype=torch.float64)


def flow_map(gaussian: GaussianDenoiser) -> Denoiser:
    """The exact consistency function of a Gaussian, as eps_hat."""

    def denoiser(z_t: Tensor, t: Tensor) -> Tensor:
        return eps_from_z0(gaussian.schedule, z_t, t, gaussian.flow(z_t, t, torch.zeros_like(t)))

    return denoiser


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


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_cannot_work_is_refused() -> None:
    schedule = CosineSchedule()
    with pytest.raises(ValueError, match=r"`steps` must be at least 1, got 0; 4 is usual"):
        Consistency(schedule, steps=0)
    with pytest.raises(ValueError, match=r"0 < t_end < t_start <= 1, got t_start=0.3, t_end=0.4"):
        Consistency(schedule, steps=1, t_start=0.3, t_end=0.4)
