"""Encoding by many processes: the same bytes, whoever made which shard and whoever was killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lcg.modules.pieces import Ranks

HERE = Path(__file__).parent
LAUNCHERS = ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "LOCAL_RANK", "RANK")
ALONE = {k: v for k, v in os.environ.items() if k not in LAUNCHERS} | {
    "OMP_NUM_THREADS": "1",  # so that one and two ranks add numbers in one order
    "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parents[1]))),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("seed", "times"), [(0, 3), pytest.param(1, 20, marks=pytest.mark.slow)])
def test_whenever_it_is_killed_the_bytes_are_the_same_in_the_end(
    tmp_path: Path, seed: int, times: int, ranks: int
) -> None:
    command = [sys.executable, str(HERE / "killed.py"), str(tmp_path), str(seed), str(times), str(ranks)]
    done = subprocess.run(command, env=ALONE, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["equal"] == times and told["interrupted"] >= 1


def test_a_launcher_that_the_ranks_know_nothing_of_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lcg.data.avatars import AvatarSource
    from lcg.encoding.job import encode_many
    from lcg.generators.autoencoder import AvatarAutoencoder

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="`ranks` must be the 3 processes that torchrun has started, got 1"):
        encode_many(AvatarSource("uniform", 4), AvatarAutoencoder(), tmp_path / "s", ranks=Ranks(accelerator="cpu"))
    assert not (tmp_path / "s").exists()


# --- the command itself, by Lightning's ranks ---


def started(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    words = ("--source", "killed.Noise", "--source.seconds", "0.01", "--generator", "killed.Projection")
    sizes = ("--batch_size", "3", "--shard_size", "8", "--ranks.accelerator", "cpu", "--out", "s", *more)
    log = (folder / "log").open("ab")
    command = [sys.executable, "-m", "lcg", "encode", *words, *sizes]
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=ALONE, cwd=folder)


def finished(process: subprocess.Popen[bytes], folder: Path) -> dict[str, bytes]:
    try:
        assert process.wait(timeout=200) == 0, (folder / "log").read_text()[-3000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    files = {path.name: path.read_bytes() for path in (folder / "s").iterdir()}
    return {name: data for name, data in files.items() if name != "config.yaml"}


@pytest.mark.slow
def test_two_ranks_that_are_killed_leave_the_bytes_of_one_in_the_end(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected = finished(started(whole), whole)
    process = started(parts, "--ranks.devices", "2")
    deadline = time.monotonic() + 120
    while len(list((parts / "s").glob(".shard-*.json"))) < 4:
        assert process.poll() is None and time.monotonic() < deadline, (parts / "log").read_text()[-3000:]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (parts / "s" / "manifest.json.sha256").exists()
    assert finished(started(parts, "--ranks.devices", "2"), parts) == expected
    shown = (parts / "log").read_text()
    assert re.search(r"100/100 \[.*image/s\]", shown) and "100 latents of shape (5,) in s" in shown
