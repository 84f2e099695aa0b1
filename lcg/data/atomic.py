"""Files that are there whole or not at all, also after a power cut: write aside, fsync, rename, fsync the folder."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomic(path: Path, data: bytes, shared: bool = False) -> None:
    """Puts `data` at `path`, replacing what was there. A reader sees the old bytes or the new ones, nothing between.

    The name aside is fixed (`.NAME.tmp`), so that what a killed process left is overwritten by the next one. A file
    that several processes may write at once is `shared`: then each has a name aside of its own (`.NAME.PID.tmp`).
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp" if shared else f".{path.name}.tmp")
    with open(aside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    if os.name == "posix":  # elsewhere a folder cannot be opened; the rename itself is still atomic
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
