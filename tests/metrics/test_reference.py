"""Reweighted references: marginals are met exactly, with the least change."""

import pytest
import torch
from torch import Tensor

from lcg.metrics import effective_sample_size, marginal_weights, marginals
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("hair", "categorical", ("blond", "red")),
        Attribute("beard"),
        Attribute("hat"),
        Attribute("age", "continuous"),
    )
)
NAN = float("nan")


def coins(n: int, *probabilities: float, seed: int = 0) -> Tensor:
    """(n, 5) labels with glasses, beard and hat drawn independently, hair and age of no consequence."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(n, 5, generator=generator)
    for column, probability in zip((0, 2, 3), probabilities, strict=True):
        labels[:, column] = (labels[:, column] < probability).float()
    labels[:, 1] = (labels[:, 1] < 0.5).float()
    return labels


def weighted(labels: Tensor, weights: Tensor) -> dict[str, float]:
    return {name: float(weights @ labels[:, SCHEMA.index(name)].double()) for name in ("glasses", "beard", "hat")}


def test_marginals_are_met() -> None:
    labels = coins(500, 0.5, 0.4, 0.3)
    labels[:, 3] = torch.maximum(labels[:, 3], labels[:, 2] * labels[:, 0])  # dependent attributes need several sweeps
    target = {"glasses": 0.8, "beard": 0.15, "hat": 0.6}
    weights = marginal_weights(labels, SCHEMA, target, fixed=())
    assert weighted(labels, weights) == pytest.approx(target, abs=1e-9)
    assert weights.dtype == torch.float64 and (weights >= 0).all()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)


def test_one_attribute_has_the_closed_form() -> None:
    labels = coins(200, 0.5, 0.5, 0.5)
    held = labels[:, 0] == 1
    weights = marginal_weights(labels, SCHEMA, {"glasses": 0.9}, fixed=())
    expected = torch.where(held, 0.9 / held.sum(), 0.1 / (~held).sum()).double()
    torch.testing.assert_close(weights, expected, rtol=1e-6, atol=0)


def test_odds_ratios_stay() -> None:
    """What makes the fit the nearest one: only marginals change, the dependence between attributes does not."""
    labels = coins(2000, 0.5, 0.5, 0.5)
    labels[:, 2] = torch.where(torch.arange(2000) % 3 == 0, labels[:, 0], labels[:, 2])
    weights = marginal_weights(labels, SCHEMA, {"glasses": 0.7, "beard": 0.2}, fixed=())

    def odds_ratio(w: Tensor) -> float:
        p = {(a, b): w[(labels[:, 0] == a) & (labels[:, 2] == b)].sum() for a in (0, 1) for b in (0, 1)}
        return float(p[1, 1] * p[0, 0] / (p[1, 0] * p[0, 1]))

    assert odds_ratio(weights) == pytest.approx(odds_ratio(torch.ones(2000).double()), rel=1e-9)


def test_fixed_and_constant_attributes_are_left() -> None:
    labels = coins(300, 1.0, 0.5, 0.5)  # all have glasses, as the formula asked
    target = {"glasses": 0.2, "beard": 0.3, "hat": 0.9}
    constant = marginal_weights(labels, SCHEMA, target, fixed=())
    assert weighted(labels, constant) == pytest.approx({"glasses": 1.0, "beard": 0.3, "hat": 0.9}, abs=1e-9)
    fixed = marginal_weights(labels, SCHEMA, target, fixed=("hat",))
    assert weighted(labels, fixed)["beard"] == pytest.approx(0.3, abs=1e-9)
    alone = marginal_weights(labels, SCHEMA, {"beard": 0.3}, fixed=())
    torch.testing.assert_close(fixed, alone, rtol=0, atol=1e-15)


def test_marginals_that_are_met_already_change_nothing() -> None:
    labels = coins(300, 0.5, 0.4, 0.3)
    weights = marginal_weights(labels, SCHEMA, marginals(labels, SCHEMA), fixed=())
    torch.testing.assert_close(weights, torch.full((300,), 1 / 300, dtype=torch.float64), rtol=1e-9, atol=0)
    assert torch.equal(marginal_weights(labels, SCHEMA, {}, fixed=()), torch.full((300,), 1 / 300, dtype=torch.float64))


def test_a_target_of_zero_or_one_removes_rows() -> None:
    labels = coins(300, 0.5, 0.4, 0.3)
    weights = marginal_weights(labels, SCHEMA, {"glasses": 1.0, "beard": 0.0}, fixed=())
    assert torch.equal(weights > 0, (labels[:, 0] == 1) & (labels[:, 2] == 0))
    assert weighted(labels, weights)["glasses"] == pytest.approx(1, abs=1e-12)


def test_a_world_that_excludes_a_pair() -> None:
    """Long hair and hats exclude each other in the avatar world; their marginals can be had while they leave room."""
    labels = coins(600, 0.5, 0.5, 0.5)
    labels[:, 3] *= 1 - labels[:, 2]
    weights = marginal_weights(labels, SCHEMA, {"beard": 0.35, "hat": 0.35}, fixed=())
    assert weighted(labels, weights)["hat"] == pytest.approx(0.35, abs=1e-9)
    with pytest.raises(ValueError, match=r"cannot be met together by these rows.*draw reference images of more kinds"):
        marginal_weights(labels, SCHEMA, {"beard": 0.7, "hat": 0.7}, fixed=())


def test_targets_that_leave_no_row_are_refused() -> None:
    labels = coins(100, 0.5, 0.5, 0.5)
    labels[:, 3] = labels[:, 2]
    with pytest.raises(ValueError, match="cannot be met together"):
        marginal_weights(labels, SCHEMA, {"beard": 1.0, "hat": 0.0}, fixed=())


def test_wrong_arguments_are_refused() -> None:
    labels = coins(50, 0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match=r"`labels` must be \(N, 5\), a column per attribute, got \(50, 4\)"):
        marginal_weights(labels[:, :4], SCHEMA, {}, fixed=())
    with pytest.raises(ValueError, match="must have at least one row, got none"):
        marginal_weights(labels[:0], SCHEMA, {}, fixed=())
    with pytest.raises(ValueError, match="unknown attribute 'glases'; did you mean 'glasses'"):
        marginal_weights(labels, SCHEMA, {"glases": 0.5}, fixed=())
    with pytest.raises(ValueError, match="unknown attribute 'beart'; did you mean 'beard'"):
        marginal_weights(labels, SCHEMA, {}, fixed=("beart",))
    with pytest.raises(ValueError, match="`target` must name binary attributes, got 'hair', which is categorical"):
        marginal_weights(labels, SCHEMA, {"hair": 0.5}, fixed=())
    for share in (-0.1, 1.1, NAN):
        with pytest.raises(ValueError, match=r"`target` of 'hat' must be in \[0, 1\], got"):
            marginal_weights(labels, SCHEMA, {"hat": share}, fixed=())
    labels[3, 3] = NAN
    with pytest.raises(ValueError, match="`labels` of 'hat' must be known to weigh rows by it, got 1 missing"):
        marginal_weights(labels, SCHEMA, {"hat": 0.5}, fixed=())
    marginal_weights(labels, SCHEMA, {"hat": 0.5}, fixed=("hat",))


# --- shares and sizes ---


def test_marginals_count_known_labels_of_binary_attributes() -> None:
    labels = torch.tensor([[1, 0, NAN, 1, 0.3], [0, 1, NAN, NAN, 0.4], [0, 1, NAN, 0, 0.5], [0, 1, NAN, 1, 0.6]])
    found = marginals(labels, SCHEMA)
    assert list(found) == ["glasses", "beard", "hat"]
    assert found == pytest.approx({"glasses": 1 / 4, "beard": NAN, "hat": 2 / 3}, nan_ok=True)
    with pytest.raises(ValueError, match=r"`labels` must be \(N, 5\)"):
        marginals(labels[0], SCHEMA)


@pytest.mark.parametrize(
    ("weights", "size"),
    [([1.0] * 7, 7), ([0.5, 0.5, 0.0], 2), ([3.0], 1), ([1e-200, 1e-200], 2), ([2.0, 1.0], 9 / 5)],
)
def test_effective_sample_size(weights: list[float], size: float) -> None:
    assert effective_sample_size(torch.tensor(weights, dtype=torch.float64)) == pytest.approx(size, rel=1e-12)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -0.5], [NAN, 1.0], [float("inf")]])
def test_weights_without_a_size_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="`weights` must be >= 0 with a positive finite sum"):
        effective_sample_size(torch.tensor(weights))
