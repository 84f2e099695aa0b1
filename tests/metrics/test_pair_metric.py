"""Means over pairs of images, with networks that are plain functions; chunks and ranks are in test_ranks.py."""

import pytest
import torch
from torch import Tensor, nn

from lcg.metrics.pair_metric import Identity, PairMean, PerceptualDistance


def flat(x: Tensor) -> Tensor:
    return x.flatten(1)


def itself(x: Tensor) -> list[Tensor]:
    return [x]


METRICS = {"identity": lambda: Identity(flat), "distance": lambda: PerceptualDistance(itself)}
each = pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)


def test_the_same_image_is_the_same_subject_at_no_distance() -> None:
    x = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    for make, expected in zip(METRICS.values(), (1.0, 0.0), strict=True):
        metric = make()
        metric.update(x, 3 * x)
        found = metric.compute()
        assert float(found.value) == pytest.approx(expected, abs=1e-12)
        assert float(found.stderr) == pytest.approx(0, abs=1e-12)
        assert int(found.n) == 4


def test_a_network_that_is_a_module_is_a_part_of_the_metric() -> None:
    metric = Identity(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    assert len(list(metric.parameters())) == 2
    metric.update(torch.ones(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
    assert float(metric.compute().value) == pytest.approx(1)


@each
def test_images_that_do_not_fit_are_refused_and_leave_no_trace(make: type[PairMean]) -> None:
    metric, x = make(), torch.ones(2, 3, 4, 4)
    with pytest.raises(
        TypeError, match=r"`x_after` must be floating point in \[-1, 1\], got torch.uint8; see `pixels_to"
    ):
        metric.update(x, x.to(torch.uint8))
    with pytest.raises(ValueError, match="`x_before` must be finite, got NaN or infinity"):
        metric.update(x * torch.nan, x)
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\) of one shape, N >= 1"):
        metric.update(x, x[:1])
    assert not metric.values.any()


def test_no_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="`batch_size` must be >= 1, got 0"):
        Identity(flat, batch_size=0)
    with pytest.raises(ValueError, match="`batch_size` must be >= 1, got 0"):
        PerceptualDistance(itself, batch_size=0)
