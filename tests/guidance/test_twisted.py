import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import CosineSchedule, LinearSchedule, Schedule, generators
from lcg.diffusion.chain import Chain
from lcg.guidance import GuidedDenoiser, SourceTerm, Term
from lcg.guidance.twisted import TwistedSMC

SCHEDULE = CosineSchedule()
Line = Any  # of conftest.py, which tests cannot import


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Tilt(Term):
    """log E[exp(a.z_0) | z_t] for N(0, I) latents, bent by an error that has gone at t = 0."""

    def __init__(self, a: Tensor, schedule: Schedule, error: float = 0.0) -> None:
        self.a, self.schedule, self.error = a, schedule, error

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        exact = alpha * (z_t @ self.a) + 0.5 * sigma**2 * self.a.square().sum()
        return exact + self.error * (t > 0.002) * torch.cos(3 * z_t).sum(1)


def normal(schedule: Schedule) -> Any:
    return lambda z, t: schedule.sigma(t)[:, None].to(z) * z


def end_variance(chain: Chain) -> float:
    """Of the chain's z at t_end when latents are N(0, I): its steps are linear in z and the last z_0_hat."""
    times, unit = chain.times(), torch.eye(2, dtype=torch.float64)
    covariance = torch.diag(torch.tensor([1.0, 0.0])).double()
    for i, (t, s) in enumerate(pairwise(times)):
        z_0_hat = chain.schedule.alpha(t) * unit[0]
        mean, std = chain.step(unit[0], z_0_hat, (unit[1], times[i - 1]) if i else None, t, s)
        linear = torch.stack([mean, z_0_hat])
        covariance = linear @ covariance @ linear.T
        covariance[0, 0] += std.square().item()
    return float(covariance[0, 0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"early": 1.0, "rise": 0.0},
        {"resample_below": 1.0},
        {"resample_below": 0.0},
        {"max_step": 0.2},
        {"eta": 0.6},
        {"steps": 4},
        {"error": 0.3},
        {"weight": 0.6},
        {"spacing": "log_snr", "early": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("schedule", [CosineSchedule(), LinearSchedule()], ids=["cosine", "linear"])
def test_the_normaliser_is_unbiased_whatever_the_way(options: dict[str, Any], schedule: Schedule) -> None:
    """E[H], known as the chain's end is normal, for any proposals, twists, steps and resampling."""
    a = torch.tensor([0.7, -0.4], dtype=torch.float64)
    term = Tilt(a, schedule, options.get("error", 0.0))
    rest = {"steps": 8, "weight": 1.5, **{name: value for name, value in options.items() if name != "error"}}
    sampler = TwistedSMC(normal(schedule), [term], schedule, particles=4, **rest)
    log_z = sampler.sample(4_000, (2,), seeded(), dtype=torch.float64).log_normaliser
    end, w, var = sampler.chain.times()[-1], rest["weight"], end_variance(sampler.chain)
    alpha, sigma = float(schedule.alpha(end)), float(schedule.sigma(end))
    squares = float(a.square().sum())
    exact = math.exp(w * 0.5 * sigma**2 * squares + 0.5 * (w * alpha) ** 2 * squares * var)
    z = log_z.exp()
    assert z.mean().item() == pytest.approx(exact, abs=4 * z.std().item() / 4_000**0.5)
    assert z.std() / exact < 1.5  # so that the bound above means something


def test_a_draw_is_one_of_the_weighted_particles() -> None:
    """In two steps without resampling everything can be written down: the weights, and what is drawn by them."""
    a, n, particles = torch.tensor([1.2], dtype=torch.float64), 3_000, 3
    sampler = TwistedSMC(
        normal(SCHEDULE), [Tilt(a, SCHEDULE)], SCHEDULE, particles, steps=2, t_start=0.6, t_end=0.1, resample_below=0.0
    )
    result = sampler.sample(n, (1,), seeded(), dtype=torch.float64)
    g = seeded()
    z_t = torch.randn(n, particles, 1, generator=g, dtype=torch.float64)
    torch.randn(n, particles, generator=g, dtype=torch.float64)
    xi = torch.randn(n, particles, 1, generator=g, dtype=torch.float64)
    t, s = sampler.chain.times()
    (alpha_t, sigma_t), (alpha_s, sigma_s) = ((SCHEDULE.alpha(u), SCHEDULE.sigma(u)) for u in (t, s))
    ratio = alpha_t / alpha_s
    std = sigma_s / sigma_t * (1 - ratio**2).sqrt()
    mean = (ratio * sigma_s**2 + alpha_s * (1 - ratio**2) * alpha_t) / sigma_t**2 * z_t  # z_0_hat = alpha_t z_t
    w_t = 0.75 + 0.25 * (alpha_t / alpha_s) ** 64
    z_s = mean + std**2 * w_t * alpha_t * a + std * xi
    target = -0.5 * ((z_s - mean) / std) ** 2 + alpha_s * a * z_s + 0.5 * sigma_s**2 * a**2
    proposal = -0.5 * xi**2
    log_w = (target - proposal)[..., 0]
    assert_close(result.log_normaliser, log_w.logsumexp(1) - math.log(3), rtol=0, atol=1e-9)
    share, at_start = log_w.softmax(1), (w_t * alpha_t * a * z_t)[..., 0].softmax(1)
    smaller = 1 / torch.maximum(share.square().sum(1), at_start.square().sum(1))
    assert_close(result.ess, smaller / 3, rtol=0, atol=1e-9)
    candidates = alpha_s * z_s[..., 0]
    chosen = (candidates - result.z_0).abs().argmin(1)
    assert_close(candidates.gather(1, chosen[:, None]), result.z_0, rtol=0, atol=1e-9)
    for k in range(particles):
        drawn = (chosen == k).double()
        assert abs((drawn - share[:, k]).mean()) < 4 * drawn.std() / n**0.5


def test_an_exact_twist_has_even_weights(gaussian_line: Line) -> None:
    """One exact classifier of weight 1, followed from the start: only the steps' size makes the weights uneven."""
    one = type(gaussian_line)(gaussian_line.components, gaussian_line.attributes[:1])
    ess = [
        TwistedSMC(one.denoiser, one.terms, SCHEDULE, 16, steps=steps, early=1.0, resample_below=0.0)
        .sample(64, (1,), seeded())
        .ess.mean()
        .item()
        for steps in (25, 100)
    ]
    assert 0.8 < ess[0] < ess[1]
    assert ess[1] > 0.93


def test_the_weight_is_reached_at_the_end_and_early_share_at_the_start(gaussian_line: Line) -> None:
    seen: dict[float, Tensor] = {}
    sampler = TwistedSMC(gaussian_line.denoiser, gaussian_line.terms, SCHEDULE, steps=40, weight=3.0)
    for t in (0.995, 0.5, 0.1, 0.05, 0.001):
        seen[t] = sampler._weight(torch.tensor([t], dtype=torch.float64))
    assert seen[0.001].item() == pytest.approx(3, abs=1e-12)
    assert seen[0.995].item() == pytest.approx(0.75, abs=1e-12)
    assert 0.75 < seen[0.5] < seen[0.1] < seen[0.05] < 3
    assert TwistedSMC(gaussian_line.denoiser, [], SCHEDULE, weight=3.0, rise=0.0)._weight(torch.tensor([0.9])) == 3
    light = TwistedSMC(gaussian_line.denoiser, [], SCHEDULE, weight=0.4, early=0.5)
    assert light._weight(torch.tensor([0.999])).item() == pytest.approx(0.2, abs=1e-6)


def test_the_source_of_an_edit_conditions_the_prior(gaussian_line: Line) -> None:
    """N(0, 1) observed at z_src = 1 with tau = 0.5 is N(0.8, 0.2), against which the attributes are weighed."""
    source = SourceTerm(torch.ones(1, 1), gaussian_line.denoiser, SCHEDULE, tau=0.5)
    observed = GuidedDenoiser(gaussian_line.denoiser, [source], SCHEDULE)
    posterior = type(gaussian_line)(((1.0, 0.8, 0.2**0.5),), gaussian_line.attributes)
    result = TwistedSMC(observed, posterior.terms, SCHEDULE, 8, steps=50).sample(150, (1,), seeded())
    assert result.log_p == pytest.approx(posterior.log_probability(), abs=0.04)


def test_one_generator_per_system_and_no_generator_at_all(gaussian_line: Line) -> None:
    sampler = TwistedSMC(gaussian_line.denoiser, gaussian_line.terms, SCHEDULE, 4, steps=4)
    first, again = (sampler.sample(2, (1,), generators([1, 2])) for _ in range(2))
    assert torch.equal(first.z_0, again.z_0)
    torch.manual_seed(0)
    assert not torch.equal(sampler.sample(2, (1,)).z_0, sampler.sample(2, (1,)).z_0)


def test_a_prior_term_cannot_be_weighed(gaussian_line: Line, unchecked: None) -> None:
    source = SourceTerm(torch.ones(1, 1), gaussian_line.denoiser, SCHEDULE)
    with pytest.raises(ValueError, match=r"got a PriorTerm; give GuidedDenoiser\(denoiser, \[term\], schedule\)"):
        TwistedSMC(gaussian_line.denoiser, [*gaussian_line.terms, source], SCHEDULE)


def test_bounds_that_make_no_sense_are_refused(gaussian_line: Line) -> None:
    with pytest.raises(ValueError, match=r"`max_step` must be > 0, got 0.0"):
        TwistedSMC(gaussian_line.denoiser, gaussian_line.terms, SCHEDULE, max_step=0.0)
