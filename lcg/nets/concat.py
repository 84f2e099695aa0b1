"""The perceptron of Diffusion Autoencoders' latent prior: every layer but the first is given the latent again.

    e       = E_2 silu(E_1 [cos; sin](1000 t f)),           f_k = 10000^(-k / K),    k = 0 ... K - 1
    h_1     = silu(norm(A_0 z_t * s_0(t))),                 s_l(t) = 1 + S_l silu(e)
    h_{l+1} = silu(norm(A_l [h_l; z_t] * s_l(t))),          l = 1 ... L - 2
    out     = A_{L-1} [h_{L-1}; z_t]

Preechakul et al. 2022 (arXiv:2111.15640, appendix A and table 6: L = 10 layers of 2048). Unlike `SkipPerceptron` it has
no residuals, modulates before it normalises, and only scales. Its last layer sees the latent, so that a latent of more
numbers than the layers are wide still has a linear way through.

The authors number 1000 noise levels from 0; time here is continuous, and their level k is at t = (k + 1) / 1000: the
features are ahead of theirs by a thousandth, which is a rotation that the first layer absorbs.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lcg.nets.blocks import Perceptron, TimeTable

LEVELS = 1000
"""Noise levels that time is counted in by the features."""
MAX_PERIOD = 10_000


class ConcatPerceptron(Perceptron):
    """See the module's equation.

    Args:
        inputs: dimension of the (flattened) latent.
        outputs: dimension of the result.
        width: of the hidden layers.
        depth: layers L, at least 2.
        time_features: cosines and sines together; even.
        dropout: probability of dropping a hidden unit in training.
        time_width: of e; the authors have as many as `inputs`, 512.

    Raises:
        ValueError: a size is too small.
    """

    frequency: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        depth: int,
        time_features: int = 64,
        dropout: float = 0.0,
        time_width: int = 512,
    ) -> None:
        super().__init__()
        for name, value, least in (("width", width, 1), ("depth", depth, 2), ("time_features", time_features, 2)):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least} with concatenated inputs, got {value}")
        self.inputs, half = inputs, time_features // 2
        frequency = LEVELS * torch.exp(-math.log(MAX_PERIOD) * torch.arange(half) / half)
        self.register_buffer("frequency", frequency, persistent=False)
        self.time = nn.Sequential(
            nn.Linear(2 * half, time_width), nn.SiLU(), nn.Linear(time_width, time_width), nn.SiLU()
        )
        self.input = nn.Linear(inputs, width)
        self.hidden = nn.ModuleList(nn.Linear(width + inputs, width) for _ in range(depth - 2))
        self.scales = nn.ModuleList(nn.Linear(time_width, width) for _ in range(depth - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth - 1))
        self.output = nn.Linear(width + inputs, outputs)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.input, *self.hidden, *self.scales):
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")

    def table(self, t: Float[Tensor, " times"]) -> TimeTable:
        angle = t[:, None].to(self.frequency) * self.frequency
        e = self.time(torch.cat((angle.cos(), angle.sin()), dim=-1))
        bias = self.input.bias.expand(len(t), -1)
        return TimeTable(bias, tuple(1 + scale(e) for scale in self.scales), ())

    def run(self, z: Float[Tensor, "batch inputs"], table: TimeTable) -> Float[Tensor, "batch outputs"]:
        p, last = self.input(z), len(self.norms) - 1
        for number, (norm, scale) in enumerate(zip(self.norms, table.scale, strict=True)):
            h = self.dropout(functional.silu(norm(p * scale)))
            p = (self.output if number == last else self.hidden[number])(torch.cat((h, z.to(h)), dim=1))
        return p
