"""The prior's reverse process as a chain of normal steps, p(z_s | z_t) = N(mean, std^2 I), for those who weigh it.

Ancestral sampling (`DDIM` with eta = 1) takes z_0_hat to be constant within a step, so that z_s loses the variance by
which z_0_hat would have changed: of N(0, I) latents, 9 % in 50 even steps. The evaluation at the end of a step tells
what z_0_hat had become; before it goes on, the chain moves z_t to where the step would have led with the mean of both,

    z_t <- z_t + a/2 (z_0_hat(z_t, t) - z_0_hat(z_r, r)),        a = d z_t / d z_0_hat in the step from r to t,

which loses 2 %. This is the trapezoidal rule in predict-evaluate-correct mode (PEC: the corrected point is not
evaluated again), for even steps the same as Adams and Bashforth's second-order rule, at one evaluation a step.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.process import coefficients
from lcg.diffusion.samplers.base import Spacing
from lcg.diffusion.samplers.ddim import DDIM
from lcg.diffusion.schedule import Schedule, expand


class Chain:
    """Times, and the step between two of them. Arguments: see `lcg.diffusion.DDIM`.

    Raises:
        ValueError: eta is 0, and the steps have no density; or any reason of `DDIM`.
    """

    def __init__(
        self,
        schedule: Schedule,
        steps: int = 50,
        t_start: float = 0.995,
        t_end: float = 0.001,
        spacing: Spacing = "uniform",
        eta: float = 1.0,
    ) -> None:
        if eta == 0:
            raise ValueError("`eta` of a chain must be above 0, got 0: its steps would have no density; 1 is usual")
        self.schedule, self._ddim = schedule, DDIM(schedule, steps, t_start, t_end, spacing, eta=eta)

    def times(self) -> Float[Tensor, " steps"]:
        """The times at which the denoiser is asked, decreasing, in float64."""
        return self._ddim.times()

    def z_0_hat(
        self, z_t: Float[Tensor, "*rows"], eps_hat: Float[Tensor, "*rows"], t: Float[Tensor, ""]
    ) -> Float[Tensor, "*rows"]:
        """The prediction (z_t - sigma_t eps_hat) / alpha_t, all rows being at the same time."""
        alpha, sigma = coefficients(self.schedule, t, z_t)
        return (z_t - sigma * eps_hat) / alpha

    def step(
        self,
        z_t: Float[Tensor, "*rows"],
        z_0_hat: Float[Tensor, "*rows"],
        before: tuple[Float[Tensor, "*rows"], Float[Tensor, ""]] | None,
        t: Float[Tensor, ""],
        s: Float[Tensor, ""],
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "..."]]:
        """Mean (*rows) and std of z_s given z_t.

        Args:
            z_t: where the chain is.
            z_0_hat: the prediction at z_t.
            before: that of the step before and the time it was made at; None at the first step.
            t: the time z_t is at, one for all rows.
            s: the time to go to, s < t.
        """
        alpha, sigma = coefficients(self.schedule, t, z_t)
        if before is not None:
            previous, r = before
            z_t = z_t + 0.5 * expand(self._gain(r, t), z_t) * (z_0_hat - previous)
        alpha_s, kept, std = (expand(coef, z_t) for coef in self._ddim.coefficients(t, s))
        return alpha_s * z_0_hat + kept * (z_t - alpha * z_0_hat) / sigma, std

    def _gain(self, t: Tensor, s: Tensor) -> Tensor:
        """The factor a of z_0_hat in z_s = alpha_s z_0_hat + kept (z_t - alpha_t z_0_hat) / sigma_t."""
        alpha_s, kept, _ = self._ddim.coefficients(t, s)
        return alpha_s - kept * torch.exp(self.schedule.log_snr(t))
