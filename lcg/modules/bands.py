"""Noise bands: equal intervals of t in which validation figures are kept apart."""

import torch
from torch import Tensor

BANDS = 5


def band_name(band: int) -> str:
    """Such as `t0.2-0.4`."""
    return f"t{band / BANDS:.1f}-{(band + 1) / BANDS:.1f}"


def band_times(band: int, count: int, device: torch.device) -> Tensor:
    """(count,) times spread evenly over a band, the same at every validation."""
    return (band + (torch.arange(count, device=device) + 0.5) / count) / BANDS
