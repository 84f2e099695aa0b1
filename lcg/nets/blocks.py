"""Building blocks of networks over latents: time features and the skip perceptron.

The skip perceptron of Diffusion Autoencoders (Preechakul et al. 2022, arXiv:2111.15640, appendix A) gives every layer the
noised latent again and lets the time scale what it computes,

    h_0 = z_t,    h_{l+1} = silu(norm(W_l [h_l; z_t]) * (1 + scale_l(t)) + shift_l(t)).

It differs from theirs in the order of norm and modulation (norm first, so that the modulation is not normalised away) and
in having a shift.
"""

import math

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

    def __init__(self, features: int = 64, max_frequency: float = 200.0) -> None:
        super().__init__()
        frequency = torch.exp(torch.linspace(0, math.log(max_frequency), features // 2))
        self.register_buffer("frequency", frequency, persistent=False)
        self.linear = nn.Linear(2 * (features // 2), features)

    def forward(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
        angle = t[:, None].to(self.frequency) * self.frequency
        return functional.silu(self.linear(torch.cat((angle.sin(), angle.cos()), dim=-1)))


class SkipPerceptron(nn.Module):
    """See the module's equation.

    Args:
        inputs: dimension of the (flattened) latent.
        outputs: dimension of the result.
        width: hidden width.
        depth: hidden layers, at least 1.
        time_features: dimension of the time features.
        dropout: probability of dropping a hidden unit in training.
    """

    def __init__(
        self, inputs: int, outputs: int, width: int, depth: int, time_features: int = 64, dropout: float = 0.0
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("depth", depth)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}")
        self.time = TimeFeatures(time_features)
        sizes = [inputs] + [width + inputs] * (depth - 1)
        self.layers = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in sizes)
        self.modulations = nn.ModuleList(nn.Linear(time_features, 2 * width) for _ in sizes)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width + inputs, outputs)
        for modulation in self.modulations:
            nn.init.zeros_(modulation.weight)
            nn.init.zeros_(modulation.bias)

    def forward(self, z: Float[Tensor, "batch inputs"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch outputs"]:
        # Samplers put all rows at one time, by expanding a scalar: then its features are computed once, not per row.
        features = self.time(t[:1] if t.stride(0) == 0 else t)
        h = None
        for layer, norm, modulation in zip(self.layers, self.norms, self.modulations, strict=True):
            scale, shift = modulation(features).chunk(2, dim=-1)
            h = norm(layer(z if h is None else torch.cat((h, z), dim=-1)))
            h = self.dropout(functional.silu(torch.addcmul(shift, h, 1 + scale)))
        return self.output(torch.cat((h, z), dim=-1))
