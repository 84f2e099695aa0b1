"""DPM-Solver++(2M): second order in the log signal-to-noise ratio at one evaluation a step.

In lambda_t the probability-flow ODE is linear apart from z_0_hat, so a step of h = lambda_s - lambda_t is exact but for
the integral of z_0_hat, extrapolated from the last two predictions (Lu et al. 2022, arXiv:2211.01095, Algorithm 2),

    D   = z_0_hat + (h / 2 h_previous) (z_0_hat - z_0_hat_previous),
    z_s = (sigma_s / sigma_t) z_t - alpha_s expm1(-h) D.

With D = z_0_hat it is DDIM. The first step must be that, and the step to t_end is made so ("lower-order final"): with
times even in t, h is largest there and extrapolation overshoots.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.noise import Randomness
from lcg.diffusion.samplers.base import Progress
from lcg.diffusion.samplers.multistep import Multistep
from lcg.diffusion.samplers.path import Path


class DPMSolverPP2M(Multistep):
    """Multistep DPM-Solver++ of order 2, or 1, which is DDIM; deterministic. Arguments: see `Multistep`."""

    highest_order = 2

    def solve(
        self, path: Path, z: Float[Tensor, "batch *latent"], generator: Randomness, progress: Progress | None
    ) -> Float[Tensor, "batch *latent"]:
        z_0_hat = previous = z
        for i in path:
            z_0_hat, _ = path.predict(z, i)
            if i + 1 < len(path):
                h, D = path.step(i), z_0_hat
                if self.order_at(i, len(path) - 1) == 2:
                    D = torch.add(z_0_hat, z_0_hat - previous, alpha=h / (2 * path.step(i - 1)))
                z = torch.add(path.sigma[i + 1] / path.sigma[i] * z, D, alpha=-path.alpha[i + 1] * math.expm1(-h))
                previous = z_0_hat
            if progress is not None:
                progress(i + 1, len(path))
        return z_0_hat
