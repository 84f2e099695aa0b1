"""Stratified order: every cell evenly over the epoch, whatever its size and share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcg.data.order import Strata, row_type, shuffled

sizes = st.lists(st.integers(1, 60), min_size=1, max_size=6)


def strata_of(counts: list[int]) -> tuple[Strata, np.ndarray]:
    """Rows 10, 11, ... in cells 3, 6, 9, ... of the given sizes, mixed; and the cell of each row."""
    cells = np.repeat(np.arange(1, len(counts) + 1) * 3, counts)
    cells = np.random.default_rng(0).permutation(cells)
    return Strata(cells, np.arange(10, 10 + len(cells), dtype=np.uint32)), cells


@settings(max_examples=60, deadline=None)
@given(counts=sizes, seed=st.integers(0, 2**40), epoch=st.integers(0, 5))
def test_natural_shares_give_every_row_once(counts: list[int], seed: int, epoch: int) -> None:
    strata, _ = strata_of(counts)
    order = strata.order(seed, epoch)
    assert order.dtype == np.uint32 and sorted(order) == list(range(10, 10 + sum(counts)))
    assert strata.cells.tolist() == [3 * (i + 1) for i in range(len(counts))] and strata.counts.tolist() == counts


@settings(max_examples=60, deadline=None)
@given(counts=sizes, shares=st.lists(st.floats(0, 10), min_size=6, max_size=6), seed=st.integers(0, 99))
def test_every_stretch_of_an_epoch_has_every_cell_s_share(counts: list[int], shares: list[float], seed: int) -> None:
    """The keys of a cell up to x are x m to within 1, so that the n-th draw lies within C / M of the key n / M, and a
    stretch of b draws holds b m / M of the cell to within 2 (1 + C m / M)."""
    strata, cells = strata_of(counts)
    wanted = np.array(shares[: len(counts)])
    if wanted.sum() == 0:
        wanted += 1
    order, total = strata.share(wanted).order(seed, 0), sum(counts)
    assert len(order) == len(strata) == total == strata.draws.sum()
    np.testing.assert_array_less(np.abs(strata.draws - wanted / wanted.sum() * total), 1)
    for cell, draws in zip(strata.cells, strata.draws, strict=True):
        so_far = np.concatenate(([0], np.cumsum(cells[order - 10] == cell)))
        assert so_far[-1] == draws
        drift = np.abs(so_far - np.arange(total + 1) * draws / total)
        assert drift.max() <= 1 + len(counts) * draws / total


@settings(max_examples=60, deadline=None)
@given(counts=sizes, seed=st.integers(0, 99))
def test_rows_of_a_cell_are_repeated_only_after_all_others(counts: list[int], seed: int) -> None:
    strata, cells = strata_of(counts)
    order = strata.share(np.ones(len(counts))).order(seed, 3)
    for cell, draws, count in zip(strata.cells, strata.draws, counts, strict=True):
        here = order[cells[order - 10] == cell]
        times = np.unique(here, return_counts=True)[1]
        assert len(here) == draws and len(times) == min(count, draws)
        assert times.max(initial=0) - times.min(initial=10**9) <= 1 if draws >= count else (times == 1).all()


def test_a_cell_of_few_rows_can_fill_an_epoch_and_blocks_make_no_seam() -> None:
    """More draws than are made at once, from three rows: successive permutations throughout."""
    n = 1_300_000
    strata = Strata((np.arange(n) >= 3).astype(np.int64), np.arange(n))
    order = strata.share(np.array([1.0, 0.0])).order(0, 0)
    rounds = np.sort(order[: n // 3 * 3].reshape(-1, 3), axis=1)
    assert (rounds == [0, 1, 2]).all()


def test_two_cells_of_one_size_do_not_take_turns() -> None:
    """Else one of two ranks, which take every second row, would see one cell only."""
    order = Strata(np.arange(2000) % 2, np.arange(2000)).order(0, 0)
    assert 400 < (order[::2] % 2).sum() < 600


def test_order_depends_on_seed_and_epoch_and_nothing_else() -> None:
    strata, _ = strata_of([30, 5, 12])
    orders = {strata.order(seed, epoch).tobytes() for seed in (0, 1, 2**33) for epoch in (0, 1, 2)}
    assert len(orders) == 9 and strata.order(1, 2).tobytes() in orders
    assert np.array_equal(strata.order(1, 2), strata_of([30, 5, 12])[0].order(1, 2))


def test_orders_are_fixed_for_ever() -> None:
    """A run goes on after an update of lcg only if they stay."""
    assert shuffled(np.arange(8), 3, 1).tolist() == [3, 7, 2, 0, 6, 5, 1, 4]
    assert Strata(np.arange(8) % 3, np.arange(8)).order(3, 1).tolist() == [2, 6, 4, 1, 3, 5, 7, 0]


def test_a_shuffle_keeps_the_type_of_the_rows() -> None:
    rows = np.arange(100, dtype=np.uint32)
    assert shuffled(rows, 0, 0).dtype == np.uint32 and np.array_equal(rows, np.arange(100))
    assert np.array_equal(shuffled(rows, 0, 0), shuffled(np.arange(100), 0, 0))


@pytest.mark.parametrize(("count", "kind"), [(10, "uint32"), (2**32, "uint32"), (2**32 + 1, "int64")])
def test_rows_take_four_bytes_while_they_can(count: int, kind: str) -> None:
    assert row_type(count) == np.dtype(kind)
