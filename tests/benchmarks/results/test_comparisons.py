"""Comparisons by hand: discordant counts, known intervals, Holm's factors, and what a csv file keeps of them."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lcg.benchmarks.results.comparisons import compare, write_comparisons
from lcg.benchmarks.results.pairs import COLUMNS, Pair, read_comparisons


def bits(text: str) -> NDArray[np.bool_]:
    return np.array([letter == "1" for letter in text])


def test_mcnemar_by_hand() -> None:
    """Six sources on which only one method succeeds, none the other way: p = 2 / 2^6; with 5 and 1, 2 (1 + 6) / 2^6."""
    outcomes = {"lcg": bits("1111110111"), "a": bits("0000000111"), "b": bits("1000001111")}
    a, b = compare(outcomes, "edit/+hat", "joint_accuracy", "higher")
    assert (a.method, a.against, a.n) == ("a", "lcg", 10) and (b.method, b.against) == ("b", "lcg")
    assert a.difference == pytest.approx(-0.6) and b.difference == pytest.approx(-0.4)
    assert (a.p, b.p) == (2 / 64, 14 / 64)
    assert (a.p_holm, b.p_holm) == (4 / 64, 14 / 64)  # Holm: the smaller one twice
    assert a.low < a.difference < a.high < 0


def test_zeros_and_ones_are_successes_of_whatever_type() -> None:
    outcomes = {"lcg": bits("1111110111"), "a": bits("0000000111")}
    as_floats = {name: hits.astype(np.float32) for name, hits in outcomes.items()}
    assert compare(as_floats, "t", "m", "higher") == compare(outcomes, "t", "m", "higher")


def test_methods_that_are_alike_do_not_differ() -> None:
    for values in (bits("10110"), np.random.default_rng(0).standard_normal(50)):
        rows = compare({"a": values, "b": values.copy(), "lcg": values.copy()}, "t", "m", "higher")
        assert len(rows) == 4 and {row.against for row in rows} == {"a", "lcg"}
        for row in rows:
            assert (row.difference, row.low, row.high, row.p, row.p_holm) == (0, 0, 0, 1, 1)


@pytest.mark.parametrize("real", [True, False])
def test_methods_change_places_with_the_sign(real: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal([[0.2], [0]], 1, (2, 200)) if real else rng.random((2, 200)) < [[0.6], [0.4]]
    (one,) = compare({"a": a, "b": b}, "t", "m", "higher")
    (other,) = compare({"a": a, "b": b}, "t", "m", "lower")
    assert (one.method, one.against, other.method, other.against) == ("b", "a", "a", "b")
    assert other.difference == -one.difference and other.p == one.p
    np.testing.assert_allclose([other.low, other.high], [-one.high, -one.low], rtol=0, atol=1e-14)


def test_intervals_of_a_mean_difference_are_those_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    n, common = 4000, rng.standard_normal(4000)  # which pairs take out
    a, b = 10 * common + rng.standard_normal(n), 10 * common + rng.standard_normal(n) + 0.1
    (row,) = compare({"a": a, "b": b}, "t", "l1_outside", "lower")
    stderr = (b - a).std() / math.sqrt(n)
    assert row.difference == pytest.approx((b - a).mean())
    assert row.low == pytest.approx(row.difference - 1.96 * stderr, abs=0.15 * stderr)
    assert row.high == pytest.approx(row.difference + 1.96 * stderr, abs=0.15 * stderr)
    assert row.p == 2 / 2001  # no replicate on the other side of 0
    share = 0.6 * (1 - 0.6)
    hits = np.arange(1000) < 600
    (row,) = compare({"a": hits, "none": np.zeros(1000, dtype=bool)}, "t", "kept", "higher")
    assert row.high - row.low == pytest.approx(2 * 1.96 * math.sqrt(share / 1000), rel=0.06)


def test_the_best_is_by_direction_and_lcg_is_always_compared_with() -> None:
    outcomes = {"a": np.array([3.0, 3, 4]), "lcg": np.array([2.0, 2, 3]), "b": np.array([1.0, 1, 2])}

    def who(better) -> list[tuple[str, str]]:
        return [(row.method, row.against) for row in compare(outcomes, "t", "m", better)]

    assert who("higher") == [("lcg", "a"), ("b", "a"), ("a", "lcg"), ("b", "lcg")]
    assert who("lower") == [("a", "b"), ("lcg", "b"), ("a", "lcg"), ("b", "lcg")]
    outcomes.pop("a")
    assert who("higher") == [("b", "lcg")]  # the best one is lcg: once
    outcomes.pop("lcg")
    assert who("higher") == []  # nothing to compare with


def test_without_a_difference_p_is_uniform() -> None:
    rng = np.random.default_rng(0)
    p = []
    for seed in range(200):
        a, b = rng.standard_normal((2, 50))
        p.append(compare({"lcg": a, "a": b}, "t", "m", "higher", resamples=400, seed=seed)[0].p)
    assert 0.01 < np.mean(np.array(p) < 0.05) < 0.12 and 0.4 < np.mean(np.array(p) < 0.5) < 0.6


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = compare({name: rng.random(90) < 0.5 for name in ("lcg", "a", "b")}, "generate/a, b & ~c", "kept", "higher")
    write_comparisons(tmp_path / "comparisons.csv", rows)
    text = (tmp_path / "comparisons.csv").read_text()
    assert text.splitlines()[0] == "task,metric,method,against,difference,low,high,p,p_holm,n" == ",".join(COLUMNS)
    found = read_comparisons(tmp_path / "comparisons.csv")
    assert [row.method for row in found] == [row.method for row in rows]
    for one, other in zip(found, rows, strict=True):
        for name in ("difference", "low", "high", "p", "p_holm"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-5)
        assert replace(one, difference=0, low=0, high=0, p=0, p_holm=0) == replace(
            other, difference=0, low=0, high=0, p=0, p_holm=0
        )


def test_numbers_have_six_digits_and_zero_no_sign(tmp_path: Path) -> None:
    path = tmp_path / "comparisons.csv"
    write_comparisons(path, [Pair("t", "m", "a", "lcg", -0.0, -1 / 3, 2.0, 5e-324, 1.0, 12)])
    assert path.read_text().splitlines()[1] == "t,m,a,lcg,0,-0.333333,2,4.94066e-324,1,12"
    assert read_comparisons(path)[0].p > 0
    write_comparisons(path, [])
    assert path.read_text() == ",".join(COLUMNS) + "\n"


def test_outcomes_that_do_not_pair_are_refused() -> None:
    two = np.array([0.0, 1.0])
    with pytest.raises(ValueError, match=r"`better` must be 'higher' or 'lower', got None; leave out metrics without"):
        compare({"a": two}, "t", "m", None)  # type: ignore[arg-type]
    for outcomes in ({}, {"a": two[:1]}, {"a": np.eye(2)}, {"a": two, "b": np.zeros(3)}):
        with pytest.raises(ValueError, match=r"`outcomes` must be \(N,\) with one N >= 2 for all methods.*; keep the"):
            compare(outcomes, "t", "m", "higher")
    with pytest.raises(ValueError, match=r"`outcomes` of 'b' must be finite, got NaN or infinity; leave out such"):
        compare({"a": two, "b": np.array([0, np.nan])}, "t", "m", "higher")
