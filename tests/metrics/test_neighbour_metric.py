"""Features that are kept: what is refused, and what they share; figures, chunks and ranks are in test_ranks.py."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from lcg.metrics.neighbour_metric import (
    GatheredDensityCoverage,
    GatheredDiversity,
    GatheredFeatures,
    GatheredPrecisionRecall,
)


def normal(n: int, seed: int) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


CLASSES = (GatheredPrecisionRecall, GatheredDensityCoverage, GatheredDiversity)
each = pytest.mark.parametrize("metric_class", CLASSES)


def update(metric: Any, features: Tensor) -> None:
    metric.update(features) if isinstance(metric, GatheredDiversity) else metric.update(features, real=False)


def test_copies_of_real_features_are_perfect() -> None:
    real = normal(40, 0)
    precision, density = GatheredPrecisionRecall(3), GatheredDensityCoverage(3)
    for metric in (precision, density):
        metric.update(real, real=True)
        metric.update(real, real=False)
    assert {name: float(value) for name, value in precision.compute().items()} == {"precision": 1, "recall": 1}
    assert float(density.compute()["coverage"]) == 1


def test_two_samples_differ_by_their_distance() -> None:
    metric = GatheredDiversity(2)
    metric.update(torch.tensor([[0.0, 0.0]]))
    metric.update(torch.zeros(0, 2))
    metric.update(torch.tensor([[3.0, 4.0]]))
    assert float(metric.compute()) == pytest.approx(5)


def test_metrics_of_the_same_features_keep_them_once() -> None:
    """torchmetrics finds out by itself that their states are equal."""
    both = MetricCollection({"fidelity": GatheredPrecisionRecall(3), "density": GatheredDensityCoverage(3)})
    for seed in range(3):
        both.update(normal(20, seed), real=True)
        both.update(normal(20, seed + 9), real=False)
    assert list(both.compute_groups.values()) == [["density", "fidelity"]]
    assert set(both.compute()) == {"precision", "recall", "density", "coverage"}


@each
def test_features_that_do_not_fit_are_refused_and_leave_no_trace(metric_class: type[GatheredFeatures]) -> None:
    metric = metric_class(3)
    with pytest.raises(
        TypeError, match=r"`features` must be floating point, got torch.uint8; pass features, not images"
    ):
        update(metric, torch.zeros(5, 3, dtype=torch.uint8))
    for shape in ((5, 2), (5,), (5, 3, 1)):
        with pytest.raises(ValueError, match=r"`features` must be \(N, 3\), got shape .*; flatten them"):
            update(metric, torch.zeros(shape))
    with pytest.raises(ValueError, match="`features` must be finite, got 1 of 2 rows with NaN or infinity"):
        update(metric, torch.tensor([[0, 0, torch.inf], [0, 0, 0]]))
    assert not any(metric.metric_state.values())


@each
def test_no_features_are_refused(metric_class: type[GatheredFeatures]) -> None:
    with pytest.raises(ValueError, match="`features` must be >= 1, got 0"):
        metric_class(0)


@pytest.mark.parametrize("metric_class", [GatheredPrecisionRecall, GatheredDensityCoverage])
def test_sides_and_neighbours_that_do_not_fit_are_refused(metric_class: Any) -> None:
    with pytest.raises(ValueError, match="`k` must be >= 1, got 0"):
        metric_class(3, k=0)
    metric = metric_class(3)
    with pytest.raises(TypeError, match=r"`real` must be True or False, got 'fake'; one call takes one side"):
        metric.update(normal(5, 0), real="fake")
    metric.update(normal(5, 0), real=True)
    with pytest.raises(ValueError, match=f"{metric_class.__name__}, of the generated side, has taken in no rows"):
        metric.compute()


def test_too_few_rows_are_refused() -> None:
    metric = GatheredDensityCoverage(3, k=5)
    metric.update(normal(5, 0), real=True)
    metric.update(normal(9, 1), real=False)
    with pytest.raises(ValueError, match=r"`k` must be in \[1, 5\), below the number of real features, got 5"):
        metric.compute()
