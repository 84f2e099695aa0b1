"""Means over tasks: closed forms, which tasks and methods enter, their order, and one task alone."""

from __future__ import annotations

import math

import pytest

from lcg.benchmarks.report.means import groups
from lcg.benchmarks.report.sections_glance import glance
from lcg.benchmarks.results.estimates import Results, Row
from lcg.benchmarks.results.pairs import Pair


def results(**shares: dict[str, float]) -> Results:
    """Joint accuracies by method and formula, with an error of 0.03 and n = 50."""
    rows = [
        Row(method, f"generate/{formula}", "joint_accuracy", value, 0.03, 50, 1)
        for method, by_formula in shares.items()
        for formula, value in by_formula.items()
    ]
    return Results(tuple(rows))


def test_value_error_and_n_of_a_mean() -> None:
    (means,) = groups(results(lcg={"a": 0.5, "b": 0.9, "c": 1.0}), frozenset())
    found = means.results.get("lcg", means.task, "joint_accuracy")
    assert found is not None and found.n == 150
    assert found.value == pytest.approx(0.8, abs=1e-12)
    assert found.stderr == pytest.approx(0.03 / math.sqrt(3), abs=1e-12)
    assert means.said == "3 formulas, n = 150, seed 1"


def test_a_mean_without_an_error_has_none() -> None:
    rows = [Row("lcg", f"generate/{f}", "joint_accuracy", 0.5, error) for f, error in (("a", 0.1), ("b", None))]
    (means,) = groups(Results(tuple(rows)), frozenset())
    found = means.results.get("lcg", means.task, "joint_accuracy")
    assert found is not None and found.stderr is None


def test_tasks_that_few_answer_are_left_out_and_so_are_methods_that_lack_one() -> None:
    measured = results(
        lcg={"a": 0.9, "b": 0.9, "x": 0.1}, base={"a": 0.5, "b": 0.7}, other={"a": 0.8, "b": 0.6}, few={"a": 1}
    )
    (means,) = groups(measured, frozenset())
    assert means.over == ("generate/a", "generate/b")
    assert means.results.methods == ("lcg", "other", "base")
    section = glance([means], frozenset())
    assert section is not None and "without “x”, which few answer" in section.tables[0].samples


def test_lcg_is_first_then_the_best_and_real_images_are_last() -> None:
    both = {"a": 0.3, "b": 0.3}
    measured = results(real={"a": 1.0, "b": 1.0}, base={"a": 0.6, "b": 0.6}, lcg=both, good={"a": 0.9, "b": 0.9})
    (means,) = groups(measured, frozenset())
    section = glance([means], frozenset())
    assert section is not None
    (lines,) = (group.lines for group in section.tables[0].groups)
    assert [line.label for line in lines] == ["lcg", "good", "base", "real images"]
    assert [cell.best for line in lines for cell in line.cells] == [False, True, False, False]
    assert "two standard errors" in section.tables[0].note


def test_a_lead_within_the_error_is_not_bold() -> None:
    (means,) = groups(results(lcg={"a": 0.85, "b": 0.85}, base={"a": 0.8, "b": 0.82}), frozenset())
    section = glance([means], frozenset())
    assert section is not None
    assert not any(cell.best for line in section.tables[0].groups[0].lines for cell in line.cells)


def test_one_task_alone_keeps_its_paired_comparisons() -> None:
    pair = Pair("generate/a", "joint_accuracy", "base", "lcg", -0.02, -0.03, -0.01, 0.001, 0.001, 50)
    measured = Results(results(lcg={"a": 0.9}, base={"a": 0.88}).rows, (pair,))
    section = glance(groups(measured, frozenset()), frozenset())
    assert section is not None and section.tables[0].groups[0].lines[0].cells[0].best
    assert "Holm" in section.tables[0].note and section.tables[0].samples == "1 formula, n = 50, seed 1"


def test_formulas_that_were_never_seen_are_a_group_of_their_own() -> None:
    measured = results(lcg={"a": 1.0, "b": 0.5}, base={"a": 1.0, "b": 0.5})
    seen, unseen = groups(measured, frozenset({"generate/b"}))
    assert (seen.over, unseen.over) == (("generate/a",), ("generate/b",))
    section = glance([seen, unseen], frozenset({"generate/b"}))
    assert section is not None and section.zero_shot == ("b",)


def test_edits_are_looked_at_after_their_last_step() -> None:
    rows = [Row(m, task, "edit_success", 0.5) for m in ("lcg", "base") for task in ("edit/+a", "edit/+a+b", "edit/-c")]
    (means,) = groups(Results(tuple(rows)), frozenset())
    assert means.over == ("edit/+a+b", "edit/-c") and means.said.startswith("2 sequences")


def test_nothing_is_compared_where_there_is_one_method() -> None:
    assert glance(groups(results(lcg={"a": 1.0}), frozenset()), frozenset()) is None
