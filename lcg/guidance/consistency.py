"""Guidance of a consistency function, which is again one: for the sampler `Consistency`, not for solvers.

A consistency function f (`lcg.diffusion.samplers.consistency`) returns a sample and not a mean. Guidance by
G = grad log p(y | z_t, t) enters before it, not after it:

    z_0_hat = f(z_t + w ((1 - alpha_t) / alpha_t) G, t).

For N(0, I) latents f is the identity, and z_0 ~ N(a, I) is the conditional given log p(y | z_0) = a.z_0. Then G =
alpha_t a, the conditional's own flow is z_t + (1 - alpha_t) a, and w = 1 is exact in one evaluation. The shift
(sigma_t^2 / alpha_t) G of the posterior mean, as `GuidedDenoiser` has it, is 1 + alpha_t times that. It is also added
to a sample, not a mean, and leaves the latents' support where f would have led back to it.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.process import Denoiser, coefficients, prepare
from lcg.diffusion.schedule import Schedule, expand
from lcg.guidance.guided import Instant
from lcg.guidance.terms import Term, gradient, refuse_negative


class GuidedConsistency:
    """A consistency function that is led to what a term climbs, again as a `Denoiser`.

    The way to the shifted latent is made in several moves, each along the score where it begins: a classifier's fades
    once it is satisfied, and one long move goes beyond. Moves ask the classifier, not the consistency function.

    Args:
        denoiser: the consistency function, as eps_hat.
        term: what to climb.
        schedule: of the noise.
        weight: w >= 0 of the term, or a function of t (B,) that gives it, a number or (B,). Where it is 0 for all rows
            the term is not asked.
        moves: number of moves.

    Raises:
        ValueError: weight < 0 or moves < 1; while sampling, a score that is not finite.
        RuntimeError: called under torch.inference_mode, where no gradient can be taken.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        term: Term,
        schedule: Schedule,
        weight: float | Callable[[Tensor], float | Tensor] = 1.0,
        moves: int = 2,
    ) -> None:
        if not callable(weight):
            refuse_negative(weight, "weight")
        if moves < 1:
            raise ValueError(f"`moves` must be at least 1, got {moves}; 2 is usual, weight=0 is no guidance")
        self.denoiser, self.term, self.schedule, self.weight, self.moves = denoiser, term, schedule, weight, moves
        self._looks = True

    def __call__(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch *latent"]:
        """The eps_hat (B, *latent) that belongs to the guided z_0_hat."""
        return self._eps_hat(self._at(z_t, t), z_t)

    def prepare(self, times: Float[Tensor, " steps"]) -> list[Callable[[Tensor], Tensor]]:
        """The guided eps_hat of z_t at each of these times, as functions of z_t: the same up to rounding, and fast."""
        exact = times.double()
        alpha, sigma = self.schedule.alpha(exact).tolist(), self.schedule.sigma(exact).tolist()
        ready = zip(times, prepare(self.denoiser, times), self.term.prepare(times), alpha, sigma, strict=True)
        return [partial(self._eps_hat, Instant(t, f, [term], {}, *level)) for t, f, term, *level in ready]

    def patient(self) -> "GuidedConsistency":
        """This function without the look at every score, for which a GPU's host has to wait; NaN tells of it later."""
        other = copy.copy(self)
        other._looks = False
        return other

    def shifted(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch *latent"]:
        """Where the consistency function is asked instead of at z_t (B, *latent)."""
        return self._shifted(self._at(z_t, t), z_t)

    def _at(self, z_t: Tensor, t: Tensor) -> Instant:
        level = coefficients(self.schedule, t, z_t)
        return Instant(t, lambda z: self.denoiser(z, t), [self.term.at(t)], {}, *level)

    # --- at one instant ---

    def _eps_hat(self, at: Instant, z_t: Tensor) -> Tensor:
        """(z_t - alpha_t z_0_hat) / sigma_t with z_0_hat = (z - sigma_t eps_hat) / alpha_t of the shifted latent z."""
        z = self._shifted(at, z_t)
        return at.denoise(z).to(z_t.dtype) - (z - z_t) / at.sigma

    def _shifted(self, at: Instant, z_t: Tensor) -> Tensor:
        weight = self._weight(at, z_t)
        if not isinstance(weight, Tensor) and weight == 0:
            return z_t
        scale = (1 - at.alpha) / at.alpha / self.moves * (expand(weight, z_t) if isinstance(weight, Tensor) else weight)
        z = z_t
        for _ in range(self.moves):
            z = z + scale * self._score(at, z)
        return z

    def _weight(self, at: Instant, z_t: Tensor) -> float | Tensor:
        if not callable(self.weight):
            return self.weight
        rows = len(z_t)
        if rows not in at.weights:
            weight = self.weight(at.t.expand(rows))
            refuse_negative(weight, "weight")
            at.weights[rows] = weight if bool(torch.as_tensor(weight).any()) else 0.0
        return at.weights[rows]

    def _score(self, at: Instant, z: Tensor) -> Tensor:
        (term,) = at.climbed
        score = gradient(term.log_prob, z) if term.score is None else term.score(z)
        if not self._looks:
            return score + 0 * score  # infinity, which clipping would hide, becomes NaN, which stays
        if not torch.isfinite(score).all():
            t = at.t.expand(len(z))
            self.term.log_prob(z, t)  # may know better what is wrong
            row = int(torch.nonzero(~torch.isfinite(score.flatten(1)).all(1))[0])
            raise ValueError(
                f"the score of the term must be finite, got {score.flatten(1)[row].sum().item()} in row {row} at "
                f"t = {float(t[row]):.4g}; check the term at this latent, and that the networks' weights are finite"
            )
        return score
