"""There is a whole checkpoint at every moment, whatever becomes of the disk, the process and the file."""

import errno
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from lcg.checkpoint import amend_checkpoint
from lcg.modules.checkpoint_io import (
    CheckpointNotSavedError,
    VerifiedCheckpointIO,
    previous_of,
    whole_generation,
)
from lcg.sealed import DamagedError, check_seal, load_sealed, sealed


def content(step: int, numbers: int = 1000) -> dict[str, Any]:
    return {"global_step": step, "state_dict": {"w": torch.full((numbers,), float(step))}}


def step_of(path: Path) -> int:
    loaded = load_sealed(path)
    assert bool((loaded["state_dict"]["w"] == loaded["global_step"]).all())
    return int(loaded["global_step"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prior.ckpt"


@pytest.fixture
def saved(path: Path) -> VerifiedCheckpointIO:
    """A run that has saved steps 1, 2 and 3 under one name."""
    plugin = VerifiedCheckpointIO()
    for step in (1, 2, 3):
        plugin.save_checkpoint(content(step), path)
    return plugin


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        path.write_bytes(data[:700] + bytes([data[700] ^ 1]) + data[701:])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


def test_one_previous_generation_is_kept(saved: VerifiedCheckpointIO, path: Path) -> None:
    assert step_of(path) == 3 and step_of(previous_of(path)) == 2
    assert {file.name for file in path.parent.iterdir()} == {"prior.ckpt", "prior.ckpt.previous"}
    assert check_seal(path) and check_seal(previous_of(path))
    assert saved.load_checkpoint(path)["global_step"] == 3


def test_removal_removes_both(saved: VerifiedCheckpointIO, path: Path) -> None:
    saved.remove_checkpoint(path)
    assert list(path.parent.iterdir()) == []
    saved.remove_checkpoint(path)


def test_a_run_that_begins_anew_keeps_nothing_of_another(saved: VerifiedCheckpointIO, path: Path) -> None:
    VerifiedCheckpointIO().save_checkpoint(content(100), path)
    assert step_of(path) == 100 and not previous_of(path).exists()


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "removed"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it(
    saved: VerifiedCheckpointIO, path: Path, how: str, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    damage(path, how)
    plugin = VerifiedCheckpointIO()
    with caplog.at_level("INFO"):
        assert plugin.load_checkpoint(path)["global_step"] == 2
    reason = {"flipped": "its SHA-256 is not", "removed": "it is missing"}.get(how, "it ")
    said = caplog.text + "".join(capfd.readouterr())
    assert reason in said and f"Using the one before it, {path}.previous, of step 2" in said
    plugin.save_checkpoint(content(4), path)  # the damaged one does not become the generation that is fallen back on
    assert step_of(path) == 4 and step_of(previous_of(path)) == 2


def test_without_another_one_a_damaged_checkpoint_is_refused(path: Path) -> None:
    plugin = VerifiedCheckpointIO()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*prior\.ckpt; `--ckpt_path last` takes the newest"):
        plugin.load_checkpoint(path)
    plugin.save_checkpoint(content(1), path)
    damage(path, "flipped")
    with pytest.raises(DamagedError, match=r"SHA-256 .*; there is no previous one; give another checkpoint"):
        plugin.load_checkpoint(path)
    path.with_name("prior.ckpt.previous").write_bytes(b"neither")
    with pytest.raises(DamagedError, match=r"and prior\.ckpt\.previous is no better: .*nothing in it was run"):
        whole_generation(path)


def test_code_in_a_checkpoint_is_not_run_and_the_one_before_it_is_used(saved: VerifiedCheckpointIO, path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(path.with_name("ran")),)

    path.write_bytes(sealed({**content(9), "callbacks": Runs()}))
    assert VerifiedCheckpointIO().load_checkpoint(path)["global_step"] == 2
    assert not path.with_name("ran").exists()


def test_plain_checkpoints_of_lightning_are_read_and_kept(path: Path) -> None:
    plugin = VerifiedCheckpointIO()
    torch.save(content(5), path)
    assert plugin.load_checkpoint(path)["global_step"] == 5
    plugin.save_checkpoint(content(6), path)
    assert step_of(path) == 6 and step_of(previous_of(path)) == 5


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_checkpoint_before(
    saved: VerifiedCheckpointIO, path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(CheckpointNotSavedError, match=r"step 4 could not be saved .*No space left .*still there"):
            saved.save_checkpoint(content(4), path)
    assert step_of(path) == 3 and not list(path.parent.glob(".*"))
    saved.save_checkpoint(content(5), path)  # there is room again
    assert step_of(path) == 5 and step_of(previous_of(path)) == 3


def test_a_disk_that_does_not_keep_what_is_written_is_noticed(
    saved: VerifiedCheckpointIO, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda number: os.truncate(number, 1000))
    with pytest.raises(CheckpointNotSavedError, match="what was read back is not what was written; the one before"):
        saved.save_checkpoint(content(4), path)
    assert step_of(path) == 3


def test_what_calibration_adds_is_sealed_too(saved: VerifiedCheckpointIO, path: Path) -> None:
    saved.save_checkpoint({**content(4), "lcg": {"kind": "classifier"}}, path)
    amend_checkpoint(path, {"w": torch.ones(1000)}, calibration={"dependence": "joint"})
    amended = saved.load_checkpoint(path)
    assert check_seal(path) and amended["lcg"] == {"kind": "classifier", "calibration": {"dependence": "joint"}}
    assert torch.equal(amended["state_dict"]["w"], torch.ones(1000)) and step_of(previous_of(path)) == 3


def test_paths_on_other_machines_are_left_to_lightning() -> None:
    plugin, path = VerifiedCheckpointIO(), "memory://run/a.ckpt"
    plugin.save_checkpoint(content(2), path)
    assert plugin.load_checkpoint(path)["global_step"] == 2
    plugin.remove_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        plugin.load_checkpoint(path)
    with pytest.raises(TypeError, match="storage_options"):
        plugin.save_checkpoint(content(2), "a.ckpt", storage_options={})


def test_a_file_that_is_refused_in_its_middle_leaves_the_checkpoint_before(
    path: Path, fork: Callable[..., int], ended: Callable[[int], int]
) -> None:
    """The kernel takes part of a file and refuses the rest, as a quota does."""

    def save() -> None:
        plugin = VerifiedCheckpointIO()
        plugin.save_checkpoint(content(1), path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(CheckpointNotSavedError, match=r"step 2 .*File too large; the one before it is still there"):
            plugin.save_checkpoint(content(2, 100_000), path)
        plugin.save_checkpoint(content(3), path)

    assert ended(fork(save)) == 0
    assert step_of(path) == 3 and {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.previous"}


def test_a_full_file_system_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems can be mounted by root alone")
    try:
        plugin = VerifiedCheckpointIO()
        plugin.save_checkpoint(content(1, 100_000), disk / "a.ckpt")
        with pytest.raises(CheckpointNotSavedError, match="No space left on device"):
            for step in range(2, 5):  # two generations of 400 kB and a third one beside them
                plugin.save_checkpoint(content(step, 100_000), disk / "a.ckpt")
        assert step_of(disk / "a.ckpt") == 2 and step_of(disk / "a.ckpt.previous") == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_kill_9_while_saving_leaves_a_whole_checkpoint(
    path: Path, fork: Callable[..., int], ended: Callable[[int], int]
) -> None:
    """Processes that do nothing but save, killed at moments spread over many saves."""
    said = path.with_name("said")

    def save() -> None:
        plugin = VerifiedCheckpointIO()
        for step in count(1):
            plugin.save_checkpoint(content(step, 50_000), path)
            said.write_text(str(step))

    rng, reached = torch.Generator().manual_seed(0), 0
    for _ in range(12):
        said.write_text("0")
        process = fork(save)
        while said.read_text() in ("", "0"):
            time.sleep(0.001)
        time.sleep(0.05 * float(torch.rand((), generator=rng)))
        os.kill(process, signal.SIGKILL)
        assert ended(process) == -signal.SIGKILL
        step = step_of(path)
        assert step >= int(said.read_text() or 0)  # what was saved is there
        if step > 2:
            assert step_of(previous_of(path)) in (step - 1, step)
        reached = max(reached, step)
    assert reached > 3
