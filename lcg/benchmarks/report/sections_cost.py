"""What samples and edits cost, and what quality a method gives for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lcg.benchmarks.report.means import Means
from lcg.benchmarks.report.planes import Curve, Point, axis_of, plane, share_of
from lcg.benchmarks.report.section import Chart, Panel, Section, crowded, legend, name_of, present
from lcg.benchmarks.report.tables import by_method
from lcg.benchmarks.results.estimates import FLOOR, Results
from lcg.benchmarks.results.vocabulary import COSTS, describe, label_of

COST = "evaluations"


def costs(results: Results, groups: Sequence[Means]) -> Section | None:
    """All tasks whose cost was measured, with a chart per group of them; None where none was."""
    tasks = [task for task in results.tasks if set(COSTS) & set(results.metrics([task]))]
    if not tasks:
        return None
    spots = [(means, curves) for means in groups if len(curves := _spots(results, means)) > 1]
    panel = Panel(
        tuple(_chart(means, curves) for means, curves in spots),
        "A mark is a method at its own settings, in the mean over the tasks of the group; the horizontal axis is "
        "logarithmic, with methods that ask no network at 0, and bars are one standard error.",
        legend(curve for _, curves in spots for curve in curves),
    )
    several = len({task.partition("/")[0] for task in tasks}) > 1
    headings = [("", task if several else name_of(task)) for task in tasks]
    table = by_method(results, tasks, headings, "Cost by task and method", COSTS.__contains__)
    return Section(
        id="cost",
        heading="Quality against cost" if spots else "Cost",
        text="An evaluation is one row through one network; unlike seconds and memory it depends on no machine.",
        panels=(panel,) if spots else (),
        tables=tuple(present(table and replace(table, folded=crowded(results, tasks)))),
    )


def _spots(results: Results, means: Means) -> list[Curve]:
    """Every method as one point."""
    return [
        Curve(label_of(m), style, [Point(across, up)])
        for style, m in enumerate(results.methods)
        if m != FLOOR
        and (across := means.results.get(m, means.task, COST)) is not None
        and (up := means.results.get(m, means.task, means.metrics[0])) is not None
    ]


def _chart(means: Means, curves: Sequence[Curve]) -> Chart:
    metric = describe(means.metrics[0]).label
    across = axis_of(COST, [point.across.value for curve in curves for point in curve.points], log=True)
    title = f"{means.heading}: {metric} against {describe(COST).label} by method"
    drawing = plane(curves, across, share_of(means.metrics[0]), title, 190, bars=True)
    return Chart(means.heading, drawing, means.over)
