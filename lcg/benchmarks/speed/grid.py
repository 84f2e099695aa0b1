"""The times that all loops share, as lcg has them and as the discrete schedules of peers need them.

lcg asks its denoiser at t_start = tau_1 > ... > tau_S = t_end. Discrete code bases know a time by its index in a table
of alpha_bar_t = alpha_t^2, in which time rises: either one with these S times only (a respaced process), or one with
1000 steps of training, of which every (1000 / S)-th is taken. The second is here lcg's schedule in 1000 steps whose
stride falls on lcg's times,

    t_n = tau at n = 999, 999 - 1000/S, ...,      linear in n between them, and from there down to 0 at n = -1.
"""

from __future__ import annotations

import numpy as np
import torch

from lcg.diffusion import Schedule, time_grid

START = 0.9
"""t_start: random networks are no denoisers, and from 0.995 on their z_0_hat would be 127 times as large as noise."""

TRAINED = 1000
"""Steps of training of the discrete schedules that peers ship."""


def spaced(schedule: Schedule, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(t, alpha_bar_t), each (steps,) in float64 with t rising: the times of a sampler from `START`."""
    t = time_grid(schedule, steps - 1, START).flip(0)
    return t.numpy(), schedule.alpha(t).square().numpy()


def trained(schedule: Schedule, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(t, alpha_bar_t), each (1000,) in float64 with t rising; those of `spaced` are every (1000 / steps)-th.

    Raises:
        ValueError: steps does not divide 1000.
    """
    if TRAINED % steps:
        raise ValueError(f"`steps` must divide {TRAINED}, got {steps}: the stride is a whole number; take 10, 20 or 50")
    stride = TRAINED // steps
    t, _ = spaced(schedule, steps)
    nodes = np.arange(stride - 1, TRAINED, stride)
    t = np.interp(np.arange(TRAINED), np.concatenate(([-1], nodes)), np.concatenate(([0.0], t)))
    return t, schedule.alpha(torch.from_numpy(t)).square().numpy()


def betas(alpha_bar: np.ndarray) -> np.ndarray:
    """beta_n = 1 - alpha_bar_n / alpha_bar_{n-1}, with alpha_bar_{-1} = 1."""
    return 1 - alpha_bar / np.concatenate(([1.0], alpha_bar[:-1]))
