"""The runs of a sweep: which values its parameters take, and the command of each.

A grid is the product of the values, in W&B's order: parameters by name, the last one fastest. Random search draws
parameter k of run r from a uniform number by the inverse of its cumulative distribution,

    theta_rk = F_k^-1(u_rk),      u_rk ~ U(0, 1),

in the same order and from the same stream of numbers as W&B's own `sweeps` package, which the tests compare with.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lcg.benchmarks.results.estimates import read_rows
from lcg.benchmarks.sweeps.file import ENV, MACRO, Sweep, canonical
from lcg.data.atomic import write_atomic


@dataclass(frozen=True)
class Run:
    """One choice of values.

    Args:
        values: by the dotted name of the parameter, in W&B's order.
        parameters: the same, nested as in the file; what W&B calls the run's config.
    """

    values: Mapping[str, Any]
    parameters: Mapping[str, Any]

    @cached_property
    def id(self) -> str:
        return hashlib.sha256(canonical(self.parameters).encode()).hexdigest()[:12]


def runs(sweep: Sweep, seed: int = 0, count: int | None = None) -> list[Run]:
    """The runs of a sweep: its grid in W&B's order, or random draws.

    Args:
        sweep: what is swept.
        seed: of the draws; run r is the same whatever their number is.
        count: how many runs at most, beside the file's `run_cap`.

    Raises:
        ValueError: `count` is below 1, or neither it nor `run_cap` bounds a random search.
    """
    if count is not None and count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}; leave it out for all runs")
    bounds = [bound for bound in (sweep.run_cap, count) if bound is not None]
    if sweep.method == "grid":
        grid = itertools.product(*(parameter.values() for parameter in sweep.parameters))
        return [_run(sweep, values) for values in itertools.islice(grid, min(bounds, default=None))]
    if not bounds:
        raise ValueError(f"{sweep.path}: a random search has no end; set `run_cap` in the file or give --count 20")
    rng = random.Random(seed)  # a uniform number for each parameter, constants too, as W&B draws them
    return [_run(sweep, [p.draw(rng.uniform(0.0, 1.0)) for p in sweep.parameters]) for _ in range(min(bounds))]


def _run(sweep: Sweep, values: Sequence[Any]) -> Run:
    nested: dict[str, Any] = {}
    for parameter, value in zip(sweep.parameters, values, strict=True):
        place = nested
        for name in parameter.path[:-1]:
            place = place.setdefault(name, {})
        place[parameter.path[-1]] = value
    return Run({p.name: value for p, value in zip(sweep.parameters, values, strict=True)}, nested)


def expand(sweep: Sweep, run: Run, out: str | Path) -> list[str]:
    """The words of a run's command, all macros expanded as W&B's agent does.

    ${env} is /usr/bin/env (nothing on Windows); ${interpreter} the Python that runs this (W&B has `python`);
    ${program} the file's `program`; ${args} --NAME=VALUE for each parameter, a nested one as one dictionary;
    ${args_no_equals} --NAME VALUE; ${args_no_hyphens} NAME=VALUE; ${args_no_boolean_flags} --NAME for a value that is
    true and nothing for one that is false; ${args_json} all of them as JSON; ${envvar:NAME} an environment variable.

    Args:
        sweep: the file.
        run: its parameters.
        out: the run's own folder for results; stands for ${out}, or behind `--out` at the end.
    """
    given = run.parameters
    words: dict[str, list[str]] = {
        "env": [] if os.name == "nt" else [ENV],
        "interpreter": [sys.executable],
        "program": [] if sweep.program is None else [sweep.program],
        "args": [f"--{name}={value}" for name, value in given.items()],
        "args_no_equals": [word for name, value in given.items() for word in (f"--{name}", str(value))],
        "args_no_hyphens": [f"{name}={value}" for name, value in given.items()],
        "args_no_boolean_flags": [
            f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items() if value is not False
        ],
        "args_json": [json.dumps(given)],
    }

    def inner(macro: re.Match[str]) -> str:
        name = macro[1].removeprefix("envvar:")
        return str(out) if macro[1] == "out" else os.environ.get(name, name)

    expanded: list[str] = []
    for word in sweep.command:
        name = word[2:-1] if MACRO.fullmatch(word) else ""
        expanded += words[name] if name in words else [MACRO.sub(inner, word)]
    return expanded if any("${out}" in word for word in sweep.command) else [*expanded, "--out", str(out)]


def words_inside(command: Sequence[str], path: str) -> list[str] | None:
    """The words behind `lcg bench` of a command that is this very lcg; None for any other.

    Args:
        command: the words of a run, macros expanded.
        path: where its program is looked for.
    """
    words = list(command[1:] if command and command[0] == ENV else command)
    found = shutil.which(words[0], path=path) if words else None
    if found is None or Path(found).parent != Path(sys.executable).parent:  # another program, or another Python's lcg
        return None
    if Path(found).name.startswith("python") and words[1:3] == ["-m", "lcg"]:
        words = ["lcg", *words[3:]]
    return words[2:] if Path(words[0]).name == "lcg" and words[1:2] == ["bench"] else None


@dataclass(frozen=True)
class Attempt:
    """A run and its folder.

    Args:
        run: what is run.
        folder: OUT/runs/ID, with run.json once the run has finished, log.txt and the folder `bench` for its results.
        command: the words of its command.
        fingerprint: of what was asked for; a run that was finished under another one is made again.
    """

    run: Run
    folder: Path
    command: list[str]
    fingerprint: str

    @property
    def results(self) -> Path:
        return self.folder / "bench" / "results.csv"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def finished(self) -> bool:
        """Whether the run was made before, by the same command with the same files."""
        record = self.folder / "run.json"
        try:
            return bool(json.loads(record.read_text())["fingerprint"] == self.fingerprint) and self.results.is_file()
        except (OSError, ValueError, KeyError, TypeError):  # never finished, or not by this job
            return False

    def prepare(self) -> None:
        """Begins a new log. What an earlier attempt left of its own stays, so that `lcg bench` goes on from there."""
        self.results.parent.mkdir(parents=True, exist_ok=True)
        for old in (self.folder / "run.json", self.results):
            old.unlink(missing_ok=True)
        self.log.write_bytes(b"")

    def start(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Starts a process."""
        self.prepare()
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=dict(environment)
            )

    def close(self, code: int, seconds: float) -> str | None:
        """Records a run that has finished; of one that has failed, says why."""
        if code != 0:
            return f"exit code {code}"
        try:
            read_rows(self.results)
        except (OSError, ValueError) as error:
            return f"it left no results ({error}); the command must write results.csv into --out or ${{out}}"
        record = {
            "parameters": self.run.parameters,
            "command": self.command,
            "fingerprint": self.fingerprint,
            "seconds": round(seconds, 1),
        }
        write_atomic(self.folder / "run.json", (json.dumps(record, indent=2) + "\n").encode())
        return None


Tell = Callable[[Attempt, str | None], None]
"""Hears of a run that has ended, and why it failed."""
