"""Statistics that stand beside the manifest: a whitening, and latents of very many elements."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcg.data.statistics import Statistics
from lcg.data.store import LatentStore, manifest
from lcg.data.store.manifest import Manifest, StatisticsFile


def test_a_whitening_is_written_and_read(stores: Any, tmp_path: Path) -> None:
    store, latents, _ = stores.write(tmp_path / "s", sizes=(400, 100), shape=(2, 3), whiten=True)
    expected = Statistics.of([latents[:400], latents[400:]], whiten=True)
    for found in (store.statistics, LatentStore.open(tmp_path / "s").statistics):
        assert torch.equal(found.mean, expected.mean) and torch.equal(found.std, expected.std)
        assert torch.equal(found.whitening.matrix, expected.whitening.matrix)
        assert torch.equal(found.whitening.inverse, expected.whitening.inverse)
    z_0 = found.standardise(store.latents().double()).flatten(1)
    assert (torch.cov(z_0.T, correction=0) - torch.eye(6)).abs().max() < 1e-4


def test_a_whitened_store_has_a_name_of_its_own(stores: Any, tmp_path: Path) -> None:
    """Networks fitted to whitened latents must not be taken for ones fitted to the same latents without."""
    plain, _, _ = stores.write(tmp_path / "plain")
    white, _, _ = stores.write(tmp_path / "white", whiten=True)
    assert white.manifest.shards == plain.manifest.shards and white.fingerprint != plain.fingerprint
    assert (white.manifest.version, plain.manifest.version) == (2, 1)
    assert Manifest.from_json(white.manifest.to_json()).to_json() == white.manifest.to_json()


def test_whitening_may_be_put_on_and_taken_off(stores: Any, tmp_path: Path) -> None:
    plain, latents, labels = stores.write(tmp_path / "s")
    before = (tmp_path / "s" / "manifest.json").read_bytes()
    assert stores.writer(tmp_path / "s").finish(whiten=True).statistics.whitening is not None
    assert stores.writer(tmp_path / "s").finish().fingerprint == plain.fingerprint
    assert (tmp_path / "s" / "manifest.json").read_bytes() == before
    assert not (tmp_path / "s" / "statistics.safetensors").exists()
    writer = stores.writer(tmp_path / "s")
    writer.finish(whiten=True)
    writer.append(latents, labels, np.arange(13, 26))
    writer.finish(whiten=True).verify()


def test_statistics_of_many_elements_do_not_swell_the_manifest(
    stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcg.data.store.statistics_file.MAX_INLINE", 100)
    store, latents, _ = stores.write(tmp_path / "s", shape=(4, 8, 8))
    assert isinstance(store.manifest.statistics, StatisticsFile) and not store.manifest.whitened
    assert torch.equal(store.statistics.mean, Statistics.of([latents[:5], latents[5:6], latents[6:]]).mean)
    store.verify()
    assert manifest.MAX_INLINE * 2 * 25 < manifest.MAX_BYTES


def test_latents_too_large_are_not_whitened(stores: Any, tmp_path: Path) -> None:
    writer, (latents, labels) = stores.writer(tmp_path / "s", (3, 40, 40)), stores.rows(2, (3, 40, 40))
    writer.append(latents, labels, np.arange(2))
    with pytest.raises(ValueError, match=r"at most 4096 elements, these \[3, 40, 40\] have 4800"):
        writer.finish(whiten=True)
    assert len(writer.finish()) == 2


def test_a_missing_or_changed_file_is_refused(stores: Any, tmp_path: Path) -> None:
    stores.write(tmp_path / "s", whiten=True)
    path = tmp_path / "s" / "statistics.safetensors"
    stores.flip(path, -3)
    with pytest.raises(ValueError, match=r"statistics\.safetensors is not the statistics .* its SHA-256 is"):
        LatentStore.open(tmp_path / "s")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"statistics\.safetensors is not the statistics .* a header of 0 bytes"):
        LatentStore.open(tmp_path / "s")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks its statistics .*statistics\.safetensors"):
        LatentStore.open(tmp_path / "s")
