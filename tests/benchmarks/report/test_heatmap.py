"""Heat maps: shares become percentages, edited attributes are found by name, errors are told."""

from __future__ import annotations

import pytest

from lcg.benchmarks.report.heatmap import heat_maps, heat_table, names
from lcg.benchmarks.results.estimates import Results, Row

STEPS = [("edit/+hat", "+hat"), ("edit/+hat-smile", "-smile")]


@pytest.fixture
def results() -> Results:
    rows = [
        Row("lcg", task, f"changed/{attribute}", value, 0.0125, 64, 0)
        for task, _ in STEPS
        for attribute, value in (("hat", 1.0), ("smile", 0.25), ("hat_color", 0.004))
    ]
    rows += [Row("lace", "edit/+hat", "changed/hat", 0.5), Row("pca", "edit/+hat", "kept", 0.5)]
    return Results(tuple(rows))


def test_a_map_per_measured_method_has_a_row_per_step_and_a_column_per_attribute(results: Results) -> None:
    lcg, lace = heat_maps(results, STEPS)
    assert (lcg.method, lace.method) == ("lcg", "LACE, ODE") and lcg.attributes == ("hat", "smile", "hat_color")
    assert [name for name, _ in lcg.rows] == ["+hat", "-smile"] and lcg.tasks == ("edit/+hat", "edit/+hat-smile")
    assert [[shade.percent for shade in shades] for _, shades in lcg.rows] == [["100", "25", "0"]] * 2
    assert [[shade.percent for shade in shades] for _, shades in lace.rows] == [["50", "", ""], ["", "", ""]]


def test_edited_attributes_are_marked_from_their_step_on(results: Results) -> None:
    (lcg, _) = heat_maps(results, STEPS)
    assert [[s.edited for s in shades] for _, shades in lcg.rows] == [[True, False, False], [True, True, False]]
    assert lcg.rows[1][1][1].said == "smile, edited: 25.0 ± 1.2 %" and lcg.rows[0][1][1].said == "smile: 25.0 ± 1.2 %"


@pytest.mark.parametrize(
    ("task", "attribute", "edited"),
    [
        ("edit/+hat", "hat", True),
        ("edit/+hat_color=red", "hat", False),
        ("edit/hair=red+hat", "red", False),
        ("synthetic/+beard-smile", "smile", True),
        ("edit/~smile", "smile", True),
        ("edit/+smile", "edit", False),
    ],
)
def test_edits_are_found_by_whole_names(task: str, attribute: str, edited: bool) -> None:
    assert names(task, attribute) == edited


def test_the_table_has_the_same_numbers_with_their_errors(results: Results) -> None:
    table = heat_table(results, STEPS, "caption")
    assert table.columns == ("+hat", "-smile") and [g.heading for g in table.groups] == ["lcg", "LACE, ODE"]
    line = table.groups[0].lines[1]
    assert line.label == "smile" and [(c.value, c.error) for c in line.cells] == [("0.250", "± 0.013")] * 2


def test_without_side_effects_there_is_no_map(results: Results) -> None:
    assert heat_maps(results, [("edit/+beard", "+beard")]) == []
