"""Runs of `lcg bench` in this process: what they share is loaded once, and what a batch can hold is sampled at once.

Runs that name the same networks, judge, world and baselines take place in one setting. Their samples lie in one folder,
OUT/cells, each under a hash of all that it depends on, so that what a parameter does not touch is made for the first
run and is there for the others. See `lcg.benchmarks.sweeps.batched` for what is sampled together.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from lcg.benchmarks.benchmark import Benchmark
from lcg.benchmarks.jobs import Job, assemble, bench_job, run
from lcg.benchmarks.setting import Setting
from lcg.benchmarks.sweeps.batched import sample_together
from lcg.benchmarks.sweeps.runs import Attempt, Tell, words_inside
from lcg.benchmarks.tasks import Task
from lcg.benchmarks.tracking import check_tracking
from lcg.job_parser import JobParser
from lcg.modules.pieces import Crew

SHARED = ("store", "prior", "classifier", "generator", "judge", "world", "cache", "baselines", "shared_judge", "ranks")
"""The options that make a setting."""

NOTE = (
    "Made in one process with other runs of a sweep. Where samples of several runs were made together, seconds and "
    "evaluations are this run's share, and peak_memory is that of all of them."
)


def one_rank(words: Sequence[str]) -> bool:
    """Whether `lcg bench` with these words would run in one process; also where they cannot be read."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            ranks = JobParser("bench", bench_job).parse(words).ranks
    except (SystemExit, ValueError, OSError):
        return True
    return bool(ranks.devices * ranks.nodes == 1)


@dataclass(frozen=True)
class Asked:
    """A run whose words have been read.

    Attributes:
        attempt: the run.
        config: its options, objects as class_path and init_args.
        values: the same as the function takes them.
    """

    attempt: Attempt
    config: Any
    values: dict[str, Any]

    @property
    def shared(self) -> str:
        """Equal for runs that take place in one setting."""
        plain = self.config.as_dict()
        return json.dumps({name: plain[name] for name in SHARED}, sort_keys=True, default=str)

    @property
    def job(self) -> Job:
        given = {field.name: self.values[field.name] for field in fields(Job)}
        return Job(**{**given, "notes": [*given["notes"], NOTE]})

    def load(self, cells: Path) -> Setting:
        """Where the run takes place."""
        values = self.values
        setting = Setting.load(
            values["store"],
            values["prior"],
            values["classifier"],
            values["generator"],
            values["judge"],
            values["world"],
            values["cache"],
            values["ranks"].device,
            values["baselines"],
            values["shared_judge"],
        )
        return replace(setting, cells=cells)


def execute_inside(attempts: Sequence[Attempt], path: str, threads: int, cells: Path, tell: Tell) -> None:
    """Makes runs one after another in this process.

    Args:
        attempts: the runs; each command is `lcg bench`.
        path: where its program is looked for.
        threads: of a run, as a process of its own would have.
        cells: where the samples of all runs lie.
        tell: hears of each run as it ends.
    """
    parser, failed, groups = JobParser("bench", bench_job), dict[str, str](), dict[str, list[Asked]]()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for attempt in attempts:
            attempt.prepare()
            with _logged(attempt, failed):
                config = parser.parse(words_inside(attempt.command, path) or [])
                asked = Asked(attempt, config, parser.values(config))
                groups.setdefault(asked.shared, []).append(asked)
            if attempt.run.id in failed:
                tell(attempt, failed[attempt.run.id])
        for group in groups.values():
            _together(group, parser, cells, failed, tell)
    finally:
        torch.set_num_threads(before)


def _together(group: Sequence[Asked], parser: JobParser, cells: Path, failed: dict[str, str], tell: Tell) -> None:
    """Makes runs that share a setting."""
    setting: Setting | Exception
    try:
        setting = group[0].load(cells)
    except Exception as error:  # each run shall say so
        setting = error
    benchmarks: list[tuple[Benchmark, Sequence[Task], Sequence[int]]] = []
    for asked in group:
        with _logged(asked.attempt, failed):
            if isinstance(setting, Exception):
                raise setting
            check_tracking(asked.values["tracking"])
            tasks, benchmark = assemble(asked.job, setting)
            benchmark.folder.prepare()
            benchmarks.append((benchmark, tasks, asked.job.seeds))
    sample_together(benchmarks)
    for asked in group:
        attempt, started = asked.attempt, time.perf_counter()
        with _logged(attempt, failed):
            if attempt.run.id not in failed and isinstance(setting, Setting):
                run(asked.job, setting, Crew(asked.values["ranks"]))
                parser.save(asked.config, Path(asked.job.out))
        tell(attempt, failed.get(attempt.run.id) or attempt.close(0, time.perf_counter() - started))


@contextlib.contextmanager
def _logged(attempt: Attempt, failed: dict[str, str]) -> Iterator[None]:
    """What is said goes to the run's log; so does what goes wrong, and the run has failed."""
    with attempt.log.open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            yield
        except SystemExit as stop:  # of the parser
            failed[attempt.run.id] = f"exit code {stop.code}"
        except Exception as error:
            traceback.print_exc()
            failed[attempt.run.id] = f"{type(error).__name__}: {error}".splitlines()[0]
