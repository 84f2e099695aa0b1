"""What the report is made of: a section per group of tasks, with charts, heat maps and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from markupsafe import Markup

from lcg.benchmarks.report.heatmap import HeatMap
from lcg.benchmarks.report.plots import Labelled, key
from lcg.benchmarks.report.tables import Table, by_attribute, by_method, families
from lcg.benchmarks.results.estimates import FLOOR, Results
from lcg.benchmarks.results.vocabulary import COSTS, VARIETY, describe

OURS = "lcg"
CROWD = 6
"""With more methods, a page folds what is not the first thing to see."""
SHOWN = 4
"""Methods with pictures in view where there are more: lcg, and the best of the others."""


@dataclass(frozen=True)
class Chart:
    """A drawing under its heading, and the tasks that it shows."""

    heading: str
    svg: Markup
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """Charts with a common legend and a note.

    Args:
        charts: in the order of the page.
        text: how to read them.
        legend: names with their marks.
        layout: beside each other, in `pairs`, each `alone` and as large as the page allows, or as `small` multiples.
        folded: what it is called where a page shows it only when it is asked for.
        ranked: whether its charts are narrow, with methods from the best to the worst.
    """

    charts: tuple[Chart, ...]
    text: str
    legend: tuple[tuple[str, Markup], ...] = ()
    layout: Literal["beside", "pairs", "alone", "small"] = "beside"
    folded: str = ""
    ranked: bool = False


@dataclass(frozen=True)
class Heats:
    """The heat maps of one sequence of edits, `more` of them folded, and the table with the same numbers, for paper."""

    heading: str
    maps: tuple[HeatMap, ...]
    table: Table
    more: tuple[HeatMap, ...] = ()


@dataclass(frozen=True)
class Section:
    """A group of tasks: an explanation, charts, heat maps, tables; `folded` where a page shows its heading only."""

    id: str
    heading: str
    text: str
    zero_shot: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = ()
    heats: tuple[Heats, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: bool = False


def name_of(task: str) -> str:
    """A task's formula or edits; the task itself where it has none."""
    return task.partition("/")[2] or task


def crowded(results: Results, tasks: Iterable[str]) -> bool:
    """Whether more methods compete in one of these tasks than can be seen at once."""
    return max((len(rivals(results, task)) for task in tasks), default=0) > CROWD


def rivals(results: Results, task: str) -> list[str]:
    """The methods that were measured in a task, without real images."""
    measured = {row.method for row in results.rows if row.task == task}
    return [m for m in results.methods if m in measured and m != FLOOR]


def foremost(
    results: Results, methods: Sequence[str], task: str, metrics: Sequence[str], count: int = SHOWN
) -> list[str]:
    """lcg and the best others by the first metric, by the next where they are equal; references; in their own order."""

    def standing(method: str) -> tuple[bool, list[float]]:
        found = [(describe(metric).better, results.get(method, task, metric)) for metric in metrics]
        sizes = [-math.inf if e is None else -e.value if better == "lower" else e.value for better, e in found]
        return method == OURS, sizes

    others = [m for m in methods if m != FLOOR]
    kept = {FLOOR, *sorted(others, key=standing, reverse=True)[:count]}
    return [m for m in methods if m in kept]


def legend(shown: Iterable[Labelled]) -> tuple[tuple[str, Markup], ...]:
    """Every label with its mark, once, in the order of the styles."""
    by_style = {one.style: one for one in shown}
    return tuple((one.label, key(one)) for _, one in sorted(by_style.items()))


def tables_of(
    results: Results, tasks: Sequence[str], headings: Sequence[tuple[str, str]], caption: str, corner: str = "method"
) -> list[Table]:
    """What was measured of each method: quality first, then fidelity and variety; costs have a section of their own."""
    many = crowded(results, tasks)
    first = by_method(results, tasks, headings, caption, lambda metric: metric not in {*VARIETY, *COSTS}, corner)
    second = by_method(results, tasks, headings, f"{caption}: fidelity and variety", VARIETY.__contains__, corner)
    return present(
        first and replace(first, split=many and len(first.groups) > 1),
        second and replace(second, folded=many),
    )


def split_by_attribute(results: Results, tasks: Sequence[str], without: Sequence[str] = ()) -> list[Table]:
    """A table for every metric that was measured attribute by attribute."""
    headings = [name_of(task) if len(tasks) > 1 else "" for task in tasks]
    many = crowded(results, results.tasks)
    return [
        replace(
            by_attribute(results, tasks, headings, family, f"{sentence(describe(family).label)} by attribute"),
            folded=many,
        )
        for family in families(results, tasks)
        if family not in without
    ]


def sentence(text: str) -> str:
    """With a capital; `capitalize` would make the others small."""
    return text[:1].upper() + text[1:]


def present(*tables: Table | None) -> list[Table]:
    """Those that there are."""
    return [table for table in tables if table is not None]
