"""Rows of arrays in files of others: .npy, .npz and .safetensors, some at a time, whatever the size of the file.

A file may come from a stranger: shapes and types are read from the header and checked, the rest are numbers. NumPy's
formats can hold pickled objects, which run code when they are loaded; these are refused unread.
"""

from __future__ import annotations

import math
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open

MAX_ROW = 2**28
"""Elements of a row; a header that says more is rather a mistake, or meant to fill the memory."""


class ArrayFile(ABC):
    """An array in a file.

    Attributes:
        name: of file and member, for messages.
        shape: (N, ...).
    """

    name: str
    shape: tuple[int, ...]

    @abstractmethod
    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start <= i < stop. Formats that are compressed are fast only where `start` goes up."""

    def _check(self, dtype: np.dtype | None) -> None:
        if dtype is not None and dtype.kind != "f":
            kind = "pickled objects" if dtype.hasobject else f"numbers of type {dtype}"
            raise ValueError(f"{self.name} holds {kind}, expected floating-point numbers; save it as float32")
        if not self.shape or min(self.shape) < 0 or math.prod(self.shape[1:]) > MAX_ROW:
            raise ValueError(f"{self.name} must have a row per sample, of at most {MAX_ROW} numbers, got {self.shape}")


def open_array(path: str | os.PathLike[str], member: str | None = None) -> ArrayFile:
    """The array in a file.

    Args:
        path: file in one of the formats, told by its ending.
        member: which of several arrays in one file; None for the only one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is of none of the formats, lacks the member, or holds something that is not
            floating-point numbers, such as pickled objects.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no file at {file}; give .npy, .npz or .safetensors files")
    kinds: dict[str, Callable[[Path, str | None], ArrayFile]] = {
        ".npy": NpyFile,
        ".npz": NpzFile,
        ".safetensors": SafetensorsFile,
    }
    kind = kinds.get(file.suffix.lower())
    if kind is None:
        raise ValueError(f"{file} must end in {', '.join(kinds)}, so that its format is known; save it as one of these")
    return kind(file, member)


class NpyFile(ArrayFile):
    """One array; mapped into memory if it is stored column by column."""

    def __init__(self, path: Path, member: str | None = None) -> None:
        self.name = str(path)
        if member is not None:
            raise ValueError(f"{path} holds one array without a name, got the name {member!r}; leave it out")
        try:
            with open(path, "rb") as file:
                self.shape, fortran, dtype = _header(file)
                offset = file.tell()
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path} is not a .npy file of numbers: {error}; save it with np.save") from error
        self._check(dtype)
        size, needed = path.stat().st_size, offset + math.prod(self.shape) * dtype.itemsize
        if size < needed:
            raise ValueError(f"{path} must have {needed} bytes for shape {self.shape}, got {size}; copy it again")
        self._path, self._dtype, self._offset = path, dtype, offset
        self._columns = np.memmap(path, dtype, "r", offset, self.shape, "F") if fortran and needed > offset else None

    def rows(self, start: int, stop: int) -> np.ndarray:
        stop = min(stop, self.shape[0])
        if self._columns is not None:
            return np.array(self._columns[start:stop])
        # Reading rather than mapping: mapped pages count as the process's memory until somebody else wants it.
        row = math.prod(self.shape[1:])
        offset = self._offset + start * row * self._dtype.itemsize
        data = np.fromfile(self._path, self._dtype, (stop - start) * row, offset=offset)
        return data.reshape(stop - start, *self.shape[1:])


class NpzFile(ArrayFile):
    """An array of an archive, which is unpacked as it is read; its memory never holds more than the rows asked for."""

    def __init__(self, path: Path, member: str | None = None) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{path} is not a .npz file: {error}; save it with np.savez") from error
        names = [name.removesuffix(".npy") for name in self._archive.namelist()]
        self._member, self._row = _chosen(path, names, member), 0
        self.name = f"{path}, {self._member!r}"
        try:
            self._open()
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"{self.name} is not an array of numbers: {error}; save it with np.savez") from error
        self._check(self._dtype)
        if self._fortran and len(self.shape) > 1:
            raise ValueError(
                f"{self.name} is stored column by column, so that no row can be read before the end; "
                "save np.ascontiguousarray of it"
            )

    def rows(self, start: int, stop: int) -> np.ndarray:
        shape = (min(stop, self.shape[0]) - start, *self.shape[1:])
        size = math.prod(self.shape[1:]) * self._dtype.itemsize
        try:
            if start < self._row:
                self._open()
            self._skip((start - self._row) * size)
            data = self._read(shape[0] * size)
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise ValueError(f"{self.name} is damaged: {error}; copy the file again") from error
        self._row = start + shape[0]
        return np.frombuffer(data, self._dtype).reshape(shape)

    def _open(self) -> None:
        """Begins at the first row (again)."""
        self._stream: IO[bytes] = self._archive.open(f"{self._member}.npy")
        self.shape, self._fortran, self._dtype = _header(self._stream)
        self._row = 0

    def _skip(self, size: int) -> None:
        while size > 0:
            size -= len(self._read(min(size, 2**20)))

    def _read(self, size: int) -> bytearray:
        data = bytearray()
        while len(data) < size:
            block = self._stream.read(size - len(data))
            if not block:
                raise EOFError("it ends before its last row")
            data += block
        return data


class SafetensorsFile(ArrayFile):
    """A tensor of a safetensors file, mapped into memory; bfloat16 is given as float32."""

    def __init__(self, path: Path, member: str | None = None) -> None:
        try:
            self._file: Any = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not a safetensors file: {error}; save it again") from error
        member = _chosen(path, list(self._file.keys()), member)
        self.name, self._slice = f"{path}, {member!r}", self._file.get_slice(member)
        self.shape = tuple(self._slice.get_shape())
        dtype = self._slice.get_dtype()
        if dtype not in ("F64", "F32", "F16", "BF16"):
            raise ValueError(f"{self.name} holds numbers of type {dtype}, expected floating-point; save it as float32")
        self._check(None)

    def rows(self, start: int, stop: int) -> np.ndarray:
        tensor = self._slice[start : min(stop, self.shape[0])]
        array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        return array


class Rows:
    """The rows of several arrays, one after another.

    Args:
        files: arrays whose rows have one shape.

    Raises:
        ValueError: shapes differ, or there is no row.
    """

    def __init__(self, files: Sequence[ArrayFile]) -> None:
        self.files, self.shape = files, files[0].shape[1:]
        for file in files:
            if file.shape[1:] != self.shape:
                raise ValueError(
                    f"{file.name} has rows of shape {file.shape[1:]}, {files[0].name} of {self.shape}; "
                    "import files of one generator together, others into another store"
                )
        self._starts = np.cumsum([0, *(file.shape[0] for file in files)])
        if len(self) == 0:
            raise ValueError(f"{files[0].name} has no rows; there is nothing to import")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start <= i < stop of all (n, *shape)."""
        parts = [
            file.rows(max(start - first, 0), min(stop - first, file.shape[0]))
            for file, first in zip(self.files, self._starts[:-1].tolist(), strict=True)
            if first < stop and start < first + file.shape[0]
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def where(self, row: int) -> str:
        """How a message names a row."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"row {row - int(self._starts[number])} of {self.files[number].name}"


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is stored column by column, and type, from the beginning of a .npy file."""
    version = npy.read_magic(file)
    if version != (1, 0):  # the others have headers of up to 4 GiB, which only arrays of structures need
        raise ValueError(f"version {version} of the format is for structures")
    return npy.read_array_header_1_0(file)


def _chosen(path: Path, names: Sequence[str], member: str | None) -> str:
    """The member that is meant."""
    listed = ", ".join(names[:20]) or "none"
    if member is None and len(names) != 1:
        raise ValueError(f"{path} holds {len(names)} arrays ({listed}); say which with `member`")
    if member is not None and member not in names:
        raise ValueError(f"{path} holds no array {member!r}; it holds: {listed}")
    return names[0] if member is None else member
