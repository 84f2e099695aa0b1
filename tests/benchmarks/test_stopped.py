"""A benchmark that is killed at any moment, or run by any number of ranks, comes to the same results."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lcg import cli
from lcg.benchmarks.benchmark import Benchmark
from lcg.benchmarks.folder import read_tensors

TASKS = ["generate/hat & ~beard", "edit/+beard +glasses", "unconditional"]
UNEVEN = ("--sizes.chunk", "7")  # three chunks of 20 samples, one of 6 sources, four of 24
ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def started(words: list[str], folder: Path) -> subprocess.Popen:
    """`lcg bench` in a process group of its own, as a shell starts it."""
    log = (folder / "log").open("ab")
    command = [sys.executable, "-m", "lcg", *words]
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=ALONE, cwd=folder)


def finish(words: list[str], folder: Path) -> None:
    process = started(words, folder)
    try:
        assert process.wait(timeout=300) == 0, (folder / "log").read_text()[-3000:]
    finally:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def files(out: Path) -> set[str]:
    return {path.name for path in (out / "cells").glob("[!.]*")} if (out / "cells").is_dir() else set()


@pytest.fixture(scope="module")
def undisturbed(bench_words: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "bench"
    assert cli.main(bench_words(out, TASKS, *UNEVEN)) == 0
    return out


def killed_at(words: list[str], folder: Path, out: Path, count: int, delay: float) -> bool:
    """Kills a run some moment after it has left so many files; False when it was faster."""
    process = started(words, folder)
    try:
        while len(files(out)) < count:
            if process.poll() is not None:
                return False
            time.sleep(0.002)
        time.sleep(delay)
        return process.poll() is None
    finally:
        kill(process)


def killed_until_done(words: list[str], folder: Path, whole: set[str], kills: int, seed: int) -> int:
    """Kills runs at random moments of the work, then lets one finish; how many were killed."""
    rng, out, killed = random.Random(seed), folder / "bench", 0
    for moment in sorted(rng.sample(range(1, len(whole)), kills)):
        killed += killed_at(words, folder, out, moment, rng.uniform(0, 0.03))
    finish(words, folder)
    return killed


def same(out: Path, undisturbed: Path) -> None:
    for name in ("results.csv", "comparisons.csv"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert files(out) == files(undisturbed)


@pytest.mark.slow
def test_a_benchmark_that_is_killed_twice_comes_to_the_same_results(
    bench_words: Callable, undisturbed: Path, tmp_path: Path
) -> None:
    words = bench_words(tmp_path / "bench", TASKS, *UNEVEN)
    assert killed_until_done(words, tmp_path, files(undisturbed), kills=2, seed=0) == 2
    same(tmp_path / "bench", undisturbed)


@pytest.mark.slow
def test_so_does_one_that_is_killed_ten_times(bench_words: Callable, undisturbed: Path, tmp_path: Path) -> None:
    cache = ("--cache", str(tmp_path / "cache"))  # of its own, so that this is killed half made, too
    words = bench_words(tmp_path / "bench", TASKS, *UNEVEN, *cache)
    assert killed_until_done(words, tmp_path, files(undisturbed), kills=10, seed=1) >= 8
    same(tmp_path / "bench", undisturbed)


def test_what_a_killed_writer_left_aside_does_no_harm(bench_words: Callable, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench"
    shutil.copytree(undisturbed, out)
    for number, path in enumerate(sorted(out.glob("cells/*"))):
        content = path.read_bytes()
        path.with_name(f".{path.name}.tmp").write_bytes(content[: len(content) // 2])
        if path.suffix == ".json" and number % 2:  # what is written last
            path.unlink()
    assert cli.main(bench_words(out, TASKS, *UNEVEN)) == 0
    same(out, undisturbed)


# --- ranks ---


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str, int, range]]:
    """Method, task, seed and rows of every file of samples that is asked for."""
    names: dict[str, tuple[str, str, int, range]] = {}
    path = Benchmark.made

    def watched(self, cell, rows):
        found = path(self, cell, rows)
        names[found.name] = (cell.method, cell.task.name, cell.seed, rows)
        return found

    monkeypatch.setattr(Benchmark, "made", watched)
    return names


@pytest.mark.slow
def test_two_ranks_come_to_the_same_bytes_and_make_every_sample_once(
    bench_words: Callable, undisturbed: Path, tmp_path: Path, made: dict[str, tuple[str, str, int, range]]
) -> None:
    two = ("--ranks.devices", "2", "--ranks.accelerator", "cpu", "--cache", str(tmp_path / "cache"))
    out = tmp_path / "bench"
    finish(bench_words(out, TASKS, *UNEVEN, *two), tmp_path)
    same(out, undisturbed)
    assert not list(out.glob("cells/.*"))

    figures = [path for path in (out / "cells").glob("*.json") if '"rows"' in path.read_text()]
    for path in figures:
        path.unlink()
    assert cli.main(bench_words(out, TASKS, *UNEVEN)) == 0  # says what each file is
    cells: dict[tuple[str, str, int], list[range]] = {}
    for name, (method, task, seed, rows) in made.items():
        assert read_tensors(out / "cells" / name)[0]["z_0"].shape[1] == len(rows)
        cells.setdefault((method, task, seed), []).append(rows)
    for chunks in cells.values():
        rows = [row for chunk in chunks for row in chunk]
        assert sorted(rows) == list(range(len(rows)))  # nothing twice, nothing left out
    assert len(cells) == 10 and {len(chunks) for chunks in cells.values()} == {1, 3, 4}


@pytest.mark.slow
def test_another_number_of_ranks_goes_on_with_what_is_missing(
    bench_words: Callable, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bench"
    two = bench_words(out, TASKS, *UNEVEN, "--ranks.devices", "2", "--ranks.accelerator", "cpu")
    assert killed_at(two, tmp_path, out, 12, 0.01)
    begun = {path: path.stat().st_mtime_ns for path in (out / "cells").glob("[!.]*")}
    assert killed_at(bench_words(out, TASKS, *UNEVEN), tmp_path, out, len(begun) + 8, 0.01)
    finish(two, tmp_path)
    same(out, undisturbed)
    assert all(path.stat().st_mtime_ns == changed for path, changed in begun.items())


BROKEN = """
import os
from lcg.benchmarks.measures import Measure

class Broken(Measure):
    def figures(self, view):
        if os.environ.get("LOCAL_RANK", "0") == "1":
            raise RuntimeError("the second rank is broken")
        return iter(())
"""


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_job_with_its_message(bench_words: Callable, tmp_path: Path) -> None:
    """Rather than that the others wait for it."""
    (tmp_path / "broken.py").write_text(BROKEN)
    metrics = '[{"class_path": "broken.Broken"}]'
    words = bench_words(tmp_path / "bench", ["generate/hat"], "--ranks.devices", "2", "--metrics", metrics)
    process = subprocess.Popen(
        [sys.executable, "-m", "lcg", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env={**ALONE, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    try:
        _, told = process.communicate(timeout=120)
    finally:
        kill(process)
    assert process.returncode != 0 and b"the second rank is broken" in told
    assert not (tmp_path / "bench" / "results.csv").exists()
