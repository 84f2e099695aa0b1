import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import lcg.diffusion.likelihood as likelihood
from lcg.diffusion import CosineSchedule, GaussianDenoiser, MixtureDenoiser, Schedule, generators, time_grid
from lcg.diffusion.likelihood import LowerBound, evidence_lower_bound, flow_log_prob
from lcg.guidance import ClassifierTerm, FormulaReadout, GuidedDenoiser, Term, parse
from lcg.nets.heads import HeadOutputs
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("kind", "categorical", ("a", "b", "c")),))
T_START, T_END = 0.995, 0.001
Eps = Callable[[Tensor, Tensor], Tensor]

cosine_only = pytest.mark.parametrize("schedule", [CosineSchedule()], ids=["cosine"])  # where one schedule must do


def at(t: float, z: Tensor) -> Tensor:
    return torch.full((len(z),), t, dtype=torch.float64)


def covariances(mixture: MixtureDenoiser) -> Tensor:
    return mixture.bases * mixture.variances[:, None, :] @ mixture.bases.mT


def part(mixture: MixtureDenoiser, *k: int) -> MixtureDenoiser:
    """The conditional: the components k alone."""
    rows = list(k)
    return MixtureDenoiser(mixture.log_weights[rows], mixture.means[rows], covariances(mixture)[rows], mixture.schedule)


class Responsibilities:
    """The class is the component, so these are the exact noisy posterior; `clean` asks them as if z_t were clean."""

    def __init__(self, prior: MixtureDenoiser, clean: bool = False) -> None:
        self.prior, self.clean = prior, clean

    def __call__(self, z_t: Tensor, t: Tensor) -> HeadOutputs:
        return {"kind": self.prior.responsibilities(z_t, torch.full_like(t, 1e-3) if self.clean else t)}


class Negated(Term):
    """The score of NOT by negating that of its operand."""

    def __init__(self, term: Term) -> None:
        self.term = term

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        return -self.term.log_prob(z_t, t)


def wanting(prior: MixtureDenoiser, text: str, clean: bool = False) -> ClassifierTerm:
    return ClassifierTerm(Responsibilities(prior, clean), [(FormulaReadout(parse(text, SCHEMA)), 1.0)])


def guided(prior: MixtureDenoiser, text: str, weight: float = 1.0) -> GuidedDenoiser:
    return GuidedDenoiser(prior, [wanting(prior, text)], prior.schedule, weight)


def estimate(denoiser: Eps, z_0: Tensor, schedule: Schedule, repeats: int, **options: Any) -> tuple[Tensor, Tensor]:
    """The bound and its standard error, from `repeats` rows for each latent (cheaper here than as many draws)."""
    rows, generator = z_0.repeat_interleave(repeats, 0), torch.Generator().manual_seed(1)
    log_prob = evidence_lower_bound(denoiser, rows, schedule, generator=generator, **options).log_prob
    log_prob = log_prob.view(len(z_0), repeats)
    return log_prob.mean(1), log_prob.std(1) / math.sqrt(repeats)


# --- the bound against closed forms: a Gaussian's, whose chain is Gaussian ---


def expected_error(model: GaussianDenoiser, z_0: Tensor, t: Tensor) -> Tensor:
    """E|eps - eps_hat|^2 given z_0, (len(t), B): on each axis eps - eps_hat = (alpha^2 L eps - sigma alpha c) / v."""
    alpha, sigma = (f(t)[:, None, None] for f in (model.schedule.alpha, model.schedule.sigma))
    L, c = model.variances[0], (z_0 - model.means[0]) @ model.bases[0]
    return (((alpha**2 * L) ** 2 + (sigma * alpha * c) ** 2) / (alpha**2 * L + sigma**2) ** 2).sum(-1)


def expected_bound(model: GaussianDenoiser, z_0: Tensor, steps: int, spacing: str = "log_snr") -> Tensor:
    """The chain's bound without sampling."""
    schedule, d = model.schedule, z_0.shape[1]
    times = time_grid(schedule, steps - 1, spacing=spacing)
    error = expected_error(model, z_0, times)
    alpha2, sigma2 = schedule.alpha(times) ** 2, schedule.sigma(times) ** 2
    prior = 0.5 * (alpha2[0] * z_0.square().sum(1) + d * (sigma2[0] - 1 - sigma2[0].log()))
    snr = alpha2 / sigma2
    z_0_error = error / snr[:, None]  # |z_0 - z_0_hat|^2; Kingma et al. write the step with it
    diffusion = 0.5 * (snr.diff()[:, None] * z_0_error[:-1]).sum(0)
    reconstruction = 0.5 * (d * (2 * math.pi * sigma2[-1]).log() + z_0_error[-1] / sigma2[-1])
    return -(prior + diffusion + reconstruction)


def chain_log_prob(model: GaussianDenoiser, z_0: Tensor, steps: int) -> Tensor:
    """log p(z_0) of the chain, by the recursion of its mean and variance on each axis."""
    schedule, L, mu = model.schedule, model.variances[0], model.means[0] @ model.bases[0]
    times = time_grid(schedule, steps - 1, spacing="log_snr")
    alpha, sigma, lam = schedule.alpha(times), schedule.sigma(times), schedule.log_snr(times)
    mean, var = torch.zeros_like(mu), torch.ones_like(L)
    for i in range(steps):
        slope = alpha[i] * L / (alpha[i] ** 2 * L + sigma[i] ** 2)  # z_0_hat = mu + slope (z_t - alpha mu)
        constant = (1 - slope * alpha[i]) * mu
        if i + 1 == steps:
            mean, var = slope * mean + constant, slope**2 * var + sigma[i] ** 2
        else:
            k = torch.exp(2 * (lam[i] - lam[i + 1]))
            direct, through = alpha[i + 1] / alpha[i] * k, alpha[i + 1] * (1 - k)
            mean = (direct + through * slope) * mean + through * constant
            var = (direct + through * slope) ** 2 * var + sigma[i + 1] ** 2 * (1 - k)
    u = z_0 @ model.bases[0] - mean
    return -0.5 * (u**2 / var + (2 * math.pi * var).log()).sum(1)


def test_the_estimate_is_unbiased(gaussian: GaussianDenoiser) -> None:
    z_0 = gaussian.sample(6, torch.Generator().manual_seed(0))
    expected = expected_bound(gaussian, z_0, 12)
    bound, stderr = estimate(gaussian, z_0, gaussian.schedule, 1500, steps=12, continuous=False)
    assert ((bound - expected) / stderr).abs().max() < 4
    assert (stderr < 0.01 * (gaussian.log_prob(z_0, at(0.0, z_0)) - expected)).all()


@cosine_only
@pytest.mark.parametrize("steps", [3, 20])
def test_the_limit_integrates_over_the_log_snr(gaussian: GaussianDenoiser, steps: int) -> None:
    """Trapezoids of the exact integrand on a fine grid of lambda; the two ends are the same as those of the chain."""
    z_0, schedule = gaussian.sample(6, torch.Generator().manual_seed(0)), gaussian.schedule
    fine = time_grid(schedule, 4000, spacing="log_snr")
    error = expected_error(gaussian, z_0, fine)
    sums = 0.5 * torch.expm1(2 * schedule.log_snr(fine).diff()) @ error[:-1]
    expected = expected_bound(gaussian, z_0, 4001) + sums - torch.trapezoid(error, schedule.log_snr(fine), dim=0)
    bound, stderr = estimate(gaussian, z_0, schedule, 20_000 // steps, steps=steps)
    assert ((bound - expected) / stderr).abs().max() < 4 and stderr.max() < 0.12


@cosine_only
def test_draws_are_averaged_and_their_spread_is_the_standard_error(gaussian: GaussianDenoiser) -> None:
    z_0 = gaussian.sample(400, torch.Generator().manual_seed(0))
    limit = gaussian.log_prob(z_0, at(0.0, z_0))
    bound = evidence_lower_bound(
        gaussian, z_0, gaussian.schedule, 20, draws=5, generator=torch.Generator().manual_seed(1)
    )
    scores = (bound.log_prob - limit) / bound.stderr.square().mean().sqrt()
    assert 0.8 < scores.square().mean() < 1.2


def test_standard_normal_latents_are_bounded_without_noise() -> None:
    """There the reference is the model: no variance is left, and in continuous time no gap either."""
    schedule, d = CosineSchedule(), 3
    model = GaussianDenoiser(torch.zeros(d), torch.eye(d), schedule)
    z_0 = 2 * torch.randn(5, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = model.log_prob(z_0, at(0.0, z_0))
    bound = evidence_lower_bound(model, z_0, schedule, steps=2, draws=3)
    assert (bound.log_prob - exact).abs().max() < 1e-9 and bound.stderr.max() < 1e-10
    for steps in (5, 50):
        chain = evidence_lower_bound(model, z_0, schedule, steps, continuous=False)
        assert (chain.log_prob - expected_bound(model, z_0, steps)).abs().max() < 1e-9
        assert chain.stderr.isnan().all()


def test_the_parts_are_those_of_the_evidence_lower_bound(gaussian: GaussianDenoiser) -> None:
    schedule, z_0 = gaussian.schedule, gaussian.sample(4, torch.Generator().manual_seed(0))
    bound = evidence_lower_bound(gaussian, z_0, schedule, 5, draws=20, generator=torch.Generator().manual_seed(1))
    alpha, sigma = schedule.alpha(at(T_START, z_0)), schedule.sigma(at(T_START, z_0))
    noised = torch.distributions.Normal(alpha[:, None] * z_0, sigma[:, None])
    kl = torch.distributions.kl_divergence(noised, torch.distributions.Normal(0.0, torch.ones(()).double())).sum(1)
    assert (bound.prior - kl).abs().max() < 1e-12
    s = schedule.sigma(torch.tensor(T_END, dtype=torch.float64))
    entropy = 2 * (2 * math.pi * math.e * s**2).log()  # of N(z_0_hat, s^2 I) in four dimensions
    assert (bound.reconstruction - entropy).abs().max() < 2e-2
    assert (bound.log_prob + bound.prior + bound.diffusion + bound.reconstruction).abs().max() < 1e-12


@pytest.mark.parametrize("steps", [3, 10, 100, 1000])
def test_the_bound_is_below_the_chains_density_at_every_latent(gaussian: GaussianDenoiser, steps: int) -> None:
    """Jensen's inequality, for the right denoiser and for wrong ones, at likely latents and at unlikely ones."""
    z_0 = 3 * torch.randn(200, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wrong = GaussianDenoiser(gaussian.means[0] + 1, 3 * covariances(gaussian)[0], gaussian.schedule)
    for model in (gaussian, wrong):
        assert (chain_log_prob(model, z_0, steps) - expected_bound(model, z_0, steps)).min() > 0


def test_at_a_single_latent_the_bound_may_exceed_the_true_density() -> None:
    """Hence `bound <= log q` can be a theorem only on average over q, which for N(0, I) is the value at |z_0|^2 = d."""
    model = GaussianDenoiser(torch.zeros(3), torch.eye(3), CosineSchedule())
    z_0 = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 1.0]], dtype=torch.float64)
    bound = evidence_lower_bound(model, z_0, model.schedule, 2, continuous=False, t_end=0.01)
    above, average = (bound.log_prob - model.log_prob(z_0, at(0.0, z_0))).tolist()
    assert above > 3 and average < -3


def test_the_average_gap_falls_like_one_over_the_steps(gaussian: GaussianDenoiser) -> None:
    z_0 = gaussian.sample(2000, torch.Generator().manual_seed(0))
    exact = gaussian.log_prob(z_0, at(0.0, z_0))
    gaps = [(exact - expected_bound(gaussian, z_0, n)).mean().item() for n in (51, 101, 201, 401)]
    assert all(0.45 < b / a < 0.55 for a, b in itertools.pairwise(gaps)) and gaps[0] < 12


# --- mixtures: unconditional and guided ---


def test_in_continuous_time_the_bound_of_an_exact_denoiser_is_the_density(mixture: MixtureDenoiser) -> None:
    """At every latent, not only on average."""
    z_0 = mixture.sample(16, torch.Generator().manual_seed(0))
    bound, stderr = estimate(mixture, z_0, mixture.schedule, 400, spacing="quadratic", steps=40)
    gap = mixture.log_prob(z_0, at(0.0, z_0)) - bound
    assert (gap / stderr).abs().max() < 4 and stderr.max() < 0.1


@cosine_only
@pytest.mark.parametrize(("text", "components"), [("kind=b", (1,)), ("~kind=b", (0, 2))])
def test_guidance_bounds_the_conditional_log_probability(
    mixture: MixtureDenoiser, text: str, components: tuple[int, ...]
) -> None:
    """The theorem, with the exact noisy posterior: E bound <= E log p(z_0 | y) over p(z_0 | y), tight in the limit."""
    conditional, denoiser = part(mixture, *components), guided(mixture, text)
    z_0 = conditional.sample(1000, torch.Generator().manual_seed(0))
    exact = conditional.log_prob(z_0, at(0.0, z_0))

    def gap(steps: int, continuous: bool = False) -> tuple[float, float]:
        bound = evidence_lower_bound(
            denoiser, z_0, mixture.schedule, steps, continuous, generator=torch.Generator().manual_seed(steps)
        )
        difference = exact - bound.log_prob
        return difference.mean().item(), difference.std().item() / math.sqrt(len(z_0))

    gaps = [gap(steps) for steps in (6, 12, 24)]
    assert all(mean > 10 * stderr for mean, stderr in gaps)
    assert all(after[0] < 0.55 * before[0] for before, after in itertools.pairwise(gaps))
    mean, stderr = gap(30, continuous=True)
    assert abs(mean) < 4 * stderr and stderr < 0.04


@cosine_only
def test_an_exactly_guided_denoiser_has_the_bound_of_the_conditional(mixture: MixtureDenoiser) -> None:
    conditional = part(mixture, 0, 2)
    z_0 = conditional.sample(16, torch.Generator().manual_seed(0))
    one, two = (
        evidence_lower_bound(d, z_0, mixture.schedule, 10, generator=torch.Generator().manual_seed(1))
        for d in (guided(mixture, "~kind=b"), conditional)
    )
    assert_close(one.log_prob, two.log_prob, rtol=1e-9, atol=1e-9)


@cosine_only
def test_guidance_raises_the_bound_by_what_the_label_says_about_the_latent(mixture: MixtureDenoiser) -> None:
    """In continuous time, at every latent: bound(z_0 | y) - bound(z_0) = log p(y | z_0) / p(y)."""
    z_0 = mixture.sample(16, torch.Generator().manual_seed(0))
    (conditional, s1), (prior, s2) = (
        estimate(d, z_0, mixture.schedule, 400, steps=30) for d in (guided(mixture, "kind in {a, c}"), mixture)
    )
    log_h = mixture.responsibilities(z_0, at(1e-4, z_0))[:, [0, 2]].logsumexp(1)
    information = log_h - mixture.log_weights[[0, 2]].logsumexp(0)
    assert information.min() < -2 and information.max() > 0.3  # also at latents of the other class
    assert ((conditional - prior - information) / (s1**2 + s2**2).sqrt()).abs().max() < 4


def mean_bound(denoiser: Eps, z_0: Tensor, schedule: Schedule) -> Tensor:
    """By row, with the same noise for every denoiser: differences are far more exact than values."""
    return evidence_lower_bound(denoiser, z_0, schedule, 16, generator=torch.Generator().manual_seed(7)).log_prob


@cosine_only
def test_weight_one_maximises_the_bound(mixture: MixtureDenoiser) -> None:
    """E bound is a parabola in the weight, bound(1) - (w - 1)^2 int sigma^2 E|grad log p(y | z_t)|^2 dlambda."""
    z_0 = part(mixture, 1).sample(1500, torch.Generator().manual_seed(0))
    at_one = mean_bound(guided(mixture, "kind=b"), z_0, mixture.schedule)
    falls = {}
    for w in (0.0, 0.5, 0.9, 1.1, 2.0, 4.0):
        fall = at_one - mean_bound(guided(mixture, "kind=b", w), z_0, mixture.schedule)
        assert fall.mean() > 3 * fall.std() / math.sqrt(len(z_0)), w
        falls[w] = fall.mean().item() / (w - 1) ** 2
    assert abs(falls[0.0] - falls[2.0]) < 0.1 * falls[0.0]
    assert abs(falls[4.0] - falls[2.0]) < 0.1 * falls[0.0]


@cosine_only
def test_a_wrong_classifier_costs_its_scores_error(mixture: MixtureDenoiser) -> None:
    """The fall of E bound is the integral of sigma^2 E|error of the score|^2 over lambda (Pythagoras)."""
    schedule, right = mixture.schedule, wanting(mixture, "kind=b")
    z_0 = part(mixture, 1).sample(1000, torch.Generator().manual_seed(0))
    at_right = mean_bound(GuidedDenoiser(mixture, [right], schedule), z_0, schedule)
    times = time_grid(schedule, 40, spacing="log_snr")
    noise = torch.randn(len(times), *z_0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for name, wrong in {
        "clean classifier at z_t": wanting(mixture, "kind=b", clean=True),
        "negated score": Negated(wanting(mixture, "~kind=b")),
        "score of another class": wanting(mixture, "kind=c"),
    }.items():
        fall = at_right - mean_bound(GuidedDenoiser(mixture, [wrong], schedule), z_0, schedule)
        error = torch.zeros(len(times), len(z_0), dtype=torch.float64)
        for i, t in enumerate(times):
            z_t = schedule.alpha(t) * z_0 + schedule.sigma(t) * noise[i]
            rows = t.expand(len(z_0))
            error[i] = schedule.sigma(t) ** 2 * (wrong.score(z_t, rows) - right.score(z_t, rows)).square().sum(1)
        cost = torch.trapezoid(error, schedule.log_snr(times), dim=0)
        stderr = ((fall.var() + cost.var()) / len(z_0)).sqrt()
        assert fall.mean() > 0.1 and fall.mean() > 5 * stderr, name
        assert (fall.mean() - cost.mean()).abs() < 4 * stderr, name


# --- the bound's manners ---


def test_a_rows_bound_does_not_depend_on_its_batch(mixture: MixtureDenoiser) -> None:
    z_0 = mixture.sample(5, torch.Generator().manual_seed(0))
    batch = evidence_lower_bound(mixture, z_0, mixture.schedule, 10, draws=2, generator=generators(range(5)))
    alone = evidence_lower_bound(mixture, z_0[3:4], mixture.schedule, 10, draws=2, generator=generators([3]))
    for name in ("prior", "diffusion", "reconstruction", "stderr", "log_prob"):
        assert_close(getattr(batch, name)[3:4], getattr(alone, name), rtol=1e-12, atol=1e-12)


def shaped(model: MixtureDenoiser) -> Eps:
    """The denoiser of the same latents in the shape (2, 1, 1)."""
    return lambda z_t, t: model(z_t.flatten(1), t).view_as(z_t)


@cosine_only
def test_latents_of_any_shape(mixture: MixtureDenoiser) -> None:
    z_0 = mixture.sample(3, torch.Generator().manual_seed(0))
    boxes = z_0.reshape(3, 2, 1, 1)
    one, two = (
        evidence_lower_bound(d, z, mixture.schedule, 10, generator=torch.Generator().manual_seed(1))
        for d, z in ((mixture, z_0), (shaped(mixture), boxes))
    )
    assert torch.equal(one.log_prob, two.log_prob)
    flow, boxed = flow_log_prob(mixture, z_0, mixture.schedule), flow_log_prob(shaped(mixture), boxes, mixture.schedule)
    assert_close(boxed.log_prob, flow.log_prob, rtol=1e-12, atol=1e-12)
    assert boxed.z.shape == boxes.shape


@cosine_only
def test_single_precision(mixture: MixtureDenoiser) -> None:
    z_0 = mixture.sample(16, torch.Generator().manual_seed(0))
    exact = mixture.log_prob(z_0, at(0.0, z_0))
    bound = evidence_lower_bound(
        mixture, z_0.float(), mixture.schedule, 20, draws=10, generator=torch.Generator().manual_seed(1)
    )
    assert bound.log_prob.dtype == torch.float32
    assert ((bound.log_prob - exact) / bound.stderr).abs().max() < 6  # Student's t with 9 degrees of freedom
    flow, single = flow_log_prob(mixture, z_0, mixture.schedule), flow_log_prob(mixture, z_0.float(), mixture.schedule)
    assert single.log_prob.dtype == single.z.dtype == torch.float32
    assert (single.log_prob - flow.log_prob).abs().max() < 1e-4
    rough = flow_log_prob(mixture, z_0.float(), mixture.schedule, differentiation="differences")
    assert (rough.log_prob - flow.log_prob).abs().max() < 2e-3


@cosine_only
def test_progress_counts_evaluations(mixture: MixtureDenoiser) -> None:
    seen: list[tuple[int, int]] = []
    z_0 = mixture.sample(2, torch.Generator().manual_seed(0))
    evidence_lower_bound(mixture, z_0, mixture.schedule, 3, draws=2, progress=lambda i, n: seen.append((i, n)))
    assert seen == [(i, 6) for i in range(1, 7)]


# --- the exact value along the flow ---


def test_flow_of_a_gaussian_is_its_linear_map(gaussian: GaussianDenoiser) -> None:
    z_0, schedule = gaussian.sample(8, torch.Generator().manual_seed(0)), gaussian.schedule
    flow = flow_log_prob(gaussian, z_0, schedule, rtol=1e-9, atol=1e-9)
    z = gaussian.flow(z_0, at(T_END, z_0), at(T_START, z_0))
    var_end, var_start = (
        schedule.alpha(t) ** 2 * gaussian.variances[0] + schedule.sigma(t) ** 2
        for t in (at(T_END, z_0)[:1], at(T_START, z_0)[:1])
    )
    base = -0.5 * (z.square().sum(1) + 4 * math.log(2 * math.pi))
    assert_close(flow.z, z, rtol=0, atol=1e-7)
    assert_close(flow.log_prob, base + 0.5 * (var_start / var_end).log().sum(), rtol=0, atol=1e-7)
    assert (flow.stderr == 0).all()


def test_flow_gives_the_log_probability_of_a_mixture(mixture: MixtureDenoiser) -> None:
    """What is lost is N(0, I) for q(z_{t_start}); with that density itself the value is exact."""
    z_0 = mixture.sample(32, torch.Generator().manual_seed(0))
    flow = flow_log_prob(mixture, z_0, mixture.schedule, rtol=1e-8, atol=1e-8)
    base = -0.5 * (flow.z.square().sum(1) + 2 * math.log(2 * math.pi))
    value = flow.log_prob - base + mixture.log_prob(flow.z, at(T_START, z_0))
    assert_close(value, mixture.log_prob(z_0, at(T_END, z_0)), rtol=0, atol=1e-6)
    assert_close(flow.log_prob, mixture.log_prob(z_0, at(0.0, z_0)), rtol=0, atol=0.02)


def test_flow_from_end_to_end_is_exact() -> None:
    schedule = CosineSchedule()
    mixture = MixtureDenoiser(
        torch.zeros(2),
        torch.tensor([[0.6, 0.0], [-0.6, 0.3]]),
        torch.tensor([[[0.5, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.6]]]),
        schedule,
    )
    z_0 = mixture.sample(32, torch.Generator().manual_seed(0))
    flow = flow_log_prob(mixture, z_0, schedule, rtol=1e-9, atol=1e-9, t_start=1 - 1e-6, t_end=0.0)
    assert_close(flow.log_prob, mixture.log_prob(z_0, at(0.0, z_0)), rtol=0, atol=1e-5)


@cosine_only
def test_tighter_tolerances_are_kept(mixture: MixtureDenoiser) -> None:
    z_0 = mixture.sample(32, torch.Generator().manual_seed(0))
    best = flow_log_prob(mixture, z_0, mixture.schedule, rtol=1e-8, atol=1e-8).log_prob
    errors = []
    for tolerance in (1e-2, 1e-4, 1e-6):
        flow = flow_log_prob(mixture, z_0, mixture.schedule, rtol=tolerance, atol=tolerance)
        errors.append((flow.log_prob - best).abs().max().item())
        assert errors[-1] < 20 * tolerance and flow.evaluations < 200
    assert errors[0] > errors[1] > errors[2]


@cosine_only
def test_flow_of_a_guided_denoiser_is_the_conditional(mixture: MixtureDenoiser) -> None:
    conditional = part(mixture, 0, 2)
    z_0 = mixture.sample(8, torch.Generator().manual_seed(0))  # of the other class, too
    exact, flow = (
        flow_log_prob(d, z_0, mixture.schedule, rtol=1e-4, atol=1e-4) for d in (conditional, guided(mixture, "~kind=b"))
    )
    assert_close(flow.log_prob, exact.log_prob, rtol=0, atol=1e-6)
    assert_close(flow.z, exact.z, rtol=0, atol=1e-6)
    base = -0.5 * (flow.z.square().sum(1) + 2 * math.log(2 * math.pi))
    value = flow.log_prob - base + conditional.log_prob(flow.z, at(T_START, z_0))
    assert_close(value, conditional.log_prob(z_0, at(T_END, z_0)), rtol=0, atol=1e-3)


@cosine_only
def test_differences_are_derivatives(mixture: MixtureDenoiser) -> None:
    z_0 = mixture.sample(8, torch.Generator().manual_seed(0))
    one, two = (
        flow_log_prob(mixture, z_0, mixture.schedule, rtol=1e-5, atol=1e-5, differentiation=how)
        for how in ("autograd", "differences")
    )
    assert_close(one.log_prob, two.log_prob, rtol=0, atol=1e-8)


@cosine_only
@pytest.mark.parametrize("differentiation", ["auto", "differences"])
def test_probes_are_unbiased_and_know_their_error(gaussian: GaussianDenoiser, differentiation: Any) -> None:
    z_0, schedule = gaussian.sample(400, torch.Generator().manual_seed(0)), gaussian.schedule
    exact = flow_log_prob(gaussian, z_0, schedule)
    few = flow_log_prob(
        gaussian, z_0, schedule, 12, differentiation=differentiation, generator=torch.Generator().manual_seed(1)
    )
    scores = (few.log_prob - exact.log_prob) / few.stderr
    assert scores.mean().abs() < 4 / 20 and 0.8 < scores.square().mean() < 1.5  # Student's t with 11 degrees: 11 / 9
    assert (few.z - exact.z).abs().max() < 1e-4  # probes do not move the path


def test_one_probe_of_signs_is_exact_for_independent_coordinates(schedule: Schedule) -> None:
    """v^T diag(a) v = sum a for signs v, which normal numbers do not give."""
    model = GaussianDenoiser(torch.tensor([0.3, -0.2, 0.0]), torch.diag(torch.tensor([0.2, 1.0, 2.0])), schedule)
    z_0 = model.sample(4, torch.Generator().manual_seed(0))
    one, exact = flow_log_prob(model, z_0, schedule, probes=1), flow_log_prob(model, z_0, schedule)
    assert_close(one.log_prob, exact.log_prob, rtol=0, atol=1e-10)
    assert one.stderr.isnan().all() and one.evaluations == exact.evaluations


@cosine_only
def test_a_rows_density_depends_on_its_batch_only_within_the_tolerance(mixture: MixtureDenoiser) -> None:
    """A latent far from all data is hard: it may not borrow accuracy from 63 easy ones, nor spoil theirs."""
    z_0 = mixture.sample(64, torch.Generator().manual_seed(0))
    z_0[5] = torch.tensor([6.0, -4.0])
    options: dict[str, Any] = {"probes": 2, "rtol": 1e-6, "atol": 1e-6}
    batch = flow_log_prob(mixture, z_0, mixture.schedule, generator=generators(range(64)), **options)
    for i in (4, 5):
        alone = flow_log_prob(mixture, z_0[i : i + 1], mixture.schedule, generator=generators([i]), **options)
        assert ((batch.log_prob[i] - alone.log_prob[0]) / alone.log_prob[0]).abs() < 1e-5


@cosine_only
def test_no_time_beyond_the_ends_is_asked_for(mixture: MixtureDenoiser) -> None:
    asked: list[float] = []

    def watched(z_t: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t[0]))
        return mixture(z_t, t)

    z_0 = mixture.sample(2, torch.Generator().manual_seed(0))
    flow = flow_log_prob(watched, z_0, mixture.schedule, t_start=0.9, t_end=0.01)
    assert 0.01 - 1e-9 < min(asked) < 0.011 and 0.899 < max(asked) < 0.9 + 1e-9
    assert flow.evaluations == len(asked)
    asked.clear()
    evidence_lower_bound(watched, z_0, mixture.schedule, 5, t_start=0.9, t_end=0.01)
    assert min(asked) > 0.01 - 1e-9 and max(asked) < 0.9 and len(asked) == 5


# --- what is refused ---


@pytest.fixture
def z_0(mixture: MixtureDenoiser) -> Tensor:
    return mixture.sample(3, torch.Generator().manual_seed(0))


@cosine_only
def test_other_precisions_are_refused(mixture: MixtureDenoiser, z_0: Tensor) -> None:
    for function in (evidence_lower_bound, flow_log_prob):
        with pytest.raises(TypeError, match=r"`z_0` must be float32 or float64, got torch.float16; use z_0.float\(\)"):
            function(mixture, z_0.half(), mixture.schedule)


@cosine_only
def test_generators_must_be_one_per_row(mixture: MixtureDenoiser, z_0: Tensor) -> None:
    with pytest.raises(ValueError, match="expected 3, got 2"):
        evidence_lower_bound(mixture, z_0, mixture.schedule, generator=generators(range(2)))
    with pytest.raises(ValueError, match="expected 3, got 2"):
        flow_log_prob(mixture, z_0, mixture.schedule, probes=1, generator=generators(range(2)))


@cosine_only
@pytest.mark.usefixtures("unchecked")
def test_bounds_that_make_no_sense_are_refused(mixture: MixtureDenoiser, z_0: Tensor) -> None:
    for options, message in (
        ({"steps": 1}, "`steps` of a lower bound must be at least 2, got 1; 50 steps are usual"),
        ({"draws": 0}, "`draws` of a lower bound must be at least 1, got 0"),
        ({"t_end": 0.0}, "must satisfy 0 < t_end < t_start <= 1"),
        ({"spacing": "even"}, "`spacing` must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            evidence_lower_bound(mixture, z_0, mixture.schedule, **options)


@cosine_only
@pytest.mark.usefixtures("unchecked")
def test_flows_that_make_no_sense_are_refused(mixture: MixtureDenoiser, z_0: Tensor) -> None:
    for options, message in (
        ({"probes": -1}, "`probes` must be at least 0, got -1; 0 is the exact divergence"),
        ({"rtol": 0.0}, "`rtol` and `atol` must be positive, got 0.0 and 1e-05; 1e-5 is usual"),
        ({"t_end": 0.6, "t_start": 0.5}, "0 <= t_end < t_start <= 1, got t_start=0.5, t_end=0.6"),
        ({"method": "euler"}, "`method` must be one of dopri5, dopri8, bosh3, fehlberg2, adaptive_heun, got 'euler'"),
        ({"differentiation": "jax"}, "`differentiation` must be one of auto, autograd, differences, got 'jax'"),
    ):
        with pytest.raises(ValueError, match=message):
            flow_log_prob(mixture, z_0, mixture.schedule, **options)
    with pytest.raises(ValueError, match=r"`t_start`=1.0 is pure noise under this schedule \(alpha < 1e-6\)"):
        flow_log_prob(mixture, z_0, CosineSchedule(), t_start=1.0)


@cosine_only
def test_detached_denoisers_cannot_be_differentiated_by_autograd(mixture: MixtureDenoiser, z_0: Tensor) -> None:
    with pytest.raises(RuntimeError, match="detached from z_t, as a guided one is; use differentiation='differences'"):
        flow_log_prob(guided(mixture, "kind=b"), z_0, mixture.schedule, differentiation="autograd")


@cosine_only
def test_inference_mode_allows_differences_only(mixture: MixtureDenoiser, z_0: Tensor) -> None:
    expected = flow_log_prob(mixture, z_0, mixture.schedule)
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match=r"torch.inference_mode\(\) forbids them; use torch.no_grad\(\) instead"):
            flow_log_prob(mixture, z_0, mixture.schedule)
        flow = flow_log_prob(mixture, z_0, mixture.schedule, differentiation="differences")
        bound = evidence_lower_bound(mixture, z_0, mixture.schedule, 5)
        with pytest.raises(RuntimeError, match=r"use Trainer\(inference_mode=False\)"):
            evidence_lower_bound(guided(mixture, "kind=b"), z_0, mixture.schedule, 5)
    assert (flow.log_prob - expected.log_prob).abs().max() < 1e-6
    assert isinstance(bound, LowerBound) and bound.log_prob.isfinite().all()


@cosine_only
def test_predictions_that_are_not_finite_are_refused(mixture: MixtureDenoiser, z_0: Tensor) -> None:
    def broken(z_t: Tensor, t: Tensor) -> Tensor:
        return mixture(z_t, t).masked_fill((t > 0.5)[:, None] & torch.tensor([[False], [True], [False]]), math.nan)

    with pytest.raises(ValueError, match=r"must be finite, got otherwise in row 1 at t = 0\.\d+; check the denoiser"):
        flow_log_prob(broken, z_0, mixture.schedule)


@cosine_only
def test_a_flow_that_no_step_can_follow_is_refused(
    mixture: MixtureDenoiser, z_0: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "MAX_STEPS", 20)
    noise = torch.Generator().manual_seed(0)

    def rough(z_t: Tensor, t: Tensor) -> Tensor:
        return mixture(z_t, t) + torch.randn(z_t.shape, generator=noise, dtype=z_t.dtype)

    with pytest.raises(RuntimeError, match=r"cannot keep rtol=1e-05 and atol=1e-05 after \d+ evaluations .*allow more"):
        flow_log_prob(rough, z_0, mixture.schedule)
