"""Checks of the particle methods: they must make a product of separate classifiers right, and know P(formula).

Both are given perfect classifiers of each attribute, whose product is wrong at every t > 0 (`product` in
`lcg.conformance.sampling`). Two things are measured: the whole population at the end against exact samples of p(z_0)
P(formula | z_0)^w, and the estimate of log P(formula) against its closed form, in standard errors of the estimate.
"""

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from lcg.conformance.laboratory import Laboratory
from lcg.conformance.outcome import Check, Measurement
from lcg.conformance.sampling import product
from lcg.diffusion.process import Denoiser
from lcg.guidance.feynman_kac import FeynmanKac
from lcg.guidance.particles import Particles, ParticleSampler
from lcg.guidance.twisted import TwistedSMC

CASES = (
    ("twisted SMC", "line", "a & b", 1.0, 0.03),
    ("twisted SMC", "line mixture", "a & b", 1.0, 0.03),
    ("twisted SMC", "plane", "a & b", 1.0, 0.03),
    ("twisted SMC", "plane", "(a & b) | (~a & c)", 1.0, 0.03),
    ("twisted SMC", "line", "a & b", 3.0, 0.04),
    ("twisted SMC", "line mixture", "a & b", 3.0, 0.04),
    ("Feynman-Kac", "line", "a & b", 1.0, 0.03),
    ("Feynman-Kac", "line mixture", "a & b", 1.0, 0.03),
    ("Feynman-Kac", "line", "a & b", 3.0, 0.04),
)
"""(method, world, formula, weight, bound on the total variation)."""

STEPS = {"twisted SMC": 80, "Feynman-Kac": 120}
STANDARD_ERRORS = 3.0


def particle_checks(lab: Laboratory) -> Iterator[Check]:
    """Twisted sequential Monte Carlo and Feynman-Kac path weights."""
    for method, world, formula, weight, bound in CASES:
        measure = partial(weighted, lab, method, world, formula, weight, bound)
        yield Check("particles", world, f"product + {method}, weight {weight:g}", formula, measure)


def weighted(lab: Laboratory, method: str, world: str, formula: str, weight: float, bound: float) -> list[Measurement]:
    """The population, and for weight 1 the probability of the formula."""
    population, particles = run(lab, method, world, formula, weight)
    found = lab.compare(population, world, formula, weight, bound)
    if weight == 1:
        error = abs(particles.log_p - lab.worlds[world].log_probability(formula)) / particles.stderr
        found.append(Measurement("log P(formula), standard errors", error, STANDARD_ERRORS, n=lab.sizes.systems))
    return found


def run(lab: Laboratory, method: str, world: str, formula: str, weight: float) -> tuple[Tensor, Particles]:
    """All particles at the end (n, D), and the method's own report."""
    w, sizes = lab.worlds[world], lab.sizes
    denoiser = Remembering(w.denoiser)
    rows = sizes.systems * sizes.particles
    sampler: ParticleSampler
    # Resampled at every step, particles have equal weights at the end but for what the last, tiny step adds.
    if method == "twisted SMC":
        sampler = TwistedSMC(
            denoiser,
            [product(w, formula)],
            w.schedule,
            sizes.particles,
            STEPS[method],
            weight,
            resample_below=1.0,
            batch_size=rows,
        )
    else:
        literals = [(product(w, name), weight) for name in w.parse(formula).attributes]
        sampler = FeynmanKac(
            denoiser, literals, w.schedule, sizes.particles, STEPS[method], resample_below=1.0, batch_size=rows
        )
    generator = lab.generator(method, world, formula, weight)
    particles = sampler.sample(sizes.systems, (w.dim,), generator, dtype=w.denoiser.means.dtype)
    return denoiser.z_t, particles


class Remembering:
    """A denoiser that keeps the latents that it was asked about last: the particles at the end."""

    z_t: Tensor

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser

    def __call__(self, z_t: Tensor, t: Tensor) -> Tensor:
        self.z_t = z_t.detach()
        return self.denoiser(z_t, t)
