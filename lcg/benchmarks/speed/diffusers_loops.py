"""A peer: diffusers' own schedulers, driven as its pipelines drive them, with one classifier per attribute.

    eps_hat = eps_theta(x, t) - sqrt(1 - alpha_bar_t) sum_i w grad_x log p(y_i | x, t),      x = scheduler.step(eps_hat)

The scheduler objects are those of the library (github.com/huggingface/diffusers); the loop around them is what its
pipelines have in common, with the gradient as in the community's classifier- and CLIP-guided ones: set the timesteps,
then at each of them scale the model's input, expand the timestep to the batch, evaluate the network, differentiate each
attribute's log-probability by itself, shift the prediction, step. As in its U-Nets a time per row enters the networks.

Timesteps are integers of a schedule of 1000 steps (`lcg.benchmarks.speed.grid.trained`), whose stride falls on lcg's
times. The library multiplies 1000 factors in float32 for its alpha_bar, of which little is left of 1 - alpha_bar near
t = 0; the table is therefore set in float64. DDIM then agrees with lcg to rounding in float64. The multistep solver
keeps its sigmas in float32 and rounds its state to it, so that it can agree to `FLOAT32` only.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from lcg.benchmarks.speed.candidate import Loop
from lcg.benchmarks.speed.grid import TRAINED, betas, trained
from lcg.benchmarks.speed.guided_diffusion import all_conditions
from lcg.benchmarks.speed.nets import Nets
from lcg.benchmarks.speed.plain import plain

FLOAT32 = 1e-5
"""Relative agreement with a solver whose state is in float32."""


def diffusers_ddim(nets: Nets, steps: int) -> Loop:
    """DDIMScheduler at eta = 0."""
    return _driven(nets, steps, DDIMScheduler, clip_sample=False)


def diffusers_2m(nets: Nets, steps: int) -> Loop:
    """DPMSolverMultistepScheduler, second order DPM-Solver++."""
    return _driven(nets, steps, DPMSolverMultistepScheduler)


def _driven(nets: Nets, steps: int, kind: type[Any], **options: Any) -> Loop:
    """The loop around a scheduler of a kind."""
    times, alpha_bar = trained(nets.schedule, steps)
    scheduler = kind(
        num_train_timesteps=TRAINED, trained_betas=betas(alpha_bar), timestep_spacing="trailing", **options
    )
    scheduler.alphas_cumprod = torch.from_numpy(alpha_bar)
    return partial(_loop, nets, steps, scheduler, torch.from_numpy(times).to(nets.like))


@torch.no_grad()
def _loop(nets: Nets, steps: int, scheduler: Any, times: Tensor, noise: Tensor) -> Tensor:
    """Noise (B, D) to clean latents; `times` (1000,) are what the networks know the timesteps by."""
    scheduler.set_timesteps(steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(latents, timestep)
        t = times[timestep.expand(len(latents))]
        eps = plain(nets.prior.net, model_input, t)
        beta_prod = 1 - scheduler.alphas_cumprod[timestep]
        eps = eps - torch.sqrt(beta_prod) * all_conditions(nets, model_input, t)
        latents = scheduler.step(eps, timestep, latents).prev_sample
    return latents
