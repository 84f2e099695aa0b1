import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import DDIM, CosineSchedule, GaussianDenoiser, MixtureDenoiser, Schedule, randn, z0_from_eps
from lcg.diffusion.samplers.ddpm import DDPM


def noise(n: int, dim: int, seed: int = 0) -> Tensor:
    return randn((n, dim), torch.Generator().manual_seed(seed), dtype=torch.float64)


def posterior(schedule: Schedule, z_t: Tensor, t: Tensor, s: Tensor, z_0: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(z_s | z_t, z_0), Ho et al. 2020, equation 7, with beta = 1 - alpha_bar_t / alpha_bar_s."""
    bar_t, bar_s = schedule.alpha(t) ** 2, schedule.alpha(s) ** 2
    beta = 1 - bar_t / bar_s
    mean = bar_s.sqrt() * beta / (1 - bar_t) * z_0 + (1 - beta).sqrt() * (1 - bar_s) / (1 - bar_t) * z_t
    return mean, (1 - bar_s) / (1 - bar_t) * beta


def test_ddpm_is_ddim_with_eta_one(mixture: MixtureDenoiser) -> None:
    z = noise(16, 2)
    ddpm, ddim = (
        DDPM(mixture.schedule, 12, 0.9, 0.01, "log_snr", 2.0),
        DDIM(mixture.schedule, 12, 0.9, 0.01, "log_snr", 2.0, eta=1.0),
    )
    samples = [sampler.sample(mixture, z, torch.Generator().manual_seed(3)) for sampler in (ddpm, ddim)]
    assert torch.equal(*samples)


def test_each_step_draws_from_the_posterior_of_the_forward_process(mixture: MixtureDenoiser) -> None:
    schedule, sampler, z = mixture.schedule, DDPM(mixture.schedule, steps=4), noise(16, 2)
    generator = torch.Generator().manual_seed(3)
    times = sampler.times()

    def z_0_hat(z: Tensor, t: Tensor) -> Tensor:
        return z0_from_eps(schedule, z, t.expand(16), mixture(z, t.expand(16)))

    z_t = z
    for t, s in pairwise(times):
        mean, variance = posterior(schedule, z_t, t, s, z_0_hat(z_t, t))
        z_t = mean + variance.sqrt() * randn((16, 2), generator, dtype=torch.float64)
    found = sampler.sample(mixture, z, torch.Generator().manual_seed(3))
    assert_close(found, z_0_hat(z_t, times[-1]), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("t", "s"), [(0.9, 0.5), (0.5, 0.1), (0.5, 0.499)])
def test_guidance_moves_the_mean_as_documented(schedule: Schedule, t: float, s: float) -> None:
    """By beta / sqrt(1 - beta) G; the posterior variance times G is what is left of it when the step is small."""
    z_t, eps, G = noise(8, 3), noise(8, 3, seed=1), noise(8, 3, seed=2)
    at, to = torch.tensor(t).double(), torch.tensor(s).double()
    sigma = schedule.sigma(at)
    plain, guided = (z0_from_eps(schedule, z_t, at.expand(8), eps - w * sigma * G) for w in (0.0, 1.0))
    (mean, variance), (moved, _) = (posterior(schedule, z_t, at, to, z_0) for z_0 in (plain, guided))
    k = torch.exp(2 * (schedule.log_snr(at) - schedule.log_snr(to)))
    ratio = schedule.alpha(to) / schedule.alpha(at)
    assert_close(moved - mean, ratio * sigma**2 * (1 - k) * G, rtol=0, atol=1e-11)
    beta = 1 - 1 / ratio**2
    assert_close(moved - mean, beta / (1 - beta).sqrt() * G, rtol=0, atol=1e-11)
    assert_close(variance * G, (moved - mean) * (schedule.sigma(to) / sigma) ** 2 / ratio, rtol=0, atol=1e-11)
    if t - s < 0.01:
        assert_close(variance * G, moved - mean, rtol=0.02, atol=0)


def variances(sampler: DDIM, gaussian: GaussianDenoiser) -> Tensor:
    """What a sampler makes of N(0, I) along each axis of a Gaussian, a linear map and noise at each step."""
    schedule, L, times = gaussian.schedule, gaussian.variances[0], sampler.times()
    variance = torch.ones_like(L)
    for i, t in enumerate(times):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        noised = alpha**2 * L + sigma**2
        z_0_gain, eps_gain = alpha * L / noised, sigma / noised
        if i + 1 == len(times):
            return z_0_gain**2 * variance
        alpha_s, kept, std = sampler.coefficients(t, times[i + 1])
        variance = (alpha_s * z_0_gain + kept * eps_gain) ** 2 * variance + std**2
    raise AssertionError


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_samples_have_the_moments_of_a_gaussian(gaussian: GaussianDenoiser, eta: float) -> None:
    """Whitened by the exact law of 30 steps, means are off by 1 / sqrt(n), covariances by sqrt(2 / n)."""
    n = 20_000
    sampler = DDPM(gaussian.schedule, steps=30) if eta == 1 else DDIM(gaussian.schedule, steps=30, eta=eta)
    z_0 = sampler.sample(gaussian, noise(n, 4), torch.Generator().manual_seed(1))
    white = (z_0 - gaussian.means) @ gaussian.bases[0] / variances(sampler, gaussian).sqrt()
    start = gaussian.schedule.alpha(torch.tensor(0.995)).item()  # noise has no mean, z_t at t_start has alpha mu
    assert white.mean(0).abs().max() < 4 / math.sqrt(n) + 4 * start
    assert (torch.cov(white.T) - torch.eye(4)).abs().max() < 4 * math.sqrt(2 / n)


def test_their_law_tends_to_the_truth_as_steps_grow(gaussian: GaussianDenoiser) -> None:
    errors = [
        (variances(DDPM(gaussian.schedule, n, spacing="log_snr"), gaussian) / gaussian.variances[0] - 1).abs().max()
        for n in (101, 201, 401)
    ]
    assert (errors[0] / errors[1]).item() == pytest.approx(2, abs=0.1)
    assert (errors[1] / errors[2]).item() == pytest.approx(2, abs=0.1)
    assert errors[-1] < 0.03


def test_bad_arguments_are_refused_as_by_every_sampler() -> None:
    with pytest.raises(ValueError, match=r"`steps` must be at least 2"):
        DDPM(CosineSchedule(), steps=1)
