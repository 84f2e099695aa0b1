"""Plug & Play Generative Networks: gradient ascent on a classifier, held by a denoising autoencoder as its prior.

    d = eps1 (R(h) - h) + eps2 grad log p(y | h) + N(0, eps3^2),      h <- h + lr d / mean|d|

(Nguyen, Clune, Bengio, Dosovitskiy & Yosinski, CVPR 2017, arXiv:1612.00005, equation 11, and its public code, in which
each step is scaled to the same mean absolute change). R reconstructs latents that were noised by N(0, sigma^2 I). The
best one is their posterior mean, and by Tweedie's formula its residue is the prior's score, smoothed by that noise,

    R(h) - h = sigma^2 grad log (p * N(0, sigma^2 I))(h)

(Alain & Bengio 2014, arXiv:1211.4246). A diffusion prior knows R at every sigma: a latent h = z_0 + sigma eps is, times
alpha_t, the noised latent z_t of the time at which sigma_t / alpha_t = sigma, so that

    R(h) = z_0_hat(alpha_t h, t) = h - sigma eps_hat(alpha_t h, t),      alpha_t = 1 / sqrt(1 + sigma^2).

Without the scaling, and with eps1 = eps2 / sigma^2 and eps3 = sqrt(2 eps2 / lr), this is Langevin sampling of p(h | y).
The authors take other numbers on purpose: eps3 is nearly nothing, and the prior counts where the classifier is content.

Departures from the authors' code:

- Their h is a layer of AlexNet, reconstructed through an image, which the classifier sees; ours is the generator's
  latent, classified directly. They clip h to [0, 30], what that layer can be; latents have no such bounds.
- Their eps1, eps2 and eps3 are kept. `lr` is in units of h, theirs 1, and 0.5 from a real image; for standardised
  latents it is 0.02. They name no sigma for their joint model, whose R was trained without noise; ours is 0.2.
- Their gradient of log softmax leaves out the other classes' logits; ours is the whole gradient. With two classes it
  is the same.
- Several attributes are climbed together, the sum of their log-probabilities. The scaling is by row: their batch is 1.
"""

import math
from collections.abc import Sequence
from os import PathLike, fspath
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Self

from lcg.baselines.clean import log_probability, own_noise
from lcg.baselines.contract import (
    Mover,
    Training,
    check_shape,
    literals,
    pretrained,
    strength_per_row,
    when_fitted,
)
from lcg.diffusion import Denoiser, Randomness, Schedule, randn
from lcg.editing.contract import EditRequest, EditResult
from lcg.guidance import Formula
from lcg.guidance.terms import gradient
from lcg.nets.latent_classifier import LatentClassifier


class PPGN(Mover):
    """Edits and generates by gradient ascent with a denoiser for a prior.

    Strength multiplies `lr`.

    Args:
        checkpoint: of the classifier of clean latents, `lcg fit --config configs/baseline/lace.yaml`.
        steps: of the ascent.
        lr: mean absolute change of a latent's numbers at every step; a factor of d when `normalised` is off.
        eps1: weight of the prior, R(h) - h.
        eps2: weight of the classifier.
        eps3: standard deviation of the noise.
        sigma: of the noise that R removes, in standard deviations of the latents.
        normalised: whether d is divided by its mean absolute value, as in the authors' code; off, it is equation 11.
        seed: of the noise of edits; each source has its own.

    Raises:
        ValueError: a number is out of range.
    """

    name = "ppgn"
    strengths: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.15, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0)

    def __init__(
        self,
        checkpoint: str | PathLike[str] = "runs/demo/baselines/lace.ckpt",
        steps: int = 200,
        lr: float = 0.02,
        eps1: float = 1e-5,
        eps2: float = 1.0,
        eps3: float = 1e-17,
        sigma: float = 0.2,
        normalised: bool = True,
        seed: int = 0,
    ) -> None:
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1, got {steps}; the authors take 200")
        for what, value in (("lr", lr), ("sigma", sigma)):
            if not 0 < value < math.inf:
                raise ValueError(f"`{what}` must be positive and finite, got {value}")
        for what, value in (("eps1", eps1), ("eps2", eps2), ("eps3", eps3)):
            if not 0 <= value < math.inf:
                raise ValueError(f"`{what}` must be finite and >= 0, got {value}; 0 leaves its term out")
        self.checkpoint, self.steps, self.lr = fspath(checkpoint), steps, lr
        self.sigma, self.normalised = sigma, normalised
        self.eps1, self.eps2, self.eps3, self.seed = eps1, eps2, eps3, seed
        self._fitted: tuple[LatentClassifier, Denoiser, Schedule] | None = None

    @property
    def fitted(self) -> tuple[LatentClassifier, Denoiser, Schedule]:
        """The classifier that is climbed, the prior's denoiser and its schedule. Raises RuntimeError before `fit`."""
        return when_fitted(self._fitted, self)

    def fit(self, training: Training) -> Self:
        """Reads the classifier, and takes the prior's denoiser. See `Baseline`."""
        classifier = pretrained(self.checkpoint, "latent_classifier", training)
        self._fitted = classifier, training.denoiser, training.schedule
        return self

    def edit(self, z_0: Float[Tensor, "batch *latent"], request: EditRequest) -> EditResult:
        """See `Mover`; every source has noise of its own."""
        return EditResult(self.move(z_0, request.edits, request.strength, own_noise(z_0, self.seed)), request)

    def move(
        self,
        z_0: Float[Tensor, "batch *latent"],
        formulas: Sequence[Formula],
        strength: float | Tensor | None = None,
        randomness: Randomness = None,
    ) -> Float[Tensor, "batch *latent"]:
        """Where the ascent ends; see `Mover`.

        Weights multiply log-probabilities, a strength `lr`. Raises ValueError also for literals that contradict each
        other.
        """
        classifier, denoiser, schedule = self.fitted
        check_shape(z_0, classifier.latent_shape)
        wanted = literals(formulas, classifier.schema, self.name)
        log_p = log_probability(classifier.restricted(literal.atom.name for literal in wanted), wanted)
        lr = self.lr * strength_per_row(strength, z_0)
        h = z_0
        for _ in range(self.steps):
            prior = reconstruct(denoiser, schedule, h, self.sigma) - h
            d = self.eps1 * prior + self.eps2 * gradient(log_p, h)
            if self.eps3 > 0:
                d = d + self.eps3 * randn(h.shape, randomness, dtype=h.dtype, device=h.device)
            h = h + lr * (d / _mean_absolute(d) if self.normalised else d)
        return h


@torch.no_grad()
def reconstruct(
    denoiser: Denoiser, schedule: Schedule, h: Float[Tensor, "batch *latent"], sigma: float
) -> Float[Tensor, "batch *latent"]:
    """R(h), what a denoising autoencoder makes of latents with noise of standard deviation sigma.

    Args:
        denoiser: the prior's.
        schedule: of its noise.
        h: (B, *latent) standardised latents, clean or noised.
        sigma: > 0, in standard deviations of the latents.

    Returns:
        E[z_0 | z_0 + sigma eps = h], (B, *latent).
    """
    t = schedule.time(torch.full((len(h),), -math.log(sigma), dtype=torch.float64, device=h.device))
    return h - sigma * denoiser(h / math.sqrt(1 + sigma**2), t.to(h.dtype)).to(h.dtype)


def _mean_absolute(d: Tensor) -> Tensor:
    """The mean absolute value of every row, shaped (B, 1, ...); where nothing moves, not 0."""
    mean = d.abs().flatten(1).mean(dim=1).clamp_min(torch.finfo(d.dtype).tiny)
    return mean.reshape(-1, *(1,) * (d.ndim - 1))
