import math
from collections.abc import Callable
from functools import partial
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import (
    DDIM,
    CosineSchedule,
    DPMSolverPP2M,
    GaussianDenoiser,
    LinearSchedule,
    MixtureDenoiser,
    Sampler,
    Schedule,
    Spacing,
    diffuse,
    generators,
    randn,
    time_grid,
)
from lcg.diffusion.samplers.ddpm import DDPM
from lcg.diffusion.samplers.heun import Heun
from lcg.diffusion.samplers.unipc import UniPC

Method = Callable[..., Sampler]

SAMPLERS: list[Method] = [DDIM, DPMSolverPP2M, Heun, UniPC]
every_sampler = pytest.mark.parametrize("method", SAMPLERS)

STOCHASTIC: list[Method] = [partial(DDIM, eta=0.5), DDPM, partial(Heun, churn=5.0)]
every_stochastic_sampler = pytest.mark.parametrize("method", STOCHASTIC, ids=["DDIM, eta", "DDPM", "Heun, churn"])


def noise(n: int, dim: int, seed: int = 0) -> Tensor:
    return randn((n, dim), torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the grid of times ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_grid_falls_from_start_to_end(schedule: Schedule, spacing: Spacing) -> None:
    grid = time_grid(schedule, 20, 0.9, 0.01, spacing)
    assert grid.shape == (21,)
    assert grid.dtype == torch.float64
    assert grid[0].item() == 0.9
    assert grid[-1].item() == 0.01
    assert (grid.diff() < 0).all()


def test_grid_is_even_in_what_it_says(schedule: Schedule) -> None:
    even = {
        "uniform": lambda t: t,
        "log_snr": schedule.log_snr,
        "quadratic": torch.sqrt,
        "karras": lambda t: (schedule.sigma(t) / schedule.alpha(t)) ** (1 / 7),
        "asinh": lambda t: schedule.log_snr(t).asinh(),
    }
    for spacing, measure in even.items():
        steps = measure(time_grid(schedule, 30, 0.995, 0.001, spacing)).diff()
        assert_close(steps, steps.mean().expand_as(steps), rtol=1e-9, atol=0)


def test_grid_of_a_single_interval(schedule: Schedule) -> None:
    assert time_grid(schedule, 1, 0.5, 0.1).tolist() == [0.5, 0.1]


@pytest.mark.parametrize(("start", "end"), [(0.1, 0.5), (0.5, 0.5), (0.5, 0.0), (1.5, 0.1)])
def test_grid_refuses_times_out_of_order(start: float, end: float) -> None:
    with pytest.raises(ValueError, match=rf"0 < t_end < t_start <= 1, got t_start={start}, t_end={end}; the usual"):
        time_grid(CosineSchedule(), 10, start, end)


def test_grid_refuses_to_start_without_signal() -> None:
    with pytest.raises(ValueError, match=r"`t_start`=1.0 is pure noise under this schedule .* use 0.995"):
        time_grid(CosineSchedule(), 10, 1.0, 0.001)
    assert time_grid(LinearSchedule(), 10, 1.0, 0.001)[0].item() == 1  # here alpha_1 = exp(-5)


def test_grid_refuses_no_steps() -> None:
    with pytest.raises(ValueError, match=r"`steps` of a time grid must be at least 1, got 0"):
        time_grid(CosineSchedule(), 0)


def test_grid_refuses_unknown_spacing(unchecked: None) -> None:
    with pytest.raises(
        ValueError, match=r"`spacing` must be one of uniform, log_snr, quadratic, karras, asinh, got 'even'"
    ):
        time_grid(CosineSchedule(), 10, spacing="even")


# --- what every sampler does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*SAMPLERS, DDPM])
def test_constructor_refuses_what_cannot_work(method: Method) -> None:
    with pytest.raises(ValueError, match=r"`steps` must be at least 2 .* got 1; 50 is usual"):
        method(CosineSchedule(), steps=1)
    with pytest.raises(ValueError, match=r"`clip` must be positive or None, got 0.0"):
        method(CosineSchedule(), clip=0.0)
    with pytest.raises(ValueError, match=r"0 < t_end < t_start <= 1"):
        method(CosineSchedule(), t_start=0.1, t_end=0.2)


@every_sampler
def test_sample_refuses_half_precision_and_early_starts(method: Method, gaussian: GaussianDenoiser) -> None:
    sampler = method(gaussian.schedule, steps=4)
    with pytest.raises(TypeError, match=r"must be float32 or float64, got torch.float16; use z.float\(\)"):
        sampler.sample(gaussian, torch.zeros(2, 4, dtype=torch.float16))
    with pytest.raises(ValueError, match=r"0 < t_end < t_start <= 1, got t_start=0.0005"):
        sampler.sample(gaussian, torch.zeros(2, 4), t_start=0.0005)


@every_sampler
@pytest.mark.parametrize("steps", [2, 3, 7, 8])
def test_denoiser_is_asked_once_at_each_time(method: Method, steps: int, gaussian: GaussianDenoiser) -> None:
    asked: list[Tensor] = []
    calls: list[tuple[int, int]] = []

    def denoiser(z_t: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (3,)
        assert t.dtype == z_t.dtype
        assert not torch.is_grad_enabled()
        asked.append(t[0])
        return gaussian(z_t, t)

    sampler = method(gaussian.schedule, steps=steps)
    sampler.sample(denoiser, noise(3, 4), progress=lambda step, steps: calls.append((step, steps)))
    assert_close(torch.stack(asked), sampler.times(), rtol=0, atol=0)
    assert asked[0].item() == 0.995
    assert asked[-1].item() == 0.001
    assert calls == [(i, steps) for i in range(1, steps + 1)]


@every_sampler
def test_a_point_is_found_in_any_number_of_steps(method: Method, schedule: Schedule) -> None:
    point = GaussianDenoiser(torch.tensor([2.0, -1.0]), torch.zeros(2, 2), schedule)
    z_0 = method(schedule, steps=3).sample(point, noise(8, 2))
    assert_close(z_0, torch.tensor([[2.0, -1.0]], dtype=torch.float64).expand(8, 2), rtol=0, atol=1e-12)


@every_sampler
@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_sampler_converges_to_the_exact_flow(method: Method, spacing: Spacing, gaussian: GaussianDenoiser) -> None:
    z = noise(32, 4)
    start, end = torch.full((32,), 0.995, dtype=torch.float64), torch.zeros(32, dtype=torch.float64)
    z_0 = method(gaussian.schedule, steps=50, spacing=spacing).sample(gaussian, z)
    assert_close(z_0, gaussian.flow(z, start, end), rtol=0, atol=0.25)


@every_sampler
def test_sampler_can_start_half_way(method: Method, gaussian: GaussianDenoiser) -> None:
    t = torch.full((32,), 0.4, dtype=torch.float64)
    z = diffuse(gaussian.schedule, gaussian.sample(32, torch.Generator().manual_seed(1)), t, noise(32, 4))
    z_0 = method(gaussian.schedule, steps=100).sample(gaussian, z, t_start=0.4)
    assert_close(z_0, gaussian.flow(z, t, torch.zeros_like(t)), rtol=0, atol=0.04)


@every_sampler
def test_mixture_is_sampled_with_its_weights_and_moments(method: Method, mixture: MixtureDenoiser) -> None:
    n = 5_000
    z_0 = method(mixture.schedule, steps=100).sample(mixture, noise(n, 2))  # DDIM with 40: 6 % off
    found = mixture.responsibilities(z_0, torch.full((n,), 1e-3)).exp().mean(0)
    assert_close(found, mixture.log_weights.exp(), rtol=0, atol=0.02)
    truth = mixture.sample(n, torch.Generator().manual_seed(5))
    assert_close(z_0.mean(0), truth.mean(0), rtol=0, atol=0.04)
    assert_close(torch.cov(z_0.T), torch.cov(truth.T), rtol=0, atol=0.06)


@every_sampler
def test_batch_equals_each_row_alone(method: Method, mixture: MixtureDenoiser) -> None:
    sampler, z = method(mixture.schedule, steps=10), noise(4, 2)
    rows = [sampler.sample(mixture, z[i : i + 1]) for i in range(4)]
    assert_close(sampler.sample(mixture, z), torch.cat(rows), rtol=0, atol=1e-12)


@every_sampler
def test_latents_of_any_shape(method: Method, schedule: Schedule) -> None:
    def standard_normal(z_t: Tensor, t: Tensor) -> Tensor:
        return schedule.sigma(t).to(z_t)[:, None, None] * z_t

    z = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    z_0 = method(schedule, steps=5).sample(standard_normal, z)
    flat = method(schedule, steps=5).sample(lambda z, t: schedule.sigma(t).to(z)[:, None] * z, z.flatten(1))
    assert_close(z_0.flatten(1), flat, rtol=0, atol=1e-6)


@every_sampler
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_state_keeps_its_precision_whatever_the_denoiser_returns(
    method: Method, precision: torch.dtype, mixture: MixtureDenoiser
) -> None:
    z = noise(16, 2).float()
    sampler = method(mixture.schedule, steps=20)
    rough = sampler.sample(lambda z, t: mixture(z, t).to(precision), z)
    assert rough.dtype == torch.float32
    assert_close(rough, sampler.sample(mixture, z), rtol=0, atol=0.2)


@every_sampler
def test_float32_follows_float64(method: Method, gaussian: GaussianDenoiser) -> None:
    sampler, z = method(gaussian.schedule, steps=30), noise(16, 4).float()
    assert_close(sampler.sample(gaussian, z).double(), sampler.sample(gaussian, z.double()), rtol=0, atol=1e-4)


@every_sampler
def test_no_graph_is_built_and_guidance_can_build_its_own(method: Method, schedule: Schedule) -> None:
    """Prior N(0, I), observation y = z_0 + N(0, tau^2): the guided samples are those of the exact posterior."""
    tau, y, n = 0.5, 1.2, 20_000
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)  # a parameter, as a network would have

    def guided(z_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        with torch.enable_grad():
            z = z_t.detach().requires_grad_()
            log_prob = -0.5 * (y - alpha * z) ** 2 / (tau**2 + sigma**2)
            (grad,) = torch.autograd.grad(log_prob.sum(), z)
        return gain * sigma * z_t - sigma * grad

    z_0 = method(schedule, steps=60).sample(guided, noise(n, 1))
    assert not z_0.requires_grad
    assert abs(z_0.mean().item() - y / (1 + tau**2)) < 0.02
    assert abs(z_0.std().item() - math.sqrt(tau**2 / (1 + tau**2))) < 0.03


# --- clipping ---------------------------------------------------------------------------------------------------------


@every_sampler
def test_clip_bounds_the_result(method: Method, mixture: MixtureDenoiser) -> None:
    z_0 = method(mixture.schedule, steps=10, clip=0.8).sample(mixture, 3 * noise(64, 2))
    assert z_0.abs().max().item() == pytest.approx(0.8, abs=1e-12)


@every_sampler
def test_a_wide_clip_changes_nothing(method: Method, mixture: MixtureDenoiser) -> None:
    z = noise(16, 2)
    plain = method(mixture.schedule, steps=10).sample(mixture, z)
    assert_close(method(mixture.schedule, steps=10, clip=100.0).sample(mixture, z), plain, rtol=0, atol=1e-10)


@every_sampler
def test_clipped_prediction_is_still_one_prediction(method: Method, mixture: MixtureDenoiser) -> None:
    z_t, times = 2 * noise(64, 2), torch.tensor([0.6, 0.3], dtype=torch.float64)
    path = method(mixture.schedule, clip=0.5).path(mixture, times)
    for z_0_hat, eps_hat in (path.predict(z_t, 0), path.predict_between(z_t, times[0])):
        assert z_0_hat.abs().max().item() == 0.5
        assert_close(diffuse(mixture.schedule, z_0_hat, times[:1].expand(64), eps_hat), z_t, rtol=0, atol=1e-12)


# --- randomness -------------------------------------------------------------------------------------------------------


@every_stochastic_sampler
def test_a_stochastic_sample_does_not_depend_on_its_batch(method: Method, mixture: MixtureDenoiser) -> None:
    sampler, z = method(mixture.schedule, steps=10), noise(4, 2)
    batch = sampler.sample(mixture, z, generators([0, 1, 2, 3]))
    alone = sampler.sample(mixture, z[2:3], generators([2]))
    assert_close(batch[2:3], alone, rtol=0, atol=1e-12)


@every_sampler
def test_a_deterministic_sample_leaves_its_generators_alone(method: Method, mixture: MixtureDenoiser) -> None:
    rows = generators(range(4))
    method(mixture.schedule, steps=5).sample(mixture, noise(4, 2), rows)
    assert all(
        torch.equal(used.get_state(), new.get_state()) for used, new in zip(rows, generators(range(4)), strict=True)
    )


@every_stochastic_sampler
def test_wrong_number_of_generators_is_refused(method: Method, mixture: MixtureDenoiser) -> None:
    with pytest.raises(ValueError, match=r"one generator per row: expected 4, got 2"):
        method(mixture.schedule, steps=6).sample(mixture, noise(4, 2), generators([0, 1]))
