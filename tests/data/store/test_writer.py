"""Appending is atomic, may be stopped at any moment, and refuses what does not belong."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcg.data.statistics import Moments, Statistics
from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.data.store.manifest import Shard
from lcg.data.store.shards import moments_of, write_shard
from lcg.schema import Attribute, Schema


def test_a_store_grows_in_several_sittings(stores: Any, tmp_path: Path) -> None:
    expected, latents, labels = stores.write(tmp_path / "whole")
    for start, stop in ((0, 5), (5, 6), (6, 13)):
        writer = stores.writer(tmp_path / "s")
        assert writer.count == writer.next_index == start
        writer.append(latents[start:stop], labels[start:stop], np.arange(start, stop))
    store = writer.finish()
    assert store.fingerprint == expected.fingerprint
    assert torch.equal(store.statistics.mean, expected.statistics.mean)


def test_a_finished_store_may_grow_and_is_unfinished_meanwhile(stores: Any, tmp_path: Path) -> None:
    store, latents, labels = stores.write(tmp_path / "s")
    writer = stores.writer(tmp_path / "s")
    assert writer.finish().fingerprint == store.fingerprint
    writer.append(latents[:2], labels[:2], np.array([13, 20]))
    with pytest.raises(ValueError, match="is not finished: it has 15 latents"):
        LatentStore.open(tmp_path / "s")
    grown = writer.finish()
    assert grown.index([13, 14]).tolist() == [13, 20] and grown.fingerprint != store.fingerprint
    assert not torch.equal(grown.statistics.mean, store.statistics.mean)


@pytest.mark.parametrize("victim", range(9))
def test_a_kill_between_any_two_file_operations_loses_one_shard_at_most(
    stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: int
) -> None:
    """Each append is a rename of a shard and one of the manifest; the process dies before the victim-th rename."""
    latents, labels = stores.rows(8)
    renames, true_replace = 0, os.replace

    def replace(old: object, new: object) -> None:
        nonlocal renames
        renames += 1
        if renames == victim:
            raise KeyboardInterrupt
        true_replace(old, new)

    monkeypatch.setattr(os, "replace", replace)
    appended = 0
    try:
        writer = stores.writer(tmp_path / "s")
        for start in (0, 3, 6):
            writer.append(latents[start : start + 3], labels[start : start + 3], np.arange(start, min(start + 3, 8)))
            appended = min(start + 3, 8)
        writer.finish()
    except KeyboardInterrupt:
        pass
    monkeypatch.undo()

    writer = stores.writer(tmp_path / "s")
    assert writer.count == appended
    for start in range(writer.count, 8, 3):
        writer.append(latents[start : start + 3], labels[start : start + 3], np.arange(start, min(start + 3, 8)))
    store = writer.finish()
    store.verify()
    assert np.array_equal(store.latents().numpy(), latents)
    assert sorted(p.name for p in store.path.iterdir() if not p.name.startswith(".")) == [
        "manifest.json",
        "manifest.json.sha256",
        *(f"shard-0000{i}.safetensors" for i in range(3)),
    ]


def test_a_killed_process_is_gone_on_with(tmp_path: Path) -> None:
    """SIGKILL from outside, at whatever it was doing."""
    script = (
        "import sys, numpy as np\n"
        "from lcg.data.store import LatentStoreWriter\n"
        "from lcg.schema import Attribute, Schema\n"
        "w = LatentStoreWriter(sys.argv[1], (4,), Schema((Attribute('a'),)), {})\n"
        "while True:\n"
        "    i = np.arange(w.count, w.count + 50)\n"
        "    w.append(np.repeat(i[:, None], 4, 1).astype('f4'), i[:, None] % 2, i)\n"
        "    print(w.count, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    reported = max(int(process.stdout.readline()) for _ in range(5))
    process.send_signal(signal.SIGKILL)
    reported = max([reported, *(int(line) for line in process.stdout if line.endswith("\n"))])
    process.wait()
    writer = LatentStoreWriter(tmp_path / "s", (4,), Schema((Attribute("a"),)), {})
    assert writer.count >= reported and writer.count % 50 == 0
    store = writer.finish()
    store.verify()
    assert torch.equal(store.latents()[:, 0], torch.arange(writer.count, dtype=torch.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"latent_shape": (5,)}, r"`latent_shape` was \(4,\), now it is \(5,\)"),
        (
            lambda s: {"provenance": {**s.provenance, "source": {"seed": 2}}},
            r"`provenance.source.seed` was 1, now .* 2",
        ),
        (lambda s: {"schema": Schema(s.schema.attributes[:2])}, r"`schema\.age` was"),
        (lambda s: {"schema": Schema((*s.schema.attributes[1::-1], *s.schema.attributes[2:]))}, r"`schema\.order`"),
        (lambda s: {"dtype": "float16"}, "`dtype` was 'float32', now it is 'float16'"),
    ],
)
def test_other_settings_are_not_mixed_into_a_store(stores: Any, tmp_path: Path, change: Any, message: str) -> None:
    stores.write(tmp_path / "s")
    settings = {"latent_shape": (4,), "schema": stores.schema, "provenance": stores.provenance, **change(stores)}
    with pytest.raises(ValueError, match=message):
        LatentStoreWriter(tmp_path / "s", **settings)
    assert len(LatentStore.open(tmp_path / "s")) == 13


def test_resume_can_be_forbidden(stores: Any, tmp_path: Path) -> None:
    stores.write(tmp_path / "s")
    with pytest.raises(FileExistsError, match="is a latent store already"):
        LatentStoreWriter(tmp_path / "s", (4,), stores.schema, stores.provenance, resume=False)


def test_two_writers_notice_each_other(stores: Any, tmp_path: Path) -> None:
    latents, labels = stores.rows(2)
    first, second = (stores.writer(tmp_path / "s") for _ in range(2))
    first.append(latents, labels, np.arange(2))
    with pytest.raises(RuntimeError, match="another process writes"):
        second.append(latents, labels, np.arange(2))
    assert len(first.finish()) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_latents_that_are_not_finite_are_refused_by_row(stores: Any, tmp_path: Path, value: float) -> None:
    latents, labels = stores.rows(5)
    latents[3, 1] = value
    writer = stores.writer(tmp_path / "s")
    with pytest.raises(ValueError, match=r"latent of row 3 \(sample 103\) is not finite"):
        writer.append(latents, labels, np.arange(100, 105))
    assert writer.count == 0 and not list((tmp_path / "s").glob("*.safetensors"))


def test_what_float16_cannot_hold_is_refused(stores: Any, tmp_path: Path) -> None:
    writer = LatentStoreWriter(tmp_path / "s", (4,), stores.schema, stores.provenance, dtype="float16")
    latents, labels = stores.rows(2)
    with pytest.raises(ValueError, match="not finite in float16"):
        writer.append(latents * 1e6, labels, np.arange(2))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, 2.0, r"'beard' of row 1 \(sample 1\) must be a whole number in \[0, 1\].*got 2\.0"),
        (0, 0.5, "'beard'.*got 0.5"),
        (1, 3.0, r"'hair'.*in \[0, 2\]"),
        (1, -1.0, r"'hair'.*got -1\.0"),
        (2, math.inf, "'age'.*a finite number"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    stores: Any, tmp_path: Path, column: int, value: float, message: str
) -> None:
    latents, labels = stores.rows(3)
    labels[1, column] = value
    with pytest.raises(ValueError, match=message):
        stores.writer(tmp_path / "s").append(latents, labels, np.arange(3))


def test_wrong_shapes_and_orders_are_refused(stores: Any, tmp_path: Path) -> None:
    latents, labels = stores.rows(3)
    writer = stores.writer(tmp_path / "s")
    with pytest.raises(ValueError, match=r"`latents` must have shape \(n >= 1, 4\), got \(3, 2\)"):
        writer.append(latents[:, :2], labels, np.arange(3))
    with pytest.raises(ValueError, match=r"got \(0, 4\)"):
        writer.append(latents[:0], labels[:0], np.arange(0))
    with pytest.raises(ValueError, match="beard, hair, age, beard_colour"):
        writer.append(latents, labels[:, :2], np.arange(3))
    with pytest.raises(ValueError, match="`index` must be 3 integers"):
        writer.append(latents, labels, np.arange(3.0))
    with pytest.raises(ValueError, match="increase strictly, got 1 after 1, row 2"):
        writer.append(latents, labels, np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="got -5 after -1"):
        writer.append(latents, labels, np.array([-5, 1, 2]))
    writer.append(latents, labels, np.arange(3))
    with pytest.raises(ValueError, match="got 2 after 2, row 0"):
        writer.append(latents, labels, np.arange(2, 5))


def test_an_empty_store_is_not_finished(stores: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one latent"):
        stores.writer(tmp_path / "s").finish()


def test_wrong_settings_are_refused(stores: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`latent_shape` must be 1 to 8 positive integers"):
        LatentStoreWriter(tmp_path / "s", (0,), stores.schema, {})
    with pytest.raises(ValueError, match="`dtype` must be one of float32, float16, bfloat16, got 'int8'"):
        LatentStoreWriter(tmp_path / "s", (4,), stores.schema, {}, dtype="int8")
    with pytest.raises(TypeError, match="`provenance` must hold JSON primitives"):
        LatentStoreWriter(tmp_path / "s", (4,), stores.schema, {"path": Path("x")})
    with pytest.raises(ValueError):
        LatentStoreWriter(tmp_path / "s", (4,), stores.schema, {"x": math.nan})
    assert not (tmp_path / "s").exists()


def test_output_that_cannot_be_written_is_refused_at_once(
    stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write a latent store to .*file/s: .*choose another folder"):
        LatentStoreWriter(tmp_path / "file" / "s", (4,), stores.schema, stores.provenance)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    stores.write(tmp_path / "s")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device; choose another folder"):
        stores.writer(tmp_path / "s")


def test_a_folder_with_other_things_is_left_alone(stores: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match="not empty and no latent store"):
        LatentStoreWriter(tmp_path, (4,), stores.schema, stores.provenance)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


# --- shards of several ranks ------------------------------------------------------------------------------------------


def test_shards_of_ranks_are_adopted_in_one_step(stores: Any, tmp_path: Path) -> None:
    """The store is bit by bit the one that a single process would have appended and finished."""
    expected, latents, labels = stores.write(tmp_path / "whole", sizes=(5, 1, 7))
    writer = stores.writer(tmp_path / "s")
    bounds = ((0, 5), (5, 6), (6, 13))
    shards = [
        write_shard(tmp_path / "s", i, writer.manifest, latents[a:b], labels[a:b], np.arange(a, b), a - 1)
        for i, (a, b) in reversed(list(enumerate(bounds)))
    ][::-1]
    moments = [moments_of(tmp_path / "s", writer.manifest, shard) for shard in shards]
    statistics = Statistics.from_moments(reduce(Moments.merge, moments))
    (tmp_path / "s" / ".shard-00001.safetensors.77.tmp").write_text("of a process that was killed")
    store = writer.adopt(shards, statistics)
    for path in (tmp_path / "whole").glob("[!.]*"):
        assert (tmp_path / "s" / path.name).read_bytes() == path.read_bytes()
    assert store.fingerprint == expected.fingerprint and not list((tmp_path / "s").glob(".*.tmp"))

    before = (tmp_path / "s" / "manifest.json").read_bytes()
    stores.writer(tmp_path / "s").adopt(shards, statistics)
    assert (tmp_path / "s" / "manifest.json").read_bytes() == before
    assert stores.writer(tmp_path / "s").next_index == 13


def test_shards_that_do_not_go_on_are_not_adopted(stores: Any, tmp_path: Path) -> None:
    store, latents, labels = stores.write(tmp_path / "s", sizes=(5, 8))
    first, second = store.manifest.shards
    with pytest.raises(ValueError, match="must begin with the 2 of the store"):
        stores.writer(tmp_path / "s").adopt([second, first], store.statistics)
    repeated = write_shard(tmp_path / "s", 2, store.manifest, latents, labels, np.arange(13), -1)
    with pytest.raises(ValueError, match="increase strictly, got 0 after 12"):
        stores.writer(tmp_path / "s").adopt([first, second, repeated], store.statistics)
    missing = Shard("shard-00009.safetensors", 1, "0" * 64)
    with pytest.raises(FileNotFoundError, match="shard-00009"):
        stores.writer(tmp_path / "s").adopt([first, second, missing], store.statistics)
    assert len(LatentStore.open(tmp_path / "s")) == 13


# --- seals and settings -----------------------------------------------------------------------------------------------


def test_the_seal_is_that_of_the_finished_manifest(stores: Any, tmp_path: Path) -> None:
    store, latents, labels = stores.write(tmp_path / "s")
    run = subprocess.run(["sha256sum", "-c", "manifest.json.sha256"], cwd=store.path, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == "manifest.json: OK\n"
    writer = stores.writer(tmp_path / "s")
    assert (store.path / "manifest.json.sha256").exists()  # nothing has changed yet
    writer.append(latents, labels, np.arange(13, 26))
    assert not (store.path / "manifest.json.sha256").exists()
    writer.finish().verify()
    assert (store.path / "manifest.json.sha256").exists()


def test_stores_without_what_is_new_keep_the_first_version(stores: Any, tmp_path: Path) -> None:
    """And the fingerprints by which checkpoints know their store."""
    store, _, _ = stores.write(tmp_path / "s")
    entries = json.loads((tmp_path / "s" / "manifest.json").read_text())
    text = json.dumps(entries["shards"], sort_keys=True, separators=(",", ":"))
    assert entries["version"] == 1 and store.fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_two_may_begin_a_store_and_one_goes_on(stores: Any, tmp_path: Path) -> None:
    """Both find nothing and write the same manifest; who appends second is told."""
    latents, labels = stores.rows(2)
    first, second = stores.writer(tmp_path / "s"), stores.writer(tmp_path / "s")
    second.append(latents, labels, np.arange(2))
    with pytest.raises(RuntimeError, match="another process writes the latent store"):
        first.append(latents, labels, np.arange(2))
    assert len(second.finish()) == 2
