"""What every sampler shares: a grid of times, the prediction at each of them, and the loop's good manners.

A sampler carries z from t_start to t_end, asking the denoiser `steps` times, and returns z_0_hat of the last
evaluation, which is made at t_end. Whether the denoiser is guided it never knows.

Which times suit: see `Spacing`. Wide intervals in lambda_t at little noise are harmless, since z_0_hat hardly moves
there; the grid "uniform" has them at both ends. "log_snr" and "karras" have none, and need fewer evaluations for the
same accuracy when the ends are drawn in. "asinh" is even in lambda_t where signal and noise are alike, |lambda_t| < 1,
and its steps grow like |lambda_t| from there on. That is where guidance makes z_0_hat turn, the sooner the stronger it
is, so that it suits any weight, and strong guidance best of all (`UniPC` gives figures).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lcg.diffusion.noise import Randomness
from lcg.diffusion.process import Denoiser
from lcg.diffusion.samplers.path import Path
from lcg.diffusion.schedule import Schedule

Progress = Callable[[int, int], object]
"""Called as progress(step, steps) after each evaluation of the denoiser and what follows it, step = 1, ..., steps."""

Spacing = Literal["uniform", "log_snr", "quadratic", "karras", "asinh"]
"""Even in t, in lambda_t, in sqrt(t), in (sigma_t / alpha_t)^(1/7), or in asinh(lambda_t)."""

RHO = 7.0
"""The exponent of the spacing "karras", as in Karras et al. 2022, table 1."""


def time_grid(
    schedule: Schedule, steps: int, t_start: float = 0.995, t_end: float = 0.001, spacing: Spacing = "uniform"
) -> Float64[Tensor, " nodes"]:
    """A grid of steps + 1 decreasing times, from t_start to t_end inclusive.

    The spacing "karras" is even in r^(1/rho), with r = sigma_t / alpha_t = exp(-lambda_t) the noise in units of the
    signal and rho = 7 (Karras et al. 2022, arXiv:2206.00364, equation 5); rho -> infinity is "log_snr".

    Args:
        schedule: gives lambda_t for the spacings "log_snr", "karras" and "asinh".
        steps: number of intervals.
        t_start: first time, below 1 where the schedule ends in pure noise.
        t_end: last time, above 0.
        spacing: even in t ("uniform"), in lambda_t ("log_snr"), in sqrt(t) ("quadratic"), in r^(1/7) ("karras") or in
            asinh(lambda_t) ("asinh").

    Raises:
        ValueError: steps < 1, not 0 < t_end < t_start <= 1, no signal at t_start, or an unknown spacing.
    """
    if steps < 1:
        raise ValueError(f"`steps` of a time grid must be at least 1, got {steps}; 50 is usual")
    if not 0 < t_end < t_start <= 1:
        raise ValueError(
            f"`t_start` and `t_end` must satisfy 0 < t_end < t_start <= 1, got t_start={t_start}, t_end={t_end}; "
            "the usual values are 0.995 and 0.001"
        )
    ends = torch.tensor([t_start, t_end], dtype=torch.float64)
    if schedule.alpha(ends[0]) < 1e-6:
        raise ValueError(f"`t_start`={t_start} is pure noise under this schedule (alpha < 1e-6); use 0.995 or less")

    fraction = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if spacing == "uniform":
        grid = _between(ends, fraction)
    elif spacing == "log_snr":
        grid = schedule.time(_between(schedule.log_snr(ends), fraction))
    elif spacing == "quadratic":
        grid = _between(ends.sqrt(), fraction).square()
    elif spacing == "karras":
        root = torch.exp(-schedule.log_snr(ends) / RHO)  # r^(1/rho)
        grid = schedule.time(-RHO * _between(root, fraction).log())
    elif spacing == "asinh":
        grid = schedule.time(_between(schedule.log_snr(ends).asinh(), fraction).sinh())
    else:
        raise ValueError(f"`spacing` must be one of {', '.join(get_args(Spacing))}, got {spacing!r}")
    grid[0], grid[-1] = ends  # exactly, whatever the rounding of the inverse
    return grid


def _between(ends: Tensor, fraction: Tensor) -> Tensor:
    return torch.lerp(ends[0], ends[1], fraction)


class Sampler(ABC):
    """Turns z at t_start into a clean latent.

    Args:
        schedule: the schedule the denoiser was trained with.
        steps: denoiser evaluations, the first at t_start and the last at t_end.
        t_start: where sampling from noise begins, in (t_end, 1).
        t_end: where the last evaluation is made, in (0, t_start).
        spacing: of the times in between; see `time_grid`.
        clip: bound of every coordinate of z_0_hat, in standard deviations of the data; None for none. eps_hat is
            recomputed from the clipped z_0_hat, so that the two stay one prediction.

    Raises:
        ValueError: steps < 2, times out of range, unknown spacing, or clip <= 0.

    Example:
        >>> from lcg.diffusion import DDIM, CosineSchedule, GaussianDenoiser
        >>> schedule = CosineSchedule()
        >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), schedule)
        >>> noise, samplers = torch.tensor([[1.0, -2.0]]), [DDIM(schedule, steps=steps) for steps in (10, 100, 1000)]
        >>> [round(float(sampler.sample(denoiser, noise)[0, 0]), 2) for sampler in samplers]
        [0.87, 0.99, 1.0]
    """

    def __init__(
        self,
        schedule: Schedule,
        steps: int = 50,
        t_start: float = 0.995,
        t_end: float = 0.001,
        spacing: Spacing = "uniform",
        clip: float | None = None,
    ) -> None:
        if steps < 2:
            raise ValueError(
                f"`steps` must be at least 2 (one evaluation at t_start, one at t_end), got {steps}; 50 is usual"
            )
        if clip is not None and not clip > 0:
            raise ValueError(f"`clip` must be positive or None, got {clip}; 4 standard deviations is a mild bound")
        self.schedule, self.steps, self.t_start, self.t_end = schedule, steps, t_start, t_end
        self.spacing, self.clip = spacing, clip
        self.times()  # refuses bad times now rather than at the first sample

    def times(self, t_start: float | None = None) -> Float64[Tensor, " steps"]:
        """The times at which the denoiser is asked, never increasing; t_start overrides the sampler's own."""
        t_start = self.t_start if t_start is None else t_start
        return time_grid(self.schedule, self.steps - 1, t_start, self.t_end, self.spacing)

    @torch.no_grad()
    def sample(
        self,
        denoiser: Denoiser,
        z: Float[Tensor, "batch *latent"],
        generator: Randomness = None,
        t_start: float | None = None,
        progress: Progress | None = None,
    ) -> Float[Tensor, "batch *latent"]:
        """A clean latent for every row of z.

        Args:
            denoiser: eps_hat of z_t; plain or guided.
            z: latents at t_start (B, *latent), float32 or float64: noise, a partly noised or an inverted source.
            generator: randomness of stochastic steps: none, one, or one per row.
            t_start: the time z is at, when it is not the sampler's own.
            progress: called as progress(step, steps) after each evaluation.

        Returns:
            z_0 (B, *latent), with z's precision and device.

        Raises:
            TypeError: z has another precision than float32 or float64.
            ValueError: t_start is not above t_end, or the number of generators is not the number of rows.
        """
        return self.solve(self.path(denoiser, self.grid(z, t_start)), z, generator, progress)

    @abstractmethod
    def solve(
        self, path: Path, z: Float[Tensor, "batch *latent"], generator: Randomness, progress: Progress | None
    ) -> Float[Tensor, "batch *latent"]:
        """The loop: z at the path's first time to z_0_hat at its last, one evaluation of the denoiser at each."""

    def path(self, denoiser: Denoiser, times: Float[Tensor, " steps"]) -> Path:
        """The denoiser at these times."""
        return Path(denoiser, self.schedule, times, self.clip)

    @property
    def draws(self) -> int | None:
        """How often noise is drawn for a sample; None if that is not known beforehand."""
        return 0

    def grid(self, z: Float[Tensor, "batch *latent"], t_start: float | None = None) -> Float[Tensor, " steps"]:
        """The times in the precision and place of the latents. Raises TypeError when that is below float32."""
        if z.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"`z`, the sampler's state, must be float32 or float64, got {z.dtype}; use z.float()")
        # Rounded to z's precision, so that sampler and denoiser compute their coefficients from the same t.
        return self.times(t_start).to(z)
