from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lcg.diffusion import DDIM, CosineSchedule, LinearSchedule, MixtureDenoiser, Schedule, generators, randn
from lcg.guidance import ClassifierTerm, FormulaReadout, GuidedDenoiser, SourceTerm, Term, parse
from lcg.guidance.terms import gradient, value_and_gradient
from lcg.nets.heads import HeadOutputs
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("first"), Attribute("kind", "categorical", ("a", "b", "c"))))
MEANS = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [0.0, -2.0]], dtype=torch.float64)
COVARIANCES = torch.tensor(
    [[[0.5, 0.2], [0.2, 0.3]], [[0.2, -0.1], [-0.1, 0.4]], [[1.0, 0.0], [0.0, 0.1]]], dtype=torch.float64
)
LOG_WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
SCHEDULE = CosineSchedule()


def mixture(*components: int, schedule: Schedule = SCHEDULE) -> MixtureDenoiser:
    k = list(components)
    return MixtureDenoiser(LOG_WEIGHTS[k], MEANS[k], COVARIANCES[k], schedule)


class ExactClassifier:
    """The class is the mixture's component, so its responsibilities are the perfect noisy classifier."""

    def __init__(self, prior: MixtureDenoiser) -> None:
        self.prior, self.calls = prior, 0

    def __call__(self, z_t: Tensor, t: Tensor) -> HeadOutputs:
        self.calls += 1
        log_r = self.prior.responsibilities(z_t, t)
        return {"kind": log_r, "first": log_r[:, 0] - log_r[:, 1:].logsumexp(1)}


def wanting(text: str, prior: MixtureDenoiser) -> ClassifierTerm:
    return ClassifierTerm(ExactClassifier(prior), [(FormulaReadout(parse(text, SCHEMA)), 1.0)])


class Counting:
    def __init__(self, denoiser: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.denoiser, self.calls = denoiser, 0

    def __call__(self, z_t: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.denoiser(z_t, t)


def points(rows: int = 64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    z_t = 2 * torch.randn(rows, 2, generator=g, dtype=torch.float64)
    return z_t, torch.linspace(0.02, 0.98, rows, dtype=torch.float64)


@pytest.mark.parametrize("schedule", [CosineSchedule(), LinearSchedule()], ids=["cosine", "linear"])
@pytest.mark.parametrize(
    ("text", "components"),
    [
        ("first", (0,)),
        ("~first", (1, 2)),
        ("kind=b", (1,)),
        ("~kind=b", (0, 2)),
        ("kind in {b, c}", (1, 2)),
        ("kind=a | kind=c", (0, 2)),
        ("kind in {a, b} & ~kind=a", (1,)),
    ],
)
def test_guided_score_is_the_exact_conditional_score(
    text: str, components: tuple[int, ...], schedule: Schedule
) -> None:
    """p(z_t | formula) is the mixture of the components that satisfy it, whose denoiser is known in closed form."""
    prior, z_t, t = mixture(0, 1, 2, schedule=schedule), *points()
    guided = GuidedDenoiser(prior, [wanting(text, prior)], schedule)
    assert (guided(z_t, t) - mixture(*components, schedule=schedule)(z_t, t)).abs().max() < 1e-9


def test_guided_samples_are_samples_of_the_conditional() -> None:
    prior, sampler = mixture(0, 1, 2), DDIM(SCHEDULE, steps=20)
    z = randn((32, 2), generators(range(32)), dtype=torch.float64)
    samples = sampler.sample(GuidedDenoiser(prior, [wanting("~kind=b", prior)], SCHEDULE), z)
    assert (samples - sampler.sample(mixture(0, 2), z)).abs().max() < 1e-8


def test_terms_add_up_and_are_differentiated_together() -> None:
    prior, z_t, t = mixture(0, 1, 2), *points()
    one, two = wanting("first", prior), wanting("kind in {a, c}", prior)
    _, both = GuidedDenoiser(prior, [one, two], SCHEDULE).evaluate(z_t, t)
    assert (both - one.score(z_t, t) - two.score(z_t, t)).abs().max() < 1e-10


def test_a_term_that_knows_its_score_is_asked_for_it() -> None:
    class Pull(Term):
        def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
            raise AssertionError("differentiated although the score is known")

        def score(self, z_t: Tensor, t: Tensor) -> Tensor:
            return -z_t

    prior, z_t, t = mixture(0, 1, 2), *points()
    eps, guidance = GuidedDenoiser(prior, [Pull(), wanting("first", prior)], SCHEDULE, weight=2.0).evaluate(z_t, t)
    assert torch.equal(eps, prior(z_t, t))
    assert (guidance - 2 * (wanting("first", prior).score(z_t, t) - z_t)).abs().max() < 1e-10


def test_weight_zero_is_the_prior_and_no_classifier_is_run() -> None:
    prior, z_t, t = mixture(0, 1, 2), *points()
    term = wanting("first", prior)
    assert torch.equal(GuidedDenoiser(prior, [term], SCHEDULE, weight=0.0)(z_t, t), prior(z_t, t))
    assert torch.equal(GuidedDenoiser(prior, [], SCHEDULE)(z_t, t), prior(z_t, t))
    assert term.classifier.calls == 0


def test_a_batch_is_its_rows() -> None:
    prior, z_t, t = mixture(0, 1, 2), *points(8)
    source = SourceTerm(z_t.flip(0), prior, SCHEDULE, tau=0.4)
    batch = GuidedDenoiser(prior, [wanting("~kind=b", prior), source], SCHEDULE, weight=3.0, max_step=0.5)(z_t, t)
    for i in range(8):
        row = slice(i, i + 1)
        source = SourceTerm(z_t.flip(0)[row], prior, SCHEDULE, tau=0.4)
        alone = GuidedDenoiser(prior, [wanting("~kind=b", prior), source], SCHEDULE, weight=3.0, max_step=0.5)
        assert (alone(z_t[row], t[row]) - batch[row]).abs().max() < 1e-9


def test_weights_that_depend_on_time() -> None:
    prior, z_t, t = mixture(0, 1, 2), *points()
    term = wanting("first", prior)
    score = term.score(z_t, t)
    rising = GuidedDenoiser(prior, [term], SCHEDULE, weight=lambda t: torch.where(t < 0.3, 32.0, 8.0))
    expected = score * torch.where(t < 0.3, 32.0, 8.0)[:, None]
    assert (rising.evaluate(z_t, t)[1] - expected).abs().max() < 1e-9
    constant = GuidedDenoiser(prior, [term], SCHEDULE, weight=lambda t: 2.0)
    assert (constant.evaluate(z_t, t)[1] - 2 * score).abs().max() < 1e-9


def test_trust_region_bounds_the_shift_of_z_0_hat_and_keeps_its_direction() -> None:
    prior, z_t, t = mixture(0, 1, 2), *points()
    term = wanting("first", prior)
    free = GuidedDenoiser(prior, [term], SCHEDULE, weight=5.0).evaluate(z_t, t)[1]
    held = GuidedDenoiser(prior, [term], SCHEDULE, weight=5.0, max_step=0.3).evaluate(z_t, t)[1]
    scale = (SCHEDULE.sigma(t) ** 2 / SCHEDULE.alpha(t))[:, None]
    bound = 0.3 * 2**0.5
    shift = (scale * free).norm(dim=1, keepdim=True)
    assert (shift > bound).any() and (shift < bound).any()
    assert (held - free * (bound / shift).clamp(max=1)).abs().max() < 1e-10
    zero = GuidedDenoiser(prior, [term], SCHEDULE, weight=0.0, max_step=0.3)(z_t, t)
    assert torch.equal(zero, prior(z_t, t))


def test_one_evaluation_of_each_network_per_step() -> None:
    prior, z_t, t = Counting(mixture(0, 1, 2)), *points(4)
    term = wanting("~kind=b & ~first", mixture(0, 1, 2))
    source = SourceTerm(z_t, prior, SCHEDULE)
    GuidedDenoiser(prior, [term, source], SCHEDULE)(z_t, t)
    assert (prior.calls, term.classifier.calls) == (1, 1)
    other = Counting(mixture(0, 1))
    GuidedDenoiser(prior, [term, SourceTerm(z_t, other, SCHEDULE)], SCHEDULE)(z_t, t)
    assert (prior.calls, other.calls) == (2, 1)


class Pull(Term):
    """N(0, I) about the origin, which knows its score."""

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        return -0.5 * z_t.square().sum(1)

    def score(self, z_t: Tensor, t: Tensor) -> Tensor:
        return -z_t


@pytest.mark.parametrize("weight", [2.0, lambda t: 3 * t], ids=["constant", "of time"])
def test_a_twist_is_the_guidance_with_the_value_it_climbs(weight: float | Callable[[Tensor], Tensor]) -> None:
    prior, z_t, t = mixture(0, 1, 2), *points()
    terms = [wanting("first", prior), wanting("kind in {a, c}", prior), Pull()]
    guided = GuidedDenoiser(prior, terms, SCHEDULE, weight, max_step=0.3)
    eps, guidance, log_h = guided.twist(z_t, t)
    expected = guided.evaluate(z_t, t)
    assert torch.equal(eps, expected[0]) and torch.equal(guidance, expected[1])
    total = sum(term.log_prob(z_t, t) for term in terms)
    assert (log_h - (weight(t) if callable(weight) else weight) * total).abs().max() < 1e-12
    assert not log_h.requires_grad


def test_a_twist_takes_one_evaluation_of_each_network() -> None:
    prior, z_t, t = Counting(mixture(0, 1, 2)), *points(4)
    term = wanting("~kind=b & ~first", mixture(0, 1, 2))
    GuidedDenoiser(prior, [term], SCHEDULE).twist(z_t, t)
    assert (prior.calls, term.classifier.calls) == (1, 1)


def test_a_twist_without_weight_or_terms_is_one() -> None:
    prior, z_t, t = mixture(0, 1, 2), *points()
    term = wanting("first", prior)
    for guided in (GuidedDenoiser(prior, [term, Pull()], SCHEDULE, weight=0.0), GuidedDenoiser(prior, [], SCHEDULE)):
        eps, guidance, log_h = guided.twist(z_t, t)
        assert torch.equal(eps, prior(z_t, t))
        assert not guidance.any() and not log_h.any()
    assert term.classifier.calls == 0


def test_conditions_of_the_prior_are_not_part_of_what_a_twist_weighs() -> None:
    prior, z_t, t = mixture(0, 1, 2), *points()
    term, source = wanting("first", prior), SourceTerm(z_t.flip(0), prior, SCHEDULE)
    guided = GuidedDenoiser(prior, [term, source], SCHEDULE)
    _, guidance, log_h = guided.twist(z_t, t)
    assert torch.equal(guidance, guided.evaluate(z_t, t)[1])
    assert (log_h - term.log_prob(z_t, t)).abs().max() < 1e-12


def test_value_and_gradient_come_from_one_evaluation() -> None:
    calls = []

    def log_prob(z: Tensor) -> Tensor:
        calls.append(z.requires_grad)
        return -0.5 * z.square().sum(1)

    z_t, _ = points()
    value, grad = value_and_gradient(log_prob, z_t)
    assert calls == [True]
    assert torch.equal(value, log_prob(z_t)) and not value.requires_grad
    assert (grad + z_t).abs().max() < 1e-15
    assert torch.equal(gradient(log_prob, z_t), grad)
    value, grad = value_and_gradient(lambda z: torch.zeros(len(z)), z_t)
    assert not value.any() and not grad.any()
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use Trainer\(inference_mode=False\)"):
        value_and_gradient(log_prob, z_t)


def test_precision_of_the_latents_is_kept() -> None:
    prior, z_t, t = mixture(0, 1, 2), *points()
    guided = GuidedDenoiser(prior, [wanting("first", prior), SourceTerm(z_t, prior, SCHEDULE)], SCHEDULE)
    assert guided(z_t.float(), t).dtype == torch.float32
    assert (guided(z_t.float(), t) - guided(z_t, t)).abs().max() < 2e-3
    half = GuidedDenoiser(lambda z, t: prior(z, t).bfloat16(), [wanting("first", prior)], SCHEDULE)
    assert half(z_t.float(), t).dtype == torch.float32


def test_nothing_can_be_guided_under_inference_mode() -> None:
    prior, z_t, t = mixture(0, 1, 2), *points()
    guided = GuidedDenoiser(prior, [wanting("first", prior)], SCHEDULE)
    for evaluate in (guided, guided.evaluate, guided.twist):
        with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use Trainer\(inference_mode=False\)"):
            evaluate(z_t, t)
    with torch.no_grad():
        assert not guided(z_t, t).requires_grad


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    class Kink(Term):
        def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
            return (z_t - z_t.detach()).abs().sum(1).sqrt()  # 0, with an infinite slope

    z_t, t = points(4)
    with pytest.raises(ValueError, match=r"gradient must be finite, got nan in row 0 at t = 0.02; check the terms"):
        GuidedDenoiser(mixture(0, 1), [Kink()], SCHEDULE)(z_t, t)


def test_what_makes_no_sense_is_refused() -> None:
    prior, z_t, t = mixture(0, 1, 2), *points(4)
    with pytest.raises(ValueError, match=r"`weight` must be >= 0, got -1\.0; to avoid an attribute, negate it"):
        GuidedDenoiser(prior, [], SCHEDULE, weight=-1.0)
    with pytest.raises(ValueError, match="`weight` must be >= 0"):
        GuidedDenoiser(prior, [], SCHEDULE, weight=lambda t: -t)(z_t, t)
    for step in (0.0, -1.0):
        with pytest.raises(ValueError, match=r"`max_step` must be > 0.*use weight=0"):
            GuidedDenoiser(prior, [], SCHEDULE, max_step=step)
