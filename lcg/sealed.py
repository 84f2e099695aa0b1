"""Files of `torch.save` that can tell whether they are whole: each carries the SHA-256 of its own bytes.

    file = zip archive of torch.save, with a comment announced | "sha256:" | SHA-256 of all bytes before it, in hex

A zip archive may end with a comment, so `torch.load` and every other reader take a sealed file as they take any other,
and file and hash are one: they are put in place by one rename, and copied, moved and removed together.

The seal tells accidents (a full disk, a lost page, a flipped bit). It does not tell who wrote a file: that opening one
from a stranger runs no code is due to `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import torch

MARK = b"sha256:"
SEAL = len(MARK) + 64
"""Bytes of the comment."""
END = b"PK\x05\x06"
"""How the last record of a zip archive begins; 16 bytes, the length of the comment in 2, and the comment follow."""

CHUNK = 1 << 22
DAMAGE = (OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, AttributeError)
"""What reading a file that is no archive, or a broken one, ends in; beside what unpickling refuses."""


class DamagedError(ValueError):
    """A file is not whole, or not what it should be. `reason` says so without naming the file."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def sealed(content: dict[str, Any]) -> memoryview:
    """The bytes of a sealed file with this content."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(-2, io.SEEK_END)  # the length of the comment, 0 so far
    buffer.write(struct.pack("<H", SEAL) + MARK)
    buffer.write(hashlib.sha256(buffer.getbuffer()).hexdigest().encode())
    return buffer.getbuffer()


def check_seal(path: Path) -> bool:
    """Whether a file carries a seal; it is then whole.

    Returns:
        False when there is none to go by: other programs wrote the file, or it was cut off.

    Raises:
        DamagedError: the seal is not that of the bytes before it.
        OSError: the file cannot be read.
    """
    size, digest = path.stat().st_size, hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(max(0, size - len(END) - 18 - SEAL))
        _, end, comment = file.read().rpartition(END)
        if not end:
            return False
        announced, seal = comment[16:18], comment[18:]
        if announced != struct.pack("<H", len(seal)):
            raise DamagedError(path, "it was cut off at its end")
        if len(seal) != SEAL or not seal.startswith(MARK):
            return False
        file.seek(0)
        left = size - 64
        while left and (chunk := file.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    if digest.hexdigest().encode() != seal[len(MARK) :]:
        raise DamagedError(path, "its SHA-256 is not the one it was saved with")
    return True


def load_sealed(
    path: str | PathLike[str],
    map_location: Callable[..., Any] | torch.device | str | None = "cpu",
    weights_only: bool = True,
    mmap: bool = False,
) -> dict[str, Any]:
    """Reads a file of `torch.save` that holds a mapping; if it is sealed, its bytes are checked first.

    Args:
        path: the file.
        map_location: as `torch.load` has it.
        weights_only: False runs whatever code the file holds.
        mmap: leave the tensors in the file until they are used.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is not whole, not a mapping, or holds what is neither tensor nor plain value.
    """
    path = Path(path)
    check_seal(path)
    try:
        mmap = mmap and zipfile.is_zipfile(path)  # there is no other way to tell why another file is refused
        content = torch.load(path, map_location=map_location, weights_only=weights_only, mmap=mmap)
    except pickle.UnpicklingError as error:
        reason = "it is no archive of tensors and plain values; nothing in it was run"
        raise DamagedError(path, reason) from error
    except DAMAGE as error:
        raise DamagedError(path, f"it cannot be read ({str(error).partition(chr(10))[0]})") from error
    if not isinstance(content, dict):
        raise DamagedError(path, f"it holds a {type(content).__name__}, not a checkpoint")
    return content
