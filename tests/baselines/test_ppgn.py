"""PPGN: with an exact denoiser the prior's drift is the score in closed form, and the chain ends where it must."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lcg.baselines.clean import log_probability, own_noise
from lcg.baselines.ppgn import PPGN, reconstruct
from lcg.diffusion import CosineSchedule, GaussianDenoiser, LinearSchedule, MixtureDenoiser, Schedule, generators, randn
from lcg.guidance.terms import gradient
from lcg.nets.latent_classifier import LatentClassifier

SCHEDULE, DIM = CosineSchedule(), 4

MEAN = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
SPREAD = torch.tensor([[1.0, 0.4, 0, 0], [0.4, 0.5, 0, 0], [0, 0, 0.2, 0], [0, 0, 0, 1.5]], dtype=torch.float64)
GAUSSIAN = GaussianDenoiser(MEAN, SPREAD, SCHEDULE)


@pytest.fixture
def fitted(small) -> Callable[..., PPGN]:
    def fit(network: LatentClassifier, **options: Any) -> PPGN:
        return PPGN(small.save(network), **{"steps": 10, **options}).fit(small.training(GAUSSIAN))

    return fit


# --- the prior ---


@pytest.mark.parametrize("sigma", [0.05, 0.2, 1.0, 5.0])
def test_with_a_gaussian_prior_the_drift_is_the_score_in_closed_form(sigma: float, small) -> None:
    """R(h) - h = sigma^2 grad log N(h; mu, S + sigma^2 I) = -sigma^2 (S + sigma^2 I)^-1 (h - mu)."""
    h = small.normal(6, DIM).double()
    expected = -(sigma**2) * torch.linalg.solve(SPREAD + sigma**2 * torch.eye(DIM).double(), (h - MEAN).T).T
    torch.testing.assert_close(reconstruct(GAUSSIAN, SCHEDULE, h, sigma) - h, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", [CosineSchedule(), LinearSchedule()])
def test_with_any_prior_it_is_the_smoothed_score(schedule: Schedule, small) -> None:
    sigma, h = 0.4, small.normal(6, 2).double()
    weights = torch.tensor([0.3, 0.7]).double()
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).double()
    covariances = torch.stack([0.2 * torch.eye(2), torch.diag(torch.tensor([0.5, 0.1]))]).double()

    def log_density(h: Tensor) -> Tensor:
        smoothed = torch.distributions.MultivariateNormal(means, covariances + sigma**2 * torch.eye(2).double())
        return (weights.log() + smoothed.log_prob(h[:, None])).logsumexp(1)

    denoiser = MixtureDenoiser(weights.log(), means, covariances, schedule)
    drift = reconstruct(denoiser, schedule, h, sigma) - h
    torch.testing.assert_close(drift, sigma**2 * gradient(log_density, h), rtol=1e-9, atol=1e-9)


def test_it_reconstructs_what_was_noised() -> None:
    """The posterior mean: of noised latents closer to the clean ones than these, by what theory says."""
    sigma = 0.8
    z_0 = GAUSSIAN.sample(4000, torch.Generator().manual_seed(0))
    h = z_0 + sigma * randn(z_0.shape, torch.Generator().manual_seed(1), dtype=torch.float64)
    error = (reconstruct(GAUSSIAN, SCHEDULE, h, sigma) - z_0).square().sum(1).mean()
    smoothed = SPREAD + sigma**2 * torch.eye(DIM).double()
    expected = (SPREAD - SPREAD @ torch.linalg.solve(smoothed, SPREAD)).trace()
    torch.testing.assert_close(error, expected, rtol=0.05, atol=0.0)


# --- the chain ---


def test_its_stationary_distribution_is_the_closed_form(fitted: Callable[..., PPGN], small) -> None:
    """Equation 11 in the Gaussian case is autoregressive, h' - m = (1 - c)(h - m) + lr eps3 xi on every axis of S.

    c = lr eps1 sigma^2 / (S + sigma^2), and the variance is (lr eps3)^2 / (1 - (1 - c)^2). A classifier far from its
    target is a constant gradient a, which shifts the mean by eps2 (S + sigma^2) a / (eps1 sigma^2).
    """
    sigma, lr, eps1, eps2, eps3 = 0.5, 0.4, 1.2, 0.1, 1.0
    options = {"sigma": sigma, "lr": lr, "eps1": eps1, "eps2": eps2, "eps3": eps3, "normalised": False, "steps": 60}
    method = fitted(small.linear(-60.0), **options)
    start = torch.zeros(8000, DIM)
    h = method.generate(small.formula("glasses"), start, torch.Generator().manual_seed(0)).double()
    smoothed, basis = torch.linalg.eigh(SPREAD + sigma**2 * torch.eye(DIM).double())
    c = lr * eps1 * sigma**2 / smoothed
    a = torch.tensor([2.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    mean = MEAN + basis @ (eps2 * smoothed * (basis.T @ a) / (eps1 * sigma**2))
    left = (1 - c) ** 60  # of where it began
    mean = mean + basis @ (left * (basis.T @ (start[0].double() - mean)))
    variance = (lr * eps3) ** 2 / (1 - (1 - c) ** 2) * (1 - left**2)
    error = (variance / 8000).sqrt()
    assert ((h.mean(0) - mean) @ basis / error).abs().max() < 4.5
    torch.testing.assert_close(((h - mean) @ basis).var(0), variance, rtol=0.08, atol=0.0)


def test_as_langevin_sampling_it_samples_the_smoothed_prior(fitted: Callable[..., PPGN], small) -> None:
    """With eps1 = eps2 / sigma^2 and eps3 = sqrt(2 eps2 / lr), up to an error of order lr eps2."""
    sigma, lr, eps2 = 0.5, 0.02, 1.0
    options = {"sigma": sigma, "lr": lr, "eps1": eps2 / sigma**2, "eps2": eps2, "eps3": math.sqrt(2 * eps2 / lr)}
    method = fitted(small.linear(60.0), normalised=False, steps=120, **options)  # a classifier that is content
    h = method.generate(
        small.formula("glasses"), GAUSSIAN.sample(4000, torch.Generator().manual_seed(1)).float()
    ).double()
    smoothed = SPREAD + sigma**2 * torch.eye(DIM).double()
    torch.testing.assert_close(h.T.cov(), smoothed, rtol=0.08, atol=0.06)
    torch.testing.assert_close(h.mean(0), MEAN, rtol=0.0, atol=0.08)


def test_one_step_is_equation_11_and_the_published_code_scales_it(fitted: Callable[..., PPGN], small) -> None:
    network, z, options = (
        small.mlp(),
        small.normal(5, DIM),
        {"steps": 1, "lr": 0.03, "eps1": 0.7, "eps2": 1.3, "eps3": 0.2},
    )
    log_p = log_probability(network, small.literals("glasses & hair=red"))
    xi = randn(z.shape, own_noise(z))
    d = 0.7 * (reconstruct(GAUSSIAN, SCHEDULE, z, 0.2) - z) + 1.3 * gradient(log_p, z) + 0.2 * xi
    moved = small.edit(fitted(network, normalised=False, **options), z, "+glasses", "hair=red")
    torch.testing.assert_close(moved, z + 0.03 * d)
    scaled = small.edit(fitted(network, **options), z, "+glasses", "hair=red")
    torch.testing.assert_close(scaled, z + 0.03 * d / d.abs().mean(1, keepdim=True))
    torch.testing.assert_close((scaled - z).abs().mean(1), torch.full((5,), 0.03), rtol=1e-4, atol=0.0)


def test_where_the_classifier_is_content_the_prior_leads(fitted: Callable[..., PPGN], small) -> None:
    """A logit of 200 has no gradient left, and steps go to what the prior finds more probable, however small eps1."""
    z = small.normal(5, DIM) + 3
    moved = small.edit(fitted(small.linear(200.0), steps=1), z, "+glasses")
    residue = reconstruct(GAUSSIAN, SCHEDULE, z, 0.2) - z
    torch.testing.assert_close(moved, z + 0.02 * residue / residue.abs().mean(1, keepdim=True))
    torch.testing.assert_close(small.edit(fitted(small.linear(200.0), eps1=0.0, eps3=0.0), z, "+glasses"), z)


# --- as an editor and as a sampler ---


@pytest.mark.parametrize("text", ["glasses", "~hat", "hair=red", "~hair=black", "age>0.6"])
def test_every_kind_of_edit_comes_to_hold(fitted: Callable[..., PPGN], text: str, small) -> None:
    network, z = small.mlp(), small.normal(20, DIM)
    log_p = log_probability(network, small.literals(text))
    moved = fitted(network, steps=100, lr=0.04).generate(small.formula(text), z)
    assert (log_p(moved) > log_p(z)).all()
    assert (log_p(moved) > math.log(0.5)).all()


def test_noise_follows_the_seed_in_edits_and_the_generators_in_samples(fitted: Callable[..., PPGN], small) -> None:
    z, formula = small.normal(4, DIM), small.formula("glasses & ~hat")
    a, b, c = (small.edit(fitted(small.mlp(), eps3=0.5, seed=seed), z, "+glasses") for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.isclose(a, c).any()
    method = fitted(small.mlp(), eps3=0.5)
    a, b, c = (method.generate(formula, z, generators(range(k, k + 4))) for k in (0, 0, 1))
    assert torch.equal(a, b) and not torch.isclose(a, c).any()


# --- refusals ---


def test_options_out_of_range_are_refused() -> None:
    for options, message in (
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"lr": 0.0}, r"`lr` must be positive and finite, got 0\.0"),
        ({"sigma": math.inf}, "`sigma` must be positive and finite, got inf"),
        ({"eps1": -1.0}, r"`eps1` must be finite and >= 0, got -1\.0"),
        ({"eps2": math.nan}, "`eps2` must be finite and >= 0, got nan"),
        ({"eps3": math.inf}, "`eps3` must be finite and >= 0, got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            PPGN(**options)


def test_what_it_cannot_do_is_refused(fitted: Callable[..., PPGN], small) -> None:
    z, method = small.normal(4, DIM), fitted(small.linear())
    with pytest.raises(ValueError, match="'glasses & ~glasses', which contradicts itself"):
        small.edit(method, z, "+glasses", "-glasses")
    with torch.inference_mode(), pytest.raises(RuntimeError, match="guidance needs gradients"):
        small.edit(method, z, "+glasses")
