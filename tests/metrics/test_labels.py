"""Labels that do not fit are refused, by every metric that takes labels, and leave no trace."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lcg.guidance import parse
from lcg.metrics.attribute_metric import AttributeAccuracy
from lcg.metrics.formula_metric import FormulaSatisfaction
from lcg.metrics.labels import check_labels
from lcg.metrics.preservation_metric import Preservation
from lcg.metrics.side_effect_metric import DisentangledEditStrength, SideEffectMatrix
from lcg.metrics.zero_shot import ZeroShotAccuracy
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("hat"), Attribute("hair", "categorical", ("blond", "red"))))
HAT = parse("hat", SCHEMA)
UPDATES: dict[str, tuple[str, Callable[[], Any], Callable[[Any, Tensor], None]]] = {
    "attribute accuracy": (
        "predicted",
        lambda: AttributeAccuracy(SCHEMA),
        lambda m, y: m.update(y, torch.zeros(len(y), 2)),
    ),
    "formula satisfaction": ("labels", lambda: FormulaSatisfaction(SCHEMA, HAT), lambda m, y: m.update(y)),
    "samples": ("labels", lambda: ZeroShotAccuracy(SCHEMA, [HAT]), lambda m, y: m.update(y, asked=HAT)),
    "training rows": ("labels", lambda: ZeroShotAccuracy(SCHEMA, [HAT]), lambda m, y: m.update(y, asked=None)),
    "preservation": ("before", lambda: Preservation(SCHEMA, HAT), lambda m, y: m.update(y, torch.zeros(len(y), 2))),
    "side effects": (
        "after",
        lambda: SideEffectMatrix(SCHEMA, ("hat",)),
        lambda m, y: m.update("hat", torch.zeros(len(y), 2), y),
    ),
    "edit strength": (
        "after",
        lambda: DisentangledEditStrength(SCHEMA, {"hat": 1}),
        lambda m, y: m.update("hat", torch.zeros(len(y), 2), y),
    ),
}


def test_tables_that_fit_pass() -> None:
    check_labels(SCHEMA, before=torch.full((3, 2), torch.nan), after=torch.zeros(3, 2, dtype=torch.float64))
    check_labels(SCHEMA, labels=torch.zeros(0, 2))


def test_tables_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`after` must be \(3, 2\), a row per image.*got \(2, 2\)"):
        check_labels(SCHEMA, before=torch.zeros(3, 2), after=torch.zeros(2, 2))


@pytest.mark.parametrize(("argument", "make", "update"), UPDATES.values(), ids=UPDATES)
def test_metrics_refuse_labels_that_do_not_fit(
    argument: str, make: Callable[[], Any], update: Callable[[Any, Tensor], None]
) -> None:
    metric = make()
    with pytest.raises(
        TypeError, match=f"`{argument}` must be floating point, with NaN where unknown, got torch.int64"
    ):
        update(metric, torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=rf"`{argument}` must be \(3, 2\).*got \(3, 3\)"):
        update(metric, torch.zeros(3, 3))
    with pytest.raises(ValueError, match=rf"`{argument}` must be \(3, 2\).*got \(3,\)"):
        update(metric, torch.zeros(3))
    assert not any(state.any() for state in metric.metric_state.values())
