"""Rows from many files, at random and in order, without holding any of them in memory.

A row is read with one `pread`. Beside a map of the file this has three merits: pages of the cache do not count as
memory of the process, a file that somebody shortens is an error instead of a signal that kills, and where rows are not
in the cache the system can be told of the whole batch before the first is waited for, so that the disk has many
requests at once. Maps that are given back again and again to keep memory small are slower, and those that are not take
as much memory as the store; figures are in `experiments/08_latent_store`.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from lcg.data.store.shards import ShardFile, decoded, read_fully

BLOCK = 2**20
"""Bytes that are read before they are converted: they fit a processor's cache."""

BATCH = 2**22
"""Bytes of rows that are gathered together, but at least of one row."""

PROBES = 32
"""Rows of a batch that are asked whether they are in the page cache; of a twentieth missing, they tell of mostly."""


class RowReader:
    """Reads rows of the arrays of some shards, which together are one table. Threads and forked processes may share it.

    Args:
        files: the shards, in row order.
        descriptors: files that are kept open; those beyond are opened for each batch that needs them. None for half
            of what the process may have.
    """

    def __init__(self, files: Sequence[ShardFile], descriptors: int | None = None) -> None:
        self._files = files
        self._starts = np.cumsum([0, *map(len, files)])
        self._offsets = {name: np.array([f.arrays[name].offset for f in files]) for name in files[0].arrays}
        self._limit = _half_of_allowed() if descriptors is None else descriptors
        self._kept: dict[int, int] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._kept)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def run(self, name: str, start: int, stop: int) -> Tensor:
        """Rows start <= r < stop of an array: latents and labels in float32, indices in int64."""
        out = self._empty(name, max(stop - start, 0))
        step = max(1, BLOCK // max(1, self._row_bytes(name)))  # a store without attributes has labels of no bytes
        buffer = memoryview(bytearray(step * self._row_bytes(name)))
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        done = 0
        while done < len(out):
            array = self._files[first].arrays[name]
            begin, end = start + done - self._starts[first], min(stop - self._starts[first], array.shape[0])
            with open(self._files[first].path, "rb", buffering=0) as file:
                file.seek(array.offset + begin * self._row_bytes(name))
                for here in range(begin, end, step):
                    rows = min(step, end - here)
                    read_fully(file, data := buffer[: rows * self._row_bytes(name)])
                    out[done : done + rows] = decoded(data, array.dtype, (rows, *array.shape[1:]))
                    done += rows
            first += 1
        return out

    def rows(self, name: str, positions: np.ndarray) -> Tensor:
        """The given rows (n,) of an array, in the order asked for; types as in `run`.

        Raises:
            ValueError: a file has become shorter than it was when the store was opened.
        """
        out = self._empty(name, len(positions))
        step = max(1, BATCH // max(1, self._row_bytes(name)))
        for begin in range(0, len(positions), step):
            part = positions[begin : begin + step]
            out[begin : begin + step] = self._block(name, part)
        return out

    def _block(self, name: str, positions: np.ndarray) -> Tensor:
        shards = np.searchsorted(self._starts, positions, side="right") - 1
        size, array = self._row_bytes(name), self._files[0].arrays[name]
        offsets = self._offsets[name][shards] + (positions - self._starts[shards]) * size
        with self._opened(shards) as descriptors:
            if not _cached(descriptors, offsets):
                order = np.lexsort((offsets, shards))
                _announce(descriptors[order], offsets[order], size)
            # One expression, so that no row costs a line of Python.
            data = bytearray().join(map(os.pread, descriptors.tolist(), repeat(size), offsets.tolist()))
        if len(data) != size * len(positions):
            raise ValueError(
                f"a shard in {self._files[0].path.parent} is shorter than it was; copy the latent store again"
            )
        return decoded(data, array.dtype, (len(positions), *array.shape[1:]))

    @contextmanager
    def _opened(self, shards: np.ndarray) -> Iterator[np.ndarray]:
        """An open file for each row (n,)."""
        needed, place = np.unique(shards, return_inverse=True)
        passing: list[int] = []
        try:
            found = []
            for shard in needed.tolist():
                descriptor = self._kept.get(shard)
                if descriptor is None:
                    descriptor = self._open(shard, passing)
                found.append(descriptor)
            yield np.array(found)[place]
        finally:
            for descriptor in passing:
                os.close(descriptor)

    def _open(self, shard: int, passing: list[int]) -> int:
        with self._lock:
            if shard not in self._kept:
                descriptor = os.open(self._files[shard].path, os.O_RDONLY | os.O_CLOEXEC)
                if len(self._kept) >= self._limit:
                    passing.append(descriptor)
                    return descriptor
                self._kept[shard] = descriptor
            return self._kept[shard]

    def _row_bytes(self, name: str) -> int:
        array = self._files[0].arrays[name]
        return array.nbytes // array.shape[0]

    def _empty(self, name: str, rows: int) -> Tensor:
        array = self._files[0].arrays[name]
        return torch.empty(rows, *array.shape[1:], dtype=torch.int64 if array.dtype == "int64" else torch.float32)


def _half_of_allowed() -> int:
    import resource

    return max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def _cached(descriptors: np.ndarray, offsets: np.ndarray) -> bool:
    """Whether rows seem to be in the page cache: then announcing them would only cost time."""
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    chosen, byte = slice(None, None, max(1, len(offsets) // PROBES)), bytearray(1)
    try:
        for descriptor, offset in zip(descriptors[chosen].tolist(), offsets[chosen].tolist(), strict=True):
            os.preadv(descriptor, [byte], offset, os.RWF_NOWAIT)
    except OSError:  # it would have to wait, or the file system cannot tell
        return False
    return True


def _announce(descriptors: np.ndarray, offsets: np.ndarray, size: int) -> None:
    """Tells the system which bytes will be read."""
    if hasattr(os, "posix_fadvise"):
        wanted = map(
            os.posix_fadvise, descriptors.tolist(), offsets.tolist(), repeat(size), repeat(os.POSIX_FADV_WILLNEED)
        )
        deque(wanted, maxlen=0)


def _close(kept: dict[int, int]) -> None:
    while kept:
        os.close(kept.popitem()[1])
