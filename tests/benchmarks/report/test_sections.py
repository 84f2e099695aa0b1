"""Sections: every kind of task has its own, with its charts, and no number is lost or told twice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lcg.benchmarks.report.section import Section
from lcg.benchmarks.report.sections import glossary, sections
from lcg.benchmarks.report.sections_editing import chains
from lcg.benchmarks.results.estimates import Results, Row, read_results


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


def test_synthetic_sources_have_sequences_of_their_own() -> None:
    assert chains(["synthetic/+a", "synthetic/+a-b"]) == [[("synthetic/+a", "+a"), ("synthetic/+a-b", "-b")]]


@pytest.fixture(scope="module")
def results(made_up: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Results:
    return read_results(made_up(tmp_path_factory.mktemp("sections")))


@pytest.fixture(scope="module")
def found(results: Results) -> dict[str, Section]:
    return {section.id: section for section in sections(results, frozenset())}


def test_every_kind_of_task_has_a_section_in_order(found: dict[str, Section]) -> None:
    assert list(found) == [
        *("glance", "formulas", "scale", "edits", "synthetic-edits", "trade-off"),
        *("unconditional", "reconstruction", "disentanglement", "calibration", "cost"),
    ]
    assert found["edits"].heading == "Editing, real sources"
    assert found["synthetic-edits"].heading == "Editing, synthetic sources"


def test_one_kind_of_sources_needs_no_distinction() -> None:
    for kind, heading in (("edit", "Editing"), ("synthetic", "Editing, synthetic sources")):
        (section,) = sections(Results((Row("lcg", f"{kind}/+a", "kept", 1.0),)), frozenset())
        assert section.heading == heading and section.panels == ()


def test_every_number_is_in_one_table_or_in_a_reliability_diagram(results: Results, found: dict[str, Section]) -> None:
    told = [section for section in found.values() if section.id != "glance"]  # which shows means of them
    tables = [table for s in told for table in (*s.tables, *(heats.table for heats in s.heats))]
    shown = sum(bool(cell.value) for t in tables for group in t.groups for line in group.lines for cell in line.cells)
    elsewhere = sum(
        "_in_bin/" in metric or (task.startswith("tradeoff/") and "/" in metric)
        for _, task, metric in results.estimates
    )
    assert shown + elsewhere == len(results.estimates)


def test_scales_are_compared_by_what_is_reached_and_only_lcg_by_its_weight(found: dict[str, Section]) -> None:
    compared, weights, *_ = found["scale"].panels
    assert compared.layout == "alone" and len(compared.charts) == 1 and len(compared.legend) == 5
    assert [chart.heading.split("\N{NO-BREAK SPACE}")[0] for chart in weights.charts] == [
        *("Joint accuracy", "Sharp", "Fréchet distance", "Diversity")
    ]
    assert all(set(re.findall(r"<title>(\w+)", chart.svg)) == {"lcg"} for chart in weights.charts)
    assert compared.charts[0].svg.count("<title>") == 6 + 4 * 4
    assert len(found["scale"].panels) == len(found["scale"].tables) * 2 == 4


def test_wide_ranges_of_distances_are_drawn_on_a_logarithmic_axis() -> None:
    rows = [
        Row("lcg", "scale/a", f"{metric}/{s}", value)
        for s, *values in (("1", 0.5, 2.0), ("2", 0.9, 400.0))
        for metric, value in zip(("joint_accuracy", "frechet_distance"), values, strict=True)
    ]
    (section,) = sections(Results(tuple(rows)), frozenset())
    assert "vertical axis is logarithmic" in section.panels[0].text
    assert re.findall(r'dominant-baseline="central">(\d+)<', section.panels[0].charts[0].svg) == ["10", "100"]


def test_a_reliability_diagram_per_noise_level_and_an_error_per_attribute(found: dict[str, Section]) -> None:
    (panel,) = found["calibration"].panels
    bands = ("t=0.05", "t=0.25", "t=0.5", "t=0.75", "t=0.95")
    assert panel.layout == "small" and tuple(chart.heading for chart in panel.charts) == bands
    assert [chart.svg.count("<circle") for chart in panel.charts] == [10, 10, 10, 11, 11]
    errors, chance = found["calibration"].tables
    assert errors.caption == "Calibration error by noise level" and errors.columns == bands and errors.lines == 17
    assert chance.caption.startswith("Calibration error by chance")


def test_several_classifiers_are_told_apart() -> None:
    rows = [
        Row(m, "calibration", f"{kind}_in_bin/t=1/3", 0.5) for m in ("a", "b") for kind in ("accuracy", "confidence")
    ]
    (section,) = sections(Results(tuple(rows)), frozenset())
    assert [chart.heading for chart in section.panels[0].charts] == ["a, t=1", "b, t=1"]


def test_quality_against_cost_needs_rivals_and_keeps_methods_without_networks(found: dict[str, Section]) -> None:
    (panel,) = found["cost"].panels
    assert [chart.heading for chart in panel.charts] == ["Formulas", "Edits, all steps"] and len(panel.legend) == 5
    assert all("latent arithmetic: network evaluations / sample 0," in chart.svg for chart in panel.charts)
    assert found["cost"].heading == "Quality against cost"
    (table,) = found["cost"].tables
    assert len(table.groups) == 3 and not table.folded
    alone = Results(tuple(Row("lcg", "generate/a", metric, 1.0) for metric in ("evaluations", "joint_accuracy")))
    (_, cost) = sections(alone, frozenset())
    assert (cost.heading, cost.panels) == ("Cost", ())


def test_disentanglement_is_by_space_and_by_attribute(found: dict[str, Section]) -> None:
    spaces, information = found["disentanglement"].tables
    assert spaces.corner == "space" and [line.label for line in spaces.groups[0].lines] == ["z_sem", "W"]
    assert [column.split("\N{NO-BREAK SPACE}")[0] for column in spaces.columns] == [
        *("modularity", "explicitness", "compactness")
    ]
    assert information.lines == 17 and spaces.note == "Nothing is bold, since no error is known."


def test_side_effects_are_heat_maps_of_real_and_of_synthetic_sources(found: dict[str, Section]) -> None:
    for id in ("edits", "synthetic-edits"):
        (heats,) = found[id].heats
        assert len(heats.maps) == 5 and len(heats.maps[0].rows) == 3 and len(heats.maps[0].attributes) == 17
        assert not any("changed" in table.caption.lower() for table in found[id].tables)


def test_the_best_is_bold_by_the_paired_test_where_there_is_one(found: dict[str, Section]) -> None:
    edits = found["edits"].tables[0]
    bold = Counter(
        (group.heading, column.split("\N{NO-BREAK SPACE}")[0], line.label)
        for group in edits.groups
        for line in group.lines
        for column, cell in zip(edits.columns, line.cells, strict=True)
        if cell.best
    )
    assert ("+hat", "edit success", "lcg") in bold and ("+glasses", "edit success", "lcg") not in bold
    assert "Holm" in edits.note and {label for _, _, label in bold} == {"lcg"}


def test_the_glossary_explains_what_is_there(results: Results) -> None:
    labels = [label for label, _ in glossary(results)]
    assert {"calibration error", "disentangled edit strength", "coverage", "peak memory, MB"} <= {*labels}
    assert len(labels) == len(set(labels)) and "FID" not in labels
