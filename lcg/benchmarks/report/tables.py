"""Tables of estimates: a line per method or attribute, the best in bold only where it is best by more than chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lcg.benchmarks.report.winners import Rule, Verdict, rule_note, verdict
from lcg.benchmarks.results.estimates import FLOOR, Estimate, Results
from lcg.benchmarks.results.vocabulary import METRICS as METRICS
from lcg.benchmarks.results.vocabulary import MINUS, NO_BREAK, describe
from lcg.benchmarks.results.vocabulary import label_of as label_of


@dataclass(frozen=True)
class Cell:
    """A number as it is printed; `best` where it is better than every other by more than chance."""

    value: str = ""
    error: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A row of a table."""

    label: str
    cells: tuple[Cell, ...]
    reference: bool = False


@dataclass(frozen=True)
class Group:
    """Rows under a common heading.

    Args:
        lines: the rows.
        heading: empty where a table has one group only.
        prefix: what stands before the heading.
        code: whether the heading is a formula.
        leader: which method has the best value of the first metric, and what it is.
        won: whether it leads by more than chance.
    """

    lines: tuple[Line, ...]
    heading: str = ""
    prefix: str = ""
    code: bool = True
    leader: str = ""
    won: bool = False


@dataclass(frozen=True)
class Table:
    """A table as it is printed.

    Args:
        caption: of the table.
        corner: heads the column of labels.
        columns: labels with arrows.
        groups: of lines.
        samples: how many samples and which seeds are behind it.
        note: what its marks mean.
        tasks: that it shows.
        folded: whether a page shows it only when it is asked for.
        split: whether a page folds its groups one by one, all but the first, each under its leader.
    """

    caption: str
    corner: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    samples: str = ""
    note: str = ""
    tasks: tuple[str, ...] = ()
    folded: bool = False
    split: bool = False

    @property
    def lines(self) -> int:
        return sum(len(group.lines) for group in self.groups)


def by_method(
    results: Results,
    tasks: Sequence[str],
    headings: Sequence[tuple[str, str]],
    caption: str,
    wanted: Callable[[str], bool] = lambda metric: True,
    corner: str = "method",
) -> Table | None:
    """One group per task, one line per method, one column per metric that is not split by attribute.

    Args:
        results: everything.
        tasks: the groups.
        headings: per task, what stands before its name and the name.
        caption: of the table.
        wanted: which of the metrics.
        corner: what a line is.

    Returns:
        The table, or None where these tasks have no such metric.
    """
    metrics = [metric for metric in _ordered(results.metrics(tasks)) if "/" not in metric and wanted(metric)]
    if not metrics:
        return None
    groups, rules = [], set[Rule]()
    for task, (prefix, heading) in zip(tasks, headings, strict=True):
        methods = [m for m in results.methods if any(results.get(m, task, metric) for metric in metrics)]
        verdicts = {metric: verdict(results, methods, task, metric) for metric in metrics}
        rules.update(*(v.rules for v in verdicts.values()))
        lines = tuple(
            Line(
                label_of(m),
                tuple(cell(results.get(m, task, metric), metric, verdicts[metric].winner == m) for metric in metrics),
                reference=m == FLOOR,
            )
            for m in methods
        )
        if lines:
            groups.append(Group(lines, heading, prefix, True, *_leader(results, methods, task, verdicts)))
    columns = tuple(column_of(metric) for metric in metrics)
    said = samples(results, tasks, metrics)
    return Table(caption, corner, columns, tuple(groups), said, rule_note(rules, corner), tuple(tasks))


def _leader(results: Results, methods: Sequence[str], task: str, verdicts: Mapping[str, Verdict]) -> tuple[str, bool]:
    """Who is best in the first metric that has a best, as a page says it, and whether by more than chance."""
    for metric, decided in verdicts.items():
        found = {m: e for m in methods if m != FLOOR and (e := results.get(m, task, metric)) is not None}
        better = describe(metric).better
        if better is not None and found:
            best = cell((max if better == "higher" else min)(found.values(), key=lambda e: e.value), metric).value
            first, *others = [label_of(m) for m, e in found.items() if cell(e, metric).value == best]
            equal = "" if not others else f" and {others[0]}" if len(others) == 1 else f" and {len(others)} others"
            return f"{describe(metric).label}: {first}{equal} {best}", decided.winner is not None
    return "", False


def by_attribute(results: Results, tasks: Sequence[str], headings: Sequence[str], family: str, caption: str) -> Table:
    """Metrics such as accuracy/glasses, accuracy/beard: a group per task, a line per attribute, a column per method."""
    metrics = [metric for metric in results.metrics(tasks) if metric.startswith(f"{family}/")]
    methods = [m for m in results.methods if any(results.get(m, t, metric) for t in tasks for metric in metrics)]
    groups = []
    for task, heading in zip(tasks, headings, strict=True):
        measured = [metric for metric in metrics if any(results.get(m, task, metric) for m in methods)]
        lines = tuple(
            Line(metric.partition("/")[2], tuple(cell(results.get(m, task, metric), metric) for m in methods))
            for metric in measured
        )
        if lines:
            groups.append(Group(lines, heading))
    columns = tuple(label_of(m) for m in methods)
    said = samples(results, tasks, metrics)
    return Table(caption, "attribute", columns, tuple(groups), said, tasks=tuple(tasks))


def by_last(results: Results, task: str, family: str, corner: str, caption: str) -> Table:
    """Metrics such as ece/ATTR/BAND: a group per method, a line per ATTR, a column per BAND, as in the file."""
    parts = {m: m.split("/")[1:] for m in results.metrics([task]) if m.startswith(f"{family}/") and m.count("/") == 2}
    rows, columns = (tuple(dict.fromkeys(part[i] for part in parts.values())) for i in (0, 1))
    groups = []
    for method in results.methods:
        lines = tuple(
            Line(row, tuple(cell(results.get(method, task, f"{family}/{row}/{column}"), family) for column in columns))
            for row in rows
            if any(results.get(method, task, f"{family}/{row}/{column}") for column in columns)
        )
        if lines:
            groups.append(Group(lines, label_of(method), code=False))
    if len(groups) == 1:
        groups = [Group(groups[0].lines)]
    return Table(caption, corner, columns, tuple(groups), samples(results, [task], parts), tasks=(task,))


def by_strength(results: Results, task: str, caption: str) -> Table | None:
    """Metrics such as joint_accuracy/0.5: a group per method, a line per strength, a column per metric."""
    names = [metric for metric in results.metrics([task]) if metric.count("/") == 1]
    metrics = _ordered(dict.fromkeys(name.partition("/")[0] for name in names))
    groups = []
    for method in results.methods:
        found = {metric: at_strengths(results, method, task, metric) for metric in metrics}
        lines = tuple(
            Line(f"{s:g}", tuple(cell(found[metric].get(s), metric) for metric in metrics))
            for s in sorted({s for estimates in found.values() for s in estimates})
        )
        if lines:
            groups.append(Group(lines, label_of(method), code=False))
    if not groups:
        return None
    columns = tuple(column_of(metric) for metric in metrics)
    return Table(caption, "strength", columns, tuple(groups), samples(results, [task], names), "", (task,), folded=True)


def strength_of(metric: str, task: str) -> float:
    """0.5 of joint_accuracy/0.5.

    Raises:
        ValueError: the metric does not end in a number.
    """
    name, _, text = metric.partition("/")
    try:
        strength = float(text)
    except ValueError:
        strength = math.nan
    if not math.isfinite(strength):
        raise ValueError(
            f"results.csv: a metric of {task} must end in the strength, such as {name}/0.5, got {metric!r}"
        )
    return strength


def at_strengths(results: Results, method: str, task: str, metric: str) -> dict[float, Estimate]:
    """What a metric is at each of a method's strengths, from weak to strong. Raises as `strength_of`."""
    names = [name for name in results.metrics([task]) if name.startswith(f"{metric}/")]
    found = {strength_of(name, task): e for name in names if (e := results.get(method, task, name)) is not None}
    return dict(sorted(found.items()))


def families(results: Results, tasks: Iterable[str]) -> tuple[str, ...]:
    """What is measured attribute by attribute: `accuracy` for accuracy/glasses, accuracy/beard."""
    return tuple(dict.fromkeys(m.partition("/")[0] for m in results.metrics(tasks) if "/" in m))


def samples(results: Results, tasks: Iterable[str], metrics: Iterable[str]) -> str:
    """How many samples and which seeds are behind these numbers, as a sentence."""
    keep, wanted = set(tasks), set(metrics)
    found = [e for (_, task, metric), e in results.estimates.items() if task in keep and metric in wanted]
    counts = sorted({e.n for e in found if e.n is not None})
    seeds = sorted({seed for e in found for seed in e.seeds})
    parts = []
    if counts:
        parts.append(f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}")
    if seeds:
        parts.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}")
    return "; ".join(parts)


def cell(estimate: Estimate | None, metric: str, best: bool = False) -> Cell:
    """An estimate with the decimals of its metric."""
    if estimate is None:
        return Cell()
    decimals = describe(metric).decimals
    value = f"{estimate.value:.{decimals}f}".replace("-", MINUS)
    return Cell(value, "" if estimate.stderr is None else f"± {estimate.stderr:.{decimals}f}", best)


def column_of(metric: str) -> str:
    """A metric's label, with an arrow in its better direction."""
    return f"{describe(metric).label}{NO_BREAK}{describe(metric).arrow}".rstrip(NO_BREAK)


def _ordered(metrics: Iterable[str]) -> list[str]:
    """Those with a fixed name in the order of `METRICS`, then the others."""
    order = list(METRICS)
    return sorted(metrics, key=lambda m: order.index(m) if m in order else len(order))
