from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lcg.diffusion import CosineSchedule, DPMSolverPP2M, GaussianDenoiser, LinearSchedule, Schedule
from lcg.guidance import GuidedDenoiser, SourceTerm, Term
from lcg.guidance.source import conjugate_gradients

SCHEDULE = CosineSchedule()
D = 5
EYE = torch.eye(D, dtype=torch.float64)


def vector(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(kind: str) -> Tensor:
    a = vector(7, D)
    return {
        "white": EYE,
        "any": a @ a.mT / D + 0.05 * EYE,
        "singular": a[:, :2] @ a[:, :2].mT,
        "wide": a @ torch.diag(10.0 ** torch.arange(-3, 2, dtype=torch.float64)) @ a.mT,
    }[kind]


class Tilt(Term):
    """log p(y | z_0) = g.z_0 + const, whose noisy form has the gradient J^T g: a linear classifier."""

    def __init__(self, prior: GaussianDenoiser, g: Tensor) -> None:
        self.prior, self.g = prior, g

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        return self.prior.moments(z_t, t)[0] @ self.g


def posterior(mean: Tensor, cov: Tensor, z_src: Tensor, tau: float, schedule: Schedule, g: Tensor) -> GaussianDenoiser:
    """The denoiser of p(z_0 | z_src) exp(g.z_0) ~ N(mean, cov) N(z_src; z_0, tau^2 I) exp(g.z_0)."""
    gain = cov @ torch.linalg.inv(cov + tau**2 * EYE)
    narrowed = cov - gain @ cov
    narrowed = (narrowed + narrowed.mT) / 2
    return GaussianDenoiser(mean + gain @ (z_src - mean) + narrowed @ g, narrowed, schedule)


def rows(n: int = 40) -> tuple[Tensor, Tensor]:
    return vector(1, n), torch.linspace(0.01, 0.99, n, dtype=torch.float64)


@pytest.mark.parametrize("schedule", [CosineSchedule(), LinearSchedule()], ids=["cosine", "linear"])
@pytest.mark.parametrize("kind", ["white", "any", "singular", "wide"])
@pytest.mark.parametrize("tau", [0.1, 0.5, 3.0])
def test_observation_is_exact_for_any_gaussian_prior(kind: str, tau: float, schedule: Schedule) -> None:
    mean, cov, z_src = vector(2), covariance(kind), vector(3)
    z_t, t = rows()
    prior = GaussianDenoiser(mean, cov, schedule)
    source = SourceTerm(z_src[None], prior, schedule, tau, iterations=3 * D, tolerance=1e-14)
    guided = GuidedDenoiser(prior, [source], schedule)(z_t, t)
    exact = posterior(mean, cov, z_src, tau, schedule, torch.zeros_like(z_src))(z_t, t)
    assert ((guided - exact) / exact.abs().clamp_min(1)).abs().max() < 1e-8


@pytest.mark.parametrize("kind", ["white", "any", "wide"])
def test_source_and_linear_classifier_together_are_exact_only_jointly(kind: str) -> None:
    mean, cov, z_src, g, tau = vector(2), covariance(kind), vector(3), vector(4), 0.5
    z_t, t = rows()
    prior = GaussianDenoiser(mean, cov, SCHEDULE)
    exact = posterior(mean, cov, z_src, tau, SCHEDULE, g)(z_t, t)

    def error(joint: bool) -> float:
        source = SourceTerm(z_src[None], prior, SCHEDULE, tau, joint=joint, iterations=3 * D, tolerance=1e-14)
        guided = GuidedDenoiser(prior, [Tilt(prior, g), source], SCHEDULE)
        return float((guided(z_t, t) - exact).abs().max())

    assert error(joint=True) < 1e-8
    assert error(joint=False) > 0.1  # the negative control


@pytest.mark.parametrize("mode", ["observation", "tweedie"])
def test_tweedie_is_the_observation_for_a_white_prior(mode: str) -> None:
    prior, z_src, (z_t, t) = GaussianDenoiser(0 * vector(2), EYE, SCHEDULE), vector(3, 40), rows()
    source = SourceTerm(z_src, prior, SCHEDULE, 0.3, mode)
    alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
    assert (source.score(z_t, t) - alpha * (z_src - alpha * z_t) / (0.09 + sigma**2)).abs().max() < 1e-9


def test_the_paper_s_kernel() -> None:
    prior, z_src, (z_t, t) = GaussianDenoiser(0 * vector(2), EYE, SCHEDULE), vector(3, 40), rows()
    alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
    source = SourceTerm(z_src, prior, SCHEDULE, mode="paper", weight=0.5)
    assert (source.score(z_t, t) + 0.5 * (z_t - alpha * z_src) / sigma**2).abs().max() < 1e-9


def edit(prior: GaussianDenoiser, z_src: Tensor, g: Tensor, tau: float, mode: str, joint: bool) -> Tensor:
    """Edits from 5 starts by the deterministic sampler; the prior's covariance is isotropic."""
    source = SourceTerm(z_src[None], prior, SCHEDULE, tau, mode, joint=joint)
    guided = GuidedDenoiser(prior, [Tilt(prior, g), source], SCHEDULE)
    sampler = DPMSolverPP2M(SCHEDULE, steps=60, t_start=0.9999, t_end=1e-3, spacing="log_snr")
    return sampler.sample(guided, vector(9, 5))


@pytest.mark.parametrize("mode", ["observation", "tweedie"])
def test_an_edit_under_a_white_prior_and_a_linear_classifier_is_latent_arithmetic(mode: str) -> None:
    """The posterior is N((z_src + tau^2 g) / (1 + tau^2), tau^2 / (1 + tau^2) I), and every sample lies where its start
    lay: the sampler's map is linear."""
    prior, z_src, g, tau = GaussianDenoiser(0 * vector(2), EYE, SCHEDULE), vector(3), vector(4), 0.5
    expected = (z_src + tau**2 * g) / (1 + tau**2) + (tau**2 / (1 + tau**2)) ** 0.5 * vector(9, 5)
    assert (edit(prior, z_src, g, tau, mode, joint=True) - expected).abs().max() < 0.02
    added = edit(prior, z_src, g, tau, mode, joint=False)
    assert (added - expected).abs().max() > 0.2  # the negative control: added scores overshoot


def test_an_edit_under_a_flat_prior_and_a_linear_classifier_is_latent_arithmetic() -> None:
    """z_src + tau^2 g, with the spread tau of the observation."""
    prior, z_src, g, tau = GaussianDenoiser(0 * vector(2), 1e6 * EYE, SCHEDULE), vector(3), vector(4), 0.5
    moved, kept = (edit(prior, z_src, scale * g, tau, "observation", joint=True) for scale in (1.0, 0.0))
    assert (moved - kept - tau**2 * g).abs().max() < 0.02
    assert (moved.mean(0) - (z_src + tau**2 * g) - tau * vector(9, 5).mean(0)).abs().max() < 0.05


@pytest.mark.parametrize("joint", [True, False])
def test_added_and_joint_scores_agree_where_the_noise_is_gone(joint: bool) -> None:
    """At t = 0 both vanish at latent arithmetic, the posterior's mean."""
    mean, cov, z_src, g, tau = 0 * vector(2), EYE, vector(3), vector(4), 0.5
    prior, t = GaussianDenoiser(mean, cov, SCHEDULE), torch.full((1,), 1e-4, dtype=torch.float64)
    source = SourceTerm(z_src[None], prior, SCHEDULE, tau, joint=joint)
    centre = (z_src + tau**2 * g) / (1 + tau**2)
    eps = GuidedDenoiser(prior, [Tilt(prior, g), source], SCHEDULE)(centre[None], t)
    assert (eps / SCHEDULE.sigma(t)).abs().max() < 1e-5


def test_tau_may_differ_by_row() -> None:
    prior, z_src, (z_t, t) = GaussianDenoiser(vector(2), covariance("any"), SCHEDULE), vector(3, 40), rows()
    taus = torch.linspace(0.1, 2.0, 40, dtype=torch.float64)
    together = SourceTerm(z_src, prior, SCHEDULE, taus, iterations=D, tolerance=0.0).score(z_t, t)
    for i in (0, 17, 39):
        one = SourceTerm(z_src[i : i + 1], prior, SCHEDULE, float(taus[i]), iterations=D, tolerance=0.0)
        assert (one.score(z_t[i : i + 1], t[i : i + 1]) - together[i]).abs().max() < 1e-9


def test_latents_of_any_shape() -> None:
    flat = GaussianDenoiser(torch.zeros(6, dtype=torch.float64), torch.diag(torch.arange(1.0, 7.0).double()), SCHEDULE)

    def folded(z_t: Tensor, t: Tensor) -> Tensor:
        return flat(z_t.flatten(1), t).view_as(z_t)

    z_t, t = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)).double(), rows(4)[1]
    one = SourceTerm(z_t.flip(0), folded, SCHEDULE).score(z_t, t)
    two = SourceTerm(z_t.flip(0).flatten(1), flat, SCHEDULE).score(z_t.flatten(1), t)
    assert (one.flatten(1) - two).abs().max() < 1e-12


def test_a_few_iterations_are_nearly_exact_and_a_white_prior_needs_one() -> None:
    z_src, (z_t, t) = vector(3, 40), rows()
    prior = GaussianDenoiser(vector(2), covariance("any"), SCHEDULE)
    exact = SourceTerm(z_src, prior, SCHEDULE, 0.5, iterations=3 * D, tolerance=0.0).score(z_t, t)
    default = SourceTerm(z_src, prior, SCHEDULE, 0.5).score(z_t, t)
    assert (default - exact).abs().max() < 0.02 * exact.abs().max()

    products = 0

    def count(v: Tensor) -> Tensor:
        nonlocal products
        products += 1
        return 0.7 * v

    x, solved = conjugate_gradients(count, torch.full((40, 1), 0.3, dtype=torch.float64), z_src, 10, 1e-9)
    assert products == 1 and solved.all() and (x - z_src).abs().max() < 1e-12


def test_conjugate_gradients_solve_rows_of_different_difficulty() -> None:
    cov = torch.stack([EYE, covariance("any"), covariance("wide")])
    right, shift = vector(5, 3), torch.tensor([[0.1], [1.0], [0.01]], dtype=torch.float64)
    right[0] = 0.0
    x, solved = conjugate_gradients(lambda v: torch.einsum("bde,be->bd", cov, v), shift, right, 4 * D, 1e-14)
    exact = torch.linalg.solve(cov + shift[..., None] * EYE, right)
    assert (x - exact).abs().max() < 1e-7 * exact.abs().max() and solved.all() and (x[0] == 0).all()


def test_a_jacobian_that_is_none_of_a_denoiser_falls_back() -> None:
    """eps_hat = 50 z_t / sigma_t has a negative definite `covariance`; one row in two is exact."""
    prior, z_src, (z_t, t) = GaussianDenoiser(0 * vector(2), EYE, SCHEDULE), vector(3, 40), rows()
    odd = (torch.arange(40) % 2).bool()[:, None]

    def mixed(z: Tensor, t: Tensor) -> Tensor:
        return torch.where(odd, 50 * z / SCHEDULE.sigma(t)[:, None], prior(z, t))

    score = SourceTerm(z_src, mixed, SCHEDULE, 0.05).score(z_t, t)
    exact = SourceTerm(z_src, prior, SCHEDULE, 0.05).score(z_t, t)
    simple = SourceTerm(z_src, mixed, SCHEDULE, 0.05, "tweedie").score(z_t, t)
    alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
    residual = z_src - (z_t - sigma * mixed(z_t, t)) / alpha
    bound = alpha * residual.norm(dim=1, keepdim=True) / sigma**2
    expected = torch.where(odd, simple * (bound / simple.norm(dim=1, keepdim=True)).clamp(max=1), exact)
    assert (score - expected).abs().max() < 1e-9 * expected.abs().max()


def test_the_score_never_exceeds_what_any_covariance_allows() -> None:
    """A learnt Jacobian may be far from symmetric; alpha |z_src - z_0_hat| / sigma^2 bounds every exact score."""
    twist = vector(8, D) * 30
    z_src, (z_t, t) = vector(3, 40), rows()

    def learnt(z: Tensor, t: Tensor) -> Tensor:
        return z @ twist

    score = SourceTerm(z_src, learnt, SCHEDULE, 0.01).score(z_t, t)
    alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
    bound = alpha * (z_src - (z_t - sigma * learnt(z_t, t)) / alpha).norm(dim=1, keepdim=True) / sigma**2
    assert (score.norm(dim=1, keepdim=True) / bound).max() < 1 + 1e-9


def test_float32_is_close_to_float64_over_all_times() -> None:
    prior, z_src, (z_t, t) = GaussianDenoiser(vector(2), covariance("any"), SCHEDULE), vector(3, 40), rows()
    single = SourceTerm(z_src.float(), prior, SCHEDULE, 0.3).score(z_t.float(), t.float())
    double = SourceTerm(z_src, prior, SCHEDULE, 0.3).score(z_t, t)
    assert single.dtype == torch.float32 and (single - double).abs().max() < 1e-3 * double.abs().max()


@pytest.mark.parametrize("kind", ["white", "any", "wide"])
@pytest.mark.parametrize("tau", [0.2, 3.0])
def test_free_directions_are_exact_for_any_gaussian_prior(kind: str, tau: float) -> None:
    """The posterior under an observation of Q z_0 and a linear log-probability, of precision S^-1 + Q / tau^2."""
    mean, cov, z_src, g = vector(2), covariance(kind), vector(3), vector(4)
    free = torch.linalg.qr(vector(5, 2).mT).Q.mT
    q = EYE - free.mT @ free
    narrowed = torch.linalg.inv(torch.linalg.inv(cov) + q / tau**2)
    narrowed = (narrowed + narrowed.mT) / 2
    exact = GaussianDenoiser(mean + narrowed @ (q @ (z_src - mean) / tau**2 + g), narrowed, SCHEDULE)
    prior, (z_t, t) = GaussianDenoiser(mean, cov, SCHEDULE), rows()
    options = {"iterations": 6 * D, "tolerance": 1e-14, "joint": True, "free": free[None]}
    source = SourceTerm(z_src[None], prior, SCHEDULE, tau, **options)
    guided = GuidedDenoiser(prior, [Tilt(prior, g), source], SCHEDULE)(z_t, t)
    assert ((guided - exact(z_t, t)) / exact(z_t, t).abs().clamp_min(1)).abs().max() < 1e-6
    if kind == "white":
        cheap = SourceTerm(z_src[None], prior, SCHEDULE, tau, "tweedie", joint=True, free=free[None])
        assert (GuidedDenoiser(prior, [Tilt(prior, g), cheap], SCHEDULE)(z_t, t) - guided).abs().max() < 1e-9


def test_nothing_free_is_the_isotropic_source_and_all_free_none() -> None:
    prior, z_src, (z_t, t) = GaussianDenoiser(vector(2), covariance("any"), SCHEDULE), vector(3, 40), rows()

    def score(free: Tensor | None, mode: str) -> Tensor:
        return SourceTerm(z_src, prior, SCHEDULE, 0.3, mode, free=free, iterations=40, tolerance=1e-14).score(z_t, t)

    for mode in ("observation", "tweedie"):
        none = score(None, mode)
        assert (score(torch.zeros(1, 0, D).double(), mode) - none).abs().max() < 1e-6 * none.abs().max()
        assert score(EYE[None], mode).abs().max() < 1e-9


def test_a_weight_per_row_of_the_paper_s_kernel() -> None:
    prior, z_src, (z_t, t) = GaussianDenoiser(vector(2), EYE, SCHEDULE), vector(3, 40), rows()
    weights = torch.linspace(0, 2, 40).double()
    together = SourceTerm(z_src, prior, SCHEDULE, mode="paper", weight=weights).score(z_t, t)
    single = SourceTerm(z_src, prior, SCHEDULE, mode="paper").score(z_t, t)
    assert (together - weights[:, None] * single).abs().max() < 1e-9


REFUSED: list[tuple[Callable[[GaussianDenoiser], object], str]] = [
    (lambda p: SourceTerm(vector(0, 1), p, SCHEDULE, 0.0), "`tau` must be > 0, got 0.0"),
    (lambda p: SourceTerm(vector(0, 2), p, SCHEDULE, torch.tensor([1.0, -1.0])), "`tau` must be > 0"),
    (lambda p: SourceTerm(vector(0, 1), p, SCHEDULE, iterations=0), "`iterations` must be at least 1.*'tweedie'"),
    (lambda p: SourceTerm(vector(0, 1), p, SCHEDULE, tolerance=-1.0), "`tolerance` must be >= 0"),
    (
        lambda p: SourceTerm(vector(0, 1), p, SCHEDULE, weight=2.0),
        "`weight` must be >= 0, and 1 except in the mode 'paper'",
    ),
    (lambda p: SourceTerm(vector(0, 1), p, SCHEDULE, mode="paper", weight=-1.0), "`weight` must be >= 0"),
    (
        lambda p: SourceTerm(vector(0, 1), p, SCHEDULE, mode="paper", joint=True),
        "`joint` must be False in the mode 'paper'",
    ),
    (
        lambda p: SourceTerm(vector(0, 1), p, SCHEDULE, mode="paper", free=EYE[None]),
        "`free` must be None in the mode 'paper'",
    ),
    (
        lambda p: SourceTerm(vector(0, 1), p, SCHEDULE, free=EYE).score(*rows(4)),
        r"`free` must be \(B, k, \*latent\), k directions per latent of shape \(5,\), got \(5, 5\)",
    ),
    (
        lambda p: SourceTerm(vector(0, 3), p, SCHEDULE).score(*rows(4)),
        r"`z_src` must have one row or the shape.*got \(3, 5\)",
    ),
    (lambda p: SourceTerm(vector(0, 4)[:, :2], p, SCHEDULE).score(*rows(4)), "give one source per latent"),
]


@pytest.mark.parametrize(("build", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_makes_no_sense_is_refused(build: Callable[[GaussianDenoiser], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(GaussianDenoiser(vector(2), EYE, SCHEDULE))


def test_no_gradients_under_inference_mode() -> None:
    prior, (z_t, t) = GaussianDenoiser(vector(2), EYE, SCHEDULE), rows(4)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="guidance needs gradients"):
        SourceTerm(z_t, prior, SCHEDULE).score(z_t, t)
