"""Several guidance scales of the same noise: all of them in one call, beside a call each.

A sweep over scales runs the same networks on the same noise; only the weight differs, which may be one per row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lcg.benchmarks.speed.grid import START
from lcg.benchmarks.speed.nets import Nets
from lcg.benchmarks.speed.ours import guided
from lcg.diffusion import DDIM

SCALES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0)


def separately(nets: Nets, steps: int, noise: Tensor) -> Tensor:
    """(scales, B, D) by one call for each scale."""
    sampler = DDIM(nets.schedule, steps, START)
    return torch.stack([sampler.sample(guided(nets, scale), noise) for scale in SCALES])


def together(nets: Nets, steps: int, noise: Tensor) -> Tensor:
    """(scales, B, D) by one call for all scales."""
    weights = noise.new_tensor(SCALES).repeat_interleave(len(noise))
    z_0 = DDIM(nets.schedule, steps, START).sample(guided(nets, lambda t: weights), noise.repeat(len(SCALES), 1))
    return z_0.unflatten(0, (len(SCALES), len(noise)))


def scale_runs(nets: Nets, steps: int, batch: int) -> dict[str, Callable[[], Tensor]]:
    """What is to be timed."""
    noise = nets.noise(batch)
    return {
        f"{len(SCALES)} calls": lambda: separately(nets, steps, noise),
        "one call": lambda: together(nets, steps, noise),
    }
