"""Who wins: the best by more than chance over every other, by paired tests where there are any."""

from __future__ import annotations

import pytest

from lcg.benchmarks.report.winners import Verdict, rule_note, verdict
from lcg.benchmarks.results.estimates import Results, Row
from lcg.benchmarks.results.pairs import Pair

ERRORS, PAIRED, BOTH = frozenset({"errors"}), frozenset({"paired"}), frozenset({"errors", "paired"})


def results(metric: str, values: dict[str, tuple[float, float | None]], *pairs: Pair) -> Results:
    return Results(tuple(Row(m, "t", metric, v, e, 100, 0) for m, (v, e) in values.items()), pairs)


def pair(method: str, against: str, difference: float, p_holm: float) -> Pair:
    return Pair("t", "sharp", method, against, difference, difference - 0.1, difference + 0.1, p_holm / 2, p_holm, 100)


@pytest.mark.parametrize(
    ("metric", "values", "winner"),
    [
        ("sharp", {"lcg": (0.9, 0.01), "lace": (0.8, 0.01)}, "lcg"),
        ("frechet_distance", {"lcg": (0.9, 0.01), "lace": (0.8, 0.01)}, "lace"),
        ("sharp", {"lcg": (0.9, 0.01), "lace": (0.875, 0.01)}, None),  # 0.025 < 2 sqrt(0.01^2 + 0.01^2) = 0.0283
        ("sharp", {"lcg": (0.9, 0.01), "lace": (0.87, 0.01)}, "lcg"),  # 0.030 > 0.0283
        ("sharp", {"lcg": (0.9, 0.01), "lace": (0.1, 0.01), "pca": (0.89, 0.01)}, None),  # one other is near
        ("sharp", {"lcg": (1.0, 0.0), "lace": (1.0, 0.0)}, None),  # a tie
    ],
)
def test_without_comparisons_two_standard_errors_of_the_difference_decide(
    metric: str, values: dict[str, tuple[float, float | None]], winner: str | None
) -> None:
    assert verdict(results(metric, values), values, "t", metric) == Verdict(winner, ERRORS)


def test_where_an_error_is_not_known_nobody_wins() -> None:
    values = {"lcg": (9.0, 0.01), "lace": (0.1, None)}
    assert verdict(results("sharp", values), values, "t", "sharp") == Verdict(None, frozenset({"unknown"}))


def test_metrics_without_direction_and_methods_without_rivals_have_no_winner() -> None:
    values = {"lcg": (0.9, 0.0), "lace": (0.1, 0.0)}
    assert verdict(results("diversity", values), values, "t", "diversity") == Verdict()
    assert verdict(results("sharp", values), ["lcg"], "t", "sharp") == Verdict()
    assert verdict(results("sharp", values), ["lcg", "lace"], "elsewhere", "sharp") == Verdict()


def test_real_images_do_not_compete() -> None:
    values = {"lcg": (0.9, 0.01), "lace": (0.5, 0.01), "real": (0.99, 0.0)}
    assert verdict(results("sharp", values), values, "t", "sharp").winner == "lcg"


@pytest.mark.parametrize(("p", "winner"), [(0.049, "lcg"), (0.05, None), (0.4, None)])
def test_a_paired_test_overrules_the_errors_in_both_directions(p: float, winner: str | None) -> None:
    for error in (0.001, 0.4):
        values = {"lcg": (0.9, error), "lace": (0.8, error)}
        found = results("sharp", values, pair("lace", "lcg", -0.1, p))
        assert verdict(found, values, "t", "sharp") == Verdict(winner, PAIRED)


def test_a_pair_counts_in_either_order_and_that_against_the_best_first() -> None:
    values = {"lcg": (0.9, None), "lace": (0.8, None)}
    reverse = pair("lcg", "lace", 0.1, 0.01)
    assert verdict(results("sharp", values, reverse), values, "t", "sharp").winner == "lcg"
    both = results("sharp", values, reverse, pair("lace", "lcg", -0.1, 0.2))
    assert verdict(both, values, "t", "sharp").winner is None


def test_a_difference_the_other_way_is_no_win() -> None:
    values = {"lcg": (0.9, 0.0), "lace": (0.8, 0.0)}
    assert verdict(results("sharp", values, pair("lace", "lcg", 0.1, 0.001)), values, "t", "sharp").winner is None


def test_pairs_that_were_not_compared_fall_back_on_their_errors() -> None:
    values = {"lcg": (0.9, 0.01), "lace": (0.8, 0.01), "pca": (0.1, 0.01)}
    found = results("sharp", values, pair("lace", "lcg", -0.1, 0.01))
    assert verdict(found, values, "t", "sharp") == Verdict("lcg", BOTH)


def test_the_note_names_the_rules() -> None:
    assert rule_note(()) == ""
    assert "two standard errors of the difference." in rule_note(ERRORS) and "Holm" not in rule_note(ERRORS)
    assert "p < 0.05 after Holm's correction" in rule_note(PAIRED) and "standard errors" not in rule_note(PAIRED)
    assert "Holm" in rule_note(BOTH) and "standard errors" in rule_note(BOTH)
    assert rule_note({"unknown"}) == "Nothing is bold, since no error is known."
    assert rule_note({"errors", "unknown"}).endswith("difference. Where an error is not known, nothing is bold.")
    assert rule_note(ERRORS, "space").startswith("Bold: better than every other space by")
