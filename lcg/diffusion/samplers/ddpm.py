"""DDPM: ancestral sampling, which draws z_s from the posterior of the forward process with z_0_hat for z_0.

    q(z_s | z_t, z_0) = N(alpha_s (1 - k) z_0 + (alpha_s / alpha_t) k z_t, sigma_s^2 (1 - k) I),
    k = exp(2 (lambda_t - lambda_s))

(Ho et al. 2020, arXiv:2006.11239, equations 6 and 7, for two arbitrary times; 1 - k is their beta_t / (1 - alpha_bar_t)
and the variance their beta_tilde_t). It is DDIM with eta = 1 (Song et al. 2021, arXiv:2010.02502, section 4.1), and is
made so. Their other variance, beta_t, is right only for standard normal latents and is not offered.

Guidance by G moves z_0_hat by (sigma_t^2 / alpha_t) G, and so the mean by (alpha_s / alpha_t) sigma_t^2 (1 - k) G. The
posterior variance times G (Dhariwal & Nichol 2021, arXiv:2105.05233, algorithm 1) is this times
(alpha_t sigma_s^2) / (alpha_s sigma_t^2): less, and the same in the limit of small steps.
"""

from lcg.diffusion.samplers.base import Spacing
from lcg.diffusion.samplers.ddim import DDIM
from lcg.diffusion.schedule import Schedule


class DDPM(DDIM):
    """Ancestral sampling: `DDIM` with eta = 1. Arguments: see `Sampler`."""

    def __init__(
        self,
        schedule: Schedule,
        steps: int = 50,
        t_start: float = 0.995,
        t_end: float = 0.001,
        spacing: Spacing = "uniform",
        clip: float | None = None,
    ) -> None:
        super().__init__(schedule, steps, t_start, t_end, spacing, clip, eta=1.0)
