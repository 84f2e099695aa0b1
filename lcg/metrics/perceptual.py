"""Perceptual distance: how far apart two images are to a network, layer by layer and place by place,

    d(x, x') = 1/L sum_l 1/(H_l W_l) sum_{h,w} | f_l(x)_hw - f_l(x')_hw |^2,      f_l(x)_hw = F_l(x)_hw / |F_l(x)_hw|,

where F_l(x) is the l-th map of features and the lengths are over its channels (Zhang et al. 2018, arXiv:1801.03924,
equation 1, where a weight w_l multiplies the difference channel by channel). The paper learns these weights, and that
makes LPIPS of it; here there are none, all are equal, and layers are averaged where the paper adds them up. So figures
compare with each other, for one network, and not with published LPIPS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

FeatureMaps = Callable[[Tensor], Sequence[Tensor]]
"""Images (B, C, H, W) to maps of features (B, C_l, H_l, W_l)."""

SHORTEST = 1e-10
"""Shorter features have no direction, and count as zero."""


def perceptual_distance(
    maps: FeatureMaps,
    x_before: Float[Tensor, "n channels height width"],
    x_after: Float[Tensor, "n channels height width"],
    batch_size: int = 64,
) -> Float[Tensor, " n"]:
    """d of pairs of images.

    Args:
        maps: gives feature maps (B, C_l, H_l, W_l) of images in [-1, 1], without dependence between rows (a network in
            eval mode), such as `lcg.metrics.judge_maps.JudgeMaps`.
        x_before: (N, C, H, W) sources in [-1, 1], N >= 1.
        x_after: (N, C, H, W) results in [-1, 1].
        batch_size: pairs that are compared at once, >= 1.

    Returns:
        (N,) float64 in [0, 4].

    Raises:
        ValueError: images of different shapes or none, a batch size below 1, or maps that are none, not
            (B, C_l, H_l, W_l), or not finite.
    """
    if x_before.ndim != 4 or x_after.shape != x_before.shape or not len(x_before):
        raise ValueError(
            "`x_before` and `x_after` must be (N, C, H, W) of one shape, N >= 1, "
            f"got {tuple(x_before.shape)} and {tuple(x_after.shape)}"
        )
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be >= 1, got {batch_size}")
    distances = []
    with torch.no_grad():
        for old, new in zip(x_before.split(batch_size), x_after.split(batch_size), strict=True):
            layers = zip(_directions(maps, old), _directions(maps, new), strict=True)
            distances.append(torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in layers]).mean(0))
    return torch.cat(distances)


def _directions(maps: FeatureMaps, x: Tensor) -> list[Tensor]:
    """The maps, float64, with features of length 1."""
    features = [layer.double() for layer in maps(x)]
    if not features or any(layer.ndim != 4 or len(layer) != len(x) for layer in features):
        raise ValueError(
            f"`maps` must give at least one map ({len(x)}, C, H, W), a row per image, "
            f"got {[tuple(layer.shape) for layer in features]}"
        )
    if not all(bool(layer.isfinite().all()) for layer in features):
        raise ValueError("`maps` must give finite features, got NaN or infinity; check the images")
    return [layer / layer.norm(dim=1, keepdim=True).clamp(min=SHORTEST) for layer in features]
