"""Writing a latent store: one shard, then the manifest, each put in place by a rename.

The manifest is the truth: a shard that it does not list does not exist, so a process may be killed at any moment and
the next one goes on after the last listed row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lcg.data.atomic import write_atomic
from lcg.data.statistics import Moments, Statistics, check_whitening
from lcg.data.store.checks import check_index
from lcg.data.store.manifest import NAME, SEAL, Manifest, Shard, StatisticsFile, difference, plain
from lcg.data.store.reader import LatentStore
from lcg.data.store.remote import is_remote
from lcg.data.store.shards import ShardFile, moments_of, write_shard
from lcg.data.store.statistics_file import read_statistics, write_statistics
from lcg.schema import Schema


class LatentStoreWriter:
    """Writes a store, or goes on writing one: the next sample to append is number `next_index`.

    Nothing is written into a folder that holds something else, and two processes that write one store notice it.

    Args:
        path: folder of the store, made when missing.
        latent_shape: shape of one latent.
        schema: the columns of the labels.
        provenance: JSON primitives; what makes the latents, such as the identities of source and generator.
        dtype: how latents are stored, "float32", "float16" or "bfloat16"; they are rounded to the nearest.
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
        if is_remote(path):
            raise ValueError(f"`path` must be a folder of this machine, got {path}; write there and upload the folder")
        self.path = Path(path)
        self._manifest = Manifest(tuple(latent_shape), dtype, schema, plain(provenance, "provenance"))
        self._last_index = -1
        if not (self.path / NAME).is_file() and self.path.is_dir() and not _empty(self.path):
            raise FileExistsError(f"{self.path} is not empty and no latent store; choose another folder")
        with self._in_words():
            self.path.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if (self.path / NAME).is_file():
                if not resume:
                    raise FileExistsError(f"{self.path} is a latent store already; resume it, or choose another folder")
                self._take_over(Manifest.read(self.path))
            with self._in_words():
                self._commit(self._manifest)  # also proves that the folder can be written

    @property
    def manifest(self) -> Manifest:
        """What is safely stored. Ranks that write shards of this store need it (`lcg.data.store.shards`)."""
        return self._manifest

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
        with self._alone():
            self._refuse_company()
            shard = write_shard(self.path, len(manifest.shards), manifest, latents, labels, index, self._last_index)
            self._commit(replace(manifest, shards=(*manifest.shards, shard), statistics=None))
        self._last_index = int(index[-1])

    def adopt(self, shards: Sequence[Shard], statistics: Statistics) -> LatentStore:
        """Finishes the store with shards that others have written (`write_shard`), in one step.

        Nothing happens when the manifest says exactly this already, so a job that is killed here may do it again.

        Args:
            shards: all of the store, in row order; those in the manifest are its beginning.
            statistics: of all their rows; merge the shards' moments in the same order.

        Raises:
            ValueError: the shards do not go on where the manifest ends, or the indices do not increase from one to the
                next.
            FileNotFoundError: a shard is missing.
            RuntimeError: another process writes the same store.
        """
        known = len(self._manifest.shards)
        if tuple(shards[:known]) != self._manifest.shards:
            raise ValueError(
                f"`shards` must begin with the {known} of the store at {self.path}, in its order; choose another folder"
            )
        last = -1
        for shard in shards:
            file = ShardFile.open(self.path, self._manifest, shard)
            check_index(file.read("index", slice(0, 1)), last)
            last = int(file.read("index", slice(-1, None))[0])
        self._seal(replace(self._manifest, shards=tuple(shards), statistics=None), statistics)
        self._last_index = last
        return LatentStore.open(self.path)

    def finish(self, whiten: bool = False) -> LatentStore:
        """Writes the statistics of everything appended and returns the finished store; more may be appended later.

        Call it when no other process writes shards of this store: what killed ones have left is removed.

        Args:
            whiten: standardise with the covariance of all elements (`lcg.data.statistics`).

        Raises:
            ValueError: nothing was appended, or latents have too many elements to be whitened.
            RuntimeError: another process writes the same store.
        """
        if whiten:
            check_whitening(self._manifest.latent_shape)
        statistics = None
        if self._manifest.whitened == whiten:
            statistics = read_statistics(self.path, self._manifest)
        if statistics is None:
            parts = (moments_of(self.path, self._manifest, shard, whiten) for shard in self._manifest.shards)
            first = next(parts, None)
            if first is None:
                raise ValueError("statistics need at least one latent, got none; append latents first")
            statistics = Statistics.from_moments(reduce(Moments.merge, parts, first), whiten)
        self._seal(self._manifest, statistics)
        return LatentStore.open(self.path)

    def _seal(self, manifest: Manifest, statistics: Statistics) -> None:
        """Writes what makes the store whole, and removes what killed processes have left."""
        with self._alone():
            self._refuse_company()
            self._commit(replace(manifest, statistics=write_statistics(self.path, statistics)))
            digest = hashlib.sha256(self._committed.encode()).hexdigest()
            write_atomic(self.path / SEAL, f"{digest}  {NAME}\n".encode())
            if not isinstance(self._manifest.statistics, StatisticsFile):
                (self.path / StatisticsFile.file).unlink(missing_ok=True)
            for left in self.path.glob(".shard-*.tmp"):
                left.unlink(missing_ok=True)

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
        files = [ShardFile.open(self.path, found, shard) for shard in found.shards]
        if files:
            self._last_index = int(files[-1].read("index", slice(-1, None))[0])
        self._manifest = replace(found, provenance=self._manifest.provenance)

    def _commit(self, manifest: Manifest) -> None:
        text, path = manifest.to_json(), self.path / NAME
        if path.is_file() and path.read_bytes() != text.encode():
            (self.path / SEAL).unlink(missing_ok=True)  # before what it is the seal of
        write_atomic(path, text.encode())
        self._manifest, self._committed = manifest, text

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Without other writers of this store meanwhile, where the system has locks; they end with their process."""
        try:
            import fcntl
        except ImportError:
            yield
            return
        with self._in_words():
            descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with suppress(OSError):  # some network disks have none; the manifest still tells most of the time
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _refuse_company(self) -> None:
        # Not the lock: a writer may be stopped for long between two shards, and whoever comes meanwhile may go on.
        if (self.path / NAME).read_text(encoding="utf-8") != self._committed:
            raise RuntimeError(f"another process writes the latent store at {self.path}; stop one of the two")

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            message = f"cannot write a latent store to {self.path}: {reason}; choose another folder"
            raise OSError(error.errno, message) from error


def _empty(folder: Path) -> bool:
    return all(name.startswith(".") for name in os.listdir(folder))


def _lasting(manifest: Manifest) -> Manifest:
    """Without what changes when a source grows, the fingerprints of its files; a store keeps the newest."""
    return replace(manifest, provenance={k: v for k, v in manifest.provenance.items() if k != "fingerprints"})


def _plain(value: object) -> object:
    """A manifest's field as a value that `difference` can walk."""
    if isinstance(value, Schema):
        return {str(entry["name"]): entry for entry in value.to_dict()} | {"order": list(value.names)}
    return value
