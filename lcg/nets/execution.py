"""How frozen networks are run: by which kernels, and in which precision.

The results are the same up to rounding, which the tests bound; what differs is the speed, and which way is fastest
depends on the machine and on the number of rows. `auto` decides by what was measured (`make bench-core`):

    rows      CPU, float32                                            GPU
    1         the matrices as they are: one row has nothing to reuse   as they are
    2 ...     prepacked matrices (`lcg.nets.affine`)                   as they are; whole paths as CUDA graphs

Compiling with torch.compile is an option of its own. On the CPU prepacked matrices were faster than compiled and frozen
networks at every number of rows, and need no compiler; so nothing is compiled unasked.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

Backend = Literal["auto", "reference", "autograd", "eager", "packed", "compiled"]
"""What runs a frozen network: whatever was measured to be fastest; the network's own `forward` and autograd; tables of
times and autograd; the same with the way back written out; with prepacked matrices; under torch.compile."""

Precision = Literal["float32", "bfloat16", "float16"]

PACKED_FROM = 2
"""Rows from which prepacked matrices are faster on the CPU; see the module."""


@dataclass(frozen=True)
class Execution:
    """How a frozen network is run.

    Args:
        backend: see `Backend`.
        precision: of the matrix products. Everything else, the residual stream, normalisation, logits, log-probs
            and the gradient they begin with, stays in float32.

        patience: evaluations with one number of rows that are made before `compiled` compiles for them: 200, four
            samplings of 50 steps, make a job that is worth a minute's wait; 0 compiles at once.

    Raises:
        ValueError: an unknown backend or precision, a backend that has not this precision, or patience < 0.
    """

    backend: Backend = "auto"
    precision: Precision = "float32"
    patience: int = 200

    def __post_init__(self) -> None:
        for name, value, known in (("backend", self.backend, Backend), ("precision", self.precision, Precision)):
            if value not in get_args(known):
                raise ValueError(f"`{name}` must be one of {', '.join(get_args(known))}, got {value!r}")
        if self.patience < 0:
            raise ValueError(f"`patience` must be >= 0, got {self.patience}; 0 compiles at once")
        if self.precision != "float32" and self.backend in ("reference", "packed"):
            raise ValueError(
                f"`precision` must be float32 with the backend {self.backend!r}, got {self.precision!r}; "
                "use backend='eager', or torch.autocast around the reference"
            )

    def dtype(self, like: Tensor) -> torch.dtype | None:
        """Of matrix products with weights `like`; None for their own."""
        return None if self.precision == "float32" else getattr(torch, self.precision)

    def chosen(self, like: Tensor, rows: int) -> "Execution":
        """With the backend that is fastest for so many rows of weights `like`."""
        if self.backend not in ("auto", "packed"):
            return self
        single = like.dtype == torch.float32 and self.precision == "float32"
        can = single and like.device.type == "cpu" and _has_packed()
        if self.backend == "packed" and not can:
            raise ValueError(
                f"the backend 'packed' needs float32 weights on a CPU with oneDNN, got {like.dtype} on {like.device}; "
                "use backend='auto'"
            )
        packed = can and (self.backend == "packed" or rows >= PACKED_FROM)
        return replace(self, backend="packed" if packed else "eager")

    def one_by_one(self, like: Tensor, rows: int) -> bool:
        """Whether several networks with weights `like` run one after another rather than side by side.

        On a CPU one network's activations fit the cache and K networks' do not; a single row has none to speak of, and
        what is compiled is one program.
        """
        return like.device.type == "cpu" and rows >= PACKED_FROM and self.backend != "compiled"


def _has_packed() -> bool:
    """Whether this build of torch has prepacked matrices."""
    operators = torch.ops.mkldnn
    needed = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(operators, name) for name in needed)
