"""What both particle methods share."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lcg.diffusion import CosineSchedule, generators
from lcg.guidance import Term
from lcg.guidance.feynman_kac import FeynmanKac
from lcg.guidance.particles import ParticleSampler
from lcg.guidance.resampling import pooled
from lcg.guidance.twisted import TwistedSMC

SCHEDULE = CosineSchedule()
Line = Any  # of conftest.py, which tests cannot import


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def twisted(line: Line, weight: float = 1.0, **options: Any) -> TwistedSMC:
    return TwistedSMC(line.denoiser, line.terms, SCHEDULE, weight=weight, **options)


def feynman_kac(line: Line, weight: float = 1.0, **options: Any) -> FeynmanKac:
    return FeynmanKac(line.denoiser, [(term, weight) for term in line.terms], SCHEDULE, **options)


Make = Callable[..., ParticleSampler]
every_method = pytest.mark.parametrize("make", [twisted, feynman_kac])


# --- independence and economy -----------------------------------------------------------------------------------------


@every_method
def test_a_system_depends_on_its_own_generator_alone(make: Make, mixture_line: Line) -> None:
    sampler = make(mixture_line, 2.0, particles=8, steps=12, resample_below=0.9)
    batch = sampler.sample(5, (1,), generators(range(5)), dtype=torch.float64)
    alone = sampler.sample(2, (1,), generators([3, 1]), dtype=torch.float64)
    assert len(set(batch.ancestors.tolist())) > 1  # they were not resampled alike
    for name in ("z_0", "log_normaliser", "ess", "ancestors"):
        assert_close(getattr(batch, name)[[3, 1]], getattr(alone, name), rtol=0, atol=1e-9)


@every_method
def test_how_many_rows_go_at_once_does_not_matter(make: Make, gaussian_line: Line) -> None:
    whole, parts = (
        make(gaussian_line, particles=8, steps=10, batch_size=size).sample(6, (1,), seeded(), dtype=torch.float64)
        for size in (4096, 5)
    )
    assert_close(whole.z_0, parts.z_0, rtol=0, atol=1e-12)
    assert_close(whole.log_normaliser, parts.log_normaliser, rtol=0, atol=1e-12)


@every_method
def test_one_evaluation_of_denoiser_and_terms_per_particle_and_step(make: Make, gaussian_line: Line) -> None:
    asked: list[Tensor] = []
    steps: list[tuple[int, int]] = []
    sampler = make(gaussian_line, particles=4, steps=7)
    terms = sampler.guided.terms if isinstance(sampler, TwistedSMC) else sampler.terms

    def denoiser(z_t: Tensor, t: Tensor) -> Tensor:
        assert z_t.shape == (12, 1) and not torch.is_grad_enabled()
        asked.append(t)
        return gaussian_line.denoiser(z_t, t)

    (sampler.guided if isinstance(sampler, TwistedSMC) else sampler).denoiser = denoiser
    sampler.sample(3, (1,), seeded(), progress=lambda step, steps_: steps.append((step, steps_)))
    assert_close(torch.stack(asked)[:, 0].double(), sampler.chain.times(), rtol=0, atol=1e-6)
    assert [term.rows for term in terms] == [[12] * 7] * 2
    assert steps == [(i, 7) for i in range(1, 8)]


@every_method
def test_shape_and_precision(make: Make) -> None:
    class Sum(Term):
        def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
            return torch.nn.functional.logsigmoid(z_t.flatten(1).sum(1))

    class Flat:
        terms = (Sum(),)

        @staticmethod
        def denoiser(z_t: Tensor, t: Tensor) -> Tensor:
            return (SCHEDULE.sigma(t)[:, None, None] * z_t).bfloat16()

    for dtype in (torch.float32, torch.float64):
        result = make(Flat(), particles=4, steps=5).sample(3, (2, 5), seeded(), dtype=dtype)
        assert (result.z_0.shape, result.z_0.dtype) == ((3, 2, 5), dtype)
        assert (result.log_normaliser.shape, result.log_normaliser.dtype) == ((3,), torch.float64)
        assert result.ess.shape == result.ancestors.shape == (3,)
    with pytest.raises(TypeError, match=r"`dtype` must be torch.float32 or torch.float64, got torch.float16"):
        make(Flat()).sample(3, (2, 5), dtype=torch.float16)


# --- what is estimated ------------------------------------------------------------------------------------------------


@every_method
def test_without_weight_every_particle_counts_the_same(make: Make, gaussian_line: Line) -> None:
    result = make(gaussian_line, 0.0, particles=4, steps=30).sample(500, (1,), seeded(), dtype=torch.float64)
    assert (result.log_p, result.stderr, result.warnings) == (0.0, 0.0, ())
    assert not result.log_normaliser.any()
    assert_close(result.ess, torch.ones(500, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (result.ancestors == 4).all()
    assert result.z_0.mean().abs() < 0.15
    assert result.z_0.std().item() == pytest.approx(0.97, abs=0.1)


@every_method
def test_probability_of_the_formula_twenty_times(make: Make, gaussian_line: Line) -> None:
    """20 seeds of 32 systems of 32 particles: within 3 standard errors each time, 2 % from the truth on the whole."""
    truth = gaussian_line.log_probability()
    result = make(gaussian_line, steps=80, batch_size=65536).sample(640, (1,), seeded())
    estimates = [pooled(part) for part in result.log_normaliser.split(32)]
    errors = torch.tensor([log_p - truth for log_p, _ in estimates])
    assert (errors.abs() / torch.tensor([stderr for _, stderr in estimates])).max() < 3
    assert errors.abs().max() < 0.05
    assert errors.square().mean().sqrt() < 0.02
    assert result.log_p == pytest.approx(truth, abs=0.01)
    assert result.stderr < 0.005
    assert result.warnings == ()


# --- warnings ---------------------------------------------------------------------------------------------------------


def report(particles: int = 32, **values: Any) -> tuple[str, ...]:
    sampler = TwistedSMC(lambda z, t: z, [], SCHEDULE, particles=particles)
    good = {"ess": torch.full((20,), 0.6), "ancestors": torch.full((20,), 12), "log_p": -1.0, "stderr": 0.05}
    return sampler._warnings(**{**good, **values})


def test_each_reason_to_distrust_the_answer_has_its_warning() -> None:
    assert report() == ()
    few = torch.full((20,), 0.6)
    few[:3] = 1.4 / 32
    (warning,) = report(ess=few)
    assert "in 3 of 20 systems nearly all the weight fell on one particle" in warning and "more particles" in warning
    (warning,) = report(ancestors=torch.tensor([1] * 5 + [6] * 15))
    assert "in 5 of 20 systems all particles descend from a single one: use more particles" in warning
    (warning,) = report(log_p=-8.0)
    assert "a probability below 0.002: that is off its support" in warning and "extrapolate" in warning
    (warning,) = report(stderr=0.4)
    assert warning == "log P = -1.00 has a standard error of 0.40: use more systems or more particles"
    (warning,) = report(stderr=math.nan)
    assert "one system tells nothing about the error" in warning
    assert report(particles=2, ess=torch.ones(20)) == ()  # both particles count


@every_method
def test_a_formula_off_the_support_is_told(make: Make, gaussian_line: Line) -> None:
    far = type(gaussian_line)(gaussian_line.components, ((3.0, -13.0),))  # z_0 > 4.3: P = 2e-5
    result = make(far, steps=30).sample(16, (1,), seeded())
    assert result.log_p == pytest.approx(far.log_probability(), abs=0.8)
    assert any("off its support" in warning for warning in result.warnings)
    assert not make(far, steps=30, support=0.0).sample(16, (1,), seeded()).warnings
    weighted = make(gaussian_line, 8.0, steps=30).sample(16, (1,), seeded())  # E[h^8] is small, P(formula) is not
    assert not any("off its support" in warning for warning in weighted.warnings)


@every_method
def test_weights_that_degenerate_are_told(make: Make, gaussian_line: Line) -> None:
    """Too sharp for the steps it is given: few particles, in few steps, with the full weight from the start."""
    sharp = type(gaussian_line)(gaussian_line.components, ((60.0, -90.0), (-60.0, 96.0)))
    result = make(sharp, 8.0, particles=16, steps=6, early=1.0, rise=0.0, support=0.0).sample(20, (1,), seeded())
    assert any("nearly all the weight fell on one particle" in warning for warning in result.warnings)
    pairs = make(gaussian_line, 8.0, particles=2, steps=20, early=1.0, rise=0.0, support=0.0, resample_below=0.9)
    assert any("descend from a single one" in warning for warning in pairs.sample(20, (1,), seeded()).warnings)


@every_method
def test_one_system_alone(make: Make, gaussian_line: Line) -> None:
    result = make(gaussian_line, steps=10).sample(1, (1,), seeded())
    assert math.isnan(result.stderr)
    assert result.log_p == pytest.approx(result.log_normaliser.item(), abs=1e-12)
    assert any("sample 8 or more" in warning for warning in result.warnings)


# --- refusals ---------------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"particles": 1}, r"`particles` must be at least 2, got 1; 32 is usual"),
        ({"resample_below": 1.5}, r"`resample_below` must be in \[0, 1\], got 1.5; 0.5 is usual"),
        ({"eta": 0.0}, r"`eta` of a chain must be above 0, got 0"),
        ({"early": -0.1}, r"`early` must be in \[0, 1\], got -0.1; 0.75 is usual"),
        ({"rise": -1.0}, r"`rise` must be >= 0, got -1.0; 64 is usual"),
        ({"support": 1.0}, r"`support` must be in \[0, 1\), got 1.0; 0.002 is usual, 0 never warns"),
        ({"batch_size": 0}, r"`batch_size` must be at least 1, got 0; 4096 is usual"),
        ({"steps": 1}, r"`steps` must be at least 2"),
        ({"weight": -1.0}, r"`weight` must be >= 0, got -1.0; to avoid an attribute, negate it"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Make, gaussian_line: Line, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(gaussian_line, **options)


@every_method
def test_sampling_refuses_what_it_cannot_do(make: Make, gaussian_line: Line) -> None:
    sampler = make(gaussian_line, steps=3)
    with pytest.raises(ValueError, match="`systems` must be at least 1, got 0; each gives one sample"):
        sampler.sample(0, (1,))
    with pytest.raises(ValueError, match="one generator per row: expected 3, got 2"):
        sampler.sample(3, (1,), generators([0, 1]))
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use Trainer\(inference_mode=False\)"):
        sampler.sample(3, (1,))


@every_method
@pytest.mark.parametrize(("broken", "t"), [("value", 0.498), ("slope", 0.995)])
def test_terms_that_are_not_finite_are_refused(make: Make, gaussian_line: Line, broken: str, t: float) -> None:
    class Broken(Term):
        def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
            if broken == "value":
                return torch.where(t < 0.5, -torch.inf, 0.0) + 0 * z_t[:, 0]
            return (z_t - z_t.detach()).abs().sum(1).sqrt()  # 0, with an infinite slope

    class Bad:
        denoiser, terms = gaussian_line.denoiser, (Broken(),)

    with pytest.raises(ValueError, match=rf"must be finite.* at t = {t}"):
        make(Bad(), steps=3).sample(2, (1,), seeded())
