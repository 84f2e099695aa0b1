"""Every flipped bit is found, and every damaged file named."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lcg.data.store import LatentStore
from lcg.data.store.verify import inspect


@pytest.mark.parametrize("whiten", [False, True])
def test_a_sound_store_has_no_problems(stores: Any, tmp_path: Path, whiten: bool) -> None:
    stores.write(tmp_path / "s", whiten=whiten)
    told: list[int] = []
    report = inspect(tmp_path / "s", told.append)
    assert report.sound and (report.shards, report.rows) == (3, 13) and sum(told) == 13
    LatentStore.open(tmp_path / "s").verify(told.append)
    assert sum(told) == 26


def test_every_damaged_shard_is_named(stores: Any, tmp_path: Path) -> None:
    store, _, _ = stores.write(tmp_path / "s", sizes=(5, 1, 7, 2))
    stores.flip(tmp_path / "s" / "shard-00000.safetensors", -5)
    (tmp_path / "s" / "shard-00001.safetensors").unlink()
    stores.flip(tmp_path / "s" / "shard-00003.safetensors", 12)
    report = inspect(tmp_path / "s")
    assert [problem.file.name[:11] for problem in report.problems] == ["shard-00000", "shard-00001", "shard-00003"]
    with pytest.raises(ValueError, match=r"(?s)shard-00000\.safetensors is damaged.*shard-00001.*shard-00003"):
        store.verify()


@pytest.mark.parametrize("whiten", [False, True])
def test_one_flipped_bit_is_found_wherever_it_is(stores: Any, tmp_path: Path, whiten: bool) -> None:
    """In every file of a store, at bytes spread over all of it: header, payload, checksums, statistics, provenance."""
    stores.write(tmp_path / "s", sizes=(3,), shape=(2,), whiten=whiten)
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "s").glob("[!.]*")):
        sound = path.read_bytes()
        for byte in rng.permutation(len(sound) if "sha256" not in path.name else 64)[:40]:
            stores.flip(path, int(byte), int(rng.integers(8)))
            problems = inspect(tmp_path / "s").problems
            assert problems, f"byte {byte} of {path.name}"
            assert problems[0].file.name in (path.name, "manifest.json")
            path.write_bytes(sound)
    assert inspect(tmp_path / "s").sound


def test_statistics_of_other_latents_are_found_without_a_seal(stores: Any, tmp_path: Path) -> None:
    """As in a store of an older version, or of one who has changed the manifest by hand."""
    stores.write(tmp_path / "s")
    entries = json.loads((tmp_path / "s" / "manifest.json").read_text())
    entries["statistics"]["std"][2] *= 1 + 1e-4
    stores.edit_manifest(tmp_path / "s", **entries)
    (tmp_path / "s" / "manifest.json.sha256").unlink()
    with pytest.raises(ValueError, match=r"manifest\.json is damaged: std are not those of the latents"):
        LatentStore.open(tmp_path / "s").verify()


def test_a_whitening_of_other_latents_is_found(stores: Any, tmp_path: Path) -> None:
    stores.write(tmp_path / "s", whiten=True)
    arrays = load_file(tmp_path / "s" / "statistics.safetensors")
    arrays["whitening"], arrays["unwhitening"] = arrays["whitening"] * 2, arrays["unwhitening"] / 2
    save_file(arrays, tmp_path / "s" / "statistics.safetensors")
    digest = hashlib.sha256((tmp_path / "s" / "statistics.safetensors").read_bytes()).hexdigest()
    entry = {"file": "statistics.safetensors", "sha256": digest, "whitened": True}
    stores.edit_manifest(tmp_path / "s", statistics=entry)
    (tmp_path / "s" / "manifest.json.sha256").unlink()
    assert "whitening and unwhitening are not those" in str(inspect(tmp_path / "s").problems[0])


def test_what_is_no_finished_store_is_reported(stores: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no latent store at"):
        inspect(tmp_path)
    writer, (latents, labels) = stores.writer(tmp_path / "s"), stores.rows(3)
    writer.append(latents, labels, np.arange(3))
    assert "manifest.json is not finished" in str(inspect(tmp_path / "s").problems[0])
    (tmp_path / "s" / "manifest.json").write_text("{")
    assert "manifest.json: Expecting" in str(inspect(tmp_path / "s").problems[0])


def test_verify_finds_contents_that_no_writer_stores(stores: Any, tmp_path: Path) -> None:
    """A checksum proves only that the bytes are those of whoever wrote the manifest."""
    stores.write(tmp_path / "s", sizes=(5,))
    path = tmp_path / "s" / "shard-00000.safetensors"
    sound = load_file(path)
    for name, value, message in (
        ("latents", np.nan, "not finite"),
        ("labels", 9.0, "'beard'"),
        ("index", 0, "increase"),
    ):
        arrays = {key: array.copy() for key, array in sound.items()}
        arrays[name].reshape(-1)[len(arrays[name].reshape(-1)) // 5 * 4] = value
        save_file(arrays, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        stores.edit_manifest(path.parent, shards=[{"file": path.name, "count": 5, "sha256": digest}])
        with pytest.raises(ValueError, match=rf"shard-00000\.safetensors: .*{message}"):
            LatentStore.open(tmp_path / "s").verify()
