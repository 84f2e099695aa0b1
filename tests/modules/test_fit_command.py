"""`lcg fit` that is resumed, refused and recorded."""

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from lcg import __version__, cli
from lcg.modules.checkpoint_io import previous_of
from lcg.modules.run_folder import lock
from lcg.sealed import load_sealed, sealed
from lcg.trainer_command import move_paths

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "prior" / "avatars.yaml"
NOBODY = 65534

Fork = Callable[[Callable[[], object]], int]
Ended = Callable[[int], int]
Fit = Callable[..., int]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "prior"


@pytest.fixture
def fit(out: Path, tiny_store: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Fit:
    """`lcg fit` of a small prior, five steps an epoch; gives the exit code."""
    monkeypatch.setattr("sys.argv", ["lcg"])
    monkeypatch.chdir(out.parent)
    store = tiny_store()

    def fit(*more: str, steps: int = 10, command: str = "fit") -> int:
        words = ["--config", str(CONFIG), "--data.store", store, "--data.batch_size=64", "--model.width=16"]
        words += ["--model.depth=1", "--model.warmup=2", f"--trainer.max_steps={steps}", "--trainer.accelerator=cpu"]
        words += ["--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
        words += [f"--trainer.default_root_dir={out}", f"--trainer.callbacks.init_args.dirpath={out}", *more]
        try:
            return cli.main([command, *words])
        except SystemExit as stop:
            return int(stop.code or 0)

    return fit


def step_of(path: Path) -> int:
    return int(load_sealed(path)["global_step"])


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text())


def losses(out: Path) -> list[int]:
    with (out / "log" / "metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]


# --- where a run lies ------------------------------------------------------------------------------------------------


def test_out_moves_the_whole_run(fit: Fit, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--out` is what default_root_dir and every path below it say together, in the place of three options."""
    monkeypatch.setenv("RUN", "moved")
    folder = out.parent / "moved" / "here"
    assert fit(f"--out={out.parent}/$RUN/here") == 0
    assert step_of(folder / "prior.ckpt") == 10 and losses(folder) == list(range(10))
    assert {"run.json", "log", "tensorboard"} <= {path.name for path in folder.iterdir()} and not out.exists()
    kept = yaml.safe_load((folder / "log" / "config.yaml").read_text())
    assert kept["out"] == kept["trainer"]["default_root_dir"] == str(folder)
    assert kept["trainer"]["callbacks"][1]["init_args"]["dirpath"] == str(folder)
    assert fit(f"--out={folder}", "--ckpt_path=last", steps=12) == 0  # it is found there
    assert step_of(folder / "prior.ckpt") == 12 and not out.exists()


def test_out_moves_what_lies_in_the_folder_of_the_run_and_nothing_else() -> None:
    inside = {
        "init_args": {"dirpath": "runs/a", "path": "runs/a/weights/x.safetensors", "filename": "prior", "decay": 0.9}
    }
    outside = {"init_args": {"dirpath": "elsewhere/a", "path": "runs/ab"}}
    for callback in (inside, outside):
        move_paths(SimpleNamespace(**callback), "runs/a", "mine")
    moved = {"dirpath": "mine", "path": "mine/weights/x.safetensors", "filename": "prior", "decay": 0.9}
    assert inside["init_args"] == moved and outside["init_args"] == {"dirpath": "elsewhere/a", "path": "runs/ab"}


# --- resume ----------------------------------------------------------------------------------------------------------


def test_nothing_to_resume_is_an_error_and_auto_begins(fit: Fit, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--ckpt_path=last") == 2
    shown = capsys.readouterr().err
    assert f"lcg fit: nothing to resume in {out}: there is no whole checkpoint" in shown and "Traceback" not in shown
    assert not out.exists()
    assert fit("--ckpt_path=auto") == 0
    assert step_of(out / "prior.ckpt") == 10 and losses(out) == list(range(10))


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_checkpoint_that_is_not_there_is_named_before_anything_is_built(
    out: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["lcg"])
    words = [command, "--config", str(CONFIG), f"--trainer.default_root_dir={out}", "--ckpt_path", "runs/nowhere.ckpt"]
    assert cli.main(words) == 2
    shown = capsys.readouterr().err
    assert f"lcg {command}: there is no checkpoint at runs/nowhere.ckpt; `--ckpt_path last` takes the newest" in shown
    assert not out.exists()


def test_a_resumed_run_keeps_what_earlier_sittings_left(fit: Fit, out: Path) -> None:
    assert fit() == 0
    first = (out / "log" / "config.yaml").read_text()
    assert fit("--ckpt_path=last", steps=15) == 0
    assert losses(out) == list(range(15)) and step_of(out / "prior.ckpt") == 15
    assert (out / "log" / "config-1.yaml").read_text() == first
    assert yaml.safe_load((out / "log" / "config.yaml").read_text())["trainer"]["max_steps"] == 15
    sittings = record(out)["sittings"]
    assert [entry["steps"] for entry in sittings] == [10, 15]
    assert sittings[1]["resumed_from"] == str(out / "prior.ckpt") and sittings[0]["resumed_from"] is None
    assert load_sealed(out / "prior.ckpt")["callbacks"]["RunRecord"]["run"] == record(out)["run"]


def test_a_validation_leaves_the_metrics_of_the_training(fit: Fit, out: Path) -> None:
    assert fit() == 0
    assert fit("--ckpt_path=last", command="validate") == 0
    assert losses(out) == list(range(10)) and len(record(out)["sittings"]) == 1


@pytest.mark.slow
def test_a_run_that_begins_anew_is_another_run(fit: Fit, out: Path) -> None:
    assert fit() == 0
    before = record(out)["run"]
    (out / "prior.ckpt").rename(out / "prior-v1.ckpt")  # as if the new run had saved nothing yet
    shutil.copy(out / "prior-v1.ckpt", out / "kept")
    assert fit("--ckpt_path=auto", steps=1) == 0 and len(record(out)["sittings"]) == 2  # it is the newest of its run
    assert fit(steps=5) == 0
    assert record(out)["run"] != before and len(record(out)["sittings"]) == 1 and losses(out) == list(range(5))
    (out / "prior.ckpt").unlink()
    (out / "prior-v1.ckpt").touch()  # newer than anything of this run, and still another's
    assert fit("--ckpt_path=last") == 2


@pytest.mark.parametrize("how", ["truncated", "malicious"])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before_it(
    fit: Fit, out: Path, how: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Runs:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(out / "ran"),)

    assert fit() == 0
    path = out / "prior.ckpt"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3] if how == "truncated" else sealed({"state_dict": Runs()}))
    with caplog.at_level("INFO"):
        assert fit("--ckpt_path=last") == 0
    reason = "it cannot be read" if how == "truncated" else "it is no archive of tensors and plain values; nothing in"
    said = caplog.text + capfd.readouterr().err
    assert f"{path}: {reason}" in said
    assert f"Going on from the newest whole checkpoint, {path}.previous, of step 5" in said
    assert losses(out) == list(range(10)) and step_of(path) == 10 and not (out / "ran").exists()

    path.write_bytes(b"")
    previous_of(path).write_bytes(b"")
    assert fit("--ckpt_path=last") == 2
    assert fit(f"--ckpt_path={path}") == 2
    shown = capfd.readouterr().err
    assert "nothing to resume in" in shown and "prior.ckpt.previous is no better" in shown and "Traceback" not in shown


def test_sigterm_exits_143_and_last_goes_on(fit: Fit, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = "--trainer.callbacks+={'class_path': 'stops_of_the_tests.Stop'}"
    (out.parent / "stops_of_the_tests.py").write_text(
        "import os, signal\nfrom pytorch_lightning import Callback\n\n\nclass Stop(Callback):\n"
        "    def on_train_batch_start(self, trainer, *_):\n        if trainer.global_step == 7:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    monkeypatch.syspath_prepend(out.parent)
    assert fit(stop) == 143
    assert record(out)["sittings"][-1]["outcome"] == "stopped by SIGTERM" and losses(out) == list(range(8))
    assert step_of(out / "prior-interrupted.ckpt") == 8
    assert fit("--ckpt_path=last") == 0
    assert losses(out) == list(range(10)) and not (out / "prior-interrupted.ckpt").exists()


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_second_fit_in_one_folder_is_refused(
    fit: Fit, out: Path, fork: Fork, ended: Ended, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(steps=5) == 0
    process = fork(lambda: (lock(out), (out / "locked").touch(), signal.pause()))
    while not (out / "locked").exists():
        os.sched_yield()
    assert fit() == 2
    shown = capsys.readouterr().err
    assert f"lcg fit: process {process} on " in shown and f"is fitting in {out}; wait for it, or give" in shown
    assert losses(out) == list(range(5)) and len(record(out)["sittings"]) == 1  # nothing of the first was touched
    os.kill(process, signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
    assert fit("--ckpt_path=last") == 0


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="root alone can become somebody else")
def test_a_folder_that_cannot_be_written_is_refused_before_training(
    fit: Fit, out: Path, fork: Fork, ended: Ended, capfd: pytest.CaptureFixture[str]
) -> None:
    out.mkdir()
    out.chmod(0o555)
    for folder in (out.parent, *out.parent.parents[:-2]):  # all but /tmp and /
        folder.chmod(folder.stat().st_mode | 0o055)

    def as_nobody() -> None:
        os.setuid(NOBODY)
        os.environ["HOME"] = str(out.parent)
        raise SystemExit(fit())

    assert ended(fork(as_nobody)) == 2
    shown = capfd.readouterr().err
    assert f"lcg fit: {out}" in shown and "Permission denied" in shown and "Traceback" not in shown
    assert list(out.iterdir()) == []


def test_a_full_disk_ends_with_a_message_and_loses_nothing(
    fit: Fit, out: Path, fork: Fork, ended: Ended, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fit() == 0
    size = (out / "prior.ckpt").stat().st_size

    def on_a_full_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
        raise SystemExit(fit("--ckpt_path=last", steps=15))

    assert ended(fork(on_a_full_disk)) == 2
    shown = capfd.readouterr().err
    assert f"lcg fit: the checkpoint of step 15 could not be saved to {out}/prior.ckpt: File too large" in shown
    assert "go on with `--ckpt_path last`" in shown and "Traceback" not in shown
    assert record(out)["sittings"][-1]["outcome"].startswith("failed: CheckpointNotSavedError: the checkpoint of step")
    assert step_of(out / "prior.ckpt") == 10
    assert fit("--ckpt_path=last", steps=15) == 0 and losses(out) == list(range(15))


@pytest.mark.slow
def test_a_full_file_system_too(
    fit: Fit, out: Path, fork: Fork, ended: Ended, capfd: pytest.CaptureFixture[str]
) -> None:
    """Everything fails there, loggers and the record as well; what is said is about the checkpoint."""
    out.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(out))
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems can be mounted by root alone")
    try:
        assert fit(steps=5) == 0
        filler, chunk = (out / "filler").open("wb", buffering=0), b"0" * 4096
        with pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(chunk)
        filler.close()
        os.truncate(out / "filler", (out / "filler").stat().st_size - 16384)  # enough to begin
        assert ended(fork(lambda: exit(fit("--ckpt_path=last", steps=15)))) == 2
        shown = capfd.readouterr().err
        assert "could not be saved" in shown and "No space left on device" in shown and "Traceback" not in shown
        (out / "filler").unlink()
        assert step_of(out / "prior.ckpt") == 5
        assert fit("--ckpt_path=last") == 0
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)


def test_slurm_without_srun_is_one_message(
    fit: Fit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    assert fit("--config", str(ROOT / "configs" / "trainer" / "slurm.yaml")) == 2
    assert "SLURMEnvironment, but srun did not start this process; put `srun` before" in capsys.readouterr().err


# --- the record ------------------------------------------------------------------------------------------------------


def test_the_record_says_what_the_run_was(fit: Fit, out: Path, tmp_path: Path) -> None:
    assert fit(steps=3) == 0
    (sitting,) = record(out)["sittings"]
    assert sitting["versions"]["lcg"] == __version__ and sitting["versions"]["torch"] == str(torch.__version__)
    assert sitting["command"] == ["lcg"] and sitting["outcome"] == "finished" and sitting["steps"] == 3
    assert sitting["data"]["path"] == str(tmp_path / "tiny-0") and len(sitting["data"]["fingerprint"]) == 64
    assert sitting["git"]["working_directory"] is None and sitting["world_size"] == 1
    assert sitting["started"] <= sitting["ended"] and sitting["precision"] == "32-true"


def test_the_record_says_what_went_wrong(fit: Fit, out: Path) -> None:
    assert fit("--model.start_from=nowhere.ckpt") == 2
    assert record(out)["sittings"][-1]["outcome"].startswith("failed: FileNotFoundError: no denoiser at nowhere.ckpt")
    assert fit(steps=1) == 0  # the folder is free again


def test_a_folder_without_locks_is_used_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked .*not supported.*; see to it that no other fit works in it"):
        lock(tmp_path).close()


# --- what the Trainer's options do with our modules ------------------------------------------------------------------


@pytest.mark.slow
def test_gradients_are_accumulated(fit: Fit, out: Path) -> None:
    assert fit("--trainer.accumulate_grad_batches=2", steps=6) == 0  # three a epoch: 2 + 2 + 1 batches
    assert step_of(out / "prior.ckpt") == 6 and load_sealed(out / "prior.ckpt")["epoch"] == 1


@pytest.mark.slow
def test_training_stops_early(fit: Fit, out: Path) -> None:
    patience = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "patience": 0, "min_delta": 1e9}}
    fitted = fit(f"--trainer.callbacks+={json.dumps(patience)}", "--trainer.check_val_every_n_epoch=1", steps=100)
    assert fitted == 0
    assert step_of(out / "prior.ckpt") == 10  # the second validation is no better than the first
    assert record(out)["sittings"][-1]["outcome"] == "finished"
