"""Affine maps of frozen networks, made ready for the machine: as they are, prepacked, or in half precision.

    y = x W^T + b          (B, in) -> (B, out), or K of them side by side, (K, B, in) -> (K, B, out)

A frozen network applies its matrices thousands of times, so it pays to bring them into the form that the processor's
kernels want once. oneDNN's prepacked matrices take silu and residual with them and run at 102 to 109 GFLOP/s on a core
on which `torch.mm` runs at 82 to 88 (experiments/05_fast_core); a single row has nothing to gain.

Each map also has its transpose, `pull`, for the hand-written way back of `lcg.nets.frozen`.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lcg.nets.execution import Execution


class Affine(nn.Module, ABC):
    """x W^T + b for weights that do not change."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "*batch inputs"], bias: Tensor | None = None) -> Float[Tensor, "*rows outputs"]:
        """x W^T + b, or another bias in the place of b."""

    @abstractmethod
    def onto(
        self, h: Float[Tensor, "*rows outputs"], x: Float[Tensor, "*rows inputs"]
    ) -> Float[Tensor, "*rows outputs"]:
        """h + x W^T + b."""

    @abstractmethod
    def pull(self, g: Float[Tensor, "*rows outputs"]) -> Float[Tensor, "*rows inputs"]:
        """g W, what a gradient of the result says about x."""

    def silu(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*rows outputs"]:
        """The map, then silu."""
        return functional.silu(self(x))


class PlainAffine(Affine):
    """The weights as they are, sharing their memory; in the precision of the weights.

    Args:
        weight: W (out, in).
        bias: b (out,).
        dtype: of the product; the result of half precision is half, added to `h` in the precision of h.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = _fixed(weight if dtype is None else weight.to(dtype))
        self.bias = _fixed(bias if dtype is None else bias.to(dtype))

    def forward(self, x: Float[Tensor, "*batch inputs"], bias: Tensor | None = None) -> Float[Tensor, "*rows outputs"]:
        bias = self.bias if bias is None else bias.to(self.bias.dtype)
        return functional.linear(x.to(self.weight.dtype), self.weight, bias)

    def onto(
        self, h: Float[Tensor, "*rows outputs"], x: Float[Tensor, "*rows inputs"]
    ) -> Float[Tensor, "*rows outputs"]:
        return h + self(x)

    def pull(self, g: Float[Tensor, "*rows outputs"]) -> Float[Tensor, "*rows inputs"]:
        return (g.to(self.weight.dtype) @ self.weight).to(g.dtype)


class PackedAffine(Affine):
    """Weights in oneDNN's own layout, whose kernels add h and apply silu on the way out. Float32 on the CPU only.

    These are the operators that torch.compile emits for frozen networks; they need no compiler themselves.

    Args:
        weight: W (out, in).
        bias: b (out,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        pack = torch.ops.mkldnn._reorder_linear_weight
        self.bias = _fixed(bias)
        self.there, self.back = pack(weight.detach().contiguous()), pack(weight.detach().t().contiguous())

    def forward(self, x: Float[Tensor, "*batch inputs"], bias: Tensor | None = None) -> Float[Tensor, "*rows outputs"]:
        return self._product(x, self.there, self.bias if bias is None else bias, "none")

    def silu(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*rows outputs"]:
        return self._product(x, self.there, self.bias, "swish")

    def onto(
        self, h: Float[Tensor, "*rows outputs"], x: Float[Tensor, "*rows inputs"]
    ) -> Float[Tensor, "*rows outputs"]:
        total: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, h, self.there, self.bias, "add")
        return total

    def pull(self, g: Float[Tensor, "*rows outputs"]) -> Float[Tensor, "*rows inputs"]:
        return self._product(g, self.back, None, "none")

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "")
        return product


class ParallelAffine(Affine):
    """K maps side by side, one product for all: x (K, B, in), or (B, in) for all of them, -> (K, B, out).

    Args:
        weights: W of each, (out, in).
        biases: b of each, (out,).
        dtype: see `PlainAffine`.
    """

    def __init__(self, weights: list[Tensor], biases: list[Tensor], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        weight, bias = torch.stack(weights), torch.stack(biases)[:, None]
        self.weight = _fixed(weight.transpose(1, 2).contiguous().to(dtype or weight.dtype))
        self.bias = _fixed(bias.to(dtype or bias.dtype))

    def forward(self, x: Float[Tensor, "*batch inputs"], bias: Tensor | None = None) -> Float[Tensor, "*rows outputs"]:
        bias = self.bias if bias is None else bias.to(self.bias.dtype)
        return torch.baddbmm(bias, x.to(self.weight.dtype).expand(len(self.weight), -1, -1), self.weight)

    def onto(
        self, h: Float[Tensor, "*rows outputs"], x: Float[Tensor, "*rows inputs"]
    ) -> Float[Tensor, "*rows outputs"]:
        return h + self(x)

    def pull(self, g: Float[Tensor, "*rows outputs"]) -> Float[Tensor, "*rows inputs"]:
        return torch.bmm(g.to(self.weight.dtype), self.weight.transpose(1, 2)).to(g.dtype)


def make_affine(weights: list[Tensor], biases: list[Tensor], how: Execution) -> Affine:
    """The map of one network, or of several side by side, as `how` says; `how.backend` is not auto."""
    dtype = how.dtype(weights[0])
    if len(weights) > 1:
        return ParallelAffine(weights, biases, dtype)
    if how.backend == "packed":
        return PackedAffine(weights[0], biases[0])
    return PlainAffine(weights[0], biases[0], dtype)


def _fixed(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach(), requires_grad=False)
