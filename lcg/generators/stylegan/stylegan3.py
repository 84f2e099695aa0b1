"""The synthesis network of StyleGAN3: sines, bent by modulated convolutions, without aliasing.

Feature maps are samples of continuous signals that are band-limited at each layer. They begin as sines of fixed
frequencies over a plane, which the first latent turns and moves, x = A sin(2 pi (omega . R (p - p_0) + phi)); later
layers see no coordinates, so what the image shows moves with them. A rectifier makes frequencies that its rate cannot
hold, so it works at a higher rate, between two low-pass filters:

    x <- down(clamp(sqrt(2) leaky(up(W * (s x) + b)))),

Layers are larger than what is shown by a margin, since convolutions do not know what is beyond the edge. Cut-off
frequencies grow geometrically from layer to layer, `Layer.plan` (Karras et al. 2021, arXiv:2106.12423, section 3 and
appendix C). Layers have no noise.

    t     3 x 3 convolutions, separable filters: equivariant to translation
    r     1 x 1 convolutions, filters that are round in frequency: equivariant to rotation too
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcg.generators.stylegan.layers import SLOPE, Affine, demodulation, limit, scaled
from lcg.generators.stylegan.resampling import downsample, low_pass, upsample

OVERSAMPLING = 2
"""Rate of the rectifiers, in units of the larger of input and output."""


@dataclass(frozen=True)
class Signal:
    """What a feature map is samples of; frequencies are in cycles per image.

    Attributes:
        size: samples along each axis, with the margin.
        rate: samples per image along each axis.
        cutoff: the frequency f_c that it is limited to.
        half_width: half of the transition f_h, from the cut-off to where nothing is left.
    """

    size: int
    rate: float
    cutoff: float
    half_width: float


def plan(
    resolution: int,
    layers: int,
    critical: int,
    first_cutoff: float,
    first_stopband: float,
    last_stopband: float,
    margin: int,
) -> list[Signal]:
    """The signals of all layers, and of the image as the last: cut-offs grow geometrically, but the last `critical`.

    Args:
        resolution: height and width of the image.
        layers: how many, without the one for colours.
        critical: how many of the last ones are sampled critically, at the image's rate.
        first_cutoff: of the first signal.
        first_stopband: frequency above which nothing is left of the first signal.
        last_stopband: the same of the last, in units of its cut-off.
        margin: samples beyond each edge of the image.
    """
    signals, last_cutoff = [], resolution / 2
    for k in range(layers + 1):
        share = min(k / (layers - critical), 1)
        cutoff = first_cutoff * (last_cutoff / first_cutoff) ** share
        stopband = first_stopband * (last_cutoff * last_stopband / first_stopband) ** share
        rate = 2.0 ** math.ceil(math.log2(min(2 * stopband, resolution)))
        size = resolution if k >= layers - 1 else int(rate) + 2 * margin
        signals.append(Signal(size, rate, cutoff, max(stopband, rate / 2) - cutoff))
    return signals


class Waves(nn.Module):
    """The input: sines over a plane that the latent turns and moves.

    Args:
        w_dim: dimension of w.
        channels: how many sines.
        signal: what is wanted of them.
    """

    frequencies: Tensor
    phases: Tensor
    transform: Tensor
    positions: Tensor

    def __init__(self, w_dim: int, channels: int, signal: Signal) -> None:
        super().__init__()
        self.signal = signal
        self.affine = Affine(w_dim, 4)
        self.weight = nn.Parameter(torch.empty(channels, channels))
        self.register_buffer("frequencies", torch.empty(channels, 2))
        self.register_buffer("phases", torch.empty(channels))
        self.register_buffer("transform", torch.eye(3))
        positions = (torch.arange(signal.size, dtype=torch.float64) - (signal.size - 1) / 2) / signal.rate
        self.register_buffer("positions", positions.float(), persistent=False)

    def forward(self, w: Tensor) -> Tensor:
        """x (B, channels, size, size) of w (B, w_dim)."""
        turn, shift = self.affine(w).split(2, dim=1)
        length = turn.norm(dim=1, keepdim=True).clamp(min=1e-8)
        (cosine, sine), shift = (turn / length).T, shift / length
        rotation = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
        origin = (self.transform[:2, 2] - shift)[:, :, None]
        phases = self.phases + (self.frequencies @ rotation @ origin).squeeze(2)
        frequencies = self.frequencies @ rotation @ self.transform[:2, :2]
        # What a zoom of `transform` would carry beyond the band fades out.
        band = self.signal.rate / 2 - self.signal.cutoff
        amplitudes = (1 - (frequencies.norm(dim=2) - self.signal.cutoff) / band).clamp(0, 1)
        across, down = self.positions * frequencies[:, :, :1], self.positions * frequencies[:, :, 1:]
        angles = 2 * math.pi * (across[:, :, None, :] + down[:, :, :, None] + phases[:, :, None, None])
        return torch.einsum("oi,bihw->bohw", self.weight, scaled(angles.sin(), amplitudes))


class FilteredConvolution(nn.Module):
    """A modulated convolution and a rectifier between two low-pass filters; for colours, neither filters nor rectifier.

    Args:
        w_dim: dimension of w.
        inputs: channels of its input.
        outputs: channels of its output.
        source: signal of its input.
        target: signal of its output.
        kernel: size of the convolution.
        taps: of each filter, for each sample that it puts between or takes away.
        round_response: whether the second filter is round in frequency.
        colours: whether this is the last layer.
        clamp: bound of the rectifier's output; None for none.
    """

    up: Tensor
    down: Tensor
    gain: Tensor

    def __init__(
        self,
        w_dim: int,
        inputs: int,
        outputs: int,
        source: Signal,
        target: Signal,
        kernel: int,
        taps: int,
        round_response: bool,
        colours: bool,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.colours, self.clamp, self.kernel = colours, clamp, kernel
        self.affine = Affine(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.register_buffer("gain", torch.ones(()))
        if colours:
            return
        rate = OVERSAMPLING * max(source.rate, target.rate)
        self.raised, self.lowered = round(rate / source.rate), round(rate / target.rate)
        up = low_pass(taps * self.raised, source.cutoff, 2 * source.half_width, rate)
        down = low_pass(taps * self.lowered, target.cutoff, 2 * target.half_width, rate, round_response)
        self.register_buffer("up", up, persistent=False)
        self.register_buffer("down", down, persistent=False)
        wanted = (target.size - 1) * self.lowered + taps * (self.raised + self.lowered) - 1
        total = wanted - (source.size + kernel - 1) * self.raised
        before = (total + self.raised) // 2  # samples lie at the centres of equal intervals, at any rate
        self.padding = (before, total - before)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Output (B, outputs, H', W') of x (B, inputs, H, W) and w (B, w_dim)."""
        style = self.affine(w)
        x = F.conv2d(scaled(x, style), self.weight, padding=self.kernel - 1)
        if self.colours:
            return limit(self.gain * x + self.bias[:, None, None], self.clamp)
        x = scaled(x, self.gain * demodulation(self.weight, style)) + self.bias[:, None, None]
        x = upsample(x, self.raised * self.up, self.raised, self.padding)
        x = limit(F.leaky_relu(x, SLOPE) * math.sqrt(2), self.clamp)
        return downsample(x, self.down, self.lowered)


class Synthesis(nn.Module):
    """Images of latents in W+.

    Args:
        w_dim: dimension of w.
        resolution: height and width of the image.
        channels: of the input and of each layer but that for colours.
        critical: how many of the last layers are sampled at the image's rate.
        first_cutoff: of the first signal, in cycles per image.
        first_stopband: frequency above which nothing is left of the first signal.
        last_stopband: the same of the last, in units of its cut-off.
        margin: samples beyond each edge.
        kernel: size of convolutions, 3 (t) or 1 (r).
        taps: of each filter, for each sample that it puts between or takes away.
        round_response: whether filters are round in frequency (r) rather than separable (t).
        clamp: bound of each layer's output; None for none.
        scale: of the image.
    """

    def __init__(
        self,
        w_dim: int,
        resolution: int,
        channels: Sequence[int],
        critical: int = 2,
        first_cutoff: float = 2.0,
        first_stopband: float = 2**2.1,
        last_stopband: float = 2**0.3,
        margin: int = 10,
        kernel: int = 3,
        taps: int = 6,
        round_response: bool = False,
        clamp: float | None = 256.0,
        scale: float = 0.25,
    ) -> None:
        super().__init__()
        layers = len(channels)
        signals = plan(resolution, layers, critical, first_cutoff, first_stopband, last_stopband, margin)
        self.size, self.scale = resolution, scale
        self.waves = Waves(w_dim, channels[0], signals[0])
        self.layers = nn.ModuleList()
        for k, signal in enumerate(signals):
            before, colours = max(k - 1, 0), k == layers
            self.layers.append(
                FilteredConvolution(
                    w_dim,
                    channels[before],
                    3 if colours else channels[k],
                    signals[before],
                    signal,
                    1 if colours else kernel,
                    taps,
                    round_response and k < layers - critical,
                    colours,
                    clamp,
                )
            )
        self.latents = layers + 2
        """How many w an image takes: one for the input, one for each layer."""

    def forward(self, w: Tensor) -> Tensor:
        """Images (B, 3, size, size), not clamped, of w (B, latents, w_dim)."""
        x = self.waves(w[:, 0])
        for k, layer in enumerate(self.layers):
            x = x.contiguous(memory_format=torch.channels_last)  # filters of single channels are thrice as fast so
            x = layer(x, w[:, k + 1])
        return self.scale * x
