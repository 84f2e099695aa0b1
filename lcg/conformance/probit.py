"""Expectations of products of probits under a normal distribution, in log space and differentiable.

    log E[prod_j Phi(u_j)],      u ~ N(m, C),

is what the noisy posterior of attributes P(y_j = 1 | z_0) = Phi(a_j.z_0 + b_j) comes to. As Phi(u) = P(u + xi > 0) with
xi ~ N(0, 1), it is the probability that a normal vector with mean m and covariance C + I is positive. One factor gives
Phi(m / sqrt(1 + C)), two the bivariate normal distribution function, each further one an integral by Gauss-Hermite.

The bivariate one, Phi_2(h, k; rho) = P(x < h, y < k), is an integral over the correlation (Plackett 1954, "A reduction
formula for normal multivariate integrals"; by a Gauss-Legendre rule, Drezner & Wesolowsky 1990),

    Phi_2(h, k; rho) = Phi_2(h, k; rho_0) + 1/(2 pi) int_{asin rho_0}^{asin rho} f(u) du,
                f(u) = exp(-(h^2 + k^2 - 2 h k sin u) / (2 cos^2 u)),

from rho_0 = 0, where it is Phi(h) Phi(k), or, where a negative rho would cancel that, from rho_0 = -1, where it is
max(0, Phi(h) - Phi(-k)). Nearly equal numbers are never subtracted, so that the logarithm is accurate far out too.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

FEW_NODES, MANY_NODES = 24, 96
"""Of Gauss-Legendre; many where a correlation is above `STRONG`, and f turns sharply near the end of its interval."""
STRONG = 0.75
HERMITE_NODES = 40
NEARLY_INDEPENDENT = 0.5
"""Share of Phi(h) Phi(k) that a negative correlation may take away before the integral starts at -1 instead."""


def log_probits(mean: Tensor, covariance: Tensor) -> Tensor:
    """log E[prod_j Phi(u_j)] for u ~ N(mean, covariance), differentiable in the mean.

    Args:
        mean: (..., n), float64.
        covariance: (..., n, n), symmetric and positive semi-definite; its leading shape broadcasts with that of mean.

    Returns:
        (...), at most 0; 0 for n = 0.
    """
    n = mean.shape[-1]
    variances = torch.diagonal(covariance, dim1=-2, dim2=-1)
    if not covariance[..., ~torch.eye(n, dtype=torch.bool, device=mean.device)].any():  # independent, and n = 0 or 1
        return torch.special.log_ndtr(mean * (1 + variances).rsqrt()).sum(-1)
    if n == 2:
        scale = (1 + variances).rsqrt()
        h = mean * scale
        rho = covariance[..., 0, 1] * scale[..., 0] * scale[..., 1]
        return log_bivariate_normal(h[..., 0], h[..., 1], rho)
    # Given the last factor's u the others are normal still: E[Phi(u_n) E[prod_{j<n} Phi(u_j) | u_n]].
    nodes, log_weights = _hermite(mean)
    last = variances[..., -1]
    std = last.sqrt()
    cross = covariance[..., :-1, -1]
    gain = torch.where(last[..., None] > 0, cross / last.clamp_min(1e-300)[..., None], 0.0)
    step = std[..., None] * nodes  # (..., nodes)
    inner = log_probits(
        mean[..., None, :-1] + gain[..., None, :] * step[..., None],
        (covariance[..., :-1, :-1] - gain[..., :, None] * cross[..., None, :])[..., None, :, :],
    )
    return (log_weights + torch.special.log_ndtr(mean[..., -1:] + step) + inner).logsumexp(-1)


def log_bivariate_normal(h: Tensor, k: Tensor, rho: Tensor) -> Tensor:
    """log P(x < h, y < k) for standard normal x, y with correlation rho, |rho| < 1; differentiable in all three.

    Args:
        h: (...), float64.
        k: (...), broadcast with h.
        rho: (...), broadcast with h; where its shape has ones, the integral's nodes are shared.
    """
    return _LogBivariateNormal.apply(h, k, rho)


class _LogBivariateNormal(torch.autograd.Function):
    @staticmethod
    def forward(h: Tensor, k: Tensor, rho: Tensor) -> Tensor:
        log_product = torch.special.log_ndtr(h) + torch.special.log_ndtr(k)
        log_integral = _log_plackett(h, k, torch.zeros_like(rho), rho.asin())
        positive = torch.logaddexp(log_product, log_integral)
        share = (log_integral - log_product).clamp(max=0).exp()  # of the product that a negative correlation takes away
        negative = log_product + torch.log1p(-share.clamp(max=0.9))
        result = torch.where(rho >= 0, positive, negative)
        cancels = (rho < 0) & (share > NEARLY_INDEPENDENT)
        if cancels.any():
            h, k, rho = (x[cancels] for x in torch.broadcast_tensors(h, k, rho))
            from_below = _log_plackett(h, k, torch.full_like(rho, -math.pi / 2), rho.asin())
            result[cancels] = torch.logaddexp(from_below, _log_positive_part(h, k))
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, k, rho, log_p = ctx.saved_tensors
        rest = (1 - rho.square()).sqrt()
        log_phi_h, log_phi_k = (-0.5 * x.square() - 0.5 * math.log(2 * math.pi) for x in (h, k))
        by_h = grad * (log_phi_h + torch.special.log_ndtr((k - rho * h) / rest) - log_p).exp()
        by_k = grad * (log_phi_k + torch.special.log_ndtr((h - rho * k) / rest) - log_p).exp()
        if not ctx.needs_input_grad[2]:
            return by_h.sum_to_size(h.shape), by_k.sum_to_size(k.shape), None
        log_density = -0.5 * (h.square() - 2 * rho * h * k + k.square()) / rest.square() - torch.log(2 * math.pi * rest)
        by_rho = grad * (log_density - log_p).exp()
        return by_h.sum_to_size(h.shape), by_k.sum_to_size(k.shape), by_rho.sum_to_size(rho.shape)


def _log_plackett(h: Tensor, k: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The logarithm of the integral |1/(2 pi) int_lower^upper f(u) du| of the module, by Gauss-Legendre."""
    strong = bool((torch.maximum(lower.abs(), upper.abs()) > math.asin(STRONG)).any())
    nodes, weights = np.polynomial.legendre.leggauss(MANY_NODES if strong else FEW_NODES)
    fraction = torch.as_tensor((nodes + 1) / 2, dtype=h.dtype, device=h.device)
    log_weights = torch.as_tensor(np.log(weights / 2), dtype=h.dtype, device=h.device)
    width = upper - lower
    angle = lower[..., None] + fraction * width[..., None]
    by_squares, by_product = -0.5 / angle.cos().square(), angle.sin() / angle.cos().square()
    squares, product = h.square() + k.square(), h * k
    exponent = log_weights + by_squares * squares[..., None] + by_product * product[..., None]
    return exponent.logsumexp(-1) + (width.abs() / (2 * math.pi)).log()


def _log_positive_part(h: Tensor, k: Tensor) -> Tensor:
    """log max(0, Phi(h) - Phi(-k)), which is log Phi_2(h, k; -1)."""
    # Phi(h) - Phi(-k) = Phi(k) - Phi(-h): of the two, that in the lower tail, where both terms are accurate.
    upper, lower = torch.minimum(h, k), -torch.maximum(h, k)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    difference = log_upper + torch.log(-torch.expm1((log_lower - log_upper).clamp(max=0)))
    return torch.where(h + k > 0, difference, -math.inf)


def _hermite(like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and log-weights of E[f(xi)], xi ~ N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(HERMITE_NODES)
    log_weights = np.log(weights) - 0.5 * math.log(2 * math.pi)
    return torch.as_tensor(nodes).to(like), torch.as_tensor(log_weights).to(like)
