"""Whether methods differ by more than chance: comparisons.csv, every method against the best one and against lcg.

All methods of a task meet the same sources, so they are compared source by source, with the rows of all seeds together:

    difference = mean_i (method_i - against_i),      low, high: its 95 % percentile bootstrap interval over rows,

p from the exact test of McNemar where every outcome is a success or a failure, from the bootstrap otherwise, then not
below 2 / (resamples + 1), and p_holm from it by Holm's correction over all methods that are compared with the same one
(`lcg.metrics.significance`). The best method is chosen by the outcomes that it is then compared on, so that its lead is
somewhat flattered; lcg is named beforehand.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lcg.benchmarks.results.pairs import COLUMNS, Pair
from lcg.data.atomic import write_atomic
from lcg.metrics.significance import holm, mcnemar, mean_intervals

RESAMPLES = 2000


def compare(
    outcomes: Mapping[str, NDArray],
    task: str,
    metric: str,
    better: Literal["higher", "lower"],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Pair]:
    """Compares all methods with the best one, and with lcg where it is among them and another one is best.

    Args:
        outcomes: by method (N,) bool or real, what became of each source; row i is the same source for all methods.
        task: their name.
        metric: what the outcomes are; their mean is its value.
        better: which value makes the best method; of equal ones the first method is best.
        resamples: of the bootstrap, >= 2.
        seed: of the resampling, the same rows for all methods, >= 0.

    Returns:
        In the order of the outcomes, first those against the best method; none of a single method.

    Raises:
        ValueError: an unknown direction, no outcomes, or outcomes that are not all (N,) with N >= 2 and finite.
    """
    if better not in ("higher", "lower"):
        raise ValueError(f"`better` must be 'higher' or 'lower', got {better!r}; leave out metrics without a direction")
    columns, methods = _columns(outcomes), list(outcomes)
    if len(methods) == 1:
        return []
    means = columns.mean(axis=0)
    best = methods[int(means.argmax() if better == "higher" else means.argmin())]
    chosen = dict.fromkeys((best, *(["lcg"] if "lcg" in methods else [])))
    return [row for against in chosen for row in _against(columns, methods, against, task, metric, resamples, seed)]


def _against(
    columns: NDArray[np.float64],
    methods: list[str],
    against: str,
    task: str,
    metric: str,
    resamples: int,
    seed: int,
) -> list[Pair]:
    """All other methods against one."""
    other = methods.index(against)
    rest = [i for i in range(len(methods)) if i != other]
    intervals = mean_intervals(columns[:, rest] - columns[:, [other]], resamples=resamples, seed=seed)
    if np.isin(columns, (0, 1)).all():
        hits = columns == 1
        p = [mcnemar(hits[:, i], hits[:, other]).p_value for i in rest]
    else:
        p = [interval.p_value for interval in intervals]
    n, adjusted = len(columns), holm(np.array(p)).tolist()
    return [
        Pair(task, metric, methods[i], against, found.estimate, found.low, found.high, alone, holms, n)
        for i, found, alone, holms in zip(rest, intervals, p, adjusted, strict=True)
    ]


def write_comparisons(path: Path, rows: Iterable[Pair]) -> None:
    """Writes comparisons.csv in one step, numbers with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([[_plain(value) for value in astuple(row)] for row in rows])
    write_atomic(path, text.getvalue().encode())


def _plain(value: object) -> object:
    return f"{value + 0.0:.6g}" if isinstance(value, float) else value  # the sum makes -0 a 0


def _columns(outcomes: Mapping[str, NDArray]) -> NDArray[np.float64]:
    """(N, methods)."""
    shapes = {name: values.shape for name, values in outcomes.items()}
    shape = next(iter(shapes.values()), ())
    if len(shape) != 1 or shape[0] < 2 or len(set(shapes.values())) > 1:
        raise ValueError(
            f"`outcomes` must be (N,) with one N >= 2 for all methods, a row per source, got {shapes}; keep the "
            "sources that all methods met"
        )
    columns = np.stack([values.astype(np.float64) for values in outcomes.values()], axis=1)
    for name, column in zip(outcomes, columns.T, strict=True):
        if not np.isfinite(column).all():
            raise ValueError(f"`outcomes` of {name!r} must be finite, got NaN or infinity; leave out such sources")
    return columns
