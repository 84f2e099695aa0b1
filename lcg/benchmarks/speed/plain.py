"""lcg's perceptron as peers write theirs: a time per row, and everything that depends on it computed in the forward.

    h_0 = W_in [z_t; tau(t)],      h_{l+1} = h_l + B_l silu(A_l (norm(h_l) * (1 + scale_l(t)) + shift_l(t)))

The same weights and the same numbers as `lcg.nets.blocks.SkipPerceptron`. That one is arranged for samplers, whose rows
are all at one time; peers are not to pay for it, nor to gain by it, and what they are measured with must stay as it is
when lcg's own forward changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from lcg.nets.blocks import ModulatedBlock, SkipPerceptron


def plain(net: SkipPerceptron, z: Tensor, t: Tensor) -> Tensor:
    """The network's outputs at z (B, inputs) and times t (B,)."""
    features = net.time(t)
    h = net.input(torch.cat((z, features), dim=-1))
    for block in cast("Iterable[ModulatedBlock]", net.blocks):
        scale, shift = block.modulation(features).chunk(2, dim=-1)
        inner = torch.addcmul(shift, functional.layer_norm(h, h.shape[1:]), 1 + scale)
        h = h + block.down(functional.silu(block.up(inner)))
    return cast("Tensor", net.output(net.norm(h)))
