"""Precision and recall, density and coverage, and diversity of features that come in batches and on several processes.

Who is whose neighbour is known only when all features are there, so these metrics keep them, in float64, and every
process gathers those of all: N features of F numbers take 8 N F bytes, 0.8 GB for 50,000 of Inception's 2048. The
figures themselves are those of `lcg.metrics.neighbours`. Distances between means and covariances need no such memory
(`lcg.metrics.streaming`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lcg.metrics.estimate import require_rows
from lcg.metrics.neighbours import density_coverage, diversity, precision_recall


class GatheredFeatures(Metric):
    """Keeps features of one or more sides, whose names are the states'.

    Args:
        features: F >= 1, how many features a row has.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: features < 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    sides: ClassVar[tuple[str, ...]] = ("real", "generated")

    def __init__(self, features: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if features < 1:
            raise ValueError(f"`features` must be >= 1, got {features}")
        self.features = features
        for side in self.sides:
            self.add_state(side, [], dist_reduce_fx="cat")

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As torchmetrics does, but a process without rows says of what shape they would be: all gather alike."""
        for side in self.sides:
            if not len(getattr(self, side)):
                getattr(self, side).append(torch.empty(0, self.features, dtype=torch.float64, device=self.device))
        super().sync(*args, **kwargs)

    def _keep(self, side: str, features: Tensor) -> None:
        if not features.is_floating_point():
            raise TypeError(f"`features` must be floating point, got {features.dtype}; pass features, not images")
        if features.ndim != 2 or features.shape[1] != self.features:
            raise ValueError(
                f"`features` must be (N, {self.features}), got shape {tuple(features.shape)}; flatten them, or make "
                "the metric for as many"
            )
        wrong = int((~features.isfinite()).any(dim=1).sum())
        if wrong:
            raise ValueError(f"`features` must be finite, got {wrong} of {len(features)} rows with NaN or infinity")
        getattr(self, side).append(features.detach().double())

    def _all(self, side: str) -> Tensor:
        features = dim_zero_cat(getattr(self, side))
        require_rows(torch.tensor(len(features)), f"{type(self).__name__}, of the {side} side,")
        return features


class GatheredTwoSides(GatheredFeatures):
    """Keeps features of real images and of generated ones.

    Args:
        features: F >= 1, how many features a row has.
        k: which neighbour gives the radius, >= 1.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: features < 1 or k < 1.
    """

    def __init__(self, features: int, k: int, **kwargs: Any) -> None:
        super().__init__(features, **kwargs)
        if k < 1:
            raise ValueError(f"`k` must be >= 1, got {k}")
        self.k = k

    def update(self, features: Float[Tensor, "n features"], real: bool) -> None:
        """Takes a batch in.

        Args:
            features: (N, F) floating point, N >= 0, on the metric's device.
            real: whether they are of real images or of generated ones.

        Raises:
            TypeError: features that are not floating point, or `real` that is not bool.
            ValueError: features of another shape, or not finite.
        """
        if not isinstance(real, bool):
            raise TypeError(f"`real` must be True or False, got {real!r}; one call takes one side")
        self._keep("real" if real else "generated", features)

    def _tensors(self, **values: float) -> dict[str, Tensor]:
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in values.items()}


class GatheredPrecisionRecall(GatheredTwoSides):
    """Improved precision and recall; see `precision_recall`.

    Args:
        features: F >= 1, how many features a row has.
        k: which neighbour gives the radius, >= 1.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: features < 1 or k < 1.
    """

    def __init__(self, features: int, k: int = 3, **kwargs: Any) -> None:
        super().__init__(features, k, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """`precision` and `recall`, float64.

        Raises:
            ValueError: a side without rows, or too few of them for k.
        """
        found = precision_recall(self._all("real"), self._all("generated"), self.k)
        return self._tensors(precision=found.precision, recall=found.recall)


class GatheredDensityCoverage(GatheredTwoSides):
    """Density and coverage; see `density_coverage`.

    Args:
        features: F >= 1, how many features a row has.
        k: which neighbour gives the radius, >= 1.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: features < 1 or k < 1.
    """

    def __init__(self, features: int, k: int = 5, **kwargs: Any) -> None:
        super().__init__(features, k, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """`density` and `coverage`, float64.

        Raises:
            ValueError: a side without rows, or too few of them for k.
        """
        found = density_coverage(self._all("real"), self._all("generated"), self.k)
        return self._tensors(density=found.density, coverage=found.coverage)


class GatheredDiversity(GatheredFeatures):
    """The mean distance of two different samples; see `diversity`. Squared distances would do with sums, these do not.

    Args:
        features: F >= 1, how many features a row has.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: features < 1.
    """

    sides: ClassVar[tuple[str, ...]] = ("generated",)

    def update(self, features: Float[Tensor, "n features"]) -> None:
        """Takes features (N, F) of generated images in, N >= 0.

        Raises:
            TypeError: features that are not floating point.
            ValueError: features of another shape, or not finite.
        """
        self._keep("generated", features)

    def compute(self) -> Tensor:
        """Shape (), float64, in the features' unit.

        Raises:
            ValueError: fewer than two rows.
        """
        return torch.tensor(diversity(self._all("generated")), dtype=torch.float64, device=self.device)
