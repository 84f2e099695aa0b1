"""The fastest that this machine multiplies matrices: what the share of the peak is a share of."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

import torch

from lcg.benchmarks.speed.timing import Clock, alternate
from lcg.nets.affine import PackedAffine
from lcg.nets.execution import Execution

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
    """GFLOP/s by product, "m x k x n", the best of its repeats, of `torch.mm` and of prepacked matrices where they are.

    A multiply-add is two operations.
    """
    rates = {}
    for m, k, n in products:
        a, b = (torch.randn(shape, device=device).to(dtype) for shape in ((m, k), (k, n)))
        runs = {f"{m} x {k} x {n}": partial(torch.mm, a, b, out=a.new_empty(m, n))}
        if Execution().chosen(a, m).backend == "packed":
            runs[f"{m} x {k} x {n}, prepacked"] = partial(PackedAffine(b.t(), b.new_zeros(n)), a)
        for name, timing in alternate(runs, repeats, target, clock).items():
            rates[name] = 2e-9 * m * k * n / min(timing.rounds)
    return rates
