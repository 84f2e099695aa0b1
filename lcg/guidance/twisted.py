"""Twisted sequential Monte Carlo: guided particles, weighted by what guidance got wrong.

The prior's reverse chain p(z_s | z_t) = N(mu(z_t), std^2 I), ancestral sampling, is twisted by H_t(z_t), an estimate of
how well z_t will do in the end (Wu et al. 2023, arXiv:2306.17775). Particles move by the guided chain and are weighted,

    q(z_s | z_t) = N(mu(z_t) + std^2 G(z_t), std^2 I),        G = grad log H_t,
    W <- W * p(z_s | z_t) H_s(z_s) / (q(z_s | z_t) H_t(z_t)),        W = H_T(z_T) at the start,

so that everything but the last H cancels from the product of the weights: the target is the chain's own p_theta(z_0)
times H_0(z_0), however wrong H_t is before, for any number of steps. H_t is the product of the terms' probabilities to
their weights, which rise on the way (see `lcg.guidance.particles`); their gradient is G, and one evaluation of the
classifier gives both. The better H_t predicts the end, the more even the particles' weights.

The proposal is moved by std^2 G, the variance being that of the prior's step, as in Wu et al. The guided denoiser moves
by alpha_s sigma_t^2 / (alpha_t sigma_s^2) times that, which is far from 1 in the last steps: with two attributes on a
line the normaliser then varies four times as much.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lcg.diffusion.process import Denoiser
from lcg.diffusion.samplers.base import Spacing
from lcg.diffusion.schedule import Schedule
from lcg.guidance.guided import GuidedDenoiser
from lcg.guidance.particles import Evaluation, ParticleSampler
from lcg.guidance.support import RARE
from lcg.guidance.terms import PriorTerm, Term, refuse_negative


class TwistedSMC(ParticleSampler):
    """Samples p_theta(z_0) H(z_0), H = exp(weight * sum of the terms' log-probabilities), exactly as particles grow.

    p_theta is what the chain of `steps` steps makes of the denoiser, and H the terms at t_end. Other arguments: see
    `ParticleSampler`.

    Args:
        denoiser: the prior's; condition it on the source of an edit beforehand, by a `GuidedDenoiser` of that term.
        terms: what should hold; their log-probabilities add up, as for `GuidedDenoiser`.
        schedule: of the noise.
        weight: w >= 0 on the log-probabilities.
        max_step: trust region of the proposals, as for `GuidedDenoiser`; the target stays as it is.

    Raises:
        ValueError: weight < 0, max_step <= 0, a `PriorTerm`, or any reason of `ParticleSampler`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        terms: Sequence[Term],
        schedule: Schedule,
        particles: int = 32,
        steps: int = 50,
        weight: float = 1.0,
        t_start: float = 0.995,
        t_end: float = 0.001,
        spacing: Spacing = "uniform",
        resample_below: float = 0.5,
        eta: float = 1.0,
        max_step: float | None = None,
        early: float = 0.75,
        rise: float = 64.0,
        support: float = RARE,
        batch_size: int = 4096,
    ) -> None:
        super().__init__(
            schedule, particles, steps, t_start, t_end, spacing, resample_below, eta, early, rise, support, batch_size
        )
        if any(isinstance(term, PriorTerm) for term in terms):
            raise ValueError(
                "`terms` must have log-probabilities to weigh by, got a PriorTerm; "
                "give GuidedDenoiser(denoiser, [term], schedule) as `denoiser` instead"
            )
        refuse_negative(weight, "weight")
        self.guided = GuidedDenoiser(denoiser, terms, schedule, self._weight if weight > 0 else 0.0, max_step)
        self.weight = weight

    def _weight(self, t: Tensor) -> Tensor:
        return self._risen(torch.tensor(self.weight, dtype=torch.float64, device=t.device), t)

    def _evaluate(self, z_t: Tensor, t: Tensor) -> Evaluation:
        eps_hat, guidance, log_h = self.guided.twist(z_t, t)
        return {"eps_hat": eps_hat, "guidance": guidance, "log_h": log_h.double()}

    def _start(self, here: Evaluation, t: Tensor) -> Tensor:
        return here["log_h"]

    def _leave(
        self, here: Evaluation, mean: Tensor, std: Tensor, xi: Tensor, t: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor]:
        shift = std * here["guidance"]  # in units of std, so that log p - log q = (|xi|^2 - |shift + xi|^2) / 2
        z_s = mean + std * (shift + xi)
        return z_s, -(shift * (xi + 0.5 * shift)).double().flatten(2).sum(2) - here["log_h"]

    def _arrive(self, here: Evaluation, t: Tensor, s: Tensor) -> Tensor:
        return here["log_h"]

    @property
    def _power(self) -> float:
        return max(1.0, self.weight)
