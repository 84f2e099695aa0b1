"""Samples of benchmarks that differ only in what a row of a batch can carry: made in one call.

Rows of a batch know nothing of each other, so K settings of N rows are K N rows, each with its own guidance weight, and
its own strength where it is an edit:

    editing.weight, editing.keep_weight, editing.strength
    guidance.single, guidance.several, guidance.beyond, guidance.rise, guidance.late

What depends on the sources of edits alone, their deterministic inversion and the classifier's beliefs about them, is
computed once for all settings. What is made is what each benchmark would have made by itself, but for rounding, and
lies in the same files; all that follows is done as ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lcg.benchmarks.benchmark import Benchmark, seed_range, write_made
from lcg.benchmarks.cells import Cell, Made
from lcg.benchmarks.costs import Cost, measured
from lcg.benchmarks.methods import LCG, diagnosed
from lcg.benchmarks.tasks import Edit, Generate, Scale, Task, Tradeoff
from lcg.editing import GuidedEditor
from lcg.editing.contract import edit_sequence
from lcg.guidance import Formula
from lcg.pipeline import Pipeline
from lcg.settings import Editing

ROWS = 1024
"""Rows of a batch, at most, unless a chunk of one benchmark has more: beyond, they are no cheaper."""


@dataclass(frozen=True)
class Part:
    """What one benchmark wants of a batch.

    Attributes:
        benchmark: whose it is.
        cell: what is sampled.
        method: that samples it.
    """

    benchmark: Benchmark
    cell: Cell
    method: LCG

    @property
    def common(self) -> tuple[Any, ...]:
        """What parts of one batch must have in common."""
        pipeline, cell, benchmark = self.method.pipeline, self.cell, self.benchmark
        own: tuple[Any, ...] = (pipeline.guidance.particles, _without_weights(pipeline))
        if isinstance(cell.task, Edit | Tradeoff):
            own = benchmark.conditions, replace(pipeline.editing, weight=0.0, keep_weight=0.0, strength=0.0)
        what = cell.method, cell.task, cell.seed, cell.count, cell.strengths, benchmark.sizes.chunk
        return *what, pipeline.sampling, id(pipeline.denoiser), id(pipeline.classifier), *own


def _without_weights(pipeline: Pipeline) -> Any:
    return replace(pipeline.guidance, single=0.0, several=0.0, beyond=0.0, rise=1.0, late=0.0)


def sample_together(benchmarks: Sequence[tuple[Benchmark, Sequence[Task], Sequence[int]]]) -> None:
    """Makes the chunks of samples that are missing and that several benchmarks can make in one call.

    Where the call fails nothing is made: each benchmark then finds out by itself whether it is the one to blame.

    Args:
        benchmarks: each with its tasks and its seeds.
    """
    batches = [batch for group in _groups(benchmarks) for batch in _batches(group)]
    for rows, parts in tqdm(batches, desc="samples of several runs", unit="batch", disable=not batches):
        try:
            made = _made(list(parts.values()), rows)
        except (ValueError, RuntimeError):
            continue
        for path, of_part in zip(parts, made, strict=True):
            write_made(path, of_part)


def _groups(benchmarks: Sequence[tuple[Benchmark, Sequence[Task], Sequence[int]]]) -> list[list[Part]]:
    groups: dict[tuple[Any, ...], list[Part]] = {}
    for whole, tasks, seeds in benchmarks:
        methods = [method for method in whole.methods if isinstance(method, LCG)]  # others are tuned before they plan
        own = Benchmark(whole.evaluator, methods, whole.measures, whole.conditions, whole.sizes, whole.folder)
        named = {method.name: method for method in methods}
        for cell in own.plan([task for task in tasks if isinstance(task, Edit | Tradeoff | Generate | Scale)], seeds):
            if isinstance(cell, Cell) and cell.method in named:
                part = Part(whole, cell, named[cell.method])
                if isinstance(cell.task, Edit | Tradeoff) or not part.method.pipeline.guidance.particles:
                    groups.setdefault(part.common, []).append(part)
    return list(groups.values())


def _batches(group: Sequence[Part]) -> Iterator[tuple[range, dict[Path, Part]]]:
    """Chunks of which several are missing, by the file of each."""
    first = group[0]
    for rows in first.cell.chunks(first.benchmark.sizes.chunk):
        missing = {part.benchmark.made(part.cell, rows): part for part in group}
        missing = {path: part for path, part in missing.items() if not path.is_file()}
        if len(missing) > 1:
            yield rows, missing


def _made(parts: Sequence[Part], rows: range) -> list[Made]:
    task = parts[0].cell.task
    if isinstance(task, Edit | Tradeoff):
        return _edited(parts, task.edit, rows)
    assert isinstance(task, Generate | Scale)  # see `_groups`
    return _generated(parts, task.formula, rows)


# --- formulas ---


def _generated(parts: Sequence[Part], formula: Formula, rows: range) -> list[Made]:
    cell, first = parts[0].cell, parts[0].method.pipeline
    seeds = seed_range(cell.seed, rows)
    pipelines = [part.method.at(scale) for part in parts for scale in cell.strengths or (None,)]
    first.support(formula)  # its evidence is the same for all of them, and no cost of theirs
    plans, costs = [], []
    for pipeline in pipelines:
        with measured(first.device) as cost:
            plans.append(pipeline.plan(formula))
        costs.append(cost)
    with measured(first.device) as whole:
        draws = pipelines[0].draw_each(plans, seeds)
    if cell.strengths:
        z_0 = torch.stack([draw.z_0 for draw in draws]).unflatten(0, (len(parts), -1))
        return [Made(of_part) for of_part in z_0]
    share = 1 / sum(draw.drawn for draw in draws)
    costs = [cost + _part_of(whole, draw.drawn * share) for cost, draw in zip(costs, draws, strict=True)]
    return [Made(draw.z_0[None], cost=c, said=tuple(diagnosed(draw))) for draw, c in zip(draws, costs, strict=True)]


# --- edits ---


def _edited(parts: Sequence[Part], task: Edit, rows: range) -> list[Made]:
    cell, first = parts[0].cell, parts[0].method.pipeline
    assert cell.sources is not None  # edits have sources
    sources = cell.sources()[rows.start : rows.stop]
    z_0, labels = sources.z_0.to(first.device), sources.labels.to(first.device)
    own = [part.method.pipeline.editing for part in parts]
    settings = [replace(editing, strength=s) for editing in own for s in cell.strengths or (editing.strength,)]
    editor = first.editor(rows)
    with measured(first.device) as shared:
        editor.prepare(z_0)
    made: dict[int, Made] = {}
    for numbers in _portions(settings, max(1, ROWS // len(z_0))):
        with measured(first.device) as cost:
            edited = edit_each(editor, [settings[number] for number in numbers], z_0, task.edits, labels)
        each = shared + _part_of(cost, 1 / len(numbers))
        made |= {number: Made(steps, cost=each) for number, steps in zip(numbers, edited, strict=True)}
    ordered = [made[number] for number in range(len(settings))]
    if cell.strengths:
        last = torch.stack([one.z_0[-1] for one in ordered]).unflatten(0, (len(parts), -1))
        return [Made(of_part) for of_part in last]
    return ordered


def _portions(settings: Sequence[Editing], at_once: int) -> Iterator[list[int]]:
    """The numbers of the settings that are made in one call.

    At strength 1 an editor leaves the source out. Beside others it would not, and what little is left of it, next to
    nothing, may still round a pixel the other way: these are made apart.
    """
    for last in (False, True):
        numbers = [number for number, setting in enumerate(settings) if (setting.strength == 1) is last]
        yield from (numbers[start : start + at_once] for start in range(0, len(numbers), at_once))


def edit_each(
    editor: GuidedEditor, settings: Sequence[Editing], z_0: Tensor, edits: Sequence[Formula], labels: Tensor
) -> list[Tensor]:
    """A sequence of edits under each of several settings, in one call.

    Args:
        editor: with what the settings have in common.
        settings: which differ in `weight`, `keep_weight` and `strength`.
        z_0: (N, *latent) the sources.
        edits: one after another.
        labels: (N, A) of the sources.

    Returns:
        For each of the settings the latents (steps, N, *latent).
    """
    count = len(settings)

    def column(value: Callable[[Editing], float]) -> Tensor:
        return torch.tensor([value(setting) for setting in settings]).to(z_0).repeat(len(z_0))

    # The rows of a source follow one another, so that they share the noise of its seed.
    several = editor.weighted(column(lambda s: s.weight), column(lambda s: s.keep_weight))
    sources, known = z_0.repeat_interleave(count, 0), labels.repeat_interleave(count, 0)
    results = edit_sequence(several, sources, edits, known, column(lambda s: s.strength))
    steps = torch.stack([result.z_0.unflatten(0, (len(z_0), count)) for result in results])
    return list(steps.unbind(2))


def _part_of(cost: Cost, share: float) -> Cost:
    """A share of a batch's seconds and evaluations; its memory is needed as a whole."""
    return Cost(cost.seconds * share, math.floor(cost.evaluations * share + 0.5), cost.memory)
