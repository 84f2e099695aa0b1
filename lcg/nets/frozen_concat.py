"""`ConcatPerceptron` frozen for sampling: its scales computed once per time, and the way back written out.

With p_l = A_l [h_l; z] * s_l, n_l = norm(p_l) and h_{l+1} = silu(n_l), a gradient g of the outputs goes back by

    [g_h; g_z] = A_{L-1}^T g,       [g_h; g_z'] = A_l^T (s_l * norm'(silu'(n_l) * g_h)),       g_z += g_z'.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lcg.nets.affine import Affine, make_affine
from lcg.nets.concat import ConcatPerceptron
from lcg.nets.execution import Execution
from lcg.nets.frozen import Moment, Saved, norm, norm_pull


class FrozenConcat(nn.Module):
    """A perceptron whose weights stay as they are, as a function of z at one moment.

    Args:
        net: the perceptron.
        how: by which kernels and in which precision; eager or packed.
    """

    def __init__(self, net: ConcatPerceptron, how: Execution) -> None:
        super().__init__()

        def affine(linear: nn.Linear) -> Affine:
            return make_affine([linear.weight], [linear.bias], how)

        self.width = net.input.out_features
        self.layers = [affine(cast(nn.Linear, linear)) for linear in (net.input, *net.hidden)]
        self.output = affine(net.output)
        self.maps = nn.ModuleList(self.layers)  # whose weights are part of the module
        norms = cast("Sequence[nn.LayerNorm]", net.norms)
        self.norms = [(layer.weight.detach(), layer.bias.detach()) for layer in norms]

    def forward(self, z: Float[Tensor, "batch inputs"], at: Moment) -> Float[Tensor, "batch outputs"]:
        """The outputs (B, out)."""
        h = z
        for number, (layer, (gain, shift), scale) in enumerate(zip(self.layers, self.norms, at.scale, strict=True)):
            p = layer(_beside(h, z) if number else z).to(z.dtype) * scale
            h = functional.silu(norm(p, gain, shift)[0])
        return self.output(_beside(h, z)).to(z.dtype)

    def linearise(self, z: Float[Tensor, "batch inputs"], at: Moment) -> tuple[Tensor, Saved]:
        """The outputs, and what `pull` needs."""
        h, saved = z, []
        for number, (layer, (gain, shift), scale) in enumerate(zip(self.layers, self.norms, at.scale, strict=True)):
            p = layer(_beside(h, z) if number else z).to(z.dtype) * scale
            n, mean, rstd = norm(p, gain, shift)
            saved.append((p, mean, rstd, n))
            h = functional.silu(n)
        return self.output(_beside(h, z)).to(z.dtype), saved

    def pull(self, g: Float[Tensor, "batch outputs"], at: Moment, saved: Saved) -> Float[Tensor, "batch inputs"]:
        """(d outputs / d z)^T g, (B, in), at the z of `linearise`."""
        g_h, g_z = self._split(self.output.pull(g))
        steps = zip(self.layers, self.norms, at.scale, saved, strict=True)
        for layer, (gain, _), scale, (p, mean, rstd, n) in reversed(list(steps)):
            g_n = torch.ops.aten.silu_backward(g_h.contiguous(), n)
            g_x = layer.pull(scale * norm_pull(g_n, p, mean, rstd, gain))
            if layer is self.layers[0]:
                return g_z + g_x
            g_h, own = self._split(g_x)
            g_z = g_z + own
        return g_z

    def _split(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """Of [h; z], what is h's and what is z's."""
        return g[:, : self.width], g[:, self.width :]


def _beside(h: Tensor, z: Tensor) -> Tensor:
    return torch.cat((h, z), dim=1)
