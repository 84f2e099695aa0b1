"""The share of samples that are no ghosts; chunks and ranks are in test_ranks.py."""

import pytest
import torch

from lcg.metrics.sharpness import NearestReal
from lcg.metrics.sharpness_metric import SharpShare

NEAREST = NearestReal(torch.zeros(1, 2), threshold=1.0)
Z = torch.tensor([[0.5, 0.0], [0.0, 1.0], [1.0, 1.0], [torch.nan, 0.0]])  # near, near, far, nowhere


def test_near_ones_count_and_where_asked_only_what_was_asked_for() -> None:
    metric = SharpShare(NEAREST)
    metric.update(Z)
    assert (float(metric.compute().value), int(metric.compute().n)) == (0.5, 4)
    metric.reset()
    metric.update(Z, torch.tensor([True, False, True, True]))
    assert float(metric.compute().value) == 0.25


def test_what_does_not_fit_is_refused_and_leaves_no_trace() -> None:
    metric = SharpShare(NEAREST)
    with pytest.raises(TypeError, match=r"`z` must be floating point, got torch.uint8; pass latents, not images"):
        metric.update(torch.zeros(4, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"`z` must be latents of shape \(2,\)"):
        metric.update(torch.zeros(4, 3))
    with pytest.raises(TypeError, match=r"`satisfied` must be bool, got torch.float32; see `Formula.holds`"):
        metric.update(Z, torch.ones(4))
    with pytest.raises(ValueError, match=r"`satisfied` must be \(4,\), got \(4, 1\)"):
        metric.update(Z, torch.ones(4, 1, dtype=torch.bool))
    assert not metric.n and not metric.hits
