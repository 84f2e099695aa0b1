"""How a Trainer writes and reads checkpoints, so that there is a whole one at every moment: a CheckpointIO plugin.

    Trainer(plugins=[VerifiedCheckpointIO()])          `lcg fit` has it without being asked

A checkpoint is written aside, forced to the disk, read back and compared, and only then renamed into its place; the
file that it replaces stays beside it as NAME.previous. Every file carries its SHA-256 (`lcg.sealed`). One that turns
out damaged when it is loaded, or was put there by somebody else to run code, is not used: the previous one is, and a
message says so.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_fabric.utilities.cloud_io import _is_local_file_protocol
from pytorch_lightning.utilities import rank_zero_info

from lcg.data.atomic import sync_folder
from lcg.sealed import CHUNK, DamagedError, check_seal, load_sealed, sealed

PREVIOUS = ".previous"


class CheckpointNotSavedError(OSError):
    """The disk is full or refuses; the checkpoint before is still there."""


class VerifiedCheckpointIO(TorchCheckpointIO):
    """Checkpoints on a local disk that are whole, verified, and kept for one generation more.

    Paths with another protocol (`s3://...`) are left to Lightning, as is their atomicity.
    """

    def __init__(self) -> None:
        self._own: set[Path] = set()  # what this run has written, or goes on from

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Puts a checkpoint at `path`; what was there becomes the previous generation.

        Raises:
            CheckpointNotSavedError: the disk is full or refuses to be written; what was there is still there.
        """
        if storage_options is not None or not _is_local_file_protocol(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        aside = path.with_name(f".{path.name}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_verified(aside, sealed(checkpoint))
            own = path.resolve() in self._own
            if own and path.is_file():
                keep_previous(path)
            os.replace(aside, path)
            if not own:  # a run that begins anew has replaced another run's checkpoint: its previous one goes as well
                previous_of(path).unlink(missing_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            aside.unlink(missing_ok=True)
            there = "the one before it is still there" if path.is_file() else "none was there before"
            raise CheckpointNotSavedError(
                f"the checkpoint of step {checkpoint.get('global_step', '?')} could not be saved to {path}: "
                f"{error.strerror or error}; {there}. Make room, then go on with `--ckpt_path last`"
            ) from error
        self._own.add(path.resolve())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint, or the generation before it when it is damaged; with `weights_only` unless it is False.

        Raises:
            FileNotFoundError: there is neither.
            DamagedError: neither is whole.
        """
        if not _is_local_file_protocol(path):
            return super().load_checkpoint(path, map_location, weights_only is not False)
        whole = whole_generation(Path(path), weights_only is not False)
        self._own.add(whole.with_name(whole.name.removesuffix(PREVIOUS)).resolve())
        return load_sealed(whole, map_location, weights_only is not False)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint and its previous generation."""
        super().remove_checkpoint(path)
        if _is_local_file_protocol(path):
            previous_of(Path(path)).unlink(missing_ok=True)


def previous_of(path: Path) -> Path:
    """Where the checkpoint goes that the one at `path` replaces."""
    return path.with_name(path.name + PREVIOUS)


def whole_generation(path: Path, weights_only: bool = True) -> Path:
    """`path`, or its previous generation when it is not whole; the change is said.

    Raises:
        FileNotFoundError: there is neither.
        DamagedError: neither is whole.
    """
    previous = previous_of(path)
    try:
        if not path.is_file():
            raise FileNotFoundError(f"there is no checkpoint at {path}; `--ckpt_path last` takes the newest of a run")
        load_sealed(path, weights_only=weights_only, mmap=True)
        return path
    except (FileNotFoundError, DamagedError) as error:
        reason = error.reason if isinstance(error, DamagedError) else "it is missing"
        try:
            step = load_sealed(previous, weights_only=weights_only, mmap=True).get("global_step", "?")
        except FileNotFoundError:
            if isinstance(error, FileNotFoundError):
                raise error from None
            advice = "there is no previous one; give another checkpoint, or train again without --ckpt_path"
            raise DamagedError(path, f"{reason}; {advice}") from error
        except DamagedError as second:
            advice = f"{previous.name} is no better: {second.reason}; train again without --ckpt_path"
            raise DamagedError(path, f"{reason}, and {advice}") from error
        rank_zero_info(f"{path}: {reason}. Using the one before it, {previous}, of step {step}")
        return previous


def keep_previous(path: Path) -> None:
    """Makes the file at `path` its previous generation, unless it is damaged; `path` is there throughout."""
    try:
        if not check_seal(path) and not zipfile.is_zipfile(path):
            return
    except DamagedError:
        return
    previous = previous_of(path)
    link = path.with_name(f".{previous.name}.tmp")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
        os.replace(link, previous)
    except OSError:  # a file system without hard links: for a moment there is only the previous one
        os.replace(path, previous)
    finally:
        link.unlink(missing_ok=True)  # a rename between two names of one file leaves both


def write_verified(path: Path, data: memoryview) -> None:
    """Writes a file, forces it to the disk and reads it back.

    Raises:
        OSError: it cannot be written, or what is read is not what was written.
    """
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    with open(path, "rb") as file:  # views are compared byte by byte, bytes at once
        chunks = (bytes(data[start : start + CHUNK]) for start in range(0, len(data), CHUNK))
        same = all(file.read(len(chunk)) == chunk for chunk in chunks) and not file.read(1)
    if not same:
        raise OSError("what was read back is not what was written")
