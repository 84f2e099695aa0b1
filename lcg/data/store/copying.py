"""Rows of stores into another store, shard by shard: what merging and splitting have in common.

Which rows, and in which order, is a function of the stores alone, so that a job which was killed leaves out what is
stored already and goes on. Memory holds one shard, whatever the size of the stores; they are only read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lcg.data.store.reader import LatentStore
from lcg.data.store.writer import LatentStoreWriter
from lcg.schema import Schema

SHARD_BYTES = 64 * 2**20
"""Of latents in a shard, about."""
MAX_SHARD = 2**18
"""Rows of a shard, at most."""


@dataclass(frozen=True)
class Picks:
    """Rows, in the order in which they are written.

    Attributes:
        store: (n,) number of the store that each is from.
        row: (n,) int64, where it stands there.
        index: (n,) int64, the sample's number in the new store.
    """

    store: np.ndarray
    row: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, part: slice | np.ndarray) -> Picks:
        return Picks(self.store[part], self.row[part], self.index[part])

    @classmethod
    def joined(cls, parts: Sequence[Picks]) -> Picks:
        """One after another."""
        store, row, index = (np.concatenate([getattr(p, name) for p in parts]) for name in ("store", "row", "index"))
        return cls(store, row, index)


def rows_of_shard(latent_shape: Sequence[int], dtype: str) -> int:
    """How many rows make a shard of a handy size."""
    itemsize = 4 if dtype == "float32" else 2
    return max(1, min(MAX_SHARD, SHARD_BYTES // (math.prod(latent_shape) * itemsize)))


def copy(
    stores: Sequence[LatentStore],
    picks: Iterator[Picks],
    writer: LatentStoreWriter,
    schema: Schema,
    shard_size: int,
    bar: tqdm,
) -> LatentStore:
    """Writes the rows that are picked and not written yet; returns the finished store.

    Args:
        stores: where rows are from.
        picks: all of them, in pieces of any size.
        writer: of the new store.
        schema: of the new store; attributes that a store lacks are missing labels there.
        shard_size: rows stored together.
        bar: shows what is done.
    """
    for part in regrouped(picks, shard_size, skip=writer.count):
        latents, labels = gathered(stores, part, schema)
        writer.append(latents, labels, part.index)
        bar.update(len(part))
    return writer.finish()


def regrouped(picks: Iterator[Picks], size: int, skip: int = 0) -> Iterator[Picks]:
    """The same without the first `skip`, in pieces of `size`; the last may be smaller."""
    waiting: list[Picks] = []
    for piece in picks:
        left = piece[skip:]
        skip -= len(piece) - len(left)
        waiting.append(left)
        while sum(map(len, waiting)) >= size:
            whole = Picks.joined(waiting)
            waiting = [whole[size:]]
            yield whole[:size]
    if sum(map(len, waiting)):
        yield Picks.joined(waiting)


def gathered(stores: Sequence[LatentStore], picks: Picks, schema: Schema) -> tuple[Tensor, Tensor]:
    """Latents (n, *latent_shape) and labels (n, A) of some rows, float32."""
    latents = torch.empty((len(picks), *stores[0].latent_shape))
    labels = torch.full((len(picks), len(schema)), torch.nan)
    for number in np.unique(picks.store).tolist():
        here = torch.from_numpy((picks.store == number).nonzero()[0])
        store, rows = stores[number], picks.row[here.numpy()]
        latents[here] = store.latents(rows)
        columns = torch.tensor([schema.index(name) for name in store.schema.names], dtype=torch.int64)
        labels[here[:, None], columns] = store.labels(rows)
    return latents, labels
