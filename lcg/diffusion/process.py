"""The forward process and the quantities a denoiser may predict.

    z_t = alpha_t z_0 + sigma_t eps,          v = alpha_t eps - sigma_t z_0.

(z_t, v) is (z_0, eps) rotated by the angle of the noise level, so any two of the four determine the other two (Salimans
& Ho 2022, arXiv:2202.00512, appendix D). The score is -eps / sigma_t. lcg's denoisers predict eps; these functions are
the only place where one parametrisation becomes another.

Flow matching learns the velocity of straight paths between data and noise (Lipman et al. 2023, arXiv:2210.02747; Liu et
al. 2023, arXiv:2209.03003). z_t, divided by alpha_t + sigma_t, is on one, and knows how far,

    x = (1 - tau) z_0 + tau eps,      x = z_t / (alpha_t + sigma_t),      tau = sigma_t / (alpha_t + sigma_t),
    u = dx/dtau = eps - z_0 = ((alpha_t + sigma_t) eps - z_t) / alpha_t.

Here tau = 0 is data, like t = 0; a network whose time runs from noise to data gives -u at 1 - tau.

Guidance adds G to the score. In every parametrisation that is the same thing,

    eps_hat = eps - sigma_t G,                        z_0_hat = z_0 + (sigma_t^2 / alpha_t) G,
    v_hat   = v - (sigma_t / alpha_t) G,              u_hat   = u - (sigma_t / alpha_t) (alpha_t + sigma_t) G,

in which (alpha_t + sigma_t) G is the gradient with respect to x.

In all functions z_t, z_0, eps, v and u are (B, *latent), t is (B,) in [0, 1], and the result has the shape and the
precision of z_t. At t = 0 nothing can be said about eps, nor at alpha_t = 0 about z_0: those conversions divide by zero
there.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.schedule import Schedule, expand


@runtime_checkable
class Denoiser(Protocol):
    """Predicts the noise in z_t. Rows are independent."""

    def __call__(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch *latent"]:
        """The expectation of eps given z_t.

        Args:
            z_t: noised standardised latents (B, *latent).
            t: their times (B,) in [0, 1], float32 or float64.

        Returns:
            eps_hat (B, *latent).
        """
        ...


Result = TypeVar("Result")


def prepare(
    function: Callable[[Tensor, Tensor], Result], times: Float[Tensor, " steps"]
) -> list[Callable[[Tensor], Result]]:
    """A denoiser, or any function of (z_t, t), at each of these times, as functions of z_t alone, (B, *latent).

    What can make use of knowing its times beforehand has a method `prepare(times)` that returns this list: networks,
    and what guides by them. Its results are those of the function but for rounding.
    """
    ready: Callable[[Tensor], list[Callable[[Tensor], Result]]] | None = getattr(function, "prepare", None)
    return [partial(_all_rows_at, function, t) for t in times] if ready is None else ready(times)


def _all_rows_at(function: Callable[[Tensor, Tensor], Result], t: Tensor, z_t: Tensor) -> Result:
    return function(z_t, t.expand(len(z_t)))


def diffuse(
    schedule: Schedule,
    z_0: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    eps: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """Noised latent z_t = alpha_t z_0 + sigma_t eps, a draw from q(z_t | z_0) when eps ~ N(0, I).

    Example:
        >>> from lcg.diffusion import CosineSchedule
        >>> schedule, t, z_0 = CosineSchedule(), torch.tensor([0.3]), torch.ones(1, 2)
        >>> eps = torch.tensor([[1.0, -1.0]])
        >>> z_t = diffuse(schedule, z_0, t, eps)
        >>> z0_from_eps(schedule, z_t, t, eps).round(decimals=4)
        tensor([[1., 1.]])
    """
    alpha, sigma = coefficients(schedule, t, z_0)
    return alpha * z_0 + sigma * eps


def renoise(
    schedule: Schedule,
    z_t: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    s: Float[Tensor, " batch"],
    eps: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """A draw from q(z_s | z_t) for s >= t, when eps ~ N(0, I): z_t with exactly the noise that it lacks at s.

    z_s = (alpha_s / alpha_t) z_t + sqrt(sigma_s^2 - (alpha_s / alpha_t)^2 sigma_t^2) eps, whose root is
    sigma_s sqrt(1 - exp(2 (lambda_s - lambda_t))), where nothing cancels.

    Raises:
        ValueError: s is below t in some row.
    """
    if bool((s < t).any()):
        raise ValueError("`s` must not be below `t`: noise can be added, not removed; use a sampler for that")
    kept = torch.exp(schedule.log_alpha(s) - schedule.log_alpha(t))
    std = schedule.sigma(s) * torch.expm1(2 * (schedule.log_snr(s) - schedule.log_snr(t))).neg().sqrt()
    return expand(kept, z_t) * z_t + expand(std, z_t) * eps


def velocity(
    schedule: Schedule,
    z_0: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    eps: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """Velocity v = alpha_t eps - sigma_t z_0, what a v-predicting network is trained on."""
    alpha, sigma = coefficients(schedule, t, z_0)
    return alpha * eps - sigma * z_0


def z0_from_eps(
    schedule: Schedule,
    z_t: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    eps: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """Clean latent z_0 = (z_t - sigma_t eps) / alpha_t; the posterior mean (Tweedie's formula) when eps is eps_hat."""
    alpha, sigma = coefficients(schedule, t, z_t)
    return (z_t - sigma * eps) / alpha


def z0_from_v(
    schedule: Schedule,
    z_t: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """Clean latent z_0 = alpha_t z_t - sigma_t v."""
    alpha, sigma = coefficients(schedule, t, z_t)
    return alpha * z_t - sigma * v


def eps_from_z0(
    schedule: Schedule,
    z_t: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    z_0: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """Noise eps = (z_t - alpha_t z_0) / sigma_t."""
    alpha, sigma = coefficients(schedule, t, z_t)
    return (z_t - alpha * z_0) / sigma


def eps_from_v(
    schedule: Schedule,
    z_t: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """Noise eps = sigma_t z_t + alpha_t v."""
    alpha, sigma = coefficients(schedule, t, z_t)
    return sigma * z_t + alpha * v


def eps_from_score(
    schedule: Schedule,
    z_t: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    score: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """Noise eps = -sigma_t score."""
    _, sigma = coefficients(schedule, t, z_t)
    return -sigma * score


def score_from_eps(
    schedule: Schedule,
    z_t: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    eps: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """Score grad_{z_t} log q(z_t) = -eps / sigma_t."""
    _, sigma = coefficients(schedule, t, z_t)
    return -eps / sigma


def v_from_eps(
    schedule: Schedule,
    z_t: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    eps: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """Velocity v = (eps - sigma_t z_t) / alpha_t."""
    alpha, sigma = coefficients(schedule, t, z_t)
    return (eps - sigma * z_t) / alpha


def v_from_z0(
    schedule: Schedule,
    z_t: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    z_0: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """Velocity v = (alpha_t z_t - z_0) / sigma_t."""
    alpha, sigma = coefficients(schedule, t, z_t)
    return (alpha * z_t - z_0) / sigma


def flow_point(
    schedule: Schedule, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch *latent"], Float[Tensor, " batch"]]:
    """(x, tau), where z_t is on its straight path: what to ask a flow-matching network for u at."""
    alpha, sigma = coefficients(schedule, t, z_t)
    tau = schedule.sigma(t) / (schedule.alpha(t) + schedule.sigma(t))
    return z_t / (alpha + sigma), tau.to(t.dtype)


def flow_from_eps(
    schedule: Schedule,
    z_t: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    eps: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """Flow velocity u = eps - z_0 = ((alpha_t + sigma_t) eps - z_t) / alpha_t."""
    alpha, sigma = coefficients(schedule, t, z_t)
    return ((alpha + sigma) * eps - z_t) / alpha


def eps_from_flow(
    schedule: Schedule,
    z_t: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    u: Float[Tensor, "batch *latent"],
) -> Float[Tensor, "batch *latent"]:
    """Noise eps = (z_t + alpha_t u) / (alpha_t + sigma_t)."""
    alpha, sigma = coefficients(schedule, t, z_t)
    return (z_t + alpha * u) / (alpha + sigma)


def coefficients(
    schedule: Schedule, t: Float[Tensor, "*batch"], like: Float[Tensor, "..."]
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """(alpha_t, sigma_t), each ready to multiply `like` (B, *latent); t is (B,), or one time for all rows."""
    return expand(schedule.alpha(t), like), expand(schedule.sigma(t), like)
