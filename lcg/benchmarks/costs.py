"""What samples cost: seconds, network evaluations, memory.

An evaluation is one row through one of lcg's networks once: denoiser, classifiers, and those of the baselines. What a
method computes otherwise, such as a gradient of the generator, is in its seconds.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lcg.nets.blocks import Door
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.nets.latent_classifier import LatentClassifier

NETWORKS = (LatentDenoiser, TimeConditionedClassifier, LatentClassifier, Door)


@dataclass
class Cost:
    """Of a batch of samples.

    Attributes:
        seconds: wall-clock time.
        evaluations: rows that went through a network.
        memory: bytes at the peak, beyond what there was before.
    """

    seconds: float = 0.0
    evaluations: int = 0
    memory: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.evaluations + other.evaluations, max(self.memory, other.memory))


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Measures what is done in the block; the cost is known when it ends."""
    cost = Cost()

    def count(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, NETWORKS) and inputs and isinstance(inputs[0], Tensor):
            cost.evaluations += len(inputs[0])

    before = _begin(device)
    hook = register_module_forward_pre_hook(count)
    started = time.perf_counter()
    try:
        yield cost
    finally:
        hook.remove()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        cost.seconds = time.perf_counter() - started
        cost.memory = max(0, _peak(device) - before)


def _begin(device: torch.device) -> int:
    """Forgets earlier peaks; bytes that are in use now."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError):  # Linux: the peak starts anew from what is resident now
        Path("/proc/self/clear_refs").write_text("5")
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
