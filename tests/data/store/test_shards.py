"""A shard is exactly what the manifest says, or is refused."""

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcg.data.statistics import Moments
from lcg.data.store import LatentStore
from lcg.data.store.shards import ELEMENTS_AT_ONCE, ShardFile, moments_of, rounded, rows_at_once, write_shard


def test_a_missing_shard_is_named(stores: Any, tmp_path: Path) -> None:
    stores.write(tmp_path / "s")
    (tmp_path / "s" / "shard-00001.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks its shard .*shard-00001\.safetensors"):
        LatentStore.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("index"), "its arrays must be latents, labels, index"),
        (lambda h: h["latents"].update(dtype="F64"), "'latents' must be"),
        (lambda h: h["latents"].update(shape=[5, 3]), "'latents' must be"),
        (lambda h: h.update(labels=[]), "'labels' must be"),
        (lambda h: h["index"].update(data_offsets=[0]), "two integers"),
        (lambda h: h["index"].update(data_offsets=[0, 41]), "must span 40 bytes"),
        (lambda h: h["index"].update(data_offsets=[-40, 0]), "must span 40 bytes within the file"),
        (lambda h: h["index"].update(data_offsets=[10**9, 10**9 + 40]), "within the file"),
    ],
)
def test_a_shard_is_not_believed(stores: Any, tmp_path: Path, change, message: str) -> None:
    stores.write(tmp_path / "s", sizes=(5,))
    stores.rewrite_header(tmp_path / "s" / "shard-00000.safetensors", change)
    with pytest.raises(ValueError, match=rf"is not the shard that the manifest describes: .*{message}"):
        LatentStore.open(tmp_path / "s")


@pytest.mark.parametrize(
    "data",
    [b"", b"abc", b"\xff" * 8, (2**40).to_bytes(8, "little") + b"{}", (100_000).to_bytes(8, "little") + b"[" * 100_000],
)
def test_a_damaged_shard_is_refused(stores: Any, tmp_path: Path, data: bytes) -> None:
    stores.write(tmp_path / "s", sizes=(5,))
    (tmp_path / "s" / "shard-00000.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="is not the shard"):
        LatentStore.open(tmp_path / "s")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0"])
def test_a_shard_of_another_length_is_refused(stores: Any, tmp_path: Path, change) -> None:
    stores.write(tmp_path / "s", sizes=(5,))
    path = tmp_path / "s" / "shard-00000.safetensors"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match="is not the shard"):
        LatentStore.open(tmp_path / "s")


def test_the_bytes_of_a_shard_are_those_of_the_first_version(stores: Any, tmp_path: Path) -> None:
    """Fingerprints name stores, so what is written today must be what was written when checkpoints were trained."""
    latents, labels = stores.rows(5)
    index = np.arange(5)
    for dtype in ("float32", "float16"):
        manifest = stores.writer(tmp_path / dtype, dtype=dtype).manifest
        shard = write_shard(tmp_path / dtype, 0, manifest, latents, labels, index, -1)
        expected = safetensors.numpy.save({"latents": latents.astype(dtype), "labels": labels, "index": index})
        assert (tmp_path / dtype / shard.file).read_bytes() == expected
        assert shard.sha256 == hashlib.sha256(expected).hexdigest() and shard.count == 5


def test_ranks_write_shards_that_one_process_would_write(stores: Any, tmp_path: Path) -> None:
    store, latents, labels = stores.write(tmp_path / "whole", sizes=(5, 8))
    manifest = stores.writer(tmp_path / "s").manifest
    second = write_shard(tmp_path / "s", 1, manifest, latents[5:], labels[5:], np.arange(5, 13), 4)
    first = write_shard(tmp_path / "s", 0, manifest, torch.from_numpy(latents[:5]), labels[:5], np.arange(5), -1)
    assert (first, second) == store.manifest.shards
    with pytest.raises(ValueError, match="increase strictly, got 5 after 5"):
        write_shard(tmp_path / "s", 1, manifest, latents[5:], labels[5:], np.arange(5, 13), 5)
    assert [path.name for path in (tmp_path / "s").glob(".*tmp")] == []


def test_moments_are_of_the_rounded_latents(stores: Any, tmp_path: Path) -> None:
    store, latents, _ = stores.write(tmp_path / "s", dtype="bfloat16")
    found = [moments_of(store.path, store.manifest, shard) for shard in store.manifest.shards]
    rounded = torch.from_numpy(latents).bfloat16().double().numpy()
    assert np.array_equal(found[0].mean, Moments.of(rounded[:5]).mean) and not np.array_equal(rounded, latents)


def test_memory_does_not_grow_with_the_size_of_a_latent() -> None:
    assert rows_at_once((64,)) == 65536 and rows_at_once((1,)) == 65536
    assert rows_at_once((4, 64, 64)) * 4 * 64 * 64 == ELEMENTS_AT_ONCE
    assert rows_at_once((2**28,)) == 1


# --- bfloat16 ---------------------------------------------------------------------------------------------------------


@given(st.floats(width=32, min_value=-(2.0**127), max_value=2.0**127))
def test_bfloat16_is_the_nearest_with_ties_to_even(value: float) -> None:
    """By the definition: of the two neighbours with 8 bits of significand the nearer, of equally near the even one."""
    bits = int(rounded(np.array([value]), "bfloat16").view(torch.uint16).item())
    low = np.float32(value).view(np.uint32).item() >> 16
    near = [
        (abs(np.uint32(b << 16).view(np.float32).astype(np.float64) - np.float64(value)), b % 2, b)
        for b in (low, low + 1)
    ]
    assert bits == min(near)[2]


def test_bfloat16_travels_through_a_store(stores: Any, tmp_path: Path) -> None:
    store, latents, _ = stores.write(tmp_path / "s", dtype="bfloat16")
    assert store.latents().dtype == torch.float32
    expected = torch.from_numpy(latents).bfloat16().float()
    assert torch.equal(store.latents(), expected) and torch.equal(store.latents([12, 0, 6]), expected[[12, 0, 6]])
    assert (store.path / "shard-00000.safetensors").read_bytes().count(b'"BF16"') == 1
    assert store.manifest.version == 2 and (tmp_path / "s" / "manifest.json").read_text().count('"version": 2') == 1
    store.verify()


def test_what_bfloat16_cannot_hold_is_refused(stores: Any, tmp_path: Path) -> None:
    latents, labels = stores.rows(2)
    latents[1, 2] = 3.4e38  # float32 holds it, bfloat16 rounds it up to infinity
    with pytest.raises(ValueError, match=r"row 1 \(sample 1\) is not finite in bfloat16"):
        stores.writer(tmp_path / "s", dtype="bfloat16").append(latents, labels, np.arange(2))
    assert math.isfinite(latents[1, 2])


# --- from strangers ---------------------------------------------------------------------------------------------------


def test_arrays_that_overlap_are_refused(stores: Any, tmp_path: Path) -> None:
    """ "labels" and "latents" of a store of four attributes have one size, so all sizes would be right."""
    stores.write(tmp_path / "s", sizes=(5,))
    path = tmp_path / "s" / "shard-00000.safetensors"
    stores.rewrite_header(path, lambda h: h["labels"].update(data_offsets=h["latents"]["data_offsets"]))
    with pytest.raises(ValueError, match="one array after the other"):
        LatentStore.open(tmp_path / "s")


def test_links_to_shards_are_followed_and_never_written_through(stores: Any, tmp_path: Path) -> None:
    """As the cache of a hub has them. Whatever a link leads to must be the shard that the manifest describes."""
    _, latents, labels = stores.write(tmp_path / "s", sizes=(5,))
    blob = tmp_path / "blob"
    (tmp_path / "s" / "shard-00000.safetensors").rename(blob)
    (tmp_path / "s" / "shard-00000.safetensors").symlink_to(blob)
    LatentStore.open(tmp_path / "s").verify()
    precious = tmp_path / "precious"
    precious.write_text("thesis")
    (tmp_path / "s" / "shard-00001.safetensors").symlink_to(precious)
    stores.writer(tmp_path / "s").append(latents, labels, np.arange(5, 10))
    assert precious.read_text() == "thesis" and not (tmp_path / "s" / "shard-00001.safetensors").is_symlink()


@pytest.mark.parametrize("target", ["/dev/zero", "/proc/self/environ", "pipe", "/nowhere"])
def test_links_to_what_is_no_shard_are_refused(stores: Any, tmp_path: Path, target: str) -> None:
    stores.write(tmp_path / "s", sizes=(5,))
    if target == "pipe":
        target = str(tmp_path / "pipe")
        os.mkfifo(target)
    path = tmp_path / "s" / "shard-00000.safetensors"
    path.unlink()
    path.symlink_to(target)
    with pytest.raises((ValueError, FileNotFoundError), match=r"is not the shard|lacks its shard"):
        LatentStore.open(tmp_path / "s")


def test_a_file_that_shrinks_while_it_is_read_is_an_error(stores: Any, tmp_path: Path) -> None:
    """With a map of the file it would be a signal that ends the process."""
    store, _, _ = stores.write(tmp_path / "s", sizes=(5000,))
    assert len(store.latents([4999])) == 1
    file = ShardFile.open(store.path, store.manifest, store.manifest.shards[0])
    os.truncate(file.path, 1000)
    with pytest.raises(ValueError, match="is shorter than it was"):
        store.latents([4999, 3])
    with pytest.raises(ValueError, match=r"shard-00000\.safetensors ended \d+ bytes too early"):
        store.latents()
