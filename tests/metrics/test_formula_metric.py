"""Satisfaction of formulas by hand; chunks and ranks are in test_ranks.py."""

import math

import pytest
import torch

from lcg.guidance import parse
from lcg.metrics.formula_metric import FormulaSatisfaction, satisfaction
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("hat"),
        Attribute("hair", "categorical", ("blond", "red"), applies_if={"hat": False}),
        Attribute("smile"),
        Attribute("beard"),
    )
)
NAN = math.nan
LABELS = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1], [1, NAN, 1, NAN], [0, 1, 0, 1.0]])


def test_the_formula_its_atoms_and_what_comes_along() -> None:
    hits = satisfaction(SCHEMA, parse("hair=red & (smile | hair=red)", SCHEMA), LABELS)
    assert {name: held.tolist() for name, held in hits.items()} == {
        "joint_accuracy": [True, False, False, True],
        "marginal/hair=red": [True, False, False, True],  # written twice, counted once
        "marginal/smile": [True, True, True, False],
        "marginal/hat": [False, False, True, False],
        "marginal/beard": [False, True, False, True],
    }


def test_shares_have_their_errors() -> None:
    metric = FormulaSatisfaction(SCHEMA, parse("~hat & smile", SCHEMA))
    metric.update(LABELS)
    metric.update(LABELS[:0])
    found = metric.compute()
    assert list(found) == ["joint_accuracy", "marginal/hat", "marginal/smile", "marginal/beard"]
    assert [float(share.value) for share in found.values()] == [0.5, 0.25, 0.75, 0.5]
    assert float(found["marginal/hat"].stderr) == pytest.approx(math.sqrt(0.25 * 0.75 / 4))
    assert all(int(share.n) == 4 for share in found.values())


def test_a_formula_of_another_schema_is_refused() -> None:
    other = Schema(tuple(reversed(SCHEMA.attributes)))
    with pytest.raises(
        ValueError, match=r"must have 'hat' in column 0, as the schema has, got column 3; parse it with"
    ):
        FormulaSatisfaction(SCHEMA, parse("hat", other))
    with pytest.raises(ValueError, match="unknown attribute 'hats'"):
        FormulaSatisfaction(SCHEMA, parse("hats", Schema((Attribute("hats"),))))
