"""What is written is read, in whatever order it is asked for."""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcg.data.store import LatentStore, LatentStoreWriter


@pytest.mark.parametrize("shape", [(4,), (3, 2), (2, 2, 2), (18, 512), (4, 8, 8), (512,)])
def test_what_is_written_is_read(stores: Any, tmp_path: Path, shape: tuple[int, ...]) -> None:
    store, latents, labels = stores.write(tmp_path / "s", shape=shape)
    assert len(store) == 13 and store.latent_shape == shape and store.schema == stores.schema
    assert dict(store.provenance) == stores.provenance
    torch.testing.assert_close(store.latents(), torch.from_numpy(latents), rtol=0, atol=0)
    torch.testing.assert_close(store.labels(), torch.from_numpy(labels), rtol=0, atol=0, equal_nan=True)
    assert store.index().tolist() == list(range(13))
    store.verify()


@pytest.mark.parametrize(
    "chosen",
    [slice(3, 9), slice(None, None, -2), [12, 0, 5, 5], np.array([6, 4]), torch.tensor([0, 12]), [], slice(50, 60)],
)
def test_rows_are_chosen_as_by_numpy(stores: Any, tmp_path: Path, chosen: object) -> None:
    store, latents, labels = stores.write(tmp_path / "s")
    plain = np.asarray(chosen, dtype=int) if not isinstance(chosen, slice) else chosen
    assert np.array_equal(store.latents(chosen).numpy(), latents[plain])
    assert np.array_equal(store.labels(chosen).numpy(), labels[plain], equal_nan=True)


def test_rows_outside_the_store_are_refused(stores: Any, tmp_path: Path) -> None:
    store, _, _ = stores.write(tmp_path / "s")
    with pytest.raises(IndexError, match=r"must be in \[0, 13\), got 13"):
        store.latents([0, 13])
    with pytest.raises(IndexError, match="got -1"):
        store.labels([-1])
    with pytest.raises(TypeError, match=r"mask\.nonzero"):
        store.latents(torch.ones(13, dtype=torch.bool))


def test_float16_is_stored_rounded_and_read_as_float32(stores: Any, tmp_path: Path) -> None:
    store, latents, _ = stores.write(tmp_path / "s", dtype="float16")
    assert store.latents().dtype == torch.float32
    assert np.array_equal(store.latents().numpy(), latents.astype(np.float16).astype(np.float32))


def test_tensors_of_every_float_type_are_taken(stores: Any, tmp_path: Path) -> None:
    writer = LatentStoreWriter(tmp_path / "s", (2,), stores.schema, {})
    for i, dtype in enumerate((torch.bfloat16, torch.float64)):
        latents = torch.tensor([[1.5, -2.0]], dtype=dtype, requires_grad=True)
        writer.append(latents, torch.full((1, 4), math.nan), torch.tensor([i]))
    assert writer.finish().latents().tolist() == [[1.5, -2.0]] * 2


def test_pickling_a_store_keeps_its_path_only(stores: Any, tmp_path: Path) -> None:
    store, latents, _ = stores.write(tmp_path / "s", sizes=(2000,))
    data = pickle.dumps(store)
    assert len(data) < 1000 and np.array_equal(pickle.loads(data).latents().numpy(), latents)


def test_statistics_are_those_of_all_rows(stores: Any, tmp_path: Path) -> None:
    store, latents, _ = stores.write(tmp_path / "s", sizes=(50, 3, 400))
    z = latents.astype(np.float64)
    assert np.abs(store.statistics.mean.numpy() - z.mean(0)).max() < 1e-6
    assert np.abs(store.statistics.std.numpy() - z.std(0)).max() < 1e-6
    z_0 = store.statistics.standardise(store.latents().double())
    assert z_0.mean(0).abs().max() < 1e-6 and (z_0.std(0, correction=0) - 1).abs().max() < 1e-6


def test_fingerprint_names_the_data(stores: Any, tmp_path: Path) -> None:
    a, _, _ = stores.write(tmp_path / "a")
    b, _, _ = stores.write(tmp_path / "b")
    c, _, _ = stores.write(tmp_path / "c", sizes=(5, 8))
    assert a.fingerprint == b.fingerprint != c.fingerprint


def test_a_missing_store_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lcg encode --config configs/data/avatars\.yaml"):
        LatentStore.open(tmp_path / "nothing")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(18, 512), (4, 8, 8), (512,)])
def test_latents_of_every_shape_are_standardised_and_restored(
    stores: Any, tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    store, _, _ = stores.write(tmp_path / "s", sizes=(40, 23), shape=shape, dtype=dtype)
    z = store.latents().double()
    z_0 = store.statistics.standardise(z)
    assert z_0.shape == z.shape and store.statistics.latent_shape == shape
    assert z_0.mean(0).abs().max() < 1e-6 and (z_0.std(0, correction=0) - 1).abs().max() < 1e-6
    torch.testing.assert_close(store.statistics.restore(z_0), z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("in_memory", [False, True])
def test_latents_of_every_shape_go_through_the_data_module(
    stores: Any, tmp_path: Path, in_memory: bool, whiten: bool
) -> None:
    from lcg.data.datamodule import LatentDataModule

    store, _, _ = stores.write(tmp_path / "s", sizes=(40, 23), shape=(4, 8, 8), whiten=whiten)
    data = LatentDataModule(tmp_path / "s", batch_size=16, val_fraction=0.2, in_memory=in_memory)
    data.setup()
    rows = torch.tensor([50, 3, 3, 62])
    batch = data.gather(rows)
    assert batch["z_0"].shape == (4, 4, 8, 8)
    torch.testing.assert_close(batch["z_0"], store.statistics.standardise(store.latents(rows)), rtol=0, atol=1e-5)


def test_a_writer_refuses_addresses(stores: Any) -> None:
    with pytest.raises(ValueError, match="`path` must be a folder of this machine, got s3://bucket/store"):
        stores.writer("s3://bucket/store")
