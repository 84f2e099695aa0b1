"""Side effects as heat maps: a row per step of a sequence of edits, a column per attribute, in each cell a percentage.

The scale has one hue, from the page's own colour at 0 % to the full one at 100 %, and every cell has its number, so
that nothing is told by colour alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lcg.benchmarks.report.tables import Group, Line, Table, cell, samples
from lcg.benchmarks.results.estimates import Results
from lcg.benchmarks.results.vocabulary import label_of

FAMILY = "changed"


@dataclass(frozen=True)
class Shade:
    """A cell: its percentage, empty where nothing was measured, and what is said when it is pointed at."""

    percent: str
    edited: bool
    said: str


@dataclass(frozen=True)
class HeatMap:
    """What one method changes along a sequence of edits.

    Args:
        method: what readers call it.
        attributes: the columns.
        rows: per step its name and a cell per attribute.
        tasks: that it shows.
    """

    method: str
    attributes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Shade, ...]], ...]
    tasks: tuple[str, ...]


def heat_maps(results: Results, steps: Sequence[tuple[str, str]]) -> list[HeatMap]:
    """A heat map per method that was measured.

    Args:
        results: with metrics changed/ATTRIBUTE.
        steps: tasks, each with all edits up to its step, and what a step adds.
    """
    tasks = tuple(task for task, _ in steps)
    attributes = _attributes(results, tasks)
    maps = []
    for method in results.methods:
        rows = tuple((name, tuple(_shade(results, method, task, a) for a in attributes)) for task, name in steps)
        if any(shade.percent for _, shades in rows for shade in shades):
            maps.append(HeatMap(label_of(method), attributes, rows, tasks))
    return maps


def _shade(results: Results, method: str, task: str, attribute: str) -> Shade:
    estimate = results.get(method, task, f"{FAMILY}/{attribute}")
    edited = names(task, attribute)
    if estimate is None:
        return Shade("", edited, f"{attribute}: not measured")
    error = "" if estimate.stderr is None else f" ± {100 * estimate.stderr:.1f}"
    said = f"{attribute}{', edited' if edited else ''}: {100 * estimate.value:.1f}{error} %"
    return Shade(f"{100 * estimate.value:.0f}", edited, said)


def names(task: str, attribute: str) -> bool:
    """Whether a task edits an attribute: edit/+hat-smile edits hat, edit/hair=red does not edit red."""
    return re.search(rf"(?<![\w=]){re.escape(attribute)}(?!\w)", task.partition("/")[2]) is not None


def heat_table(results: Results, steps: Sequence[tuple[str, str]], caption: str) -> Table:
    """The same numbers with their errors, as paper wants them: a group per method, attributes down, steps across."""
    tasks = tuple(task for task, _ in steps)
    groups = []
    for method in results.methods:
        lines = tuple(
            Line(attribute, tuple(cell(results.get(method, task, f"{FAMILY}/{attribute}"), FAMILY) for task in tasks))
            for attribute in _attributes(results, tasks)
            if any(results.get(method, task, f"{FAMILY}/{attribute}") for task in tasks)
        )
        if lines:
            groups.append(Group(lines, label_of(method), code=False))
    said = samples(results, tasks, results.metrics(tasks))
    return Table(caption, "attribute", tuple(name for _, name in steps), tuple(groups), said, tasks=tasks)


def _attributes(results: Results, tasks: Sequence[str]) -> tuple[str, ...]:
    return tuple(m.partition("/")[2] for m in results.metrics(tasks) if m.startswith(f"{FAMILY}/"))
