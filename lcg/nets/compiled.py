"""Frozen perceptrons under torch.compile, which fuses what lies between matrix products.

Compiling takes seconds to a minute for each number of rows. It is never done for a short job: only when as many
evaluations of one number of rows were asked for as a long one has; and it says so. Torch keeps what was compiled on
disk (TORCHINDUCTOR_CACHE_DIR), where the next run finds it.
"""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lcg.nets.frozen import FrozenPerceptron, Moment, Saved
from lcg.nets.frozen_concat import FrozenConcat

log = logging.getLogger(__name__)


class CompiledPerceptron(nn.Module):
    """A frozen perceptron that is compiled once enough is asked of it; until then it runs as it is.

    Args:
        net: with eager maps.
        patience: evaluations with one number of rows that are made before it is compiled for them.
    """

    def __init__(self, net: FrozenPerceptron | FrozenConcat, patience: int) -> None:
        super().__init__()
        self.net, self.patience = net, patience
        self.asked: Counter[int] = Counter()
        self._compiled: dict[str, Callable[..., Any]] = {}

    def forward(self, z: Tensor, at: Moment) -> Tensor:
        outputs: Tensor = self._best("forward", len(z), 1)(z, at)
        return outputs

    def linearise(self, z: Tensor, at: Moment) -> tuple[Tensor, Saved]:
        result: tuple[Tensor, Saved] = self._best("linearise", len(z), 1)(z, at)
        return result

    def pull(self, g: Tensor, at: Moment, saved: Saved) -> Tensor:
        g_z: Tensor = self._best("pull", g.shape[-2], 0)(g, at, saved)
        return g_z

    def _best(self, name: str, rows: int, evaluations: int) -> Callable[..., Any]:
        self.asked[rows] += evaluations
        plain: Callable[..., Any] = getattr(self.net, name)
        if self.asked[rows] <= self.patience:
            return plain
        if name not in self._compiled:
            log.warning(
                "compiling `%s` of a network for %d rows: up to a minute, unless an earlier run did it", name, rows
            )
            # Frozen: weights become constants of the program, in the layout that its kernels want.
            freeze: dict[str, Any] = {"freezing": True} if next(self.net.parameters()).device.type == "cpu" else {}
            self._compiled[name] = torch.compile(plain, dynamic=False, options=freeze)
        with torch.no_grad():
            return self._compiled[name]
