"""What a benchmark cannot measure, found before anything is measured; and what nobody has seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lcg.benchmarks.benchmark import Sizes
from lcg.benchmarks.evaluator import Evaluator, sources_of
from lcg.benchmarks.tasks import Edit, Generate, Scale, Single, Task, Tradeoff
from lcg.benchmarks.view import frames_of
from lcg.guidance import Formula
from lcg.pipeline import Pipeline


def check_tasks(tasks: Sequence[Task], conditions: Formula, evaluator: Evaluator, sizes: Sizes) -> None:
    """Finds what a benchmark cannot measure before anything is measured.

    Raises:
        ValueError: settings of guidance, sampling or editing are out of range; a formula contradicts itself or holds
            for no image; edits name an attribute twice, are not of binary attributes, leave no source, or begin like
            those of another task; or there are too few images for a Frechet distance.
    """
    pipeline, world = evaluator.pipeline, evaluator.world
    check_settings(pipeline)
    names = [frame.name for task in tasks for frame in frames_of(task, ())]
    if again := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"`tasks` must measure everything once, got {sorted(again)[0]!r} twice: a sequence of edits measures each "
            "of its steps, so leave out the shorter one"
        )
    features = evaluator.judge.config["features"]
    for task in tasks:
        if isinstance(task, Generate | Scale) or task == Single("unconditional"):
            count = sizes.unconditional if isinstance(task, Single) else sizes.samples
            if min(count, sizes.references) <= features:
                raise ValueError(
                    f"`samples`, `unconditional` and `references` must be above {features}, the judge's features, for "
                    f"a Frechet distance, got {count} for {task.name!r} and {sizes.references} references"
                )
        if isinstance(task, Generate | Scale):
            pipeline.term(task.formula)
            world.check_exists(task.formula)
        if isinstance(task, Edit | Tradeoff):
            binary = {a.name for a in world.schema.of_kind("binary")}
            names = [name for literal in task.edit.edits for name in literal.attributes]
            if len(set(names)) != len(names) or not set(names) <= binary:
                raise ValueError(
                    f"the edits of {task.name!r} must each change another binary attribute, one of "
                    f"{', '.join(sorted(binary))}; use `lcg edit` for others"
                )
            world.check_exists(sources_of(task.edit, conditions))


def check_settings(pipeline: Pipeline) -> None:
    """Raises ValueError for settings of sampling or editing that no sampler or editor takes."""
    pipeline.sampling.build(pipeline.denoiser)
    pipeline.editor()


def never_seen(task: Task, labels: Tensor) -> list[str]:
    """The names of a task's results that ask for a combination which no labelled latent has."""
    if isinstance(task, Generate | Scale):
        return [] if bool(task.formula.holds(labels).any()) else [task.name]
    if isinstance(task, Edit):
        return [p.name for p in task.steps() if not bool(torch.stack([e.holds(labels) for e in p.edits]).all(0).any())]
    if isinstance(task, Tradeoff):
        last = never_seen(task.edit, labels)[-1:]
        return [task.name] if last == [task.edit.name] else []
    return []
