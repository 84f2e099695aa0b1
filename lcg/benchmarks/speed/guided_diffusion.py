"""A peer: classifier guidance as in the public code of Dhariwal & Nichol 2021 (arXiv:2105.05233, algorithm 2).

    eps_hat = eps_theta(x, t) - sqrt(1 - alpha_bar_t) sum_i w grad_x log p(y_i | x, t),      then DDIM at eta = 0

Written anew, with what costs time there (github.com/openai/guided-diffusion, gaussian_diffusion.py and respace.py):

- times are indices, one per row, filled at each step; the table that maps them is made at each call of a network;
- coefficients are float64 arrays on the host, brought to the device at each use, indexed per row and expanded;
- eps becomes x_0 and is derived from it again, before and after guidance, and the posterior's mean and variance are
  computed with it although DDIM needs neither; noise is drawn and multiplied by eta = 0;
- networks get one time per row, and so compute their modulation per row (`lcg.benchmarks.speed.plain`);
- every attribute has its own `cond_fn`, which differentiates its own classifier.

What would cost it more is left out: x_0 is not clipped, the variance is fixed and not learnt, log-probabilities are of
one logit instead of a softmax, and the classifiers are without lcg's temperature.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lcg.benchmarks.speed.candidate import Loop
from lcg.benchmarks.speed.grid import betas, spaced
from lcg.benchmarks.speed.nets import Nets
from lcg.benchmarks.speed.plain import plain

Model = Callable[[Tensor, Tensor], Tensor]


def guided_diffusion_loop(nets: Nets, steps: int) -> Loop:
    """Samples with all attributes' gradients summed."""
    process = SpacedProcess(*spaced(nets.schedule, steps))
    return partial(process.ddim_sample_loop, partial(plain, nets.prior.net), partial(all_conditions, nets))


def all_conditions(nets: Nets, x: Tensor, t: Tensor) -> Tensor:
    """sum_i of the attributes' gradients, one after another."""
    total = torch.zeros_like(x)
    for classifier, label in zip(nets.classifiers, nets.labels, strict=True):
        total = total + cond_fn(partial(plain, classifier.net), label, nets.weight, x, t)
    return total


def cond_fn(classifier: Model, label: bool, scale: float, x: Tensor, t: Tensor) -> Tensor:
    """scale * grad_x log p(y | x, t) of one attribute, y being one label per row."""
    y = torch.full((len(x),), label, device=x.device)
    with torch.enable_grad():
        x_in = x.detach().requires_grad_(True)
        logit = classifier(x_in, t)[:, 0]
        selected = functional.logsigmoid(torch.where(y, logit, -logit))
        return torch.autograd.grad(selected.sum(), x_in)[0] * scale


class SpacedProcess:
    """A discrete diffusion, respaced to the steps that sampling takes.

    Args:
        times: t by index, rising; what the networks get.
        alphas_cumprod: alpha_bar by index.
    """

    def __init__(self, times: np.ndarray, alphas_cumprod: np.ndarray) -> None:
        self.times: list[float] = times.tolist()
        beta, before = betas(alphas_cumprod), np.append(1.0, alphas_cumprod[:-1])
        self.alphas_cumprod, self.alphas_cumprod_prev = alphas_cumprod, before
        self.sqrt_recip_alphas_cumprod = np.sqrt(1 / alphas_cumprod)
        self.sqrt_recipm1_alphas_cumprod = np.sqrt(1 / alphas_cumprod - 1)
        self.posterior_variance = beta * (1 - before) / (1 - alphas_cumprod)
        self.posterior_log_variance = np.log(np.append(self.posterior_variance[1], self.posterior_variance[1:]))
        self.posterior_mean_coef1 = beta * np.sqrt(before) / (1 - alphas_cumprod)
        self.posterior_mean_coef2 = (1 - before) * np.sqrt(1 - beta) / (1 - alphas_cumprod)

    def ddim_sample_loop(self, model: Model, condition: Model, noise: Tensor) -> Tensor:
        """From noise at the last index to x_0 (B, D)."""
        x = noise
        for i in reversed(range(len(self.times))):
            index = torch.tensor([i] * len(x), device=x.device)
            with torch.no_grad():
                x = self.ddim_sample(model, condition, x, index)
        return x

    def ddim_sample(self, model: Model, condition: Model, x: Tensor, index: Tensor, eta: float = 0.0) -> Tensor:
        """x at the index before."""
        out = self.p_mean_variance(model, x, index)
        out = self.condition_score(condition, out, x, index)
        eps = self.eps_from_xstart(x, index, out["pred_xstart"])
        alpha_bar = extract(self.alphas_cumprod, index, x)
        alpha_bar_prev = extract(self.alphas_cumprod_prev, index, x)
        sigma = eta * torch.sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)) * torch.sqrt(1 - alpha_bar / alpha_bar_prev)
        noise = torch.randn_like(x)
        mean = out["pred_xstart"] * torch.sqrt(alpha_bar_prev) + torch.sqrt(1 - alpha_bar_prev - sigma**2) * eps
        nonzero = (index != 0).to(x.dtype).view(-1, 1)
        return mean + nonzero * sigma * noise

    def p_mean_variance(self, model: Model, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        """The unguided prediction of x_0, and the posterior's mean and variance."""
        eps = model(x, self.mapped(x, index))
        variance = extract(self.posterior_variance, index, x)
        log_variance = extract(self.posterior_log_variance, index, x)
        pred_xstart = self.xstart_from_eps(x, index, eps)
        mean = self.posterior_mean(pred_xstart, x, index)
        return {"mean": mean, "variance": variance, "log_variance": log_variance, "pred_xstart": pred_xstart}

    def condition_score(self, condition: Model, out: dict[str, Tensor], x: Tensor, index: Tensor) -> dict[str, Tensor]:
        """The prediction of x_0 and the posterior's mean after guidance."""
        alpha_bar = extract(self.alphas_cumprod, index, x)
        eps = self.eps_from_xstart(x, index, out["pred_xstart"])
        eps = eps - (1 - alpha_bar).sqrt() * condition(x, self.mapped(x, index))
        pred_xstart = self.xstart_from_eps(x, index, eps)
        return {**out, "pred_xstart": pred_xstart, "mean": self.posterior_mean(pred_xstart, x, index)}

    def posterior_mean(self, xstart: Tensor, x: Tensor, index: Tensor) -> Tensor:
        """The mean of q(x_before | x, x_0); its variance is looked up beside it, as there."""
        mean = extract(self.posterior_mean_coef1, index, x) * xstart
        mean = mean + extract(self.posterior_mean_coef2, index, x) * x
        extract(self.posterior_variance, index, x)
        extract(self.posterior_log_variance, index, x)
        return mean

    def xstart_from_eps(self, x: Tensor, index: Tensor, eps: Tensor) -> Tensor:
        """x_0 = x / sqrt(alpha_bar) - sqrt(1 / alpha_bar - 1) eps."""
        scaled = extract(self.sqrt_recip_alphas_cumprod, index, x) * x
        return scaled - extract(self.sqrt_recipm1_alphas_cumprod, index, x) * eps

    def eps_from_xstart(self, x: Tensor, index: Tensor, xstart: Tensor) -> Tensor:
        """The inverse of `xstart_from_eps`."""
        scaled = extract(self.sqrt_recip_alphas_cumprod, index, x) * x
        return (scaled - xstart) / extract(self.sqrt_recipm1_alphas_cumprod, index, x)

    def mapped(self, x: Tensor, index: Tensor) -> Tensor:
        """The networks' times of indices, by a table that is made anew."""
        return torch.tensor(self.times, device=index.device, dtype=x.dtype)[index]


def extract(array: np.ndarray, index: Tensor, like: Tensor) -> Tensor:
    """The coefficients of rows, (B, 1) expanded to the shape of `like`, in its precision (float32 in the original)."""
    picked = torch.from_numpy(array).to(device=index.device)[index].to(like.dtype)
    return picked[:, None].expand(like.shape)
