"""Energy guidance: Langevin dynamics on a latent whose prior is taken to be N(0, I).

    E(z) = weight * BCE(z) + |z|^2 / 2,        z <- z - (h / 2) grad E(z) + sqrt(h) xi,        xi ~ N(0, I)

(Wu & De la Torre 2022, "Unifying Diffusion Models' Latent Space", arXiv:2210.05559, on plug-and-play guidance of any
generator, and its public code). BCE = -log P(literals | z), so that exp(-E) is the posterior N(0, I) P(y | z)^weight.
With h = step_size the chain's error is of order h: where E is quadratic with precision l along an axis, the mean is
exact, and the variance 1 / (l (1 - h l / 4)) instead of 1 / l. Of all states that a chain visits the one with the
smallest BCE is returned, as in the authors' code: what comes out is not a sample of the posterior but a good state near
one.

Departures from the authors' code:

- They see the classifier's loss through the generator, on images; here a classifier of latents gives it directly.
- They sample from noise only. An edit starts at the source's latent instead; the target does not know the source, so
  that a chain forgets it, as exp(-h k / 2) after k steps where nothing but the prior acts. Strength is how long the
  chain runs, in units of `steps`: that is all that keeps the source.
- Standardised latents of an encoder are not N(0, I), though they have its means and variances; the latents of the
  generators that they use are. What the prior of lcg has learnt is not used.
- The last state counts among the visited ones; theirs is never looked at. They add 1e-8 to probabilities before the
  logarithm, which makes gradients vanish far from the target; here it is logsigmoid.
"""

import math
from collections.abc import Sequence
from os import PathLike
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.baselines.clean import FollowsClassifier, LogProbability, log_probability, own_noise
from lcg.baselines.contract import Mover, check_shape, literals, strength_per_row
from lcg.diffusion import Randomness, randn
from lcg.editing.contract import EditRequest, EditResult
from lcg.guidance import Formula
from lcg.guidance.terms import value_and_gradient


class EnergyGuidance(FollowsClassifier, Mover):
    """Edits and generates by Langevin dynamics on E = weight * BCE + |z|^2 / 2.

    Strength multiplies `steps`.

    Args:
        checkpoint: of the classifier of clean latents, `lcg fit --config configs/baseline/lace.yaml`.
        weight: of the classifier's loss, >= 0.
        step_size: h, of Langevin's steps; below 4, where the chain diverges even without a classifier.
        steps: of the chain.
        best: whether the visited state with the smallest loss is returned, as by the authors, or the last.
        seed: of the noise of edits; each source has its own.

    Raises:
        ValueError: a number is out of range.
    """

    name = "energy"
    strengths: ClassVar[tuple[float, ...]] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

    def __init__(
        self,
        checkpoint: str | PathLike[str] = "runs/demo/baselines/lace.ckpt",
        weight: float = 5.0,
        step_size: float = 0.05,
        steps: int = 200,
        best: bool = True,
        seed: int = 0,
    ) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"`weight` must be finite and >= 0, got {weight}; the authors take 5")
        if not 0 < step_size < 4:
            raise ValueError(f"`step_size` must be in (0, 4), got {step_size}; the authors take 0.05")
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1, got {steps}; the authors take 200")
        super().__init__(checkpoint)
        self.weight, self.step_size, self.steps = weight, step_size, steps
        self.best, self.seed = best, seed

    def edit(self, z_0: Float[Tensor, "batch *latent"], request: EditRequest) -> EditResult:
        """See `Mover`; every source has noise of its own."""
        return EditResult(self.move(z_0, request.edits, request.strength, own_noise(z_0, self.seed)), request)

    def generate(
        self,
        formula: Formula,
        z_0: Float[Tensor, "batch *latent"],
        randomness: Randomness = None,
        strength: float | Tensor = 1.0,
    ) -> Float[Tensor, "batch *latent"]:
        """Samples from N(0, I): of `z_0` only the number counts. See `Baseline`; raises as `move`."""
        start = randn(z_0.shape, randomness, dtype=z_0.dtype, device=z_0.device)
        return self.move(start, [formula], strength, randomness)

    def move(
        self,
        z_0: Float[Tensor, "batch *latent"],
        formulas: Sequence[Formula],
        strength: float | Tensor | None = None,
        randomness: Randomness = None,
    ) -> Float[Tensor, "batch *latent"]:
        """Where the chains end, or the best that they visit; see `Mover`.

        Weights multiply log-probabilities, a strength the number of steps, which is rounded. Raises ValueError also for
        literals that contradict each other.
        """
        check_shape(z_0, self.classifier.latent_shape)
        wanted = literals(formulas, self.classifier.schema, self.name)
        log_p = log_probability(self.classifier.restricted(literal.atom.name for literal in wanted), wanted)
        steps = (self.steps * strength_per_row(strength, z_0)).round()
        return self.langevin(log_p, z_0, steps, randomness)

    def langevin(
        self,
        log_p: LogProbability,
        z: Float[Tensor, "batch *latent"],
        steps: Float[Tensor, "batch *ones"],
        randomness: Randomness = None,
    ) -> Float[Tensor, "batch *latent"]:
        """The chains of E = -weight log_p + |z|^2 / 2.

        Args:
            log_p: gives (B,), differentiable.
            z: (B, *latent) where they begin.
            steps: of each chain, shaped (B, 1, ...).
            randomness: as in `move`.

        Returns:
            (B, *latent), the visited states with the largest log_p, or the last ones.
        """
        best, most, h = z.clone(), torch.full((len(z),), -torch.inf, dtype=z.dtype, device=z.device), self.step_size
        z = z.clone()
        for k in range(int(steps.max()) + 1 if len(z) else 0):
            rows = (k <= steps.flatten()).nonzero()[:, 0]  # what has ended is not evaluated any more
            here = z[rows]
            value, gradient = value_and_gradient(log_p, here)
            better = value > most[rows]
            best[rows[better]], most[rows[better]] = here[better], value[better].to(most)
            xi = _noise(z, rows, randomness)
            moved = here - h / 2 * (here - self.weight * gradient) + math.sqrt(h) * xi
            z[rows] = torch.where(k < steps[rows], moved, here)
        return best if self.best else z


def _noise(z: Tensor, rows: Tensor, randomness: Randomness) -> Tensor:
    """For some rows of z; a row's own generator is left alone where it is not among them."""
    if isinstance(randomness, Sequence):
        chosen = [randomness[row] for row in rows.tolist()]
        return randn((len(rows), *z.shape[1:]), chosen, dtype=z.dtype, device=z.device)
    return randn(z.shape, randomness, dtype=z.dtype, device=z.device)[rows]
