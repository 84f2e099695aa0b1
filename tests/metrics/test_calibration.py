"""Calibration error by its definition, and that honest probabilities have none."""

import pytest
import torch
from torch import Tensor

from lcg.metrics.calibration import (
    BINS,
    BandedCalibration,
    bin_of,
    expected_by_chance,
    expected_calibration_error,
    top_label,
)
from lcg.nets.heads import HeadOutputs, JointOutputs
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("hat"), Attribute("age", "continuous"), Attribute("hair", "categorical", ("a", "b", "c"))))
NAN = float("nan")


def outputs(n: int, seed: int = 0) -> HeadOutputs:
    draw = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) * 2
    return {"hat": draw[:, 0], "age": draw[:, 1:3], "hair": draw[:, 3:]}


def drawn_from(heads: HeadOutputs, seed: int = 1) -> Tensor:
    """Labels drawn from the heads' own probabilities."""
    u = torch.rand(len(heads["hat"]), 2, generator=torch.Generator().manual_seed(seed))
    hat = (u[:, 0] < heads["hat"].sigmoid()).float()
    hair = (u[:, 1:] > heads["hair"].softmax(-1).cumsum(-1)[:, :2]).sum(-1).float()
    return torch.stack((hat, torch.zeros_like(hat), hair), dim=1)


def test_the_error_is_its_definition() -> None:
    """Two bins: 8 predictions at confidence .9, half of them right; 2 at .6, both right."""
    count, confidence, correct = torch.tensor([8.0, 2.0]), torch.tensor([7.2, 1.2]), torch.tensor([4.0, 2.0])
    expected = 0.8 * abs(0.5 - 0.9) + 0.2 * abs(1.0 - 0.6)
    assert float(expected_calibration_error(count, confidence, correct)) == pytest.approx(expected)
    stacked = expected_calibration_error(*(torch.stack((x, 0 * x)) for x in (count, confidence, correct)))
    assert stacked[0] == pytest.approx(expected) and stacked[1].isnan()


def test_honest_probabilities_are_calibrated_and_exaggerated_ones_are_not() -> None:
    heads = outputs(40_000)
    labels = drawn_from(heads)
    metric = BandedCalibration(SCHEMA, bands=2)
    metric.update(heads, labels, 0)
    metric.update({name: 3 * output for name, output in heads.items()}, labels, 1)
    ece = metric.compute()["ece"]
    assert ece.shape == (2, 2)
    assert ece[:, 0].max() < 0.012 and ece[:, 1].min() > 0.08


def test_accuracy_is_the_share_of_right_predictions() -> None:
    heads = outputs(500)
    labels = drawn_from(heads)
    metric = BandedCalibration(SCHEMA, bands=1)
    metric.update(heads, labels, 0)
    accuracy = metric.compute()["accuracy"][:, 0]
    assert accuracy[0] == pytest.approx(float(((heads["hat"] > 0) == (labels[:, 0] == 1)).double().mean()))
    assert accuracy[1] == pytest.approx(float((heads["hair"].argmax(-1) == labels[:, 2]).double().mean()))


def test_missing_labels_are_not_counted() -> None:
    heads = outputs(100)
    labels = drawn_from(heads)
    some = labels.clone()
    some[60:, 0], some[:, 2] = NAN, NAN
    metric = BandedCalibration(SCHEMA, bands=1)
    metric.update(heads, some, 0)
    first = BandedCalibration(SCHEMA, bands=1)
    first.update({name: output[:60] for name, output in heads.items()}, labels[:60], 0)
    assert torch.equal(metric.compute()["ece"][0], first.compute()["ece"][0])
    assert metric.count[0].sum() == 60
    assert metric.compute()["accuracy"][1].isnan().all()


def test_bands_and_batches_add_up() -> None:
    heads = outputs(100)
    labels = drawn_from(heads)
    whole, parts = (BandedCalibration(SCHEMA, bands=3) for _ in range(2))
    whole.update(heads, labels, 1)
    for rows in (slice(0, 30), slice(30, 100)):
        parts.update({name: output[rows] for name, output in heads.items()}, labels[rows], 1)
    for name in ("accuracy", "ece"):
        torch.testing.assert_close(parts.compute()[name], whole.compute()[name], rtol=1e-12, atol=0, equal_nan=True)
    assert whole.compute()["ece"][:, [0, 2]].isnan().all()  # nothing was counted there
    whole.reset()
    assert whole.count.sum() == 0


def test_certainty_falls_into_the_last_bin() -> None:
    metric = BandedCalibration(SCHEMA, bands=1, bins=4)
    heads = {
        "hat": torch.tensor([1e4, -1e4]),
        "age": torch.zeros(2, 2),
        "hair": torch.tensor([[1e4, 0, 0], [0, 0, 0.0]]),
    }
    metric.update(heads, torch.tensor([[1, 0, 0], [0, 0, 0.0]]), 0)
    assert metric.count[:, 0].tolist() == [[0, 0, 0, 2], [0, 1, 0, 1]]
    assert metric.compute()["ece"][0] == 0


def test_chance_alone_gives_honest_probabilities_their_error() -> None:
    """Of many small samples of an honest classifier, the mean ECE is what is expected by chance."""
    g = torch.Generator().manual_seed(0)
    probability = torch.rand(400, 300, generator=g)
    right = (torch.rand(400, 300, generator=g) < probability).double()
    bins = bin_of(probability)
    count, confidence, correct = (
        torch.zeros(400, BINS, dtype=torch.float64).scatter_add_(1, bins, x)
        for x in (torch.ones_like(right), probability.double(), right)
    )
    error = expected_calibration_error(count, confidence, correct).mean()
    assert float(expected_by_chance(count, confidence).mean()) == pytest.approx(float(error), rel=0.03)
    assert expected_by_chance(0 * count[:1], 0 * count[:1]).isnan()


def test_the_top_label_is_the_likelier_value_with_its_probability() -> None:
    hat, _, hair = SCHEMA
    confidence, correct = top_label(hat, torch.tensor([0.0, 2.0, -3.0]), torch.tensor([0.0, 1.0, 1.0]))
    expected = torch.tensor([0.5, torch.tensor(2.0).sigmoid(), torch.tensor(3.0).sigmoid()])
    assert (confidence - expected).abs().max() < 1e-6 and correct.tolist() == [True, True, False]
    logits = torch.tensor([[1.0, 3.0, 0.0]])
    confidence, correct = top_label(hair, logits, torch.tensor([1.0]))
    assert confidence[0] == pytest.approx(float(logits.softmax(-1)[0, 1])) and correct.all()


def test_a_joint_classifier_is_measured_by_its_heads_of_single_attributes() -> None:
    heads = outputs(50)
    labels = drawn_from(heads)
    mixture = {"hat": torch.zeros(50, 2), "age": torch.zeros(50, 2, 2), "hair": torch.zeros(50, 2, 3)}
    joint, plain = BandedCalibration(SCHEMA, bands=1), BandedCalibration(SCHEMA, bands=1)
    joint.update(JointOutputs(torch.zeros(50, 2).log_softmax(1), mixture, heads), labels, 0)
    plain.update(heads, labels, 0)
    assert torch.equal(joint.compute()["ece"], plain.compute()["ece"])
