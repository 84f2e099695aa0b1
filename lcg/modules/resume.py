"""Where a run's checkpoints are, and which of them it goes on from.

    --ckpt_path last     the newest whole checkpoint of this run; an error when there is none
    --ckpt_path auto     the same, but a run that has none begins: what a job that a cluster starts again should say

A run's checkpoints are what its ModelCheckpoint callbacks write, what a signal made it leave (`lcg.modules.survival`),
and what Lightning leaves when SLURM requeues a job. Each carries the number of its run, by which those of another run
in the same folder are passed over (`lcg.modules.run_record`). Damaged ones are passed over too, and named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.cloud_io import _is_local_file_protocol
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_info

from lcg.modules.checkpoint_io import PREVIOUS
from lcg.sealed import DamagedError, load_sealed

LAST, AUTO = "last", "auto"
INTERRUPTED = "interrupted"


def resolve(ckpt_path: str | Path | None, trainer: Trainer, run: str | None = None) -> str | Path | None:
    """The checkpoint that `last` or `auto` stands for; other values are as they were.

    Args:
        ckpt_path: what the user gave.
        trainer: with its callbacks and loggers.
        run: number of the run, which a checkpoint must not contradict; None for any.

    Raises:
        ValueError: `last`, and there is none; or the checkpoints are not on a local disk.
    """
    if ckpt_path not in (LAST, AUTO):
        return ckpt_path
    folders = list(dict.fromkeys(folder_of(callback, trainer) for callback in savers(trainer)))
    for folder in folders:
        if not _is_local_file_protocol(folder):
            raise ValueError(
                f"`--ckpt_path {ckpt_path}` looks on local disks, the checkpoints are in {folder}; give a path"
            )
    found = newest(trainer, run)
    if found is None and ckpt_path == LAST:
        raise ValueError(
            f"nothing to resume in {', '.join(folders) or trainer.default_root_dir}: there is no whole checkpoint of "
            "this run; `--ckpt_path auto` begins when there is none, a path names another one"
        )
    return found


def newest(trainer: Trainer, run: str | None = None) -> Path | None:
    """The newest checkpoint of this run that is whole; those that are newer but damaged are named."""
    passed = []
    for path in sorted(candidates(trainer), key=lambda path: (path.stat().st_mtime_ns, path.suffix != PREVIOUS))[::-1]:
        try:
            checkpoint = load_sealed(path, mmap=True)
        except DamagedError as error:
            passed.append(str(error))
            continue
        if run is not None and run_of(checkpoint) not in (None, run):
            continue
        if passed:
            step = checkpoint.get("global_step", "?")
            rank_zero_info("\n".join((*passed, f"Going on from the newest whole checkpoint, {path}, of step {step}")))
        return path
    if passed:
        rank_zero_info("\n".join((*passed, "There is no whole checkpoint beside")))
    return None


def run_of(checkpoint: dict[str, Any]) -> str | None:
    """The number of the run that made a checkpoint; None for one of a Trainer without `RunRecord`."""
    state = checkpoint.get("callbacks", {}).get("RunRecord", {})
    return state.get("run") if isinstance(state, dict) else None


def candidates(trainer: Trainer) -> Iterator[Path]:
    """Files that may be checkpoints of this run."""
    for folder, name in places(trainer):
        for path in folder.rglob("*.ckpt*") if folder.is_dir() else ():
            if name.fullmatch(path.relative_to(folder).as_posix()) and path.is_file():
                yield path
    yield from Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt")  # what Lightning leaves under SLURM


def places(trainer: Trainer) -> Iterator[tuple[Path, re.Pattern[str]]]:
    """The local folders that this run's checkpoints are in, and what their names match, relative to the folder."""
    for callback in savers(trainer):
        folder = folder_of(callback, trainer)
        if _is_local_file_protocol(folder):
            names = (callback.filename or "{epoch}-{step}", callback.CHECKPOINT_NAME_LAST)
            any_value = [re.sub(r"\\\{.*?\\\}", ".*", re.escape(name)) for name in names]
            stems = "|".join((*any_value, re.escape(interrupted_name(callback))))
            yield Path(folder), re.compile(rf"({stems})(-v\d+)?\.ckpt({re.escape(PREVIOUS)})?")


def savers(trainer: Trainer) -> list[ModelCheckpoint]:
    """The callbacks that save checkpoints into a folder."""
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]


def interrupted_path(trainer: Trainer) -> str | None:
    """Where a run that is told to stop leaves its state; None for a run without checkpoints."""
    for callback in savers(trainer):
        return os.path.join(folder_of(callback, trainer), f"{interrupted_name(callback)}.ckpt")
    return None


def interrupted_name(callback: ModelCheckpoint) -> str:
    """Named after the callback's own files where these have one name, as several runs may share a folder then."""
    name = callback.filename
    return f"{name}-{INTERRUPTED}" if name and "{" not in name else INTERRUPTED


def folder_of(callback: ModelCheckpoint, trainer: Trainer) -> str:
    """The folder that a ModelCheckpoint writes to, also before a fit has told it."""
    if callback.dirpath is not None:
        return os.fspath(callback.dirpath)
    if not trainer.loggers:
        return os.path.join(trainer.default_root_dir, "checkpoints")
    logger = trainer.loggers[0]
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return os.path.join(logger.save_dir or trainer.default_root_dir, str(logger.name), version, "checkpoints")
