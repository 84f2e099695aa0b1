"""Reading a latent store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcg.data.statistics import Statistics
from lcg.data.store.checks import check_index, check_labels, check_latents
from lcg.data.store.manifest import NAME, Manifest
from lcg.data.store.shards import ROWS_AT_ONCE, MappedShard, sha256_of
from lcg.schema import Schema

Rows = slice | Sequence[int] | np.ndarray | Tensor
HOW_TO_MAKE_ONE = "make one with `lcg encode --config configs/data/avatars.yaml`, or give the folder of another"


class LatentStore:
    """A finished store, read only. Made by `open`; the constructor takes what `open` has checked.

    Row r of the store is the r-th in the order of writing, 0 <= r < len(store).
    """

    def __init__(self, path: Path, manifest: Manifest, statistics: Statistics, shards: Sequence[MappedShard]) -> None:
        self.path, self.manifest, self.statistics = path, manifest, statistics
        self._shards = shards
        self._starts = np.cumsum([0, *(shard.count for shard in manifest.shards)])

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> LatentStore:
        """Opens the store in the folder `path`. Headers are checked, contents are not: see `verify`.

        Raises:
            FileNotFoundError: there is no store, or one of its shards is missing.
            ValueError: the store is not finished, or the manifest or a shard is not what it should be.
        """
        folder = Path(path)
        if not (folder / NAME).is_file():
            raise FileNotFoundError(f"no latent store at {folder} (it has no {NAME}); {HOW_TO_MAKE_ONE}")
        manifest = Manifest.read(folder)
        if manifest.statistics is None:
            raise ValueError(
                f"the latent store at {folder} is not finished: it has {manifest.count} latents and no statistics; "
                "run the command that wrote it again, it goes on from there"
            )
        return cls(
            folder, manifest, manifest.statistics, [MappedShard.open(folder, manifest, s) for s in manifest.shards]
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return LatentStore.open, (
            self.path,
        )  # else a pickle, for a process of the data-parallel kind, holds all latents

    def __len__(self) -> int:
        return self.manifest.count

    def __repr__(self) -> str:
        return f"LatentStore({str(self.path)!r}, {len(self)} of {self.latent_shape}, {', '.join(self.schema.names)})"

    @property
    def schema(self) -> Schema:
        return self.manifest.schema

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.manifest.latent_shape

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.manifest.provenance

    @property
    def fingerprint(self) -> str:
        """SHA-256 that names exactly this data; it changes when the store grows."""
        return self.manifest.fingerprint

    def latents(self, rows: Rows = slice(None)) -> Tensor:
        """Raw latents (n, *latent_shape), float32, of the given rows. Raises as `index`."""
        return self._gather("latents", rows, np.float32)

    def labels(self, rows: Rows = slice(None)) -> Tensor:
        """Labels (n, A), float32, NaN where missing, of the given rows. Raises as `index`."""
        return self._gather("labels", rows, np.float32)

    def index(self, rows: Rows = slice(None)) -> Tensor:
        """The samples' numbers in their source (n,), int64, strictly increasing over the store.

        Args:
            rows: a slice, or integers in [0, len(store)).

        Raises:
            TypeError: rows are not integers.
            IndexError: a row is outside the store.
        """
        return self._gather("index", rows, np.int64)

    def verify(self) -> None:
        """Reads everything and compares it with what the manifest says.

        Raises:
            ValueError: a checksum differs, a latent is not finite, a label does not fit the schema, or the indices do
                not increase; the message names the shard.
        """
        last = -1
        for shard, mapped in zip(self.manifest.shards, self._shards, strict=True):
            path = self.path / shard.file
            found = sha256_of(path)
            if found != shard.sha256:
                raise ValueError(f"{path} is damaged: its SHA-256 is {found}, expected {shard.sha256}; copy it again")
            try:
                for start in range(0, shard.count, ROWS_AT_ONCE):
                    part = slice(start, start + ROWS_AT_ONCE)
                    index = np.asarray(mapped.index[part])
                    check_index(index, last)
                    check_latents(mapped.latents[part], index)
                    check_labels(mapped.labels[part], self.schema, index)
                    last = int(index[-1])
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error

    def _gather(self, name: str, rows: Rows, dtype: type) -> Tensor:
        positions = self._positions(rows)
        shard_of = np.searchsorted(self._starts, positions, side="right") - 1
        out = np.empty((len(positions), *getattr(self._shards[0], name).shape[1:]), dtype)
        for s in np.unique(shard_of):
            here = shard_of == s
            out[here] = getattr(self._shards[s], name)[positions[here] - self._starts[s]]
        return torch.from_numpy(out)

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
