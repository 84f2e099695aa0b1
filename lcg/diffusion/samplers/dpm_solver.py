"""DPM-Solver++(2M): second order in the log signal-to-noise ratio at one evaluation a step.

In lambda_t the probability-flow ODE is linear apart from z_0_hat, so a step of h = lambda_s - lambda_t is exact but for
the integral of z_0_hat, extrapolated from the last two predictions (Lu et al. 2022, arXiv:2211.01095, Algorithm 2),

    D   = z_0_hat + (h / 2 h_previous) (z_0_hat - z_0_hat_previous),
    z_s = (sigma_s / sigma_t) z_t - alpha_s expm1(-h) D.

With D = z_0_hat it is DDIM. The first step must be that, and the step to t_end is made so ("lower-order final"): with
times even in t, h is largest there and extrapolation overshoots.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.noise import Randomness
from lcg.diffusion.process import Denoiser
from lcg.diffusion.samplers.base import Progress
from lcg.diffusion.samplers.multistep import Multistep
from lcg.diffusion.schedule import expand


class DPMSolverPP2M(Multistep):
    """Multistep DPM-Solver++ of order 2, or 1, which is DDIM; deterministic. Arguments: see `Multistep`."""

    highest_order = 2

    def solve(
        self,
        denoiser: Denoiser,
        z: Float[Tensor, "batch *latent"],
        times: Float[Tensor, " steps"],
        generator: Randomness,
        progress: Progress | None,
    ) -> Float[Tensor, "batch *latent"]:
        alpha, sigma, log_snr = self.schedule.alpha(times), self.schedule.sigma(times), self.schedule.log_snr(times)
        h = log_snr.diff()
        z_0_hat = previous = z
        for i, t in enumerate(times):
            z_0_hat, _ = self.predict(denoiser, z, t)
            if i + 1 < len(times):
                D = z_0_hat
                if self.order_at(i, len(h)) == 2:
                    D = z_0_hat + expand(h[i] / (2 * h[i - 1]), z) * (z_0_hat - previous)
                z = expand(sigma[i + 1] / sigma[i], z) * z - expand(alpha[i + 1] * torch.expm1(-h[i]), z) * D
                previous = z_0_hat
            if progress is not None:
                progress(i + 1, len(times))
        return z_0_hat
