"""A sampler's path: its times, the schedule's coefficients there, and the denoiser made ready for them.

Everything that does not depend on z is computed here, once, before the first step: alpha, sigma and lambda as numbers
in float64, and by the denoiser, if it can, whatever it makes of the times (`lcg.diffusion.process.prepare`). A step of
a solver is then a linear combination of tensors with known numbers, and one evaluation.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.process import Denoiser, eps_from_z0, prepare, z0_from_eps
from lcg.diffusion.schedule import Schedule


class Path:
    """The times t_0, t_1, ... of a sampler and what is known there.

    Args:
        denoiser: eps_hat of z_t; plain or guided.
        schedule: of the noise.
        times: (S,) in the precision of the latents, so that sampler and denoiser compute with the same t.
        clip: bound of every coordinate of z_0_hat; None for none.

    Attributes:
        alpha: alpha_t at each time, a number.
        sigma: sigma_t.
        log_snr: lambda_t = log(alpha_t / sigma_t).
    """

    def __init__(
        self, denoiser: Denoiser, schedule: Schedule, times: Float[Tensor, " steps"], clip: float | None = None
    ) -> None:
        exact = times.cpu().double()
        self.denoiser, self.schedule, self.times, self.clip = denoiser, schedule, times, clip
        self.alpha: list[float] = schedule.alpha(exact).tolist()
        self.sigma: list[float] = schedule.sigma(exact).tolist()
        self.log_snr: list[float] = schedule.log_snr(exact).tolist()
        self._eps_hat = prepare(denoiser, times)

    def __len__(self) -> int:
        return len(self.alpha)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def step(self, i: int) -> float:
        """h = lambda_s - lambda_t of the step from time i to the next."""
        return self.log_snr[i + 1] - self.log_snr[i]

    def eps_hat(self, z_t: Float[Tensor, "batch *latent"], i: int) -> Float[Tensor, "batch *latent"]:
        """The denoiser's prediction at time i, in the precision of z_t, also under autocast."""
        return self._eps_hat[i](z_t).to(z_t.dtype)

    def predict(
        self, z_t: Float[Tensor, "batch *latent"], i: int
    ) -> tuple[Float[Tensor, "batch *latent"], Float[Tensor, "batch *latent"]]:
        """(z_0_hat, eps_hat) at time i; z_0_hat clipped if there is a bound, and eps_hat what belongs to it."""
        alpha, sigma, eps_hat = self.alpha[i], self.sigma[i], self.eps_hat(z_t, i)
        z_0_hat = torch.sub(z_t, eps_hat, alpha=sigma) / alpha
        if self.clip is None:
            return z_0_hat, eps_hat
        z_0_hat = z_0_hat.clamp(-self.clip, self.clip)
        return z_0_hat, torch.sub(z_t, z_0_hat, alpha=alpha) / sigma

    def predict_between(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, "batch *latent"], Float[Tensor, "batch *latent"]]:
        """`predict` at any other time."""
        rows = t.expand(len(z_t))
        eps_hat = self.denoiser(z_t, rows).to(z_t.dtype)
        z_0_hat = z0_from_eps(self.schedule, z_t, rows, eps_hat)
        if self.clip is None:
            return z_0_hat, eps_hat
        z_0_hat = z_0_hat.clamp(-self.clip, self.clip)
        return z_0_hat, eps_from_z0(self.schedule, z_t, rows, z_0_hat)
