"""Latents of others: every way to label them, every mistake refused before work, the same bytes after a kill."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lcg.data.store import LatentStore
from lcg.data.store.importing import import_latents
from lcg.data.store.labelling import read_schema
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (Attribute("smile"), Attribute("hair", "categorical", ("blond", "red")), Attribute("age", "continuous"))
)
LABELS = np.array([[1, 0, 0.25], [math.nan, 1, math.nan], [0, math.nan, 3]], np.float32)
TABLE = "smile,hair,age\n1,blond,0.25\n,red,\n0,,3\n"
YAML = "- name: smile\n- name: hair\n  kind: categorical\n  values: [blond, red]\n- {name: age, kind: continuous}\n"


def latents(count: int = 3, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, *(shape or (4,)))).astype(np.float32)


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    np.save(tmp_path / "z.npy", latents())
    return tmp_path / "z.npy"


def table(npy: Path, text: str = TABLE) -> Path:
    path = npy.with_name("labels.csv")
    path.write_text(text)
    return path


def imported(files: list[Path], **more: Any) -> LatentStore:
    store = import_latents(files, files[0].with_name("s"), progress=False, **more)
    store.verify()
    return store


def holds(store: LatentStore, z: np.ndarray, labels: np.ndarray = LABELS) -> bool:
    same = np.array_equal(store.labels().numpy(), labels, equal_nan=True)
    return same and np.array_equal(store.latents().numpy(), z) and store.index().tolist() == list(range(len(z)))


# --- what there is to import ---


@pytest.mark.parametrize("shape", [(4,), (18, 6), (2, 4, 4)])
@pytest.mark.parametrize("name", ["z.npy", "z.npz", "z.safetensors"])
def test_vectors_layers_and_maps_of_every_format(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    z, path = latents(3, *shape), tmp_path / name
    if name == "z.npy":
        np.save(path, z)
    elif name == "z.npz":
        np.savez_compressed(path, w=z)
    else:
        save_file({"w": torch.from_numpy(z)}, path)
    store = imported([path], table=table(path), shard_size=2)
    assert store.schema == SCHEMA and store.latent_shape == shape and holds(store, z)
    assert len(store.manifest.shards) == 2


def test_several_files_in_order(tmp_path: Path) -> None:
    z = latents(5)
    np.save(tmp_path / "b.npy", z[:2])
    np.savez(tmp_path / "a.npz", z[2:])
    store = imported([tmp_path / "b.npy", tmp_path / "a.npz"], shard_size=3)
    assert np.array_equal(store.latents().numpy(), z)
    assert [entry["file"] for entry in store.provenance["import"]["latents"]] == ["b.npy", "a.npz"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_latents_are_rounded_to_the_type(npy: Path, dtype: str) -> None:
    store = imported([npy], dtype=dtype)
    assert torch.equal(store.latents(), torch.from_numpy(latents()).to(getattr(torch, dtype)).float())


def test_labels_by_number_in_any_order(npy: Path) -> None:
    for key in ("row", "index"):
        text = f"age,{key},smile\n3,2,0\n0.25,0,1\n"
        store = import_latents([npy], npy.with_name(key), table(npy, text), SCHEMA_OF_TWO, progress=False)
        nan = math.nan
        assert holds(store, latents(), np.array([[1, 0.25], [nan, nan], [0, 3]], np.float32))


SCHEMA_OF_TWO = Schema((Attribute("smile"), Attribute("age", "continuous")))


def test_parquet_by_number(npy: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"row": [2, 0], "smile": [0, 1]}), npy.with_name("t.parquet"))
    store = imported([npy], table=npy.with_name("t.parquet"))
    assert holds(store, latents(), np.array([[1], [math.nan], [0]], np.float32))


@pytest.mark.parametrize("name", ["z.npz", "z.safetensors"])
def test_labels_in_the_same_file(tmp_path: Path, name: str) -> None:
    path, z = tmp_path / name, latents()
    if name == "z.npz":
        np.savez(path, w=z, y=LABELS)
    else:
        save_file({"w": torch.from_numpy(z), "y": torch.from_numpy(LABELS)}, path)
    assert holds(imported([path], member="w", labels="y", schema=SCHEMA, shard_size=2), z)
    np.savez(tmp_path / "one.npz", w=z, y=LABELS[:, 0])
    one = import_latents([tmp_path / "one.npz"], tmp_path / "o", schema=Schema((Attribute("smile"),)), **ONE)
    assert holds(one, z, LABELS[:, :1])


ONE: dict[str, Any] = {"member": "w", "labels": "y", "progress": False}


def test_a_column_of_files_is_no_attribute(npy: Path) -> None:
    text = "file,smile\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(3))
    assert imported([npy], table=table(npy, text)).schema.names == ("smile",)


def test_without_a_table_there_are_no_attributes(npy: Path) -> None:
    store = imported([npy])
    assert len(store.schema) == 0 and store.labels().shape == (3, 0)
    assert holds(store, latents(), np.empty((3, 0), np.float32))


def test_the_generator_is_told(npy: Path) -> None:
    from lcg.generators.autoencoder import AvatarAutoencoder

    generator = AvatarAutoencoder()
    with pytest.raises(ValueError, match=r"latents have shape \(4,\), the generator takes \(64,\)"):
        imported([npy], generator=generator)
    np.save(npy, latents(3, 64))
    assert imported([npy], generator=generator).provenance["generator"] == generator.identity()


# --- again ---


def test_what_is_there_is_not_imported_again_and_what_changed_is_refused(npy: Path) -> None:
    store = imported([npy], table=table(npy))
    files = {path.name: path.stat().st_mtime_ns for path in store.path.glob("shard-*")}
    assert imported([npy], table=table(npy)).fingerprint == store.fingerprint
    assert {path.name: path.stat().st_mtime_ns for path in store.path.glob("shard-*")} == files
    np.save(npy, latents() + 1)
    with pytest.raises(ValueError, match=r"was written with other settings: `provenance\.import\.latents`"):
        imported([npy], table=table(npy))


def _import(folder: Path, out: Path) -> None:
    import_latents([folder / "z.npz"], out, folder / "labels.csv", shard_size=50, progress=False)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The threads that torch computes with do not live on in a fork, which would wait for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_whenever_it_is_killed_the_bytes_are_the_same_in_the_end(tmp_path: Path, times: int) -> None:
    np.savez_compressed(tmp_path / "z.npz", latents(500))
    rows = np.random.default_rng(1).permutation(500)[:400]
    (tmp_path / "labels.csv").write_text("row,smile\n" + "".join(f"{row},{row % 2}\n" for row in rows))
    started = time.perf_counter()
    _import(tmp_path, tmp_path / "whole")
    seconds = time.perf_counter() - started
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    fork, killed = multiprocessing.get_context("fork"), 0
    for number, moment in enumerate(np.random.default_rng(times).uniform(0, seconds, times)):
        out = tmp_path / str(number)
        process = fork.Process(target=_import, args=(tmp_path, out))
        process.start()
        time.sleep(moment)
        process.kill()
        process.join()
        killed += not (out / "manifest.json.sha256").exists()
        _import(tmp_path, out)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == expected
    assert killed


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smile\n1\n", r"labels\.csv has 1 rows, and there are 3 latents; give a line per latent .* or add a column"),
        ("row,smile\n0,1\n3,1\n", r"line 3: `row` must number a latent, 0 to 2, got '3'"),
        ("row,smile\n-1,1\n", r"line 2: `row` must number a latent, 0 to 2, got '-1'"),
        ("row,smile\none,1\n", r"line 2: `row` must number a latent, 0 to 2, got 'one'"),
        (f"row,smile\n{'9' * 5000},1\n", "line 2: `row` must number a latent"),
        ("row,smile\n1,1\n0,1\n1,0\n", "line 4: `row` 1 has a line already; keep one"),
        ("row,index,smile\n0,0,1\n", "has columns `row` and `index`; keep the one"),
        ("smile,note\n1,a\n1,a\n1,a\n", "'note' has one text only"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_before_work(npy: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        imported([npy], table=table(npy, text))
    assert not npy.with_name("s").exists()


def test_a_line_that_is_repeated_far_away_is_refused(npy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcg.data.tables.ROWS_AT_ONCE", 1)
    with pytest.raises(ValueError, match="line 4: `row` 0 has a line already"):
        imported([npy], table=table(npy, "row,smile\n0,1\n2,1\n0,0\n"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_latent_that_is_not_finite_is_named_by_its_file_and_row(tmp_path: Path, value: float) -> None:
    z = latents(10)
    z[7, 2] = value
    np.save(tmp_path / "a.npy", z[:4])
    np.save(tmp_path / "b.npy", z[4:])
    with pytest.raises(ValueError, match=r"the latent in row 3 of .*b\.npy is not finite, and 1 of 5 rows near it"):
        import_latents([tmp_path / "a.npy", tmp_path / "b.npy"], tmp_path / "s", shard_size=5, progress=False)


def test_a_latent_that_the_type_cannot_hold_is_refused(npy: Path) -> None:
    np.save(npy, latents() * 1e6)
    with pytest.raises(ValueError, match=r"row 0 \(sample 0\) is not finite in float16"):
        imported([npy], dtype="float16")


def test_what_does_not_go_together_is_refused(npy: Path) -> None:
    np.savez(npy.with_name("z.npz"), w=latents(), y=LABELS, two=LABELS[:2], deep=latents(3, 2, 2))
    npz = npy.with_name("z.npz")
    for files, more, message in (
        ([], {}, "`latents` must name at least one"),
        ([npy], {"shard_size": 0}, "`shard_size` must be >= 1, got 0"),
        ([npy], {"schema": SCHEMA}, "`schema` needs labels that it describes; give `table` or `labels`"),
        ([npz], {"member": "w", "labels": "y"}, "`labels` are numbers without names; say with `schema`"),
        ([npz], {"member": "w", "labels": "two", "schema": SCHEMA}, "there are 2 labels and 3 latents"),
        ([npz], {"member": "w", "labels": "deep", "schema": SCHEMA}, r"must have shape \(N, 3\), .* got \(N, 2, 2\)"),
        ([npz], {"member": "w", "labels": "y", "schema": SCHEMA, "table": table(npy)}, "cannot both be given"),
        ([npy], {"dtype": "int8"}, "`dtype` must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            import_latents(files, npy.with_name("s"), progress=False, **more)
    np.save(npy, latents()[:, 0])
    with pytest.raises(ValueError, match="a row per sample, such as \\(N, 512\\), got one number per sample"):
        imported([npy])
    assert not npy.with_name("s").exists()


class Malice:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["MALICE"],)


def test_pickles_are_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALICE", str(tmp_path / "harm"))
    np.save(tmp_path / "a.npy", np.array([Malice()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", w=latents(1), y=np.array([Malice()], dtype=object))
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(Malice()))
    np.save(tmp_path / "z.npy", latents(1))
    for files, more in (
        (["a.npy"], {}),
        (["bare.npy"], {}),
        (["a.npz"], {"member": "w", "labels": "y", "schema": SCHEMA}),
        (["z.npy"], {"table": tmp_path / "bare.npy"}),
    ):
        with pytest.raises(ValueError, match=r"numbers|cannot be read"):
            import_latents([tmp_path / name for name in files], tmp_path / "s", progress=False, **more)
    assert not (tmp_path / "harm").exists() and not (tmp_path / "s").exists()


# --- schemas in files ---


def test_a_schema_is_read_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "schema.yaml").write_text(YAML)
    assert read_schema(tmp_path / "schema.yaml") == SCHEMA


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "smile: binary",
            "each with a name and of fields only applies_if, detail_of, group, kind, name, ordered",
        ),
        ("[]", "must list attributes"),
        ("- {name: x, colour: red}", "must list attributes"),
        ("- {name: 3}", r"schema\.yaml: "),
        ("- {name: x, kind: whole}", "unknown kind 'whole'"),
        ("- {name: x, values: 3}", r"schema\.yaml: "),
        ("- [", "is not YAML"),
        ("!!python/object/apply:os.mkdir [harm]", "is not YAML"),
    ],
)
def test_what_is_no_schema_is_refused(tmp_path: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schema.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_schema(tmp_path / "schema.yaml")
    with pytest.raises(FileNotFoundError, match="no schema at"):
        read_schema(tmp_path / "none.yaml")
    assert not (tmp_path / "harm").exists()
