"""Shares and means with their standard errors, from what adds up over batches and processes.

    share  p = hits / n          stderr  sqrt(p (1 - p) / n)
    mean   m = sum_i v_i / n     stderr  sqrt(S / (n (n - 1))),      S = sum_i (v_i - m)^2

Hits and n are added; count, mean and scatter S merge as in `lcg.metrics.streaming`, so that values that hardly differ
keep their digits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Estimate(NamedTuple):
    """A number that was measured on samples; three tensors of shape (), so that it travels as metrics' values do.

    Attributes:
        value: float64; NaN on no samples.
        stderr: float64, its standard error; NaN where the samples are too few for one.
        n: int64, on how many samples it rests.
    """

    value: Tensor
    stderr: Tensor
    n: Tensor


def estimate_share(hits: Int[Tensor, ""], n: Int[Tensor, ""]) -> Estimate:
    """The share of hits among n samples."""
    p = hits.double() / n
    return Estimate(p, (p * (1 - p) / n).sqrt(), n)


def estimate_mean(part: Float[Tensor, "2 2"]) -> Estimate:
    """The mean of values from their count, mean and scatter, as `lcg.metrics.streaming.part_of` gives them."""
    n, value, scatter = part[0, 0], part[0, 1], part[1, 1]
    return Estimate(torch.where(n > 0, value, torch.nan), (scatter / (n * (n - 1))).sqrt(), n.long())


def require_rows(n: Tensor, metric: str) -> None:
    """Refuses to compute from nothing.

    Args:
        n: () or more, how many rows were taken in, on all processes.
        metric: the class that was asked.

    Raises:
        ValueError: n is 0.
    """
    if not n.any():
        raise ValueError(f"{metric} has taken in no rows to compute from; call `update` with some first")
