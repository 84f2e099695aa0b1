"""The area under a method's trade-off, over batches and processes; see `lcg.metrics.pareto`.

The area is of means over sources, so that sums do. For its standard error they do not: `pareto_bootstrap` resamples the
sources and needs every one of them.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torchmetrics import Metric

from lcg.metrics.estimate import require_rows
from lcg.metrics.pareto import pareto_area


class ParetoArea(Metric):
    """The area that the points (share present, share kept) of all strengths dominate.

    Args:
        strengths: S >= 1, how many strengths every source is edited with.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: strengths < 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    present: Tensor
    kept: Tensor
    n: Tensor

    def __init__(self, strengths: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if strengths < 1:
            raise ValueError(f"`strengths` must be >= 1, got {strengths}")
        self.strengths = strengths
        for state in ("present", "kept"):
            self.add_state(state, torch.zeros(strengths, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, present: Bool[Tensor, "strengths n"], kept: Bool[Tensor, "strengths n"]) -> None:
        """Counts a batch of sources.

        Args:
            present: (S, N) bool, for every strength and source whether all that was asked for is there.
            kept: (S, N) bool, whether all else has stayed.

        Raises:
            TypeError: truth values that are not bool.
            ValueError: truth values of another shape.
        """
        for name, values in (("present", present), ("kept", kept)):
            if values.dtype != torch.bool:
                raise TypeError(f"`{name}` must be bool, got {values.dtype}")
            if values.ndim != 2 or len(values) != self.strengths or values.shape != present.shape:
                raise ValueError(
                    "`present` and `kept` must both be (S, N), a row per strength and a column per source, with "
                    f"S={self.strengths}, got {tuple(present.shape)} and {tuple(kept.shape)}"
                )
        self.present += present.sum(1)
        self.kept += kept.sum(1)
        self.n += present.shape[1]

    def compute(self) -> Tensor:
        """The area in [0, 1], float64, shape ().

        Raises:
            ValueError: no sources were taken in.
        """
        require_rows(self.n, type(self).__name__)
        shares = (torch.stack((self.present, self.kept)).double() / self.n).cpu().numpy()
        return torch.tensor(pareto_area(*shares), dtype=torch.float64, device=self.device)
