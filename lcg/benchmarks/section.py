"""What the report is made of: a section per group of tasks, with charts, heat maps and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from lcg.benchmarks.estimates import Results
from lcg.benchmarks.heatmap import HeatMap
from lcg.benchmarks.plots import Labelled, key
from lcg.benchmarks.tables import Table, by_attribute, by_method, families
from lcg.benchmarks.vocabulary import COSTS, VARIETY, describe

OURS = "lcg"


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
    """

    charts: tuple[Chart, ...]
    text: str
    legend: tuple[tuple[str, Markup], ...] = ()
    layout: Literal["beside", "pairs", "alone", "small"] = "beside"


@dataclass(frozen=True)
class Heats:
    """The heat maps of one sequence of edits, and the table with the same numbers, for paper."""

    heading: str
    maps: tuple[HeatMap, ...]
    table: Table


@dataclass(frozen=True)
class Section:
    """A group of tasks: an explanation, charts, heat maps, tables."""

    id: str
    heading: str
    text: str
    zero_shot: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = ()
    heats: tuple[Heats, ...] = ()
    tables: tuple[Table, ...] = ()


def name_of(task: str) -> str:
    """A task's formula or edits; the task itself where it has none."""
    return task.partition("/")[2] or task


def legend(shown: Iterable[Labelled]) -> tuple[tuple[str, Markup], ...]:
    """Every label with its mark, once, in the order of the styles."""
    by_style = {one.style: one for one in shown}
    return tuple((one.label, key(one)) for _, one in sorted(by_style.items()))


def tables_of(
    results: Results, tasks: Sequence[str], headings: Sequence[tuple[str, str]], caption: str, corner: str = "method"
) -> list[Table]:
    """What was measured of each method: quality first, then fidelity and variety; costs have a section of their own."""
    return present(
        by_method(results, tasks, headings, caption, lambda metric: metric not in {*VARIETY, *COSTS}, corner),
        by_method(results, tasks, headings, f"{caption}: fidelity and variety", VARIETY.__contains__, corner),
    )


def split_by_attribute(results: Results, tasks: Sequence[str], without: Sequence[str] = ()) -> list[Table]:
    """A table for every metric that was measured attribute by attribute."""
    headings = [name_of(task) if len(tasks) > 1 else "" for task in tasks]
    return [
        by_attribute(results, tasks, headings, family, f"{sentence(describe(family).label)} by attribute")
        for family in families(results, tasks)
        if family not in without
    ]


def sentence(text: str) -> str:
    """With a capital; `capitalize` would make the others small."""
    return text[:1].upper() + text[1:]


def present(*tables: Table | None) -> list[Table]:
    """Those that there are."""
    return [table for table in tables if table is not None]
