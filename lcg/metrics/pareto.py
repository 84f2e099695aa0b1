"""The trade-off of an editing method: what its strength gains in accuracy and what that costs in preservation.

A method with a strength is not a point but a curve: the stronger the edit, the more of what was asked for is there and
the less of all else is kept. Comparing methods at one strength each compares the choice of strengths. The hypervolume
(Zitzler & Thiele 1999, IEEE Transactions on Evolutionary Computation 3(4), "size of the space covered") compares the
curves: with a_s the accuracy and k_s the preservation at strength s, both shares in [0, 1], it is the area that the
points dominate,

    area = int_0^1 max{k_s : a_s >= a} da = sum_i (a_(i) - a_(i+1)) max_{j <= i} k_(j),

where a_(1) >= ... >= a_(S) are the sorted points, a_(S+1) = 0, and the maximum over no points is 0. It is 1 only for a
method that at some strength does all that was asked for and keeps everything else; more points, in whatever order,
never make it smaller.

Its standard error comes from the bootstrap (Efron 1979, Annals of Statistics 7(1)) over sources, which are what was
drawn: every strength of every method edits the same ones. With one seed all methods meet the same resampled sources, so
that the difference of two methods has the (usually smaller) error of paired measurements. The maximum over noisy points
flatters all methods a little; both the area and its replicates contain that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pareto_area(accuracy: NDArray[np.floating], preservation: NDArray[np.floating]) -> float:
    """The area that a method's points (accuracy, preservation) dominate, relative to (0, 0).

    Args:
        accuracy: (S,) floating point, in [0, 1], one per strength, in any order.
        preservation: (S,) floating point, in [0, 1].

    Returns:
        The hypervolume, in [0, 1].

    Raises:
        TypeError: an array that is not floating point.
        ValueError: arrays that are empty, not (S,) both, or hold a value that is not in [0, 1].

    Example:
        >>> pareto_area(np.array([0.5, 1.0]), np.array([1.0, 0.5]))
        0.75
    """
    for name, values in (("accuracy", accuracy), ("preservation", preservation)):
        if not np.issubdtype(values.dtype, np.floating):
            raise TypeError(
                f"`{name}` must be floating point, got {values.dtype}; take the mean over sources, or give truth "
                "values to `pareto_bootstrap`"
            )
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"`{name}` must be shares in [0, 1], got {values}")
    if accuracy.ndim != 1 or accuracy.shape != preservation.shape or not accuracy.size:
        raise ValueError(
            "`accuracy` and `preservation` must both be (S,), a value per strength, S >= 1, "
            f"got {accuracy.shape} and {preservation.shape}"
        )
    return float(_areas(accuracy.astype(np.float64), preservation.astype(np.float64)))


def pareto_bootstrap(
    present: NDArray[np.bool_], kept: NDArray[np.bool_], resamples: int = 1000, seed: int = 0
) -> tuple[float, NDArray[np.float64]]:
    """The area of the means over sources, and the areas under resampling of the sources.

    Which sources a replicate draws depends on `seed`, `resamples` and N only: replicates of two methods on the same
    sources are paired, and the standard deviation of their difference is the standard error of the difference.

    Args:
        present: (S, N) bool, for every strength and source whether all that was asked for is there.
        kept: (S, N) bool, whether all else has stayed.
        resamples: R >= 1, how many replicates.
        seed: of the resampling, >= 0.

    Returns:
        The area and its R replicates, (R,) float64 in [0, 1].

    Raises:
        TypeError: an array that is not bool.
        ValueError: arrays that are empty, or not (S, N) both, or `resamples` or `seed` out of range.

    Example:
        >>> area, replicates = pareto_bootstrap(np.ones((3, 64), bool), np.ones((3, 64), bool))
        >>> area, float(replicates.std(ddof=1))
        (1.0, 0.0)
    """
    for name, values in (("present", present), ("kept", kept)):
        if values.dtype != np.bool_:
            raise TypeError(f"`{name}` must be bool, got {values.dtype}")
    if present.ndim != 2 or present.shape != kept.shape or not present.size:
        raise ValueError(
            "`present` and `kept` must both be (S, N), a row per strength and a column per source, neither empty, "
            f"got {present.shape} and {kept.shape}"
        )
    if resamples < 1:
        raise ValueError(f"`resamples` must be >= 1, got {resamples}")
    if seed < 0:
        raise ValueError(f"`seed` must be >= 0, got {seed}")
    n = present.shape[1]
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    # How often each source was drawn, (N, R): the sums below are whole numbers, exact in float64.
    times = np.stack([np.bincount(rows, minlength=n) for rows in drawn], axis=1).astype(np.float64)
    replicates = _areas(present @ times / n, kept @ times / n)
    return pareto_area(present.mean(axis=1), kept.mean(axis=1)), replicates


def _areas(accuracy: NDArray[np.float64], preservation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas of points (S, ...), (...)."""
    order = np.argsort(-accuracy, axis=0)
    a = np.take_along_axis(accuracy, order, axis=0)
    best = np.maximum.accumulate(np.take_along_axis(preservation, order, axis=0), axis=0)
    widths = a - np.concatenate((a[1:], np.zeros_like(a[:1])))
    return np.asarray((widths * best).sum(axis=0))
