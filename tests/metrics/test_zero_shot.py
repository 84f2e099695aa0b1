"""Which formulas are unseen, and their mean."""

import math

import pytest
import torch
from torch import Tensor

from lcg.guidance import parse
from lcg.metrics.estimate import Estimate, estimate_share
from lcg.metrics.zero_shot import ZeroShotAccuracy, zero_shot_accuracy
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("hat"), Attribute("smile")))
BOTH, NEITHER, HAT = (parse(text, SCHEMA) for text in ("hat & smile", "~hat & ~smile", "hat"))


def share(hits: int, n: int) -> Estimate:
    return estimate_share(torch.tensor(hits), torch.tensor(n))


def rows(*pairs: tuple[float, float]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.float32)


def test_every_unseen_formula_counts_alike() -> None:
    accuracy = {"a": share(1, 4), "b": share(75, 100), "c": share(1, 1)}
    found = zero_shot_accuracy(accuracy, {"a": False, "b": False, "c": True})
    assert float(found.value) == pytest.approx(0.5)
    assert float(found.stderr) == pytest.approx(0.5 * math.sqrt(0.25 * 0.75 / 4 + 0.25 * 0.75 / 100))
    assert int(found.n) == 104


def test_training_rows_decide_what_is_unseen() -> None:
    metric = ZeroShotAccuracy(SCHEMA, [BOTH, NEITHER, HAT])
    metric.update(rows((1, 0), (0, 1), (math.nan, 1)), asked=None)  # a hat that is unknown is no example of one
    metric.update(rows((1, 1), (0, 0)), asked=BOTH)
    metric.update(rows((0, 0)), asked=NEITHER)
    metric.update(rows((0, 0)), asked=HAT)
    assert float(metric.compute().value) == 0.75
    metric.update(rows((0, 0)), asked=None)
    assert float(metric.compute().value) == 0.5


def test_formulas_of_different_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="`seen` must be of the formulas of `accuracy`, a, got b"):
        zero_shot_accuracy({"a": share(1, 2)}, {"b": True})


def test_nothing_unseen_is_refused() -> None:
    with pytest.raises(ValueError, match="none of a is unseen, training rows satisfy every one; ask for combinations"):
        zero_shot_accuracy({"a": share(1, 2)}, {"a": True})
    with pytest.raises(ValueError, match="none of no formulas is unseen"):
        zero_shot_accuracy({}, {})


def test_an_unseen_formula_without_samples_is_refused() -> None:
    metric = ZeroShotAccuracy(SCHEMA, [BOTH, NEITHER])
    metric.update(rows((0, 0)), asked=NEITHER)
    with pytest.raises(ValueError, match="`accuracy` of hat & smile rests on no samples; draw some, or leave"):
        metric.compute()


def test_formulas_that_were_not_named_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`asked` must be None or one of hat & smile, ~hat & ~smile, got hat"):
        ZeroShotAccuracy(SCHEMA, [BOTH, NEITHER]).update(rows((0, 0)), asked=HAT)


def test_formulas_that_are_none_or_twice_the_same_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`formulas` must be one or more, all different, got \[\]"):
        ZeroShotAccuracy(SCHEMA, [])
    with pytest.raises(ValueError, match=r"all different, got \['hat', 'hat'\]"):
        ZeroShotAccuracy(SCHEMA, [HAT, HAT])
    with pytest.raises(ValueError, match="must have 'smile' in column 1"):
        ZeroShotAccuracy(SCHEMA, [parse("smile", Schema((Attribute("smile"),)))])
