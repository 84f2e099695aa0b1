"""Two attributes that depend on each other, each with its exact noisy posterior: who samples both?

Total variation between samples and the conditional known on a grid. Summed scores must come out wrong, or the test has
no power; correctors and particles must come out right. Of 40,000 exact samples on 20 intervals it is about 0.01.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lcg.conformance.worlds import Probit, World
from lcg.diffusion import DDIM, CosineSchedule, MixtureDenoiser, randn
from lcg.diffusion.correctors import BEST_ACCEPTANCE, MALA, Langevin
from lcg.diffusion.samplers.predictor_corrector import PredictorCorrector
from lcg.guidance import GuidedDenoiser, Term
from lcg.guidance.feynman_kac import FeynmanKac
from lcg.guidance.twisted import TwistedSMC

SCHEDULE = CosineSchedule()
Line = Any  # of conftest.py, which tests cannot import
Method = Callable[..., Tensor]
"""method(line, weight, n, steps) -> samples (n, 1)"""


def guided(line: Line, weight: float, terms: list[Term] | None = None) -> GuidedDenoiser:
    return GuidedDenoiser(line.denoiser, line.terms if terms is None else terms, SCHEDULE, weight)


def start(n: int) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(0)
    return randn((n, 1), generator), generator


def ode(line: Line, weight: float, n: int, steps: int) -> Tensor:
    return DDIM(SCHEDULE, steps).sample(guided(line, weight), *start(n))


def ancestral(line: Line, weight: float, n: int, steps: int) -> Tensor:
    return DDIM(SCHEDULE, steps, eta=1.0).sample(guided(line, weight), *start(n))


def langevin(line: Line, weight: float, n: int, steps: int) -> Tensor:
    sampler = PredictorCorrector(SCHEDULE, steps, eta=1.0, corrector=Langevin(6, 0.4))
    return sampler.sample(guided(line, weight), *start(n))


def mala(line: Line, weight: float, n: int, steps: int) -> Tensor:
    def log_density(z_t: Tensor, t: Tensor) -> Tensor:
        return line.log_prior(z_t, t) + weight * sum(term.log_prob(z_t, t) for term in line.terms)

    corrector = MALA(log_density, None, 4, 2.0, BEST_ACCEPTANCE)
    sampler = PredictorCorrector(SCHEDULE, steps, eta=1.0, corrector=corrector)
    return sampler.sample(guided(line, weight), *start(n))


def twisted(line: Line, weight: float, n: int, steps: int) -> Tensor:
    sampler = TwistedSMC(line.denoiser, line.terms, SCHEDULE, 32, steps, weight, batch_size=65536)
    return sampler.sample(n, (1,), start(0)[1]).z_0


def feynman_kac(line: Line, weight: float, n: int, steps: int) -> Tensor:
    terms = [(term, weight) for term in line.terms]
    sampler = FeynmanKac(line.denoiser, terms, SCHEDULE, 32, steps, batch_size=65536)
    return sampler.sample(n, (1,), start(0)[1]).z_0


class Joint(Term):
    """The exact joint of the line's attributes, by quadrature."""

    def __init__(self, line: Line) -> None:
        nodes, weights = np.polynomial.hermite_e.hermegauss(48)
        self.line, self.nodes = line, torch.as_tensor(nodes)
        self.log_weights = torch.as_tensor(np.log(weights / weights.sum()))

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        log_joint, mean, var = self.line.posterior(z_t.double(), t)
        z_0 = mean[..., None] + var.sqrt()[..., None] * self.nodes
        log_h = sum(torch.special.log_ndtr(a * z_0 + b) for a, b in self.line.attributes)
        return (log_joint.log_softmax(1) + (self.log_weights + log_h).logsumexp(2)).logsumexp(1).to(z_t.dtype)


def test_the_world_is_what_it_says(line: Line) -> None:
    """The line without matrices against the package's mixture; its grid, and the measure of distance."""
    weight, mean, std = torch.tensor(line.components, dtype=torch.float64).unbind(1)
    exact = MixtureDenoiser(weight.log(), mean[:, None], std[:, None, None] ** 2, SCHEDULE)
    z_t = 2 * torch.randn(64, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.linspace(0.02, 0.98, 64, dtype=torch.float64)
    assert (exact(z_t, t) - line.denoiser(z_t, t)).abs().max() < 1e-10
    assert (exact.log_prob(z_t, t) - line.log_prior(z_t, t)).abs().max() < 1e-10
    joint, separate = Joint(line).log_prob(z_t, t), sum(term.log_prob(z_t, t) for term in line.terms)
    assert (joint - separate > 0.3).any() and (joint > separate - 1e-9).all()  # they go together
    z_0 = exact.sample(400_000, torch.Generator().manual_seed(1))
    p = torch.stack([torch.special.ndtr(a * z_0[:, 0] + b) for a, b in line.attributes]).prod(0)
    assert p.mean().log().item() == pytest.approx(line.log_probability(), abs=0.01)
    kept = z_0[torch.rand(len(p), generator=torch.Generator().manual_seed(2)) < p][:40_000]
    assert line.total_variation(kept) < 0.015
    assert line.total_variation(kept + 0.1) > 0.06


def test_summed_scores_are_wrong_and_particles_right(gaussian_line: Line) -> None:
    """The quick version: few samples on 8 intervals, which cost the exact sampler 0.02."""
    assert gaussian_line.total_variation(ode(gaussian_line, 1.0, 4_000, 40), bins=8) > 0.2
    assert gaussian_line.total_variation(ancestral(gaussian_line, 1.0, 4_000, 40), bins=8) > 0.1
    sampler = TwistedSMC(gaussian_line.denoiser, gaussian_line.terms, SCHEDULE, 8, 40, batch_size=65536)
    z_0 = sampler.sample(3_000, (1,), torch.Generator().manual_seed(0)).z_0
    assert gaussian_line.total_variation(z_0, bins=8) < 0.05


def test_correctors_are_right(gaussian_line: Line) -> None:
    assert gaussian_line.total_variation(mala(gaussian_line, 1.0, 3_000, 25), bins=8) < 0.05
    assert gaussian_line.total_variation(langevin(gaussian_line, 1.0, 3_000, 25), bins=8) < 0.07


def test_an_exact_joint_needs_no_correction_and_bears_it(gaussian_line: Line) -> None:
    denoiser = guided(gaussian_line, 1.0, [Joint(gaussian_line)])
    plain = DDIM(SCHEDULE, 40).sample(denoiser, *start(2_000))
    corrected = PredictorCorrector(SCHEDULE, 20, eta=1.0, corrector=Langevin(1, 0.2)).sample(denoiser, *start(2_000))
    for z_0 in (plain, corrected):
        assert gaussian_line.total_variation(z_0, bins=8) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("weight", [1.0, 3.0])
@pytest.mark.parametrize(
    ("method", "n", "steps"),
    [(mala, 40_000, 100), (langevin, 20_000, 200), (twisted, 12_000, 64), (feynman_kac, 12_000, 64)],
)
def test_correctors_and_particles_sample_the_conditional(
    line: Line, method: Method, n: int, steps: int, weight: float
) -> None:
    distance = line.total_variation(method(line, weight, n, steps), weight)
    assert distance < (0.03 if weight == 1 else 0.04)


@pytest.fixture(scope="module")
def plane() -> World:
    """Three normals in the plane, with two attributes that go together."""
    means = torch.tensor([[-1.0, -0.6], [0.8, 0.2], [0.6, 1.4]], dtype=torch.float64)
    covariances = torch.tensor([[[0.4, 0.1], [0.1, 0.3]], [[0.3, -0.1], [-0.1, 0.2]], [[0.2, 0.0], [0.0, 0.3]]])
    attributes = [Probit("first", (3.0, 1.0), -1.5), Probit("second", (1.0, 2.5), -1.5)]
    return World(torch.tensor([0.5, 0.3, 0.2]).log(), means, covariances.double(), attributes, SCHEDULE)


class Attribute(Term):
    """One attribute of a world, by its perfect classifier."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(self.world.classifier(z_t, t)[self.name])


def sliced_wasserstein(few: Tensor, many: Tensor) -> float:
    """Between n and m n samples: quantiles against means of m neighbouring quantiles."""
    angle = torch.linspace(0, torch.pi, 9, dtype=many.dtype)[:-1]
    lines = torch.stack([angle.cos(), angle.sin()])
    quantiles = (many @ lines).sort(0).values.reshape(len(few), -1, 8).mean(1)
    return float(((few.to(many) @ lines).sort(0).values - quantiles).abs().mean())


@pytest.mark.slow
def test_in_the_plane_too(plane: World) -> None:
    """Sliced Wasserstein distance to exact samples; of 2,000 exact ones it is about 0.015."""
    n, formula, terms = 2_000, "first & second", [Attribute(plane, name) for name in ("first", "second")]
    exact = plane.conditional(formula, 20 * n, torch.Generator().manual_seed(1))
    assert sliced_wasserstein(plane.conditional(formula, n, torch.Generator().manual_seed(2)), exact) < 0.025
    noise = randn((n, 2), torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (
        sliced_wasserstein(DDIM(SCHEDULE, 64).sample(GuidedDenoiser(plane.denoiser, terms, SCHEDULE), noise), exact)
        > 0.12
    )
    for sampler in (
        TwistedSMC(plane.denoiser, terms, SCHEDULE, 16, 64, batch_size=65536),
        FeynmanKac(plane.denoiser, [(term, 1.0) for term in terms], SCHEDULE, 16, 64, batch_size=65536),
    ):
        result = sampler.sample(n, (2,), torch.Generator().manual_seed(0), dtype=torch.float64)
        assert sliced_wasserstein(result.z_0, exact) < 0.035
        assert result.log_p == pytest.approx(plane.log_probability(formula), abs=0.01)
        assert result.warnings == ()


@pytest.mark.slow
@pytest.mark.parametrize("weight", [1.0, 3.0])
@pytest.mark.parametrize("method", [ode, ancestral])
def test_summed_scores_do_not(line: Line, method: Method, weight: float) -> None:
    assert line.total_variation(method(line, weight, 40_000, 200), weight) > 0.1
