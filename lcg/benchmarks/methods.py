"""The methods that a benchmark compares, behind one contract: generate latents for a formula, edit latents.

A baseline is tuned on a validation split before it is measured, for every task and every step of a sequence anew, over
its own grid of strengths. lcg is not: its settings are the same for all tasks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from lcg.baselines.contract import Baseline
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.tasks import Edit, Generate
from lcg.diffusion import generators
from lcg.editing.contract import EditRequest, edit_together
from lcg.pipeline import Draw, Pipeline


class Method(ABC):
    """A method under comparison.

    Attributes:
        name: in `results.csv`.
        strengths: at which its trade-off between success and preservation is measured.
    """

    name: str
    strengths: tuple[float, ...]

    def can(self, task: Generate | Edit) -> bool:
        """Whether the method has an answer to this task at all."""
        return True

    @abstractmethod
    def generate(self, task: Generate, seeds: Sequence[int]) -> Tensor:
        """Standardised latents (N, *latent), one per seed."""

    def diagnostics(self) -> Iterator[Figure]:
        """What the method itself says of its last samples, such as how far to trust them."""
        return iter(())

    @abstractmethod
    def edit(self, task: Edit, z_0: Tensor, labels: Tensor) -> list[Tensor]:
        """Standardised latents (N, *latent) after each edit of the sequence; labels (N, A) are the sources' own."""

    @abstractmethod
    def edit_at(self, task: Edit, z_0: Tensor, labels: Tensor, strength: float) -> Tensor:
        """Standardised latents (N, *latent) after all edits, made with this strength."""

    def tune(self, task: Generate | Edit, score: Callable[[Generate | Edit], float]) -> dict[str, float]:
        """Finds the best settings for a task and its steps; `score(part)` measures the method on the validation split.

        Returns:
            A strength by the name of each step, for `adopt`; nothing where a method is not tuned.
        """
        return {}

    def adopt(self, tuned: dict[str, float]) -> None:  # noqa: B027 (optional)
        """Takes over what `tune` found, now or in an earlier run."""

    def chosen(self, task: Generate | Edit) -> str:
        """What tuning chose for a task, in words; empty where nothing was tuned."""
        return ""


class LCG(Method):
    """Latent classifier guidance with the pipeline's settings.

    Args:
        pipeline: with its settings.
        name: in `results.csv`.
    """

    def __init__(self, pipeline: Pipeline, name: str = "lcg") -> None:
        self.pipeline, self.name = pipeline, name
        self.strengths = pipeline.editor().strengths
        self._last: Draw | None = None

    def generate(self, task: Generate, seeds: Sequence[int]) -> Tensor:
        draw = self.pipeline.draw(seeds, task.formula)
        self._last = draw
        return draw.z_0

    def diagnostics(self) -> Iterator[Figure]:
        draw = self._last
        if draw is None or draw.plan is None:
            return
        n = len(draw.z_0)
        if math.isfinite(draw.log_p_formula):
            yield Figure("log_p_formula", draw.log_p_formula, draw.stderr, n)
        if math.isfinite(draw.ess):
            yield Figure("ess", draw.ess, math.nan, n)

    def edit(self, task: Edit, z_0: Tensor, labels: Tensor) -> list[Tensor]:
        return [result.z_0 for result in self.pipeline.edit_latents(z_0, task.words, labels)]

    def edit_at(self, task: Edit, z_0: Tensor, labels: Tensor, strength: float) -> Tensor:
        return edit_together(self.pipeline.editor(range(len(z_0))), z_0, task.edits, labels, strength).z_0


class Variant(LCG):
    """Latent classifier guidance with other settings of its guidance, to be compared; formulas only."""

    def can(self, task: Generate | Edit) -> bool:
        return isinstance(task, Generate)


class Competitor(Method):
    """A baseline: its strength tuned on the validation split, per task and step.

    Args:
        pipeline: gives samples of the prior, from which some methods start.
        baseline: fitted.
        name: in `results.csv`.
    """

    def __init__(self, pipeline: Pipeline, baseline: Baseline, name: str) -> None:
        self.pipeline, self.baseline, self.name = pipeline, baseline, name
        self.strengths = baseline.strengths
        self.tuned: dict[str, float] = {}  # by task
        self._samples: tuple[tuple[int, ...], Tensor] = ((), Tensor())

    def can(self, task: Generate | Edit) -> bool:
        return isinstance(task, Edit) or self.baseline.can_generate(task.formula)

    def generate(self, task: Generate, seeds: Sequence[int]) -> Tensor:
        if self._samples[0] != tuple(seeds):  # tuning asks for the same samples again and again
            self._samples = (tuple(seeds), self.pipeline.sample(seeds))
        strength = self.tuned.get(task.name, 1.0)
        return self.baseline.generate(task.formula, self._samples[1], generators(seeds), strength)

    def edit(self, task: Edit, z_0: Tensor, labels: Tensor) -> list[Tensor]:
        return [self.edit_at(part, z_0, labels, self.tuned.get(part.name, 1.0)) for part in task.steps()]

    def edit_at(self, task: Edit, z_0: Tensor, labels: Tensor, strength: float) -> Tensor:
        return self.baseline.edit(z_0, EditRequest(task.edits, labels, strength)).z_0

    def tune(self, task: Generate | Edit, score: Callable[[Generate | Edit], float]) -> dict[str, float]:
        best = {}
        for part in (task,) if isinstance(task, Generate) else task.steps():
            scores = {}
            for strength in sorted(self.strengths):
                self.tuned[part.name] = strength
                scores[strength] = score(part)
            best[part.name] = max(scores, key=scores.__getitem__)  # of equally good ones the gentlest
        return best

    def adopt(self, tuned: dict[str, float]) -> None:
        self.tuned |= tuned

    def chosen(self, task: Generate | Edit) -> str:
        parts = (task,) if isinstance(task, Generate) else task.steps()
        found = ", ".join(f"{self.tuned[part.name]:g}" for part in parts if part.name in self.tuned)
        return f"Strength tuned on a validation split: {found}." if found else ""
