"""The folder of a training: which one it is, that it can be written to, and that only one fit works in it.

The lock is the kernel's (flock), so nothing has to be cleaned up after a process that was killed.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any, TextIO

from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_warn

from lcg.data.atomic import write_atomic

RECORD = "run.json"
LOCK = ".run.lock"


def run_folder(trainer: Trainer) -> Path:
    """The folder of a run: the Trainer's `default_root_dir`, or the one that its first logger numbers."""
    logger = trainer.loggers[0] if trainer.loggers else None
    if logger is not None and isinstance(logger.version, int) and logger.log_dir:
        return Path(logger.log_dir)
    return Path(trainer.default_root_dir)


def read_record(folder: Path) -> dict[str, Any]:
    """`run.json` of a folder; empty when there is none or it cannot be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("sittings"), list) else {}


def check_writable(folder: Path) -> None:
    """Makes the folder if need be, and raises OSError now if what a fit saves could not be written there later."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".{os.getpid()}.writable"
    probe.touch()
    probe.unlink()


def lock(folder: Path) -> TextIO:
    """An open file that holds the folder's lock until it is closed, or its process ends in whatever way.

    Raises:
        ValueError: another process holds it.
    """
    file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115  # stays open as long as the lock is held
    try:
        import fcntl  # not on every system

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read() or "another process"
        file.close()
        raise ValueError(
            f"{holder} is fitting in {folder}; wait for it, or give this fit a folder of its own with --out"
        ) from None
    except (OSError, ImportError) as error:
        rank_zero_warn(f"{folder} cannot be locked ({error}); see to it that no other fit works in it")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    return file


def keep_config(folder: Path, sittings: int) -> None:
    """Copies the config.yaml in `folder`, which the coming sitting overwrites, to config-SITTINGS.yaml beside it.

    One that was kept already is not kept again: a job that is requeued a hundred times has one or two.
    """
    config = folder / "config.yaml"
    if config.is_file():
        text = config.read_bytes()
        if all(kept.read_bytes() != text for kept in folder.glob("config-*.yaml")):
            write_atomic(folder / f"config-{sittings}.yaml", text)
