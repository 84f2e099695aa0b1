"""Perceptual distance at maps whose directions are known."""

import math

import pytest
import torch
from torch import Tensor

from lcg.metrics.perceptual import perceptual_distance


def image(*channels: float) -> Tensor:
    """(1, C, 2, 3), each channel constant."""
    return torch.tensor(channels, dtype=torch.float64)[None, :, None, None].expand(1, -1, 2, 3)


def itself(x: Tensor) -> list[Tensor]:
    return [x]


def test_equal_images_have_none_and_opposite_ones_four() -> None:
    x = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(perceptual_distance(itself, x, x), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(perceptual_distance(itself, x, -x), torch.full((5,), 4.0, dtype=torch.float64))


@pytest.mark.parametrize("degrees", [1, 30, 90, 135])
def test_of_features_at_an_angle_it_is_that_of_points_on_a_circle(degrees: float) -> None:
    """|u - v|^2 = 2 - 2 cos, whatever the lengths."""
    angle = math.radians(degrees)
    found = perceptual_distance(itself, image(3, 0), image(0.1 * math.cos(angle), 0.1 * math.sin(angle)))
    assert float(found) == pytest.approx(2 - 2 * math.cos(angle), rel=1e-12)


def test_places_are_averaged_and_then_layers() -> None:
    x, y = image(1.0, 0.0), image(1.0, 0.0).clone()
    y[0, :, 0, 0] = torch.tensor([0.0, 1.0])  # orthogonal in one of six places
    assert float(perceptual_distance(itself, x, y)) == pytest.approx(2 / 6)
    assert float(perceptual_distance(lambda x: [x, x[:, :, :1, :1]], x, y)) == pytest.approx((2 / 6 + 2) / 2)


def test_features_without_a_direction_are_equal_to_each_other() -> None:
    assert float(perceptual_distance(itself, image(0, 0), image(0, 0))) == 0
    assert float(perceptual_distance(itself, image(0, 0), image(0, 7))) == pytest.approx(1)


def test_batches_do_not_matter() -> None:
    x, y = torch.randn(2, 7, 3, 4, 4, generator=torch.Generator().manual_seed(1)).unbind(0)
    torch.testing.assert_close(perceptual_distance(itself, x, y, batch_size=3), perceptual_distance(itself, x, y))


def test_images_that_do_not_fit_are_refused() -> None:
    x = torch.zeros(2, 3, 4, 4)
    for wrong in (x[:1], x[:, :2]):
        with pytest.raises(ValueError, match=r"`x_before` and `x_after` must be \(N, C, H, W\) of one shape, N >= 1"):
            perceptual_distance(itself, x, wrong)
    with pytest.raises(ValueError, match=r"N >= 1, got \(0, 3, 4, 4\) and"):
        perceptual_distance(itself, x[:0], x[:0])
    with pytest.raises(ValueError, match="`batch_size` must be >= 1, got 0"):
        perceptual_distance(itself, x, x, batch_size=0)


def test_maps_that_are_none_are_refused() -> None:
    x = torch.zeros(2, 3, 4, 4)
    for maps, got in (
        (lambda x: [], r"\[\]"),
        (lambda x: [x.flatten(1)], r"\[\(2, 48\)\]"),
        (lambda x: [x[:1]], r"\[\(1"),
    ):
        with pytest.raises(ValueError, match=rf"`maps` must give at least one map \(2, C, H, W\), .*got {got}"):
            perceptual_distance(maps, x, x)
    with pytest.raises(ValueError, match="`maps` must give finite features, got NaN or infinity; check the images"):
        perceptual_distance(itself, x, x / 0)
