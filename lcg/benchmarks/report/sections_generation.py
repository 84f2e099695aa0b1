"""Samples that satisfy a formula: at each method's own strength, and at all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lcg.benchmarks.report.planes import Curve, Point, axis_of, plane, share_of
from lcg.benchmarks.report.plots import Series, dumbbells
from lcg.benchmarks.report.section import (
    OURS,
    Chart,
    Panel,
    Section,
    crowded,
    legend,
    name_of,
    present,
    sentence,
    split_by_attribute,
    tables_of,
)
from lcg.benchmarks.report.tables import at_strengths, by_strength, column_of
from lcg.benchmarks.results.estimates import FLOOR, Estimate, Results
from lcg.benchmarks.results.vocabulary import describe, label_of

QUALITY = "frechet_distance"
SHARES = ("joint_accuracy", "sharp")
WIDE = 20
"""From this ratio of the largest to the smallest on, values are drawn on a logarithmic axis."""


def formulas(results: Results, tasks: Sequence[str], claims: frozenset[str]) -> Section:
    """Every formula, with what ghosts cost each method."""
    headings = [("zero-shot" if task in claims else "", name_of(task)) for task in tasks]
    charts, many = [], crowded(results, tasks)
    for task in tasks:
        series = [
            Series(label_of(m), results.methods.index(m), (results.get(m, task, "joint_accuracy"), sharp))
            for m in results.methods
            if m != FLOOR and (sharp := results.get(m, task, "sharp")) is not None
        ]
        if series:
            title = f"{name_of(task)}: joint accuracy and sharp by method, as in the table"
            charts.append(Chart(name_of(task), dumbbells(series, title, ranked=many), (task,)))
    panel = Panel(
        tuple(charts),
        "Open mark: joint accuracy. Full mark: sharp. The line between them is what is lost to ghosts, samples that "
        "the judge accepts but that resemble no real image.",
        ranked=many,
    )
    return Section(
        id="formulas",
        heading="Generation by formula",
        text="Every method draws samples for a formula; the judge says which are right. Real images that satisfy the "
        "formula give the floor of distances and the ceiling of accuracies.",
        zero_shot=tuple(name_of(task) for task in tasks if task in claims),
        panels=(panel,) if charts else (),
        tables=(
            *tables_of(results, tasks, headings, "By formula and method"),
            *split_by_attribute(results, tasks),
        ),
    )


def scales(results: Results, tasks: Sequence[str], claims: frozenset[str]) -> Section:
    """Every formula at every strength: what accuracy costs in quality, and what lcg's weight does to each metric."""
    panels = []
    for task in tasks:
        compared = _compared(results, task)
        panels += [panel for panel in (compared, _by_weight(results, task)) if panel is not None]
    return Section(
        id="scale",
        heading="Guidance scale",
        text="The stronger the guidance, the more samples are right, and the less like real images they look. Every "
        "method has strengths in a unit of its own, so that methods are compared by what they reach, never at equal "
        "strengths.",
        zero_shot=tuple(name_of(task) for task in tasks if task in claims),
        panels=tuple(panels),
        tables=tuple(present(*(by_strength(results, task, f"{name_of(task)}, by strength") for task in tasks))),
    )


def _compared(results: Results, task: str) -> Panel | None:
    """Accuracy against quality, a curve per method."""
    curves = [
        Curve(label_of(m), style, points)
        for style, m in enumerate(results.methods)
        if (points := curve_points(results, m, task, SHARES[0], QUALITY))
    ]
    if not curves:
        return None
    values = [point.up.value for curve in curves for point in curve.points]
    up = axis_of(QUALITY, values, log=min(values) > 0 and max(values) / min(values) > WIDE)
    title = f"{name_of(task)}: {describe(QUALITY).label} against joint accuracy by method, a line through its strengths"
    return Panel(
        (Chart(name_of(task), plane(curves, share_of(SHARES[0]), up, title, 250), (task,)),),
        "A mark is a method at one strength, a line joins its strengths in their order, and the best is at the bottom "
        "right. Pointing at a method or its name makes it stand out."
        + (" The vertical axis is logarithmic." if up.log else ""),
        legend(curves),
        "alone",
    )


def _by_weight(results: Results, task: str) -> Panel | None:
    """Every metric of lcg against its guidance weight."""
    charts = []
    for metric in dict.fromkeys(m.partition("/")[0] for m in results.metrics([task]) if m.count("/") == 1):
        points = [Point(Estimate(s), e) for s, e in at_strengths(results, OURS, task, metric).items()]
        if len(points) < 2:
            continue
        across = replace(axis_of("guidance weight", [p.across.value for p in points], log=True), decimals=2)
        up = share_of(metric) if metric in SHARES else axis_of(metric, [p.up.value for p in points])
        title = f"{name_of(task)}: {describe(metric).label} of {label_of(OURS)} against its guidance weight"
        drawing = plane([Curve(label_of(OURS), 0, points)], across, up, title, 110, bars=True, named=False)
        charts.append(Chart(sentence(column_of(metric)), drawing, (task,)))
    if not charts:
        return None
    text = f"{label_of(OURS)} alone: bars are one standard error, the guidance weight is on a logarithmic axis."
    folded = f"{name_of(task)}: {label_of(OURS)} by guidance weight" if crowded(results, [task]) else ""
    return Panel(tuple(charts), text, layout="pairs", folded=folded)


def curve_points(results: Results, method: str, task: str, across: str, up: str) -> list[Point]:
    """A method's points in the order of its strengths, where both axes were measured."""
    ups = at_strengths(results, method, task, up)
    return [Point(e, ups[s], s) for s, e in at_strengths(results, method, task, across).items() if s in ups]
