"""`lcg fit` on two ranks, of which one is killed: the others do not wait for it for ever."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
PR_SET_CHILD_SUBREAPER = 36
LAUNCHERS = {
    "lightning": (sys.executable, "-m", "lcg"),
    "torchrun": (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "lcg"),
}
SECONDS = 60

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


@pytest.fixture
def reaper() -> Iterator[None]:
    """Orphans become children of this process, so that it learns how they ended."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(other for child in children for other in descendants(child))]


def pid_of(rank: int, launcher: str, job: int) -> int:
    """The process of a rank. Lightning's first rank is the job itself and sets no variable before it starts."""
    if launcher == "lightning" and rank == 0:
        return job
    for pid in descendants(job):
        if f"LOCAL_RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return pid
    raise LookupError(f"no process of rank {rank}")


def wait_for(what: Callable[[], bool], seconds: float) -> None:
    start = time.monotonic()
    while not what():
        assert time.monotonic() - start < seconds, "too late"
        time.sleep(0.1)


def code_of(pid: int) -> int | None:
    """How an orphan ended; None when its parent has been told already."""
    status: list[int] = []

    def ended() -> bool:
        with contextlib.suppress(ChildProcessError):
            found, code = os.waitpid(pid, os.WNOHANG)
            status.extend([code] if found else [])
        return bool(status) or not Path(f"/proc/{pid}").exists()

    wait_for(ended, SECONDS)
    return os.waitstatus_to_exitcode(status[0]) if status else None


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_when_one_rank_is_killed_all_end_within_a_minute(
    tmp_path: Path, tiny_store: Callable[..., str], reaper: None, launcher: str, killed: int
) -> None:
    saved = {"dirpath": str(tmp_path), "filename": "prior", "every_n_train_steps": 50, "enable_version_counter": False}
    options = {
        "model.width": 16,
        "model.depth": 1,
        "data.store": tiny_store(),
        "data.batch_size": 32,
        "trainer.max_steps": 10**6,
        "trainer.accelerator": "cpu",
        "trainer.devices": 2,
        "trainer.enable_progress_bar": "false",
        "trainer.default_root_dir": tmp_path,
        "trainer.callbacks": json.dumps([{"class_path": "ModelCheckpoint", "init_args": saved}]),
    }
    configs = (f"--config={CONFIGS / name}" for name in ("prior/avatars.yaml", "trainer/ddp.yaml"))
    line = [*LAUNCHERS[launcher], "fit", *configs, *(f"--{name}={value}" for name, value in options.items())]
    with (tmp_path / "output").open("wb") as output:
        job = subprocess.Popen(line, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_for(lambda: (tmp_path / "prior.ckpt").is_file() or job.poll() is not None, 180)
        assert job.poll() is None, (tmp_path / "output").read_text()
        ranks = [pid_of(rank, launcher, job.pid) for rank in (0, 1)]
        os.kill(ranks[killed], signal.SIGKILL)
        start = time.monotonic()
        codes = [job.wait(SECONDS), *(code_of(pid) for pid in ranks if pid != job.pid)]
        assert time.monotonic() - start < SECONDS
        assert 0 not in codes, (tmp_path / "output").read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
