"""Batches of latents, as fast as memory: one gather per batch from a tensor, no item is ever touched alone.

The order of epoch e is the permutation drawn from (seed, e) and from nothing else, so that a run that was killed in the
middle of an epoch goes on with exactly the batches that it had left (`state_dict`), and every rank of a distributed run
knows all ranks' orders without a word between them: rank r of W takes rows r, r + W, r + 2 W, ... of the permutation.

All ranks give the same number of batches. In training the rows that would make batches unequal are left out (others
each epoch). In evaluation every row is given exactly once, in batches that are nearly equal instead of one being short.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Tensor]


class Gather(Protocol):
    """Gives the batch of some rows. rows: (B,) int64; returns tensors whose first dimension is B."""

    def __call__(self, rows: Tensor) -> Batch: ...


class LatentBatches:
    """An iterable of batches that a Trainer takes as a loader. It shards itself over ranks, see the module.

    A plain iterable on purpose: the Trainer adds a distributed sampler only to a `DataLoader`, hence
    `Trainer(use_distributed_sampler=...)` makes no difference here.

    Args:
        gather: makes a batch from rows.
        rows: (N,) int64, the rows to go through.
        batch_size: rows per batch and rank, >= 1.
        shuffle: a new order each epoch, and equal batches; else the given order, and every row once.
        seed: of the order.

    Raises:
        ValueError: the batch size is not positive or there are no rows.
    """

    def __init__(self, gather: Gather, rows: Tensor, batch_size: int, *, shuffle: bool = False, seed: int = 0) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be >= 1, got {batch_size}")
        if len(rows) == 0:
            raise ValueError("`rows` must not be empty; encode more samples or change the validation fraction")
        self.gather, self.rows, self.batch_size, self.shuffle, self.seed = gather, rows, batch_size, shuffle, seed
        self.epoch = 0
        self._done = 0  # batches given in this epoch
        self._skip = 0  # batches that a resumed epoch has had already

    def __len__(self) -> int:
        """Batches in an epoch, the same on every rank."""
        _, world = _rank_and_world()
        per_rank = self._per_rank(world)
        if self.shuffle:
            return max(1, per_rank // self.batch_size)
        longest = -(-len(self.rows) // world)
        return min(per_rank, -(-longest // self.batch_size))  # no rank may end up with an empty batch

    def __iter__(self) -> Iterator[Batch]:
        for rows in self._epoch_rows()[self._start() :]:
            self._done += 1  # before the batch is given: a checkpoint made while it is in use must not repeat it
            yield self.gather(rows)

    # Where a DataLoader keeps its order, and the Trainer looks for `set_epoch`.
    batch_sampler = None

    @property
    def sampler(self) -> LatentBatches:
        """Itself, the keeper of the order."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration. An epoch that is being resumed keeps its place."""
        if epoch != self.epoch:
            self.epoch, self._skip, self._done = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """The place in the epoch."""
        return {"epoch": self.epoch, "batch": self._done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """The next iteration goes on from that place."""
        self.epoch, self._skip, self._done = state["epoch"], state["batch"], state["batch"]

    def _start(self) -> int:
        start, self._skip = self._skip, 0
        self._done = start
        return start

    def _per_rank(self, world: int) -> int:
        if len(self.rows) < world:
            raise ValueError(f"{len(self.rows)} rows cannot be shared by {world} processes; use fewer, or more samples")
        return len(self.rows) // world

    def _epoch_rows(self) -> list[Tensor]:
        """The rows of each of this rank's batches in this epoch."""
        rank, world = _rank_and_world()
        batches = len(self)
        if not self.shuffle:
            return list(torch.tensor_split(self.rows[rank::world], batches))
        # numpy, because torch's generator on the CPU keeps only 32 bits of a seed and cannot be seeded with a pair
        pair = np.random.SeedSequence(self.seed, spawn_key=(self.epoch,))
        order = torch.from_numpy(np.random.default_rng(pair).permutation(len(self.rows)))
        mine = self.rows[order[rank::world]][: batches * self.batch_size]
        return list(torch.split(mine[: self._per_rank(world)], self.batch_size))


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
