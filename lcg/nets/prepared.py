"""Networks made ready for a sampler's times, and what was computed for them kept.

A sampler asks for the same times at every batch and every edit, of weights that stay as they are. Tables of times and
prepared matrices are computed when they are first needed and found again from then on. Weights that require gradients
may change at any moment: nothing of theirs is kept, and they run as they do in training; so does everything under
autocast. What was prepared can be differentiated once: who needs a second derivative calls the network itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lcg.nets.blocks import Perceptron, SkipPerceptron
from lcg.nets.compiled import CompiledPerceptron
from lcg.nets.concat import ConcatPerceptron
from lcg.nets.execution import Execution
from lcg.nets.frozen import FrozenPerceptron, Moment, OneByOne, Runs, moments, run, side_by_side, together
from lcg.nets.frozen_concat import FrozenConcat

GRIDS = 8
"""Grids of times whose tables are kept."""

AtOneTime = Callable[[Tensor], Tensor]
"""z (B, in) -> outputs (B, out), or (K, B, out) of several networks."""


@dataclass(frozen=True)
class Together:
    """What one time contributes to each network.

    Attributes:
        each: one moment per network.
    """

    each: tuple[Moment, ...]

    @cached_property
    def as_one(self) -> Moment:
        """Of all networks side by side."""
        return self.each[0] if len(self.each) == 1 else side_by_side(self.each)


class Prepared:
    """One or several perceptrons of one shape, for the times of samplers.

    Args:
        nets: they run side by side if there are several; a `ConcatPerceptron` is alone.
    """

    def __init__(self, nets: Sequence[Perceptron]) -> None:
        self.nets = tuple(nets)
        self._known: tuple[tuple[int, int], ...] = ()
        self._moments: dict[Any, list[Together]] = {}
        self._frozen: dict[tuple[Execution, bool], Runs] = {}

    def at(self, times: Tensor, how: Execution) -> list[AtOneTime]:
        """The networks at each of these times (S,), as functions of z alone."""
        if how.backend == "reference" or not self.frozen or torch.is_autocast_enabled(times.device.type):
            return [partial(self._plain, t) for t in times]
        if (weights := self._weights()) != self._known:
            self._known, self._moments, self._frozen = weights, {}, {}
        key = (times.dtype, tuple(times.tolist()))
        if key not in self._moments:
            every = zip(*(moments(net, times) for net in self.nets), strict=True)
            self._moments = dict([*self._moments.items(), (key, [Together(each) for each in every])][-GRIDS:])
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

    def _fast(self, moment: "Together", how: Execution, z: Tensor) -> Tensor:
        like = self.nets[0].input.weight
        how = how.chosen(like, len(z))
        apart = len(self.nets) > 1 and how.one_by_one(like, len(z))
        if (how, apart) not in self._frozen:
            self._frozen[how, apart] = self._made(how, apart)
        net, at = self._frozen[how, apart], moment.each if apart else moment.as_one
        return net(z, at) if how.backend == "autograd" else run(net, z, at)

    def _made(self, how: Execution, apart: bool) -> Runs:
        def ready(nets: Sequence[Perceptron]) -> Runs:
            frozen = freeze(nets, how)
            return CompiledPerceptron(frozen, how.patience) if how.backend == "compiled" else frozen

        if not apart:
            return ready(self.nets)
        return OneByOne([ready([net]) for net in self.nets], [net.output.out_features for net in self.nets])

    # --- what is kept ---

    def _weights(self) -> tuple[tuple[int, int], ...]:
        """Changes when a weight does, or is moved."""
        return tuple((p.data_ptr(), p._version) for net in self.nets for p in net.parameters())

    def __getstate__(self) -> dict[str, Any]:
        return {"nets": self.nets}  # prepared matrices cannot be copied, and are quickly made again

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["nets"])  # type: ignore[misc]


def freeze(nets: Sequence[Perceptron], how: Execution) -> FrozenPerceptron | FrozenConcat:
    """The networks with their weights as they are now."""
    if isinstance(nets[0], ConcatPerceptron):
        return FrozenConcat(nets[0], how)
    return FrozenPerceptron([net for net in nets if isinstance(net, SkipPerceptron)], how)
