"""Edits, one after another, on real or on sampled sources; and what their strength trades for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lcg.benchmarks.report.heatmap import FAMILY, HeatMap, heat_maps, heat_table
from lcg.benchmarks.report.planes import Curve, share_of, trade_off
from lcg.benchmarks.report.plots import Series, lines
from lcg.benchmarks.report.section import (
    CROWD,
    OURS,
    Chart,
    Heats,
    Panel,
    Section,
    crowded,
    foremost,
    legend,
    name_of,
    present,
    rivals,
    split_by_attribute,
    tables_of,
)
from lcg.benchmarks.report.sections_generation import curve_points
from lcg.benchmarks.report.tables import Table, by_method
from lcg.benchmarks.results.estimates import Results
from lcg.benchmarks.results.vocabulary import COSTS, describe, label_of

AXES = ("joint_accuracy", "kept_fine")
"""What a trade-off is between; its points are joint_accuracy/STRENGTH and kept_fine/STRENGTH."""
LINES = 6
"""Methods in a chart of lines: with more, their marks and bars run into each other."""

Steps = Sequence[tuple[str, str]]
"""A sequence of edits: tasks, and what each adds to the one before."""


def edits(results: Results, tasks: Sequence[str], claims: frozenset[str], id: str, heading: str) -> Section:
    """Sequences of edits: shares along them, side effects step by step, tables."""
    sequences = chains(tasks)
    tables, charts, heats, shown, crowded = list[Table](), list[Chart](), list[Heats](), list[Series](), False
    for sequence in sequences:
        steps, names = zip(*sequence, strict=True)
        listed = ", ".join(names)
        if len(steps) == 1:
            tables += tables_of(results, steps, [("", "")], f"Edit {listed}")
        else:
            headings = [(str(i + 1), name) for i, name in enumerate(names)]
            tables += tables_of(results, steps, headings, f"Edits {listed}")
            found, series, more = _along(results, sequence, f"{listed}: " if len(sequences) > 1 else "")
            charts, shown, crowded = [*charts, *found], [*shown, *series], crowded or more
        if maps := heat_maps(results, sequence):
            caption = f"Share of sources changed by {listed}, by attribute and step"
            heats.append(_heats(results, sequence, maps, heat_table(results, sequence, caption), listed))
    text = "Shares along the sequence; bars are one standard error."
    if crowded:
        text += (
            f" A chart has room for {LINES} methods: lcg, and those with the highest mean over its steps. The tables "
            "have all."
        )
    return Section(
        id=id,
        heading=heading,
        text="Edits accumulate: every step asks for all edits so far, relative to the source, and succeeds for an "
        "image only if all of them are there and everything else has stayed."
        + (" The sources are samples of the prior." if id != "edits" else ""),
        zero_shot=tuple(name_of(task) for task in tasks if task in claims),
        panels=(Panel(tuple(charts), text, legend(shown)),) if charts else (),
        heats=tuple(heats),
        tables=(*tables, *split_by_attribute(results, tasks, without=(FAMILY,))),
    )


def _heats(results: Results, sequence: Steps, maps: Sequence[HeatMap], table: Table, listed: str) -> Heats:
    """All heat maps in view where they are few, else those of lcg and of the best other after the last step."""
    last = sequence[-1][0]
    near = foremost(results, rivals(results, last), last, ("edit_success", "kept_fine"), count=2)
    first = {label_of(m) for m in near} if len(maps) > CROWD else {one.method for one in maps}
    shown, more = (tuple(m for m in maps if (m.method in first) is wanted) for wanted in (True, False))
    return Heats(listed, shown, table, more)


def _along(results: Results, sequence: Steps, before: str) -> tuple[list[Chart], list[Series], bool]:
    """A chart per share along a sequence, the methods in it, and whether it has no room for some."""
    steps, names = zip(*sequence, strict=True)
    charts, shown, crowded = [], list[Series](), False
    for metric in ("edit_success", "kept", "kept_fine"):
        measured = [m for m in results.methods if any(results.get(m, step, metric) for step in steps)]
        leading = _leading(results, measured, steps, metric)
        crowded |= len(leading) < len(measured)
        series = [
            Series(label_of(m), results.methods.index(m), [results.get(m, step, metric) for step in steps])
            for m in leading
        ]
        if series:
            shown += series
            label = describe(metric).label
            title = f"{label} along {', '.join(names)}, by method, as in the table"
            charts.append(Chart(f"{before}{label}", lines(names, series, title), steps))
    return charts, shown, crowded


def _leading(results: Results, methods: Sequence[str], steps: Sequence[str], metric: str) -> list[str]:
    """lcg and the methods with the highest means over the steps, as many as a chart can show, in their own order.

    A method that was not measured at every step comes after all that were: the steps that it lacks are the hard ones.
    """

    def standing(method: str) -> tuple[bool, int, float]:
        values = [e.value for step in steps if (e := results.get(method, step, metric)) is not None]
        return method == OURS, len(values), sum(values) / len(values)

    kept = set(sorted(methods, key=standing, reverse=True)[:LINES])
    return [m for m in methods if m in kept]


def trades(results: Results, tasks: Sequence[str], claims: frozenset[str]) -> Section:
    """What was asked for against what was kept, a curve per method through its strengths."""
    headings = [("zero-shot" if task in claims else "", name_of(task)) for task in tasks]
    across, up = (share_of(metric) for metric in AXES)
    charts, shown = [], list[Curve]()
    for task in tasks:
        curves = [
            Curve(label_of(m), style, points)
            for style, m in enumerate(results.methods)
            if (points := curve_points(results, m, task, *AXES))
        ]
        if curves:
            shown += curves
            title = f"{name_of(task)}: {across.label} against {up.label} by method, a line through its strengths"
            charts.append(Chart(name_of(task), trade_off(curves, across, up, title), (task,)))
    first = next((f"Shaded: the area that {curve.label} dominates. " for curve in shown if curve.style == 0), "")
    panel = Panel(
        tuple(charts),
        "A mark is a method at one strength, a line joins its strengths in their order, and the best is at the top "
        f"right. {first}Pointing at a method or its name makes it stand out; the numbers of every mark are at the end "
        "of the page.",
        legend(shown),
        "alone",
    )
    table = by_method(results, tasks, headings, "By edits and method", lambda metric: metric not in COSTS)
    return Section(
        id="trade-off",
        heading="Trade-off",
        text="The stronger an edit, the more of what was asked for is there and the less of all else is kept. So every "
        "method makes the same edits of the same sources at many strengths, each in its own unit, and what counts is "
        "the area that its points dominate, whichever strength it would have chosen.",
        zero_shot=tuple(name_of(task) for task in tasks if task in claims),
        panels=(panel,) if charts else (),
        tables=tuple(present(table and replace(table, folded=crowded(results, tasks)))),
    )


def chains(tasks: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Editing tasks as sequences: edit/+glasses is the step before edit/+glasses+beard.

    Args:
        tasks: names `KIND/EDITS` of one kind, each with all edits up to its step.

    Returns:
        Per sequence its steps (task, the edit that the step adds). A step that begins two sequences is in both.
    """
    before = {task: max((t for t in tasks if _continues(task, t)), key=len, default=None) for task in tasks}
    sequences = []
    for last in tasks:
        if last in before.values():
            continue
        steps = [last]
        while (previous := before[steps[0]]) is not None:
            steps.insert(0, previous)
        names = [step.removeprefix(before[step] or f"{step.partition('/')[0]}/").lstrip("/ ") for step in steps]
        sequences.append(list(zip(steps, names, strict=True)))
    return sequences


def _continues(task: str, earlier: str) -> bool:
    return task != earlier and task.startswith(earlier) and task[len(earlier)] in "+-~&/, "
