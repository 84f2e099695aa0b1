"""The order of batches: a function of (seed, epoch), shared fairly by ranks, and gone on with in the middle."""

import gc
import threading
import time
from collections.abc import Iterator
from itertools import chain, islice

import numpy as np
import pytest
import torch

from lcg.data.batches import AHEAD, LatentBatches, ahead
from lcg.data.order import Strata


def batches(n: int, batch_size: int, **options) -> LatentBatches:
    return LatentBatches(lambda rows: {"rows": rows}, torch.arange(n) * 10, batch_size, **options)


def given(loader: LatentBatches) -> list[list[int]]:
    return [batch["rows"].tolist() for batch in loader]


def on_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)


def test_evaluation_gives_every_row_once_in_order() -> None:
    loader = batches(10, 4)
    assert given(loader) == [[0, 10, 20, 30], [40, 50, 60], [70, 80, 90]] == given(loader)
    assert len(loader) == 3


def test_training_gives_equal_batches_of_distinct_rows_and_others_are_left_out_each_epoch() -> None:
    loader, seen = batches(10, 4, shuffle=True), set()
    for epoch in range(20):
        loader.set_epoch(epoch)
        epoch_rows = given(loader)
        assert [len(rows) for rows in epoch_rows] == [4, 4] and len(loader) == 2
        assert len(set(chain(*epoch_rows))) == 8
        seen |= set(chain(*epoch_rows))
    assert seen == {10 * i for i in range(10)}


def test_fewer_rows_than_a_batch_make_one_batch() -> None:
    assert [sorted(rows) for rows in given(batches(3, 8, shuffle=True))] == [[0, 10, 20]]


def test_order_depends_on_seed_and_epoch_and_nothing_else() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        loader = batches(64, 8, shuffle=True, seed=seed)
        loader.set_epoch(epoch)
        return given(loader)

    assert order(1, 2) == order(1, 2)
    assert len({str(order(seed, epoch)) for seed in (0, 1, 2**33) for epoch in (0, 1, 2)}) == 9


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("done", [0, 1, 3, 6])
def test_an_epoch_goes_on_where_it_was_left(shuffle: bool, done: int) -> None:
    loader = batches(50, 8, shuffle=shuffle, seed=3)
    loader.set_epoch(5)
    expected = given(loader)
    loader.set_epoch(0)
    loader.set_epoch(5)
    iterator = iter(loader)
    first = [next(iterator)["rows"].tolist() for _ in range(done)]
    resumed = batches(50, 8, shuffle=shuffle, seed=3)
    resumed.load_state_dict(loader.state_dict())
    iter(resumed)  # an iterator that is thrown away unused, as a Trainer does, must not lose the place
    resumed.set_epoch(5)
    assert (resumed.state_dict()["epoch"], resumed.state_dict()["batch"]) == (5, done)
    assert first + given(resumed) == expected
    assert given(resumed) == expected  # the next time it is a whole epoch


def test_another_epoch_starts_at_its_beginning() -> None:
    loader = batches(50, 8, shuffle=True)
    loader.load_state_dict({"epoch": 0, "batch": 4})  # all that checkpoints of earlier versions say
    loader.set_epoch(1)
    assert len(given(loader)) == 6


def test_the_place_counts_the_batch_in_use() -> None:
    loader = batches(50, 8, shuffle=True)
    for i, _ in enumerate(loader, start=1):
        assert loader.state_dict()["batch"] == i


def test_a_trainer_finds_the_epoch_setter() -> None:
    loader = batches(50, 8, shuffle=True)
    loader.sampler.set_epoch(3)
    assert loader.epoch == 3


@pytest.mark.parametrize("n", [7, 8, 9, 64, 65, 100])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 50])
@pytest.mark.parametrize("world", [2, 3, 7])
def test_ranks_share_rows_with_equal_numbers_of_batches(
    monkeypatch: pytest.MonkeyPatch, n: int, batch_size: int, world: int
) -> None:
    for shuffle in (True, False):
        parts, lengths = [], set()
        for rank in range(world):
            on_rank(monkeypatch, rank, world)
            loader = batches(n, batch_size, shuffle=shuffle, seed=1)
            parts.append(given(loader))
            lengths |= {len(loader), len(parts[-1])}
        rows = [row for part in parts for batch in part for row in batch]
        assert len(lengths) == 1 and len(rows) == len(set(rows))
        sizes = {len(batch) for part in parts for batch in part}
        if shuffle:
            assert len(sizes) == 1 and max(sizes) <= batch_size
        else:
            assert sorted(rows) == [10 * i for i in range(n)] and min(sizes) >= 1
            assert max(sizes) <= max(batch_size, 2)  # batches of one cannot be shared evenly without an empty one


def test_too_many_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on_rank(monkeypatch, 0, 4)
    for shuffle in (True, False):
        with pytest.raises(ValueError, match="3 rows cannot be shared by 4 processes"):
            len(batches(3, 2, shuffle=shuffle))


@pytest.mark.parametrize("stratified", [False, True])
def test_the_ranks_batches_together_are_those_of_one_process(monkeypatch: pytest.MonkeyPatch, stratified: bool) -> None:
    """Position i of the global batch is position i // W of rank i % W."""
    rows = Strata(np.arange(100) % 3, np.arange(100)) if stratified else torch.arange(100)
    whole = given(LatentBatches(lambda rows: {"rows": rows}, rows, 12, shuffle=True, seed=2))
    for world in (2, 4):
        parts = []
        for rank in range(world):
            on_rank(monkeypatch, rank, world)
            loader = LatentBatches(lambda rows: {"rows": rows}, rows, 12 // world, shuffle=True, seed=2)
            parts.append(given(loader))
        together = [list(chain(*zip(*batch, strict=True))) for batch in zip(*parts, strict=True)]
        assert together == whole


def test_an_order_cannot_be_changed_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = batches(96, 8, shuffle=True, seed=1, rows_from={"shares": {"hat": 0.5}})
    iterator = iter(loader)
    next(iterator), next(iterator)
    state = loader.state_dict()
    assert state["order"] == {"seed": 1, "global_batch": 8, "rows": 96, "shares": {"hat": 0.5}}

    same = {"shuffle": True, "seed": 1, "rows_from": {"shares": {"hat": 0.5}}}
    changes = {
        r"seed 1 -> 2 \(": batches(96, 8, **{**same, "seed": 2}),
        r"global_batch 8 -> 6 \(": batches(96, 6, **same),
        r"rows 96 -> 95 \(": batches(95, 8, **same),
        r"shares \{'hat': 0.5\} -> equal \(": batches(96, 8, **{**same, "rows_from": {"shares": "equal"}}),
    }
    for message, other in changes.items():
        with pytest.raises(ValueError, match=rf"after batch 2 of 12 of an epoch.*changed: {message}.*end of an epoch"):
            other.load_state_dict(state)
        other.load_state_dict({**state, "batch": 12})  # the next epoch may be another
        other.load_state_dict({"epoch": 0, "batch": 2})  # earlier versions did not say

    rest = given_from(batches(96, 8, **same), state)
    on_rank(monkeypatch, 1, 2)
    assert given_from(batches(96, 4, **same), state) == [rows[1::2] for rows in rest]  # the same global batches


def given_from(loader: LatentBatches, state: dict[str, object]) -> list[list[int]]:
    loader.load_state_dict(state)
    return given(loader)


def test_an_order_costs_nothing_until_it_is_asked_for() -> None:
    """Ten million rows: an epoch's order is one array of the rows' own type, and batches are cut from it lazily."""
    rows = np.arange(10_000_000, dtype=np.uint32)
    loader = LatentBatches(lambda rows: {"rows": rows}, rows, 256, shuffle=True)
    assert loader.rows is rows and len(loader) == 39062
    start = time.process_time()
    iter(loader)
    assert time.process_time() - start < 0.01


# --- workers ----------------------------------------------------------------------------------------------------------


def workers_alive() -> list[threading.Thread]:
    gc.collect()
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("shuffle", [True, False])
def test_workers_change_nothing_but_the_waiting(workers: int, shuffle: bool) -> None:
    def slow(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        time.sleep(0.002 * float(rows[0] % 3))  # later batches are often ready sooner
        return {"rows": rows}

    loader = LatentBatches(slow, torch.arange(100), 7, shuffle=shuffle, workers=workers)
    assert given(loader) == given(LatentBatches(slow, torch.arange(100), 7, shuffle=shuffle))
    assert not workers_alive()


def test_the_place_counts_batches_given_and_not_those_made_ahead() -> None:
    made: list[int] = []
    loader = LatentBatches(lambda rows: made.append(1) or {"rows": rows}, torch.arange(100), 2, shuffle=True, workers=2)
    iterator = iter(loader)
    first = [next(iterator)["rows"].tolist() for _ in range(3)]
    time.sleep(0.05)
    assert loader.state_dict()["batch"] == 3 < len(made)
    again = LatentBatches(lambda rows: {"rows": rows}, torch.arange(100), 2, shuffle=True)
    assert first + given_from(again, loader.state_dict()) == given(again)


def test_no_more_is_made_ahead_than_can_wait() -> None:
    made: list[int] = []
    iterator = ahead(lambda item: made.append(item), iter(range(1000)), workers=2)
    for given_so_far in (1, 2, 3):
        next(iterator)
        time.sleep(0.05)
        assert len(made) == given_so_far + 2 * AHEAD


def test_an_exception_of_a_worker_comes_up_in_its_place() -> None:
    def gather(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        if 6 in rows:
            raise OSError("shard-00003 cannot be read")
        return {"rows": rows}

    seen: list[list[int]] = []
    with pytest.raises(OSError, match="shard-00003"):
        for batch in LatentBatches(gather, torch.arange(20), 2, workers=2):
            seen.append(batch["rows"].tolist())
    assert seen == [[0, 1], [2, 3], [4, 5]] and not workers_alive()


def test_iterators_that_are_thrown_away_leave_no_threads() -> None:
    loader = batches(1000, 2, workers=3)
    iterator: Iterator[object] = iter(loader)
    assert not workers_alive()  # nor are any there before the first batch
    next(iterator)
    assert workers_alive()
    del iterator
    assert not workers_alive()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="`batch_size` must be >= 1, got 0"):
        batches(3, 0)
    with pytest.raises(ValueError, match="`rows` must not be empty"):
        batches(0, 1)
    with pytest.raises(ValueError, match="`workers` must be >= 0, got -1"):
        batches(3, 1, workers=-1)


def test_a_batch_costs_microseconds() -> None:
    """Generous: the measured cost is about 10 microseconds; a collate per item would take milliseconds."""
    z_0 = torch.zeros(20_000, 64)
    loader = LatentBatches(lambda rows: {"z_0": z_0.index_select(0, rows)}, torch.arange(20_000), 256, shuffle=True)
    start = time.process_time()
    count = sum(1 for _ in islice(loader, 78))
    assert (time.process_time() - start) / count < 1e-3
