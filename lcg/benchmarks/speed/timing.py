"""How long something takes: one core, the process's own CPU time, candidates in turn, medians and quartiles.

On a machine that others use too, the time of the wall says how busy they were. CPU time does not, but caches and clock
rates are still shared and drift; so the candidates alternate, round by round, and speeds are compared within a round.
On a GPU it is the time of the wall, from one synchronisation to the next.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

Clock = Callable[[], float]
"""Seconds since some moment."""


def clock_of(device: torch.device) -> Clock:
    """CPU time of this process; on a GPU the time at which all that was asked of it is done."""
    if device.type != "cuda":
        return time.process_time

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised


@contextmanager
def one_core() -> Iterator[int | None]:
    """One thread on one core; gives its number, None where the system cannot pin. What was before is put back after."""
    threads, pins = torch.get_num_threads(), hasattr(os, "sched_setaffinity")
    cores = os.sched_getaffinity(0) if pins else set()
    core = max(cores, default=None)  # the first ones have the system's own work
    try:
        torch.set_num_threads(1)
        if core is not None:
            os.sched_setaffinity(0, {core})
        yield core
    finally:
        if pins:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Timing:
    """Seconds of one candidate.

    Attributes:
        first: of its first call, with whatever it prepares or compiles then and keeps.
        rounds: per call, one number per round.
    """

    first: float
    rounds: list[float]


def alternate(
    runs: Mapping[str, Callable[[], object]], repeats: int, target: float, clock: Clock = time.process_time
) -> dict[str, Timing]:
    """The times of each; in every round all of them are measured, one after another.

    Each is called twice before: to warm up, and to see how many calls make a measurement of `target` seconds.

    Args:
        runs: what is measured.
        repeats: rounds.
        target: seconds that a measurement shall last at least.
        clock: see `clock_of`.
    """
    calls, found = {}, {}
    for name, run in runs.items():
        found[name] = Timing(_seconds(run, 1, clock), [])
        calls[name] = max(1, math.ceil(target / max(_seconds(run, 1, clock), 1e-9)))
    for _ in range(repeats):
        for name, run in runs.items():
            found[name].rounds.append(_seconds(run, calls[name], clock) / calls[name])
    return found


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "q1": q1, "q3": q3}


def ratios(of: Sequence[float], to: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of of/to, round by round."""
    return summary([a / b for a, b in zip(of, to, strict=True)])


def _seconds(run: Callable[[], object], calls: int, clock: Clock) -> float:
    started = clock()
    for _ in range(calls):
        run()
    return clock() - started
