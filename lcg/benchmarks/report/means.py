"""Means over tasks of one group, for a first look: formulas, formulas never seen, edits, trade-offs.

Of T tasks with estimates v_t and standard errors e_t, taken for independent,

    value = mean_t v_t,      stderr = sqrt(sum_t e_t^2) / T.

A mean is over tasks that more than half of the methods have an answer to, and only of methods that answer all of these:
means over different tasks are not comparable. Of one task it is that task itself, with its paired comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from lcg.benchmarks.report.section import OURS
from lcg.benchmarks.report.sections_editing import chains
from lcg.benchmarks.results.estimates import FLOOR, Estimate, Results, Row
from lcg.benchmarks.results.vocabulary import COSTS, describe


@dataclass(frozen=True)
class Means:
    """A group of tasks, as if it were one.

    Args:
        id: of the group.
        heading: what readers call it.
        what: a task of it, for "1 formula" and "4 formulas".
        measured: everything that was measured.
        tasks: all of the group.
        metrics: the first ranks the methods.
    """

    id: str
    heading: str
    what: str
    measured: Results
    tasks: tuple[str, ...]
    metrics: tuple[str, ...]

    @cached_property
    def over(self) -> tuple[str, ...]:
        """The tasks that the means are over."""
        answered = {task: {m for m in self.measured.methods if self._first(m, task)} for task in self.tasks}
        methods = set().union(*answered.values())
        return tuple(task for task, known in answered.items() if 2 * len(known) > len(methods))

    def _first(self, method: str, task: str) -> bool:
        return method != FLOOR and self.measured.get(method, task, self.metrics[0]) is not None

    @cached_property
    def task(self) -> str:
        """What the mean is called in `results`: the task itself, if there is only one."""
        return self.over[0] if len(self.over) == 1 else f"mean/{self.id}"

    @cached_property
    def results(self) -> Results:
        """The means, lcg first, then from the best to the worst in the first metric, references last."""
        means = {m: {c: e for c in self._columns if (e := self._mean(m, c))} for m in self.measured.methods}
        sign = -1 if describe(self.metrics[0]).better == "higher" else 1

        def rank(method: str) -> tuple[bool, float]:
            first = means[method].get(self.metrics[0])
            return method != OURS, math.inf if first is None else sign * first.value

        rows = [
            Row(method, self.task, metric, e.value, e.stderr, e.n, None)
            for method in sorted(means, key=rank)
            for metric, e in means[method].items()
        ]
        return Results(tuple(rows), self.measured.comparisons if len(self.over) == 1 else ())

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.metrics, *(metric for metric in COSTS if metric not in self.metrics))

    def _mean(self, method: str, metric: str) -> Estimate | None:
        found = [e for task in self.over if (e := self.measured.get(method, task, metric)) is not None]
        if not found or len(found) < len(self.over):
            return None
        errors = [e.stderr for e in found if e.stderr is not None]
        counts = [e.n for e in found if e.n is not None]
        return Estimate(
            sum(e.value for e in found) / len(found),
            math.hypot(*errors) / len(found) if len(errors) == len(found) else None,
            sum(counts) if len(counts) == len(found) else None,
        )

    @property
    def said(self) -> str:
        """What the means are over: tasks, samples of a method, seeds."""
        estimates = [e for m in self.measured.methods for t in self.over if (e := self._estimate(m, t)) is not None]
        counts = sorted({row.n for row in self.results.rows if row.metric == self.metrics[0] and row.n is not None})
        seeds = sorted({seed for e in estimates for seed in e.seeds})
        parts = [f"{len(self.over)} {self.what}{'' if len(self.over) == 1 else 's'}"]
        if counts:
            parts.append(f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}")
        if seeds:
            parts.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}")
        return ", ".join(parts)

    def _estimate(self, method: str, task: str) -> Estimate | None:
        return self.measured.get(method, task, self.metrics[0])


def groups(results: Results, claims: frozenset[str]) -> list[Means]:
    """Formulas, formulas never seen, edits after their last step, trade-offs: those of which there are means."""

    def of(prefix: str, wanted: Callable[[str], bool] = lambda task: True) -> tuple[str, ...]:
        return tuple(task for task in results.tasks if task.startswith(prefix) and wanted(task))

    quality = ("joint_accuracy", "sharp", "frechet_distance")
    edited = ("edit_success", "kept_fine")
    found = (
        Means("formulas", "Formulas", "formula", results, of("generate/", lambda t: t not in claims), quality),
        Means("unseen", "Zero-shot formulas", "formula", results, of("generate/", claims.__contains__), quality),
        Means("edits", "Edits, all steps", "sequence", results, _last(of("edit/")), edited),
        Means("synthetic", "Edits of synthetic sources", "sequence", results, _last(of("synthetic/")), edited),
        Means("trade-off", "Trade-off", "sequence", results, of("tradeoff/"), ("pareto_area",)),
    )
    return [means for means in found if means.over]


def _last(tasks: Sequence[str]) -> tuple[str, ...]:
    """Every sequence after its last step."""
    return tuple(sequence[-1][0] for sequence in chains(tasks))
