"""The methods that a benchmark compares, behind one contract: generate latents for a formula, edit latents.

Each may tune itself on a validation split before it is measured. lcg does not: its settings are the same for all tasks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from lcg.baselines.latent_arithmetic import LatentArithmetic
from lcg.benchmarks.evaluator import Figure
from lcg.benchmarks.tasks import Edit, Generate
from lcg.guidance import Atom, Not
from lcg.pipeline import Draw, Pipeline

STEPS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
"""The grid on which latent arithmetic is tuned, in mean differences."""


class Method(ABC):
    """A method under comparison.

    Attributes:
        name: in `results.csv`.
    """

    name: str

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

    def tune(self, task: Generate | Edit, score: Callable[[Generate | Edit], float]) -> None:  # noqa: B027 (optional)
        """Adapts itself to a task, once; `score(task)` measures it as it stands on the validation split."""

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


class Variant(LCG):
    """Latent classifier guidance with other settings of its guidance, to be compared; formulas only."""

    def can(self, task: Generate | Edit) -> bool:
        return isinstance(task, Generate)


class Arithmetic(Method):
    """Latent arithmetic: samples of the prior, or sources, moved along mean differences; its step tuned per task."""

    name = "arithmetic"

    def __init__(self, pipeline: Pipeline, arithmetic: LatentArithmetic) -> None:
        self.pipeline, self.arithmetic = pipeline, arithmetic
        self.steps: dict[str, float] = {}  # by task
        self._samples: tuple[tuple[int, ...], Tensor] = ((), Tensor())

    def can(self, task: Generate | Edit) -> bool:
        """Directions exist for literals: conjunctions of them, and edits."""
        if isinstance(task, Edit):
            return True
        return all(
            isinstance(f, Atom) or (isinstance(f, Not) and isinstance(f.operand, Atom))
            for f, _ in task.formula.conjuncts
        )

    def generate(self, task: Generate, seeds: Sequence[int]) -> Tensor:
        if self._samples[0] != tuple(seeds):  # tuning asks for the same samples again and again
            self._samples = (tuple(seeds), self.pipeline.sample(seeds))
        self.arithmetic.step = self.steps.get(task.name, 1.0)
        return self.arithmetic.generate(task.formula, self._samples[1])

    def edit(self, task: Edit, z_0: Tensor, labels: Tensor) -> list[Tensor]:
        return [self.arithmetic.move(z_0, part.edits, self.steps.get(part.name, 1.0)) for part in task.steps()]

    def tune(self, task: Generate | Edit, score: Callable[[Generate | Edit], float]) -> None:
        for part in (task,) if isinstance(task, Generate) else task.steps():
            if part.name in self.steps:
                continue

            def at(step: float, part: Generate | Edit = part) -> float:
                self.steps[part.name] = step
                return score(part)

            self.steps[part.name] = self.arithmetic.tune(STEPS, at)

    def chosen(self, task: Generate | Edit) -> str:
        parts = (task,) if isinstance(task, Generate) else task.steps()
        steps = ", ".join(f"{self.steps[part.name]:g}" for part in parts if part.name in self.steps)
        return f"Step tuned on a validation split: {steps}." if steps else ""
