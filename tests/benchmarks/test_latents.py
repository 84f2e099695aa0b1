"""Latents whose layout is known: an attribute a coordinate, all of them turned, none at all."""

import math

import pytest
import torch
from torch import Tensor

from lcg.benchmarks import latents
from lcg.benchmarks.latents import disentanglement_figures
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("hat"),
        Attribute("age", "continuous"),
        Attribute("hair", "categorical", ("a", "b", "c")),
        Attribute("smile"),
    )
)
DISCRETE = ("hat", "hair", "smile")


def world(n: int = 1500, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Independent attributes, and latents that are each one of them with a little noise."""
    rng = torch.Generator().manual_seed(seed)
    hat, smile = (torch.randint(2, (n,), generator=rng).float() for _ in range(2))
    hair = torch.randint(3, (n,), generator=rng).float()
    labels = torch.stack((hat, torch.randn(n, generator=rng), hair, smile), dim=1)
    z_0 = torch.stack((2 * hat - 1, hair - 1, 2 * smile - 1), dim=1)
    return z_0 + 0.15 * torch.randn(n, 3, generator=rng), labels


def measured(z_0: Tensor, labels: Tensor, schema: Schema = SCHEMA, seed: int = 0) -> dict[str, float]:
    return {figure.metric: figure.value for figure in disentanglement_figures(z_0, labels, schema, seed)}


def test_an_attribute_a_coordinate_is_all_one() -> None:
    found = measured(*world())
    assert found["modularity"] > 0.95 and found["compactness"] > 0.95 and found["explicitness"] > 0.95
    for metric in ("explicitness", "information"):
        assert [name for name in found if name.startswith(f"{metric}/")] == [f"{metric}/{a}" for a in DISCRETE]
    assert sum(found[f"explicitness/{name}"] for name in DISCRETE) / 3 == pytest.approx(found["explicitness"])
    assert all(found[f"information/{name}"] == pytest.approx(1, abs=0.05) for name in DISCRETE)


def test_turned_latents_are_as_explicit_and_not_modular() -> None:
    z_0, labels = world()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3)))[0]
    straight, turned = measured(z_0, labels), measured(z_0 @ turn, labels)
    assert turned["modularity"] < 0.6 and turned["compactness"] < 0.6
    assert turned["explicitness"] == pytest.approx(straight["explicitness"], abs=1e-3)


def test_latents_that_know_nothing_explain_what_shuffled_labels_do() -> None:
    """A logistic regression gains 1/2 nat per row and parameter by chance (Wilks 1938), here of log 2."""
    _, labels = world(2000)
    z_0 = torch.randn(2000, 40, generator=torch.Generator().manual_seed(9))
    schema = Schema((Attribute("hat"), Attribute("smile")))
    found = measured(z_0, labels[:, [0, 3]], schema)
    expected = 40 / (2 * 2000) / math.log(2)
    assert found["explicitness_chance"] == pytest.approx(expected, rel=0.35)
    assert found["explicitness"] == pytest.approx(expected, rel=0.35)


def test_unknown_labels_constants_and_continuous_attributes_are_left_out() -> None:
    z_0, labels = world()
    whole = {figure.metric: figure.n for figure in disentanglement_figures(z_0, labels, SCHEMA)}
    assert whole["explicitness"] == whole["explicitness/hat"] == 1500
    labels[:500, 0], labels[:, 3] = torch.nan, 1
    found = {figure.metric: figure for figure in disentanglement_figures(z_0, labels, SCHEMA)}
    assert found["explicitness/hat"].n == 1000 and "explicitness/smile" not in found
    assert found["explicitness/hat"].value > 0.95
    labels[:, 2] = torch.nan
    one = measured(z_0, labels)  # of one attribute there is no modularity
    assert "modularity" not in one and one["compactness"] > 0.9
    assert "compactness" not in measured(z_0[:, :1], labels)
    assert all(math.isfinite(value) for value in one.values())


def test_shape_seed_and_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    z_0, labels = world(700)
    assert measured(z_0, labels) == measured(z_0[:, None, :, None], labels)  # deterministic, and flattened
    monkeypatch.setattr(latents, "ROWS", 300)
    figures = list(disentanglement_figures(z_0, labels, SCHEMA))
    assert {figure.n for figure in figures} == {300}
    assert measured(z_0, labels, seed=1) != measured(z_0, labels, seed=0)
    assert measured(z_0, labels)["modularity"] > 0.9


def test_what_cannot_be_measured_is_refused() -> None:
    z_0, labels = world(20)
    with pytest.raises(
        ValueError, match=r"`labels` must be \(20, 4\), a row per latent .* got \(20, 3\); take those of"
    ):
        measured(z_0, labels[:, :3])
    with pytest.raises(
        ValueError, match=r"must know a binary or categorical attribute with two values.*leave\s+the task"
    ):
        measured(z_0, labels * torch.nan)
