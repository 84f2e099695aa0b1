"""What samples and edits cost, and what quality a method gives for it."""

from __future__ import annotations

from lcg.benchmarks.estimates import FLOOR, Results
from lcg.benchmarks.planes import Curve, Point, axis_of, plane, share_of
from lcg.benchmarks.section import Chart, Panel, Section, legend, name_of, present
from lcg.benchmarks.tables import Table, by_method
from lcg.benchmarks.vocabulary import COSTS, describe, label_of

COST = "evaluations"
QUALITY = ("frechet_distance", "joint_accuracy")


def costs(results: Results) -> Section | None:
    """All tasks whose cost was measured; None where none was."""
    tasks = [task for task in results.tasks if set(COSTS) & set(results.metrics([task]))]
    if not tasks:
        return None
    charts, shown = [], list[Curve]()
    for task in (task for task in tasks if task.startswith("generate/")):
        for metric in QUALITY:
            curves = _spots(results, task, metric)
            if len(curves) > 1:
                shown += curves
                charts.append(_chart(task, metric, curves))
    tables = []
    for caption, kinds in (
        ("Cost of samples", ("generate", "scale", "unconditional")),
        ("Cost of edits", ("edit", "synthetic", "tradeoff")),
    ):
        chosen = [task for task in tasks if task.partition("/")[0] in kinds]
        tables.append(_table(results, chosen, caption))
    rest = [task for task in tasks if not any(task in table.tasks for table in present(*tables))]
    tables.append(_table(results, rest, "Other costs" if rest != tasks else "Cost"))
    panel = Panel(
        tuple(charts),
        "A mark is a method at its own settings; the horizontal axis is logarithmic, with methods that ask no network "
        "at 0, and bars are one standard error.",
        legend(shown),
        "pairs",
    )
    return Section(
        id="cost",
        heading="Quality against cost" if charts else "Cost",
        text="An evaluation is one row through one network; unlike seconds and memory it depends on no machine.",
        panels=(panel,) if charts else (),
        tables=tuple(present(*tables)),
    )


def _spots(results: Results, task: str, metric: str) -> list[Curve]:
    """Every method as one point."""
    return [
        Curve(label_of(m), style, [Point(across, up)])
        for style, m in enumerate(results.methods)
        if m != FLOOR
        and (across := results.get(m, task, COST)) is not None
        and (up := results.get(m, task, metric)) is not None
    ]


def _chart(task: str, metric: str, curves: list[Curve]) -> Chart:
    points = [point for curve in curves for point in curve.points]
    across = axis_of(COST, [point.across.value for point in points], log=True)
    up = axis_of(metric, [p.up.value for p in points]) if metric == QUALITY[0] else share_of(metric)
    title = f"{name_of(task)}: {describe(metric).label} against {describe(COST).label} by method, as in the tables"
    return Chart(name_of(task), plane(curves, across, up, title, 190, bars=True), (task,))


def _table(results: Results, tasks: list[str], caption: str) -> Table | None:
    """Costs by task and method."""
    several = len({task.partition("/")[0] for task in tasks}) > 1
    headings = [("", task if several else name_of(task)) for task in tasks]
    return by_method(results, tasks, headings, caption, COSTS.__contains__)
