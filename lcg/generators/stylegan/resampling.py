"""Changing the rate of images with finite impulse responses, and low-pass filters to do it with.

Raising the rate puts zeros between samples and smooths them; lowering it smooths, then drops samples:

    up:    y = h * zeros(x)        down:    y = (h * x)[::factor]        h[n, m] = f[n] f[m]  or any  f[n, m]

with * a true convolution. A separable filter runs along one axis after the other. Both are convolutions of each channel
by itself, transposed ones on the way up, for which PyTorch has fast kernels.

Low-pass filters are windowed ideal ones: a sinc or, where the response has to be round in frequency, the jinc
J_1(2 pi f_c r) / r, times a Kaiser window, whose shape follows from the number of taps and the width of the transition
(Karras et al. 2021, arXiv:2106.12423, section 3.2 and appendix C.1; Kaiser 1974).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(x: Tensor, f: Tensor, factor: int, padding: tuple[int, int]) -> Tensor:
    """Raises the rate of images.

    Args:
        x: (B, C, H, W).
        f: taps (K,) of a separable filter, or (K, K) of any other.
        factor: output samples per input sample, at least 1; the sum of the taps should be `factor` for each axis.
        padding: zeros put before and after, along each axis, once each input sample is followed by factor - 1 zeros;
            negative ones crop.

    Returns:
        (B, C, H', W') with H' = H factor + sum(padding) - K + 1.
    """
    taps, channels = len(f), x.shape[1]
    y = x
    for h in (f[None], f[:, None]) if f.ndim == 1 else (f,):
        strides = tuple(factor if size > 1 else 1 for size in h.shape)
        y = F.conv_transpose2d(y, h.expand(channels, 1, *h.shape), stride=strides, groups=channels)
    before = padding[0] - taps + 1  # the transposed convolution has padded by taps - 1 already
    total = sum(padding) - taps + 1
    below, right = (n * factor + total - full - before for n, full in zip(x.shape[2:], y.shape[2:], strict=True))
    return F.pad(y, (before, right, before, below))


def downsample(x: Tensor, f: Tensor, factor: int) -> Tensor:
    """Lowers the rate of images.

    Args:
        x: (B, C, H, W).
        f: taps (K,) or (K, K), as for `upsample`; their sum should be 1 for each axis.
        factor: input samples per output sample, at least 1.

    Returns:
        (B, C, H', W') with H' = ceil((H - K + 1) / factor).
    """
    channels = x.shape[1]
    f = f.flip(tuple(range(f.ndim)))  # PyTorch's convolution is a correlation
    for h in (f[None], f[:, None]) if f.ndim == 1 else (f,):
        strides = tuple(factor if size > 1 else 1 for size in h.shape)
        x = F.conv2d(x, h.expand(channels, 1, *h.shape), stride=strides, groups=channels)
    return x


def binomial() -> Tensor:
    """1 3 3 1, scaled to the sum 1: the filter of StyleGAN2."""
    return torch.tensor([0.125, 0.375, 0.375, 0.125])


def low_pass(taps: int, cutoff: float, width: float, rate: float, round_response: bool = False) -> Tensor:
    """A low-pass filter of linear phase whose taps sum to 1.

    Args:
        taps: their number K, along each axis.
        cutoff: frequency at which the response has fallen to a half, per unit of length, below rate / 2.
        width: of the transition, in the same unit.
        rate: samples per unit of length.
        round_response: whether it depends on the length of the frequency alone; a filter of (K, K) taps.

    Returns:
        (K,) or (K, K), float32.
    """
    n = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    window = torch.kaiser_window(taps, periodic=False, beta=kaiser_beta(taps, 2 * width / rate), dtype=torch.float64)
    if round_response:
        r = torch.hypot(*torch.meshgrid(n, n, indexing="ij")) / rate
        limit = torch.full_like(r, math.pi * cutoff)  # of the jinc at r = 0, which an odd K has
        ideal = torch.where(r > 0, torch.special.bessel_j1(2 * math.pi * cutoff * r) / r.clamp(min=1e-300), limit)
        f = ideal * window.outer(window)
    else:
        f = torch.sinc(2 * cutoff / rate * n) * window
    return (f / f.sum()).float()


def kaiser_beta(taps: int, width: float) -> float:
    """Shape of a Kaiser window for a transition of this width, as a share of half the rate (Kaiser's own formulae)."""
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0
