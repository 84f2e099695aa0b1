"""Means over pairs of images, source and result, by a network: identity and perceptual distance.

Count, mean and scatter of the pairs' values are all that is kept (`lcg.metrics.streaming`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from lcg.metrics.estimate import Estimate, estimate_mean, require_rows
from lcg.metrics.perceptual import FeatureMaps, perceptual_distance
from lcg.metrics.side_effects import identity_similarity
from lcg.metrics.streaming import merge_parts, part_of


class PairMean(Metric, ABC):
    """The mean of a value per pair of images, see `measure`.

    Args:
        batch_size: pairs that the network sees at once, >= 1.
        **kwargs: of `torchmetrics.Metric`.
    """

    is_differentiable = False
    full_state_update = False
    values: Tensor

    def __init__(self, batch_size: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be >= 1, got {batch_size}")
        self.batch_size = batch_size
        self.add_state("values", torch.zeros(2, 2, dtype=torch.float64), dist_reduce_fx=merge_parts)

    @abstractmethod
    def measure(self, x_before: Tensor, x_after: Tensor) -> Float[Tensor, " n"]:
        """The value of each pair, (N,)."""

    def update(
        self, x_before: Float[Tensor, "n channels height width"], x_after: Float[Tensor, "n channels height width"]
    ) -> None:
        """Takes a batch in.

        Args:
            x_before: (N, C, H, W) sources, floating point in [-1, 1].
            x_after: (N, C, H, W) results.

        Raises:
            TypeError: images that are not floating point.
            ValueError: images that are not finite or of different shapes, none, or a network that does not fit.
        """
        for name, x in (("x_before", x_before), ("x_after", x_after)):
            if not x.is_floating_point():
                raise TypeError(f"`{name}` must be floating point in [-1, 1], got {x.dtype}; see `pixels_to_x`")
            if not bool(x.isfinite().all()):
                raise ValueError(f"`{name}` must be finite, got NaN or infinity")
        self.values = merge_parts(torch.stack((self.values, part_of(self.measure(x_before, x_after)[:, None]))))

    def compute(self) -> Estimate:
        """The mean over all pairs.

        Raises:
            ValueError: no pairs were taken in.
        """
        require_rows(self.values[0, 0], type(self).__name__)
        return estimate_mean(self.values)


class Identity(PairMean):
    """Mean cosine of the embeddings of source and result, in [-1, 1]; see `identity_similarity`.

    Args:
        extract: maps images (B, C, H, W) in [-1, 1] to embeddings (B, D), such as a network trained for recognition, in
            eval mode. One that is a module becomes a part of the metric, and moves to other devices with it.
        batch_size: pairs that are embedded at once, >= 1.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: a batch size below 1.
    """

    higher_is_better = True

    def __init__(self, extract: Callable[[Tensor], Tensor], batch_size: int = 64, **kwargs: Any) -> None:
        super().__init__(batch_size, **kwargs)
        self.extract = extract

    def measure(self, x_before: Tensor, x_after: Tensor) -> Float[Tensor, " n"]:
        return identity_similarity(self.extract, x_before, x_after, self.batch_size)


class PerceptualDistance(PairMean):
    """Mean distance of source and result in maps of features, in [0, 4], with equal weights; see `perceptual_distance`.

    Args:
        maps: gives feature maps (B, C_l, H_l, W_l) of images, such as `JudgeMaps`. A module becomes a part of the
            metric, and moves to other devices with it.
        batch_size: pairs that are compared at once, >= 1.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: a batch size below 1.
    """

    higher_is_better = False

    def __init__(self, maps: FeatureMaps, batch_size: int = 64, **kwargs: Any) -> None:
        super().__init__(batch_size, **kwargs)
        self.maps = maps

    def measure(self, x_before: Tensor, x_after: Tensor) -> Float[Tensor, " n"]:
        return perceptual_distance(self.maps, x_before, x_after, self.batch_size)
