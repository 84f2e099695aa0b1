"""Checks of what is sampled: every sampler, every kind of formula, correctors, and the controls that must fail.

Samples are compared with exact ones by total variation along the directions that the attributes look in, and by sliced
Wasserstein distance. `joint` guides by the exact log P(formula | z_t); `product` by the sum of the log-probabilities of
classifiers that are perfect but separate, which is what guidance does without a joint head. For attributes that depend
on one another the product is wrong at every t > 0 and right at t = 0: so it is wrong with a sampler alone, right with
correctors.

Guidance of a weight other than 1 belongs to no conditional. What a solver makes of it is held against the converged
probability-flow ODE from the same noise, sample by sample.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from torch import Tensor

from lcg.conformance.laboratory import FULL_SAMPLES, Laboratory
from lcg.conformance.outcome import Check, Measurement
from lcg.conformance.worlds import QuadratureTerm, World
from lcg.diffusion.correctors import MALA, Corrector, Langevin
from lcg.diffusion.process import Denoiser
from lcg.diffusion.samplers.base import Sampler
from lcg.diffusion.samplers.ddim import DDIM
from lcg.diffusion.samplers.ddpm import DDPM
from lcg.diffusion.samplers.dpm_solver import DPMSolverPP2M
from lcg.diffusion.samplers.heun import Heun
from lcg.diffusion.samplers.predictor_corrector import PredictorCorrector
from lcg.diffusion.samplers.unipc import UniPC
from lcg.diffusion.schedule import Schedule
from lcg.guidance.guided import GuidedDenoiser
from lcg.guidance.terms import ClassifierTerm, FormulaReadout, Term

SAMPLERS: dict[str, Callable[[Schedule], Sampler]] = {
    "DDIM, 100": lambda schedule: DDIM(schedule, 100),
    "DDIM eta=1, 200": lambda schedule: DDIM(schedule, 200, eta=1.0),
    "DDPM, 200": lambda schedule: DDPM(schedule, 200),
    "DPM-Solver++(2M), 25": lambda schedule: DPMSolverPP2M(schedule, 25),
    "Heun, 41": lambda schedule: Heun(schedule, 41),
    "Heun with churn, 101": lambda schedule: Heun(schedule, 101, churn=10.0),
    "UniPC, 25": lambda schedule: UniPC(schedule, 25),
    "UniPC, 20": lambda schedule: UniPC(schedule, 20, t_end=0.02, spacing="asinh"),
}
"""What is checked, each with as many evaluations as it needs to be right."""

FAST = "DPM-Solver++(2M), 25"

STRONG, STRONG_WEIGHT = "UniPC, 20", 8.0
"""What strong guidance is solved with, and how strong it is."""

STRONG_ERROR, STRONG_MEDIAN = 0.05, 0.01
"""Bounds on the root mean square error and on the median sample's, in standard deviations of the data."""

FLIP = 1.5
"""How far off a sample is at most, in the same units, that takes the other side of a border between two modes."""

CONVERGED = 100
"""Evaluations of UniPC-3 after which its error is a hundredth of the bound."""

FORMULAS = (
    ("line", "a & b", 0.02),
    ("plane", "a & b", 0.02),
    ("cloud 8", "a & b", 0.02),
    ("latent class 16", "a & b & c", 0.03),
    ("plane", "~a", 0.03),
    ("plane", "a | c", 0.03),
    ("plane", "~(mode=top) & c", 0.03),
    ("plane", "(a & b) | (~a & c)", 0.03),
)
"""(world, formula, bound) of what is guided by the exact joint."""

WRONG = 0.1
"""Total variation that negative controls must reach."""

CORRECTED = (("line", 1.0, 0.03), ("line mixture", 1.0, 0.03), ("line", 3.0, 0.04), ("line mixture", 3.0, 0.04))
"""(world, weight, bound) of products of two attributes that are corrected."""


def sampler_checks(lab: Laboratory) -> Iterator[Check]:
    """Every sampler, on a plain prior and on a guided one; a few evaluations under strong guidance."""
    for name in SAMPLERS:
        yield Check("samplers", "line mixture", name, "the prior", partial(prior, lab, "line mixture", name))
        yield Check("samplers", "line mixture", name, "a & b", partial(joint, lab, "line mixture", "a & b", name))
    for world in (name for name in lab.worlds if name.startswith("modes")):
        measure = partial(converged, lab, world, "chosen")
        yield Check("samplers", world, STRONG, f"chosen, weight {STRONG_WEIGHT:g}", measure)


def formula_checks(lab: Laboratory) -> Iterator[Check]:
    """Every connective, guided by the exact joint and by a joint head."""
    for world, formula, bound in FORMULAS:
        yield Check("formulas", world, "joint", formula, partial(joint, lab, world, formula, FAST, bound))
    # Even times leave the linear schedule's last steps long in lambda_t, for which 25 evaluations are too few.
    measure = partial(joint, lab, "plane, linear", "a & b", "Heun, 41")
    yield Check("formulas", "plane, linear", "joint", "a & b", measure)
    for formula in ("a & b & c", "(a & b) | (~a & c)"):
        world = "latent class 64"
        yield Check("formulas", world, "joint head", formula, partial(joint_head, lab, world, formula))
    yield Check("formulas", "line", "joint, weight 3", "a & b", partial(powered, lab, "line", "a & b", 3.0))


def corrector_checks(lab: Laboratory) -> Iterator[Check]:
    """Langevin and MALA, which make a product of separate classifiers right, at any weight."""
    for world, weight, bound in CORRECTED:
        for name in ("Langevin", "MALA"):
            measure = partial(corrected, lab, world, "a & b", weight, name, bound)
            yield Check("correctors", world, f"product + {name}, weight {weight:g}", "a & b", measure)


def control_checks(lab: Laboratory) -> Iterator[Check]:
    """What is known to be wrong: a suite that does not notice has no power."""
    for world, weight in (("line", 1.0), ("line mixture", 1.0), ("plane", 1.0), ("cloud 8", 1.0), ("line", 3.0)):
        measure = partial(naive, lab, world, "a & b", weight)
        yield Check("controls", world, f"product, weight {weight:g}", "a & b", measure)
    for world in ("line", "plane"):
        yield Check("controls", world, "negated score", "~a", partial(negated, lab, world))
        yield Check("controls", world, "clean classifier at z_t", "a", partial(clean, lab, world))
    yield Check("controls", "plane", "scores halved", "the prior", partial(shrunk, lab, "plane"))


# --- what is right ---


def prior(lab: Laboratory, world: str, sampler: str) -> list[Measurement]:
    """The prior itself."""
    return lab.compare(sample(lab, world, lab.worlds[world].denoiser, sampler), world)


def joint(lab: Laboratory, world: str, formula: str, sampler: str, bound: float = 0.02) -> list[Measurement]:
    """Guidance by the exact joint."""
    return lab.compare(guide(lab, world, [lab.worlds[world].joint(formula)], sampler), world, formula, bound=bound)


def joint_head(lab: Laboratory, world: str, formula: str) -> list[Measurement]:
    """Guidance by a joint head's outputs, through the formula's decision diagram."""
    w = lab.worlds[world]
    term = ClassifierTerm(w.joint_outputs, [(FormulaReadout(w.parse(formula)), 1.0)])
    return lab.compare(guide(lab, world, [term], FAST, n=lab.sizes.samples // 4), world, formula, bound=0.03)


def powered(lab: Laboratory, world: str, formula: str, weight: float) -> list[Measurement]:
    """Guidance by the noisy posterior of the weighted likelihood, E[P(formula | z_0)^w | z_t], which is not h^w."""
    w = lab.worlds[world]
    term = QuadratureTerm(w, lambda z_0: weight * w.log_likelihood(formula, z_0), nodes=48)
    return lab.compare(guide(lab, world, [term], FAST), world, formula, weight, bound=0.03)


def converged(lab: Laboratory, world: str, formula: str) -> list[Measurement]:
    """Strong guidance by the exact joint, against the converged ODE: root mean square, and the median sample's.

    In standardised latents. Near the border between two modes a small error sends a sample to the other one: with few
    samples the bound leaves room for one of them.
    """
    w, n = lab.worlds[world], lab.sizes.samples // 10
    term = w.joint(formula)
    guided = GuidedDenoiser(w.denoiser, [term], w.schedule, STRONG_WEIGHT)
    ode = UniPC(w.schedule, CONVERGED, spacing="log_snr", order=3).sample(guided, lab.noise(world, n))
    errors = (guide(lab, world, [term], STRONG, STRONG_WEIGHT, n) - ode).square().mean(1)
    room = FLIP**2 * max(1 / n - 10 / FULL_SAMPLES, 0.0)
    rms, median = float(errors.mean().sqrt()), float(errors.median().sqrt())
    return [
        Measurement("error to the converged ODE", rms, math.sqrt(STRONG_ERROR**2 + room), n=n, advice=TOO_FEW),
        Measurement("median error to it", median, STRONG_MEDIAN, n=n, advice=TOO_FEW),
    ]


def corrected(
    lab: Laboratory, world: str, formula: str, weight: float, corrector: str, bound: float
) -> list[Measurement]:
    """The product of separate classifiers, its samples drawn back to their density at each noise level."""
    w = lab.worlds[world]
    term = product(w, formula)
    chain: Corrector = Langevin(8, 0.6)
    if corrector == "MALA":
        chain = MALA(
            lambda z_t, t: w.denoiser.log_prob(z_t, t) + weight * term.log_prob(z_t, t), steps=4, step_size=1.0
        )
    sampler = PredictorCorrector(w.schedule, 60, spacing="quadratic", eta=1.0, corrector=chain)
    guided = GuidedDenoiser(w.denoiser, [term], w.schedule, weight)
    n = lab.sizes.samples // 2
    samples = sampler.sample(guided, lab.noise(world, n), lab.generator(corrector, world, weight))
    return lab.compare(samples, world, formula, weight, bound)


# --- what is wrong ---


def naive(lab: Laboratory, world: str, formula: str, weight: float) -> list[Measurement]:
    """The sum of separate classifiers' scores, with a sampler alone."""
    samples = guide(lab, world, [product(lab.worlds[world], formula)], FAST, weight)
    return lab.compare(samples, world, formula, weight, WRONG, "wrong")


def negated(lab: Laboratory, world: str) -> list[Measurement]:
    """NOT by the negated score, -grad log h, instead of grad log(1 - h)."""
    return lab.compare(guide(lab, world, [Negated(lab.worlds[world], "a")], FAST), world, "~a", 1.0, WRONG, "wrong")


def clean(lab: Laboratory, world: str) -> list[Measurement]:
    """A classifier of clean latents, evaluated at z_t."""
    return lab.compare(guide(lab, world, [Clean(lab.worlds[world], "a")], FAST), world, "a", 1.0, WRONG, "wrong")


def shrunk(lab: Laboratory, world: str) -> list[Measurement]:
    """A prior whose score is half of what it should be."""
    exact = lab.worlds[world].denoiser

    def halved(z_t: Tensor, t: Tensor) -> Tensor:
        return 0.5 * exact(z_t, t)

    samples = sample(lab, world, halved, FAST)
    return lab.compare(samples, world, None, 1.0, WRONG, "wrong")


TOO_FEW = "the solver does not follow strong guidance: more evaluations, or shorter steps about lambda_t = 0"


class Negated(Term):
    """-log P(formula | z_t)."""

    def __init__(self, world: World, formula: str) -> None:
        self.term = world.joint(formula)

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        return -self.term.log_prob(z_t, t)


class Clean(Term):
    """log P(formula | z_0 = z_t): what a classifier that knows no noise says of a noised latent."""

    def __init__(self, world: World, formula: str) -> None:
        self.world, self.formula = world, formula

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        return self.world.log_likelihood(self.formula, z_t)


# --- how ---


def product(world: World, formula: str) -> ClassifierTerm:
    """A formula read from perfect classifiers of each attribute, as if attributes were independent given z_t."""
    return ClassifierTerm(world.classifier, [(FormulaReadout(world.parse(formula)), 1.0)])


def guide(
    lab: Laboratory, world: str, terms: Sequence[Term], sampler: str, weight: float = 1.0, n: int | None = None
) -> Tensor:
    """Guided samples (n, D)."""
    w = lab.worlds[world]
    return sample(lab, world, GuidedDenoiser(w.denoiser, terms, w.schedule, weight), sampler, n)


def sample(lab: Laboratory, world: str, denoiser: Denoiser, sampler: str, n: int | None = None) -> Tensor:
    """Samples of a denoiser (n, D)."""
    method = SAMPLERS[sampler](lab.worlds[world].schedule)
    return method.sample(denoiser, lab.noise(world, n), lab.generator(sampler, world))
