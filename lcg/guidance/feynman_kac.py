"""Feynman-Kac path weights: the product of exact noisy posteriors, repaired with their gradients alone.

Let h_i(z_t) = P(c_i | z_t) be exact, each by itself: E[h_i(z_s) | z_t] = h_i(z_t) along the prior's reverse process

    dz = beta (z / 2 + grad log q_t) ds + sqrt(beta) dw        (ds: reverse time; beta_t = -2 d log alpha_t / dt),

so that with its generator L, (d/ds + L) h_i = 0 and (d/ds + L) log h_i = -beta/2 |g_i|^2, g_i = grad log h_i. Their
product U = prod_i h_i^{w_i} is no such martingale,

    (d/ds + L) U / U = beta/2 (|G|^2 - sum_i w_i |g_i|^2),        G = sum_i w_i g_i,

and by the Feynman-Kac formula the guided process dz = beta (z / 2 + grad log q_t + G) ds + sqrt(beta) dw passes through
the densities q_t U_t, up to constants, if its paths are weighted by

    d log W = beta/2 (|G|^2 - sum_i w_i |g_i|^2) ds,        W = U_T(z_T) at the start

(a case of Skreta et al. 2025, arXiv:2503.02819). For one h of weight 1, W only makes up for U_T: that is Bayes' rule.

Discretisation. A step is ancestral sampling with the guided denoiser, which is exact for a constant z_0_hat. Of the
weight's integrand, |g|^2 / alpha^2 changes slowly (for N(0, I) latents and h = exp(a.z_0) it is |a|^2), and
beta alpha^2 ds = d(alpha^2), so the integral is taken by the trapezoidal rule in alpha^2,

    log W += (alpha_s^2 - alpha_t^2) (r_t + r_s) / 2,        r = (|G|^2 - sum_i w_i |g_i|^2) / (2 alpha^2).

Where the weights w_i rise on the way (see `lcg.guidance.particles`), each step is made with those at its start and then
W <- W prod_i h_i(z_s)^{w_i(s) - w_i(t)}, which is exact.

Unlike twisted sequential Monte Carlo, which is right for any number of steps and for any classifier, this is right in
the limit of small steps and for exact h_i. In exchange its weights do not fluctuate with the noise of a step.
"""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from lcg.diffusion.process import Denoiser
from lcg.diffusion.samplers.base import Spacing
from lcg.diffusion.schedule import Schedule, expand
from lcg.guidance.particles import Evaluation, ParticleSampler
from lcg.guidance.support import RARE
from lcg.guidance.terms import Classifier, ClassifierTerm, Term, leaf, refuse_negative
from lcg.nets.heads import Outputs


class FeynmanKac(ParticleSampler):
    """Samples p(z_0) prod_i h_i(z_0)^{w_i}, as steps and particles grow. Other arguments: see `ParticleSampler`.

    Args:
        denoiser: the prior's.
        terms: pairs of a term and its weight w_i >= 0. Each must be one event's log-probability, log h_i: give `a & b`
            as two terms if the classifier knows a and b only separately. Terms that share a classifier share its
            evaluation.
        schedule: of the noise.

    Raises:
        ValueError: no terms, a negative weight, a classifier's term with more than one readout or with a weight of its
            own, or any reason of `ParticleSampler`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        terms: Sequence[tuple[Term, float]],
        schedule: Schedule,
        particles: int = 32,
        steps: int = 50,
        t_start: float = 0.995,
        t_end: float = 0.001,
        spacing: Spacing = "uniform",
        resample_below: float = 0.5,
        eta: float = 1.0,
        early: float = 0.75,
        rise: float = 64.0,
        support: float = RARE,
        batch_size: int = 4096,
    ) -> None:
        super().__init__(
            schedule, particles, steps, t_start, t_end, spacing, resample_below, eta, early, rise, support, batch_size
        )
        if not terms:
            raise ValueError("`terms` must hold at least one (term, weight), got none; sample the prior instead")
        self.denoiser, self.weights = denoiser, [weight for _, weight in terms]
        for weight in self.weights:
            refuse_negative(weight, "weight")
        self.terms = [term for term, _ in terms]
        for term in self.terms:
            _check_event(term)

    def _weights(self, t: Tensor) -> Float64[Tensor, " terms"]:
        """The weights w_i at the time t."""
        return self._risen(torch.tensor(self.weights, dtype=torch.float64, device=t.device), t)

    def _evaluate(self, z_t: Tensor, t: Tensor) -> Evaluation:
        with torch.enable_grad():
            z = leaf(z_t)
            log_h = torch.stack([term.log_prob(z, t) for term in _sharing(self.terms)], dim=1)
            g = torch.stack([_gradient(log_h[:, i], z) for i in range(len(self.terms))], dim=1)
        with torch.no_grad():
            eps_hat = self.denoiser(z_t, t).to(z_t.dtype)
        w, flat = self._weights(t[0]), g.flatten(2).double()
        guidance = torch.einsum("k,bkd->bd", w, flat).to(z_t).view_as(z_t)
        eps_hat = eps_hat - expand(self.schedule.sigma(t), z_t) * guidance
        return {"eps_hat": eps_hat, "log_h": log_h.detach().double(), "gram": flat @ flat.mT}

    def _start(self, here: Evaluation, t: Tensor) -> Tensor:
        return here["log_h"] @ self._weights(t)

    def _leave(
        self, here: Evaluation, mean: Tensor, std: Tensor, xi: Tensor, t: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor]:
        return mean + std * xi, self._half_step(t, s) * self._rate(here, self._weights(t), t)

    def _arrive(self, here: Evaluation, t: Tensor, s: Tensor) -> Tensor:
        w, risen = self._weights(t), self._weights(s)
        return self._half_step(t, s) * self._rate(here, w, s) + here["log_h"] @ (risen - w)

    def _rate(self, here: Evaluation, w: Tensor, t: Tensor) -> Tensor:
        """The rate r at weights w, from all products g_i.g_j at the time t."""
        squares = here["gram"].diagonal(dim1=2, dim2=3) @ w
        return 0.5 * (here["gram"] @ w @ w - squares) / self.schedule.alpha(t).square()

    def _half_step(self, t: Tensor, s: Tensor) -> Tensor:
        return 0.5 * (self.schedule.alpha(s).square() - self.schedule.alpha(t).square())

    @property
    def _power(self) -> float:
        return max(1.0, *self.weights)


class _Once:
    """A classifier that remembers its last outputs, for several terms that ask about the same z_t."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.z_t: Tensor | None = None

    def __call__(self, z_t: Tensor, t: Tensor) -> Outputs:
        if self.z_t is not z_t:
            self.z_t, self.outputs = z_t, self.classifier(z_t, t)
        return self.outputs


def _sharing(terms: Sequence[Term]) -> list[Term]:
    """The terms, those of the same classifier with one evaluation for all of them."""
    once: dict[int, _Once] = {}
    shared: list[Term] = []
    for term in terms:
        if isinstance(term, ClassifierTerm):
            classifier = once.setdefault(id(term.classifier), _Once(term.classifier))
            term = copy.copy(term)
            term.classifier = classifier
        shared.append(term)
    return shared


def _check_event(term: Term) -> None:
    if not isinstance(term, ClassifierTerm):
        return
    if len(term.readouts) != 1 or any(isinstance(weight, Tensor) or weight != 1 for _, weight in term.readouts):
        raise ValueError(
            "`terms` must be one event each, got a ClassifierTerm with several readouts or with a weight; "
            "make one term of each readout, with weight 1, and give its weight beside it"
        )


def _gradient(log_h: Tensor, z: Tensor) -> Tensor:
    """grad_z log_h (B, *latent), zero for a constant; keeps the graph for the other terms."""
    if not log_h.requires_grad:
        return torch.zeros_like(z)
    return torch.autograd.grad(log_h.sum(), z, retain_graph=True, materialize_grads=True)[0]
