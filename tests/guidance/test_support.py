"""Whether a prior has seen a combination: enough labels decide, the prior's samples otherwise."""

import math

import pytest
import torch

from lcg.guidance import assess, parse, without_weights
from lcg.guidance.support import RARE
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("hat"), Attribute("beard"), Attribute("smile")))
HAT_AND_BEARD = parse("hat & beard", SCHEMA)
NAN = math.nan


def rows(both: int, hat: int, neither: int, unknown: int = 0) -> torch.Tensor:
    """Labels of hat, beard and smile; of the unknown ones only that there is a hat."""
    kinds = [[1.0, 1, 0]] * both + [[1.0, 0, 1]] * hat + [[0.0, 0, 1]] * neither + [[1.0, NAN, 0]] * unknown
    return torch.tensor(kinds).reshape(-1, 3)


def test_labels_are_counted_where_they_decide() -> None:
    support = assess(HAT_AND_BEARD, rows(3, 5, 7, unknown=11))
    assert (support.satisfying, support.decided) == (3, 15)
    assert math.isnan(support.p) and math.isnan(support.stderr)


def test_one_known_label_may_decide() -> None:
    """No hat is enough to know that there are not both."""
    labels = torch.tensor([[0.0, NAN, NAN], [NAN, 0.0, NAN], [NAN, 1.0, NAN]])
    assert assess(HAT_AND_BEARD, labels).decided == 2


def test_enough_labels_decide_whatever_the_prior_says() -> None:
    ghosts, nothing = torch.full((100,), 0.05).log(), torch.full((100,), 1e-9).log()
    assert assess(HAT_AND_BEARD, rows(0, 1000, 1000), ghosts).beyond
    assert not assess(HAT_AND_BEARD, rows(20, 1000, 980), nothing).beyond


def test_few_labels_leave_it_to_the_prior() -> None:
    few = rows(0, 100, 100)
    assert 3 / len(few) > RARE
    assert not assess(HAT_AND_BEARD, few).beyond  # nothing is known against it
    assert assess(HAT_AND_BEARD, few, torch.full((64,), RARE / 2).log()).beyond
    assert not assess(HAT_AND_BEARD, few, torch.full((64,), RARE * 2).log()).beyond
    assert assess(HAT_AND_BEARD, torch.zeros(0, 3), torch.full((64,), RARE / 2).log()).beyond


def test_the_probability_under_the_prior_comes_with_its_error() -> None:
    p = torch.tensor([0.1, 0.3, 0.5, 0.7], dtype=torch.float64)
    support = assess(HAT_AND_BEARD, torch.zeros(0, 3), p.log())
    assert support.p == pytest.approx(0.4) and support.stderr == pytest.approx(math.sqrt(0.05) / 2)
    assert str(support) == "0 of 0 labelled latents satisfy it; P = 40.00% +- 11.18% under the prior"


def test_weights_play_no_part() -> None:
    weighted = parse("hat^2.0 & beard & smile^3.0", SCHEMA)
    assert without_weights(weighted) == parse("hat & beard & smile", SCHEMA)
    assert without_weights(parse("hat^2.0", SCHEMA)) == parse("hat", SCHEMA)
    labels = rows(3, 5, 7)
    assert assess(parse("hat^2.0 & beard^4.0", SCHEMA), labels) == assess(HAT_AND_BEARD, labels)
