"""The synthesis network of StyleGAN2: a learnt constant, grown by modulated convolutions from 4 x 4 to an image.

Each resolution has a block of two convolutions, the first of which doubles the resolution (the first block has the
second one only). Colours come from a 1 x 1 convolution without demodulation, by architecture:

    skip      every block adds its own to the enlarged image of the block before; the official networks of faces
    resnet    only the last block has colours, and a block is a residual one, (f(x) + g(x)) / sqrt(2)
    orig      only the last block has colours

(Karras et al. 2020, arXiv:1912.04958, figures 2 and 7). In W+ each convolution takes a latent of its own, and a block's
colours take that of the next block's first convolution. Noise is added after each convolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcg.generators.stylegan.layers import Affine, activate, demodulation, limit, scaled
from lcg.generators.stylegan.resampling import binomial, downsample, upsample

Architecture = Literal["skip", "resnet", "orig"]


class StyledConvolution(nn.Module):
    """A modulated 3 x 3 convolution, noise, bias and the leaky rectifier.

    Args:
        w_dim: dimension of w.
        inputs: channels of its input.
        outputs: channels of its output.
        size: height and width of its output.
        doubles: whether its input has half the size.
        clamp: bound of its output, times the gain.
    """

    noise: Tensor

    def __init__(self, w_dim: int, inputs: int, outputs: int, size: int, doubles: bool, clamp: float | None) -> None:
        super().__init__()
        self.doubles, self.clamp = doubles, clamp
        self.affine = Affine(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.noise_strength = nn.Parameter(torch.empty(()))
        self.register_buffer("noise", torch.empty(size, size))

    def forward(self, x: Tensor, w: Tensor, f: Tensor, noisy: bool, gain: float) -> Tensor:
        """Output (B, outputs, size, size) of x (B, inputs, ., .), w (B, w_dim) and the taps f of the enlargement."""
        style = self.affine(w)
        x = scaled(x, style)
        if self.doubles:
            x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
            x = downsample(F.pad(x, (1, 1, 1, 1)), 2 * f, 1)
        else:
            x = F.conv2d(x, self.weight, padding=1)
        x = scaled(x, demodulation(self.weight, style))
        if noisy:
            x = x + self.noise_strength * self.noise
        return limit(activate(x + self.bias[:, None, None], gain), None if self.clamp is None else self.clamp * gain)


class Colours(nn.Module):
    """A modulated 1 x 1 convolution to RGB, not demodulated."""

    def __init__(self, w_dim: int, inputs: int, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = Affine(w_dim, inputs)
        self.weight, self.bias = nn.Parameter(torch.empty(3, inputs, 1, 1)), nn.Parameter(torch.empty(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return limit(F.conv2d(scaled(x, self.affine(w)), self.weight, self.bias), self.clamp)


class Block(nn.Module):
    """All of one resolution; the arguments are those of `Synthesis`."""

    def __init__(
        self,
        w_dim: int,
        inputs: int,
        outputs: int,
        size: int,
        last: bool,
        architecture: Architecture,
        clamp: float | None,
    ) -> None:
        super().__init__()
        first = size == 4
        self.first = None if first else StyledConvolution(w_dim, inputs, outputs, size, True, clamp)
        self.second = StyledConvolution(w_dim, outputs, outputs, size, False, clamp)
        self.colours = Colours(w_dim, outputs, clamp) if last or architecture == "skip" else None
        self.shortcut: nn.Parameter | None = None
        if architecture == "resnet" and not first:
            self.shortcut = nn.Parameter(torch.empty(outputs, inputs, 1, 1))

    def forward(self, x: Tensor, image: Tensor, w: Tensor, f: Tensor, noisy: bool) -> tuple[Tensor, Tensor]:
        """Features and image after this block, of those before; w (B, ., w_dim) begins with its own."""
        before, gain = x, 1.0 if self.shortcut is None else math.sqrt(0.5)
        own = 1 if self.first is None else 2
        if self.first is not None:
            x = self.first(x, w[:, 0], f, noisy, 1.0)
        x = self.second(x, w[:, own - 1], f, noisy, gain)
        if self.shortcut is not None:
            x = x + gain * upsample(F.conv2d(before, self.shortcut), 2 * f, 2, (2, 1))
        image = upsample(image, 2 * f, 2, (2, 1))
        if self.colours is not None:
            image = image + self.colours(x, w[:, own])
        return x, image


class Synthesis(nn.Module):
    """Images of latents in W+.

    Args:
        w_dim: dimension of w.
        channels: of each resolution, from 4 x 4 on; their number says how large the image is.
        architecture: skip, resnet or orig.
        clamp: bound of each layer's output; None for none.
    """

    taps: Tensor

    def __init__(
        self,
        w_dim: int,
        channels: Sequence[int],
        architecture: Architecture = "skip",
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.size = 4 * 2 ** (len(channels) - 1)
        self.constant = nn.Parameter(torch.empty(channels[0], 4, 4))
        self.blocks = nn.ModuleList(
            Block(w_dim, channels[max(k - 1, 0)], width, 4 * 2**k, k == len(channels) - 1, architecture, clamp)
            for k, width in enumerate(channels)
        )
        self.register_buffer("taps", binomial(), persistent=False)
        self.latents = 2 * len(channels)
        """How many w an image takes: one for each convolution, and one for the last colours."""

    def forward(self, w: Tensor, noisy: bool = True) -> Tensor:
        """Images (B, 3, size, size), not clamped, of w (B, latents, w_dim)."""
        x, first = self.constant.expand(len(w), -1, -1, -1), 0
        image = w.new_zeros(len(w), 3, 2, 2)
        for k, block in enumerate(self.blocks):
            x = x.contiguous(memory_format=torch.channels_last)  # filters of single channels are thrice as fast so
            x, image = block(x, image, w[:, first:], self.taps, noisy)
            first += 1 if k == 0 else 2
        return image
