"""What came of a sweep: one table of all rows with the parameters of their run, and a summary with the best run.

What a run is worth is its metric, averaged over the tasks. The best of N runs is chosen by the numbers that are shown
for it, so these flatter it: measure it again with other seeds.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import shlex
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcg import __version__
from lcg.benchmarks.results.estimates import COLUMNS, Estimate, Results, Row, read_rows
from lcg.benchmarks.sweeps.file import Metric, Sweep
from lcg.benchmarks.sweeps.runs import Attempt
from lcg.data.atomic import write_atomic
from lcg.schema import unknown_name


def write_results(out: Path, attempts: Sequence[Attempt], tables: Mapping[str, Results]) -> None:
    """OUT/results.csv and, where there are any, OUT/costs.csv: the rows of all finished runs, in order.

    Each stands behind the run's id and parameters. A parameter that is called like another column (`seed`) has the
    prefix `sweep.`.
    """
    costs = {a.run.id: {row.key for row in _costs(a)} for a in attempts if a.run.id in tables}
    rows = {run: [row for row in table.rows if row.key not in costs[run]] for run, table in tables.items()}
    _write(out / "results.csv", attempts, rows)
    if any(costs.values()):
        spent = {run: [row for row in table.rows if row.key in costs[run]] for run, table in tables.items()}
        _write(out / "costs.csv", attempts, spent)


def _costs(attempt: Attempt) -> list[Row]:
    path = attempt.results.parent / "costs.csv"
    return read_rows(path, empty=True) if path.is_file() else []


def _write(path: Path, attempts: Sequence[Attempt], rows: Mapping[str, Sequence[Row]]) -> None:
    names = list(attempts[0].run.values)
    taken = ("run", *COLUMNS)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["run", *(f"sweep.{name}" if name in taken else name for name in names), *COLUMNS])
    for attempt in attempts:
        run = attempt.run
        if run.id in rows:
            values = [spell(value) for value in run.values.values()]
            for row in rows[run.id]:
                cells = (getattr(row, column) for column in COLUMNS)
                writer.writerow([run.id, *values, *("" if cell is None else cell for cell in cells)])
    write_atomic(path, buffer.getvalue().encode())


def write_provenance(
    sweep: Sweep,
    out: Path,
    attempts: Sequence[Attempt],
    settings: Mapping[str, Any],
    failed: Mapping[str, str],
    seconds: float,
) -> None:
    """OUT/provenance.json: what was run, and with what."""
    entries = {
        "created": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "lcg": __version__,
        "file": str(sweep.path),
        "file_sha256": hashlib.sha256(sweep.path.read_bytes()).hexdigest(),
        **settings,
        "runs": {attempt.run.id: shlex.join(attempt.command) for attempt in attempts},
        "failed": failed,
        "seconds": round(seconds, 1),
    }
    write_atomic(out / "provenance.json", (json.dumps(entries, indent=2) + "\n").encode())


def spell(value: object) -> str:
    """A value in a cell: text as it stands, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def check_metric(sweep: Sweep, method: str, tables: Mapping[str, Results]) -> None:
    """Raises ValueError when no run has the metric that decides. The runs are kept, so naming another costs nothing."""
    if sweep.metric is None or not tables:
        return
    rows = [row for table in tables.values() for row in table.rows]
    if not any(row.method == method for row in rows):
        raise unknown_name("method", method, dict.fromkeys(row.method for row in rows), "results.csv")
    metrics = dict.fromkeys(row.metric for row in rows if row.method == method)
    if sweep.metric.name not in metrics:
        raise unknown_name("metric", sweep.metric.name, metrics, f"{method!r} in results.csv")


def by_task(table: Results, metric: str, method: str) -> dict[str, Estimate]:
    """The metric of a method, for each task that has it."""
    found = {task: table.get(method, task, metric) for task in table.tasks}
    return {task: estimate for task, estimate in found.items() if estimate is not None}


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over tasks and its standard error from sampling, sqrt(sum of squares) / number of tasks."""
    errors = [estimate.stderr for estimate in estimates if estimate.stderr is not None]
    stderr = math.hypot(*errors) / len(estimates) if len(errors) == len(estimates) else None
    return Estimate(statistics.fmean(estimate.value for estimate in estimates), stderr)


def summary(sweep: Sweep, method: str, attempts: Sequence[Attempt], tables: Mapping[str, Results]) -> str:
    """OUT/sweep.md: the metric by parameters; parameters that never change stand above the table."""
    names = list(attempts[0].run.values)
    seen = {name: list(dict.fromkeys(spell(a.run.values[name]) for a in attempts)) for name in names}
    varied = [name for name in names if len(seen[name]) > 1]
    metric = None if sweep.metric is None else sweep.metric.name
    parts = {} if metric is None else {run: by_task(table, metric, method) for run, table in tables.items()}
    scores = {run: average(list(tasks.values())) for run, tasks in parts.items() if tasks}
    tasks = list(dict.fromkeys(task for found in parts.values() for task in found))
    best = _best(sweep.metric, scores)

    lines = [f"# {sweep.name}", "", f"`{sweep.path}`, {sweep.method}: {len(attempts)} runs, {len(tables)} finished."]
    if fixed := [f"`{name}` = {seen[name][0]}" for name in names if name not in varied]:
        lines += ["", f"The same for all: {', '.join(fixed)}."]
    if best is not None and sweep.metric is not None:
        chosen = next(attempt.run for attempt in attempts if attempt.run.id == best)
        values = " ".join(f"--{name}={spell(chosen.values[name])}" for name in varied or names)
        side = "larger" if sweep.metric.goal == "maximize" else "smaller"
        lines += [
            "",
            f"Best: `{values}`, {metric} {show(scores[best])} (run {best})",
            "",
            f"`{metric}` of `{method}`, {side} is better: the mean over {len(tasks)} task{'s' * (len(tasks) != 1)}, "
            f"with its standard error. The best of {len(scores)} is chosen by the numbers shown here, which flatter "
            "it: measure it again with other seeds.",
        ]
    columns = ["run", *varied, *([metric] if metric else ["state"]), *(tasks if len(tasks) > 1 else [])]
    lines += ["", table_row(columns), "|" + "---|" * len(columns)]
    for attempt in attempts:
        run, bold = attempt.run, "**" if attempt.run.id == best else ""
        state = show(scores.get(run.id)) if metric else "finished"
        cells = [run.id, *(spell(run.values[name]) for name in varied), state if run.id in tables else "failed"]
        if len(tasks) > 1:
            cells += [show(parts.get(run.id, {}).get(task)) for task in tasks]
        lines.append(table_row([f"{bold}{cell}{bold}" for cell in cells]))
    return "\n".join(lines) + "\n"


def _best(metric: Metric | None, scores: Mapping[str, Estimate]) -> str | None:
    if metric is None or not scores:
        return None
    sign = 1 if metric.goal == "maximize" else -1
    return max(scores, key=lambda run: sign * scores[run].value)


def show(estimate: Estimate | None) -> str:
    """A value with its standard error where it has one, to a ten-thousandth or four digits."""
    if estimate is None:
        return "-"
    return f"{estimate.value:.4g}" if estimate.stderr is None else f"{estimate.value:.4g} ± {estimate.stderr:.2g}"


def table_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    escaped = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"
