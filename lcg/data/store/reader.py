"""Reading a latent store."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lcg.data.statistics import Statistics
from lcg.data.store.gather import RowReader
from lcg.data.store.manifest import NAME, Manifest
from lcg.data.store.remote import fetch, is_remote
from lcg.data.store.shards import ShardFile
from lcg.data.store.statistics_file import read_statistics
from lcg.data.store.verify import Report, inspect
from lcg.schema import Schema

Rows = slice | Sequence[int] | np.ndarray | Tensor
HOW_TO_MAKE_ONE = "make one with `lcg encode --config configs/data/avatars.yaml`, or give the folder of another"


class LatentStore:
    """A finished store, read only. Made by `open`; the constructor takes what `open` has checked.

    Row r of the store is the r-th in the order of writing, 0 <= r < len(store).

    Example:
        >>> import tempfile
        >>> from lcg.data.store import LatentStoreWriter
        >>> from lcg.schema import Attribute, Schema
        >>> folder = tempfile.mkdtemp()
        >>> writer = LatentStoreWriter(folder, (4,), Schema((Attribute("hat"),)), provenance={})
        >>> writer.append(torch.randn(10, 4), torch.ones(10, 1), torch.arange(10))
        >>> _ = writer.finish()
        >>> store = LatentStore.open(folder)
        >>> len(store), store.latent_shape, store.labels([0, 1]).tolist()
        (10, (4,), [[1.0], [1.0]])
        >>> store.statistics.standardise(store.latents()).mean(0).abs().max().item() < 1e-5
        True
    """

    def __init__(self, path: Path, manifest: Manifest, statistics: Statistics, files: Sequence[ShardFile]) -> None:
        self.path, self.manifest, self.statistics = path, manifest, statistics
        self._rows = RowReader(files)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> LatentStore:
        """Opens the store in the folder `path`. Headers are checked, contents are not: see `verify`.

        Links to shards elsewhere are followed, for caches that share files between folders: nothing is ever written
        through one, and what is no shard is refused wherever it lies.

        Args:
            path: a folder, or an address such as "s3://bucket/store" or "https://host/store", from which the store is
                fetched once (`lcg.data.store.remote`).

        Raises:
            FileNotFoundError: there is no store, or one of its shards is missing.
            ValueError: the store is not finished, or the manifest or a shard is not what it should be.
            OSError: an address cannot be reached.
            ImportError: the package for this kind of address is not installed.
        """
        folder = fetch(os.fspath(path)) if is_remote(path) else Path(path)
        if not (folder / NAME).is_file():
            raise FileNotFoundError(f"no latent store at {folder} (it has no {NAME}); {HOW_TO_MAKE_ONE}")
        manifest = Manifest.read(folder)
        statistics = read_statistics(folder, manifest)
        if statistics is None:
            raise ValueError(
                f"the latent store at {folder} is not finished: it has {manifest.count} latents and no statistics; "
                "run the command that wrote it again, it goes on from there"
            )
        return cls(folder, manifest, statistics, [ShardFile.open(folder, manifest, s) for s in manifest.shards])

    def __reduce__(self) -> tuple[Any, ...]:
        return LatentStore.open, (self.path,)  # open files do not go from process to process

    def __len__(self) -> int:
        return self.manifest.count

    def __repr__(self) -> str:
        return f"LatentStore({str(self.path)!r}, {len(self)} of {self.latent_shape}, {', '.join(self.schema.names)})"

    @property
    def schema(self) -> Schema:
        """The attributes that its labels are about."""
        return self.manifest.schema

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent, without the batch."""
        return self.manifest.latent_shape

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where its latents come from: source, generator, versions, as JSON."""
        return self.manifest.provenance

    @property
    def fingerprint(self) -> str:
        """SHA-256 that names exactly this data; it changes when the store grows."""
        return self.manifest.fingerprint

    def latents(self, rows: Rows = slice(None)) -> Tensor:
        """Raw latents (n, *latent_shape), float32, of the given rows. Raises as `index`."""
        return self._gather("latents", rows)

    def labels(self, rows: Rows = slice(None)) -> Tensor:
        """Labels (n, A), float32, NaN where missing, of the given rows. Raises as `index`."""
        return self._gather("labels", rows)

    def index(self, rows: Rows = slice(None)) -> Tensor:
        """The samples' numbers in their source (n,), int64, strictly increasing over the store.

        Args:
            rows: a slice, or integers in [0, len(store)).

        Raises:
            TypeError: rows are not integers.
            IndexError: a row is outside the store.
        """
        return self._gather("index", rows)

    def inspect(self, progress: Callable[[int], None] | None = None) -> Report:
        """Reads everything and tells all that is wrong with it, see `lcg.data.store.verify`.

        Args:
            progress: is called with the number of rows that were read, again and again; they sum to len(store).
        """
        return inspect(self.path, progress)

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Reads everything and compares it with what the manifest says.

        Args:
            progress: as in `inspect`.

        Raises:
            ValueError: a checksum differs, a latent is not finite, a label does not fit the schema, the indices do not
                increase, or the statistics are not those of the latents; the message names every damaged file.
        """
        self.inspect(progress).raise_if_damaged()

    def _gather(self, name: str, rows: Rows) -> Tensor:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._rows.run(name, start, stop)
        return self._rows.rows(name, self._positions(rows))

    def _positions(self, rows: Rows) -> np.ndarray:
        if isinstance(rows, slice):
            return np.arange(*rows.indices(len(self)))
        positions = np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows)
        if positions.size == 0:
            return np.zeros(0, np.int64)
        if positions.ndim != 1 or not np.issubdtype(positions.dtype, np.integer):
            raise TypeError(
                f"`rows` must be a slice or a row of integers, got {positions.dtype} of shape {positions.shape}; "
                "for a mask use `mask.nonzero()`"
            )
        low, high = int(positions.min()), int(positions.max())
        if low < 0 or high >= len(self):
            raise IndexError(f"`rows` must be in [0, {len(self)}), got {low if low < 0 else high}")
        return positions.astype(np.int64)
