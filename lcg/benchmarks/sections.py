"""The numbers of a report: a section per group of tasks, with its tables and, where they say more, its charts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lcg.benchmarks.estimates import FLOOR, Results
from lcg.benchmarks.plots import Curve, Point, Series, dumbbells, key, lines, trade_off
from lcg.benchmarks.tables import METRICS, Table, by_attribute, by_method, chains, describe, families, label_of

OURS = "lcg"
AXES = ("joint_accuracy", "kept_fine")
"""What a trade-off is between; its points are joint_accuracy/STRENGTH and kept_fine/STRENGTH."""
LINES = 6
"""Methods in a chart of lines: with more, their marks and bars run into each other."""


@dataclass(frozen=True)
class Chart:
    """A drawing under its heading."""

    heading: str
    svg: Markup


@dataclass(frozen=True)
class Section:
    """A group of tasks: an explanation, charts with their legend, tables. Charts side by side, or each `alone`."""

    id: str
    heading: str
    text: str
    zero_shot: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    charts_text: str = ""
    alone: bool = False
    legend: tuple[tuple[str, Markup], ...] = ()
    tables: tuple[Table, ...] = ()


def sections(results: Results, claims: frozenset[str]) -> list[Section]:
    """Formulas, edits, trade-offs, unconditional samples, reconstruction and ceilings, then whatever was measured."""
    generate = [task for task in results.tasks if task.startswith("generate/")]
    edits = [task for task in results.tasks if task.startswith("edit/")]
    trades = [task for task in results.tasks if task.startswith("tradeoff/")]
    single = [task for task in results.tasks if task not in {*generate, *edits, *trades}]
    single.sort(key=lambda task: {"unconditional": 0, "reconstruction": 1}.get(task, 2))
    found = []
    if generate:
        found.append(_formulas(results, generate, claims))
    if edits:
        found.append(_edits(results, edits, claims))
    if trades:
        found.append(_trades(results, trades, claims))
    found.extend(_single(results, task) for task in single)
    return found


def _formulas(results: Results, tasks: Sequence[str], claims: frozenset[str]) -> Section:
    headings = [("zero-shot" if task in claims else "", name_of(task)) for task in tasks]
    table = by_method(results, tasks, headings, "By formula and method")
    charts = []
    for task in tasks:
        series = [
            Series(label_of(m), results.methods.index(m), (results.get(m, task, "joint_accuracy"), sharp))
            for m in results.methods
            if m != FLOOR and (sharp := results.get(m, task, "sharp")) is not None
        ]
        if series:
            title = f"{name_of(task)}: joint accuracy and sharp by method, as in the table"
            charts.append(Chart(name_of(task), dumbbells(series, title)))
    return Section(
        id="formulas",
        heading="Generation by formula",
        text="Every method draws samples for a formula; the judge says which are right. Real images that satisfy the "
        "formula give the floor of distances and the ceiling of accuracies.",
        zero_shot=tuple(name_of(task) for task in tasks if task in claims),
        charts=tuple(charts),
        charts_text="Open mark: joint accuracy. Full mark: sharp. The line between them is what is lost to ghosts, "
        "samples that the judge accepts but that resemble no real image.",
        tables=_present(table, *_by_attribute(results, tasks)),
    )


def _edits(results: Results, tasks: Sequence[str], claims: frozenset[str]) -> Section:
    sequences = chains(tasks)
    tables, charts, shown, crowded = [], [], {}, False
    for sequence in sequences:
        steps, names = zip(*sequence, strict=True)
        listed = ", ".join(names)
        if len(steps) == 1:
            tables.append(by_method(results, steps, [("", "")], f"Edit {listed}"))
            continue
        headings = [(str(i + 1), name) for i, name in enumerate(names)]
        tables.append(by_method(results, steps, headings, f"Edits {listed}"))
        for metric in ("edit_success", "kept", "kept_fine"):
            measured = [m for m in results.methods if any(results.get(m, step, metric) for step in steps)]
            leading = _leading(results, measured, steps, metric)
            crowded |= len(leading) < len(measured)
            series = [
                Series(label_of(m), results.methods.index(m), [results.get(m, step, metric) for step in steps])
                for m in leading
            ]
            if series:
                shown.update({one.style: one for one in series})
                label = describe(metric).label
                heading = label if len(sequences) == 1 else f"{listed}: {label}"
                charts.append(
                    Chart(heading, lines(names, series, f"{label} along {listed}, by method, as in the table"))
                )
    return Section(
        id="edits",
        heading="Editing",
        text="Edits accumulate: every step asks for all edits so far, relative to the source, and succeeds for an "
        "image only if all of them are there and everything else has stayed.",
        zero_shot=tuple(name_of(task) for task in tasks if task in claims),
        charts=tuple(charts),
        charts_text="Shares along the sequence; bars are one standard error."
        + (
            f" A chart has room for {LINES} methods: lcg, and those with the highest mean over its steps. The tables "
            "have all."
            if crowded
            else ""
        ),
        legend=tuple((one.label, key(one)) for _, one in sorted(shown.items())),
        tables=_present(*tables, *_by_attribute(results, tasks)),
    )


def _leading(results: Results, methods: Sequence[str], steps: Sequence[str], metric: str) -> list[str]:
    """lcg and the methods with the highest means over the steps, as many as a chart can show, in their own order.

    A method that was not measured at every step comes after all that were: the steps that it lacks are the hard ones.
    """

    def standing(method: str) -> tuple[bool, int, float]:
        values = [e.value for step in steps if (e := results.get(method, step, metric)) is not None]
        return method == OURS, len(values), sum(values) / len(values)

    kept = set(sorted(methods, key=standing, reverse=True)[:LINES])
    return [m for m in methods if m in kept]


def _trades(results: Results, tasks: Sequence[str], claims: frozenset[str]) -> Section:
    headings = [("zero-shot" if task in claims else "", name_of(task)) for task in tasks]
    table = by_method(results, tasks, headings, "By edits and method")
    across, up = (describe(metric).label for metric in AXES)
    charts, shown = [], {}
    for task in tasks:
        curves = [
            Curve(label_of(m), i, points)
            for i, m in enumerate(results.methods)
            if (points := _points(results, m, task))
        ]
        if curves:
            shown.update({one.style: one for one in curves})
            title = f"{name_of(task)}: {across} against {up} by method, a line through its strengths"
            charts.append(Chart(name_of(task), trade_off(curves, across, up, title)))
    return Section(
        id="trade-off",
        heading="Trade-off",
        text="The stronger an edit, the more of what was asked for is there and the less of all else is kept. So every "
        "method makes the same edits of the same sources at many strengths, each in its own unit, and what counts is "
        "the area that its points dominate, whichever strength it would have chosen.",
        zero_shot=tuple(name_of(task) for task in tasks if task in claims),
        charts=tuple(charts),
        charts_text="A mark is a method at one strength, a line joins its strengths in their order, and the best is at "
        "the top right. "
        + (f"Shaded: the area that {shown[0].label} dominates. " if 0 in shown else "")
        + "Pointing at a method or its name makes it stand out; the numbers of every mark are at the end of the page.",
        alone=True,
        legend=tuple((one.label, key(one)) for _, one in sorted(shown.items())),
        tables=_present(table),
    )


def _points(results: Results, method: str, task: str) -> list[Point]:
    """A method's points in the order of its strengths, where both axes were measured.

    Raises:
        ValueError: a metric of the curve does not end in a number.
    """
    points = []
    for metric in results.metrics([task]):
        axis, _, strength = metric.partition("/")
        if axis != AXES[0] or not strength:
            continue
        across, up = results.get(method, task, metric), results.get(method, task, f"{AXES[1]}/{strength}")
        if across is not None and up is not None:
            points.append(Point(_strength(strength, metric, task), across, up))
    return sorted(points, key=lambda point: point.strength)


def _strength(text: str, metric: str, task: str) -> float:
    try:
        strength = float(text)
    except ValueError:
        strength = math.nan
    if not math.isfinite(strength):
        raise ValueError(
            f"results.csv: a metric of {task} must end in the strength, such as {AXES[0]}/0.5, got {metric!r}"
        )
    return strength


def _single(results: Results, task: str) -> Section:
    heading, text = {
        "unconditional": (
            "Unconditional samples",
            "Samples without guidance. Real images give the floor, the distance between two sets of them.",
        ),
        "reconstruction": (
            "Reconstruction and the judge's ceilings",
            "What the generator itself loses, and how often the judge agrees with the truth on real images: no method "
            "can be seen to do better than that.",
        ),
    }.get(task, (task, ""))
    table = by_method(results, [task], [("", "")], "By method")
    return Section(
        id=re.sub(r"\W+", "-", task),
        heading=heading,
        text=text,
        tables=_present(table, *_by_attribute(results, [task])),
    )


def _by_attribute(results: Results, tasks: Sequence[str]) -> list[Table]:
    headings = [name_of(task) if len(tasks) > 1 else "" for task in tasks]
    return [
        by_attribute(results, tasks, headings, family, f"{describe(family).label.capitalize()} by attribute")
        for family in families(results, tasks)
    ]


def _present(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)


def name_of(task: str) -> str:
    """A task's formula or edits; the task itself where it has none."""
    return task.partition("/")[2] or task


def glossary(results: Results) -> list[tuple[str, str]]:
    """What the metrics of these results mean."""
    kinds = {row.metric.partition("/")[0] for row in results.rows}
    return [(metric.label, metric.meaning) for name, metric in METRICS.items() if name in kinds]
