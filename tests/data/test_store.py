"""The latent store: what is written is read, whatever happens in between, and nothing else is believed."""

import json
import math
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lcg.data.atomic import write_atomic
from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.data.store.manifest import Manifest
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("beard"),
        Attribute("hair", "categorical", ("black", "blond", "red")),
        Attribute("age", "continuous"),
        Attribute("beard_colour", "categorical", ("black", "grey"), detail_of=("beard",), applies_if={"beard": True}),
    )
)
PROVENANCE = {"generator": {"class": "g", "weights_sha256": "00"}, "source": {"seed": 1}}


def rows(n: int, shape: tuple[int, ...] = (4,), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, top, n) for top in (2, 3, 7, 2)], axis=1).astype(np.float32)
    labels[labels[:, 0] == 0, 3] = np.nan
    return rng.normal(2.0, 3.0, (n, *shape)).astype(np.float32), labels


def write(path: Path, sizes: tuple[int, ...] = (5, 1, 7), shape: tuple[int, ...] = (4,), dtype: str = "float32"):
    latents, labels = rows(sum(sizes), shape)
    writer = LatentStoreWriter(path, shape, SCHEMA, PROVENANCE, dtype)
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        writer.append(latents[part], labels[part], np.arange(start, start + size))
        start += size
    return writer.finish(), latents, labels


def edit_manifest(path: Path, **changes: object) -> None:
    entries = json.loads((path / "manifest.json").read_text())
    entries.update(changes)
    (path / "manifest.json").write_text(json.dumps(entries))


# --- writing and reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (3, 2), (2, 2, 2)])
def test_what_is_written_is_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    store, latents, labels = write(tmp_path / "s", shape=shape)
    assert len(store) == 13 and store.latent_shape == shape and store.schema == SCHEMA
    assert dict(store.provenance) == PROVENANCE
    torch.testing.assert_close(store.latents(), torch.from_numpy(latents), rtol=0, atol=0)
    torch.testing.assert_close(store.labels(), torch.from_numpy(labels), rtol=0, atol=0, equal_nan=True)
    assert store.index().tolist() == list(range(13))
    store.verify()


@pytest.mark.parametrize(
    "chosen",
    [slice(3, 9), slice(None, None, -2), [12, 0, 5, 5], np.array([6, 4]), torch.tensor([0, 12]), [], slice(50, 60)],
)
def test_rows_are_chosen_as_by_numpy(tmp_path: Path, chosen: object) -> None:
    store, latents, labels = write(tmp_path / "s")
    plain = np.asarray(chosen, dtype=int) if not isinstance(chosen, slice) else chosen
    assert np.array_equal(store.latents(chosen).numpy(), latents[plain])
    assert np.array_equal(store.labels(chosen).numpy(), labels[plain], equal_nan=True)


def test_rows_outside_the_store_are_refused(tmp_path: Path) -> None:
    store, _, _ = write(tmp_path / "s")
    with pytest.raises(IndexError, match=r"must be in \[0, 13\), got 13"):
        store.latents([0, 13])
    with pytest.raises(IndexError, match="got -1"):
        store.labels([-1])
    with pytest.raises(TypeError, match=r"mask\.nonzero"):
        store.latents(torch.ones(13, dtype=torch.bool))


def test_float16_is_stored_rounded_and_read_as_float32(tmp_path: Path) -> None:
    store, latents, _ = write(tmp_path / "s", dtype="float16")
    assert store.latents().dtype == torch.float32
    assert np.array_equal(store.latents().numpy(), latents.astype(np.float16).astype(np.float32))


def test_tensors_of_every_float_type_are_taken(tmp_path: Path) -> None:
    writer = LatentStoreWriter(tmp_path / "s", (2,), SCHEMA, {})
    for i, dtype in enumerate((torch.bfloat16, torch.float64)):
        latents = torch.tensor([[1.5, -2.0]], dtype=dtype, requires_grad=True)
        writer.append(latents, torch.full((1, 4), math.nan), torch.tensor([i]))
    assert writer.finish().latents().tolist() == [[1.5, -2.0]] * 2


def test_pickling_a_store_keeps_its_path_only(tmp_path: Path) -> None:
    store, latents, _ = write(tmp_path / "s", sizes=(2000,))
    data = pickle.dumps(store)
    assert len(data) < 1000 and np.array_equal(pickle.loads(data).latents().numpy(), latents)


def test_statistics_are_those_of_all_rows(tmp_path: Path) -> None:
    store, latents, _ = write(tmp_path / "s", sizes=(50, 3, 400))
    z = latents.astype(np.float64)
    assert np.abs(store.statistics.mean.numpy() - z.mean(0)).max() < 1e-6
    assert np.abs(store.statistics.std.numpy() - z.std(0)).max() < 1e-6
    z_0 = store.statistics.standardise(store.latents().double())
    assert z_0.mean(0).abs().max() < 1e-6 and (z_0.std(0, correction=0) - 1).abs().max() < 1e-6


def test_fingerprint_names_the_data(tmp_path: Path) -> None:
    a, _, _ = write(tmp_path / "a")
    b, _, _ = write(tmp_path / "b")
    c, _, _ = write(tmp_path / "c", sizes=(5, 8))
    assert a.fingerprint == b.fingerprint != c.fingerprint


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_a_store_grows_in_several_sittings(tmp_path: Path) -> None:
    expected, latents, labels = write(tmp_path / "whole")
    for start, stop in ((0, 5), (5, 6), (6, 13)):
        writer = LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, PROVENANCE)
        assert writer.count == writer.next_index == start
        writer.append(latents[start:stop], labels[start:stop], np.arange(start, stop))
    store = writer.finish()
    assert store.fingerprint == expected.fingerprint
    assert torch.equal(store.statistics.mean, expected.statistics.mean)


def test_a_finished_store_may_grow_and_is_unfinished_meanwhile(tmp_path: Path) -> None:
    store, latents, labels = write(tmp_path / "s")
    writer = LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, PROVENANCE)
    assert writer.finish().fingerprint == store.fingerprint
    writer.append(latents[:2], labels[:2], np.array([13, 20]))
    with pytest.raises(ValueError, match="is not finished: it has 15 latents"):
        LatentStore.open(tmp_path / "s")
    grown = writer.finish()
    assert grown.index([13, 14]).tolist() == [13, 20] and grown.fingerprint != store.fingerprint
    assert not torch.equal(grown.statistics.mean, store.statistics.mean)


@pytest.mark.parametrize("victim", range(9))
def test_a_kill_between_any_two_file_operations_loses_one_shard_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: int
) -> None:
    """Each append is a rename of a shard and one of the manifest; the process dies before the victim-th rename."""
    latents, labels = rows(8)
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
        writer = LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, PROVENANCE)
        for start in (0, 3, 6):
            writer.append(latents[start : start + 3], labels[start : start + 3], np.arange(start, min(start + 3, 8)))
            appended = min(start + 3, 8)
        writer.finish()
    except KeyboardInterrupt:
        pass
    monkeypatch.undo()

    writer = LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, PROVENANCE)
    assert writer.count == appended
    for start in range(writer.count, 8, 3):
        writer.append(latents[start : start + 3], labels[start : start + 3], np.arange(start, min(start + 3, 8)))
    store = writer.finish()
    store.verify()
    assert np.array_equal(store.latents().numpy(), latents)
    assert sorted(p.name for p in store.path.iterdir() if not p.name.startswith(".")) == [
        "manifest.json",
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
    ("changes", "message"),
    [
        ({"latent_shape": (5,)}, r"`latent_shape` was \(4,\), now it is \(5,\)"),
        ({"provenance": {**PROVENANCE, "source": {"seed": 2}}}, r"`provenance.source.seed` was 1, now it is 2"),
        ({"schema": Schema(SCHEMA.attributes[:2])}, r"`schema\.age` was"),
        ({"schema": Schema((SCHEMA.attributes[1], SCHEMA.attributes[0], *SCHEMA.attributes[2:]))}, r"`schema\.order`"),
        ({"dtype": "float16"}, "`dtype` was 'float32', now it is 'float16'"),
    ],
)
def test_other_settings_are_not_mixed_into_a_store(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write(tmp_path / "s")
    settings = {"latent_shape": (4,), "schema": SCHEMA, "provenance": PROVENANCE, **changes}
    with pytest.raises(ValueError, match=message):
        LatentStoreWriter(tmp_path / "s", **settings)
    assert len(LatentStore.open(tmp_path / "s")) == 13


def test_resume_can_be_forbidden(tmp_path: Path) -> None:
    write(tmp_path / "s")
    with pytest.raises(FileExistsError, match="is a latent store already"):
        LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, PROVENANCE, resume=False)


def test_two_writers_notice_each_other(tmp_path: Path) -> None:
    latents, labels = rows(2)
    first, second = (LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, PROVENANCE) for _ in range(2))
    first.append(latents, labels, np.arange(2))
    with pytest.raises(RuntimeError, match="another process writes"):
        second.append(latents, labels, np.arange(2))
    assert len(first.finish()) == 2


# --- refusals when writing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_latents_that_are_not_finite_are_refused_by_row(tmp_path: Path, value: float) -> None:
    latents, labels = rows(5)
    latents[3, 1] = value
    writer = LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, PROVENANCE)
    with pytest.raises(ValueError, match=r"latent of row 3 \(sample 103\) is not finite"):
        writer.append(latents, labels, np.arange(100, 105))
    assert writer.count == 0 and not list((tmp_path / "s").glob("*.safetensors"))


def test_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    writer = LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, PROVENANCE, dtype="float16")
    latents, labels = rows(2)
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
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, column: int, value: float, message: str) -> None:
    latents, labels = rows(3)
    labels[1, column] = value
    with pytest.raises(ValueError, match=message):
        LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, PROVENANCE).append(latents, labels, np.arange(3))


def test_wrong_shapes_and_orders_are_refused(tmp_path: Path) -> None:
    latents, labels = rows(3)
    writer = LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, PROVENANCE)
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


def test_an_empty_store_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one latent"):
        LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, PROVENANCE).finish()


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`latent_shape` must be 1 to 8 positive integers"):
        LatentStoreWriter(tmp_path / "s", (0,), SCHEMA, {})
    with pytest.raises(ValueError, match="`dtype` must be one of float32, float16, got 'int8'"):
        LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, {}, dtype="int8")
    with pytest.raises(TypeError, match="`provenance` must hold JSON primitives"):
        LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, {"path": Path("x")})
    with pytest.raises(ValueError):
        LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, {"x": math.nan})
    assert not (tmp_path / "s").exists()


def test_output_that_cannot_be_written_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write a latent store to .*file/s: .*choose another folder"):
        LatentStoreWriter(tmp_path / "file" / "s", (4,), SCHEMA, PROVENANCE)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    write(tmp_path / "s")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device; choose another folder"):
        LatentStoreWriter(tmp_path / "s", (4,), SCHEMA, PROVENANCE)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match="not empty and no latent store"):
        LatentStoreWriter(tmp_path, (4,), SCHEMA, PROVENANCE)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "f", b"old")

    def fail(_: int) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk"):
        write_atomic(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    monkeypatch.undo()
    write_atomic(tmp_path / "f", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"new")]


# --- stores from strangers --------------------------------------------------------------------------------------------


def test_a_missing_store_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lcg encode --config configs/data/avatars\.yaml"):
        LatentStore.open(tmp_path / "nothing")


def test_manifest_round_trip(tmp_path: Path) -> None:
    store, _, _ = write(tmp_path / "s")
    text = (tmp_path / "s" / "manifest.json").read_text()
    assert Manifest.from_json(text) == store.manifest and Manifest.from_json(text).to_json() == text


SHARD = {"file": "shard-00000.safetensors", "count": 13, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "zip"}, "`format` must be 'lcg-latents'"),
        ({"version": 2}, "upgrade lcg"),
        ({"version": True}, "`version` must be a positive integer, got True"),
        ({"version": "1"}, "`version` must be a positive integer"),
        ({"surprise": 1}, r"not known: \['surprise'\]"),
        ({"latent_shape": 4}, "`latent_shape` must be a list"),
        ({"latent_shape": [-4]}, "1 to 8 positive integers"),
        ({"latent_shape": [4.0]}, "1 to 8 positive integers"),
        ({"latent_shape": [True]}, "1 to 8 positive integers"),
        ({"latent_shape": [2**20, 2**20]}, "at most 268435456 elements"),
        ({"latent_shape": [5]}, r"`statistics` must have shape \[5\], got \[4\]"),
        ({"dtype": "float64"}, "`dtype` must be one of"),
        ({"dtype": ["float32"]}, "`dtype` must be one of"),
        ({"count": 14}, "`count` must be the shards' sum 13, got 14"),
        ({"count": 13.0}, "`count` must be"),
        ({"provenance": []}, "`provenance` must be an object"),
        ({"statistics": 3}, "statistics must be"),
        ({"statistics": {"mean": [0.0] * 4, "std": [0.0] * 4}}, "`std` must be positive"),
        ({"shards": {}}, "`shards` must be a list"),
        ({"shards": []}, "`shards` must not be empty"),
        ({"shards": [3]}, "exactly file, count and sha256"),
        ({"shards": [{**SHARD, "mode": 7}]}, "exactly file, count and sha256"),
        ({"shards": [{**SHARD, "file": "../shard-00000.safetensors"}]}, r"must be like 'shard-00000\.safetensors'"),
        ({"shards": [{**SHARD, "file": "/etc/passwd"}]}, "must be like"),
        ({"shards": [{**SHARD, "file": "shard-00000.safetensors\n"}]}, "must be like"),
        ({"shards": [{**SHARD, "file": 5}]}, "must be like"),
        ({"shards": [{**SHARD, "count": 0}]}, "must be a positive integer, got 0"),
        ({"shards": [{**SHARD, "sha256": "xyz"}]}, "64 hexadecimal digits"),
        ({"shards": [SHARD, SHARD]}, "distinct"),
        ({"schema": {}}, "`schema` must be a list"),
        ({"schema": [3]}, "must have a name"),
        ({"schema": [{"name": "a", "__class__": "b"}]}, "of fields only"),
        ({"schema": [{"name": 3}]}, "'name' must be a str, got int"),
        ({"schema": [{"name": "a", "values": "abc"}]}, "'values' must be a list"),
        ({"schema": [{"name": "a", "detail_of": [3]}]}, "must be lists of names"),
        ({"schema": [{"name": "a", "applies_if": {"a": 1}}]}, "true or false"),
        ({"schema": [{"name": "a b"}]}, "must be an identifier"),
    ],
)
def test_a_manifest_is_not_believed(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write(tmp_path / "s")
    edit_manifest(tmp_path / "s", **changes)
    with pytest.raises(ValueError, match=message) as error:
        LatentStore.open(tmp_path / "s")
    assert str(tmp_path / "s" / "manifest.json") in str(error.value)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"null", b'"lcg-latents"', b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}', b"9" * 5000]
)
def test_what_is_no_json_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        LatentStore.open(tmp_path)


def test_a_huge_manifest_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "manifest.json", "wb") as file:
        file.truncate(2**30)
    with pytest.raises(ValueError, match="at most 67108864 bytes"):
        LatentStore.open(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write(tmp_path / "s")
    (tmp_path / "s" / "shard-00001.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks its shard .*shard-00001\.safetensors"):
        LatentStore.open(tmp_path / "s")


def rewrite_header(path: Path, change) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


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
def test_a_shard_is_not_believed(tmp_path: Path, change, message: str) -> None:
    write(tmp_path / "s", sizes=(5,))
    rewrite_header(tmp_path / "s" / "shard-00000.safetensors", change)
    with pytest.raises(ValueError, match=rf"is not the shard that the manifest describes: .*{message}"):
        LatentStore.open(tmp_path / "s")


@pytest.mark.parametrize(
    "data",
    [b"", b"abc", b"\xff" * 8, (2**40).to_bytes(8, "little") + b"{}", (100_000).to_bytes(8, "little") + b"[" * 100_000],
)
def test_a_damaged_shard_is_refused(tmp_path: Path, data: bytes) -> None:
    write(tmp_path / "s", sizes=(5,))
    (tmp_path / "s" / "shard-00000.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="is not the shard"):
        LatentStore.open(tmp_path / "s")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0"])
def test_a_shard_of_another_length_is_refused(tmp_path: Path, change) -> None:
    write(tmp_path / "s", sizes=(5,))
    path = tmp_path / "s" / "shard-00000.safetensors"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match="is not the shard"):
        LatentStore.open(tmp_path / "s")


def test_verify_finds_one_flipped_bit(tmp_path: Path) -> None:
    write(tmp_path / "s")
    path = tmp_path / "s" / "shard-00002.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    store = LatentStore.open(tmp_path / "s")
    with pytest.raises(ValueError, match=r"shard-00002\.safetensors is damaged"):
        store.verify()


def test_verify_finds_contents_that_no_writer_stores(tmp_path: Path) -> None:
    """A checksum proves only that the bytes are those of whoever wrote the manifest."""
    import hashlib

    from safetensors.numpy import load_file, save_file

    write(tmp_path / "s", sizes=(5,))
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
        edit_manifest(
            path.parent, shards=[{**SHARD, "count": 5, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}]
        )
        with pytest.raises(ValueError, match=rf"shard-00000\.safetensors: .*{message}"):
            LatentStore.open(tmp_path / "s").verify()
