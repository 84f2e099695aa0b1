"""The first look: a table per group of tasks, methods down, means over the tasks across; nothing is interpreted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lcg.benchmarks.report.means import Means
from lcg.benchmarks.report.section import OURS, Section, name_of, present
from lcg.benchmarks.report.tables import Line, Table, by_method
from lcg.benchmarks.report.winners import rule_note, verdict
from lcg.benchmarks.results.estimates import FLOOR
from lcg.benchmarks.results.vocabulary import describe, label_of

COST = "seconds_per_sample"


def glance(groups: Sequence[Means], claims: frozenset[str]) -> Section | None:
    """A table for every group that has means; None where nothing is compared."""
    tables = present(*(_table(means) for means in groups))
    methods = {m for means in groups for m in means.results.methods if m != FLOOR}
    if len(methods) < 2:
        return None
    rules = {
        rule
        for means in groups
        for metric in (*means.metrics, COST)
        for rule in verdict(means.results, means.results.methods, means.task, metric).rules
    }
    others = len(methods - {OURS})
    many = f"{others} other method{'' if others == 1 else 's'}"
    who = f"{label_of(OURS)} against {many}" if OURS in methods else "Methods"
    return Section(
        id="glance",
        heading="At a glance",
        text=f"{who} on the same tasks: means over the tasks of a group with their pooled standard errors, n samples "
        f"of each method; {label_of(OURS)} first, then from the best to the worst in the first column.",
        zero_shot=tuple(dict.fromkeys(name_of(task) for table in tables for task in table.tasks if task in claims)),
        tables=tuple(replace(table, note=rule_note(rules)) for table in tables),
    )


def _table(means: Means) -> Table | None:
    table = by_method(
        means.results, [means.task], [("", "")], means.heading, lambda metric: metric in {*means.metrics, COST}
    )
    if table is None:
        return None
    left = [f"“{name_of(task)}”" for task in means.tasks if task not in means.over]
    said = f"{means.said}; without {', '.join(left)}, which few answer" if left else means.said
    return replace(_without_error(table, COST), samples=said, tasks=means.over)


def _without_error(table: Table, metric: str) -> Table:
    """A column of values alone: two tables fit beside each other, and seconds need no error at a glance."""
    where = [i for i, column in enumerate(table.columns) if column.startswith(describe(metric).label)]

    def plain(line: Line) -> Line:
        return replace(line, cells=tuple(replace(c, error="") if i in where else c for i, c in enumerate(line.cells)))

    groups = (replace(group, lines=tuple(map(plain, group.lines))) for group in table.groups)
    return replace(table, groups=tuple(groups))
