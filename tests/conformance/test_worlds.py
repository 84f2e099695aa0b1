import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lcg.conformance.catalogue import cloud, latent_class, line, line_mixture, modes, plane
from lcg.conformance.worlds import Linear, Membership, Ordinal, Probit, QuadratureTerm, TiltTerm, World
from lcg.diffusion import CosineSchedule, LinearSchedule, MixtureDenoiser
from lcg.guidance import ClassifierTerm, FormulaReadout, GuidedDenoiser

FORMULAS = ("a", "~a", "a & b", "a | b", "(a & b) | (~a & c)", "mode=left & a", "~high & (b | mode=right)")


def times(value: float, n: int) -> Tensor:
    return torch.full((n,), value, dtype=torch.float64)


def latents(world: World, n: int = 40, scale: float = 1.5) -> Tensor:
    return scale * torch.randn(n, world.dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def posterior_on_a_line(world: World, log_likelihood: Tensor, grid: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
    """log P(formula | z_t) by summing over a fine grid of z_0; knows nothing of mixtures."""
    alpha, sigma = world.schedule.alpha(t)[:, None], world.schedule.sigma(t)[:, None]
    weights = prior_on_a_line(world, grid).log() - 0.5 * ((z_t - alpha * grid) / sigma).square()
    return (weights + log_likelihood).logsumexp(1) - weights.logsumexp(1)


def prior_on_a_line(world: World, grid: Tensor) -> Tensor:
    prior = world.denoiser
    pieces = [
        float(w) / math.sqrt(2 * math.pi * float(s)) * torch.exp(-((grid - float(m)) ** 2) / (2 * float(s)))
        for w, m, s in zip(prior.log_weights.exp(), prior.means[:, 0], world.covariances[:, 0, 0], strict=True)
    ]
    return torch.stack(pieces).sum(0)


@pytest.mark.parametrize("make", [line, line_mixture])
@pytest.mark.parametrize("t", [0.05, 0.4, 0.95])
def test_noisy_posteriors_are_bayes_rule_on_a_grid(make: Callable[[], World], t: float) -> None:
    world, grid = make(), torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    z_t = latents(world)
    u = {name: grid * world.attributes[name].direction[0] + world.attributes[name].offset for name in "ab"}
    yes, no = ({name: torch.special.log_ndtr(sign * x) for name, x in u.items()} for sign in (1, -1))
    both = posterior_on_a_line(world, yes["a"] + yes["b"], grid, z_t, times(t, 40))
    torch.testing.assert_close(world.joint("a & b").log_prob(z_t, times(t, 40)), both, rtol=0, atol=1e-9)
    implied = torch.logaddexp(no["a"], yes["a"] + yes["b"])
    exact = posterior_on_a_line(world, implied, grid, z_t, times(t, 40))
    torch.testing.assert_close(world.joint("~(a & ~b)").log_prob(z_t, times(t, 40)), exact, rtol=0, atol=1e-9)
    marginal = posterior_on_a_line(world, yes["b"], grid, z_t, times(t, 40))
    logit = world.classifier(z_t, times(t, 40))["b"]
    torch.testing.assert_close(torch.nn.functional.logsigmoid(logit), marginal, rtol=0, atol=1e-9)


@pytest.mark.parametrize("formula", ["a & b", "a & b & c", "a | b | c", "(a & b) | (~a & c)"])
def test_joints_in_the_plane_agree_with_quadrature_in_value_and_score(formula: str) -> None:
    world = plane()
    z_t, t = latents(world), times(0.35, 40)
    joint, other = world.joint(formula), QuadratureTerm(world, lambda z: world.log_likelihood(formula, z), nodes=64)
    torch.testing.assert_close(joint.log_prob(z_t, t), other.log_prob(z_t, t), rtol=0, atol=1e-11)
    torch.testing.assert_close(joint.score(z_t, t), other.score(z_t, t), rtol=0, atol=1e-10)


def test_one_time_for_all_rows_gives_what_each_row_gives_by_itself() -> None:
    world, t = plane(), torch.linspace(0.05, 0.95, 40, dtype=torch.float64)
    z_t, term = latents(world), world.joint("(a & b) | (~a & c)")
    alone = torch.cat([term.log_prob(z_t[i : i + 1], t[i : i + 1]) for i in range(40)])
    torch.testing.assert_close(term.log_prob(z_t, t), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_joint_is_a_martingale_and_starts_at_the_probability(formula: str) -> None:
    world = plane()
    z_0 = world.sample(20_000, torch.Generator().manual_seed(0))
    p = math.exp(world.log_probability(formula))
    for t in (0.1, 0.6):
        alpha, sigma = world.schedule.alpha(times(t, 1)), world.schedule.sigma(times(t, 1))
        z_t = alpha * z_0 + sigma * torch.randn(z_0.shape, generator=torch.Generator().manual_seed(1))
        h = world.joint(formula).log_prob(z_t, times(t, len(z_t))).exp()
        assert float(h.mean()) == pytest.approx(p, abs=4 * float(h.std()) / math.sqrt(len(h)))
    pure = world.joint(formula).log_prob(latents(world), times(1.0, 40))  # alpha = 0: nothing is known of z_0
    torch.testing.assert_close(pure, torch.full_like(pure, math.log(p)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("formula", FORMULAS)
def test_drawn_labels_satisfy_formulas_as_often_as_they_should(formula: str) -> None:
    world, rng = plane(), torch.Generator().manual_seed(2)
    labels = world.labels(world.sample(40_000, rng), rng)
    p = math.exp(world.log_probability(formula))
    share = float(world.parse(formula).holds(labels).double().mean())
    assert share == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 40_000))


def test_drawn_labels_of_a_continuous_attribute_have_its_moments() -> None:
    world, rng = cloud(4), torch.Generator().manual_seed(0)
    z_0 = world.sample(20_000, rng)
    age = world.attributes["age"]
    residual = world.labels(z_0, rng)[:, 2] - z_0 @ torch.tensor(age.direction, dtype=torch.float64) - age.offset
    assert float(residual.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(residual.std()) == pytest.approx(age.std, abs=0.02)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_exact_conditionals_have_their_density(weight: float) -> None:
    world, grid = line_mixture(), torch.linspace(-6, 6, 6001, dtype=torch.float64)
    density = world.log_density(grid[:, None], "a & ~upper", weight).exp()
    cdf = density.cumsum(0) / density.sum()
    x = world.conditional("a & ~upper", 8_000, torch.Generator().manual_seed(0), weight)[:, 0].sort().values
    found = torch.searchsorted(x, grid).double() / len(x)
    assert float((found - cdf).abs().max()) < 1.7 / math.sqrt(len(x))  # Kolmogorov-Smirnov, at 1 %


def test_samples_of_the_prior_have_its_moments() -> None:
    world = latent_class(8)
    z_0, prior = world.sample(40_000, torch.Generator().manual_seed(0)), world.denoiser
    pi = prior.log_weights.exp()
    mean = pi @ prior.means
    covariance = torch.einsum("k,kde->de", pi, world.covariances) + torch.einsum(
        "k,kd,ke->de", pi, prior.means - mean, prior.means - mean
    )
    torch.testing.assert_close(z_0.mean(0), mean, rtol=0, atol=0.025)
    torch.testing.assert_close(torch.cov(z_0.T), covariance, rtol=0, atol=0.03)


def test_modes_are_standardised() -> None:
    world = modes(seed=3)
    weights, means = world.denoiser.log_weights.exp(), world.denoiser.means
    variances = weights @ (world.covariances.diagonal(dim1=1, dim2=2) + means.square())
    torch.testing.assert_close(weights @ means, torch.zeros(16).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(variances, torch.ones(16).double(), rtol=0, atol=1e-12)


def test_guidance_by_what_is_chosen_mixes_the_prior_and_the_chosen() -> None:
    """grad log P(chosen | z_t) = grad log q_chosen - grad log q, so eps_hat = (1 - w) eps + w eps_chosen."""
    world, weight, t = modes(), 8.0, torch.linspace(0.1, 0.9, 40).double()
    log_weights, means = world.denoiser.log_weights[:3], world.denoiser.means[:3]
    chosen = MixtureDenoiser(log_weights, means, world.covariances[:3], world.schedule)
    guided = GuidedDenoiser(world.denoiser, [world.joint("chosen")], world.schedule, weight)
    z_t = latents(world)
    expected = (1 - weight) * world.denoiser(z_t, t) + weight * chosen(z_t, t)
    torch.testing.assert_close(guided(z_t, t), expected, rtol=0, atol=1e-10)


def test_the_mixture_of_products_is_the_joint_where_directions_are_uncorrelated() -> None:
    world = latent_class(6)
    z_t, t = latents(world), times(0.3, 40)
    for formula in ("a & b", "(a & b) | (~a & c)", "kind=second & ~a | first & c"):
        term = ClassifierTerm(world.joint_outputs, [(FormulaReadout(world.parse(formula)), 1.0)])
        torch.testing.assert_close(term.log_prob(z_t, t), world.joint(formula).log_prob(z_t, t), rtol=1e-10, atol=1e-10)


def test_attributes_of_one_direction_depend_on_one_another() -> None:
    for world in (line(), line_mixture(), plane(), cloud(8), latent_class(16)):
        joint, product = world.log_probability("a & b"), world.log_probability("a") + world.log_probability("b")
        assert math.exp(joint) > 1.25 * math.exp(product)


def test_the_tilted_mixture_is_reweighted_and_moved() -> None:
    world = plane(LinearSchedule())
    term = TiltTerm(world, torch.tensor([0.8, -0.5], dtype=torch.float64))
    z_t, t = latents(world), times(0.4, 40)
    guided = GuidedDenoiser(world.denoiser, [term], world.schedule)
    torch.testing.assert_close(guided(z_t, t), term.conditional(z_t, t), rtol=1e-12, atol=1e-12)
    quadrature = QuadratureTerm(world, lambda z: z @ term.tilt)
    torch.testing.assert_close(term.log_prob(z_t, t), quadrature.log_prob(z_t, t), rtol=1e-12, atol=1e-12)


def test_cubes_are_disjoint_and_make_up_the_formula() -> None:
    world = plane()
    assert world.cubes("a | ~a") == [{}]
    assert world.cubes("a & ~a") == []
    assert world.cubes("(a & b) | (~a & c)") == [{"a": 0, "c": 1}, {"a": 1, "b": 1}]
    assert world.cubes("mode in {left, top}") == [{"mode": 0}, {"mode": 2}]
    assert world.log_probability("high & mode=left") == -math.inf  # no component is both


def test_results_have_the_precision_of_what_they_are_given() -> None:
    world, z_t, t = plane(), torch.randn(4, 2), torch.full((4,), 0.3)
    assert world.joint("a & b").log_prob(z_t, t).dtype == torch.float32
    assert {o.dtype for o in world.classifier(z_t, t).values()} == {torch.float32}
    assert world.log_likelihood("a", z_t).dtype == torch.float32


# --- what is refused ---


def tiny(*attributes: Probit | Membership | Linear) -> World:
    zero, one = torch.zeros(2, 1), torch.ones(2, 1, 1)
    return World(torch.zeros(2), zero, one, attributes, CosineSchedule())


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (Probit("a", (1.0, 2.0)), "`direction` of 'a' must have 1 numbers, got 2"),
        (Membership("m", (0, 1, 1)), r"`labels` of 'm' must be 2, one per component, among them each of \[0, 1\], got"),
        (Membership("m", (1, 1)), r"among them each of \[0, 1\], got \(1, 1\)"),
        (Membership("m", (0, 1), ("x", "y", "z")), r"among them each of \[0, 1, 2\]"),
        (Linear("age", (1.0,), std=0.0), "`std` of 'age' must be > 0, got 0.0"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(attribute: Probit | Membership | Linear, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(attribute)


def test_formulas_without_a_closed_form_are_refused() -> None:
    with pytest.raises(ValueError, match="binary and categorical attributes, got 'age'; use a Probit"):
        cloud(4).joint("a & age > 0.5")
    with pytest.raises(ValueError, match=r"must have no weights, got 'a\^2.0 & b'; give `weight` to what you call"):
        line().joint("a^2 & b")


def test_rejection_gives_up_on_what_never_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcg.conformance.worlds.MAX_ATTEMPTS", 2)
    with pytest.raises(ValueError, match="'a & ~a', which 0 of 8192 samples satisfied; use a more probable one"):
        line().conditional("a & ~a", 10)


def test_quadrature_is_refused_in_many_dimensions() -> None:
    world = cloud(4)
    with pytest.raises(ValueError, match="`world` must have one or two dimensions, got 4; use a closed form"):
        QuadratureTerm(world, lambda z: z.sum(1))


def ordinal_world(cuts: tuple[float, ...] = (-1.0, 0.5, 2.0), values: str = "abcd") -> World:
    weights, means = torch.tensor([0.3, 0.7]).log(), torch.tensor([[-1.0], [1.5]], dtype=torch.float64)
    attribute = Ordinal("size", (1.5,), cuts, tuple(values))
    return World(weights.double(), means, torch.tensor([[[0.4]], [[1.0]]]).double(), [attribute], CosineSchedule())


@pytest.mark.parametrize("t", [0.05, 0.4, 0.95])
def test_posteriors_of_an_ordinal_attribute_are_bayes_rule_on_a_grid(t: float) -> None:
    world, grid = ordinal_world(), torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    z_t = latents(world)
    bounds = torch.tensor([-math.inf, -1.0, 0.5, 2.0, math.inf], dtype=torch.float64)
    u = bounds[:, None] - 1.5 * grid
    lower, upper = torch.special.ndtr(u).diff(dim=0), -torch.special.ndtr(-u).diff(dim=0)
    p = torch.where(u[:-1] > 0, upper, lower)  # in the tail where nothing cancels
    exact = torch.stack([posterior_on_a_line(world, x.log(), grid, z_t, times(t, 40)) for x in p], dim=1)
    torch.testing.assert_close(world.classifier(z_t, times(t, 40))["size"], exact, rtol=1e-7, atol=1e-8)
    mixed = world.joint_outputs(z_t, times(t, 40))
    torch.testing.assert_close(mixed.mix(mixed.rows()["size"]), exact, rtol=1e-7, atol=1e-8)


def test_labels_of_an_ordinal_attribute_are_as_frequent_as_it_says() -> None:
    world = ordinal_world()
    generator = torch.Generator().manual_seed(0)
    z_0 = world.sample(20_000, generator)
    found = torch.bincount(world.labels(z_0, generator)[:, 0].long(), minlength=4) / 20_000
    expected = world.classifier(z_0, times(0.0, 20_000))["size"].exp().mean(0)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.01)
    assert world.schema["size"].ordered


def test_cut_points_must_ascend() -> None:
    for cuts, values in (((0.0, -1.0), "abc"), ((0.0, 0.0), "abc"), ((0.0, 1.0), "abcd")):
        with pytest.raises(ValueError, match="`cuts` of 'size' must ascend, one fewer than its"):
            ordinal_world(cuts, values)
    with pytest.raises(ValueError, match="`formula` must be of binary and categorical attributes, got 'size'"):
        ordinal_world().joint("size>=b")
