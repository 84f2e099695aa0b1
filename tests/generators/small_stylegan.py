"""Small StyleGANs with random weights: everything that a trained one has, at any size.

Weights are drawn as training begins with them. Noise is made audible, colours are so faint that few pixels saturate,
and the signals of StyleGAN3 are scaled to unit power layer by layer, as its training does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcg.generators.stylegan import stylegan2, stylegan3
from lcg.generators.stylegan.files import write
from lcg.generators.stylegan.generator import networks
from lcg.generators.stylegan.layers import Affine

NOISE = 0.1
"""Strength of the noise in each layer, whose output has unit power."""
CONTRAST = 0.3
"""Standard deviation of images, about."""


def write_stylegan2(
    path: Path,
    channels: Sequence[int] = (32, 32, 32, 16, 8),
    w_dim: int = 32,
    architecture: str = "skip",
    clamp: float | None = None,
    seed: int = 0,
) -> str:
    """A file for `StyleGAN2(weights=...)`; five numbers of channels give images of 64 x 64."""
    synthesis = {"w_dim": w_dim, "channels": list(channels), "architecture": architecture, "clamp": clamp}
    return write_random(path, "StyleGAN2", w_dim, synthesis, seed)


def write_stylegan3(
    path: Path,
    resolution: int = 32,
    channels: Sequence[int] = (16, 16, 16, 8, 8),
    w_dim: int = 32,
    seed: int = 0,
    **options: Any,
) -> str:
    """A file for `StyleGAN3(weights=...)`; `options` are those of its synthesis, and make it a -t without."""
    synthesis = {"w_dim": w_dim, "resolution": resolution, "channels": list(channels), **options}
    return write_random(path, "StyleGAN3", w_dim, synthesis, seed)


STYLEGAN3_R = {"kernel": 1, "round_response": True}


@torch.no_grad()
def write_random(path: Path, kind: str, w_dim: int, synthesis: dict[str, Any], seed: int) -> str:
    architecture = {"mapping": {"z_dim": w_dim, "w_dim": w_dim, "layers": 2}, "synthesis": synthesis}
    random = torch.Generator().manual_seed(seed)
    mapping, made = networks(kind, architecture)
    network = nn.ModuleDict({"mapping": mapping, "synthesis": made})
    for module in reversed(list(network.modules())):  # after its submodules, whose biases it sets
        draw(module, random)
    w = mapping(torch.randn(1024, w_dim, generator=random))
    mapping.w_mean.copy_(w.mean(0))
    if isinstance(made, stylegan2.Synthesis):
        shown = [block.colours for block in made.blocks if block.colours is not None]
        for colours in shown:
            colours.weight.mul_(CONTRAST / math.sqrt(len(shown)))
    else:
        x = made.waves(w[:8])
        for layer in made.layers:
            layer.gain.copy_(x.square().mean().rsqrt())
            x = layer(x, w[:8])
        made.layers[-1].gain.mul_(CONTRAST / made.scale)
    write(path, kind, architecture, network.state_dict(), {"untrained": True, "seed": seed})
    return str(path)


def draw(module: nn.Module, random: torch.Generator) -> None:
    """Weights of one module, without its submodules."""

    def normal(tensor: Tensor, scale: float = 1.0) -> None:
        tensor.copy_(scale * torch.randn(tensor.shape, generator=random))

    if isinstance(module, Affine):
        normal(module.weight, 1 / math.sqrt(module.weight.shape[1]))
        module.bias.zero_()
    if isinstance(module, stylegan2.StyledConvolution | stylegan2.Colours | stylegan3.FilteredConvolution):
        module.affine.bias.fill_(1)
        normal(module.bias, 0.1)
        plain = isinstance(module, stylegan2.Colours) or getattr(module, "colours", False)
        normal(module.weight, 1 / math.sqrt(module.weight[0].numel()) if plain else 1)
    if isinstance(module, stylegan2.StyledConvolution):
        normal(module.noise)
        module.noise_strength.fill_(NOISE)
    if isinstance(module, stylegan2.Block) and module.shortcut is not None:
        normal(module.shortcut, 1 / math.sqrt(module.shortcut.shape[1]))
    if isinstance(module, stylegan2.Synthesis):
        normal(module.constant)
    if isinstance(module, stylegan3.Waves):
        normal(module.frequencies)
        r = module.frequencies.norm(dim=1, keepdim=True)
        module.frequencies.mul_(module.signal.cutoff / (r * (r.square().exp() ** 0.25)))
        normal(module.affine.weight, 0.2 / math.sqrt(module.affine.weight.shape[1]))
        module.affine.bias.copy_(torch.tensor([1.0, 0, 0, 0]))
        module.phases.copy_(torch.rand(module.phases.shape, generator=random) - 0.5)
        normal(module.weight, 1 / math.sqrt(len(module.weight)))
