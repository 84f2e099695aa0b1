"""The area from sums; chunks and ranks are in test_ranks.py."""

import pytest
import torch

from lcg.metrics.pareto import pareto_bootstrap
from lcg.metrics.pareto_metric import ParetoArea


def test_it_is_the_area_of_all_sources_together() -> None:
    """Not the mean of the batches' areas: 0 for either of these."""
    metric = ParetoArea(1)
    metric.update(torch.tensor([[True]]), torch.tensor([[False]]))
    assert float(metric.compute()) == 0
    metric.update(torch.tensor([[False]]), torch.tensor([[True]]))
    assert float(metric.compute()) == 0.25


def test_it_is_the_area_that_the_bootstrap_is_about() -> None:
    present, kept = (torch.rand(2, 4, 50, generator=torch.Generator().manual_seed(0)) < 0.7).unbind(0)
    metric = ParetoArea(4)
    metric.update(present, kept)
    assert float(metric.compute()) == pytest.approx(pareto_bootstrap(present.numpy(), kept.numpy(), resamples=1)[0])


def test_what_does_not_fit_is_refused_and_leaves_no_trace() -> None:
    with pytest.raises(ValueError, match="`strengths` must be >= 1, got 0"):
        ParetoArea(0)
    metric, fits = ParetoArea(2), torch.ones(2, 5, dtype=torch.bool)
    with pytest.raises(TypeError, match=r"`kept` must be bool, got torch.float32"):
        metric.update(fits, fits.float())
    for present, kept in ((fits[:1], fits[:1]), (fits, fits[:, :3]), (fits[0], fits[0])):
        with pytest.raises(ValueError, match=r"must both be \(S, N\), a row per strength .* with S=2, got"):
            metric.update(present, kept)
    assert not metric.n and not metric.present.any() and not metric.kept.any()
