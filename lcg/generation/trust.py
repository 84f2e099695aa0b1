"""How far to trust samples that were drawn in chunks: what was said of each chunk, put together.

The mean of estimates exp(log p_k) of chunks with n_k samples is the estimate of all N samples, and its variance is that
of N single estimates, which is found again from those of the chunks, s_k relative to p_k:

    p = sum_k n_k p_k / N        var = sum_k [(n_k - 1) n_k (p_k s_k)^2 + n_k (p_k - p)^2] / (N - 1) / N
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lcg.results.samples import Draw, Plan

SHARE = re.compile(r"\b(\d+) of (\d+)(?= samples| systems)")
"""How warnings count samples of the chunk that they are about."""
NUMBER = re.compile(r"-?\d+(\.\d+)?")

Said = tuple[int, dict[str, Any]]
"""How many samples a chunk has, and what `said_of` said of it."""


def said_of(draw: Draw) -> dict[str, Any]:
    """What is known of a chunk's samples and not of their plan, in JSON primitives."""
    numbers = {"ess": draw.ess, "log_p": draw.log_p_formula, "stderr": draw.stderr}
    return {
        "drawn": draw.drawn,
        "warnings": list(draw.warnings),
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
    }


def described(plan: Plan) -> dict[str, Any]:
    """How samples of a formula are drawn, in JSON primitives."""
    return {"extrapolated": plan.extrapolate, "dependence": plan.dependence, "weight": asdict(plan.weight)}


def trust(plan: Plan, chunks: Sequence[Said]) -> dict[str, Any]:
    """How far to trust the samples of all chunks together, in JSON primitives."""
    n, first = sum(count for count, _ in chunks), chunks[0][1]
    ess, log_p, stderr = None, first["log_p"], first["stderr"]
    if first["ess"] is not None:  # particles: each chunk has an estimate of its own; otherwise all have the plan's
        ess = sum(count * said["ess"] for count, said in chunks) / n
        log_p, stderr = pooled([(count, said["log_p"], said["stderr"]) for count, said in chunks])
    return {
        "support": str(plan.support),
        "ess": ess,
        "log_p_formula": log_p,
        "log_p_formula_stderr": stderr,
        "drawn": sum(said["drawn"] for _, said in chunks),
        "warnings": merged(chunks),
    }


def pooled(estimates: Sequence[tuple[int, float | None, float | None]]) -> tuple[float | None, float | None]:
    """The estimate of all samples, from (n_k, log p_k, standard error of log p_k); None is log 0, or not known.

    Returns:
        log p and its standard error, as `lcg.guidance.resampling.pooled` gives them for all samples at once.
    """
    n = sum(count for count, _, _ in estimates)
    top = max((log_p for _, log_p, _ in estimates if log_p is not None), default=None)
    if top is None:
        return None, None
    parts = [
        (count, 0.0 if log_p is None else math.exp(log_p - top), stderr or 0.0) for count, log_p, stderr in estimates
    ]
    mean = sum(count * p for count, p, _ in parts) / n
    if n == 1:
        return top, None
    squares = sum((count - 1) * count * (p * stderr) ** 2 + count * (p - mean) ** 2 for count, p, stderr in parts)
    return top + math.log(mean), math.sqrt(squares / (n - 1) / n) / mean


def merged(chunks: Sequence[Said]) -> list[str]:
    """The warnings of all chunks, each once: samples are counted together, other numbers are those of the first chunk.

    What was not said of every chunk, and is no count of samples, says of how many it was.
    """
    n = sum(count for count, _ in chunks)
    found: dict[str, list[str]] = {}
    for _, said in chunks:
        for warning in said["warnings"]:
            found.setdefault(NUMBER.sub("#", warning), []).append(warning)
    return [_together(warnings, n, len(chunks)) for warnings in found.values()]


def _together(warnings: Sequence[str], n: int, chunks: int) -> str:
    counts = [match for warning in warnings if (match := SHARE.search(warning))]
    if counts:
        return SHARE.sub(f"{sum(int(match[1]) for match in counts)} of {n}", warnings[0], count=1)
    return warnings[0] if len(warnings) == chunks else f"{warnings[0]} (said of {len(warnings)} of {chunks} chunks)"
