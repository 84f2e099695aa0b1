"""Batches of latents, as fast as memory: one gather per batch, no item is ever touched alone.

The order of epoch e is drawn from (seed, e) and from nothing else (`lcg.data.order`), so that a run that was killed in
the middle of an epoch goes on with exactly the batches that it had left (`state_dict`), and every rank of a distributed
run knows all ranks' orders without a word between them: rank r of W takes rows r, r + W, r + 2 W, ... of the order. The
ranks' k-th batches together are then the k-th batch of one process with W times the batch size.

All ranks give the same number of batches. In training the rows that would make batches unequal are left out (others
each epoch). In evaluation every row is given exactly once, in batches that are nearly equal instead of one being short.

Batches that have to be read first are gathered ahead by threads, not processes: a gather is a copy, for which Python's
lock is let go, and what a thread has gathered need not be sent anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from lcg.data.order import Strata, shuffled

Batch = dict[str, Tensor]
In = TypeVar("In")
Out = TypeVar("Out")
AHEAD = 4  # batches that may wait or be in the making, per worker


class Gather(Protocol):
    """Gives the batch of some rows. rows: (B,) int64; returns tensors whose first dimension is B."""

    def __call__(self, rows: Tensor) -> Batch: ...


class LatentBatches:
    """An iterable of batches that a Trainer takes as a loader. It shards itself over ranks, see the module.

    A plain iterable on purpose: the Trainer adds a distributed sampler only to a `DataLoader`, hence
    `Trainer(use_distributed_sampler=...)` makes no difference here.

    Args:
        gather: makes a batch from rows; called from several threads at once if there are workers.
        rows: (N,) integers, the rows to go through, kept as they are; or strata to draw them from, always shuffled.
        batch_size: rows per batch and rank, >= 1.
        shuffle: a new order each epoch, and equal batches; else the given order, and every row once.
        seed: of the order.
        workers: threads that gather batches ahead; 0 gathers each when it is asked for. The batches are the same.
        pin_memory: give batches in page-locked memory, which a CUDA device can copy while it computes.
        rows_from: what the rows were chosen by, JSON primitives. An epoch is only gone on with under the same.

    Raises:
        ValueError: the batch size is not positive, the number of workers is negative, or there are no rows.
    """

    def __init__(
        self,
        gather: Gather,
        rows: Tensor | np.ndarray | Strata,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 0,
        pin_memory: bool = False,
        rows_from: Mapping[str, Any] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be >= 1, got {batch_size}")
        if workers < 0:
            raise ValueError(f"`workers` must be >= 0, got {workers}; 0 makes each batch when it is asked for")
        if len(rows) == 0:
            raise ValueError("`rows` must not be empty; encode more samples or change the fractions of the split")
        self.gather, self.batch_size, self.seed = gather, batch_size, seed
        self.rows = rows if isinstance(rows, Strata) else np.asarray(rows)
        self.shuffle = shuffle or isinstance(rows, Strata)
        self.workers, self.pin_memory, self.rows_from = workers, pin_memory, dict(rows_from or {})
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
        start = self._start()
        for batch in ahead(self._make, self._epoch_rows(start), self.workers):
            self._done += 1  # before the batch is given: a checkpoint made while it is in use must not repeat it
            yield batch

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

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch, counted in batches that were given, and what the order of the epoch depends on."""
        return {"epoch": self.epoch, "batch": self._done, "batches": len(self), "order": self._order_from()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next iteration goes on from that place.

        Raises:
            ValueError: the place is within an epoch, and this loader has other batches for the rest of it.
        """
        own, saved = self._order_from(), state.get("order", {})  # checkpoints of earlier versions do not say
        changed = [f"{name} {saved[name]} -> {own[name]}" for name in own if name in saved and saved[name] != own[name]]
        if changed and 0 < state["batch"] < state["batches"]:
            raise ValueError(
                f"the checkpoint was made after batch {state['batch']} of {state['batches']} of an epoch, which cannot "
                f"be gone on with in another order; changed: {', '.join(changed)} (global_batch is batch_size x "
                "processes). Set them as they were, or resume from a checkpoint made at the end of an epoch"
            )
        self.epoch, self._skip, self._done = state["epoch"], state["batch"], state["batch"]

    def _order_from(self) -> dict[str, Any]:
        _, world = _rank_and_world()
        return {"seed": self.seed, "global_batch": self.batch_size * world, "rows": len(self.rows), **self.rows_from}

    def _start(self) -> int:
        start, self._skip = self._skip, 0
        self._done = start
        return start

    def _per_rank(self, world: int) -> int:
        if len(self.rows) < world:
            raise ValueError(f"{len(self.rows)} rows cannot be shared by {world} processes; use fewer, or more samples")
        return len(self.rows) // world

    def _make(self, rows: Tensor) -> Batch:
        batch = self.gather(rows)
        return {name: values.pin_memory() for name, values in batch.items()} if self.pin_memory else batch

    def _epoch_rows(self, start: int) -> Iterator[Tensor]:
        """The rows of each of this rank's batches in this epoch, from the batch `start` on."""
        rank, world = _rank_and_world()
        batches = len(self)
        mine, edges = self._order()[rank::world], np.arange(batches + 1)
        if self.shuffle:
            edges = np.minimum(edges * self.batch_size, self._per_rank(world))
        else:
            size, longer = divmod(len(mine), batches)
            edges = edges * size + np.minimum(edges, longer)
        for k in range(start, batches):
            yield torch.from_numpy(mine[edges[k] : edges[k + 1]].astype(np.int64))

    def _order(self) -> np.ndarray:
        if isinstance(self.rows, Strata):
            return self.rows.order(self.seed, self.epoch)
        return shuffled(self.rows, self.seed, self.epoch) if self.shuffle else self.rows


def ahead(function: Callable[[In], Out], items: Iterable[In], workers: int) -> Iterator[Out]:
    """`map(function, items)`, computed ahead by threads; the order is that of the items.

    An exception comes up where its result would have. When the iterator is closed, thrown away or used up, no thread
    is left.

    Args:
        function: safe to be called from several threads at once.
        items: taken one by one from the consumer's thread, never more than AHEAD per worker ahead of it.
        workers: number of threads; with 0 this is `map`.
    """
    if workers == 0:
        yield from map(function, items)
        return
    rest = iter(items)
    with _Pool(workers, thread_name_prefix="batches") as pool:
        waiting = deque(pool.submit(function, item) for item in islice(rest, AHEAD * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield result


class _Pool(ThreadPoolExecutor):
    """Leaves without doing what nobody waits for any more."""

    def __exit__(self, *error: object) -> None:
        self.shutdown(cancel_futures=True)


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
