"""Guidance of the exact consistency function of Gaussians: the conditional's own flow, by one evaluation or more."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import (
    Consistency,
    CosineSchedule,
    Denoiser,
    GaussianDenoiser,
    LinearSchedule,
    Schedule,
    StaticSampling,
    eps_from_z0,
    generators,
    randn,
)
from lcg.guidance import ClassifierTerm, FormulaReadout, GuidedConsistency, GuidedDenoiser, Term, parse
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.schema import Attribute, Schema

A = torch.tensor([1.0, -0.5, 0.0], dtype=torch.float64)
"""log p(y | z_0) = A.z_0 + const: with N(0, I) latents the conditional is N(A, I)."""
SCHEDULE = CosineSchedule()
SCHEMA = Schema((Attribute("hat"), Attribute("smile")))


class Linear(Term):
    """The noisy log p(y | z_0) = A.z_0 under N(0, I): E[A.z_0 | z_t] = alpha_t A.z_t."""

    def __init__(self, schedule: Schedule = SCHEDULE) -> None:
        self.schedule = schedule

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        return self.schedule.alpha(t) * (z_t @ A)


class Scored(Linear):
    """The same, with a score of its own."""

    def score(self, z_t: Tensor, t: Tensor) -> Tensor:
        return self.schedule.alpha(t)[:, None] * A.expand(len(z_t), -1)


class Hill(Term):
    """log p = -|z - c|^2 / 2, at all times."""

    def __init__(self, c: Tensor) -> None:
        self.c = c

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        return -0.5 * (z_t - self.c).square().sum(1)


class Never(Term):
    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("the term was asked")


class Broken(Linear):
    """Finite, but with a gradient that is not, in row 1."""

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        slope = torch.where(torch.arange(len(z_t)) == 1, torch.inf, 0.0)[:, None].double()
        return (slope * (z_t - z_t.detach())).nan_to_num(0.0).sum(1)


def noise(n: int, dim: int = 3) -> Tensor:
    return randn((n, dim), torch.Generator().manual_seed(0), dtype=torch.float64)


def identity(schedule: Schedule = SCHEDULE) -> Denoiser:
    """The exact consistency function of N(0, I), as eps_hat."""
    exact = GaussianDenoiser(torch.zeros(3), torch.eye(3), schedule)
    return lambda z_t, t: eps_from_z0(schedule, z_t, t, exact.flow(z_t, t, torch.zeros_like(t)))


def networks() -> tuple[LatentDenoiser, ClassifierTerm]:
    torch.manual_seed(0)
    student, classifier = LatentDenoiser((3,), width=16, depth=1), TimeConditionedClassifier((3,), SCHEMA, width=16)
    for net in (student, classifier):
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.3)
        net.eval().requires_grad_(False)
    return student, ClassifierTerm(classifier, [(FormulaReadout(parse("hat & ~smile", SCHEMA)), 1.0)])


# --- where it leads ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Linear, Scored])
@pytest.mark.parametrize("schedule", [CosineSchedule(), LinearSchedule()])
def test_one_guided_evaluation_is_the_conditional_flow(schedule: Schedule, kind: type[Linear]) -> None:
    """The conditional N(A, I) is N(alpha_t A, I) at t, and flows by z_t + (1 - alpha_t) A."""
    guided = GuidedConsistency(identity(schedule), kind(schedule), schedule)
    z, t = noise(64), torch.linspace(0.05, 0.99, 64).double()
    z_0_hat = (z - schedule.sigma(t)[:, None] * guided(z, t)) / schedule.alpha(t)[:, None]
    assert_close(z_0_hat, z + (1 - schedule.alpha(t))[:, None] * A, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_any_number_of_guided_evaluations_samples_the_conditional(steps: int) -> None:
    guided = GuidedConsistency(identity(), Linear(), SCHEDULE)
    z_0 = Consistency(SCHEDULE, steps).sample(guided, noise(40_000), torch.Generator().manual_seed(1))
    assert_close(z_0.mean(0), A, rtol=0, atol=0.04)
    assert_close(torch.cov(z_0.T), torch.eye(3).double(), rtol=0, atol=0.04)


def test_the_shift_of_the_posterior_mean_goes_too_far() -> None:
    """What `GuidedDenoiser` adds is for solvers: after a consistency function it is 1 + alpha_t times too much."""
    guided = GuidedDenoiser(identity(), [Linear()], SCHEDULE)
    z_0 = Consistency(SCHEDULE, 4).sample(guided, noise(4000), torch.Generator().manual_seed(1))
    assert (z_0.mean(0) - A).norm() > 0.4


def test_moves_share_the_way_and_follow_a_score_that_turns() -> None:
    """One long move goes beyond the hill's top, many short ones come to rest on it."""
    t, c, z = torch.full((5,), 0.9, dtype=torch.float64), torch.full((3,), 2.0).double(), noise(5)

    def after(moves: int) -> Tensor:
        guided = GuidedConsistency(identity(), Hill(c), SCHEDULE, weight=0.4, moves=moves)
        return (guided.shifted(z, t) - c) / (z - c)

    reach = 0.4 * (1 / math.cos(0.9 * math.pi / 2) - 1)
    for moves in (1, 2, 3):
        wanted = torch.full((5, 3), (1 - reach / moves) ** moves, dtype=torch.float64)
        assert_close(after(moves), wanted, rtol=1e-9, atol=1e-9)
    assert (after(1) < -1).all() and (after(3).abs() < 0.2).all()


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, torch.zeros_like])
def test_weight_zero_is_unguided_and_asks_nothing(weight: float | Callable[[Tensor], Tensor]) -> None:
    guided, sampler, z = GuidedConsistency(identity(), Never(), SCHEDULE, weight), Consistency(SCHEDULE, 3), noise(8)
    plain = sampler.sample(identity(), z, generators(range(8)))
    assert torch.equal(sampler.sample(guided, z, generators(range(8))), plain)


def test_a_weight_may_depend_on_time_and_on_the_row() -> None:
    t, z = torch.tensor([0.3, 0.9], dtype=torch.float64), noise(2)
    late = GuidedConsistency(identity(), Linear(), SCHEDULE, weight=lambda t: torch.where(t < 0.5, 3.0, 0.0))
    always = GuidedConsistency(identity(), Linear(), SCHEDULE, weight=3.0)
    assert_close(late.shifted(z, t)[0], always.shifted(z, t)[0])
    assert_close(late.shifted(z, t)[1], z[1], rtol=0, atol=0)


# --- the fast path ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Linear, Scored])
def test_prepared_for_its_times_it_is_the_same(kind: type[Linear]) -> None:
    guided = GuidedConsistency(identity(), kind(), SCHEDULE, weight=lambda t: torch.where(t > 0.95, 0.0, 2.0))
    times, z = Consistency(SCHEDULE, 4).times(), noise(8)
    for t, ready in zip(times, guided.prepare(times), strict=True):
        assert_close(ready(z), guided(z, t.expand(8)), rtol=1e-9, atol=1e-9)
        assert_close(ready(z[:3]), guided(z[:3], t.expand(3)), rtol=1e-9, atol=1e-9)  # of another number of rows


def test_networks_prepared_for_their_times_are_the_same() -> None:
    student, term = networks()
    guided, times = GuidedConsistency(student, term, SCHEDULE, 2.0), Consistency(SCHEDULE, 4).times().float()
    z = noise(8).float()
    for t, ready in zip(times, guided.prepare(times), strict=True):
        assert_close(ready(z), guided(z, t.expand(8)), rtol=1e-4, atol=1e-4)
        assert (guided(z, t.expand(8)) - student(z, t.expand(8))).abs().max() > 1e-3


def test_sampling_with_static_memory_gives_the_same_samples() -> None:
    student, term = networks()
    guided, sampler, z = GuidedConsistency(student, term, SCHEDULE, 2.0), Consistency(SCHEDULE, 3), noise(5).float()
    wanted = sampler.sample(guided, z, generators(range(5)))
    assert_close(StaticSampling(sampler, guided).sample(z, generators(range(5))), wanted, rtol=1e-4, atol=1e-4)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`weight` must be >= 0, got -1.0; .* negate it"):
        GuidedConsistency(identity(), Linear(), SCHEDULE, weight=-1.0)
    with pytest.raises(ValueError, match=r"`moves` must be at least 1, got 0; 2 is usual"):
        GuidedConsistency(identity(), Linear(), SCHEDULE, moves=0)
    late = GuidedConsistency(identity(), Linear(), SCHEDULE, weight=lambda t: t - 1)
    with pytest.raises(ValueError, match=r"`weight` must be >= 0, got tensor"):
        late(noise(2), torch.tensor([0.5, 0.5], dtype=torch.float64))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="guidance needs gradients"):
        GuidedConsistency(identity(), Linear(), SCHEDULE)(noise(1), torch.tensor([0.5]).double())


def test_a_score_that_is_not_finite_is_noticed() -> None:
    sampler, guided = Consistency(SCHEDULE, 2, clip=5.0), GuidedConsistency(identity(), Broken(), SCHEDULE)
    with pytest.raises(
        ValueError, match=r"score of the term must be finite, got .* in row 1 at t = 0.99; check the term"
    ):
        sampler.sample(guided, noise(3), generators(range(3)))
    unseen = sampler.sample(guided.patient(), noise(3), generators(range(3)))
    assert unseen.isfinite().all(1).tolist() == [True, False, True]  # NaN, also where latents are clipped
    with pytest.raises(ValueError, match="score of the term must be finite"):
        StaticSampling(sampler, guided).sample(noise(3), generators(range(3)))
