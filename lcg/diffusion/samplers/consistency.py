"""Sampling with a consistency function, in one evaluation or a few, guided or not.

The probability-flow ODE carries z_t to a clean latent; a consistency function f(z_t, t) knows which in one evaluation
(Song et al. 2023, arXiv:2303.01469, section 3). It has the signature of the posterior mean, so that

    eps_hat = (z_t - alpha_t f(z_t, t)) / sigma_t

makes it a `Denoiser`, though not one for solvers: they would take its answer for a mean. One evaluation samples. More
of them put noise back and remove it again, which washes out the errors of a learnt f (their algorithm 1).

Guidance by G = grad log p(y | z_t, t) enters before f, not after it:

    z_0_hat = f(z_t + w ((1 - alpha_t) / alpha_t) G, t).

For N(0, I) latents f is the identity, and z_0 ~ N(a, I) is the conditional given log p(y | z_0) = a.z_0. Then G =
alpha_t a, the conditional's own flow is z_t + (1 - alpha_t) a, and w = 1 is exact in one evaluation. The shift
(sigma_t^2 / alpha_t) G of the posterior mean, as `GuidedDenoiser` has it, is 1 + alpha_t times that. It is also added
to a sample, not a mean, and leaves the latents' support where f would have led back to it.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.noise import Randomness, randn
from lcg.diffusion.process import Denoiser, coefficients, eps_from_z0, z0_from_eps
from lcg.diffusion.samplers.base import Progress, Sampler, Spacing, time_grid
from lcg.diffusion.samplers.path import Path
from lcg.diffusion.schedule import Schedule, expand

STRIDE = 0.2
"""From one evaluation to the next, unless told otherwise. The second is made where attributes are being decided."""


class Consistency(Sampler):
    """Multistep consistency sampling: predict the clean latent, noise it to the next time, predict again.

    Args:
        schedule: the schedule the consistency function was trained with.
        steps: its evaluations, 1 or more.
        t_start: where sampling from noise begins, in (t_end, 1).
        t_end: where evaluation steps + 1 would be made; no time is asked that is this low. None for `STRIDE` a step,
            which suits 1 to 4 evaluations.
        spacing: of the times in between; see `time_grid`.
        clip: bound of every coordinate of z_0_hat, in standard deviations of the data; None for none.

    Raises:
        ValueError: steps < 1, times out of range, unknown spacing, or clip <= 0.
    """

    def __init__(
        self,
        schedule: Schedule,
        steps: int = 4,
        t_start: float = 0.99,
        t_end: float | None = None,
        spacing: Spacing = "uniform",
        clip: float | None = None,
    ) -> None:
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1, got {steps}; 4 is usual")
        lowest = max(t_start - STRIDE * steps, STRIDE / 2) if t_end is None else t_end
        super().__init__(schedule, max(steps, 2), t_start, lowest, spacing, clip)
        self.steps = steps  # one is enough here, unlike for solvers

    def times(self, t_start: float | None = None) -> Float[Tensor, " steps"]:
        """The times at which the function is asked, decreasing; t_start overrides the sampler's own."""
        t_start = self.t_start if t_start is None else t_start
        return time_grid(self.schedule, self.steps, t_start, self.t_end, self.spacing)[:-1]

    @property
    def draws(self) -> int:
        return self.steps - 1

    def solve(
        self, path: Path, z: Float[Tensor, "batch *latent"], generator: Randomness, progress: Progress | None
    ) -> Float[Tensor, "batch *latent"]:
        z_0_hat = z
        for i in path:
            if i > 0:
                noise = randn(z.shape, generator, dtype=z.dtype, device=z.device)
                z = torch.add(path.alpha[i] * z_0_hat, noise, alpha=path.sigma[i])
            z_0_hat, _ = path.predict(z, i)
            if progress is not None:
                progress(i + 1, len(path))
        return z_0_hat


class GuidedConsistency:
    """A consistency function that is led to what a score climbs, again as a `Denoiser`.

    The way to the shifted latent is made in several moves, each along the score where it begins: a classifier's fades
    once it is satisfied, and one long move goes beyond. Moves ask the classifier, not the consistency function.

    Args:
        denoiser: the consistency function, as eps_hat.
        score: grad log p(y | z_t, t) (B, *latent) of z_t (B, *latent) and t (B,), such as `ClassifierTerm.score`.
        schedule: of the noise.
        weight: w >= 0 of the score, or a function of t (B,) that gives it (B,); 0 is no guidance.
        moves: number of moves.

    Raises:
        ValueError: weight < 0 or moves < 1.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        score: Callable[[Tensor, Tensor], Tensor],
        schedule: Schedule,
        weight: float | Callable[[Tensor], Tensor] = 1.0,
        moves: int = 2,
    ) -> None:
        if not callable(weight) and not weight >= 0:
            raise ValueError(f"`weight` must be >= 0, got {weight}; to avoid something, negate it in the formula")
        if moves < 1:
            raise ValueError(f"`moves` must be at least 1, got {moves}; 2 is usual, weight=0 is no guidance")
        self.denoiser, self.score, self.schedule, self.weight, self.moves = denoiser, score, schedule, weight, moves

    def __call__(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch *latent"]:
        """The eps_hat (B, *latent) that belongs to the guided z_0_hat."""
        z = self.shifted(z_t, t)
        z_0_hat = z0_from_eps(self.schedule, z, t, self.denoiser(z, t).to(z.dtype))
        return eps_from_z0(self.schedule, z_t, t, z_0_hat)

    def shifted(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch *latent"]:
        """Where the consistency function is asked instead of at z_t (B, *latent)."""
        weight = self.weight(t) if callable(self.weight) else self.weight
        if not isinstance(weight, Tensor) and weight == 0:
            return z_t
        alpha, _ = coefficients(self.schedule, t, z_t)
        scale = (1 - alpha) / alpha / self.moves * (expand(weight, z_t) if isinstance(weight, Tensor) else weight)
        for _ in range(self.moves):
            z_t = z_t + scale * self.score(z_t, t)
        return z_t
