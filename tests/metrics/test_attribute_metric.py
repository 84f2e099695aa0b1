"""Accuracy as sums; that it equals the pure function on any chunks and ranks is in test_ranks.py."""

import math

import pytest
import torch

from lcg.metrics.attribute_metric import AttributeAccuracy
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("hat"), Attribute("hair", "categorical", ("a", "b")), Attribute("age", "continuous")))
NAN = math.nan


def test_shares_by_hand_with_their_errors() -> None:
    metric = AttributeAccuracy(SCHEMA)
    metric.update(torch.tensor([[1, 0, 0.1], [0, 1, 0.2]]), torch.tensor([[1, NAN, 0.5], [1, 1, 0.5]]))
    metric.update(torch.tensor([[1, NAN, 0.1]]), torch.tensor([[NAN, 1, 0.5]]))
    found = metric.compute()
    assert list(found) == ["accuracy/hat", "accuracy/hair", "joint_accuracy"]
    for name in found:  # hat is the only binary attribute, so that it is all of them
        assert (float(found[name].value), int(found[name].n)) == (0.5, 2)
        assert float(found[name].stderr) == pytest.approx(math.sqrt(0.25 / 2))


def test_rows_for_which_nothing_is_wanted_give_no_share() -> None:
    metric = AttributeAccuracy(SCHEMA)
    metric.update(torch.zeros(3, 3), torch.full((3, 3), NAN))
    assert all(share.value.isnan() and share.n == 0 for share in metric.compute().values())
