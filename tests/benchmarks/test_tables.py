"""Tables: sequences found by name, the best marked only where it is best by more than chance."""

import pytest

from lcg.benchmarks.estimates import Results, Row
from lcg.benchmarks.tables import LABELS, best_methods, by_attribute, by_method, chains, describe, families, label_of


def results(*rows: tuple[str, str, str, float, float]) -> Results:
    return Results(tuple(Row(m, t, metric, value, stderr, 100, 0) for m, t, metric, value, stderr in rows))


def test_steps_of_an_edit_sequence_are_found_by_their_names() -> None:
    assert chains(["edit/+beard", "edit/+beard+glasses", "edit/+beard+glasses-hat"]) == [
        [("edit/+beard", "+beard"), ("edit/+beard+glasses", "+glasses"), ("edit/+beard+glasses-hat", "-hat")]
    ]


def test_sequences_may_share_a_beginning_and_names_a_prefix() -> None:
    tasks = ["edit/+hat", "edit/+hat_color=red", "edit/+hat+smile", "edit/+hat/+beard"]
    assert chains(tasks) == [
        [("edit/+hat_color=red", "+hat_color=red")],
        [("edit/+hat", "+hat"), ("edit/+hat+smile", "+smile")],
        [("edit/+hat", "+hat"), ("edit/+hat/+beard", "+beard")],
    ]


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("joint_accuracy", (0.9, 0.8), {"lcg"}),
        ("frechet_distance", (0.9, 0.8), {"lace"}),
        ("joint_accuracy", (0.9, 0.88), {"lcg", "lace"}),  # 0.02 <= 2 sqrt(0.01^2 + 0.01^2)
        ("log_p_formula", (0.9, 0.8), set()),
    ],
)
def test_best_is_the_better_one_and_all_within_two_errors(metric: str, values: tuple, best: set[str]) -> None:
    found = results(("lcg", "t", metric, values[0], 0.01), ("lace", "t", metric, values[1], 0.01))
    assert best_methods(found, found.methods, "t", metric) == best


def test_real_images_do_not_compete_and_nobody_wins_alone() -> None:
    found = results(("lcg", "t", "sharp", 0.5, 0.01), ("real", "t", "sharp", 0.99, 0.01))
    assert best_methods(found, found.methods, "t", "sharp") == set()


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
