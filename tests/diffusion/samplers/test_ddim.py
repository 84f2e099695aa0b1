import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import DDIM, CosineSchedule, GaussianDenoiser, MixtureDenoiser, Schedule, randn


def noise(n: int, dim: int) -> Tensor:
    return randn((n, dim), torch.Generator().manual_seed(0), dtype=torch.float64)


def standard_normal(schedule: Schedule, dim: int = 3) -> GaussianDenoiser:
    return GaussianDenoiser(torch.zeros(dim), torch.eye(dim), schedule)


# --- sampling ---------------------------------------------------------------------------------------------------------


def test_a_step_on_standard_normal_latents_is_a_cosine() -> None:
    """There z_s = cos(d) z_t with d the angle between the noise levels, so N cosine steps of d shrink z by cos(d)^N."""
    schedule = CosineSchedule()
    d = math.pi / 2 * (0.995 - 0.001) / 49
    z = noise(8, 3)
    z_0 = DDIM(schedule, steps=50).sample(standard_normal(schedule), z)
    assert_close(z_0, math.cos(d) ** 49 * math.cos(math.pi / 2 * 0.001) * z, rtol=1e-12, atol=0)


def test_ddim_is_of_first_order(gaussian: GaussianDenoiser) -> None:
    z = noise(32, 4)
    exact = gaussian.flow(z, torch.full((32,), 0.995).double(), torch.zeros(32).double())
    errors = [
        (DDIM(gaussian.schedule, steps=n + 1).sample(gaussian, z) - exact).abs().max().item() for n in (25, 50, 100)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_a_step_keeps_the_noise_level(schedule: Schedule, eta: float) -> None:
    t, s = torch.tensor([0.9, 0.5, 0.01]).double(), torch.tensor([0.8, 0.1, 0.001]).double()
    alpha, kept, std = DDIM(schedule, eta=eta).coefficients(t, s)
    assert_close(alpha, schedule.alpha(s), rtol=0, atol=0)
    assert_close(kept**2 + std**2, schedule.sigma(s) ** 2, rtol=1e-12, atol=0)


def test_eta_one_is_the_posterior_of_the_forward_process(schedule: Schedule) -> None:
    """q(z_s | z_t, z_0), Ho et al. 2020 (arXiv:2006.11239) equations 6 and 7, written for two arbitrary times."""
    t, s = torch.tensor([0.9, 0.5, 0.01]).double(), torch.tensor([0.8, 0.1, 0.001]).double()
    (alpha_t, sigma_t), (alpha_s, sigma_s) = ((schedule.alpha(u), schedule.sigma(u)) for u in (t, s))
    _, kept, std = DDIM(schedule, eta=1.0).coefficients(t, s)
    ratio = alpha_t / alpha_s
    assert_close(kept / sigma_t, ratio * sigma_s**2 / sigma_t**2, rtol=1e-9, atol=0)  # the weight of z_t
    assert_close(std**2, (1 - ratio**2) * sigma_s**2 / sigma_t**2, rtol=1e-9, atol=0)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_stochastic_sampling_recovers_the_mixture(mixture: MixtureDenoiser, eta: float) -> None:
    n = 8_000
    sampler = DDIM(mixture.schedule, steps=80, eta=eta)
    z_0 = sampler.sample(mixture, noise(n, 2), torch.Generator().manual_seed(1))
    truth = mixture.sample(n, torch.Generator().manual_seed(2))
    found = mixture.responsibilities(z_0, torch.full((n,), 1e-3)).exp().mean(0)
    assert_close(found, mixture.log_weights.exp(), rtol=0, atol=0.02)
    assert_close(torch.cov(z_0.T), torch.cov(truth.T), rtol=0, atol=0.06)


def test_fresh_noise_never_takes_the_root_of_a_negative_number(schedule: Schedule) -> None:
    """From nearly pure noise to nearly clean, sigma_s^2 and std^2 agree to more digits than float64 has."""
    s = torch.logspace(-6, -2, 50, dtype=torch.float64)
    t = torch.full_like(s, 0.999)
    _, kept, _ = DDIM(schedule, eta=1.0).coefficients(t, s)
    ratio = schedule.log_snr(t) - schedule.log_snr(s)
    assert_close(kept, schedule.sigma(s) * ratio.exp(), rtol=1e-12, atol=0)


def test_eta_zero_draws_nothing(mixture: MixtureDenoiser) -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    DDIM(mixture.schedule, steps=5).sample(mixture, noise(4, 2), generator)
    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_must_be_a_share(eta: float) -> None:
    with pytest.raises(ValueError, match=rf"`eta` must be in \[0, 1\], got {eta}; 0 is deterministic"):
        DDIM(CosineSchedule(), eta=eta)


# --- inversion --------------------------------------------------------------------------------------------------------


def round_trip(sampler: DDIM, denoiser: MixtureDenoiser, z_0: Tensor, t_stop: float | None, iterations: int) -> float:
    """Largest error of sampling what inversion found."""
    z = sampler.invert(denoiser, z_0, t_stop, iterations)
    return (sampler.sample(denoiser, z, t_start=t_stop) - z_0).abs().max().item()


@pytest.mark.parametrize("t_stop", [None, 0.5])
def test_one_iteration_is_exact_for_standard_normal_latents(schedule: Schedule, t_stop: float | None) -> None:
    error = round_trip(DDIM(schedule, steps=20), standard_normal(schedule), noise(16, 3), t_stop, iterations=1)
    assert error < 1e-12


@pytest.mark.parametrize("t_stop", [None, 0.5])
def test_iterations_make_the_round_trip_tight(gaussian: GaussianDenoiser, t_stop: float | None) -> None:
    z_0 = gaussian.sample(32, torch.Generator().manual_seed(0))
    sampler = DDIM(gaussian.schedule, steps=30)
    errors = [round_trip(sampler, gaussian, z_0, t_stop, iterations) for iterations in (1, 2, 4, 12)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.3
    assert errors[-1] < 1e-9


def test_mixture_round_trip(mixture: MixtureDenoiser) -> None:
    z_0 = mixture.sample(64, torch.Generator().manual_seed(0))
    assert round_trip(DDIM(mixture.schedule, steps=50), mixture, z_0, 0.6, iterations=10) < 1e-3


def test_inversion_converges_to_the_exact_flow(gaussian: GaussianDenoiser) -> None:
    z_0 = gaussian.sample(32, torch.Generator().manual_seed(0))
    exact = gaussian.flow(z_0, torch.zeros(32).double(), torch.full((32,), 0.995).double())
    errors = [
        (DDIM(gaussian.schedule, steps=n + 1).invert(gaussian, z_0, iterations=4) - exact).abs().max().item()
        for n in (25, 50, 100)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.2)


def test_inversion_reports_and_builds_no_graph(mixture: MixtureDenoiser) -> None:
    calls: list[tuple[int, int]] = []
    z_0 = mixture.sample(4).requires_grad_()
    z = DDIM(mixture.schedule, steps=6).invert(mixture, z_0, progress=lambda step, steps: calls.append((step, steps)))
    assert not z.requires_grad
    assert calls == [(i, 6) for i in range(1, 7)]


def test_inversion_refuses_what_cannot_work(mixture: MixtureDenoiser) -> None:
    sampler, z_0 = DDIM(mixture.schedule, steps=5), mixture.sample(2)
    with pytest.raises(ValueError, match=r"`iterations` must be at least 1, got 0; 1 is plain inversion"):
        sampler.invert(mixture, z_0, iterations=0)
    with pytest.raises(ValueError, match=r"0 < t_end < t_start <= 1, got t_start=0.0001"):
        sampler.invert(mixture, z_0, t_stop=0.0001)
    with pytest.raises(TypeError, match=r"must be float32 or float64, got torch.bfloat16"):
        sampler.invert(mixture, z_0.bfloat16())
