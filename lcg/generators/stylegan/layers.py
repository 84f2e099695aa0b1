"""What StyleGAN's networks have in common: the mapping network and the modulated convolution.

A style s = A w + b scales the input channels of a convolution; its output is scaled back to unit variance:

    y_o = d_o sum_i W_oi * (s_i x_i),        d_o = (sum_{i,k} (s_i W_oik)^2 + 1e-8)^(-1/2)

(Karras et al. 2020, arXiv:1912.04958, equations 1 and 3). Input and output are scaled rather than the weights, which is
the same and lets one convolution serve all rows. Equalised learning rates matter in training alone; the weights of
these networks hold them already.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
"""Of the leaky rectifier for negative values."""


class Affine(nn.Module):
    """W x + b, of which nothing is drawn at construction: weights come from a file."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(outputs, inputs)), nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def activate(x: Tensor, gain: float = 1.0) -> Tensor:
    """The leaky rectifier, times sqrt(2) gain; the root keeps unit variance about where it is."""
    return F.leaky_relu(x, SLOPE) * (math.sqrt(2) * gain)


def limit(x: Tensor, bound: float | None) -> Tensor:
    """Clamps to [-bound, bound], as networks do that were trained in half precision; None for no bound."""
    return x if bound is None else x.clamp(-bound, bound)


class MappingNetwork(nn.Module):
    """w of z: the direction of z, through a perceptron of leaky rectifiers.

    Args:
        z_dim: dimension of z.
        w_dim: dimension of w, and of what is between.
        layers: how many.
    """

    w_mean: Tensor

    def __init__(self, z_dim: int, w_dim: int, layers: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.layers = nn.ModuleList(Affine(z_dim if k == 0 else w_dim, w_dim) for k in range(layers))
        self.register_buffer("w_mean", torch.zeros(w_dim))

    def forward(self, z: Tensor) -> Tensor:
        """w (B, w_dim) of z (B, z_dim), which need not be normalised."""
        w = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            w = activate(layer(w))
        return w

    def truncated(self, z: Tensor, psi: float) -> Tensor:
        """w drawn towards the mean of all w: w_mean + psi (w - w_mean)."""
        return self.w_mean + psi * (self(z) - self.w_mean)


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """d (B, O) of weights (O, I, K, K) and styles (B, I)."""
    return (style.square() @ weight.square().sum((2, 3)).T + 1e-8).rsqrt()


def scaled(x: Tensor, scale: Tensor) -> Tensor:
    """x (B, C, H, W), each channel times its scale (B, C)."""
    return x * scale[:, :, None, None]
