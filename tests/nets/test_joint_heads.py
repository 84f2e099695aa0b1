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
    independent,
    joint_log_likelihood,
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

    heads = {"hat": normal(), "hair": normal(3), "beard": normal()}
    return JointOutputs(normal().log_softmax(1), heads, {name: normal(*h.shape[2:])[:, 0] for name, h in heads.items()})


def one(outputs: JointOutputs, row: int) -> JointOutputs:
    """One row of a batch, repeated for every possible row of labels."""

    def repeated(x: Tensor) -> Tensor:
        return x[row : row + 1].expand(len(ROWS), *x.shape[1:])

    heads, single = ({n: repeated(h) for n, h in part.items()} for part in (outputs.heads, outputs.single))
    return JointOutputs(repeated(outputs.log_weights), heads, single)


def test_probabilities_of_all_label_rows_sum_to_one() -> None:
    outputs = joint()
    for row in range(5):
        assert joint_log_likelihood(DISCRETE, one(outputs, row), ROWS).logsumexp(0).abs() < 1e-12


@pytest.mark.parametrize("column", range(3))
def test_a_missing_label_is_the_sum_over_its_values(column: int) -> None:
    outputs = joint()
    log_p = torch.stack([joint_log_likelihood(DISCRETE, one(outputs, row), ROWS) for row in range(5)])
    for value in ROWS[:, column].unique():
        summed = log_p[:, ROWS[:, column] == value].logsumexp(1)
        labels = torch.full((5, 3), math.nan, dtype=torch.float64)
        labels[:, column] = value
        assert (joint_log_likelihood(DISCRETE, outputs, labels) - summed).abs().max() < 1e-12


def test_a_row_without_labels_says_nothing() -> None:
    outputs = joint()
    labels = torch.full((5, 3), math.nan, dtype=torch.float64)
    assert joint_log_likelihood(DISCRETE, outputs, labels).abs().max() < 1e-15
    assert mean_negative_log_likelihood(DISCRETE, outputs, labels).abs() < 1e-15


def test_one_component_is_independence() -> None:
    outputs, labels = joint(components=1), ROWS[[1, 4, 7, 9, 11]]
    plain = {name: head[:, 0] for name, head in outputs.heads.items()}
    ours, theirs = (joint_log_likelihood(DISCRETE, o, labels) for o in (outputs, plain))
    assert (ours - theirs).abs().max() < 1e-12
    assert independent(plain) is plain
    assert independent(outputs) is outputs.single


def test_densities_of_a_continuous_attribute_integrate_to_one() -> None:
    schema = Schema((Attribute("age", "continuous"),))
    g = torch.Generator().manual_seed(0)
    head = torch.randn(1, 3, 2, generator=g, dtype=torch.float64)
    log_weights = torch.randn(1, 3, generator=g, dtype=torch.float64).log_softmax(1)
    y = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    outputs = JointOutputs(log_weights.expand(len(y), 3), {"age": head.expand(len(y), 3, 2)}, {})
    p = joint_log_likelihood(schema, outputs, y[:, None]).exp()
    assert torch.trapezoid(p, y).item() == pytest.approx(1, abs=1e-9)
    mean = (log_weights.exp() * head[..., 0]).sum().item()
    assert torch.trapezoid(p * y, y).item() == pytest.approx(mean, abs=1e-9)


def test_the_loss_is_the_mean_of_the_mixtures_and_of_the_single_heads() -> None:
    outputs, labels = joint(), ROWS[[1, 4, 7, 9, 11]].clone()
    labels[2, 1] = math.nan
    both = joint_log_likelihood(DISCRETE, outputs, labels) + joint_log_likelihood(DISCRETE, outputs.single, labels)
    loss = mean_negative_log_likelihood(DISCRETE, outputs, labels)
    assert loss.item() == pytest.approx(-both.sum().item() / 2 / 14, rel=1e-12)


def test_labels_are_predicted_one_by_one() -> None:
    outputs = joint()
    assert torch.equal(predict_labels(DISCRETE, outputs), predict_labels(DISCRETE, outputs.single))


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
    assert [name for name, _ in tensors(outputs)] == ["joint", "hat", "hair", "beard", "hat", "hair", "beard"]


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
    assert outputs.log_weights.logsumexp(1).abs().max() < 1e-12
    assert {name: tuple(head.shape) for name, head in outputs.single.items()} == {
        "hat": (6,),
        "hair": (6, 3),
        "age": (6, 2),
        "beard": (6,),
    }


def test_its_components_can_come_apart(schema: Schema) -> None:
    """Components that start equal have equal gradients and stay equal for ever."""
    torch.manual_seed(0)
    classifier = TimeConditionedClassifier((4,), schema, width=8, depth=2, components=3)
    outputs = classifier(latents().float(), torch.rand(6))
    labels = torch.tensor([[1.0, 2, 0.3, 0]]).expand(6, 4)
    mean_negative_log_likelihood(schema, outputs, labels).backward()
    assert classifier.net.output.bias.grad is not None
    slope = classifier.net.output.bias.grad[-21:].unflatten(0, (3, 7))
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
    assert (after.single["hat"] - before.single["hat"] / T).abs().max() < 1e-12
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


@pytest.mark.parametrize("components", [1, 3])
def test_a_part_of_a_classifier_gives_the_same_for_its_attributes(schema: Schema, components: int) -> None:
    whole, z, t = net(schema, components), latents(), torch.rand(6, dtype=torch.float64)
    whole.log_temperature.copy_(torch.linspace(-1, 1, LEVELS))
    part = whole.restricted(("age", "hair"))
    assert part.schema.names == ("hair", "age") and not part.training and part.net.blocks is whole.net.blocks
    expected, found = whole(z, t), part(z, t)
    for name in ("hair", "age"):
        assert (independent(found)[name] - independent(expected)[name]).abs().max() < 1e-12
    if isinstance(found, JointOutputs) and isinstance(expected, JointOutputs):
        assert (found.log_weights - expected.log_weights).abs().max() < 1e-12
        assert all((found.heads[name] - expected.heads[name]).abs().max() < 1e-12 for name in ("hair", "age"))
    with pytest.raises(ValueError, match="unknown attribute 'hiar'; did you mean 'hair'"):
        whole.restricted(("hiar",))
