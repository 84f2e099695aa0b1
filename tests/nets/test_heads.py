"""Heads are distributions: they sum to one, are exact far out, and say nothing where a label is missing."""

import math

import pytest
import torch
from torch import Tensor

from lcg.nets.heads import (
    expected_log_likelihood,
    known_outputs,
    log_likelihood,
    log_likelihoods,
    mean_negative_log_likelihood,
    predict_labels,
    split_outputs,
)
from lcg.schema import Attribute, Schema

NAN = math.nan
BINARY, CONTINUOUS = Attribute("hat"), Attribute("age", "continuous")
CATEGORICAL = Attribute("hair", "categorical", ("blond", "red", "black"))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_outputs_are_cut_in_schema_order(schema: Schema) -> None:
    flat = torch.arange(14.0).reshape(2, 7)
    outputs = split_outputs(schema, flat)
    assert list(outputs) == list(schema.names)
    assert outputs["hat"].tolist() == [0, 7]
    assert outputs["hair"].tolist() == [[1, 2, 3], [8, 9, 10]]
    assert outputs["age"].tolist() == [[4, 5], [11, 12]]
    assert outputs["beard"].tolist() == [6, 13]


def test_probabilities_sum_to_one() -> None:
    for attribute, output in ((BINARY, 5 * normal(20)), (CATEGORICAL, 5 * normal(20, 3))):
        values = range(len(attribute.values) or 2)
        log_p = torch.stack([log_likelihood(attribute, output, torch.full((20,), float(y)).double()) for y in values])
        torch.testing.assert_close(log_p.exp().sum(0), torch.ones(20).double(), rtol=1e-12, atol=0)


def test_the_density_integrates_to_one() -> None:
    y = torch.linspace(-20, 20, 20_001, dtype=torch.float64)
    output = torch.tensor([0.7, math.log(2.5)], dtype=torch.float64).expand(len(y), 2)
    p = log_likelihood(CONTINUOUS, output, y).exp()
    assert torch.trapezoid(p, y).item() == pytest.approx(1, abs=1e-10)
    assert torch.trapezoid(p * y, y).item() == pytest.approx(0.7, abs=1e-10)
    assert torch.trapezoid(p * (y - 0.7) ** 2, y).item() == pytest.approx(2.5, abs=1e-9)


def test_far_out_it_is_still_exact() -> None:
    u = torch.tensor([1e4, 90.0, -90.0, -1e4])
    assert log_likelihood(BINARY, u, torch.ones(4)).tolist() == pytest.approx([0.0, 0.0, -90.0, -1e4], abs=1e-30)
    assert log_likelihood(BINARY, u, torch.zeros(4)).tolist() == pytest.approx([-1e4, -90.0, 0.0, 0.0], abs=1e-30)
    logits = torch.tensor([[1e4, 0.0, 0.0]])
    assert log_likelihood(CATEGORICAL, logits, torch.tensor([2.0])).item() == -1e4


def test_half_precision_outputs_are_computed_in_single() -> None:
    output = torch.tensor([3.0, -20.0], dtype=torch.bfloat16)
    found = log_likelihood(BINARY, output, torch.ones(2))
    assert found.dtype == torch.float32
    assert torch.equal(found, log_likelihood(BINARY, output.float(), torch.ones(2)))


@pytest.mark.parametrize(
    ("attribute", "output"),
    [
        (BINARY, [0.3, -1e30]),
        (CATEGORICAL, [[0.1, 0.2, 0.3], [1e30, -1e30, 0.0]]),
        (CONTINUOUS, [[0.1, 0.2], [5.0, -1e3]]),
    ],
    ids=["binary", "categorical", "continuous"],
)
def test_a_missing_label_has_no_likelihood_and_no_gradient(attribute: Attribute, output: list) -> None:
    """Whatever the head says there: a variance that underflows must not reach the weights as NaN."""
    leaf = torch.tensor(output, requires_grad=True)
    log_p = log_likelihood(attribute, leaf, torch.tensor([1.0, NAN]))
    assert log_p[0] != 0 and log_p[1] == 0
    log_p.sum().backward()
    assert leaf.grad is not None and leaf.grad[0].abs().max() > 0
    assert torch.equal(leaf.grad[1], torch.zeros_like(leaf.grad[1]))


def test_columns_are_the_attributes(schema: Schema) -> None:
    outputs = split_outputs(schema, normal(9, 7))
    labels = torch.tensor([[1, 2, 0.5, NAN], [NAN, NAN, NAN, 0], [0, 0, -3, 1]], dtype=torch.float64).repeat(3, 1)
    found = log_likelihoods(schema, outputs, labels)
    for column, attribute in enumerate(schema):
        alone = log_likelihood(attribute, outputs[attribute.name], labels[:, column])
        assert torch.equal(found[:, column], alone)
    assert torch.equal(found == 0, labels.isnan())


def test_predicted_labels_are_the_most_probable(schema: Schema) -> None:
    """A detail that does not apply by the predicted attributes is missing: who has a hat has no hair colour."""
    outputs = {
        "hat": torch.tensor([2.0, -2.0, 0.0]),
        "hair": torch.tensor([[0.0, 1.0, 2.0], [0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]),
        "age": torch.tensor([[0.3, 5.0], [-0.4, 0.0], [0.5, 1.0]]),
        "beard": torch.tensor([-1e-6, 1e-6, -1.0]),
    }
    expected = torch.tensor([[1, NAN, 0.3, 0], [0, 1, -0.4, 1], [0, 0, 0.5, 0]])
    assert torch.equal(predict_labels(schema, outputs).nan_to_num(-9), expected.nan_to_num(-9))


def test_predicted_labels_maximise_the_likelihood(schema: Schema) -> None:
    outputs = split_outputs(schema, normal(50, 7).float())
    predicted = predict_labels(schema, outputs)
    best = log_likelihoods(schema, outputs, predicted)
    for seed in range(5):
        other = torch.stack([torch.randint(high, (50,)).float() for high in (2, 3, 5, 2)], dim=1)
        other = torch.where(predicted.isnan(), NAN, other + (torch.arange(4) == 2) * 0.1 * seed)
        assert (log_likelihoods(schema, outputs, other) <= best).all()


def test_the_loss_averages_over_known_labels_only() -> None:
    schema = Schema((Attribute("a"), Attribute("b", "categorical", ("x", "y", "z"))))
    outputs = {"a": torch.tensor([0.3, -2.0, 5.0]), "b": torch.randn(3, 3, generator=torch.Generator().manual_seed(0))}
    labels = torch.tensor([[1.0, 2.0], [0.0, torch.nan], [torch.nan, torch.nan]])
    each = log_likelihoods(schema, outputs, labels)
    expected = -(each[0, 0] + each[0, 1] + each[1, 0]) / 3
    torch.testing.assert_close(mean_negative_log_likelihood(schema, outputs, labels), expected)
    assert float(mean_negative_log_likelihood(schema, outputs, torch.full((3, 2), torch.nan))) == 0.0


def test_the_expected_log_likelihood_is_an_expectation() -> None:
    for attribute, output, belief in (
        (BINARY, 3 * normal(20), 2 * normal(20, seed=1)),
        (CATEGORICAL, 3 * normal(20, 3), 2 * normal(20, 3, seed=1)),
    ):
        values = [torch.full((20,), float(y)).double() for y in range(len(attribute.values) or 2)]
        terms = (log_likelihood(attribute, belief, y).exp() * log_likelihood(attribute, output, y) for y in values)
        assert (sum(terms) - expected_log_likelihood(attribute, output, belief)).abs().max() < 1e-12
    output, belief = normal(5, 2), normal(5, 2, seed=1)
    y = torch.linspace(-40, 40, 40_001).double()
    for row in range(5):
        density, log_p = (log_likelihood(CONTINUOUS, head[row].expand(len(y), 2), y) for head in (belief, output))
        expected = torch.trapezoid(density.exp() * log_p, y)
        assert abs(expected - expected_log_likelihood(CONTINUOUS, output[row : row + 1], belief[row : row + 1])) < 1e-6


def test_what_is_known_is_certain_and_the_rest_untouched(schema: Schema) -> None:
    outputs = split_outputs(schema, normal(3, 7))
    labels = torch.full((3, len(schema)), NAN, dtype=torch.float64)
    labels[0] = torch.tensor([1.0, 2.0, 0.7, 0.0])
    certain = known_outputs(schema, outputs, labels)
    assert all(torch.equal(certain[a.name][1:], outputs[a.name][1:]) for a in schema)
    log_p = log_likelihoods(schema, certain, labels)[0]
    assert log_p[[0, 1, 3]].abs().max() < 1e-12 and log_p[2] > 20
