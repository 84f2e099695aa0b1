"""Correctors: Markov chains at one noise level, which draw samples back to the density that their score belongs to.

The sum of the prior's score and weighted classifiers' scores is that of pi_t ~ q_t(z_t) prod_i h_i(z_t)^{w_i}, but no
diffusion carries one of these densities into the next unless a single exact h has weight 1: dependent attributes, or
weights, leave a bias. Langevin steps at a fixed t do not depend on how z_t came about, and converge to pi_t itself,

    z' = z + h s(z) + sqrt(2 h) xi,        s = grad log pi_t = -eps_hat / sigma_t,        h = step_size * sigma_t^2,

and after a slow enough descent the samples are those of pi_0 ~ p(z_0) prod_i h_i(z_0)^{w_i}, which was asked for
(predictor and corrector: Song et al. 2021, arXiv:2011.13456, section 4.2; for compositions: Du et al. 2023,
arXiv:2302.11552). With a joint h of weight 1 every pi_t is the noised conditional. With a product of separate h_i the
densities at t > 0 are others, and only the last one is what was meant.

Langevin's own error is of order h: where z_t is all noise, its variance comes out as sigma_t^2 / (1 - step_size / 2).
MALA (Roberts & Tweedie 1996) removes it where the density is known, accepting z' with probability

    min(1, pi_t(z') q(z | z') / (pi_t(z) q(z' | z))),        q(z' | z) = N(z'; z + h s(z), 2 h I),

each sample for itself. The code published with Du et al. has 2 h^2 for the 4 h in the exponent of q, and takes one
decision for the whole batch: such a chain does not leave pi_t invariant. This one does, at any step size.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.noise import Randomness, randn
from lcg.diffusion.process import Denoiser, score_from_eps
from lcg.diffusion.schedule import Schedule, expand

LogDensity = Callable[[Tensor, Tensor], Tensor]
"""log_density(z_t, t) -> log pi_t (B,), up to a constant that may depend on t."""

BEST_ACCEPTANCE = 0.574
"""Of MALA in many dimensions (Roberts & Rosenthal 1998)."""


@dataclass(frozen=True)
class Correction:
    """What a corrector returns.

    Attributes:
        z_t: the corrected latents (B, *latent).
        acceptance: mean probability with which each row's steps were accepted (B,), in [0, 1]; 1 where nothing is ever
            rejected.
    """

    z_t: Float[Tensor, "batch *latent"]
    acceptance: Float[Tensor, " batch"]


class Corrector(ABC):
    """A Markov chain at one noise level.

    Args:
        steps: of the chain, at each noise level.
        step_size: h in units of sigma_t^2, > 0. The signal-to-noise rule of Song et al. 2021 (appendix G), h = 2 r^2
            |xi|^2 / |s|^2 with norms averaged over the batch, is step_size = 2 r^2, with sqrt(d) and sqrt(d) / sigma_t
            for the norms so that rows do not depend on one another.

    Raises:
        ValueError: steps < 1, or step_size <= 0.
    """

    def __init__(self, steps: int = 1, step_size: float = 0.1) -> None:
        if steps < 1:
            raise ValueError(f"`steps` of a corrector must be at least 1, got {steps}; leave the corrector out")
        if not 0 < step_size < math.inf:
            raise ValueError(
                f"`step_size` must be positive and finite, got {step_size}; it is relative to sigma_t^2, 0.1 is usual"
            )
        self.steps, self.step_size = steps, step_size

    @abstractmethod
    def correct(
        self,
        schedule: Schedule,
        denoiser: Denoiser,
        z_t: Float[Tensor, "batch *latent"],
        t: Float[Tensor, " batch"],
        generator: Randomness = None,
        scale: Float[Tensor, " batch"] | float = 1.0,
    ) -> Correction:
        """Runs the chain.

        Args:
            schedule: of the noise.
            denoiser: plain or guided; its score is the drift.
            z_t: where each row starts (B, *latent).
            t: the noise levels (B,), > 0.
            generator: randomness: none, one, or one per row.
            scale: factors of the step size, one or one per row (B,).

        Raises:
            ValueError: the number of generators is not the number of rows.
        """

    def rescale(self, scale: Float[Tensor, " batch"], acceptance: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The scale for the next noise level, given that of this one and its acceptance; the same by default."""
        return scale

    def _step(self, schedule: Schedule, z_t: Tensor, t: Tensor, scale: Tensor | float) -> Tensor:
        """The step h, shaped (B, 1, ...)."""
        h = self.step_size * schedule.sigma(t).square() * scale
        return expand(h, z_t)


class Langevin(Corrector):
    """The unadjusted Langevin algorithm: needs the score only, leaves an error of order h.

    Each step is one evaluation of the denoiser.

    Args:
        steps: of the chain, at each noise level.
        step_size: h in units of sigma_t^2, below 2; see `Corrector`.

    Raises:
        ValueError: step_size >= 2, where the chain diverges, or any reason of `Corrector`.
    """

    def __init__(self, steps: int = 1, step_size: float = 0.1) -> None:
        super().__init__(steps, step_size)
        if step_size >= 2:
            raise ValueError(
                f"`step_size` of Langevin steps must be below 2, got {step_size}: they diverge; 0.1 is usual"
            )

    def correct(
        self,
        schedule: Schedule,
        denoiser: Denoiser,
        z_t: Float[Tensor, "batch *latent"],
        t: Float[Tensor, " batch"],
        generator: Randomness = None,
        scale: Float[Tensor, " batch"] | float = 1.0,
    ) -> Correction:
        h = self._step(schedule, z_t, t, scale)
        for _ in range(self.steps):
            score = score_from_eps(schedule, z_t, t, denoiser(z_t, t).to(z_t.dtype))
            z_t = z_t + h * score + (2 * h).sqrt() * randn(z_t.shape, generator, dtype=z_t.dtype, device=z_t.device)
        return Correction(z_t, torch.ones_like(t))


class MALA(Corrector):
    """The Metropolis-adjusted Langevin algorithm: leaves a known density exactly invariant, at any step size.

    Each level takes steps + 1 evaluations of the density, and as many of `score`; the denoiser is not asked.

    Args:
        log_density: log pi_t(z_t) (B,), such as `MixtureDenoiser.log_prob` plus weighted log-probabilities of terms.
        score: the drift of the proposals, score(z_t, t) -> (B, *latent), usually grad log pi_t; any other is valid too
            and costs acceptance. None differentiates log_density.
        steps: of the chain, at each noise level.
        step_size: h in units of sigma_t^2.
        target_acceptance: in (0, 1): the step sizes of one noise level are fitted to the acceptance at the earlier
            ones, each row's to its own; `BEST_ACCEPTANCE` is a good value. Within a level they are fixed, or the chain
            would not leave pi_t invariant. None, the default, keeps step_size.

    Raises:
        ValueError: target_acceptance is outside (0, 1), or any reason of `Corrector`.
        RuntimeError: log_density must be differentiated, but has no gradient or is called in torch.inference_mode.
    """

    def __init__(
        self,
        log_density: LogDensity,
        score: Callable[[Tensor, Tensor], Tensor] | None = None,
        steps: int = 1,
        step_size: float = 0.5,
        target_acceptance: float | None = None,
    ) -> None:
        super().__init__(steps, step_size)
        if target_acceptance is not None and not 0 < target_acceptance < 1:
            raise ValueError(
                f"`target_acceptance` must be in (0, 1), got {target_acceptance}; {BEST_ACCEPTANCE} is a good value"
            )
        self.log_density, self.score, self.target_acceptance = log_density, score, target_acceptance

    def correct(
        self,
        schedule: Schedule,
        denoiser: Denoiser,
        z_t: Float[Tensor, "batch *latent"],
        t: Float[Tensor, " batch"],
        generator: Randomness = None,
        scale: Float[Tensor, " batch"] | float = 1.0,
    ) -> Correction:
        h = self._step(schedule, z_t, t, scale)
        log_p, score = self._evaluate(z_t, t)
        acceptance = torch.zeros_like(t)
        for _ in range(self.steps):
            xi = randn(z_t.shape, generator, dtype=z_t.dtype, device=z_t.device)
            proposal = z_t + h * score + (2 * h).sqrt() * xi
            new_log_p, new_score = self._evaluate(proposal, t)
            # log q(z' | z) = -|xi|^2 / 2 and log q(z | z') = -|z - z' - h s(z')|^2 / 4h, up to the same constant
            back = (z_t - proposal - h * new_score) / (2 * h).sqrt()
            log_ratio = new_log_p - log_p + 0.5 * (xi.square() - back.square()).flatten(1).sum(1)
            uniform = randn((len(z_t), 1), generator, dtype=z_t.dtype, device=z_t.device)[:, 0]
            accepted = torch.special.log_ndtr(uniform) < log_ratio  # log U, as Phi(N(0, 1)) is uniform; false for NaN
            rows = accepted.reshape(-1, *(1,) * (z_t.ndim - 1))
            z_t, score = torch.where(rows, proposal, z_t), torch.where(rows, new_score, score)
            log_p = torch.where(accepted, new_log_p, log_p)
            acceptance = acceptance + log_ratio.nan_to_num(nan=-math.inf).clamp(max=0).exp() / self.steps
        return Correction(z_t, acceptance)

    def rescale(self, scale: Float[Tensor, " batch"], acceptance: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        if self.target_acceptance is None:
            return scale
        return scale * torch.exp(acceptance - self.target_acceptance)

    def _evaluate(self, z_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density (B,) and the drift (B, *latent)."""
        if self.score is not None:
            return self.log_density(z_t, t), self.score(z_t, t)
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "`log_density` must be differentiated, which torch.inference_mode() forbids; "
                "give its `score`, or use torch.no_grad() instead"
            )
        with torch.enable_grad():
            z = z_t.detach().requires_grad_()
            log_p = self.log_density(z, t)
            if not log_p.requires_grad:
                raise RuntimeError("`log_density` has no gradient; give its `score`, or do not detach it")
            (score,) = torch.autograd.grad(log_p.sum(), z)
        return log_p.detach(), score
