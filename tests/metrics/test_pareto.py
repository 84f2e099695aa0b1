"""The area under a trade-off: closed forms, what must not matter, and errors that pair the methods."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lcg.metrics.pareto import pareto_area, pareto_bootstrap


def area(*points: tuple[float, float]) -> float:
    accuracy, preservation = np.array(points, dtype=np.float64).T
    return pareto_area(accuracy, preservation)


def curve(strengths: int, n: int, seed: int = 0) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Truth values (S, N) of a method whose accuracy grows with its strength while what it keeps shrinks."""
    rng = np.random.default_rng(seed)
    gain, cost = np.linspace(0.1, 0.9, strengths)[:, None], np.linspace(0.95, 0.2, strengths)[:, None]
    return rng.uniform(size=n) < gain, rng.uniform(size=n) < cost


# --- closed forms ---


def test_one_point_is_a_rectangle() -> None:
    assert area((0.5, 0.25)) == 0.125
    assert area((1.0, 1.0)) == 1.0 and area((0.0, 1.0)) == area((1.0, 0.0)) == 0.0


def test_two_points_are_the_union_of_their_rectangles() -> None:
    assert area((0.25, 0.75), (0.5, 0.5)) == 0.25 * 0.75 + 0.5 * 0.5 - 0.25 * 0.5


def test_a_staircase_of_s_points_is_half_a_square_and_half_a_step() -> None:
    """Points (i/S, 1 - (i-1)/S): sum of 1/S (1 - (i-1)/S) = (1 + 1/S) / 2, towards the triangle's 1/2."""
    for s in (1, 4, 64, 1024):
        i = np.arange(1, s + 1)
        assert pareto_area(i / s, 1 - (i - 1) / s) == pytest.approx((1 + 1 / s) / 2, abs=1e-12)


def test_the_area_is_the_integral_of_the_best_that_reaches_each_accuracy() -> None:
    rng = np.random.default_rng(0)
    for s in (1, 2, 9):
        accuracy, preservation = rng.uniform(size=(2, s))
        a = (np.arange(100_000) + 0.5) / 100_000
        best = np.where(accuracy[:, None] >= a, preservation[:, None], 0.0).max(axis=0)
        assert pareto_area(accuracy, preservation) == pytest.approx(best.mean(), abs=s * 1e-5)


# --- what must not matter ---


def test_dominated_and_repeated_points_change_nothing() -> None:
    front = ((0.25, 0.75), (0.5, 0.5), (0.75, 0.125))
    for dominated in ((0.25, 0.5), (0.125, 0.75), (0.5, 0.5), (0.0, 0.0), (0.75, 0.0), (0.0, 0.75)):
        assert area(*front, dominated) == area(*front)
    assert area(*front, (0.5, 0.625)) > area(*front)


def test_the_order_of_points_is_irrelevant() -> None:
    accuracy, preservation = np.random.default_rng(1).uniform(size=(2, 9)).round(1)  # with ties
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(9)
        assert pareto_area(accuracy[order], preservation[order]) == pytest.approx(
            pareto_area(accuracy, preservation), abs=1e-15
        )


def test_accuracy_and_preservation_are_treated_alike() -> None:
    accuracy, preservation = np.random.default_rng(2).uniform(size=(2, 9))
    assert pareto_area(accuracy, preservation) == pytest.approx(pareto_area(preservation, accuracy), abs=1e-15)


# --- bootstrap ---


def test_bootstrap_returns_the_area_of_the_means() -> None:
    present, kept = curve(5, 200)
    value, replicates = pareto_bootstrap(present, kept, resamples=7)
    assert value == pareto_area(present.mean(1), kept.mean(1))
    assert replicates.shape == (7,) and replicates.dtype == np.float64
    assert (replicates >= 0).all() and (replicates <= 1).all()


def test_with_many_sources_the_replicates_centre_on_the_area() -> None:
    present, kept = curve(5, 5000)
    value, replicates = pareto_bootstrap(present, kept, resamples=200)
    error = replicates.std(ddof=1)
    assert error < 0.02
    assert replicates.mean() == pytest.approx(value, abs=4 * error / math.sqrt(200))


def test_standard_error_of_one_point_is_binomial() -> None:
    """With all kept, the area is the accuracy, a share with standard error sqrt(p (1 - p) / N)."""
    n, p = 400, 0.3
    present = (np.arange(n) < p * n)[None]
    value, replicates = pareto_bootstrap(present, np.ones_like(present), resamples=4000)
    assert value == p
    # the standard deviation of R replicates has a relative error of 1 / sqrt(2 R), here 1.1 %
    assert replicates.std(ddof=1) == pytest.approx(math.sqrt(p * (1 - p) / n), rel=0.05)


def test_a_difference_that_sources_share_has_no_error() -> None:
    """Methods that always agree differ by 0 exactly in every replicate, whatever else they were measured at."""
    present, kept = curve(4, 256)
    _, once = pareto_bootstrap(present, kept)
    _, again = pareto_bootstrap(present, kept)
    dominated = np.zeros_like(present)
    _, padded = pareto_bootstrap(np.concatenate((dominated, present)), np.concatenate((dominated, kept)))
    assert once.std() > 0.01
    assert (once - again == 0).all() and np.abs(once - padded).max() < 1e-15


def test_pairing_makes_the_error_of_a_difference_smaller() -> None:
    """The second method is the first but for 4 sources of 400, so the difference is a share with p = 0.01."""
    n, few = 400, 4
    present, all_kept = (np.arange(n) < 200)[None], np.ones((1, n), dtype=bool)
    worse = (np.arange(n) < 200 - few)[None]
    (_, a), (_, b) = (pareto_bootstrap(p, all_kept, resamples=4000) for p in (present, worse))
    (_, c) = pareto_bootstrap(worse, all_kept, resamples=4000, seed=1)
    p = few / n
    assert (a - b).std(ddof=1) == pytest.approx(math.sqrt(p * (1 - p) / n), rel=0.05)
    assert (a - c).std(ddof=1) == pytest.approx(math.sqrt(2 * 0.25 / n), rel=0.05)


def test_sources_are_resampled_whole() -> None:
    """Present exactly where kept: every replicate has a = k, so its area is a^2, which separate rows would not give."""
    present = (np.arange(100) % 3 == 0)[None]
    _, both = pareto_bootstrap(present, present, resamples=50)
    _, accuracy = pareto_bootstrap(present, np.ones_like(present), resamples=50)
    np.testing.assert_allclose(both, accuracy**2, rtol=0, atol=1e-15)


def test_seeds_give_other_replicates_of_the_same_area() -> None:
    present, kept = curve(3, 64)
    (one, a), (two, b) = (pareto_bootstrap(present, kept, seed=seed) for seed in (0, 1))
    assert one == two and not np.array_equal(a, b)


# --- what is refused ---


@pytest.mark.parametrize(
    ("accuracy", "preservation", "message"),
    [
        ([0.5, 0.5], [0.5], r"must both be \(S,\), a value per strength, S >= 1, got \(2,\) and \(1,\)"),
        ([[0.5]], [[0.5]], r"must both be \(S,\)"),
        ([], [], r"must both be \(S,\)"),
        ([1.5], [0.5], r"`accuracy` must be shares in \[0, 1\], got \[1\.5\]"),
        ([0.5], [-0.1], r"`preservation` must be shares in \[0, 1\]"),
        ([0.5], [math.nan], r"`preservation` must be shares in \[0, 1\], got \[nan\]"),
    ],
)
def test_points_that_are_no_shares_are_refused(accuracy: list, preservation: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pareto_area(np.array(accuracy, dtype=np.float64), np.array(preservation, dtype=np.float64))


def test_points_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match=r"`accuracy` must be floating point, got bool; take the mean over sources"):
        pareto_area(np.array([True]), np.array([0.5]))
    with pytest.raises(TypeError, match=r"`preservation` must be floating point, got int64"):
        pareto_area(np.array([0.5]), np.array([1]))


def test_truth_values_of_the_wrong_kind_are_refused() -> None:
    fine = np.ones((2, 3), dtype=bool)
    with pytest.raises(TypeError, match=r"`present` must be bool, got float64"):
        pareto_bootstrap(np.ones((2, 3)), fine)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`kept` must be bool, got int64"):
        pareto_bootstrap(fine, np.ones((2, 3), dtype=np.int64))  # type: ignore[arg-type]
    for present, kept in ((fine, fine[:1]), (fine[0], fine[0]), (fine[:, :0], fine[:, :0])):
        with pytest.raises(ValueError, match=r"`present` and `kept` must both be \(S, N\), a row per strength"):
            pareto_bootstrap(present, kept)
    with pytest.raises(ValueError, match=r"`resamples` must be >= 1, got 0"):
        pareto_bootstrap(fine, fine, resamples=0)
    with pytest.raises(ValueError, match=r"`seed` must be >= 0, got -1"):
        pareto_bootstrap(fine, fine, seed=-1)
