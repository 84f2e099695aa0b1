"""A cell of a benchmark: a method, a task and a seed, made in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lcg.benchmarks.costs import Cost
from lcg.benchmarks.evaluator import Sources
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.tasks import Task
from lcg.benchmarks.view import Frame, frames_of


@dataclass(frozen=True)
class Made:
    """The samples of a chunk.

    Attributes:
        z_0: (frames, n, *latent) standardised.
        images: (frames, n, H, W, 3) uint8, where they are not what the latents decode to.
        cost: None where nobody asks.
        said: what the method says of them.
    """

    z_0: Tensor
    images: NDArray[np.uint8] | None = None
    cost: Cost | None = None
    said: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Cell:
    """Samples to be made and measured.

    Attributes:
        method: its name in `results.csv`.
        task: what is asked for.
        seed: of the repetition.
        count: images.
        depends: the settings that the samples depend on.
        make: makes the given rows.
        strengths: at which the task is done, where it is one of strengths.
        tuned: strengths that a search has found for its steps.
        sources: what is edited or reconstructed, all of it.
    """

    method: str
    task: Task
    seed: int
    count: int
    depends: tuple[str, ...]
    make: Callable[[range], Made]
    strengths: tuple[float, ...] = ()
    tuned: tuple[float, ...] = ()
    sources: Callable[[], Sources] | None = field(default=None, compare=False)

    @property
    def name(self) -> list[Any]:
        """What tells its samples from those of other cells that depend on the same settings."""
        return [self.method, self.task.name, self.seed, self.count, list(self.strengths), list(self.tuned)]

    @property
    def frames(self) -> tuple[Frame, ...]:
        return frames_of(self.task, self.strengths)

    def chunks(self, size: int) -> list[range]:
        """The rows of each chunk."""
        return [range(start, min(start + size, self.count)) for start in range(0, self.count, size)]


@dataclass(frozen=True)
class Direct:
    """Figures that need no samples.

    Attributes:
        method: its name in `results.csv`.
        task: what is asked for.
        seed: of the repetition.
        count: of what is looked at.
        figures: measures.
    """

    method: str
    task: Task
    seed: int
    count: int
    figures: Callable[[], Iterator[Figure]]

    @property
    def name(self) -> list[Any]:
        return [self.method, self.task.name, self.seed, self.count]
