"""The latent store: raw latents with their labels on disk, in shards that are mapped into memory.

    DIR/manifest.json             what there is (`lcg.data.manifest`)
    DIR/shard-00000.safetensors   "latents" (n, *latent_shape), "labels" (n, A) with NaN for missing, "index" (n,)

`index` is the number of a sample in its source: it increases strictly, names the sample in every message, and decides
on which side of the train/validation split the sample falls, however much the store grows.

Writing is one shard, then the manifest, each put in place by a rename. The manifest is the truth: a shard that it does
not list does not exist, so a process may be killed at any moment and the next one goes on after the last listed row.
Reading trusts nothing (no pickle, checked headers), and costs only the pages that are asked for: the arrays are mapped
at the offsets that the safetensors header gives (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor

from lcg.data.atomic import write_atomic
from lcg.data.manifest import NAME, Manifest, Shard, difference, plain
from lcg.data.statistics import Statistics
from lcg.schema import Schema

__all__ = ["LatentStore", "LatentStoreWriter", "Rows", "Statistics"]

Rows = slice | Sequence[int] | np.ndarray | Tensor
HOW_TO_MAKE_ONE = "make one with `lcg encode --config configs/data/avatars.yaml`, or give the folder of another"
SAFETENSORS_TYPES = {"float32": "F32", "float16": "F16", "int64": "I64"}
MAX_HEADER = 2**20  # bytes of a shard's header; an honest one has a few hundred
ROWS_AT_ONCE = 65536  # read or checked together


class LatentStore:
    """A finished store, read only. Made by `open`; the constructor takes what `open` has checked.

    Row r of the store is the r-th in the order of writing, 0 <= r < len(store).
    """

    def __init__(self, path: Path, manifest: Manifest, statistics: Statistics, shards: Sequence[_MappedShard]) -> None:
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
            folder, manifest, manifest.statistics, [_MappedShard.open(folder, manifest, s) for s in manifest.shards]
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
            found = _sha256(path)
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


class LatentStoreWriter:
    """Writes a store, or goes on writing one: the next sample to append is number `next_index`.

    Nothing is written into a folder that holds something else, and two processes that write one store notice it.

    Args:
        path: folder of the store, made when missing.
        latent_shape: shape of one latent.
        schema: the columns of the labels.
        provenance: JSON primitives; what makes the latents, such as the identities of source and generator.
        dtype: how latents are stored, "float32" or "float16".
        resume: go on when there is a store with the same shape, schema, provenance and type; refuse it otherwise.

    Raises:
        FileExistsError: there is a store and `resume` is off, or the folder holds something that is no store.
        ValueError: the store was written with other settings, or an argument is out of range.
        TypeError: `provenance` holds something that JSON cannot.
        OSError: the folder cannot be written; raised before any work is done.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        latent_shape: Sequence[int],
        schema: Schema,
        provenance: Mapping[str, Any],
        dtype: str = "float32",
        resume: bool = True,
    ) -> None:
        self.path = Path(path)
        self._manifest = Manifest(tuple(latent_shape), dtype, schema, plain(provenance, "provenance"))
        self._last_index = -1
        if (self.path / NAME).is_file():
            if not resume:
                raise FileExistsError(f"{self.path} is a latent store already; resume it, or choose another folder")
            self._take_over(Manifest.read(self.path))
        elif self.path.is_dir() and any(not name.startswith(".") for name in os.listdir(self.path)):
            raise FileExistsError(f"{self.path} is not empty and no latent store; choose another folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._commit(self._manifest)  # also proves that the folder can be written
        except OSError as error:
            reason = error.strerror or error
            message = f"cannot write a latent store to {self.path}: {reason}; choose another folder"
            raise OSError(error.errno, message) from error

    @property
    def count(self) -> int:
        """How many samples are safely stored."""
        return self._manifest.count

    @property
    def next_index(self) -> int:
        """The smallest index that may be appended: one more than the last stored."""
        return self._last_index + 1

    def append(self, latents: Tensor | np.ndarray, labels: Tensor | np.ndarray, index: Tensor | np.ndarray) -> None:
        """Stores one shard. When this returns the samples survive a kill; when it does not, none of them is stored.

        Args:
            latents: raw (n, *latent_shape), finite, n >= 1.
            labels: (n, A), NaN where missing.
            index: (n,) integers, strictly increasing and larger than all stored ones.

        Raises:
            ValueError: a shape is wrong, a latent is not finite (in the stored type), a label does not fit the schema,
                or the indices do not increase; the message names the sample.
            RuntimeError: another process writes the same store.
        """
        manifest = self._manifest
        array = _array(latents)
        if array.ndim == 0 or len(array) == 0 or array.shape[1:] != manifest.latent_shape:
            expected = ", ".join(["n >= 1", *map(str, manifest.latent_shape)])
            raise ValueError(f"`latents` must have shape ({expected}), got {array.shape}; check the encoder's output")
        label_array, index_array = _array(labels), _array(index)
        if label_array.shape != (len(array), len(manifest.schema)):
            raise ValueError(
                f"`labels` must have shape {(len(array), len(manifest.schema))}, one column for each of "
                f"{', '.join(manifest.schema.names)}; got {label_array.shape}"
            )
        if index_array.shape != (len(array),) or not np.issubdtype(index_array.dtype, np.integer):
            raise ValueError(f"`index` must be {len(array)} integers, got {index_array.dtype} {index_array.shape}")
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is refused below
            array = np.ascontiguousarray(array, dtype=manifest.dtype)
        label_array = np.ascontiguousarray(label_array, dtype=np.float32)
        index_array = np.ascontiguousarray(index_array, dtype=np.int64)
        check_index(index_array, self._last_index)
        check_latents(array, index_array)
        check_labels(label_array, manifest.schema, index_array)

        self._refuse_company()
        data = safetensors.numpy.save({"latents": array, "labels": label_array, "index": index_array})
        shard = Shard(f"shard-{len(manifest.shards):05d}.safetensors", len(array), hashlib.sha256(data).hexdigest())
        write_atomic(self.path / shard.file, data)
        self._commit(replace(manifest, shards=(*manifest.shards, shard), statistics=None))
        self._last_index = int(index_array[-1])

    def finish(self) -> LatentStore:
        """Writes the statistics of everything appended and returns the finished store; more may be appended later.

        Raises:
            ValueError: nothing was appended.
        """
        if self._manifest.statistics is None:
            mapped = [_MappedShard.open(self.path, self._manifest, shard) for shard in self._manifest.shards]
            self._refuse_company()
            self._commit(replace(self._manifest, statistics=Statistics.of(_chunks(mapped))))
        return LatentStore.open(self.path)

    def _take_over(self, found: Manifest) -> None:
        """Continues a store that is there, if it is the one that this writer would have made."""
        settings = ("latent_shape", "dtype", "schema", "provenance")
        old, new = ({name: _plain(getattr(_lasting(m), name)) for name in settings} for m in (found, self._manifest))
        for name in settings:
            changed = difference(old[name], new[name], name)
            if changed:
                raise ValueError(
                    f"the latent store at {self.path} was written with other settings: {changed}; "
                    "use the old settings, or choose another folder"
                )
        shards = [_MappedShard.open(self.path, found, shard) for shard in found.shards]
        if shards:
            self._last_index = int(shards[-1].index[-1])
        self._manifest = replace(found, provenance=self._manifest.provenance)

    def _commit(self, manifest: Manifest) -> None:
        text = manifest.to_json()
        write_atomic(self.path / NAME, text.encode())
        self._manifest, self._committed = manifest, text

    def _refuse_company(self) -> None:
        # No lock: locks outlive killed processes, or do not exist on network disks. The manifest changes every time.
        if (self.path / NAME).read_text(encoding="utf-8") != self._committed:
            raise RuntimeError(f"another process writes the latent store at {self.path}; stop one of the two")


def check_latents(latents: np.ndarray, index: np.ndarray) -> None:
    """Raises ValueError when a latent (n, *latent_shape) is not finite, naming its row and its sample."""
    bad = ~np.isfinite(latents).reshape(len(latents), -1).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"latent of row {row} (sample {index[row]}) is not finite in {latents.dtype}, and {int(bad.sum())} of "
            f"{len(latents)} rows are not; look at that sample's image and at the encoder's range"
        )


def check_labels(labels: np.ndarray, schema: Schema, index: np.ndarray) -> None:
    """Raises ValueError when a label (n, A) does not fit its attribute, naming attribute, row and sample."""
    for column, attribute in zip(labels.T, schema, strict=True):
        if attribute.kind == "continuous":
            bad, expected = np.isinf(column), "a finite number"
        else:
            top = 1 if attribute.kind == "binary" else len(attribute.values) - 1
            bad = ~((column >= 0) & (column <= top) & (column == np.floor(column)))
            expected = f"a whole number in [0, {top}]"
        bad &= ~np.isnan(column)
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"label {attribute.name!r} of row {row} (sample {index[row]}) must be {expected}, or NaN when it is "
                f"not known; got {column[row]}"
            )


def check_index(index: np.ndarray, last: int) -> None:
    """Raises ValueError unless the indices (n,) increase strictly and start above `last`."""
    steps = np.diff(index, prepend=np.int64(last))
    if (steps <= 0).any():
        row = int((steps <= 0).argmax())
        before = last if row == 0 else index[row - 1]
        raise ValueError(
            f"`index` must increase strictly, got {index[row]} after {before}, row {row}; sort the samples"
        )


@dataclass(frozen=True)
class _MappedShard:
    """The three arrays of a shard, as views of its mapped file."""

    latents: np.ndarray
    labels: np.ndarray
    index: np.ndarray

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, shard: Shard) -> _MappedShard:
        path = folder / shard.file
        if not path.is_file():
            raise FileNotFoundError(f"the latent store lacks its shard {path}; copy the whole folder again")
        shapes = {
            "latents": (manifest.dtype, (shard.count, *manifest.latent_shape)),
            "labels": ("float32", (shard.count, len(manifest.schema))),
            "index": ("int64", (shard.count,)),
        }
        try:
            offsets = _offsets(path, shapes)
        except ValueError as error:
            raise ValueError(f"{path} is not the shard that the manifest describes: {error}; copy it again") from error
        file = np.memmap(path, dtype=np.uint8, mode="r")

        def view(name: str) -> np.ndarray:
            dtype, shape = shapes[name]
            return np.ndarray(shape, np.dtype(dtype).newbyteorder("<"), buffer=file, offset=offsets[name])

        return cls(latents=view("latents"), labels=view("labels"), index=view("index"))


def _offsets(path: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, int]:
    """Where each array of a safetensors file begins, after checking that the header says exactly what is expected."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        try:
            header = json.loads(file.read(length).decode())
        except RecursionError as error:
            raise ValueError("a header nested too deeply") from error
    if not isinstance(header, dict) or set(header) - {"__metadata__"} != set(shapes):
        raise ValueError(f"its arrays must be {', '.join(shapes)}")
    offsets, used = {}, 0
    for name, (dtype, shape) in shapes.items():
        entry = header[name]
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        expected = {"dtype": SAFETENSORS_TYPES[dtype], "shape": list(shape)}
        if not isinstance(entry, dict) or {k: entry.get(k) for k in expected} != expected:
            raise ValueError(f"{name!r} must be {expected}")
        span = entry.get("data_offsets")
        if not (isinstance(span, list) and len(span) == 2 and all(type(offset) is int for offset in span)):
            raise ValueError(f"`data_offsets` of {name!r} must be two integers")
        if span[0] < 0 or span[1] - span[0] != nbytes or 8 + length + span[1] > size:
            raise ValueError(f"`data_offsets` of {name!r} must span {nbytes} bytes within the file, got {span}")
        offsets[name], used = 8 + length + span[0], used + nbytes
    if 8 + length + used != size:
        raise ValueError(f"the file must have {8 + length + used} bytes, got {size}")
    return offsets


def _chunks(shards: Sequence[_MappedShard]) -> Iterator[np.ndarray]:
    for shard in shards:
        for start in range(0, len(shard.latents), ROWS_AT_ONCE):
            yield shard.latents[start : start + ROWS_AT_ONCE]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # numpy knows no bfloat16
    return np.asarray(values)


def _lasting(manifest: Manifest) -> Manifest:
    """Without what changes when a source grows, the fingerprints of its files; a store keeps the newest."""
    return replace(manifest, provenance={k: v for k, v in manifest.provenance.items() if k != "fingerprints"})


def _plain(value: object) -> object:
    """A manifest's field as a value that `difference` can walk."""
    if isinstance(value, Schema):
        return {str(entry["name"]): entry for entry in value.to_dict()} | {"order": list(value.names)}
    return value
