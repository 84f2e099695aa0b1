"""The order in which an epoch goes through rows: a function of (seed, epoch) and of nothing else.

Plain order is a permutation. Stratified order spreads every cell of rows evenly over the epoch: a cell with m draws has
draw j = 0 ... m - 1, a row from successive permutations of the cell's rows, placed at the key

    k_j = (j + u_j) / m,        u_j ~ U[0, 1),

and the epoch is all draws sorted by key. In any stretch of the epoch, keys from a to b, the cell has m (b - a) draws to
within 2, whatever u is: every batch has its share of every cell. (One u for the whole cell would do that, too, but two
cells of one size would take turns for a whole epoch, and each of two ranks would see only one of them.) This is
systematic sampling with jitter, one cell at a time (Cochran 1977, "Sampling Techniques", chapters 5 and 8).

Rows are held as uint32, four bytes each. A permutation takes four more. A stratified order holds key and row of each
draw in one uint64, sorts that in place, and takes sixteen at its peak.
"""

from __future__ import annotations

import numpy as np

AT_ONCE = 1 << 20  # draws whose keys are computed together
LOW = np.uint64(0xFFFFFFFF)
HIGH = np.uint64(32)


def row_type(count: int) -> np.dtype:
    """The smallest type that numbers so many rows."""
    return np.dtype(np.uint32 if count <= 2**32 else np.int64)


def randomness(seed: int, epoch: int) -> np.random.Generator:
    """Of one epoch. numpy's, because torch's on the CPU keeps 32 bits of a seed and cannot be seeded with a pair."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))


def shuffled(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The rows (N,) in the order of the epoch, a copy of their type."""
    return randomness(seed, epoch).permutation(rows)


class Strata:
    """Rows in cells, and how often each cell is drawn from in an epoch.

    Args:
        cells: (N,) the cell of each row, integers in [0, 2^32).
        rows: (N,) below 2^32.
    """

    def __init__(self, cells: np.ndarray, rows: np.ndarray) -> None:
        grouped = (cells.astype(np.uint64) << HIGH) | rows.astype(np.uint64)
        grouped.sort()
        self.rows = (grouped & LOW).astype(np.uint32)
        grouped >>= HIGH
        edges = np.flatnonzero(np.diff(grouped)) + 1
        self.starts = np.concatenate(([0], edges, [len(rows)]))
        self.cells = grouped[self.starts[:-1]].astype(np.int64)
        self.draws = self.counts

    @property
    def counts(self) -> np.ndarray:
        """Rows in each occupied cell, (C,)."""
        return np.diff(self.starts)

    def share(self, shares: np.ndarray) -> Strata:
        """Draws from the cells in the given proportions, as many draws as there are rows.

        Args:
            shares: (C,) one for each of `cells`, not negative, not all zero. They are met to within one draw an epoch.
        """
        exact = shares / shares.sum() * len(self.rows)
        self.draws = np.floor(exact).astype(np.int64)
        short = len(self.rows) - int(self.draws.sum())
        self.draws[np.argsort(self.draws - exact, kind="stable")[:short]] += 1  # those with the largest remainders
        return self

    def __len__(self) -> int:
        """Draws in an epoch."""
        return len(self.rows)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The rows of an epoch's draws in their order, (len(self),) uint32."""
        rng, packed, end = randomness(seed, epoch), np.empty(len(self), np.uint64), 0
        for start, stop, draws in zip(self.starts[:-1], self.starts[1:], self.draws.tolist(), strict=True):
            cell = packed[end : end + draws]
            _place(cell, rng)
            _fill(cell, self.rows[start:stop], rng)
            end += draws
        packed.sort()
        packed &= LOW
        return packed.astype(np.uint32)


def _place(cell: np.ndarray, rng: np.random.Generator) -> None:
    """Puts the keys of a cell's draws into the upper halves."""
    m = len(cell)
    for start in range(0, m, AT_ONCE):
        j = np.arange(start, min(start + AT_ONCE, m))
        keys = np.minimum((j + rng.random(len(j))) * (2.0**32 / m), 2.0**32 - 1)  # j + u may round up to m
        cell[start : start + AT_ONCE] = keys.astype(np.uint64) << HIGH


def _fill(cell: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> None:
    """Puts successive permutations of the rows into the lower halves; many at once where there are few rows."""
    rounds = max(1, AT_ONCE // len(rows))
    for start in range(0, len(cell), rounds * len(rows)):
        needed = -(-(len(cell) - start) // len(rows))
        block = np.tile(rows, (min(rounds, needed), 1))
        part = cell[start : start + block.size]
        part |= rng.permuted(block, axis=1, out=block).reshape(-1)[: len(part)]
