"""`python -m lcg.benchmarks.storage`: every reader, cold and warm, and a large store, into one file and its tables."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from lcg.benchmarks.speed.job import machine
from lcg.benchmarks.speed.timing import summary
from lcg.benchmarks.storage import measures
from lcg.benchmarks.storage.plan import Plan, full, quick
from lcg.benchmarks.storage.readers import READERS
from lcg.benchmarks.storage.table import to_markdown
from lcg.data.atomic import write_atomic
from lcg.memory import keep_memory

SUMMARISED = ("rows", "rows_of_cpu", "growth", "megabytes", "from_disk")


def storage_job(out: str = "runs/storage", fast: bool = False, plan: Plan | None = None) -> int:
    """Measures, and writes OUT/storage.json and OUT/storage.md; the stores lie in OUT/.storage meanwhile.

    Args:
        out: folder for the results.
        fast: the quick plan instead of the full one.
        plan: another one.

    Raises:
        RuntimeError: the system is none of Linux, whose /proc tells about memory, or readers disagree.
        NotADirectoryError: out is a file.
    """
    folder = Path(out)
    if not sys.platform.startswith("linux"):
        raise RuntimeError(f"this benchmark reads memory from Linux's /proc, got {sys.platform}; run it on Linux")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"`out` must be a folder, got the file {folder}; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / ".storage"
    shutil.rmtree(data, ignore_errors=True)  # of a run that was stopped
    plan = plan or (quick() if fast else full())
    try:
        record = {"machine": machine(torch.device("cpu"), None), "quick": fast} | measure(plan, data)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    write_atomic(folder / "storage.json", (json.dumps(record, indent=2) + "\n").encode())
    write_atomic(folder / "storage.md", to_markdown(record).encode())
    print(to_markdown(record))
    return 0


def measure(plan: Plan, data: Path) -> dict[str, Any]:
    """All measurements of a plan, as JSON primitives."""
    _say("building the store that is read")
    built = _alone(measures.build, data / "read", plan.read, True)
    batches, runs = {}, {}
    for cold, count in ((False, plan.warm), (True, plan.cold)):
        state = "cold" if cold else "warm"
        rounds: dict[str, list[measures.Record]] = {name: [] for name in READERS}
        for seed in range(plan.rounds):
            for name, found in rounds.items():
                found.append(_alone(measures.random_batches, data / "read", name, plan.batch, count, cold, seed))
                _say(f"{state}, {name}: {found[-1]['rows']:,.0f} rows/s, {found[-1]['growth']:.0f} MB")
            if len({found[-1]["sum"] for found in rounds.values()}) > 1:
                raise RuntimeError(
                    "the readers do not give the same latents; this is an error of lcg, please report it"
                )
        batches[state] = {name: _summary(found) for name, found in rounds.items()}
        ends: dict[str, list[measures.Record]] = {"lcg": [], "bytes alone": []}
        for _ in range(plan.rounds):
            for name, found in ends.items():
                found.append(_alone(measures.from_end_to_end, data / "read", name, cold))
        runs[state] = {name: _summary(found) for name, found in ends.items()}
    shutil.rmtree(data / "read")
    _say("building the large store")
    large = _alone(measures.build, data / "large", plan.large, False)
    _say("going through it")
    large["epoch"] = _alone(measures.epoch, data / "large", plan.batch)
    sizes = {name: {"rows": s.rows, "elements": s.elements, "megabytes": s.megabytes} for name, s in _sizes(plan)}
    return {"sizes": sizes, "batch": plan.batch, "batches": batches, "runs": runs, "built": built, "large": large}


def _sizes(plan: Plan) -> tuple[tuple[str, Any], ...]:
    return ("read", plan.read), ("large", plan.large)


def _alone(work: Callable[..., measures.Record], *arguments: object) -> measures.Record:
    """What `work` measures in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=keep_memory) as pool:  # as commands of lcg do
        return pool.submit(work, *arguments).result()


def _summary(rounds: list[measures.Record]) -> dict[str, Any]:
    return {name: summary([found[name] for found in rounds]) for name in SUMMARISED if name in rounds[0]}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
