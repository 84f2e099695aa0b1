"""Tables: what stands in which line and column, and that the winner, and nobody else, is marked."""

import pytest

from lcg.benchmarks.report.tables import (
    at_strengths,
    by_attribute,
    by_last,
    by_method,
    by_strength,
    families,
    strength_of,
)
from lcg.benchmarks.results.estimates import Results, Row
from lcg.benchmarks.results.vocabulary import COSTS, LABELS, METRICS, VARIETY, describe, label_of


def results(*rows: tuple[str, str, str, float, float]) -> Results:
    return Results(tuple(Row(m, t, metric, value, stderr, 100, 0) for m, t, metric, value, stderr in rows))


def test_columns_have_a_fixed_order_and_unknown_metrics_come_last() -> None:
    found = results(*(("lcg", "generate/a", m, 0.5, 0.0) for m in ("new_metric", "frechet_distance", "sharp")))
    table = by_method(found, ["generate/a"], [("", "a")], "caption")
    assert table is not None and table.columns == (
        "sharp\N{NO-BREAK SPACE}↑",
        "Fréchet distance\N{NO-BREAK SPACE}↓",
        "new metric",
    )
    assert describe("new_metric").better is None


def test_a_method_that_was_not_measured_leaves_an_empty_cell() -> None:
    found = results(("lcg", "t", "sharp", 0.5, 0.01), ("lace", "t", "fid", -3.0, 0.01))
    table = by_method(found, ["t"], [("", "")], "caption")
    assert table is not None
    lcg, lace = table.groups[0].lines
    assert [c.value for c in lcg.cells] == ["0.500", ""] and [c.value for c in lace.cells] == ["", "\N{MINUS SIGN}3.00"]


def test_how_far_a_method_is_behind_is_shown_with_its_sign_and_wins_nothing() -> None:
    found = results(
        ("lcg", "tradeoff/+a", "pareto_area", 0.75, 0.01),
        ("lace", "tradeoff/+a", "pareto_area", 0.5, 0.01),
        ("lace", "tradeoff/+a", "pareto_behind", 0.25, 0.005),
        ("styleflow", "tradeoff/+a", "pareto_behind", -0.125, 0.005),
        ("lace", "tradeoff/+a", "joint_accuracy/0.5", 0.25, 0.005),
    )
    table = by_method(found, ["tradeoff/+a"], [("", "")], "caption")
    assert table is not None and table.columns == ("trade-off area\N{NO-BREAK SPACE}↑", "behind lcg")
    cells = {line.label: [(c.value, c.best) for c in line.cells] for line in table.groups[0].lines}
    assert cells == {
        "lcg": [("0.750", True), ("", False)],
        "LACE, ODE": [("0.500", False), ("0.250", False)],
        "StyleFlow": [("", False), ("\N{MINUS SIGN}0.125", False)],
    }


def test_every_baseline_has_a_name_for_readers() -> None:
    assert len(set(LABELS.values())) == len(LABELS)
    assert label_of("composable_mcmc") == "Composable Diffusion + MCMC" and label_of("all") == "all methods"
    assert label_of("of somebody else") == "of somebody else"


def test_metrics_by_attribute_become_lines() -> None:
    found = results(
        ("lcg", "r", "accuracy/beard", 0.5, 0.01),
        ("real", "r", "accuracy/beard", 0.9, 0.0),
        ("lcg", "r", "fid", 1.0, 0.0),
    )
    assert families(found, ["r"]) == ("accuracy",)
    table = by_attribute(found, ["r"], [""], "accuracy", "caption")
    assert table.columns == ("lcg", "real images") and table.groups[0].lines[0].label == "beard"
    assert [c.error for c in table.groups[0].lines[0].cells] == ["± 0.010", "± 0.000"]
    assert by_method(results(("lcg", "r", "accuracy/beard", 0.5, 0.0)), ["r"], [("", "")], "caption") is None


def test_the_winner_is_bold_and_the_note_says_by_which_rule() -> None:
    found = results(
        ("lcg", "t", "sharp", 0.9, 0.01),
        ("lace", "t", "sharp", 0.5, 0.01),
        ("real", "t", "sharp", 0.99, 0.01),
        ("lcg", "t", "kept", 0.9, 0.01),
        ("lace", "t", "kept", 0.89, 0.01),
    )
    table = by_method(found, ["t"], [("", "")], "caption")
    assert table is not None and table.tasks == ("t",)
    assert [[c.best for c in line.cells] for line in table.groups[0].lines] == [[True, False], [False] * 2, [False] * 2]
    assert table.note == "Bold: better than every other method by more than two standard errors of the difference."


def test_only_wanted_metrics_are_columns() -> None:
    found = results(("lcg", "t", "sharp", 0.5, 0.0), ("lcg", "t", "evaluations", 10.0, 0.0))
    table = by_method(found, ["t"], [("", "")], "caption", COSTS.__contains__)
    assert table is not None and len(table.columns) == 1 and table.groups[0].lines[0].cells[0].value == "10"
    assert by_method(found, ["t"], [("", "")], "caption", VARIETY.__contains__) is None


def test_metrics_by_attribute_and_noise_level_have_a_line_and_a_column_each() -> None:
    found = results(
        ("classifier", "c", "ece/hat/t=0.1", 0.25, 0.0),
        ("classifier", "c", "ece/hat/t=0.9", 0.5, 0.0),
        ("classifier", "c", "ece/smile/t=0.9", 0.75, 0.0),
        ("classifier", "c", "ece_chance/smile/t=0.9", 0.1, 0.0),
    )
    table = by_last(found, "c", "ece", "attribute", "caption")
    assert table.columns == ("t=0.1", "t=0.9") and table.groups[0].heading == ""
    cells = {line.label: [c.value for c in line.cells] for line in table.groups[0].lines}
    assert cells == {"hat": ["0.250", "0.500"], "smile": ["", "0.750"]}


def test_strengths_are_lines_from_weak_to_strong_and_win_nothing() -> None:
    rows = [
        ("lcg", "scale/a", f"{metric}/{s}", 0.5, 0.0) for metric in ("sharp", "diversity") for s in ("10", "0.5", "2")
    ]
    found = results(*rows, ("lace", "scale/a", "sharp/1", 0.9, 0.0))
    table = by_strength(found, "scale/a", "caption")
    assert table is not None and table.folded and [g.heading for g in table.groups] == ["lcg", "LACE, ODE"]
    assert [line.label for line in table.groups[0].lines] == ["0.5", "2", "10"] and table.lines == 4
    assert not any(c.best for group in table.groups for line in group.lines for c in line.cells)
    assert list(at_strengths(found, "lcg", "scale/a", "sharp")) == [0.5, 2.0, 10.0]
    assert by_strength(found, "scale/b", "caption") is None


@pytest.mark.parametrize("metric", ["sharp/much", "sharp/nan"])
def test_strengths_must_be_numbers(metric: str) -> None:
    with pytest.raises(
        ValueError, match=rf"a metric of scale/a must end in the strength, such as sharp/0\.5, got '{metric}'"
    ):
        strength_of(metric, "scale/a")


def test_metrics_that_tell_variety_have_no_direction_and_costs_are_better_low() -> None:
    assert {METRICS[metric].better for metric in VARIETY} == {None}
    assert {METRICS[metric].better for metric in COSTS} == {"lower"}
    assert all(metric.meaning for metric in METRICS.values())
