"""Building blocks of networks over latents: time features and the perceptron that prior and classifiers share.

A perceptron whose every block is skipped by a residual connection, and whose time enters by scaling and shifting what
each block normalises (adaptive layer norm, Peebles & Xie 2023, arXiv:2212.09748, section 3.2),

    h_0     = W_in [z_t; tau(t)],
    h_{l+1} = h_l + B_l silu(A_l (norm(h_l) * (1 + scale_l(t)) + shift_l(t))),
    out     = W_out norm(h_L).

Diffusion Autoencoders (Preechakul et al. 2022, arXiv:2111.15640, appendix A) use a perceptron whose layers each get the
latent again instead, and modulate before they normalise (`lcg.nets.concat`).

What the time contributes depends on nothing else. A sampler puts all rows at one time and knows its times beforehand:
it gets them in one `TimeTable`, computed once, and the rest of the network is run on it (`lcg.nets.frozen`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class TimeFeatures(nn.Module):
    """Sines and cosines of t at geometrically spaced frequencies, then a linear layer and SiLU.

    Args:
        features: how many it gives; even.
        max_frequency: highest frequency in radians per unit of t.
    """

    frequency: Tensor

    def __init__(self, features: int = 64, max_frequency: float = 200.0) -> None:
        super().__init__()
        frequency = torch.exp(torch.linspace(0, math.log(max_frequency), features // 2))
        self.register_buffer("frequency", frequency, persistent=False)
        self.linear = nn.Linear(2 * (features // 2), features)

    def forward(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
        angle = t[:, None].to(self.frequency) * self.frequency
        return functional.silu(self.linear(torch.cat((angle.sin(), angle.cos()), dim=-1)))


class Door(nn.Module):
    """Where rows enter a network that is not called by a `forward` of its own, so that hooks see them."""

    def forward(self, z: Float[Tensor, "batch *latent"]) -> Float[Tensor, "batch *latent"]:
        return z


@dataclass(frozen=True)
class TimeTable:
    """What times alone contribute to a `Perceptron`, a row per time.

    Attributes:
        bias: of the first layer, W_in tau(t) + b_in, (T, width).
        scale: 1 + scale_l(t) of each block, (T, width).
        shift: shift_l(t), (T, width); none of a network that only scales.
    """

    bias: Float[Tensor, "times width"]
    scale: tuple[Float[Tensor, "times width"], ...]
    shift: tuple[Float[Tensor, "times width"], ...]


class Perceptron(nn.Module, ABC):
    """What is evaluated in two parts, of which the one that depends on times alone comes first.

    Attributes:
        inputs: dimension of the (flattened) latent.
        input: the first layer, to which the latent comes in front.
        output: the last layer.
    """

    inputs: int
    input: nn.Linear
    output: nn.Linear

    def forward(self, z: Float[Tensor, "batch inputs"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch outputs"]:
        # Samplers put all rows at one time, by expanding a scalar: then its share is computed once, not per row.
        return self.run(z, self.table(t[:1] if t.stride(0) == 0 else t))

    @abstractmethod
    def table(self, t: Float[Tensor, " times"]) -> TimeTable:
        """What times contribute."""

    @abstractmethod
    def run(self, z: Float[Tensor, "batch inputs"], table: TimeTable) -> Float[Tensor, "batch outputs"]:
        """The network at times of which the table has one for all rows, or one for each."""


class SkipPerceptron(Perceptron):
    """See the module's equation.

    Args:
        inputs: dimension of the (flattened) latent.
        outputs: dimension of the result.
        width: hidden width.
        depth: residual blocks, at least 1.
        time_features: dimension of the time features.
        dropout: probability of dropping a hidden unit in training.

    Raises:
        ValueError: width or depth is not positive.
    """

    def __init__(
        self, inputs: int, outputs: int, width: int, depth: int, time_features: int = 64, dropout: float = 0.0
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("depth", depth)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}")
        self.inputs = inputs
        self.time = TimeFeatures(time_features)
        self.input = nn.Linear(inputs + time_features, width)
        self.blocks = nn.ModuleList(ModulatedBlock(width, time_features, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, outputs)

    def table(self, t: Float[Tensor, " times"]) -> TimeTable:
        features = self.time(t)
        bias = functional.linear(features, self.input.weight[:, self.inputs :], self.input.bias)
        blocks = cast("Iterable[ModulatedBlock]", self.blocks)
        modulation = [block.modulation(features).chunk(2, dim=-1) for block in blocks]
        return TimeTable(bias, tuple(1 + scale for scale, _ in modulation), tuple(shift for _, shift in modulation))

    def run(self, z: Float[Tensor, "batch inputs"], table: TimeTable) -> Float[Tensor, "batch outputs"]:
        h = torch.addmm(table.bias, z, self.input.weight[:, : self.inputs].t())
        for block, scale, shift in zip(self.blocks, table.scale, table.shift, strict=True):
            h = block(h, scale, shift)
        return self.output(self.norm(h))


class ModulatedBlock(nn.Module):
    """h + B silu(A (norm(h) * scale + shift)); the scale and the shift are linear in the time features."""

    def __init__(self, width: int, time_features: int, dropout: float) -> None:
        super().__init__()
        self.modulation = nn.Linear(time_features, 2 * width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        h: Float[Tensor, "batch width"],
        scale: Float[Tensor, "times width"],
        shift: Float[Tensor, "times width"],
    ) -> Float[Tensor, "batch width"]:
        inner = functional.silu(self.up(modulated_norm(h, scale, shift)))
        return h + self.down(self.dropout(inner))


def modulated_norm(
    h: Float[Tensor, "batch width"], scale: Float[Tensor, "times width"], shift: Float[Tensor, "times width"]
) -> Float[Tensor, "batch width"]:
    """norm(h) * scale + shift, in one kernel where all rows are at one time."""
    if len(scale) == 1:
        return functional.layer_norm(h, h.shape[1:], scale[0], shift[0])
    return torch.addcmul(shift, functional.layer_norm(h, h.shape[1:]), scale)
