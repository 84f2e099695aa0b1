"""Rows of many files: the ones asked for, in their order, with few open files and from any number of threads."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcg.data.store import LatentStore, LatentStoreWriter, gather
from lcg.data.store.gather import RowReader
from lcg.data.store.shards import ShardFile
from lcg.schema import Schema


def reader(store: LatentStore, descriptors: int | None = None) -> RowReader:
    return RowReader([ShardFile.open(store.path, store.manifest, s) for s in store.manifest.shards], descriptors)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("descriptors", [None, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_come_in_the_order_asked_for(stores: Any, tmp_path: Path, dtype: str, descriptors: int | None) -> None:
    store, latents, labels = stores.write(tmp_path / "s", sizes=(300, 1, 500, 77, 2000), dtype=dtype)
    expected = torch.from_numpy(latents).to(getattr(torch, dtype)).float()
    rows, found = np.random.default_rng(0).integers(0, len(store), 5000), reader(store, descriptors)
    assert torch.equal(found.rows("latents", rows), expected[rows])
    assert np.array_equal(found.rows("labels", rows).numpy(), labels[rows], equal_nan=True)
    assert np.array_equal(found.rows("index", rows).numpy(), rows)


@pytest.mark.parametrize("bounds", [(0, 2878), (299, 302), (301, 301), (2877, 2878), (10, 5)])
def test_runs_go_over_the_ends_of_shards(
    stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bounds: tuple[int, int]
) -> None:
    store, latents, _ = stores.write(tmp_path / "s", sizes=(300, 1, 500, 77, 2000))
    monkeypatch.setattr(gather, "BLOCK", 1000)  # several blocks per shard
    assert np.array_equal(reader(store).run("latents", *bounds).numpy(), latents[slice(*bounds)])


def test_large_rows_are_gathered_in_parts(stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, latents, _ = stores.write(tmp_path / "s", sizes=(50, 50))
    monkeypatch.setattr(gather, "BATCH", 7)
    rows = np.random.default_rng(0).integers(0, 100, 64)
    assert np.array_equal(reader(store).rows("latents", rows).numpy(), latents[rows])


def test_no_more_files_stay_open_than_allowed(stores: Any, tmp_path: Path) -> None:
    store, latents, _ = stores.write(tmp_path / "s", sizes=(1,) * 40)
    before, found = open_files(), reader(store, descriptors=5)
    for _ in range(3):
        assert np.array_equal(found.rows("latents", np.arange(39, -1, -1)).numpy(), latents[::-1])
        assert open_files() == before + 5
    del found
    assert open_files() == before


def test_opening_a_store_opens_no_shard_for_good(stores: Any, tmp_path: Path) -> None:
    stores.write(tmp_path / "s", sizes=(1,) * 40)
    before = open_files()
    store = LatentStore.open(tmp_path / "s")
    store.latents()
    assert open_files() == before


def test_threads_share_a_reader(stores: Any, tmp_path: Path) -> None:
    store, latents, _ = stores.write(tmp_path / "s", sizes=(30,) * 20)
    found = reader(store, descriptors=3)
    parts = np.split(np.random.default_rng(0).integers(0, 600, 6400), 100)
    with ThreadPoolExecutor(8) as pool:
        for rows, z in zip(parts, pool.map(lambda rows: found.rows("latents", rows), parts), strict=True):
            assert np.array_equal(z.numpy(), latents[rows])


def test_reading_does_not_make_the_process_grow(stores: Any, tmp_path: Path) -> None:
    """64 MB of latents, every row: maps of the files would add all of it."""
    store, _, _ = stores.write(tmp_path / "s", sizes=(8192, 8192), shape=(1024,))

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    order = np.random.default_rng(0).permutation(len(store))
    store.latents(order[:1024])
    before, grown = resident(), 0
    for rows in np.split(order, 16):
        store.latents(rows)
        grown = max(grown, resident() - before)
    assert grown < 16e6


def test_rows_outside_the_page_cache_are_read_as_well(stores: Any, tmp_path: Path) -> None:
    store, latents, _ = stores.write(tmp_path / "s", sizes=(2000, 2000), shape=(512,))
    for path in (tmp_path / "s").glob("*.safetensors"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    rows = np.random.default_rng(0).integers(0, 4000, 1024)
    assert np.array_equal(store.latents(rows).numpy(), latents[rows])


def test_a_store_without_attributes_has_labels_without_columns(tmp_path: Path) -> None:
    writer = LatentStoreWriter(tmp_path / "s", (3,), Schema(()), {})
    writer.append(np.ones((4, 3), np.float32), np.zeros((4, 0)), np.arange(4))
    store = writer.finish()
    assert store.labels().shape == (4, 0) and store.labels([2, 0, 1]).shape == (3, 0)
    store.verify()
