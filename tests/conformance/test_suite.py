"""The suite at reduced size: it passes, and it notices what is broken on purpose."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from lcg.conformance import sampling
from lcg.conformance.laboratory import FULL_SAMPLES, Laboratory, Sizes
from lcg.conformance.outcome import Check, Measurement
from lcg.conformance.suite import checks, run
from lcg.diffusion import DDIM, DPMSolverPP2M, Heun, MixtureDenoiser, Sampler, Schedule, UniPC
from lcg.guidance import FormulaReadout, GuidedDenoiser
from lcg.guidance.guided import Instant
from lcg.guidance.twisted import TwistedSMC

SMALL = Sizes(samples=1000, reference=12_000, systems=16, particles=64, latents=16)
SHARED = Laboratory(SMALL)
QUICK_GROUPS = ("scores", "likelihood", "controls")
QUICK_METHODS = ("DPM-Solver++(2M), 25", "UniPC, 25", "UniPC, 20", "Heun, 41")


def is_slow(check: Check) -> bool:
    if check.group in ("correctors", "particles"):
        return check.world != "line" or any(word in check.method for word in ("Langevin", "Feynman", "weight 3"))
    if check.world.startswith("modes"):
        return check.world != "modes 0"
    return check.group not in QUICK_GROUPS and check.method not in QUICK_METHODS and check.world != "line"


def parameters() -> list[object]:
    marks = {True: [pytest.mark.slow], False: []}
    return [pytest.param(check, id=str(check), marks=marks[is_slow(check)]) for check in checks(SHARED)]


def named(lab: Laboratory, *words: str) -> Check:
    """The first check whose name has these words."""
    return next(check for check in checks(lab) if all(word in str(check) for word in words))


def outcome(check: Check) -> tuple[bool, tuple[Measurement, ...]]:
    (result,) = run([check])
    assert not result.error
    return result.passed, result.measurements


@pytest.mark.parametrize("check", parameters())
def test_every_check_comes_out_as_it_should(check: Check) -> None:
    passed, measurements = outcome(check)
    assert passed, measurements


def test_negative_controls_are_far_from_right_methods() -> None:
    lab = Laboratory(SMALL)
    _, (wrong,) = outcome(named(lab, "controls: product, weight 1", "(line)"))
    _, right = outcome(named(lab, "formulas: joint, a & b", "(line)"))
    assert wrong.value > 3 * right[0].value
    assert wrong.expected == "wrong"


def test_the_suite_covers_every_group_and_names_each_check_once() -> None:
    planned = checks(SHARED)
    assert len({str(check) for check in planned}) == len(planned)
    groups = {check.group for check in planned}
    assert groups == {"scores", "likelihood", "samplers", "formulas", "correctors", "particles", "controls"}
    assert all(check.world in SHARED.worlds for check in planned)


# --- power: what is broken is noticed ---


def test_a_denoiser_that_is_a_tenth_too_small_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = MixtureDenoiser.__call__
    monkeypatch.setattr(MixtureDenoiser, "__call__", lambda self, z_t, t: 0.9 * exact(self, z_t, t))
    lab = Laboratory(SMALL)
    for words in (("source, observation",), ("z_0 prediction",), ("DPM-Solver++(2M), 25, the prior",)):
        assert not outcome(named(lab, *words))[0], words


def test_guidance_of_the_wrong_weight_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled(GuidedDenoiser):
        def _climb(self, at: Instant, z_t: Tensor) -> tuple[Tensor, Tensor]:
            value, guidance = super()._climb(at, z_t)
            return value, 2 * guidance

    monkeypatch.setattr(sampling, "GuidedDenoiser", Doubled)
    assert not outcome(named(Laboratory(SMALL), "formulas: joint, a & b", "(line)"))[0]


def test_a_sampler_that_stops_too_soon_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sampling.SAMPLERS, sampling.FAST, lambda schedule: DPMSolverPP2M(schedule, 25, t_end=0.5))
    assert not outcome(named(Laboratory(SMALL), "samplers", sampling.FAST, "the prior"))[0]


@pytest.mark.parametrize(
    "solver",
    [
        lambda schedule: DDIM(schedule, 20, t_end=0.02, spacing="asinh"),
        lambda schedule: UniPC(schedule, 10, spacing="log_snr"),
    ],
    ids=["first order", "too few evaluations"],
)
def test_a_solver_that_does_not_follow_strong_guidance_is_noticed(
    monkeypatch: pytest.MonkeyPatch, solver: Callable[[Schedule], Sampler]
) -> None:
    monkeypatch.setitem(sampling.SAMPLERS, sampling.STRONG, solver)
    passed, (rms, median) = outcome(named(SHARED, "chosen, weight 8", "(modes 0)"))
    assert not passed
    assert not median.passed
    assert "does not follow strong guidance" in rms.advice


def test_what_strong_guidance_is_held_against_has_converged() -> None:
    world, z = SHARED.worlds["modes 0"], SHARED.noise("modes 0", 50)
    guided = GuidedDenoiser(world.denoiser, [world.joint("chosen")], world.schedule, sampling.STRONG_WEIGHT)
    ode = UniPC(world.schedule, sampling.CONVERGED, spacing="log_snr", order=3).sample(guided, z)
    heun = Heun(world.schedule, 201, spacing="log_snr").sample(guided, z)
    assert (ode - heun).square().mean().sqrt() < sampling.STRONG_ERROR / 20


def test_a_joint_head_that_is_read_through_its_marginals_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcg.conformance.scores.FormulaReadout", partial(FormulaReadout, dependence="independent"))
    assert not outcome(named(Laboratory(SMALL), "scores: joint head, a & b"))[0]


def test_particles_without_their_weights_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwistedSMC, "_arrive", lambda self, here, t, s: torch.zeros_like(here["log_h"]))
    monkeypatch.setattr(TwistedSMC, "_leave", unweighted)
    assert not outcome(named(Laboratory(SMALL), "product + twisted SMC, weight 1", "(line)"))[0]


def unweighted(
    self: TwistedSMC, here: dict[str, Tensor], mean: Tensor, std: Tensor, xi: Tensor, t: Tensor, s: Tensor
) -> tuple[Tensor, Tensor]:
    return mean + std * (std * here["guidance"] + xi), torch.zeros_like(here["log_h"])


def test_a_control_that_comes_out_right_fails_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "product", lambda world, formula: world.joint(formula))
    passed, (measurement,) = outcome(named(Laboratory(SMALL), "controls: product, weight 1", "(line)"))
    assert not passed
    assert "the suite cannot tell right from wrong" in measurement.advice


# --- how checks are made ---


def test_a_check_that_breaks_down_has_failed_and_the_next_is_made() -> None:
    def breaks() -> list[Measurement]:
        raise RuntimeError("no luck")

    def works() -> list[Measurement]:
        return [Measurement("error", 0.0, 1.0)]

    broken, made = run([Check("g", "w", "m", "t", breaks), Check("g", "w", "m", "t", works)])
    assert (broken.passed, broken.error) == (False, "RuntimeError: no luck")
    assert made.passed and made.error == ""


@pytest.mark.parametrize(
    ("measurement", "passed"),
    [
        (Measurement("tv", 0.02, 0.02), True),
        (Measurement("tv", 0.021, 0.02), False),
        (Measurement("tv", 0.1, 0.1, expected="wrong"), True),
        (Measurement("tv", 0.099, 0.1, expected="wrong"), False),
        (Measurement("tv", float("nan"), 0.1), False),
        (Measurement("tv", float("nan"), 0.1, expected="wrong"), False),
    ],
)
def test_right_methods_stay_below_their_bound_and_controls_reach_it(measurement: Measurement, passed: bool) -> None:
    assert measurement.passed is passed


def test_nothing_measured_is_nothing_passed() -> None:
    (result,) = run([Check("g", "w", "m", "t", list)])
    assert not result.passed


def test_checks_depend_on_the_seed_and_not_on_what_was_made_before() -> None:
    one, other = Laboratory(SMALL), Laboratory(SMALL)
    other.reference("line mixture"), other.noise("line mixture")
    _, alone = outcome(named(one, "UniPC, 25, the prior"))
    _, after = outcome(named(other, "UniPC, 25, the prior"))
    _, seeded = outcome(named(Laboratory(SMALL, seed=1), "UniPC, 25, the prior"))
    assert alone == after
    assert alone != seeded


def test_bounds_widen_with_the_scatter_of_fewer_samples() -> None:
    lab = Laboratory(SMALL)
    assert lab.allowed(0.02, FULL_SAMPLES) == lab.allowed(0.02, 10 * FULL_SAMPLES) == 0.02
    assert 0.05 < lab.allowed(0.02, 1000) < 0.08


def test_sizes_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="`particles` must be at least 2, got 1"):
        Sizes(particles=1)
