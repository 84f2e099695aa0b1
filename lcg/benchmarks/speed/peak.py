"""The fastest that this machine multiplies matrices: what the share of the peak is a share of."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

import torch

from lcg.benchmarks.speed.timing import Clock, alternate

Product = tuple[int, int, int]
"""(m, k, n): (m, k) times (k, n)."""


def gemm_rates(
    products: Iterable[Product],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    repeats: int = 5,
    target: float = 0.3,
    clock: Clock = time.process_time,
) -> dict[str, float]:
    """GFLOP/s of `torch.mm` by product, "m x k x n", each the best of its repeats. A multiply-add is two operations."""
    rates = {}
    for m, k, n in products:
        a, b = (torch.randn(shape, device=device).to(dtype) for shape in ((m, k), (k, n)))
        timing = alternate({"mm": partial(torch.mm, a, b, out=a.new_empty(m, n))}, repeats, target, clock)["mm"]
        rates[f"{m} x {k} x {n}"] = 2e-9 * m * k * n / min(timing.rounds)
    return rates
