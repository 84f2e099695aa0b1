import pytest
import torch
from torch.testing import assert_close

from lcg.diffusion import CosineSchedule, GaussianDenoiser, Schedule, z0_from_eps
from lcg.diffusion.chain import Chain


def variance_at_the_end(chain: Chain, corrected: bool) -> float:
    """Of z_0_hat at the end, for N(0, 1) latents, exactly: every step is linear in z and the z_0_hat before."""
    times = chain.times()
    covariance, before_time = torch.diag(torch.tensor([1.0, 0.0])).double(), None
    unit = torch.eye(2, dtype=torch.float64)  # z and the last z_0_hat of two chains: each moves along one of the axes
    for i, t in enumerate(times):
        slope = chain.schedule.alpha(t)  # z_0_hat = alpha_t z_t
        if i + 1 == len(times):
            return float(slope**2 * covariance[0, 0])
        before = (unit[1], before_time) if corrected and before_time is not None else None
        mean, std = chain.step(unit[0], slope * unit[0], before, t, times[i + 1])
        linear = torch.stack([mean, slope * unit[0]])
        covariance = linear @ covariance @ linear.T
        covariance[0, 0] += std.square().item()
        before_time = t
    raise AssertionError("a chain has at least two times")


def test_without_memory_a_step_is_the_posterior_of_the_forward_process(schedule: Schedule) -> None:
    """q(z_s | z_t, z_0_hat), Ho et al. 2020 (arXiv:2006.11239), equations 6 and 7, for two arbitrary times."""
    chain, (t, s) = Chain(schedule), torch.tensor([0.7, 0.4], dtype=torch.float64)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = ((schedule.alpha(u), schedule.sigma(u)) for u in (t, s))
    z_t, z_0_hat = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, std = chain.step(z_t, z_0_hat, None, t, s)
    ratio = alpha_t / alpha_s
    expected = (ratio * sigma_s**2 * z_t + alpha_s * (1 - ratio**2) * z_0_hat) / sigma_t**2
    assert_close(mean, expected, rtol=1e-12, atol=1e-12)
    assert_close(std.squeeze(), sigma_s / sigma_t * (1 - ratio**2).sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_the_correction_is_a_step_with_the_mean_of_both_predictions(schedule: Schedule, eta: float) -> None:
    """From r to t with z_0_hat, then noticing another one, is the step with their mean; and then on to s from there."""
    chain, (r, t, s) = Chain(schedule, eta=eta), torch.tensor([0.8, 0.6, 0.5], dtype=torch.float64)
    z_r, first, second = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z_t, _ = chain.step(z_r, first, None, r, t)
    better, _ = chain.step(z_r, 0.5 * (first + second), None, r, t)
    assert (better - z_t).abs().max() > 0.01
    expected, _ = chain.step(better, second, None, t, s)
    assert_close(chain.step(z_t, second, (first, r), t, s)[0], expected, rtol=1e-12, atol=1e-12)


def test_a_prediction_that_did_not_change_needs_no_correction(schedule: Schedule) -> None:
    chain, (r, t, s) = Chain(schedule), torch.tensor([0.8, 0.6, 0.5], dtype=torch.float64)
    z_t, z_0_hat = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(chain.step(z_t, z_0_hat, (z_0_hat, r), t, s)[0], chain.step(z_t, z_0_hat, None, t, s)[0])


def test_the_variance_that_ancestral_sampling_loses() -> None:
    """Of N(0, 1) latents: 9 % with 50 steps, halved by twice the steps; with the correction 2 %, and cut to a third."""
    plain = [1 - variance_at_the_end(Chain(CosineSchedule(), steps), corrected=False) for steps in (50, 100)]
    better = [1 - variance_at_the_end(Chain(CosineSchedule(), steps), corrected=True) for steps in (50, 100)]
    assert plain == pytest.approx([0.089, 0.046], abs=0.004)
    assert better == pytest.approx([0.023, 0.007], abs=0.001)


def test_predictions_are_those_of_the_denoiser(gaussian: GaussianDenoiser, schedule: Schedule) -> None:
    t = torch.tensor(0.4, dtype=torch.float64)
    z_t = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    eps_hat = gaussian(z_t, t.expand(6))
    expected = z0_from_eps(schedule, z_t, t.expand(6), eps_hat)
    assert_close(Chain(schedule).z_0_hat(z_t, eps_hat, t), expected, rtol=1e-12, atol=1e-12)


def test_a_chain_without_noise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`eta` of a chain must be above 0, got 0: its steps would have no density"):
        Chain(CosineSchedule(), eta=0.0)
    with pytest.raises(ValueError, match=r"`eta` must be in \[0, 1\], got 1.5"):
        Chain(CosineSchedule(), eta=1.5)
