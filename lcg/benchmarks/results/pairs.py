"""comparisons.csv and what it says: differences between two methods on the same sources and seeds.

    task,metric,method,against,difference,low,high,p,p_holm,n

difference = method - against, whichever is better; low and high are the ends of its 95 % interval, p belongs to a
paired two-sided test, and p_holm is p after Holm's correction over all methods that are compared with the same one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from lcg.benchmarks.results.readers import number, read_lines, whole


@dataclass(frozen=True)
class Pair:
    """One line of comparisons.csv: two methods, and how far they are apart on the n sources that both met."""

    task: str
    metric: str
    method: str
    against: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    n: int


COLUMNS = tuple(field.name for field in fields(Pair))


def read_comparisons(path: Path) -> list[Pair]:
    """Reads comparisons.csv, which may be without lines.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a table of comparisons; the message names the line.
    """
    found: dict[tuple[str, str, str, str], Pair] = {}
    for cells, where in read_lines(path, COLUMNS):
        names = cells["task"], cells["metric"], cells["method"], cells["against"]
        if not all(names):
            raise ValueError(f"{where}: task, metric, method and against must not be empty, got {names}")
        if names in found:
            raise ValueError(f"{where}: a second comparison for {names}; task, metric and two methods must name one")
        difference, low, high, p, p_holm = (
            number(cells, name, where) for name in ("difference", "low", "high", "p", "p_holm")
        )
        if not (0 <= p <= 1 and 0 <= p_holm <= 1):
            raise ValueError(f"{where}: `p` and `p_holm` must be probabilities in [0, 1], got {p:g} and {p_holm:g}")
        found[names] = Pair(*names, difference, low, high, p, p_holm, whole(cells, "n", where))
    return list(found.values())
