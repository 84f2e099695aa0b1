"""Whether a difference between methods is more than chance: bootstrap intervals, McNemar's test, Holm's correction.

What was drawn at random are the sources, so rows are sources. Methods that edit the same ones are compared row by row.

The bootstrap (Efron 1979, Annals of Statistics 7(1)) draws N rows with replacement, R times, and takes quantiles of the
statistic's replicates, at alpha/2 and 1 - alpha/2 (percentile), or at

    Phi( z_0 + (z_0 + z) / (1 - a (z_0 + z)) ),    z = Phi^-1(alpha/2) and Phi^-1(1 - alpha/2)

which corrects for bias, z_0 = Phi^-1(share of replicates below the estimate), and for a spread that changes with the
estimate, a = sum d_i^3 / (6 (sum d_i^2)^{3/2}), d_i the mean of the N leave-one-out statistics less the i-th (BCa,
Efron 1987, Journal of the American Statistical Association 82).

Two methods' successes on the same sources differ only where one succeeds and the other does not, b and c times. If
neither is better, b ~ Binomial(b + c, 1/2), and with m = min(b, c)

    p = min(1, 2 P(X <= m))  exact,        p = 2 P(X < m) + P(X = m)  mid-p

(McNemar 1947, Psychometrika 12; Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91). The exact
test errs in less than the nominal share of cases, with few discordant sources in far less; mid-p comes closer to it and
may go beyond (with 8 of them to 0.07 at the level 0.05). Comparing with several baselines, Holm 1979 (Scandinavian
Journal of Statistics 6) keeps the probability of any false claim at the level:
p_(i) -> max_{j <= i} min(1, (m - j + 1) p_(j)).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DRAWS = 2**22
"""Rows drawn at once: 32 MiB of their numbers."""

Statistic = Callable[[NDArray], float]
"""Of rows (N, ...), a number; it must not depend on their order."""


@dataclass(frozen=True, eq=False)
class Interval:
    """A statistic and its bootstrap interval.

    Attributes:
        estimate: the statistic of the rows.
        low: lower end.
        high: upper end.
        replicates: (R,) float64, the statistic of the resampled rows.
    """

    estimate: float
    low: float
    high: float
    replicates: NDArray[np.float64]

    @property
    def stderr(self) -> float:
        """Standard deviation of the replicates, >= 0."""
        return float(self.replicates.std(ddof=1))

    @property
    def p_value(self) -> float:
        """Of the hypothesis that the true value is 0, two-sided: 2 (1 + fewer replicates on one side of 0) / (R + 1).

        For differences. Approximate: it says at which level a percentile interval would just contain 0.
        """
        fewer = min(int((self.replicates <= 0).sum()), int((self.replicates >= 0).sum()))
        return min(1.0, 2 * (1 + fewer) / (len(self.replicates) + 1))


@dataclass(frozen=True)
class McNemar:
    """A paired comparison of successes.

    Attributes:
        only_first: b, sources on which only the first method succeeds.
        only_second: c, sources on which only the second does.
        p_value: two-sided, in (0, 1].
    """

    only_first: int
    only_second: int
    p_value: float


def bootstrap_interval(
    rows: NDArray,
    statistic: Statistic | None = None,
    level: float = 0.95,
    method: Literal["percentile", "bca"] = "bca",
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """A confidence interval of a mean or another statistic of rows.

    Rows that are all alike give an interval of no width, which does not prove certainty: of N successes in N trials the
    share may still be 1 - 3/N.

    Args:
        rows: (N, ...) real or bool, N >= 2, one per source: average over seeds first, as they share the source.
        statistic: maps rows to a number; None for the mean of rows (N,), which is many times as fast.
        level: of the confidence, in (0, 1).
        method: "bca", for which the statistic is also taken N times of N - 1 rows, or "percentile".
        resamples: R >= 2; quantiles far out need many.
        seed: of the resampling, >= 0. Which rows a replicate draws depends on `seed`, `resamples` and N only.

    Returns:
        The interval.

    Raises:
        ValueError: fewer than two rows, rows that are not (N,) where their mean is asked for, a statistic that is not
            finite, or an option out of range.
    """
    _check_options(level, method, resamples, seed)
    if not rows.ndim or len(rows) < 2:
        raise ValueError(f"`rows` must be at least two, a row per source, got shape {rows.shape}")
    if statistic is None and rows.ndim != 1:
        raise ValueError(f"`rows` must be (N,) for their mean, got {rows.shape}; average them, or give a `statistic`")
    estimate = float(rows.mean() if statistic is None else statistic(rows))
    replicates = _replicates(rows, statistic, resamples, seed)
    if not (np.isfinite(estimate) and np.isfinite(replicates).all()):
        raise ValueError(
            "the statistic of `rows` must be finite, also when they are resampled, got NaN or infinity; leave out rows "
            "without a value, and mind statistics that some resample leaves undefined"
        )
    at = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        at = _corrected(at, estimate, replicates, _left_one_out(rows, statistic))
    low, high = np.quantile(replicates, at)
    return Interval(estimate, float(low), float(high), replicates)


def paired_bootstrap(
    first: NDArray,
    second: NDArray,
    statistic: Statistic | None = None,
    level: float = 0.95,
    method: Literal["percentile", "bca"] = "bca",
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The difference of a statistic between two methods, first less second, over the same resampled sources.

    Args:
        first: (N, ...) outcomes of one method, real or bool, a row per source.
        second: (N, ...) outcomes of the other on the same sources in the same order.
        statistic: see `bootstrap_interval`; None for the difference of means.
        level: see `bootstrap_interval`.
        method: see `bootstrap_interval`.
        resamples: see `bootstrap_interval`.
        seed: see `bootstrap_interval`.

    Returns:
        The interval of the difference, which has a p-value.

    Raises:
        ValueError: outcomes of different shapes, and as `bootstrap_interval`.
    """
    if first.shape != second.shape:
        raise ValueError(
            "`first` and `second` must have one shape, a row per source that both methods edit, "
            f"got {first.shape} and {second.shape}; keep the sources that they share"
        )
    if statistic is None:
        difference = first.astype(np.float64) - second.astype(np.float64)
        return bootstrap_interval(difference, None, level, method, resamples, seed)
    of_one = statistic
    pairs = np.stack((first, second), axis=1) if first.ndim else first

    def of_both(rows: NDArray) -> float:
        return float(of_one(rows[:, 0])) - float(of_one(rows[:, 1]))

    return bootstrap_interval(pairs, of_both, level, method, resamples, seed)


def mean_intervals(columns: NDArray, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> list[Interval]:
    """Percentile intervals of the means of many columns over the same resampled rows, for the price of one.

    How often each row is drawn is a matrix, and the replicates are its product with the columns. They are those of
    `bootstrap_interval` with the same seed, to rounding.

    Args:
        columns: (N, M) real or bool, N >= 2, a row per source; for paired comparisons, differences.
        level: see `bootstrap_interval`.
        resamples: see `bootstrap_interval`.
        seed: see `bootstrap_interval`.

    Returns:
        The M intervals.

    Raises:
        ValueError: columns that are not (N, M) with N >= 2 or not finite, or an option out of range.
    """
    _check_options(level, "percentile", resamples, seed)
    if columns.ndim != 2 or len(columns) < 2:
        raise ValueError(f"`columns` must be (N, M) with N >= 2, a row per source, got {columns.shape}")
    x = columns.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError("`columns` must be finite, got NaN or infinity; leave out rows without a value")
    replicates = np.concatenate([_times_drawn(drawn) @ x / len(x) for drawn in _draws(len(x), resamples, seed)])
    ends = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    parts = zip(x.mean(axis=0).tolist(), *ends.tolist(), replicates.T, strict=True)
    return [Interval(estimate, low, high, values) for estimate, low, high, values in parts]


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_], mid_p: bool = False) -> McNemar:
    """Whether one of two methods succeeds more often on the same sources.

    Args:
        first: (N,) bool, on which sources one method succeeds.
        second: (N,) bool, on which the other does.
        mid_p: whether to take the mid-p-value in place of the exact one.

    Returns:
        Discordant counts and the p-value, 1 where no source tells the methods apart.

    Raises:
        TypeError: outcomes that are not bool.
        ValueError: outcomes that are empty or not both (N,).

    Example:
        >>> a, b = np.ones(6, bool), np.zeros(6, bool)
        >>> mcnemar(a, b).p_value, mcnemar(a, b, mid_p=True).p_value
        (0.03125, 0.015625)
    """
    for name, values in (("first", first), ("second", second)):
        if values.dtype != np.bool_:
            raise TypeError(f"`{name}` must be bool, got {values.dtype}; compare with a threshold first")
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise ValueError(
            "`first` and `second` must both be (N,) with N >= 1, a row per source, "
            f"got {first.shape} and {second.shape}"
        )
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    n, m = b + c, min(b, c)
    term, below = 1, 0  # C(n, m) and sum_{i < m} C(n, i): whole numbers of any size, so that the result is exact
    for i in range(m):
        below += term
        term = term * (n - i) // (i + 1)
    ways = 2 * below + (term if mid_p else 2 * term)
    return McNemar(b, c, min(1.0, max(ways / 2**n, 5e-324)) if ways < 2**n else 1.0)


def holm(p_values: NDArray[np.floating]) -> NDArray[np.float64]:
    """p-values of several comparisons, adjusted so that those below a level are all claims at that level.

    Args:
        p_values: (m,) in [0, 1], m >= 1, in any order and however dependent.

    Returns:
        (m,) adjusted, in the same order, none smaller than it was.

    Raises:
        ValueError: p-values that are empty, not (m,), or not in [0, 1].

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
        [0.03, 0.06, 0.06]
    """
    if p_values.ndim != 1 or not p_values.size:
        raise ValueError(f"`p_values` must be (m,) with m >= 1, a value per comparison, got shape {p_values.shape}")
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"`p_values` must be in [0, 1], got {p_values}; leave out comparisons without one")
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)))
    return adjusted


def _replicates(rows: NDArray, statistic: Statistic | None, resamples: int, seed: int) -> NDArray[np.float64]:
    """(R,) statistics of N rows drawn with replacement; the numbers drawn do not depend on the chunks."""
    parts = []
    for drawn in _draws(len(rows), resamples, seed):
        parts.append(rows[drawn].mean(axis=1) if statistic is None else [float(statistic(rows[i])) for i in drawn])
    return np.concatenate(parts).astype(np.float64)


def _draws(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """The numbers of the rows that R replicates draw, (some, N) at a time."""
    generator, at_once = np.random.default_rng(seed), max(1, DRAWS // n)
    for start in range(0, resamples, at_once):
        yield generator.integers(n, size=(min(at_once, resamples - start), n))


def _times_drawn(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R, N), how often each replicate draws each row."""
    count, n = drawn.shape
    cells = drawn + n * np.arange(count)[:, None]
    return np.bincount(cells.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)


def _left_one_out(rows: NDArray, statistic: Statistic | None) -> NDArray[np.float64]:
    """(N,) statistics of all rows but one."""
    if statistic is None:
        return np.asarray((rows.sum(dtype=np.float64) - rows) / (len(rows) - 1))
    return np.array([float(statistic(np.delete(rows, i, axis=0))) for i in range(len(rows))])


def _corrected(
    at: NDArray[np.float64], estimate: float, replicates: NDArray[np.float64], left_out: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The quantiles of BCa. A replicate equal to the estimate counts half below it, as discrete outcomes often are."""
    normal, n = NormalDist(), len(replicates)
    below = (int((replicates < estimate).sum()) + int((replicates <= estimate).sum())) / 2
    bias = normal.inv_cdf(min(max(below, 0.5), n - 0.5) / n)  # finite, also where all replicates are on one side
    d = left_out.mean() - left_out
    spread = float((d**2).sum())
    skew = float((d**3).sum()) / (6 * spread**1.5) if spread > 0 and spread**1.5 > 0 else 0.0
    shifted = [bias + normal.inv_cdf(float(p)) for p in at]
    return np.array([normal.cdf(bias + z / (1 - skew * z)) if skew * z < 1 else float(z > 0) for z in shifted])


def _check_options(level: float, method: str, resamples: int, seed: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"`level` must be in (0, 1), got {level}; 0.95 is usual")
    if method not in ("percentile", "bca"):
        raise ValueError(f"`method` must be 'percentile' or 'bca', got {method!r}")
    if resamples < 2:
        raise ValueError(f"`resamples` must be >= 2, got {resamples}; 2000 is usual")
    if seed < 0:
        raise ValueError(f"`seed` must be >= 0, got {seed}")
