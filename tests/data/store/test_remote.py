"""Stores elsewhere are fetched once, checked as they arrive, and gone on with where a fetch was stopped."""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from lcg.data.store import LatentStore, remote
from lcg.data.store.remote import default_cache, fetch, is_remote


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LCG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "stores"


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of the simplest kind, which knows no ranges."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_store_is_fetched_and_read(stores: Any, tmp_path: Path, memory: Any, server: str, cache: Path) -> None:
    store, latents, labels = stores.write(tmp_path / "faces", whiten=True)
    memory.put(f"{store.path}/", "/bucket/faces", recursive=True)
    for url in ("memory://bucket/faces", f"file://{store.path}", f"{server}/faces", f"{server}/faces/"):
        found = LatentStore.open(url)
        assert found.path.parent == cache and found.path.name.startswith("faces-")
        assert np.array_equal(found.latents().numpy(), latents)
        assert np.array_equal(found.labels().numpy(), labels, equal_nan=True)
        assert found.fingerprint == store.fingerprint
        assert torch.equal(found.statistics.whitening.matrix, store.statistics.whitening.matrix)
        found.verify()
        assert not list(found.path.glob(".*"))
    assert len(list(cache.iterdir())) == 4  # an address each


def test_a_store_is_fetched_once(stores: Any, tmp_path: Path, memory: Any) -> None:
    store, _, _ = stores.write(tmp_path / "s")
    memory.put(f"{store.path}/", "/s", recursive=True)
    folder = fetch("memory://s")
    for path in memory.glob("/s/shard*"):
        memory.rm(path)
    assert fetch("memory://s") == folder and len(LatentStore.open("memory://s")) == 13


def test_a_fetch_that_was_stopped_goes_on(stores: Any, tmp_path: Path, memory: Any, cache: Path) -> None:
    store, latents, _ = stores.write(tmp_path / "s")
    memory.put(f"{store.path}/", "/s", recursive=True)
    memory.mv("/s/shard-00002.safetensors", "/away")
    with pytest.raises(
        FileNotFoundError, match=r"no latent store at memory://s: .*shard-00002\.safetensors is missing"
    ):
        fetch("memory://s")
    (folder,) = cache.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["shard-00000.safetensors", "shard-00001.safetensors"]
    with pytest.raises(FileNotFoundError, match="no latent store"):
        LatentStore.open(folder)
    memory.rm("/s/shard-00000.safetensors")  # is here already, and is not asked for again
    memory.mv("/away", "/s/shard-00002.safetensors")
    assert np.array_equal(LatentStore.open("memory://s").latents().numpy(), latents)


def test_another_manifest_is_another_folder(stores: Any, tmp_path: Path, memory: Any, cache: Path) -> None:
    store, latents, labels = stores.write(tmp_path / "s")
    memory.put(f"{store.path}/", "/s", recursive=True)
    before = LatentStore.open("memory://s")
    writer = stores.writer(tmp_path / "s")
    writer.append(latents, labels, np.arange(13, 26))
    writer.finish()
    memory.put(f"{store.path}/", "/s", recursive=True)
    assert len(LatentStore.open("memory://s")) == 26 and len(before.latents()) == 13
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("whiten", [False, True])
def test_what_is_damaged_is_not_kept(stores: Any, tmp_path: Path, memory: Any, cache: Path, whiten: bool) -> None:
    store, _, _ = stores.write(tmp_path / "s", whiten=whiten)
    name = "statistics.safetensors" if whiten else "shard-00001.safetensors"
    stores.flip(store.path / name, -1)
    memory.put(f"{store.path}/", "/s", recursive=True)
    with pytest.raises(ValueError, match=rf"{name} came with SHA-256 .*, the manifest says"):
        fetch("memory://s")
    (folder,) = cache.iterdir()
    assert not (folder / name).exists() and not list(folder.glob(".*"))


def test_a_stranger_may_not_send_without_end(stores: Any, tmp_path: Path, memory: Any) -> None:
    store, _, _ = stores.write(tmp_path / "s")
    memory.put(f"{store.path}/", "/s", recursive=True)
    memory.pipe("/s/shard-00000.safetensors", bytes(2 * 2**20))
    with pytest.raises(ValueError, match=r"shard-00000\.safetensors should have at most \d+ bytes, and more came"):
        fetch("memory://s")
    memory.pipe("/s/manifest.json", b" " * (17 * 2**20))
    with pytest.raises(ValueError, match=r"manifest\.json should have at most 16777216 bytes"):
        fetch("memory://s")


def test_what_is_no_finished_store_is_refused(stores: Any, tmp_path: Path, memory: Any, server: str) -> None:
    for url in ("memory://nothing", f"{server}/nothing", f"file://{tmp_path}/nothing"):
        with pytest.raises(FileNotFoundError, match=f"no latent store at {url}"):
            LatentStore.open(url)
    memory.pipe("/s/manifest.json", b"{")
    with pytest.raises(ValueError, match=r"memory://s/manifest\.json: Expecting"):
        LatentStore.open("memory://s")
    stores.writer(tmp_path / "begun")
    with pytest.raises(ValueError, match="is not finished"):
        LatentStore.open(f"file://{tmp_path}/begun")


def test_errors_on_the_way_are_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=r"cannot fetch http://127\.0\.0\.1:9/s/manifest\.json .*look at the network"):
        LatentStore.open("http://127.0.0.1:9/s")
    with pytest.raises(ValueError, match=r"'nonsense://s' is no address that can be read .*s3://"):
        LatentStore.open("nonsense://s")
    if "s3" not in fsspec.available_protocols() or not _installed("s3fs"):
        with pytest.raises(ImportError, match=r"s3://bucket/s needs a package .*s3fs.*install it with pip"):
            LatentStore.open("s3://bucket/s")


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def test_addresses_are_told_from_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_remote("s3://bucket/store") and not is_remote("runs/store") and not is_remote(Path("C:/store"))
    assert default_cache() == Path(os.environ["LCG_CACHE"]) / "stores"
    monkeypatch.delenv("LCG_CACHE")
    assert default_cache() == Path.home() / ".cache" / "lcg" / "stores"


def test_a_cache_that_cannot_be_written_is_named(stores: Any, tmp_path: Path, memory: Any) -> None:
    store, _, _ = stores.write(tmp_path / "s")
    memory.put(f"{store.path}/", "/s", recursive=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        fetch("memory://s", tmp_path / "file")
    assert remote.default_cache().exists() is False
