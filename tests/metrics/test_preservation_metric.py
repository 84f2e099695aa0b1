"""Edits by hand; chunks and ranks are in test_ranks.py."""

import math

import pytest
import torch

from lcg.guidance import parse, parse_edit
from lcg.metrics.preservation_metric import Preservation
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("hat"), Attribute("smile"), Attribute("hair", "categorical", ("blond", "red"))))
EDIT = parse_edit("-hat", SCHEMA)
BEFORE = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0.0]])
AFTER = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0.0]])  # all well; other hair; a smile; still the hat


def test_each_source_counts_for_what_became_of_it() -> None:
    metric = Preservation(SCHEMA, EDIT)
    metric.update(BEFORE, AFTER, torch.tensor([0.03, 0.01, 0.02, 0.0], dtype=torch.float64))
    found = {name: (float(figure.value), int(figure.n)) for name, figure in metric.compute().items()}
    assert found == {
        "joint_accuracy": (0.75, 4),
        "kept": (0.75, 4),
        "kept_fine": (0.5, 4),
        "edit_success": (0.5, 4),
        "l1_outside": (pytest.approx(0.015), 4),
    }


def test_the_bound_decides_what_counts_as_unchanged() -> None:
    metric = Preservation(SCHEMA, EDIT, bound=0.02)
    metric.update(BEFORE, AFTER, torch.tensor([0.03, 0.01, 0.02, 0.0]))
    assert float(metric.compute()["edit_success"].value) == 0.25


def test_sources_without_a_region_count_for_labels_only() -> None:
    metric = Preservation(SCHEMA, EDIT)
    metric.update(BEFORE, AFTER)
    found = metric.compute()
    assert found["l1_outside"].value.isnan() and found["l1_outside"].n == 0
    assert float(found["kept"].value) == 0.75
    assert float(found["edit_success"].value) == 0.5
    metric.update(BEFORE[:2], AFTER[:2], torch.tensor([0.5, 0.0]))
    found = metric.compute()
    assert [int(figure.n) for figure in found.values()] == [6, 6, 6, 6, 2]
    assert float(found["l1_outside"].value) == pytest.approx(0.25)


def test_changes_that_do_not_fit_are_refused_and_leave_no_trace() -> None:
    metric = Preservation(SCHEMA, EDIT)
    for outside in (torch.tensor([0, 0, 0, math.nan]), torch.tensor([0, 0, 0, 1.5]), torch.tensor([0, 0, 0, -0.1])):
        with pytest.raises(
            ValueError, match=r"`outside` must be in \[0, 1\], got other values or NaN; see `l1_outside`"
        ):
            metric.update(BEFORE, AFTER, outside)
    with pytest.raises(ValueError, match=r"`outside` must be \(4,\), a change per source, got \(4, 1\)"):
        metric.update(BEFORE, AFTER, torch.zeros(4, 1))
    with pytest.raises(TypeError, match=r"`outside` must be floating point, got torch.bool; see `l1_outside`"):
        metric.update(BEFORE, AFTER, torch.zeros(4, dtype=torch.bool))
    assert not any(state.any() for state in metric.metric_state.values())


def test_an_impossible_bound_and_an_edit_of_another_schema_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`bound` must be in \[0, 1\], got 3"):
        Preservation(SCHEMA, EDIT, bound=3)
    with pytest.raises(ValueError, match="must have 'smile' in column 1"):
        Preservation(SCHEMA, parse("smile", Schema((Attribute("smile"),))))
