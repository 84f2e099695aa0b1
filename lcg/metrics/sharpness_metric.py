"""The share of samples that are no ghosts, over batches and processes; see `lcg.metrics.sharpness`."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric

from lcg.metrics.estimate import Estimate, estimate_share, require_rows
from lcg.metrics.sharpness import NearestReal


class SharpShare(Metric):
    """How many samples are near a real latent and, where that is given, what was asked for.

    Args:
        nearest: tells near from far; it stays on its latents' device.
        **kwargs: of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    hits: Tensor
    n: Tensor

    def __init__(self, nearest: NearestReal, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nearest = nearest
        for state in ("hits", "n"):
            self.add_state(state, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, z: Float[Tensor, "n *latent"], satisfied: Bool[Tensor, " n"] | None = None) -> None:
        """Counts a batch.

        Args:
            z: (N, *latent) floating point, on the device of the real latents; one that is not finite is not near.
            satisfied: (N,) whether each sample is what was asked for; None when nothing was.

        Raises:
            TypeError: latents that are not floating point, or truth values that are not bool.
            ValueError: latents of another shape than the real ones, or truth values of another number.
        """
        if not z.is_floating_point():
            raise TypeError(f"`z` must be floating point, got {z.dtype}; pass latents, not images")
        near = self.nearest.near(z)
        if satisfied is not None:
            if satisfied.dtype != torch.bool:
                raise TypeError(f"`satisfied` must be bool, got {satisfied.dtype}; see `Formula.holds`")
            if satisfied.shape != near.shape:
                raise ValueError(f"`satisfied` must be {tuple(near.shape)}, got {tuple(satisfied.shape)}")
            near = near & satisfied
        self.hits += near.sum()
        self.n += len(near)

    def compute(self) -> Estimate:
        """The share.

        Raises:
            ValueError: no rows were taken in.
        """
        require_rows(self.n, type(self).__name__)
        return estimate_share(self.hits, self.n)
