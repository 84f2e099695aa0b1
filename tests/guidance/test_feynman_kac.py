import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import CosineSchedule, LinearSchedule, Schedule
from lcg.guidance import ClassifierTerm, FormulaReadout, GuidedDenoiser, Term, parse
from lcg.guidance.feynman_kac import FeynmanKac
from lcg.schema import Attribute, Schema

SCHEDULE = CosineSchedule()
SCHEMA = Schema((Attribute("first"), Attribute("second")))
Line = Any  # of conftest.py, which tests cannot import


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Tilt(Term):
    """log E[exp(a.z_0) | z_t] for N(0, I) latents: of constant |grad|^2 / alpha^2, so that the path weight is exact."""

    def __init__(self, a: Tensor, schedule: Schedule) -> None:
        self.a, self.schedule = a, schedule

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return alpha * (z_t @ self.a) + 0.5 * sigma**2 * self.a.square().sum()


class TwoAttributes:
    """The line's attributes as a classifier."""

    def __init__(self, line: Line) -> None:
        self.line, self.calls = line, 0

    def __call__(self, z_t: Tensor, t: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        opposite = type(self.line)(self.line.components, tuple((-a, -b) for a, b in self.line.attributes))
        yes, no = ([term.log_prob(z_t, t) for term in line.terms] for line in (self.line, opposite))
        return {"first": yes[0] - no[0], "second": yes[1] - no[1]}

    def says(self, text: str, weight: float | Tensor = 1.0) -> ClassifierTerm:
        return ClassifierTerm(self, [(FormulaReadout(parse(text, SCHEMA)), weight)])


def normal(schedule: Schedule) -> Any:
    return lambda z, t: schedule.sigma(t)[:, None].to(z) * z


def tilts(schedule: Schedule) -> list[tuple[Term, float]]:
    directions = torch.tensor([[0.8, -0.3, 0.2], [0.5, 0.6, -0.1]], dtype=torch.float64)
    return [(Tilt(directions[0], schedule), 1.0), (Tilt(directions[1], schedule), 2.5)]


@pytest.mark.parametrize("schedule", [CosineSchedule(), LinearSchedule()], ids=["cosine", "linear"])
@pytest.mark.parametrize("steps", [2, 9])
def test_path_weights_of_exponential_tilts_are_exact_in_any_number_of_steps(schedule: Schedule, steps: int) -> None:
    """There log W = (|A|^2 - sum w_i |a_i|^2) / 2 times the growth of alpha^2, A = sum w_i a_i, on every path."""
    terms = tilts(schedule)
    sampler = FeynmanKac(normal(schedule), terms, schedule, 5, steps, rise=0.0)
    log_z = sampler.sample(4, (3,), seeded(), dtype=torch.float64).log_normaliser
    z_T = torch.randn(4, 5, 3, generator=seeded(), dtype=torch.float64)
    start, end = sampler.chain.times()[[0, -1]]
    directions, w = torch.stack([term.a for term, _ in terms]), torch.tensor([w for _, w in terms]).double()
    A, squares = w @ directions, w @ directions.square().sum(1)
    at_start = schedule.alpha(start) * (z_T @ A) + 0.5 * schedule.sigma(start) ** 2 * squares
    growth = schedule.alpha(end) ** 2 - schedule.alpha(start) ** 2
    expected = at_start.logsumexp(1) - math.log(5) + 0.5 * growth * (A @ A - squares)
    assert_close(log_z, expected, rtol=0, atol=1e-9)


def test_rising_weights_come_to_the_same_target() -> None:
    """E[exp(A.z_0)] = exp(|A|^2 / 2), with weights that rise on the way as with constant ones."""
    terms = [(Tilt(torch.tensor([0.6, 0.3]).double(), SCHEDULE), 2.0)]
    for options in ({"rise": 0.0}, {"rise": 4.0}, {"rise": 64.0, "early": 0.3}):
        sampler = FeynmanKac(normal(SCHEDULE), terms, SCHEDULE, 16, 80, **options)
        result = sampler.sample(100, (2,), seeded(), dtype=torch.float64)
        assert result.log_p == pytest.approx(0.5 * 4 * 0.45, abs=4 * result.stderr + 0.02)
        assert result.z_0.mean(0).tolist() == pytest.approx([1.2, 0.6], abs=0.3)


def test_one_exact_posterior_of_weight_one_has_no_path_weight(gaussian_line: Line) -> None:
    """It is Bayes' rule: plain guidance is right, and the weights stay what they are at the start."""
    one = type(gaussian_line)(gaussian_line.components, gaussian_line.attributes[:1])
    sampler = FeynmanKac(one.denoiser, [(one.terms[0], 1.0)], SCHEDULE, 8, 20, early=1.0)
    log_z = sampler.sample(5, (1,), seeded(), dtype=torch.float64).log_normaliser
    z_T, t = torch.randn(5, 8, 1, generator=seeded(), dtype=torch.float64), sampler.chain.times()[:1]
    at_start = one.terms[0].log_prob(z_T.reshape(40, 1), t.expand(40)).reshape(5, 8)
    assert_close(log_z, at_start.logsumexp(1) - math.log(8), rtol=0, atol=1e-9)


def test_particles_move_by_the_guided_denoiser(gaussian_line: Line) -> None:
    first, second = gaussian_line.terms
    sampler = FeynmanKac(gaussian_line.denoiser, [(first, 2.0), (second, 0.5)], SCHEDULE, rise=0.0)
    z_t, t = torch.randn(16, 1, generator=seeded(), dtype=torch.float64), torch.full((16,), 0.4, dtype=torch.float64)
    here = sampler._evaluate(z_t, t)

    class Both(Term):
        def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
            return 2 * first.log_prob(z_t, t) + 0.5 * second.log_prob(z_t, t)

    assert_close(
        here["eps_hat"], GuidedDenoiser(gaussian_line.denoiser, [Both()], SCHEDULE)(z_t, t), rtol=0, atol=1e-12
    )
    g = torch.cat([first.score(z_t, t), second.score(z_t, t)], dim=1)
    assert_close(here["gram"], g[:, :, None] * g[:, None, :], rtol=0, atol=1e-12)
    here = {name: value[:, None] for name, value in here.items()}
    w = torch.tensor([2.0, 0.5]).double()
    expected = 0.5 * ((g @ w) ** 2 - (g**2) @ w) / SCHEDULE.alpha(t) ** 2
    assert_close(sampler._rate(here, w, t[0])[:, 0], expected, rtol=1e-12, atol=1e-12)


def test_terms_of_one_classifier_share_its_evaluation(gaussian_line: Line) -> None:
    classifier = TwoAttributes(gaussian_line)
    read = [(classifier.says("first"), 1.0), (classifier.says("second"), 2.0)]
    own = list(zip(gaussian_line.terms, (1.0, 2.0), strict=True))
    shared, apart = (
        FeynmanKac(gaussian_line.denoiser, terms, SCHEDULE, 4, 6).sample(3, (1,), seeded(), dtype=torch.float64)
        for terms in (read, own)
    )
    assert classifier.calls == 6
    assert read[0][0].classifier is classifier
    assert_close(shared.log_normaliser, apart.log_normaliser, rtol=0, atol=1e-8)
    assert_close(shared.z_0, apart.z_0, rtol=0, atol=1e-8)
    other = TwoAttributes(gaussian_line)
    FeynmanKac(gaussian_line.denoiser, [(other.says("first"), 1.0), read[1]], SCHEDULE, 4, 6).sample(3, (1,))
    assert (classifier.calls, other.calls) == (12, 6)


def test_a_constant_term_changes_only_the_normaliser(gaussian_line: Line) -> None:
    class Constant(Term):
        def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
            return torch.full_like(t, -2.0)

    terms = [(term, 1.0) for term in gaussian_line.terms]
    plain, more = (
        FeynmanKac(gaussian_line.denoiser, ts, SCHEDULE, 4, 8).sample(3, (1,), seeded(), dtype=torch.float64)
        for ts in (terms, [*terms, (Constant(), 1.5)])
    )
    assert torch.equal(plain.z_0, more.z_0)
    assert_close(more.log_normaliser, plain.log_normaliser - 3, rtol=0, atol=1e-12)


def test_what_is_not_one_event_each_is_refused(gaussian_line: Line) -> None:
    classifier, denoiser = TwoAttributes(gaussian_line), gaussian_line.denoiser
    with pytest.raises(ValueError, match=r"`terms` must hold at least one \(term, weight\), got none"):
        FeynmanKac(denoiser, [], SCHEDULE)
    readouts = [(FormulaReadout(parse(name, SCHEMA)), 1.0) for name in ("first", "second")]
    for term in (
        ClassifierTerm(classifier, readouts),
        classifier.says("first", 2.0),
        classifier.says("first", torch.ones(3)),
    ):
        with pytest.raises(ValueError, match="`terms` must be one event each, got a ClassifierTerm with several"):
            FeynmanKac(denoiser, [(term, 1.0)], SCHEDULE)
