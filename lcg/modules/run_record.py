"""What a training was run with, kept in its folder: `run.json`, a callback.

    run           number of the run; its checkpoints carry it
    sittings      one entry for each time that a fit worked on it, the last one being the latest:
      command, versions, gpus, git, host, world_size, precision, data, started, resumed_from, ended, steps, outcome

`outcome` is `running`, `finished`, `stopped by SIGTERM`, or `failed: ...`; one that was killed stays `running`. A run
that is resumed adds a sitting, and a run that begins anew in the folder of another replaces its record.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import uuid
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning_fabric.utilities.cloud_io import _is_local_file_protocol
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_warn

from lcg import __version__
from lcg.data.atomic import write_atomic
from lcg.data.datamodule import LatentDataModule
from lcg.modules.metrics_file import continue_metrics
from lcg.modules.resume import places, run_of
from lcg.modules.run_folder import RECORD, check_writable, keep_config, lock, read_record, run_folder
from lcg.sealed import load_sealed


class RunRecord(Callback):
    """Keeps `run.json`, and the folder locked, while a fit lasts.

    `lcg fit` calls `begin` before the fit. A script should do so too when it resumes: a CSVLogger deletes its file when
    a fit sets it up, before any callback is asked. Without, the fit itself begins the record.

        record = RunRecord()
        trainer = Trainer(callbacks=[Survival(), record], plugins=[VerifiedCheckpointIO()])
        ckpt_path = resolve("auto", trainer)
        record.begin(trainer, ckpt_path)
        trainer.fit(model, data, ckpt_path=ckpt_path)

    Attributes:
        run: number of the run, once it has begun.
    """

    def __init__(self) -> None:
        self.run: str | None = None
        self._folder = Path()
        self._record: dict[str, Any] = {}
        self._lock: TextIO | None = None

    def begin(self, trainer: Any, ckpt_path: str | Path | None = None) -> None:
        """Locks the folder and opens the record of a sitting; what earlier sittings left stays.

        Args:
            trainer: with its callbacks and loggers, about to fit.
            ckpt_path: what the fit goes on from; None for a run that begins.

        Raises:
            ValueError: another fit is working in the folder.
            OSError: the folder, or that of the checkpoints, cannot be written to.
        """
        if not trainer.is_global_zero or trainer.fast_dev_run or not _is_local_file_protocol(trainer.default_root_dir):
            return
        self._folder = run_folder(trainer)
        for folder in dict.fromkeys((self._folder, *(folder for folder, _ in places(trainer)))):
            check_writable(folder)
        self._lock = lock(self._folder)
        record: dict[str, Any] = {}
        if ckpt_path is not None and Path(ckpt_path).is_file():
            checkpoint, record = load_sealed(ckpt_path, mmap=True), read_record(self._folder)
            if run_of(checkpoint) not in (None, record.get("run")):
                record = {}
            else:
                keep_config(Path(trainer.log_dir or self._folder), len(record.get("sittings", [])))
                for logger in trainer.loggers:
                    if isinstance(logger, CSVLogger):
                        continue_metrics(logger, int(checkpoint["global_step"]))
        self.run = record.get("run") or uuid.uuid4().hex
        self._record = {"run": self.run, "sittings": [*record.get("sittings", []), sitting(trainer, ckpt_path)]}
        self._write()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            if self._lock is None:
                self.begin(trainer, trainer.ckpt_path)
            self.run = trainer.strategy.broadcast(self.run)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, LatentDataModule):
            self._note(trainer, data={"path": os.path.abspath(data.path), "fingerprint": data.store.fingerprint})

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Logs are on the disk when the checkpoint is: a resumed run does not repeat what came before it."""
        for logger in trainer.loggers:
            logger.save()

    def state_dict(self) -> dict[str, Any]:
        return {"run": self.run}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.end(trainer, "finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.end(trainer, outcome_of(exception))

    def end(self, trainer: Trainer, outcome: str) -> None:
        """Closes the record of the sitting and gives the folder back; does nothing the second time."""
        if self._record:
            try:
                self._note(trainer, ended=now(), steps=trainer.global_step, outcome=outcome)
            except OSError as error:  # must not hide what ended the run: a full disk perhaps
                rank_zero_warn(f"{self._folder / RECORD} could not be written: {error}")
            self._record = {}
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}  # a spawned process keeps the record, and its parent the lock

    def _note(self, trainer: Trainer, **entries: Any) -> None:
        if self._record and trainer.is_global_zero:
            self._record["sittings"][-1].update(entries)
            self._write()

    def _write(self) -> None:
        write_atomic(self._folder / RECORD, json.dumps(self._record, indent=1).encode())


def sitting(trainer: Trainer, ckpt_path: str | Path | None) -> dict[str, Any]:
    """What is known when a sitting begins; JSON primitives."""
    return {
        "command": list(sys.argv),
        "versions": {
            "lcg": __version__,
            "torch": str(torch.__version__),
            "lightning": version("pytorch-lightning"),
            "python": platform.python_version(),
            "cuda": torch.version.cuda,
        },
        "gpus": [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())],
        "git": {"lcg": git_state(Path(__file__).parent), "working_directory": git_state(Path.cwd())},
        "host": platform.node(),
        "world_size": trainer.world_size,
        "precision": str(trainer.precision),
        "data": None,
        "started": now(),
        "resumed_from": None if ckpt_path is None else str(ckpt_path),
        "ended": None,
        "steps": None,
        "outcome": "running",
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit checked out in a folder, and whether tracked files differ from it; None where git has nothing."""
    words = ("git", "rev-parse", "HEAD"), ("git", "status", "--porcelain", "--untracked-files=no")
    try:
        commit, changes = (
            subprocess.run(word, cwd=folder, capture_output=True, text=True, check=True, timeout=20).stdout
            for word in words
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def outcome_of(exception: BaseException) -> str:
    """How a sitting ended that did not finish."""
    if isinstance(exception, SystemExit) and isinstance(exception.code, int) and exception.code > 128:
        return f"stopped by {signal.Signals(exception.code - 128).name}"
    if isinstance(exception, KeyboardInterrupt):
        return "stopped by SIGINT, nothing saved"
    return f"failed: {type(exception).__name__}: {exception}"


def now() -> str:
    """Date and time, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
