"""Sampling with a consistency function, in one evaluation or a few.

The probability-flow ODE carries z_t to a clean latent; a consistency function f(z_t, t) knows which in one evaluation
(Song et al. 2023, arXiv:2303.01469, section 3). It has the signature of the posterior mean, so that

    eps_hat = (z_t - alpha_t f(z_t, t)) / sigma_t

makes it a `Denoiser`, though not one for solvers: they would take its answer for a mean. One evaluation samples. More
of them put noise back and remove it again, which washes out the errors of a learnt f (their algorithm 1).
Guided ones are `lcg.guidance.GuidedConsistency`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.noise import Randomness, randn
from lcg.diffusion.samplers.base import Progress, Sampler, Spacing, time_grid
from lcg.diffusion.samplers.path import Path
from lcg.diffusion.schedule import Schedule

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
