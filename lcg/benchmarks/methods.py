"""The methods that a benchmark compares, behind one contract: generate latents for a formula, edit latents.

A baseline is tuned on a validation split before it is measured, for every task and every step of a sequence anew, over
its own grid of strengths. lcg is not: its settings are the same for all tasks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lcg.baselines.contract import Baseline, Mover
from lcg.benchmarks.cache import Cache, Tensors
from lcg.benchmarks.costs import Cost, measured
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.tasks import Edit, Generate, Scale, Single, Task, Tradeoff
from lcg.diffusion import generators
from lcg.editing import GuidedEditor
from lcg.editing.contract import EditRequest, edit_sequence, edit_together
from lcg.pipeline import Pipeline
from lcg.results.samples import Draw
from lcg.settings import Editing, Guidance, Sampling

SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Guidance weights at which lcg answers a formula."""


class Method(ABC):
    """A method under comparison.

    Attributes:
        name: in `results.csv`.
        strengths: at which its edits are measured for the trade-off between success and preservation.
        scales: at which its samples of a formula are.
        tuned: strength by the name of a task or step, as a search on the validation split found it.
    """

    name: str
    strengths: tuple[float, ...]
    scales: tuple[float, ...]

    def __init__(self) -> None:
        self.tuned: dict[str, float] = {}

    def can(self, task: Task) -> bool:
        """Whether the method has an answer to this task at all."""
        return not isinstance(task, Single)

    @abstractmethod
    def depends(self, task: Task) -> tuple[str, ...]:
        """The names of the settings that its answer to a task depends on."""

    @abstractmethod
    def generate(self, task: Generate, seeds: Sequence[int], strength: float | None = None) -> Tensor:
        """Standardised latents (N, *latent), one per seed; at a strength, or as the method has it for this task."""

    @abstractmethod
    def edit(self, task: Edit, z_0: Tensor, labels: Tensor, rows: Sequence[int]) -> Tensor:
        """Standardised latents (steps, N, *latent) after each edit of the sequence.

        Args:
            task: the sequence.
            z_0: (N, *latent) of the sources.
            labels: (N, A) the sources' own.
            rows: the sources' numbers, which seed what noise an editor draws.
        """

    @abstractmethod
    def edit_at(self, task: Edit, z_0: Tensor, labels: Tensor, rows: Sequence[int], strength: float) -> Tensor:
        """Standardised latents (N, *latent) after all edits, made with this strength."""

    def generate_each(self, task: Generate, seeds: Sequence[int], strengths: Sequence[float]) -> Tensor:
        """Standardised latents (strengths, N, *latent), see `generate`."""
        return torch.stack([self.generate(task, seeds, strength) for strength in strengths])

    def edit_each(
        self, task: Edit, z_0: Tensor, labels: Tensor, rows: Sequence[int], strengths: Sequence[float]
    ) -> Tensor:
        """Standardised latents (strengths, N, *latent), see `edit_at`."""
        return torch.stack([self.edit_at(task, z_0, labels, rows, strength) for strength in strengths])

    def parts(self, task: Task) -> tuple[Generate | Edit, ...]:
        """What a strength is to be found for before the task is measured; nothing where a method is not tuned."""
        return ()

    def prepare(self) -> None:  # noqa: B027 (optional)
        """Learns what the method needs before it is asked for anything; raises where that is not there."""

    def surcharge(self, task: Generate, seeds: Sequence[int]) -> Cost:
        """What was computed for these samples at another time, and belongs to their cost."""
        return Cost()

    def diagnostics(self) -> Iterator[Figure]:
        """What the method itself says of its last samples, such as how far to trust them."""
        return iter(())

    def chosen(self, task: Task) -> str:
        """What tuning chose for a task, in words; empty where nothing was tuned."""
        found = ", ".join(f"{self.tuned[part.name]:g}" for part in self.parts(task) if part.name in self.tuned)
        return f"Strength tuned on a validation split: {found}." if found else ""


@dataclass(frozen=True)
class Variation:
    """Other settings of lcg, to be compared under a name of their own.

    Args:
        sampling: how latents are sampled; None for the benchmark's.
        guidance: how strongly formulas guide; None for the benchmark's.
        editing: how edits are made; None for the benchmark's.
    """

    sampling: Sampling | None = None
    guidance: Guidance | None = None
    editing: Editing | None = None

    def __post_init__(self) -> None:
        if self.sampling is None and self.guidance is None and self.editing is None:
            raise ValueError("a variation must change `sampling`, `guidance` or `editing`, got none of them")

    def of(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline with these settings."""
        return replace(
            pipeline,
            sampling=self.sampling or pipeline.sampling,
            guidance=self.guidance or pipeline.guidance,
            editing=self.editing or pipeline.editing,
        )


class LCG(Method):
    """Latent classifier guidance with the pipeline's settings, or a variation of them.

    Args:
        pipeline: with its settings.
        name: in `results.csv`.
        variation: what differs from the benchmark's own settings; it answers those tasks only that this touches.
    """

    scales = SCALES

    def __init__(self, pipeline: Pipeline, name: str = "lcg", variation: Variation | None = None) -> None:
        super().__init__()
        self.pipeline = pipeline if variation is None else variation.of(pipeline)
        self.name, self.variation = name, variation
        self.strengths = pipeline.editor().strengths
        self._last: Draw | None = None
        self._editor: GuidedEditor | None = None

    def can(self, task: Task) -> bool:
        v = self.variation
        if isinstance(task, Single):
            return task.name == "unconditional" and (v is None or v.sampling is not None)
        if v is None:
            return True
        if isinstance(task, Edit):
            return v.editing is not None
        if isinstance(task, Tradeoff):  # a curve through strengths that every variation would draw again
            return False
        return v.guidance is not None or v.sampling is not None

    def depends(self, task: Task) -> tuple[str, ...]:
        own = () if self.variation is None else (f"variation {self.name}",)
        asked: tuple[str, ...] = ("guidance",)
        if isinstance(task, Edit | Tradeoff):
            asked = "sources", "editing"
        elif isinstance(task, Single):
            asked = ()
        return (*own, "sampling", *asked)

    def sample(self, seeds: Sequence[int]) -> Tensor:
        """Samples of the prior (N, *latent)."""
        self._last = None
        return self.pipeline.sample(seeds)

    def generate(self, task: Generate, seeds: Sequence[int], strength: float | None = None) -> Tensor:
        self._last = self.at(strength).draw(seeds, task.formula)
        return self._last.z_0

    def at(self, strength: float | None) -> Pipeline:
        """The pipeline with one guidance weight for all formulas; None for its own."""
        if strength is None:
            return self.pipeline
        # One draw each: to draw again what the classifier rejects would hide the weight.
        guidance = replace(self.pipeline.guidance, single=strength, several=strength, beyond=strength, attempts=1)
        return replace(self.pipeline, guidance=guidance)

    def surcharge(self, task: Generate, seeds: Sequence[int]) -> Cost:
        """Nothing; but the prior's samples that tell its support are there now, and no cost of the first ones."""
        self.pipeline.support(task.formula)
        return Cost()

    def diagnostics(self) -> Iterator[Figure]:
        return iter(()) if self._last is None else diagnosed(self._last)

    def edit(self, task: Edit, z_0: Tensor, labels: Tensor, rows: Sequence[int]) -> Tensor:
        self._editor = self.pipeline.editor(rows)  # what edits cost must not depend on what was asked before
        results = edit_sequence(self._editor, z_0, task.edits, labels)
        return torch.stack([result.z_0 for result in results])

    def edit_at(self, task: Edit, z_0: Tensor, labels: Tensor, rows: Sequence[int], strength: float) -> Tensor:
        return edit_together(self.editor(rows), z_0, task.edits, labels, strength).z_0

    def editor(self, rows: Sequence[int]) -> GuidedEditor:
        """The editor of these sources, the same one while it is asked about them: it remembers their inversion."""
        if self._editor is None or self._editor.seeds != tuple(rows):
            self._editor = self.pipeline.editor(rows)
        return self._editor


def diagnosed(draw: Draw) -> Iterator[Figure]:
    """What a draw says of itself."""
    if draw.plan is None:
        return
    n = len(draw.z_0)
    if math.isfinite(draw.log_p_formula):
        yield Figure("log_p_formula", draw.log_p_formula, draw.stderr, n)
    if math.isfinite(draw.ess):
        yield Figure("ess", draw.ess, math.nan, n)


class Competitor(Method):
    """A baseline: its strength tuned on the validation split, per task and step.

    Args:
        pipeline: gives samples of the prior, from which some methods start.
        baseline: with its options; it is fitted when it is first needed.
        fit: lets it learn.
        name: in `results.csv`.
        cache: keeps these samples, which several methods start from.
    """

    def __init__(
        self, pipeline: Pipeline, baseline: Baseline, fit: Callable[[Baseline], Baseline], name: str, cache: Cache
    ) -> None:
        super().__init__()
        self.pipeline, self.options, self.fit, self.name, self.cache = pipeline, baseline, fit, name, cache
        self.strengths = self.scales = tuple(sorted(baseline.strengths))

    @cached_property
    def baseline(self) -> Baseline:
        """The fitted method."""
        return self.fit(self.options)

    def can(self, task: Task) -> bool:
        if isinstance(task, Generate | Scale):
            return self.options.can_generate(task.formula)
        return super().can(task)

    def prepare(self) -> None:
        self.baseline  # noqa: B018 (fits it)

    def depends(self, task: Task) -> tuple[str, ...]:
        return f"baseline {self.name}", "sampling", *(("sources",) if isinstance(task, Edit | Tradeoff) else ())

    def parts(self, task: Task) -> tuple[Generate | Edit, ...]:
        if isinstance(task, Generate):
            return (task,)
        return replace(task, synthetic=False).steps() if isinstance(task, Edit) else ()

    def generate(self, task: Generate, seeds: Sequence[int], strength: float | None = None) -> Tensor:
        chosen = self.tuned.get(task.name, 1.0) if strength is None else strength
        return self.generate_each(task, seeds, [chosen])[0]

    def generate_each(self, task: Generate, seeds: Sequence[int], strengths: Sequence[float]) -> Tensor:
        """All strengths in one call, a row for each."""
        z_0, k = self._start(seeds), len(strengths)
        start, randomness = torch.cat([z_0] * k), generators([*seeds] * k)
        drawn = self.baseline.generate(task.formula, start, randomness, _each(strengths, z_0))
        return drawn.unflatten(0, (k, len(z_0)))

    def surcharge(self, task: Generate, seeds: Sequence[int]) -> Cost:
        """The samples of the prior that a method starts from, and shares with others."""
        if not self._moves:
            return Cost()
        entry = self._prior(seeds)
        return Cost(float(entry["seconds"]), int(entry["evaluations"]))

    @property
    def _moves(self) -> bool:
        """Whether the method takes samples of the prior elsewhere; others look at their shape only."""
        return isinstance(self.options, Mover)

    def _start(self, seeds: Sequence[int]) -> Tensor:
        pipeline = self.pipeline
        if self._moves:
            return self._prior(seeds)["z_0"].to(pipeline.device)
        return torch.zeros(len(seeds), *pipeline.denoiser.latent_shape, device=pipeline.device)

    def _prior(self, seeds: Sequence[int]) -> Tensors:
        def make() -> Tensors:
            with measured(self.pipeline.device) as cost:
                z_0 = self.pipeline.sample(seeds)
            return {
                "z_0": z_0,
                "seconds": torch.tensor(cost.seconds, dtype=torch.float64),
                "evaluations": torch.tensor(cost.evaluations),
            }

        return self.cache.get(make, "prior", str(self.pipeline.sampling), seeds[0], len(seeds))

    def edit(self, task: Edit, z_0: Tensor, labels: Tensor, rows: Sequence[int]) -> Tensor:
        strengths = [self.tuned.get(part.name, 1.0) for part in self.parts(task)]
        steps = zip(task.steps(), strengths, strict=True)
        return torch.stack([self.edit_at(part, z_0, labels, rows, strength) for part, strength in steps])

    def edit_at(self, task: Edit, z_0: Tensor, labels: Tensor, rows: Sequence[int], strength: float) -> Tensor:
        return self.edit_each(task, z_0, labels, rows, [strength])[0]

    def edit_each(
        self, task: Edit, z_0: Tensor, labels: Tensor, rows: Sequence[int], strengths: Sequence[float]
    ) -> Tensor:
        """All strengths in one call, a row for each."""
        k, each = len(strengths), _each(strengths, z_0)
        edited = self.baseline.edit(torch.cat([z_0] * k), EditRequest(task.edits, torch.cat([labels] * k), each))
        return edited.z_0.unflatten(0, (k, len(z_0)))


def _each(strengths: Sequence[float], z_0: Tensor) -> Tensor:
    """A strength for each row: the first one for all of z_0, then the second."""
    return torch.tensor(strengths, dtype=z_0.dtype, device=z_0.device).repeat_interleave(len(z_0))
