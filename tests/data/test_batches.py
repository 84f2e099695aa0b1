"""The order of batches: a function of (seed, epoch), shared fairly by ranks, and gone on with in the middle."""

from itertools import chain, islice

import pytest
import torch

from lcg.data.batches import LatentBatches


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
    iterator = iter(loader)
    first = [next(iterator)["rows"].tolist() for _ in range(done)]
    resumed = batches(50, 8, shuffle=shuffle, seed=3)
    resumed.load_state_dict(loader.state_dict() if done else {"epoch": 5, "batch": 0})
    iter(resumed)  # an iterator that is thrown away unused, as a Trainer does, must not lose the place
    resumed.set_epoch(5)
    assert resumed.state_dict() == {"epoch": 5, "batch": done}
    assert first + given(resumed) == expected
    assert given(resumed) == expected  # the next time it is a whole epoch


def test_another_epoch_starts_at_its_beginning() -> None:
    loader = batches(50, 8, shuffle=True)
    loader.load_state_dict({"epoch": 0, "batch": 4})
    loader.set_epoch(1)
    assert len(given(loader)) == 6


def test_the_place_counts_the_batch_in_use() -> None:
    loader = batches(50, 8, shuffle=True)
    for i, _ in enumerate(loader, start=1):
        assert loader.state_dict() == {"epoch": 0, "batch": i}


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


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="`batch_size` must be >= 1, got 0"):
        batches(3, 0)
    with pytest.raises(ValueError, match="`rows` must not be empty"):
        batches(0, 1)


def test_a_batch_costs_microseconds() -> None:
    """Generous: the measured cost is about 10 microseconds; a collate per item would take milliseconds."""
    import time

    z_0 = torch.zeros(20_000, 64)
    loader = LatentBatches(lambda rows: {"z_0": z_0.index_select(0, rows)}, torch.arange(20_000), 256, shuffle=True)
    start = time.process_time()
    count = sum(1 for _ in islice(loader, 78))
    assert (time.process_time() - start) / count < 1e-3
