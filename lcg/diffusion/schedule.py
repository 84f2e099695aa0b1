"""How much signal and how much noise a latent holds at time t: z_t = alpha_t z_0 + sigma_t eps.

Every schedule here is variance preserving, alpha_t^2 + sigma_t^2 = 1, with t = 0 clean and t = 1 (nearly) pure noise.
One function defines it, log alpha_t; everything else follows:

    sigma_t = sqrt(-expm1(2 log alpha_t)),        lambda_t = log(alpha_t / sigma_t).

lambda_t is half the log signal-to-noise ratio, the time in which solvers take even steps (Lu et al. 2022,
arXiv:2206.00927, section 3.1). All coefficients are computed in float64, whatever the precision of t: in float32,
1 - alpha_t^2 is off by several per cent at t = 1e-5.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Float64
from torch import Tensor


class Schedule(ABC):
    """A variance-preserving noise schedule. Times t are in [0, 1], of any floating type and any shape.

    Raises:
        TypeError: t is not floating point (integer steps must be divided by their number first).

    Example:
        >>> t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
        >>> schedule = CosineSchedule()
        >>> torch.allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(3, dtype=torch.float64))
        True
        >>> round(float(schedule.time(schedule.log_snr(torch.tensor([0.3])))), 6)
        0.3
    """

    @abstractmethod
    def _log_alpha(self, t: Float64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        """The definition, log alpha_t, accurate relative to its own size also near t = 0, where it vanishes."""

    @abstractmethod
    def _time(self, log_snr: Float64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        """The inverse of t -> lambda_t, in closed form."""

    def log_alpha(self, t: Float[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        """The logarithm of alpha_t, <= 0."""
        return self._log_alpha(_float64(t, "t"))

    def alpha(self, t: Float[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        """alpha_t in [0, 1], the weight of the signal."""
        return self.log_alpha(t).exp()

    def sigma(self, t: Float[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        """sigma_t in [0, 1], the standard deviation of the noise."""
        return torch.expm1(2 * self.log_alpha(t)).neg().sqrt()

    def log_snr(self, t: Float[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        """lambda_t = log(alpha_t / sigma_t), decreasing in t; +inf at t = 0."""
        log_alpha = self.log_alpha(t)
        return log_alpha - 0.5 * torch.expm1(2 * log_alpha).neg().log()

    def time(self, log_snr: Float[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        """The time t at which lambda_t = log_snr."""
        return self._time(_float64(log_snr, "log_snr"))


class CosineSchedule(Schedule):
    """alpha_t = cos(pi t / 2), sigma_t = sin(pi t / 2), hence lambda_t = -log tan(pi t / 2).

    Nichol & Dhariwal 2021 (arXiv:2102.09672, equation 17) without their offset s = 0.008 and their clipping of beta: in
    continuous time neither is needed, and without them z_t moves along a circle.
    """

    def _log_alpha(self, t: Float64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        return -0.5 * torch.log1p(torch.tan(t * (math.pi / 2)).square())  # log cos x, accurate at both ends

    def _time(self, log_snr: Float64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        return torch.atan(torch.exp(-log_snr)) * (2 / math.pi)


class LinearSchedule(Schedule):
    """beta_t rises linearly, -2 log alpha_t = int_0^t beta_s ds = beta_min t + (beta_max - beta_min) t^2 / 2.

    The variance-preserving diffusion of Song et al. 2021 (arXiv:2011.13456, equation 33).

    Args:
        beta_min: rate of noising at t = 0, per unit of time.
        beta_max: rate at t = 1.

    Raises:
        ValueError: not 0 < beta_min <= beta_max.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        if not 0 < beta_min <= beta_max:
            raise ValueError(
                f"`beta_min` and `beta_max` must satisfy 0 < beta_min <= beta_max, got {beta_min} and {beta_max}; "
                "the usual values are 0.1 and 20"
            )
        self.beta_min, self.beta_max = beta_min, beta_max

    def _log_alpha(self, t: Float64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        return -0.5 * (self.beta_min * t + (self.beta_max - self.beta_min) * t.square() / 2)

    def _time(self, log_snr: Float64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        integral = torch.logaddexp(torch.zeros_like(log_snr), -2 * log_snr)  # int_0^t beta_s ds = -2 log alpha_t
        root = (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral).sqrt()
        return 2 * integral / (self.beta_min + root)  # the quadratic formula without its cancellation


class ConstantSchedule(Schedule):
    """A constant rate, -2 log alpha_t = beta t, which passes through the steps of a chain with one beta for all steps.

    Of T steps z_k = sqrt(1 - b) z_{k-1} + sqrt(b) eps the k-th leaves alpha^2 = (1 - b)^k, and so does this at t = k/T
    with the rate beta = -T log(1 - b). Diffusion Autoencoders have it for their latents, b = 0.008 and T = 1000
    (Preechakul et al. 2022, arXiv:2111.15640, appendix A): beta = 8.03 and alpha_1 = 0.018, nearly pure noise.

    Args:
        step: the variance b that one step adds, in (0, 1).
        steps: T, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, step: float = 0.008, steps: int = 1000) -> None:
        if not 0 < step < 1 or steps < 1:
            raise ValueError(
                f"`step` must be in (0, 1) and `steps` at least 1, got {step} and {steps}; "
                "Diffusion Autoencoders have 0.008 and 1000"
            )
        self.rate = -steps * math.log1p(-step)

    def _log_alpha(self, t: Float64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        return -0.5 * self.rate * t

    def _time(self, log_snr: Float64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        return torch.logaddexp(torch.zeros_like(log_snr), -2 * log_snr) / self.rate


def expand(coef: Float[Tensor, "*batch"], like: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A coefficient per row, (B,), shaped (B, 1, ...) to multiply `like` (B, *latent), in its precision and place."""
    return coef.to(like).reshape(*coef.shape, *(1,) * (like.ndim - coef.ndim))


def _float64(value: Tensor, name: str) -> Tensor:
    if not value.is_floating_point():
        raise TypeError(
            f"`{name}` must be a floating-point tensor, got {value.dtype}; divide integer steps by their number first"
        )
    return value.double()
