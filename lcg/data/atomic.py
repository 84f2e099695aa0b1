"""Files that are there whole or not at all, also after a power cut: write aside, fsync, rename, fsync the folder."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomic(path: Path, data: bytes | memoryview, shared: bool = False) -> None:
    """Puts `data` at `path`, replacing what was there. A reader sees the old bytes or the new ones, nothing between.

    The name aside is fixed (`.NAME.tmp`), so that what a killed process left is overwritten by the next one. A file
    that several processes may write at once is `shared`: then each has a name aside of its own (`.NAME.PID.tmp`).
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp" if shared else f".{path.name}.tmp")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:  # a full disk, where what is half written takes the room that somebody needs
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Forces the names in a folder to the disk, so that a rename in it outlasts a power cut."""
    if os.name == "posix":  # elsewhere a folder cannot be opened; a rename is atomic all the same
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
