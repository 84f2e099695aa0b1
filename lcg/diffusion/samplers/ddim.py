"""DDIM: predict the clean latent, then put back the noise of the next, lower level.

From t to s < t (Song et al. 2021, arXiv:2010.02502, equations 12 and 16, whose alpha_t is alpha_t^2 here),

    z_s = alpha_s z_0_hat + sqrt(sigma_s^2 - std^2) eps_hat + std xi,        xi ~ N(0, I),
    std = eta (sigma_s / sigma_t) sqrt(1 - alpha_t^2 / alpha_s^2).

eta = 0 is the probability-flow ODE and can be inverted; eta = 1 is ancestral sampling, see `DDPM`. A step at eta = 0 is
also Euler's on the flow-matching path (`lcg.diffusion.process`), z_t / (alpha_t + sigma_t) being moved along eps_hat -
z_0_hat.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lcg.diffusion.noise import Randomness, randn
from lcg.diffusion.process import Denoiser
from lcg.diffusion.samplers.base import Progress, Sampler, Spacing
from lcg.diffusion.samplers.path import Path
from lcg.diffusion.schedule import Schedule


class DDIM(Sampler):
    """DDIM, deterministic (eta = 0) to ancestral (eta = 1). Other arguments: see `Sampler`.

    Args:
        eta: share of the noise that is drawn anew at each step, in [0, 1].

    Raises:
        ValueError: eta is outside [0, 1], or any reason of `Sampler`.
    """

    def __init__(
        self,
        schedule: Schedule,
        steps: int = 50,
        t_start: float = 0.995,
        t_end: float = 0.001,
        spacing: Spacing = "uniform",
        clip: float | None = None,
        eta: float = 0.0,
    ) -> None:
        super().__init__(schedule, steps, t_start, t_end, spacing, clip)
        if not 0 <= eta <= 1:
            raise ValueError(f"`eta` must be in [0, 1], got {eta}; 0 is deterministic, 1 is ancestral sampling")
        self.eta = eta

    @property
    def draws(self) -> int:
        return self.steps - 1 if self.eta > 0 else 0

    def solve(
        self, path: Path, z: Float[Tensor, "batch *latent"], generator: Randomness, progress: Progress | None
    ) -> Float[Tensor, "batch *latent"]:
        z_0_hat, steps = z, self.steps_of(path)
        for i in path:
            z_0_hat, eps_hat = path.predict(z, i)
            if i + 1 < len(path):
                z = self.step(steps[i], z_0_hat, eps_hat, generator)
            if progress is not None:
                progress(i + 1, len(path))
        return z_0_hat

    def step(
        self,
        coefs: tuple[float, float, float],
        z_0_hat: Float[Tensor, "batch *latent"],
        eps_hat: Float[Tensor, "batch *latent"],
        generator: Randomness = None,
    ) -> Float[Tensor, "batch *latent"]:
        """z at the next time, with the weights of z_0_hat, eps_hat and xi."""
        alpha, kept, std = coefs
        z = torch.add(alpha * z_0_hat, eps_hat, alpha=kept)
        if self.eta == 0:
            return z
        return torch.add(z, randn(z.shape, generator, dtype=z.dtype, device=z.device), alpha=std)

    def steps_of(self, path: Path) -> list[tuple[float, float, float]]:
        """The weights of every step of a path."""
        times = path.times.cpu()
        return list(zip(*(coef.tolist() for coef in self.coefficients(times[:-1], times[1:])), strict=True))

    @torch.no_grad()
    def invert(
        self,
        denoiser: Denoiser,
        z_0: Float[Tensor, "batch *latent"],
        t_stop: float | None = None,
        iterations: int = 1,
        progress: Progress | None = None,
    ) -> Float[Tensor, "batch *latent"]:
        """The z at t_stop from which deterministic sampling returns z_0.

        Sampling at eta = 0 is a rotation of (z_t, v) by the angle d between two noise levels,
        z_s = cos(d) z_t - sin(d) v_hat(z_t, t) (Salimans & Ho 2022, arXiv:2202.00512, appendix D). Its inverse is the
        fixed point of

            z_t = (z_s + sin(d) v_hat(z_t, t)) / cos(d),        starting at z_t = z_s.

        One iteration is an explicit inversion step as in Song et al. 2021, section 4.3; more make the round trip tight.
        They iterate eps, we v: the map then contracts with tan(d) |dv/dz|, which is small also near pure noise, and one
        iteration is exact for standard normal latents. Between well-separated modes, where z_0_hat turns sharply, a few
        iterations may be worse than one: take more steps, or stop earlier.

        Args:
            denoiser: the same as for sampling; usually the plain prior.
            z_0: clean latents (B, *latent), float32 or float64. They are not clipped: a clipped path has no inverse.
            t_stop: where to stop, in (t_end, 1); None for the sampler's t_start. Sample with `t_start=t_stop`.
            iterations: of the fixed point at each step; each is an evaluation of the denoiser.
            progress: called as progress(step, steps) after each step.

        Returns:
            z at t_stop (B, *latent).

        Raises:
            TypeError: z_0 has another precision than float32 or float64.
            ValueError: iterations < 1, or t_stop is not above t_end.
        """
        if iterations < 1:
            raise ValueError(
                f"`iterations` must be at least 1, got {iterations}; 1 is plain inversion, more are tighter"
            )
        z, path = z_0, Path(denoiser, self.schedule, self.grid(z_0, t_stop).flip(0))
        alpha_s, sigma_s = 1.0, 0.0  # the last step of sampling, to z_0_hat, is a DDIM step to time 0
        for i in path:
            alpha_t, sigma_t = path.alpha[i], path.sigma[i]
            cos, sin = alpha_s * alpha_t + sigma_s * sigma_t, alpha_s * sigma_t - sigma_s * alpha_t
            z_s = z
            for _ in range(iterations):
                v_hat = torch.sub(path.eps_hat(z, i), z, alpha=sigma_t) / alpha_t
                z = torch.add(z_s, v_hat, alpha=sin) / cos
            alpha_s, sigma_s = alpha_t, sigma_t
            if progress is not None:
                progress(i + 1, len(path))
        return z

    def coefficients(
        self, t: Float[Tensor, "*steps"], s: Float[Tensor, "*steps"]
    ) -> tuple[Float64[Tensor, "*steps"], Float64[Tensor, "*steps"], Float64[Tensor, "*steps"]]:
        """The weights alpha_s of z_0_hat, sqrt(sigma_s^2 - std^2) of eps_hat and std of xi in steps from t to s.

        With h = lambda_s - lambda_t, equation 16 reads std = eta sigma_s sqrt(1 - exp(-2h)), and nothing cancels.
        """
        h, sigma = self.schedule.log_snr(s) - self.schedule.log_snr(t), self.schedule.sigma(s)
        kept = sigma * (1 - self.eta**2 + self.eta**2 * torch.exp(-2 * h)).sqrt()
        return self.schedule.alpha(s), kept, self.eta * sigma * torch.expm1(-2 * h).neg().sqrt()
