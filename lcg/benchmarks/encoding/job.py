"""`python -m lcg.benchmarks.encoding`: the encoder alone, the job from memory and from files, and its tables."""

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

from lcg.benchmarks.encoding import measures
from lcg.benchmarks.encoding.measures import ENCODERS, KINDS, Plan
from lcg.benchmarks.encoding.table import to_markdown
from lcg.benchmarks.speed.job import machine
from lcg.benchmarks.speed.timing import ratios, summary
from lcg.benchmarks.storage.measures import Record
from lcg.data.atomic import write_atomic
from lcg.memory import keep_memory

SUMMARISED = ("images", "images_of_cpu", "growth")
ALONE = "alone"
"""What the encoder is called that is compared with."""


def encoding_job(out: str = "runs/encoding", fast: bool = False, plan: Plan | None = None) -> int:
    """Measures, and writes OUT/encoding.json and OUT/encoding.md; images and stores lie in OUT/.encoding meanwhile.

    Args:
        out: folder for the results.
        fast: a quick plan instead of the full one.
        plan: another one.

    Raises:
        RuntimeError: the system is none of Linux, whose /proc tells about memory.
        NotADirectoryError: out is a file.
    """
    folder = Path(out)
    if not sys.platform.startswith("linux"):
        raise RuntimeError(f"this benchmark reads memory from Linux's /proc, got {sys.platform}; run it on Linux")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"`out` must be a folder, got the file {folder}; choose another")
    data = folder / ".encoding"
    shutil.rmtree(data, ignore_errors=True)  # of a run that was stopped
    data.mkdir(parents=True)
    plan = plan or (Plan(8192, 1024, rounds=2) if fast else Plan())
    try:
        record = {"machine": machine(torch.device("cpu"), None), "quick": fast} | measure(plan, data)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    write_atomic(folder / "encoding.json", (json.dumps(record, indent=2) + "\n").encode())
    write_atomic(folder / "encoding.md", to_markdown(record).encode())
    print(to_markdown(record))
    return 0


def measure(plan: Plan, data: Path) -> dict[str, Any]:
    """All measurements of a plan, as JSON primitives."""
    _say("drawing images")
    drawn = _alone(measures.draw, data, plan.images, plan.threads)
    encoders = {}
    for encoder, count in zip(ENCODERS, (plan.images, plan.slow), strict=True):
        work: dict[str, tuple[Any, ...]] = {ALONE: (measures.bare, data, encoder, count, plan)}
        work |= {place: (measures.job, data, encoder, place, count, plan) for place in ("memory", *KINDS)}
        if encoder == "embedded":
            quarter = (measures.job, data, encoder, "memory", count // 4, plan)
            work["memory, a quarter of the images"] = quarter
        encoders[encoder] = {"count": count, "rounds": _turns(work, plan, encoder)}
    files = {
        kind: _turns({what.__name__: (what, data, kind, plan.images, plan) for what in whats}, plan, kind)
        for kind, whats in ((kind, (measures.reading, measures.looking)) for kind in KINDS)
    }
    settings = {"images": plan.images, "batch": plan.batch, "threads": plan.threads, **drawn}
    return {"settings": settings, "encoders": encoders, "files": files}


def _turns(work: dict[str, tuple[Any, ...]], plan: Plan, what: str) -> dict[str, Any]:
    """The summary of each piece of work, measured in turns."""
    rounds: dict[str, list[Record]] = {name: [] for name in work}
    for _ in range(plan.rounds):
        for name, (function, *arguments) in work.items():
            rounds[name].append(_alone(function, *arguments))
            _say(f"{what}, {name}: {rounds[name][-1]['images']:,.0f} images/s")
    told = {name: {key: summary([r[key] for r in found]) for key in SUMMARISED} for name, found in rounds.items()}
    if ALONE in rounds:
        for name, found in rounds.items():
            for key in ("images", "images_of_cpu"):
                of, to = ([r[key] for r in records] for records in (found, rounds[ALONE]))
                told[name][f"share_of_{key}"] = ratios(of, to)
    return told


def _alone(work: Callable[..., Record], *arguments: object) -> Record:
    """What `work` measures in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=keep_memory) as pool:  # as commands of lcg do
        return pool.submit(work, *arguments).result()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
