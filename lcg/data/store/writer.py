"""Writing a latent store: one shard, then the manifest, each put in place by a rename.

The manifest is the truth: a shard that it does not list does not exist, so a process may be killed at any moment and
the next one goes on after the last listed row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor

from lcg.data.atomic import write_atomic
from lcg.data.statistics import Statistics
from lcg.data.store.checks import check_index, check_labels, check_latents
from lcg.data.store.manifest import NAME, Manifest, Shard, difference, plain
from lcg.data.store.reader import LatentStore
from lcg.data.store.shards import MappedShard, chunks
from lcg.schema import Schema


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
            mapped = [MappedShard.open(self.path, self._manifest, shard) for shard in self._manifest.shards]
            self._refuse_company()
            self._commit(replace(self._manifest, statistics=Statistics.of(chunks(mapped))))
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
        shards = [MappedShard.open(self.path, found, shard) for shard in found.shards]
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
