import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.testing import assert_close

from lcg.diffusion import (
    CosineSchedule,
    GaussianDenoiser,
    MixtureDenoiser,
    Schedule,
    generators,
    z0_from_eps,
)

EXACT = {"rtol": 1e-10, "atol": 1e-10}
T = torch.linspace(0.05, 0.95, 32, dtype=torch.float64)


def points(dim: int) -> Tensor:
    return 1.5 * torch.randn(len(T), dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def covariances(mixture: MixtureDenoiser) -> Tensor:
    return mixture.bases * mixture.variances[:, None, :] @ mixture.bases.mT


def test_density_is_the_diffused_mixture(mixture: MixtureDenoiser, schedule: Schedule) -> None:
    z_t = points(2)
    alpha, sigma = schedule.alpha(T)[:, None, None], schedule.sigma(T)[:, None, None, None]
    components = MultivariateNormal(
        alpha * mixture.means, alpha[..., None] ** 2 * covariances(mixture) + sigma**2 * torch.eye(2)
    )
    expected = MixtureSameFamily(Categorical(logits=mixture.log_weights.expand(len(T), 3)), components)
    assert_close(mixture.log_prob(z_t, T), expected.log_prob(z_t), **EXACT)


def test_noise_is_the_scaled_score(mixture: MixtureDenoiser, schedule: Schedule) -> None:
    z_t = points(2).requires_grad_()
    (score,) = torch.autograd.grad(mixture.log_prob(z_t, T).sum(), z_t)
    assert_close(mixture(z_t.detach(), T), -schedule.sigma(T)[:, None] * score, **EXACT)


def test_gaussian_noise_is_linear(gaussian: GaussianDenoiser, schedule: Schedule) -> None:
    z_t, alpha, sigma = points(4), schedule.alpha(T)[:, None], schedule.sigma(T)[:, None]
    noised = alpha[..., None] ** 2 * covariances(gaussian) + sigma[..., None] ** 2 * torch.eye(4)
    expected = sigma * torch.linalg.solve(noised, z_t - alpha * gaussian.means)
    assert_close(gaussian(z_t, T), expected, **EXACT)


def test_posterior_mean_is_what_the_denoiser_predicts(mixture: MixtureDenoiser, schedule: Schedule) -> None:
    z_t = points(2)
    assert_close(mixture.moments(z_t, T)[0], z0_from_eps(schedule, z_t, T, mixture(z_t, T)), **EXACT)


def test_posterior_covariance_is_the_jacobian_of_the_mean(mixture: MixtureDenoiser, schedule: Schedule) -> None:
    """Cov(z_0 | z_t) = (sigma^2 / alpha) d z_0_hat / d z_t, Tweedie's formula of second order."""
    z_t = points(2).requires_grad_()
    z_0_hat = z0_from_eps(schedule, z_t, T, mixture(z_t, T))
    rows = [torch.autograd.grad(z_0_hat[:, d].sum(), z_t, retain_graph=True)[0] for d in range(2)]
    scale = (schedule.sigma(T) ** 2 / schedule.alpha(T))[:, None, None]
    assert_close(mixture.moments(z_t.detach(), T)[1], scale * torch.stack(rows, dim=1), **EXACT)


def test_component_moments_are_products_of_gaussians(mixture: MixtureDenoiser, schedule: Schedule) -> None:
    z_t, precision = points(2), torch.linalg.inv(covariances(mixture))
    alpha, sigma = schedule.alpha(T)[:, None, None], schedule.sigma(T)[:, None, None]
    V = torch.linalg.inv(precision + (alpha / sigma)[..., None] ** 2 * torch.eye(2))
    evidence = torch.einsum("kde,ke->kd", precision, mixture.means) + alpha / sigma**2 * z_t[:, None]
    means, spreads = mixture.component_moments(z_t, T)
    assert_close(means, torch.einsum("bkde,bke->bkd", V, evidence), **EXACT)
    assert_close(spreads, V, **EXACT)


def test_responsibilities_are_normalised_and_end_in_the_weights(mixture: MixtureDenoiser) -> None:
    z_t = points(2)
    assert_close(mixture.responsibilities(z_t, T).logsumexp(1), torch.zeros(len(T), dtype=torch.float64), **EXACT)
    noise = MixtureDenoiser(mixture.log_weights, mixture.means, covariances(mixture), CosineSchedule())
    at_one = noise.responsibilities(z_t, torch.ones_like(T))
    assert_close(at_one, mixture.log_weights.expand_as(at_one), **EXACT)
    nearly_clean = mixture.responsibilities(mixture.means, torch.full((3,), 1e-3))
    assert (nearly_clean.argmax(1) == torch.arange(3)).all()


def test_far_from_all_data_nothing_overflows(mixture: MixtureDenoiser) -> None:
    z_t, t = torch.full((1, 2), 1e4), torch.full((1,), 1e-3)
    for value in (mixture(z_t, t), mixture.log_prob(z_t, t), mixture.responsibilities(z_t, t)):
        assert value.isfinite().all()
        assert value.dtype == torch.float32


def test_gaussian_is_a_mixture_of_equals(gaussian: GaussianDenoiser, schedule: Schedule) -> None:
    twice = MixtureDenoiser(
        torch.zeros(2), gaussian.means.expand(2, 4), covariances(gaussian).expand(2, 4, 4), schedule
    )
    assert_close(twice(points(4), T), gaussian(points(4), T), **EXACT)


def test_samples_have_the_moments_and_the_weights(mixture: MixtureDenoiser) -> None:
    n = 40_000
    z_0 = mixture.sample(n, torch.Generator().manual_seed(0))
    weights = mixture.log_weights.exp()
    mean = weights @ mixture.means
    centred = mixture.means - mean
    covariance = torch.einsum("k,kde->de", weights, covariances(mixture) + centred[:, :, None] * centred[:, None, :])
    assert_close(z_0.mean(0), mean, rtol=0, atol=0.02)
    assert_close(torch.cov(z_0.T), covariance, rtol=0, atol=0.03)
    found = mixture.responsibilities(z_0, torch.full((n,), 1e-4)).exp().mean(0)
    assert_close(found, weights, rtol=0, atol=0.01)


def test_a_sample_does_not_depend_on_its_batch(mixture: MixtureDenoiser) -> None:
    batch = mixture.sample(5, generators(range(5)))
    assert_close(batch[3:4], mixture.sample(1, generators([3])), rtol=0, atol=0)


def test_points_are_gaussians_without_spread(schedule: Schedule) -> None:
    point = GaussianDenoiser(torch.tensor([2.0, -1.0]), torch.zeros(2, 2), schedule)
    z_t = points(2)
    z_0_hat = z0_from_eps(schedule, z_t, T, point(z_t, T))
    assert_close(z_0_hat, torch.tensor([2.0, -1.0]).double().expand_as(z_t), **EXACT)


def test_flow_solves_the_probability_flow_ode(gaussian: GaussianDenoiser, schedule: Schedule) -> None:
    """d(z / alpha) / d(sigma / alpha) = eps_hat(z, s) along the flow (arXiv:2010.02502, equation 14)."""
    z_t, s = points(4), T.flip(0)

    def scaled(s: Tensor) -> tuple[Tensor, Tensor]:
        return gaussian.flow(z_t, T, s) / schedule.alpha(s)[:, None], schedule.sigma(s) / schedule.alpha(s)

    h = 1e-5
    dz, dnoise = ((up - down) / (2 * h) for up, down in zip(scaled(s + h), scaled(s - h), strict=True))
    assert_close(dz / dnoise[:, None], gaussian(gaussian.flow(z_t, T, s), s), rtol=1e-6, atol=1e-6)


def test_flow_composes_and_returns(gaussian: GaussianDenoiser) -> None:
    z_t, s, zero = points(4), T.flip(0), torch.zeros_like(T)
    assert_close(gaussian.flow(gaussian.flow(z_t, T, s), s, zero), gaussian.flow(z_t, T, zero), **EXACT)
    assert_close(gaussian.flow(gaussian.flow(z_t, T, s), s, T), z_t, **EXACT)


def test_shapes_must_agree(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match=r"\(K,\), \(K, D\), \(K, D, D\), got \(2,\), \(3, 2\), \(3, 2, 2\); give one"):
        MixtureDenoiser(torch.zeros(2), torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2), schedule)


def test_covariances_must_be_symmetric(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match=r"`covariances` must be symmetric.*use \(S \+ S.mT\) / 2"):
        GaussianDenoiser(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), schedule)


def test_covariances_must_not_be_negative(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match=r"positive semi-definite, got the eigenvalue -0.5; add a multiple"):
        GaussianDenoiser(torch.zeros(2), torch.diag(torch.tensor([1.0, -0.5])), schedule)
