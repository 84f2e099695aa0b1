"""The layers of a diffusion autoencoder: residual blocks that listen to the time and to z_sem, and self-attention.

    AdaGN(h, t, z_sem) = z_s (t_s GroupNorm(h) + t_b)

with t_s - 1 and t_b affine in the embedded time and z_s - 1 in z_sem, after a SiLU each (Preechakul et al. 2022,
arXiv:2111.15640, equation 7). The blocks are those of Dhariwal & Nichol 2021 (arXiv:2105.05233, appendix A), which
halve and double the resolution inside a residual block.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Resample = Literal["down", "up"]


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 32 groups of equal size."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def resampled(h: Tensor, resample: Resample | None) -> Tensor:
    """Halved by averages, doubled by repetition, or as it is."""
    if resample == "down":
        return functional.avg_pool2d(h, 2)
    return functional.interpolate(h, scale_factor=2, mode="nearest") if resample == "up" else h


def time_features(index: Tensor, size: int) -> Tensor:
    """Cosines and sines (B, size) of steps (B,) in [0, 1000], of wavelengths 2 pi to 2 pi 10^4 in geometric order."""
    half = size // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=index.device, dtype=index.dtype) / half)
    phases = index[:, None] * rates
    return torch.cat([phases.cos(), phases.sin()], dim=1)


class ResidualBlock(nn.Module):
    """skip(h) + conv(silu(AdaGN(conv(silu(norm(h)))))); without time and z_sem, skip(h) + conv(silu(norm(h))).

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        embed: dimension of the embedded time; 0 for a block that knows neither time nor z_sem.
        latent: dimension of z_sem.
        dropout: probability, in training.
        resample: halve or double the resolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embed: int = 0,
        latent: int = 0,
        dropout: float = 0.0,
        resample: Resample | None = None,
    ) -> None:
        super().__init__()
        self.resample: Resample | None = resample
        self.norm_in, self.conv_in = group_norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conditional = embed > 0
        if self.conditional:
            self.time_affine, self.latent_affine = nn.Linear(embed, 2 * outputs), nn.Linear(latent, outputs)
            self.norm_out, self.conv_out = group_norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
            self.dropout = nn.Dropout(dropout)
            nn.init.zeros_(self.conv_out.weight)
            nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type] # it has one
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, h: Tensor, time: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        """h (B, C, H, W), the embedded time (B, embed) and z_sem (B, latent)."""
        r = self.conv_in(resampled(functional.silu(self.norm_in(h)), self.resample))
        if self.conditional and time is not None and z is not None:
            scale, shift = self.time_affine(functional.silu(time)).chunk(2, dim=1)
            listens = 1 + self.latent_affine(functional.silu(z))
            r = self.norm_out(r) * (1 + scale)[:, :, None, None] + shift[:, :, None, None]
            r = self.conv_out(self.dropout(functional.silu(r * listens[:, :, None, None])))
        return self.skip(resampled(h, self.resample)) + r


class Attention(nn.Module):
    """h + projection(attention(norm(h))), one head over all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.qkv = group_norm(channels), nn.Conv1d(channels, 3 * channels, 1)
        self.projection = nn.Conv1d(channels, channels, 1)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)  # type: ignore[arg-type] # it has one

    def forward(self, h: Tensor) -> Tensor:
        """h (B, C, H, W)."""
        flat = h.flatten(2)
        q, k, v = (part.transpose(1, 2) for part in self.qkv(self.norm(flat)).chunk(3, dim=1))
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return (flat + self.projection(attended)).view_as(h)


class Stage(nn.ModuleList):
    """Layers one after another, of which the residual blocks are told the time and z_sem."""

    def forward(self, h: Tensor, time: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        for layer in self:
            h = layer(h, time, z) if isinstance(layer, ResidualBlock) else layer(h)
        return h
