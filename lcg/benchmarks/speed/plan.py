"""What the job measures, and how long it may take over it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from lcg.benchmarks.speed.nets import BIG, SMALL, WIDE_TIME, Shape
from lcg.benchmarks.speed.peak import Product

STEPS = (50, 40, 20, 10, 5, 4, 2)
"""Steps a loop may take: whole strides of the 1000 that peers' schedules have."""


@dataclass(frozen=True)
class Plan:
    """One run of the job.

    Attributes:
        shapes: of the networks.
        batches: of guided steps and of LACE's equation.
        scale_batches: of several scales in one call, on the first shape.
        precisions: float32, and bfloat16 for networks under autocast.
        products: of which the fastest is the peak.
        repeats: rounds of each measurement.
        target: seconds that a measurement lasts at least.
        call: seconds that a call should last at most, at the peak's rate; it decides the number of steps.
        compiled: whether torch.compile is measured, too, which takes minutes.
        lace: latent dimension and hidden layers of LACE's networks.
    """

    shapes: tuple[Shape, ...]
    batches: tuple[int, ...] = (1, 64, 1024)
    scale_batches: tuple[int, ...] = (1, 16, 64, 256, 1024)
    precisions: tuple[torch.dtype, ...] = (torch.float32,)
    products: tuple[Product, ...] = ((1024, 512, 512), (1024, 2048, 2048), (2048, 2048, 2048))
    repeats: int = 5
    target: float = 0.2
    call: float = 0.5
    compiled: bool = True
    lace: tuple[int, tuple[int, ...]] = (512, (384, 256, 128))

    def steps(self, operations: float, rate: float) -> int:
        """The most steps whose `operations` each, at `rate` per second, take no longer than a call should."""
        return next((steps for steps in STEPS if steps * operations <= self.call * rate), STEPS[-1])


def full(device: torch.device) -> Plan:
    """Everything; on a GPU also larger batches and bfloat16."""
    shapes = (replace(SMALL, time_features=WIDE_TIME), replace(BIG, time_features=WIDE_TIME), SMALL)
    if device.type != "cuda":
        return Plan(shapes)
    return Plan(shapes, batches=(1, 64, 256, 1024, 4096), precisions=(torch.float32, torch.bfloat16))


def quick() -> Plan:
    """A look in about a minute: the small networks at lcg's default, two batches, few rounds."""
    return Plan(
        (SMALL,), (1, 64), (1, 16), products=((1024, 512, 512),), repeats=3, target=0.1, call=0.2, compiled=False
    )
