"""`lcg sweep`: a W&B sweep file, run on this machine without any server.

Each run is the file's command. Its id is a hash of its parameters and its results are in a folder of its own,
OUT/runs/ID/bench, which the command is told by the placeholder ${out}, a macro that W&B does not have, or else by
`--out FOLDER` behind all other words. There it must write the tidy results.csv of `lcg bench`.

A command may be anything, in a process of its own. `lcg bench` itself is run in this process unless several runs are
wanted at once: networks are loaded once, and parameters that only weigh the guidance are rows of one batch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from tqdm import tqdm

from lcg import __version__
from lcg.benchmarks.results.estimates import read_results
from lcg.benchmarks.sweeps.file import ENV, Sweep, read_sweep
from lcg.benchmarks.sweeps.runs import Attempt, Run, Tell, expand, runs, words_inside
from lcg.benchmarks.sweeps.table import check_metric, summary, write_provenance, write_results
from lcg.data.atomic import write_atomic
from lcg.schema import unknown_name

Inside = Literal["auto", "always", "never"]

LOG_LINES = 12
"""How much of a failed run's log is shown."""


def sweep_job(
    file: str,
    out: str = "runs/sweep",
    parallel: int = 1,
    count: int | None = None,
    seed: int = 0,
    method: str = "lcg",
    repeat: bool = False,
    inside: Inside = "auto",
) -> int:
    """Runs a W&B sweep file on this machine, without a server; run again, it goes on where it was stopped.

    Writes OUT/results.csv and OUT/costs.csv (the rows of all runs, their parameters as columns), OUT/sweep.md (the
    metric by parameters, with the best run) and OUT/provenance.json. Each run has a folder, OUT/runs/ID, with its log
    and its results.
    A run that fails does not stop the others; the exit code is 1 then, and the next `lcg sweep` tries it again.

    Args:
        file: the sweep file, as for `wandb sweep`.
        out: folder for the results.
        parallel: runs at once; they share the threads.
        count: how many runs at most, beside the file's `run_cap`.
        seed: of the draws of a random search.
        method: the rows of a run's results.csv whose metric decides, where it compares several methods.
        repeat: make finished runs again too, after a change that neither the command nor the files it names show.
        inside: make runs of `lcg bench` in this process, which loads networks once and samples runs together that
            differ in guidance weights or edit strengths only; `auto` where the command allows it and `parallel` is 1.
    """
    if inside not in get_args(Inside):
        raise unknown_name("inside", inside, get_args(Inside), "a sweep")
    if parallel < 1:
        raise ValueError(f"`parallel` must be at least 1, got {parallel}; 1 makes one run after another")
    sweep = read_sweep(file)
    distinct = {run.id: run for run in runs(sweep, seed, count)}  # a draw from few values may come twice
    attempts = [_attempt(sweep, run, Path(out)) for run in distinct.values()]
    environment = _environment(parallel)
    _check_program(attempts[0].command, environment)
    here = _runs_inside(inside, attempts, parallel, environment)
    Path(out).mkdir(parents=True, exist_ok=True)
    missing = [attempt for attempt in attempts if repeat or not attempt.finished()]
    started = time.perf_counter()
    failed: dict[str, str] = {}
    bar = tqdm(total=len(missing), desc="sweep", unit="run", disable=not missing)

    def tell(attempt: Attempt, problem: str | None) -> None:
        if problem:
            failed[attempt.run.id] = problem
            tqdm.write(_failure(attempt, problem), file=sys.stderr)
        bar.update()

    try:
        with bar:
            if here:
                from lcg.benchmarks.sweeps.inside import execute_inside

                threads = int(environment["OMP_NUM_THREADS"])
                execute_inside(missing, environment["PATH"], threads, Path(out) / "cells", tell)
            else:
                execute(missing, parallel, environment, tell)
    finally:  # also of what was stopped
        tables = {a.run.id: read_results(a.results.parent) for a in attempts if a.finished()}
        write_results(Path(out), attempts, tables)
        settings = {"seed": seed, "count": count, "method": method, "parallel": parallel, "inside": here}
        write_provenance(sweep, Path(out), attempts, settings, failed, time.perf_counter() - started)
    check_metric(sweep, method, tables)
    text = summary(sweep, method, attempts, tables)
    write_atomic(Path(out) / "sweep.md", text.encode())
    print(f"{len(attempts)} runs, {len(attempts) - len(missing)} of them made before, {len(failed)} failed")
    print(*(line for line in text.splitlines() if line.startswith("Best: ")), Path(out) / "sweep.md", sep="\n")
    return 1 if failed else 0


def _attempt(sweep: Sweep, run: Run, out: Path) -> Attempt:
    folder = out / "runs" / run.id
    named = [part for word in (*sweep.command, sweep.program or "") for part in (word, word.partition("=")[2])]
    files = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in named if os.path.isfile(name)}
    asked = {"command": sweep.command, "program": sweep.program, "files": files, "lcg": __version__}
    fingerprint = hashlib.sha256(json.dumps([asked, run.parameters], sort_keys=True).encode()).hexdigest()
    return Attempt(run, folder, expand(sweep, run, folder / "bench"), fingerprint)


def _environment(parallel: int) -> dict[str, str]:
    """That of the runs: the programs beside this Python are found first, and the threads are divided."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = int(given) if given.isdecimal() else cores
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": str(max(1, threads // parallel))}


def _check_program(command: list[str], environment: Mapping[str, str]) -> None:
    """Raises ValueError when the command begins with a program that does not exist."""
    word = next((word for word in command if word != ENV), "")
    if "=" not in word and shutil.which(word, path=environment["PATH"]) is None:
        raise ValueError(f"`command` begins with {word!r}, but there is no such program; install it, or give its path")


def _runs_inside(inside: Inside, attempts: Sequence[Attempt], parallel: int, environment: Mapping[str, str]) -> bool:
    """Whether the runs are made in this process. Raises ValueError where they must and cannot be."""
    if inside == "never" or (inside == "auto" and parallel > 1):
        return False
    if parallel > 1:
        raise ValueError(f"`inside`='always' makes one run after another, got `parallel`={parallel}; use 1, or 'auto'")
    words = [words_inside(attempt.command, environment["PATH"]) for attempt in attempts]
    if words[0] is not None and None not in words:
        from lcg.benchmarks.sweeps.inside import one_rank  # and with it all that a benchmark needs

        if one_rank(words[0]):
            return True
    if inside == "always":
        raise ValueError(
            f"`inside`='always' needs the command `lcg bench` on one rank, got {shlex.join(attempts[0].command)}; "
            "use 'auto'"
        )
    return False


def execute(attempts: Sequence[Attempt], parallel: int, environment: Mapping[str, str], tell: Tell) -> None:
    """Makes runs in processes, `parallel` at once, and tells of each as it ends. None outlives an interruption."""
    waiting = list(attempts)
    running: dict[subprocess.Popen[bytes], tuple[Attempt, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                attempt = waiting.pop(0)
                running[attempt.start(environment)] = attempt, time.perf_counter()
            for process in [process for process in running if process.poll() is not None]:
                attempt, started = running.pop(process)
                tell(attempt, attempt.close(process.returncode, time.perf_counter() - started))
            time.sleep(0.02)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _failure(attempt: Attempt, problem: str) -> str:
    lines = attempt.log.read_text(errors="replace").splitlines()
    shown = "\n".join(f"    {line}" for line in lines[-LOG_LINES:]) or "    (nothing)"
    words = shlex.join(attempt.command)
    return f"run {attempt.run.id} failed: {problem}\n  {words}\n  the end of {attempt.log}:\n{shown}"
