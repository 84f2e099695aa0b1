import math

import pytest
import torch

from lcg.metrics import attribute_accuracy, proportion
from lcg.metrics.accuracy import joint_accuracy, right_labels
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("hair", "categorical", ("blond", "red", "black")),
        Attribute("age", "continuous"),
        Attribute("hat"),
    )
)
NAN = math.nan


def test_accuracy_counts_where_something_is_wanted() -> None:
    wanted = torch.tensor([[1, 2, 0.5, NAN], [0, 1, 0.5, NAN], [1, NAN, 0.5, NAN], [NAN, 0, 0.5, NAN]])
    predicted = torch.tensor([[1, 2, 0.5, 1], [1, 0, 0.5, 1], [1, 0, 0.5, 0], [1, NAN, 0.5, 0]])
    accuracy = attribute_accuracy(SCHEMA, predicted, wanted)
    assert list(accuracy) == ["glasses", "hair", "hat"]  # equality of continuous labels means nothing
    assert accuracy["glasses"] == (2 / 3, 3)
    assert accuracy["hair"] == (1 / 3, 3)  # a detail that is not there is not the wanted one
    assert math.isnan(accuracy["hat"][0]) and accuracy["hat"][1] == 0


def test_joint_accuracy_is_of_the_binary_attributes_for_which_something_is_wanted() -> None:
    wanted = torch.tensor([[1, 0, 0.5, 1], [1, 0, 0.5, 1], [0, 0, 0.5, NAN], [0, 0, 0.5, NAN], [NAN, 0, 0.5, NAN]])
    predicted = torch.tensor([[1, 1, 0.1, 1], [1, 0, 0.5, 0], [0, 0, 0.5, 1], [1, 0, 0.5, 1], [1, 0, 0.5, 1]])
    assert joint_accuracy(SCHEMA, predicted, wanted) == (2 / 4, 4)
    share, n = joint_accuracy(SCHEMA, predicted[4:], wanted[4:])
    assert math.isnan(share) and n == 0


def test_right_labels_have_a_column_per_attribute_and_one_for_all() -> None:
    wanted = torch.tensor([[1, 2, 0.5, NAN], [0, 1, 0.5, 1]])
    right, counts = right_labels(SCHEMA, torch.tensor([[1, 2, 0.5, 1], [0, 0, 0.5, 0]]), wanted)
    assert right.tolist() == [[True, True, False, True], [True, False, False, False]]
    assert counts.tolist() == [[True, True, False, True], [True, True, True, True]]


def test_labels_of_another_shape_are_refused() -> None:
    labels = torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"`predicted` must be \(3, 4\).*got \(2, 4\)"):
        attribute_accuracy(SCHEMA, labels[:2], labels)
    with pytest.raises(ValueError, match=r"`wanted` must be \(3, 4\).*got \(3, 3\)"):
        attribute_accuracy(SCHEMA, labels, labels[:, :3])


def test_proportion_and_its_standard_error() -> None:
    assert proportion(torch.tensor([True, False, True, True])) == pytest.approx((0.75, math.sqrt(0.75 * 0.25 / 4)))
    assert proportion(torch.ones(9, dtype=torch.bool)) == (1.0, 0.0)


def test_the_standard_error_is_the_deviation_of_repetitions() -> None:
    draws = torch.rand(4000, 150, generator=torch.Generator().manual_seed(0)) < 0.3
    shares, errors = zip(*(proportion(hits) for hits in draws), strict=True)
    assert torch.tensor(shares).std() == pytest.approx(float(torch.tensor(errors).mean()), rel=0.05)


def test_what_is_no_batch_of_truth_values_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`hits` must be bool, got torch\.float32"):
        proportion(torch.ones(3))
    with pytest.raises(ValueError, match=r"`hits` must be \(N,\) with N >= 1, got shape \(0,\)"):
        proportion(torch.ones(0, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got shape \(2, 2\)"):
        proportion(torch.ones(2, 2, dtype=torch.bool))
