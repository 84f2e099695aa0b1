"""The matrix and the strength as sums, by hand; chunks and ranks are in test_ranks.py."""

import math

import pytest
import torch

from lcg.metrics.side_effect_metric import DisentangledEditStrength, SideEffectMatrix
from lcg.metrics.side_effects import side_effects
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("hat"), Attribute("smile"), Attribute("beard")))
BEFORE = torch.tensor([[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1.0]])
AFTER = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0.0]])


def test_it_is_the_matrix() -> None:
    metric = SideEffectMatrix(SCHEMA, ("hat", "beard"))
    metric.update("hat", BEFORE, AFTER)
    metric.update("beard", BEFORE[:2], AFTER[:2])
    found = metric.compute()
    expected = side_effects(SCHEMA, {"hat": (BEFORE, AFTER), "beard": (BEFORE[:2], AFTER[:2])})
    assert (tuple(found), tuple(found["beard"])) == (expected.edited, expected.attributes)
    for row, edited in enumerate(expected.edited):
        for column, attribute in enumerate(expected.attributes):
            share, n = expected.share[row, column], expected.count[row, column]
            torch.testing.assert_close(found[edited][attribute].value, share, rtol=0, atol=0, equal_nan=True)
            assert found[edited][attribute].n == n
    assert float(found["hat"]["smile"].stderr) == pytest.approx((0.25 * 0.75 / 4) ** 0.5)


def test_an_edit_without_sources_has_a_row_without_shares() -> None:
    metric = SideEffectMatrix(SCHEMA, ("hat", "beard"))
    metric.update("hat", BEFORE, AFTER)
    assert all(share.value.isnan() and share.n == 0 for share in metric.compute()["beard"].values())


def test_rows_that_an_edit_sets_free_altogether_are_rows() -> None:
    metric = SideEffectMatrix(Schema((Attribute("hat"),)), ("hat",))
    metric.update("hat", BEFORE[:, :1], AFTER[:, :1])
    assert int(metric.compute()["hat"]["hat"].n) == 0


def test_strength_is_gain_less_the_largest_or_the_mean_side_effect() -> None:
    for loss, cost in (("max", 0.25), ("mean", 0.25)):
        metric = DisentangledEditStrength(SCHEMA, {"hat": 1, "smile": 0}, loss=loss)  # type: ignore[arg-type]
        metric.update("hat", BEFORE, AFTER)
        metric.update("smile", AFTER, AFTER)
        found = {name: float(value) for name, value in metric.compute().items()}
        assert found == {
            "disentangled_edit_strength": pytest.approx((0.5 - cost) / 2),
            "disentangled_edit_strength/hat": pytest.approx(0.5 - cost),
            "disentangled_edit_strength/smile": 0,
        }
    metric = DisentangledEditStrength(SCHEMA, {"smile": 1}, loss="mean")
    metric.update("smile", BEFORE, AFTER)
    assert float(metric.compute()["disentangled_edit_strength"]) == pytest.approx(0.25 - (0.5 + 0.25) / 2)


def test_an_edit_without_sources_has_no_strength() -> None:
    metric = DisentangledEditStrength(SCHEMA, {"hat": 1, "smile": 0})
    metric.update("hat", BEFORE, AFTER)
    with pytest.raises(ValueError, match="DisentangledEditStrength of 'smile' has taken in no rows to compute from"):
        metric.compute()


def test_edits_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`edited` must be one or more attributes, all different, got \[\]"):
        SideEffectMatrix(SCHEMA, ())
    with pytest.raises(ValueError, match=r"all different, got \['hat', 'hat'\]"):
        SideEffectMatrix(SCHEMA, ("hat", "hat"))
    with pytest.raises(ValueError, match="unknown attribute 'hst'; did you mean 'hat'"):
        SideEffectMatrix(SCHEMA, ("hst",))
    with pytest.raises(ValueError, match=r"unknown edited attribute 'smile'.* this SideEffectMatrix has: hat"):
        SideEffectMatrix(SCHEMA, ("hat",)).update("smile", BEFORE, AFTER)


def test_targets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown loss 'sum'.* DisentangledEditStrength has: max, mean"):
        DisentangledEditStrength(SCHEMA, {"hat": 1}, loss="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`wanted\['hat'\]` must be the label that was asked for, got nan"):
        DisentangledEditStrength(SCHEMA, {"hat": math.nan})
