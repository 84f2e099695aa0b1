"""What is known of the images of one cell at one step or strength: what metrics look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from lcg.benchmarks.evaluator import Evaluator, Sources
from lcg.benchmarks.tasks import Edit, Generate, Scale, Task, Tradeoff
from lcg.guidance import And, Formula


@dataclass(frozen=True)
class Frame:
    """What the images of a cell are at one step or strength.

    Attributes:
        task: what was asked for; of a sequence the part up to this step.
        name: of the task in `results.csv`.
        strength: of the method; empty where it has its own.
    """

    task: Task
    name: str
    strength: str = ""


def frames_of(task: Task, strengths: Sequence[float]) -> tuple[Frame, ...]:
    """The frames of a task: the steps of a sequence, the strengths of a method, or the one that there is."""
    if isinstance(task, Edit):
        return tuple(Frame(part, part.name) for part in task.steps())
    if isinstance(task, Tradeoff | Scale):
        return tuple(Frame(task, task.name, f"{strength:g}") for strength in strengths)
    return (Frame(task, task.name),)


@dataclass(frozen=True)
class View:
    """The images of a frame, N of them.

    Attributes:
        frame: what they are.
        number: of the frame among those of its cell.
        files: what was seen of them, a file per chunk.
        evaluator: has the references.
        sources: what was edited; None where nothing was.
    """

    frame: Frame
    number: int
    files: tuple[Path, ...]
    evaluator: Evaluator
    sources: Sources | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def each(self, name: str) -> Iterator[Tensor]:
        """Something that was seen, (n, ...), chunk by chunk; nothing where it was not looked at."""
        for path in self.files:
            with safe_open(path, framework="pt") as file:
                if name in file.keys():  # noqa: SIM118 (not a dict)
                    yield file.get_slice(name)[self.number]

    def all(self, name: str) -> Tensor | None:
        """The same in one tensor (N, ...), None where it was not looked at."""
        parts = list(self.each(name))
        return torch.cat(parts) if parts else None

    def _known(self, name: str) -> Tensor:
        found = self.all(name)
        assert found is not None  # the judge looks at all images
        return found

    @cached_property
    def labels(self) -> Tensor:
        """(N, A) that the judge sees."""
        return self._known("labels")

    @cached_property
    def features(self) -> Tensor:
        """(N, F) of the judge, standardised."""
        return self._known("features")

    @cached_property
    def near(self) -> Tensor:
        """(N,) bool: no ghosts."""
        return self._known("near").bool()

    @property
    def formula(self) -> Formula | None:
        """What was asked for."""
        task = self.frame.task
        if isinstance(task, Generate | Scale):
            return task.formula
        if isinstance(task, Edit | Tradeoff):
            edits = task.edit.edits
            return edits[0] if len(edits) == 1 else And(edits)
        return None
