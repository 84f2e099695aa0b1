"""Networks made ready for a sampler's times, and what was computed for them kept.

A sampler asks for the same times at every batch and every edit, of weights that stay as they are. Tables of times and
prepared matrices are computed when they are first needed and found again from then on. Weights that require gradients
may change at any moment: nothing of theirs is kept, and they run as they do in training. So does everything under
autocast, and where a network cannot be differentiated twice that must be: give samplers `lambda z, t: denoiser(z, t)`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lcg.nets.blocks import SkipPerceptron
from lcg.nets.compiled import CompiledPerceptron
from lcg.nets.execution import Execution
from lcg.nets.frozen import FrozenPerceptron, Moment, Runs, moments, run, together

GRIDS = 8
"""Grids of times whose tables are kept."""

AtOneTime = Callable[[Tensor], Tensor]
"""z (B, in) -> outputs (B, out), or (K, B, out) of several networks."""


class Prepared:
    """One or several perceptrons of one shape, for the times of samplers.

    Args:
        nets: they run side by side if there are several.
    """

    def __init__(self, nets: Sequence[SkipPerceptron]) -> None:
        self.nets = tuple(nets)
        self._known: tuple[tuple[int, int], ...] = ()
        self._moments: dict[Any, list[Moment]] = {}
        self._frozen: dict[Execution, Runs] = {}

    def at(self, times: Tensor, how: Execution) -> list[AtOneTime]:
        """The networks at each of these times (S,), as functions of z alone."""
        if how.backend == "reference" or not self.frozen or torch.is_autocast_enabled(times.device.type):
            return [partial(self._plain, t) for t in times]
        if (weights := self._weights()) != self._known:
            self._known, self._moments, self._frozen = weights, {}, {}
        key = (times.dtype, tuple(times.tolist()))
        if key not in self._moments:
            self._moments[key] = moments(self.nets, times)
        self._moments = dict([*self._moments.items()][-GRIDS:])
        return [partial(self._fast, moment, how) for moment in self._moments[key]]

    @property
    def frozen(self) -> bool:
        """Whether the weights stay as they are."""
        parameters = [p for net in self.nets for p in net.parameters()]
        return not any(p.requires_grad or p.is_inference() for p in parameters) and not self.nets[0].training

    def _plain(self, t: Tensor, z: Tensor) -> Tensor:
        widest = max(net.output.out_features for net in self.nets)
        each = [net(z, t.expand(len(z))) for net in self.nets]
        return together([functional.pad(outputs, (0, widest - outputs.shape[1])) for outputs in each])

    def _fast(self, moment: Moment, how: Execution, z: Tensor) -> Tensor:
        how = how.chosen(self.nets[0].input.weight, len(z), parallel=len(self.nets) > 1)
        if how not in self._frozen:
            made = FrozenPerceptron(self.nets, how)
            self._frozen[how] = CompiledPerceptron(made) if how.backend == "compiled" else made
        return run(self._frozen[how], z, moment)

    # --- what is kept ---

    def _weights(self) -> tuple[tuple[int, int], ...]:
        """Changes when a weight does, or is moved."""
        return tuple((p.data_ptr(), p._version) for net in self.nets for p in net.parameters())

    def __getstate__(self) -> dict[str, Any]:
        return {"nets": self.nets}  # prepared matrices cannot be copied, and are quickly made again

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["nets"])  # type: ignore[misc]
