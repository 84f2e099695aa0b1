"""A joint head is a mixture of products: a distribution over label rows with exact marginals and missing labels."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lcg.nets.classifier import LEVELS, TimeConditionedClassifier
from lcg.nets.heads import (
    JointOutputs,
    in_float,
    joint_log_likelihood,
    log_likelihoods,
    marginals,
    mean_negative_log_likelihood,
    predict_labels,
    tensors,
)
from lcg.schema import Attribute, Schema

DISCRETE = Schema((Attribute("hat"), Attribute("hair", "categorical", ("blond", "red", "black")), Attribute("beard")))
ROWS = torch.tensor(list(itertools.product((0.0, 1.0), (0.0, 1.0, 2.0), (0.0, 1.0))), dtype=torch.float64)


def joint(batch: int = 5, components: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> JointOutputs:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return 2 * torch.randn(batch, components, *shape, generator=g, dtype=torch.float64).to(dtype)

    return JointOutputs(normal().log_softmax(1), {"hat": normal(), "hair": normal(3), "beard": normal()})


def one(outputs: JointOutputs, row: int) -> JointOutputs:
    """One row of a batch, repeated for every possible row of labels."""

    def repeated(x: Tensor) -> Tensor:
        return x[row : row + 1].expand(len(ROWS), *x.shape[1:])

    return JointOutputs(repeated(outputs.log_weights), {n: repeated(h) for n, h in outputs.heads.items()})


def test_probabilities_of_all_label_rows_sum_to_one() -> None:
    outputs = joint()
    for row in range(5):
        assert joint_log_likelihood(DISCRETE, one(outputs, row), ROWS).logsumexp(0).abs() < 1e-12


@pytest.mark.parametrize("column", range(3))
def test_marginals_and_missing_labels_are_the_sum_over_all_others(column: int) -> None:
    outputs = joint()
    log_p = torch.stack([joint_log_likelihood(DISCRETE, one(outputs, row), ROWS) for row in range(5)])
    single = log_likelihoods
    for value in ROWS[:, column].unique():
        summed = log_p[:, ROWS[:, column] == value].logsumexp(1)
        labels = torch.full((5, 3), math.nan, dtype=torch.float64)
        labels[:, column] = value
        assert (joint_log_likelihood(DISCRETE, outputs, labels) - summed).abs().max() < 1e-12
        assert (single(DISCRETE, marginals(DISCRETE, outputs), labels).sum(1) - summed).abs().max() < 1e-12


def test_a_row_without_labels_says_nothing() -> None:
    outputs = joint()
    labels = torch.full((5, 3), math.nan, dtype=torch.float64)
    assert joint_log_likelihood(DISCRETE, outputs, labels).abs().max() < 1e-15
    assert mean_negative_log_likelihood(DISCRETE, outputs, labels).abs() < 1e-15


def test_one_component_is_independence() -> None:
    outputs, labels = joint(components=1), ROWS[[1, 4, 7, 9, 11]]
    plain = {name: head[:, 0] for name, head in outputs.heads.items()}
    assert (
        joint_log_likelihood(DISCRETE, outputs, labels) - joint_log_likelihood(DISCRETE, plain, labels)
    ).abs().max() < 1e-12
    assert marginals(DISCRETE, plain) is plain


def test_continuous_marginals_have_the_mixtures_moments() -> None:
    schema = Schema((Attribute("age", "continuous"),))
    g = torch.Generator().manual_seed(0)
    head = torch.randn(4, 3, 2, generator=g, dtype=torch.float64)
    outputs = JointOutputs(torch.randn(4, 3, generator=g, dtype=torch.float64).log_softmax(1), {"age": head})
    y = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    mean, log_variance = marginals(schema, outputs)["age"].unbind(-1)
    for row in range(4):
        here = JointOutputs(outputs.log_weights[row].expand(len(y), 3), {"age": head[row].expand(len(y), 3, 2)})
        p = joint_log_likelihood(schema, here, y[:, None]).exp()
        assert torch.trapezoid(p, y) == pytest.approx(1, abs=1e-9)
        assert torch.trapezoid(p * y, y) == pytest.approx(float(mean[row]), abs=1e-9)
        assert torch.trapezoid(p * (y - mean[row]) ** 2, y) == pytest.approx(float(log_variance[row].exp()), rel=1e-8)


def test_labels_are_predicted_from_marginals() -> None:
    """Two likely components that say hair=red faintly lose to one that is certain of blond."""
    logits = torch.tensor([[[9.0, 0, 0], [0, 0.1, 0]]], dtype=torch.float64)
    heads = {"hat": torch.zeros(1, 2).double(), "hair": logits, "beard": torch.zeros(1, 2).double()}
    outputs = JointOutputs(torch.tensor([[0.45, 0.55]], dtype=torch.float64).log(), heads)
    assert predict_labels(DISCRETE, outputs)[0, 1] == 0


def test_outputs_far_out_are_finite_in_value_and_slope() -> None:
    outputs = joint(dtype=torch.float32)
    heads = {name: (5e3 * head).detach().requires_grad_() for name, head in outputs.heads.items()}
    value = joint_log_likelihood(DISCRETE, replace(outputs, heads=heads), ROWS[[1, 4, 7, 9, 11]].float())
    assert torch.isfinite(value).all()
    grads = torch.autograd.grad(value.sum(), list(heads.values()))
    assert all(torch.isfinite(grad).all() for grad in grads)


def test_half_precision_is_read_in_float32() -> None:
    outputs = in_float(joint(dtype=torch.bfloat16))
    assert {tensor.dtype for _, tensor in tensors(outputs)} == {torch.float32}
    assert [name for name, _ in tensors(outputs)] == ["joint", "hat", "hair", "beard"]


# --- the network ---


def net(schema: Schema, components: int = 3) -> TimeConditionedClassifier:
    torch.manual_seed(0)
    classifier = TimeConditionedClassifier((4,), schema, width=8, depth=2, components=components).double().eval()
    torch.nn.init.normal_(classifier.net.output.weight)
    return classifier


def latents(n: int = 6) -> Tensor:
    return torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_classifier_of_several_components_is_joint(schema: Schema) -> None:
    outputs = net(schema)(latents(), torch.rand(6, dtype=torch.float64))
    assert isinstance(outputs, JointOutputs)
    assert {name: tuple(head.shape) for name, head in outputs.heads.items()} == {
        "hat": (6, 3),
        "hair": (6, 3, 3),
        "age": (6, 3, 2),
        "beard": (6, 3),
    }
    assert (outputs.log_weights.logsumexp(1)).abs().max() < 1e-12


def test_its_components_can_come_apart(schema: Schema) -> None:
    """Components that start equal have equal gradients and stay equal for ever."""
    torch.manual_seed(0)
    classifier = TimeConditionedClassifier((4,), schema, width=8, depth=2, components=3)
    outputs = classifier(latents().float(), torch.rand(6))
    labels = torch.tensor([[1.0, 2, 0.3, 0]]).expand(6, 4)
    mean_negative_log_likelihood(schema, outputs, labels).backward()
    assert classifier.net.output.bias.grad is not None
    slope = classifier.net.output.bias.grad[:-3].unflatten(0, (3, -1))
    assert (slope[0] - slope[1]).abs().max() > 1e-3


def test_temperature_divides_every_output_between_its_levels(schema: Schema) -> None:
    classifier, z = net(schema), latents()
    t = torch.tensor([0.0, 0.1, 0.2, 0.5, 0.93, 1.0], dtype=torch.float64)
    before = classifier(z, t)
    knots = torch.linspace(-1, 1, LEVELS, dtype=torch.float64).square()  # 1, .36, .04, .04, .36, 1
    classifier.log_temperature.copy_(knots)
    after = classifier(z, t)
    T = torch.tensor([1, 0.5 * (1 + 0.36), 0.36, 0.04, 0.35 * 0.36 + 0.65, 1], dtype=torch.float64).exp()
    assert isinstance(before, JointOutputs) and isinstance(after, JointOutputs)
    assert (after.heads["hat"] - before.heads["hat"] / T[:, None]).abs().max() < 1e-12
    assert (after.heads["hair"] - before.heads["hair"] / T[:, None, None]).abs().max() < 1e-12
    assert (after.heads["age"][..., 0] - before.heads["age"][..., 0]).abs().max() == 0
    assert (after.heads["age"][..., 1] - before.heads["age"][..., 1] - 2 * T.log()[:, None]).abs().max() < 1e-12
    assert (after.log_weights - (before.log_weights / T[:, None]).log_softmax(1)).abs().max() < 1e-12


def test_one_time_for_all_rows_is_read_once_and_alike(schema: Schema) -> None:
    classifier, z = net(schema), latents()
    classifier.log_temperature.copy_(torch.linspace(-1, 1, LEVELS))
    shared = classifier(z, torch.tensor(0.37, dtype=torch.float64).expand(6))
    own = classifier(z, torch.full((6,), 0.37, dtype=torch.float64))
    for (_, a), (_, b) in zip(tensors(shared), tensors(own), strict=True):
        assert (a - b).abs().max() < 1e-12


def test_components_must_be_positive(schema: Schema) -> None:
    with pytest.raises(ValueError, match="`components` must be at least 1, got 0; 1 is independent"):
        TimeConditionedClassifier((4,), schema, components=0)
