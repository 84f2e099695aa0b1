"""Noise bands: equal intervals of t in which validation figures are kept apart."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lcg.diffusion import diffuse
from lcg.diffusion.schedule import Schedule

BANDS = 5


def band_name(band: int) -> str:
    """Such as `t0.2-0.4`."""
    return f"t{band / BANDS:.1f}-{(band + 1) / BANDS:.1f}"


def band_times(band: int, count: int, device: torch.device) -> Tensor:
    """(count,) times spread evenly over a band, the same at every validation."""
    return (band + (torch.arange(count, device=device) + 0.5) / count) / BANDS


def noised(schedule: Schedule, z_0: Tensor, batch_idx: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """A validation batch noised to every band in turn: band, z_t (B, *latent), t (B,).

    The noise is that of the batch's number, so that it is the same at every validation, and on the CPU, so that it is
    the same on every device.
    """
    generator = torch.Generator().manual_seed(batch_idx)
    for band in range(BANDS):
        t = band_times(band, len(z_0), z_0.device)
        eps = torch.randn(z_0.shape, generator=generator).to(z_0)
        yield band, diffuse(schedule, z_0, t, eps), t
