"""results.csv and costs.csv and what they say: rows, and one estimate per method, task and metric.

An estimate pools the rows that differ in their seed only. With S seeds of values v_s and standard errors e_s,

    value = mean_s v_s,      stderr = max( sd(v_s) / sqrt(S),  sqrt(sum_s e_s^2) / S ).

The spread over seeds already contains the sampling error within them (binomial for proportions), so adding both would
count it twice; but two or three seeds estimate a spread poorly and may agree by luck, so the larger of the two stands.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lcg.benchmarks.results.pairs import Pair, read_comparisons
from lcg.benchmarks.results.readers import number, read_lines, whole

COLUMNS = ("method", "task", "metric", "value", "stderr", "n", "seed")
FLOOR = "real"
"""The method whose samples are real images: the floor of every distance and the ceiling of every accuracy."""

Key = tuple[str, str, str, int | None]
"""Method, task, metric and seed."""


@dataclass(frozen=True)
class Row:
    """One line of results.csv or costs.csv; `seed` is None where it pools seeds, `stderr` and `n` where not known."""

    method: str
    task: str
    metric: str
    value: float
    stderr: float | None = None
    n: int | None = None
    seed: int | None = None

    @property
    def key(self) -> Key:
        """What no two rows share."""
        return self.method, self.task, self.metric, self.seed


def read_rows(path: Path, empty: bool = False) -> list[Row]:
    """Reads results.csv, or another table with its columns.

    Args:
        path: of the file.
        empty: whether it may be without rows.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a tidy table of results; the message names the line.
    """
    rows: dict[Key, Row] = {}
    for cells, where in read_lines(path, COLUMNS):
        row = _row(cells, where)
        if row.key in rows:
            raise ValueError(f"{where}: a second row for {row.key}; method, task, metric and seed must name one row")
        rows[row.key] = row
    if not rows and not empty:
        raise ValueError(f"{path} has no rows; run `lcg bench` again, it stopped before its first result")
    return list(rows.values())


def _row(cells: dict[str, str], where: str) -> Row:
    for name in ("method", "task", "metric", "value"):
        if not cells[name]:
            raise ValueError(f"{where}: `{name}` is empty; only stderr, n and seed may be")
    value = number(cells, "value", where)
    stderr = number(cells, "stderr", where) if cells["stderr"] else None
    n = whole(cells, "n", where) if cells["n"] else None
    seed = whole(cells, "seed", where) if cells["seed"] else None
    if stderr is not None and stderr < 0:
        raise ValueError(f"{where}: `stderr` must be >= 0, got {stderr}")
    if n is not None and n < 1:
        raise ValueError(f"{where}: `n` must be >= 1, got {n}; leave out what nothing was measured on")
    return Row(cells["method"], cells["task"], cells["metric"], value, stderr, n, seed)


def read_results(folder: Path) -> Results:
    """All that a benchmark's folder says: results.csv and, where they are, costs.csv and comparisons.csv.

    Raises:
        FileNotFoundError: there is no results.csv.
        ValueError: a file is malformed, or costs.csv repeats a row of results.csv.
    """
    rows = read_rows(folder / "results.csv")
    costs = folder / "costs.csv"
    if costs.is_file():
        known = {row.key for row in rows}
        for row in read_rows(costs, empty=True):
            if row.key in known:
                raise ValueError(f"{costs}: the row {row.key} is in results.csv too; run `lcg bench` again")
            rows.append(row)
    comparisons = folder / "comparisons.csv"
    return Results(tuple(rows), tuple(read_comparisons(comparisons)) if comparisons.is_file() else ())


@dataclass(frozen=True)
class Estimate:
    """What all seeds together say.

    Args:
        value: the mean over seeds.
        stderr: its standard error, see the module; None where no row has one and there is no spread.
        n: samples in all; None where a row does not say.
        seeds: the seeds; empty for one row that pooled them itself.
    """

    value: float
    stderr: float | None = None
    n: int | None = None
    seeds: tuple[int, ...] = ()


def pool(rows: Sequence[Row]) -> Estimate:
    """Pools rows that differ in their seed; a row without a seed has pooled them already and stands alone.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("`rows` must hold at least one row, got none")
    pooled = [row for row in rows if row.seed is None]
    if pooled:
        return Estimate(pooled[0].value, pooled[0].stderr, pooled[0].n)
    values = [row.value for row in rows]
    errors = [row.stderr for row in rows if row.stderr is not None]
    counts = [row.n for row in rows if row.n is not None]
    candidates = []
    if len(rows) > 1:
        candidates.append(statistics.stdev(values) / math.sqrt(len(rows)))
    if len(errors) == len(rows):
        candidates.append(math.sqrt(sum(e * e for e in errors)) / len(rows))
    return Estimate(
        value=statistics.fmean(values),
        stderr=max(candidates, default=None),
        n=sum(counts) if len(counts) == len(rows) else None,
        seeds=tuple(sorted(row.seed for row in rows if row.seed is not None)),
    )


@dataclass(frozen=True)
class Results:
    """All estimates of a benchmark, by method, task and metric, in the order of the file.

    Args:
        rows: of results.csv and costs.csv.
        comparisons: of comparisons.csv, nothing where no methods were compared pair by pair.
    """

    rows: tuple[Row, ...]
    comparisons: tuple[Pair, ...] = ()

    @cached_property
    def estimates(self) -> dict[tuple[str, str, str], Estimate]:
        """Value and standard error by method, task and metric, over all seeds."""
        cells: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
        for row in self.rows:
            cells[row.method, row.task, row.metric].append(row)
        return {key: pool(of_cell) for key, of_cell in cells.items()}

    @cached_property
    def compared(self) -> dict[tuple[str, str, str, str], Pair]:
        """Pairs by task, metric, method and the method that it is compared with."""
        return {(c.task, c.metric, c.method, c.against): c for c in self.comparisons}

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """lcg first, the baselines in the order of the file, what is only a reference last."""
        found = dict.fromkeys(row.method for row in self.rows)
        rank = {"lcg": 0, "prior": 2, FLOOR: 3}
        return tuple(sorted(found, key=lambda method: rank.get(method, 1)))

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order of the rows."""
        return tuple(dict.fromkeys(row.task for row in self.rows))

    def metrics(self, tasks: Iterable[str]) -> tuple[str, ...]:
        """The metrics of these tasks, in the order of the rows."""
        tasks = set(tasks)
        return tuple(dict.fromkeys(row.metric for row in self.rows if row.task in tasks))

    def get(self, method: str, task: str, metric: str) -> Estimate | None:
        """One estimate, None where nothing was measured."""
        return self.estimates.get((method, task, metric))
