"""Checks without chance: guided scores, log-probabilities and densities against closed forms, in float64.

Where the conditional p(z_0 | y) is a mixture of Gaussians again, its own exact denoiser is what guidance by an exact
term must give, at every z_t and t:

    component's label    the mixture of those components
    exponential tilt     weights pi_k exp(g.mu_k + g'S_k g / 2), means mu_k + S_k g
    linear observation   y = a.z_0 + b + s xi: one Gaussian conditions another
    source               z_src = z_0 + tau xi, the same with a = I

The same score may be written in every parametrisation, with G the sum of the terms' scores,

    eps_hat - sigma G,     z_0_hat + (sigma^2 / alpha) G,     v_hat - (sigma / alpha) G,
    u_hat - (sigma / alpha) (alpha + sigma) G for u = eps - z_0, the velocity of flow matching.

What is reported is the largest error over all latents and noise levels, relative to the largest value.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from lcg.conformance.laboratory import Laboratory
from lcg.conformance.outcome import Check, Measurement
from lcg.conformance.worlds import Linear, TiltTerm, World
from lcg.diffusion.gaussian import GaussianDenoiser, MixtureDenoiser
from lcg.diffusion.likelihood import evidence_lower_bound, flow_log_prob
from lcg.diffusion.process import (
    Denoiser,
    coefficients,
    diffuse,
    eps_from_flow,
    eps_from_v,
    eps_from_z0,
    flow_from_eps,
    v_from_eps,
    z0_from_eps,
)
from lcg.guidance.guided import GuidedDenoiser
from lcg.guidance.source import SourceTerm
from lcg.guidance.terms import ClassifierTerm, FormulaReadout, LabelReadout, PriorTerm, Term

EXACT = 1e-9
"""Relative error allowed for identities: rounding in float64 with a margin."""

TIMES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
PARAMETRISATIONS = ("eps", "z_0", "v", "flow")


def score_checks(lab: Laboratory) -> Iterator[Check]:
    """Every term, every parametrisation and the likelihoods."""

    def check(world: str, method: str, task: str, measure: Callable[[World], tuple[Tensor, Tensor]]) -> Check:
        return Check("scores", world, method, task, lambda: [_error(*measure(lab.worlds[world]))])

    for world, formula in (
        ("plane", "mode=left"),
        ("plane", "~mode=top"),
        ("latent class 64", "kind in {first, third}"),
    ):
        yield check(world, "formula term", formula, partial(formula_of_label, lab, world, formula=formula))
    yield check("plane", "label readout", "mode=right", partial(kept_label, lab, "plane"))
    yield check("cloud 8", "label readout", "age = 0.8", partial(continuous_label, lab, "cloud 8"))
    for world in ("line mixture", "plane", "plane, linear", "latent class 64"):
        yield check(world, "exponential tilt", "exp(g.z_0)", partial(tilt, lab, world))
    for parametrisation in PARAMETRISATIONS:
        yield check("plane", f"{parametrisation} prediction", "exp(g.z_0)", partial(parametrised, lab, parametrisation))
    yield check("cloud 8", "source, observation", "z_src", partial(source, lab, joint=False))
    yield check("cloud 8", "source, joint", "z_src, exp(g.z_0)", partial(source, lab, joint=True))
    yield check("cloud 8", "source, tweedie", "z_src, N(0, I) latents", partial(whitened_source, lab))
    for formula in ("a & b", "a | b", "~(a & c)", "(a & b) | (~a & c)", "kind=second & a | first & ~b"):
        yield check("latent class 16", "joint head", formula, partial(joint_head, lab, formula))
    yield check("cloud 8", "formula term", "age > 0.9", partial(threshold, lab))
    yield Check("likelihood", "plane", "probability flow", "log p(z_0)", partial(flow_likelihood, lab))
    yield Check("likelihood", "plane", "lower bound", "E log p(z_0)", partial(lower_bound, lab))


# --- terms whose conditional is a mixture again: (guided eps_hat, the conditional's own eps_hat) ---


def formula_of_label(lab: Laboratory, name: str, world: World, formula: str) -> tuple[Tensor, Tensor]:
    """A formula over the component's label: the conditional is the mixture of the components that satisfy it."""
    attribute = "mode" if name == "plane" else "kind"
    labels = torch.zeros(world.components, len(world.schema))
    labels[:, world.schema.index(attribute)] = torch.arange(world.components)
    kept = world.parse(formula).holds(labels)
    prior = world.denoiser
    exact = MixtureDenoiser(prior.log_weights[kept], prior.means[kept], world.covariances[kept], world.schedule)
    term = ClassifierTerm(world.classifier, [(FormulaReadout(world.parse(formula)), 1.0)])
    return guided_and_exact(lab, world, [term], exact)


def kept_label(lab: Laboratory, name: str, world: World) -> tuple[Tensor, Tensor]:
    """A label to keep, `mode` = 1: that component alone; the labels that are NaN must play no part."""
    labels = torch.full((1, len(world.schema)), math.nan)
    labels[0, world.schema.index("mode")] = 1
    term = ClassifierTerm(world.classifier, [(LabelReadout(world.schema, labels), 1.0)])
    return guided_and_exact(
        lab, world, [term], GaussianDenoiser(world.denoiser.means[1], world.covariances[1], world.schedule)
    )


def continuous_label(lab: Laboratory, name: str, world: World) -> tuple[Tensor, Tensor]:
    """The value of a continuous attribute: a linear observation of a Gaussian latent."""
    value, column = 0.8, world.schema.index("age")
    labels = torch.full((1, len(world.schema)), math.nan)
    labels[0, column] = value
    term = ClassifierTerm(world.classifier, [(LabelReadout(world.schema, labels), 1.0)])
    age = _age(world)
    a, mean, covariance = (
        torch.tensor(age.direction, dtype=torch.float64),
        world.denoiser.means[0],
        world.covariances[0],
    )
    gain = covariance @ a / (a @ covariance @ a + age.std**2)
    moved = mean + gain * (labels[0, column].double() - age.offset - a @ mean)
    return guided_and_exact(lab, world, [term], _gaussian(moved, covariance - gain.outer(covariance @ a), world))


def tilt(lab: Laboratory, name: str, world: World) -> tuple[Tensor, Tensor]:
    """The exponential tilt."""
    term = TiltTerm(world, _direction(lab, world))
    return guided_and_exact(lab, world, [term], term.conditional)


def source(lab: Laboratory, world: World, joint: bool) -> tuple[Tensor, Tensor]:
    """A noisy sight of z_0, alone or together with a tilt: the linear-Gaussian posterior."""
    tau, z_src = 0.5, world.sample(1, lab.generator("source"))
    term = SourceTerm(
        z_src, world.denoiser, world.schedule, tau, joint=joint, iterations=2 * world.dim, tolerance=1e-12
    )
    g = _direction(lab, world) if joint else torch.zeros(world.dim, dtype=torch.float64)
    terms: list[Term | PriorTerm] = [term, TiltTerm(world, g)]
    mean, covariance = world.denoiser.means[0], world.covariances[0]
    gain = torch.linalg.solve(covariance + tau**2 * torch.eye(world.dim, dtype=torch.float64), covariance)
    posterior = covariance - covariance @ gain
    moved = mean + gain.T @ (z_src[0] - mean) + posterior @ g
    return guided_and_exact(lab, world, terms, _gaussian(moved, posterior, world))


def whitened_source(lab: Laboratory, world: World) -> tuple[Tensor, Tensor]:
    """The cheap form of the source term is exact for N(0, I) latents."""
    tau, zero, one = 0.5, torch.zeros(world.dim, dtype=torch.float64), torch.eye(world.dim, dtype=torch.float64)
    white = World(torch.zeros(1), zero[None], one[None], [], world.schedule)
    z_src = white.sample(1, lab.generator("source"))
    term = SourceTerm(z_src, white.denoiser, world.schedule, tau, "tweedie")
    exact = _gaussian(z_src[0] / (1 + tau**2), one * tau**2 / (1 + tau**2), white)
    return guided_and_exact(lab, white, [term], exact)


def parametrised(lab: Laboratory, parametrisation: str, world: World) -> tuple[Tensor, Tensor]:
    """The guided prediction in another parametrisation, from a prior that predicts in it, turned back into eps_hat."""
    schedule, prior = world.schedule, world.denoiser
    term = TiltTerm(world, _direction(lab, world))
    wrapped = eps_denoiser(prior, parametrisation)
    results = []
    for z_t, t in latents(lab, world):
        alpha, sigma = coefficients(schedule, t, z_t)
        eps_hat, G = GuidedDenoiser(wrapped, [term], schedule).evaluate(z_t, t)
        z_0_hat = z0_from_eps(schedule, z_t, t, eps_hat)
        if parametrisation == "eps":
            guided = eps_hat - sigma * G
        elif parametrisation == "z_0":
            guided = eps_from_z0(schedule, z_t, t, z_0_hat + sigma.square() / alpha * G)
        elif parametrisation == "v":
            guided = eps_from_v(schedule, z_t, t, v_from_eps(schedule, z_t, t, eps_hat) - sigma / alpha * G)
        else:
            u = flow_from_eps(schedule, z_t, t, eps_hat) - sigma / alpha * (alpha + sigma) * G
            guided = eps_from_flow(schedule, z_t, t, u)
        results.append((guided, term.conditional(z_t, t)))
    return _stack(results)


def eps_denoiser(prior: MixtureDenoiser, parametrisation: str) -> Denoiser:
    """The exact prior as a network that predicts something else than eps would give it."""
    schedule = prior.schedule

    def denoiser(z_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = coefficients(schedule, t, z_t)
        z_0_hat, eps_hat = prior.moments(z_t, t)[0], prior(z_t, t)
        if parametrisation == "z_0":
            return eps_from_z0(schedule, z_t, t, z_0_hat)
        if parametrisation == "v":
            return eps_from_v(schedule, z_t, t, alpha * eps_hat - sigma * z_0_hat)
        if parametrisation == "flow":
            return eps_from_flow(schedule, z_t, t, eps_hat - z_0_hat)
        return eps_hat

    return denoiser


# --- probabilities of formulas: (log P and its gradient, the exact ones) ---


def joint_head(lab: Laboratory, formula: str, world: World) -> tuple[Tensor, Tensor]:
    """A mixture of products, read by the formula's diagram, against orthants of cubes."""
    term = ClassifierTerm(world.joint_outputs, [(FormulaReadout(world.parse(formula)), 1.0)])
    return _values_and_scores(lab, world, term, world.joint(formula))


class Tail(Term):
    """log P(y > threshold | z_t) for y = a.z_0 + b + s xi, in a world of one Gaussian."""

    def __init__(self, world: World, attribute: Linear, threshold: float) -> None:
        self.world, self.attribute, self.threshold = world, attribute, threshold

    def log_prob(self, z_t: Tensor, t: Tensor) -> Tensor:
        a = z_t.new_tensor(self.attribute.direction)
        mean, covariance = self.world.denoiser.moments(z_t, t)
        std = ((covariance @ a) @ a + self.attribute.std**2).sqrt()
        return torch.special.log_ndtr((mean @ a + self.attribute.offset - self.threshold) / std)


def threshold(lab: Laboratory, world: World) -> tuple[Tensor, Tensor]:
    """A continuous attribute above a threshold, against the Gaussian tail of z_0 given z_t."""
    term = ClassifierTerm(world.classifier, [(FormulaReadout(world.parse("age > 0.9")), 1.0)])
    return _values_and_scores(lab, world, term, Tail(world, _age(world), 0.9))


# --- likelihoods ---


def flow_likelihood(lab: Laboratory) -> list[Measurement]:
    """log p(z_0) along the probability-flow ODE against the mixture's density."""
    world = lab.worlds["plane"]
    z_0 = world.sample(min(lab.sizes.latents, 64), lab.generator("likelihood"))
    found = flow_log_prob(world.denoiser, z_0, world.schedule)
    exact = world.denoiser.log_prob(z_0, z_0.new_zeros(len(z_0)))
    return [Measurement("largest error, nats", float((found.log_prob - exact).abs().max()), 0.02, n=len(z_0))]


def lower_bound(lab: Laboratory) -> list[Measurement]:
    """The bound of the exact denoiser is tight in continuous time, but for its two ends."""
    world = lab.worlds["plane"]
    n = lab.sizes.samples // 10
    z_0 = world.sample(n, lab.generator("bound"))
    bound = evidence_lower_bound(world.denoiser, z_0, world.schedule, generator=lab.generator("bound draws"))
    gap = bound.log_prob - world.denoiser.log_prob(z_0, z_0.new_zeros(n))
    stderr = float(gap.std()) / math.sqrt(n)
    return [Measurement("mean gap, nats", abs(float(gap.mean())), 0.01 + 3 * stderr, stderr, n)]


# --- how ---


def latents(lab: Laboratory, world: World) -> Iterator[tuple[Tensor, Tensor]]:
    """Noised latents (N, D) of the prior, half of them twice as far out, and their time (N,), at all `TIMES`."""
    n = lab.sizes.latents
    z_0 = world.sample(n, lab.generator("latents"))
    eps = torch.randn(z_0.shape, generator=lab.generator("latents, noise"), dtype=torch.float64)
    far = 1.0 + (torch.arange(n) % 2 == 0).double()[:, None]
    for time in TIMES:
        t = torch.full((n,), time, dtype=torch.float64)
        yield far * diffuse(world.schedule, z_0, t, eps), t


def guided_and_exact(
    lab: Laboratory,
    world: World,
    terms: Sequence[Term | PriorTerm],
    exact: Denoiser,
) -> tuple[Tensor, Tensor]:
    """eps_hat of the guided prior and of the conditional's own denoiser, at all latents."""
    guided = GuidedDenoiser(world.denoiser, terms, world.schedule)
    return _stack([(guided(z_t, t), exact(z_t, t)) for z_t, t in latents(lab, world)])


def _values_and_scores(lab: Laboratory, world: World, term: Term, exact: Term) -> tuple[Tensor, Tensor]:
    both = []
    for z_t, t in latents(lab, world):
        found, true = (
            torch.cat((one.log_prob(z_t, t)[:, None], one.score(z_t, t)), dim=1).detach() for one in (term, exact)
        )
        both.append((found, true))
    return _stack(both)


def _stack(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    found, exact = zip(*pairs, strict=True)
    return torch.stack(found), torch.stack(exact)


def _error(found: Tensor, exact: Tensor) -> Measurement:
    """The largest error relative to the largest value at the same time."""
    scale = exact.abs().flatten(1).max(1).values
    error = ((found - exact).abs().flatten(1).max(1).values / scale).max()
    return Measurement("largest relative error", float(error), EXACT, n=found.shape[0] * found.shape[1])


def _direction(lab: Laboratory, world: World) -> Tensor:
    """A tilt of length 1."""
    g = torch.randn(world.dim, generator=lab.generator("tilt"), dtype=torch.float64)
    return g / g.norm()


def _age(world: World) -> Linear:
    return next(a for a in world.attributes.values() if isinstance(a, Linear))


def _gaussian(mean: Tensor, covariance: Tensor, world: World) -> GaussianDenoiser:
    return GaussianDenoiser(mean, (covariance + covariance.T) / 2, world.schedule)
