"""Bootstrap against scipy and normal theory, McNemar against the binomial, Holm against closed testing."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from numpy.typing import NDArray

from lcg.metrics import significance
from lcg.metrics.significance import (
    Interval,
    bootstrap_interval,
    holm,
    mcnemar,
    mean_intervals,
    paired_bootstrap,
)

stats = pytest.importorskip("scipy.stats")


def skewed(n: int, seed: int) -> NDArray:
    return np.random.default_rng(seed).exponential(size=n)


def outcomes(both: int, first: int, second: int, neither: int) -> tuple[NDArray, NDArray]:
    a = np.repeat([True, True, False, False], [both, first, second, neither])
    b = np.repeat([True, False, True, False], [both, first, second, neither])
    return a, b


# --- bootstrap ---


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("rows", [skewed(40, 0), skewed(40, 1) > 1.2], ids=["real", "bool"])
def test_intervals_of_a_mean_equal_those_of_scipy(rows: NDArray, method: str) -> None:
    """Which is given the same replicates; its quantiles and corrections are its own."""
    found = bootstrap_interval(rows, method=method, resamples=500, seed=7, level=0.9)
    oracle = stats.bootstrap(
        (rows.astype(np.float64),),
        np.mean,
        n_resamples=500,
        method=method,
        confidence_level=0.9,
        rng=np.random.default_rng(7),
    )
    np.testing.assert_allclose(found.replicates, oracle.bootstrap_distribution, rtol=0, atol=1e-14)
    np.testing.assert_allclose([found.low, found.high], oracle.confidence_interval, rtol=0, atol=1e-9)
    assert found.stderr == pytest.approx(oracle.standard_error)
    assert found.estimate == rows.mean()


def test_intervals_of_a_statistic_equal_those_of_scipy() -> None:
    rows = np.random.default_rng(0).standard_normal((30, 2)) @ [[1, 0.5], [0, 1]]

    def correlation(pairs: NDArray) -> float:
        return float(np.corrcoef(pairs.T)[0, 1])

    found = bootstrap_interval(rows, correlation, resamples=300, seed=3)
    oracle = stats.bootstrap(
        tuple(rows.T),
        lambda x, y: correlation(np.stack((x, y), axis=1)),
        paired=True,
        vectorized=False,
        n_resamples=300,
        method="BCa",
        rng=np.random.default_rng(3),
    )
    np.testing.assert_allclose([found.low, found.high], oracle.confidence_interval, rtol=0, atol=1e-9)


def test_standard_error_is_that_of_the_mean() -> None:
    """The bootstrap's variance of a mean is the rows' population variance over N."""
    rows = skewed(100, 0)
    found = bootstrap_interval(rows, resamples=20_000)
    assert found.stderr == pytest.approx(rows.std() / 10, rel=0.03)
    assert found.low < found.estimate < found.high
    assert found.high - found.estimate > found.estimate - found.low  # of an exponential


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_cover_the_truth_about_as_often_as_they_say(method: str) -> None:
    hits = 0
    for seed in range(300):
        rows = np.random.default_rng(1000 + seed).standard_normal(40)
        found = bootstrap_interval(rows, method=method, resamples=400, seed=seed, level=0.9)
        hits += found.low <= 0 <= found.high
    assert 0.83 < hits / 300 < 0.95


def test_percentiles_are_quantiles_of_the_replicates() -> None:
    found = bootstrap_interval(skewed(20, 0), method="percentile", level=0.5)
    np.testing.assert_array_equal([found.low, found.high], np.quantile(found.replicates, [0.25, 0.75]))


def test_a_mean_given_as_a_statistic_is_the_same() -> None:
    rows = skewed(30, 0)
    one, other = bootstrap_interval(rows), bootstrap_interval(rows, lambda x: x.mean())
    np.testing.assert_allclose(one.replicates, other.replicates, rtol=1e-13)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=1e-9)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_shift_and_scale_move_the_interval(method: str) -> None:
    rows = skewed(30, 0)
    one, other = bootstrap_interval(rows, method=method), bootstrap_interval(2 * rows + 3, method=method)
    assert (other.low, other.high, other.stderr) == pytest.approx((2 * one.low + 3, 2 * one.high + 3, 2 * one.stderr))


def test_seeds_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = skewed(30, 0)
    one, other = bootstrap_interval(rows, seed=0), bootstrap_interval(rows, seed=1)
    assert one.estimate == other.estimate and not np.array_equal(one.replicates, other.replicates)
    monkeypatch.setattr(significance, "DRAWS", 100)
    np.testing.assert_array_equal(bootstrap_interval(rows, seed=0).replicates, one.replicates)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_rows_that_are_alike_have_no_width(method: str) -> None:
    found = bootstrap_interval(np.ones(20, dtype=bool), method=method, resamples=50)
    assert (found.estimate, found.low, found.high, found.stderr) == (1, 1, 1, 0)


def test_an_estimate_beyond_all_replicates_still_has_an_interval() -> None:
    """The number of different rows is larger than in any resample."""
    found = bootstrap_interval(np.arange(30.0), lambda x: float(len(np.unique(x))), resamples=100)
    assert found.estimate == 30 > found.replicates.max() == found.high == found.low


# --- many means ---


def test_intervals_of_many_means_are_those_of_each() -> None:
    columns = np.stack((skewed(50, 0), skewed(50, 1) > 1, np.zeros(50)), axis=1)
    for found, column in zip(mean_intervals(columns, level=0.9, resamples=300, seed=5), columns.T, strict=True):
        alone = bootstrap_interval(column, level=0.9, method="percentile", resamples=300, seed=5)
        np.testing.assert_allclose(found.replicates, alone.replicates, rtol=0, atol=1e-14)
        expected = (alone.estimate, alone.low, alone.high)
        assert (found.estimate, found.low, found.high) == pytest.approx(expected, abs=1e-14)
    assert found.p_value == 1 and not found.replicates.any()


def test_chunks_of_many_means_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = np.stack((skewed(30, 0), skewed(30, 1)), axis=1)
    whole = mean_intervals(columns, resamples=50)
    monkeypatch.setattr(significance, "DRAWS", 100)
    for one, other in zip(mean_intervals(columns, resamples=50), whole, strict=True):
        np.testing.assert_allclose(one.replicates, other.replicates, rtol=1e-14)


def test_columns_that_have_no_means_are_refused() -> None:
    for columns in (np.zeros(5), np.zeros((1, 2)), np.zeros((5, 2, 2))):
        with pytest.raises(ValueError, match=r"`columns` must be \(N, M\) with N >= 2, a row per source, got \("):
            mean_intervals(columns)
    with pytest.raises(ValueError, match=r"`columns` must be finite, got NaN or infinity; leave out rows without"):
        mean_intervals(np.array([[0.0], [np.nan]]))
    with pytest.raises(ValueError, match=r"`level` must be in \(0, 1\), got 1"):
        mean_intervals(np.zeros((5, 1)), level=1)


# --- pairs ---


def test_a_paired_difference_is_that_of_the_same_rows() -> None:
    a, b = skewed(50, 0), skewed(50, 1)
    found = paired_bootstrap(a, b)
    difference = bootstrap_interval(a).replicates - bootstrap_interval(b).replicates
    np.testing.assert_allclose(found.replicates, difference, rtol=0, atol=1e-14)
    by_statistic = paired_bootstrap(a, b, statistic=np.mean)
    assert (by_statistic.low, by_statistic.high) == pytest.approx((found.low, found.high), abs=1e-9)


def test_methods_change_places_with_the_sign() -> None:
    a, b = outcomes(20, 15, 5, 10)
    one = paired_bootstrap(a, b, method="percentile")
    other = paired_bootstrap(b, a, method="percentile")
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)
    assert one.estimate == 0.2 and one.p_value == other.p_value


def test_pairing_takes_out_what_the_sources_share() -> None:
    hard = 10 * skewed(60, 0)
    a, b = hard + 0.1 * skewed(60, 1), hard
    assert paired_bootstrap(a, b).stderr < 0.05 * bootstrap_interval(a).stderr


def test_equal_methods_do_not_differ() -> None:
    a = skewed(30, 0)
    found = paired_bootstrap(a, a)
    assert (found.estimate, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_p_values_count_replicates_beyond_zero() -> None:
    replicates = np.array([-1.0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert Interval(4.0, -1.0, 8.0, replicates).p_value == pytest.approx(2 * 2 / 10)
    assert Interval(4.0, -1.0, 8.0, -replicates).p_value == pytest.approx(2 * 2 / 10)
    assert Interval(4.0, 1.0, 9.0, replicates + 2).p_value == pytest.approx(2 / 10)  # never 0


def test_p_values_are_those_of_a_paired_t_test_when_rows_are_many() -> None:
    d = np.random.default_rng(0).standard_normal(400) + 0.1
    found = paired_bootstrap(d, np.zeros(400), resamples=20_000)
    assert found.p_value == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)


# --- McNemar ---


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 5), (3, 11), (11, 3), (40, 61), (700, 900)])
def test_mcnemar_equals_the_binomial_test(b: int, c: int) -> None:
    found = mcnemar(*outcomes(30, b, c, 7))
    assert (found.only_first, found.only_second) == (b, c)
    assert found.p_value == pytest.approx(stats.binomtest(b, b + c).pvalue if b + c else 1, rel=1e-9)
    if b + c:
        mid = 2 * stats.binom.cdf(min(b, c), b + c, 0.5) - stats.binom.pmf(min(b, c), b + c, 0.5)
        assert mcnemar(*outcomes(30, b, c, 7), mid_p=True).p_value == pytest.approx(mid, rel=1e-9)


def test_only_discordant_sources_count_and_sides_do_not() -> None:
    for mid_p in (False, True):
        p = mcnemar(*outcomes(0, 9, 2, 0), mid_p=mid_p).p_value
        assert mcnemar(*outcomes(99, 2, 9, 1), mid_p=mid_p).p_value == p


def test_errors_of_the_first_kind() -> None:
    """Summed over the binomial: the exact test stays below the level, mid-p comes nearer to it from either side."""
    for n in (8, 25, 60):
        weights = [math.comb(n, b) / 2**n for b in range(n + 1)]
        exact, mid = (
            sum(w for b, w in enumerate(weights) if mcnemar(*outcomes(0, b, n - b, 1), mid_p=mid_p).p_value <= 0.05)
            for mid_p in (False, True)
        )
        assert exact <= 0.05 and exact <= mid and abs(mid - 0.05) <= 0.05 - exact


def test_overwhelming_evidence_does_not_underflow_to_zero() -> None:
    assert 0 < mcnemar(*outcomes(0, 3000, 0, 0)).p_value < 1e-300


# --- Holm ---


def test_holm_equals_closed_testing_with_bonferroni() -> None:
    """A hypothesis falls when every set that contains it does: the largest Bonferroni p-value of those sets."""
    p = np.random.default_rng(0).random(6) ** 3
    sets = [set(chosen) for size in range(1, 7) for chosen in combinations(range(6), size)]
    closed = [max(min(1, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(6)]
    np.testing.assert_allclose(holm(p), closed, rtol=1e-14)


def test_holm_by_hand_and_at_its_limits() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_array_equal(holm(np.array([0.2])), [0.2])
    np.testing.assert_array_equal(holm(np.array([0.0, 1.0, 0.9])), [0, 1, 1])
    np.testing.assert_allclose(holm(np.full(4, 0.02)), 0.08)


def test_holm_follows_the_order_and_lies_between_none_and_bonferroni() -> None:
    p = np.random.default_rng(1).random(20) ** 4
    rows = np.random.default_rng(2).permutation(20)
    np.testing.assert_array_equal(holm(p[rows]), holm(p)[rows])
    assert (holm(p) >= p).all() and (holm(p) <= np.minimum(1, 20 * p)).all()


# --- what is refused ---


def test_rows_that_have_no_interval_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`rows` must be at least two, a row per source, got shape \(1,\)"):
        bootstrap_interval(np.ones(1))
    with pytest.raises(ValueError, match=r"`rows` must be at least two, a row per source, got shape \(\)"):
        bootstrap_interval(np.array(1.0))
    with pytest.raises(ValueError, match=r"`rows` must be \(N,\) for their mean, got \(3, 2\); average them, or give"):
        bootstrap_interval(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"the statistic of `rows` must be finite, also when they are resampled"):
        bootstrap_interval(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match=r"the statistic of `rows` must be finite, also when they are resampled"):
        bootstrap_interval(np.array([1.0, 2.0]), lambda x: 1.0 if len(set(x.tolist())) > 1 else math.nan)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.0}, r"`level` must be in \(0, 1\), got 1\.0; 0\.95 is usual"),
        ({"level": math.nan}, r"`level` must be in \(0, 1\), got nan"),
        ({"method": "basic"}, r"`method` must be 'percentile' or 'bca', got 'basic'"),
        ({"resamples": 1}, r"`resamples` must be >= 2, got 1; 2000 is usual"),
        ({"seed": -1}, r"`seed` must be >= 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(np.ones(3), **options)
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(np.ones(3), np.zeros(3), **options)


def test_outcomes_that_do_not_pair_are_refused() -> None:
    a = np.ones(3, dtype=bool)
    with pytest.raises(
        ValueError, match=r"`first` and `second` must have one shape, .* \(3,\) and \(2,\); keep the sou"
    ):
        paired_bootstrap(a, a[:2])
    for first, second in product((a.astype(float), a), repeat=2):
        if first is not a or second is not a:
            with pytest.raises(
                TypeError, match=r"`(first|second)` must be bool, got float64; compare with a threshold"
            ):
                mcnemar(first, second)
    for first, second in ((a, a[:2]), (a[:0], a[:0]), (a[None], a[None])):
        with pytest.raises(ValueError, match=r"`first` and `second` must both be \(N,\) with N >= 1, a row per source"):
            mcnemar(first, second)


def test_what_are_no_p_values_is_refused() -> None:
    for p in (np.zeros(0), np.zeros((2, 2)), np.array(0.5)):
        with pytest.raises(
            ValueError, match=r"`p_values` must be \(m,\) with m >= 1, a value per comparison, got shape"
        ):
            holm(p)
    for p in (1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"`p_values` must be in \[0, 1\], got \[.*\]; leave out comparisons"):
            holm(np.array([0.5, p]))
