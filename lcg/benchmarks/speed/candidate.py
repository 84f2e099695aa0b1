"""A candidate: a loop from noise to clean latents, and whose results it has to reproduce before it is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lcg.benchmarks.speed.flops import Work, guided_step
from lcg.benchmarks.speed.nets import Nets, Shape, build

Loop = Callable[[Tensor], Tensor]
"""Noise (B, D) to clean latents (B, D)."""

Builder = Callable[[Nets, int], Loop]
"""(networks, steps) to the loop that runs them in so many steps; what can be prepared is prepared here, untimed."""


@dataclass(frozen=True)
class Candidate:
    """One line of the tables.

    Attributes:
        name: in tables.
        build: makes its loop.
        reference: makes the loop whose results it must have, to be run in float64 too.
        tolerance: largest difference from it in float64, relative to the largest number in the reference's result.
        work: of one of its steps, for the share of the peak.
        batches: the smallest and the largest batch at which it is measured.
    """

    name: str
    build: Builder
    reference: Builder
    tolerance: float = 1e-6
    work: Callable[[Nets], Work] = guided_step
    batches: tuple[int, int] = (1, 1 << 20)


def agreement(
    candidates: Sequence[Candidate], shape: Shape, steps: int, batch: int, device: torch.device | str = "cpu"
) -> dict[str, dict[str, float]]:
    """How far each candidate is from its reference in float64: itself in "float64" and, for information, "float32".

    Raises:
        RuntimeError: one differs by more than its tolerance.
    """
    double, single = (build(shape, dtype, device) for dtype in (torch.float64, torch.float32))
    found = {}
    for candidate in candidates:
        wanted = candidate.reference(double, steps)(double.noise(batch))
        found[candidate.name] = {
            "float64": difference(candidate.build(double, steps)(double.noise(batch)), wanted),
            "float32": difference(candidate.build(single, steps)(single.noise(batch)), wanted),
            "tolerance": candidate.tolerance,
        }
        if not found[candidate.name]["float64"] <= candidate.tolerance:
            raise RuntimeError(
                f"candidate {candidate.name!r} must agree with its reference to {candidate.tolerance:g} in float64, "
                f"got {found[candidate.name]['float64']:.2g} on {shape.name} nets; it computes something else, so its "
                "time means nothing"
            )
    return found


def difference(result: Tensor, wanted: Tensor) -> float:
    """max |result - wanted| / max |wanted|."""
    return float((result.double() - wanted).detach().abs().max() / wanted.detach().abs().max())
