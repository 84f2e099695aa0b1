"""Merging and splitting: no row is lost or doubled, numbers stay, parents stay as they are, memory stays small."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcg.data.split import in_validation
from lcg.data.store import LatentStore, LatentStoreWriter, merging, splitting
from lcg.data.store.copying import Picks, regrouped, rows_of_shard
from lcg.data.store.merging import merge_stores
from lcg.data.store.splitting import split_store
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (Attribute("smile"), Attribute("hair", "categorical", ("blond", "red")), Attribute("age", "continuous"))
)
GENERATOR = {"class": "g", "weights_sha256": "aa"}
Make = Callable[..., LatentStore]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A store with given numbers; latent and labels of a sample are functions of its number."""

    def of(
        name: str, index: Any, schema: Schema = SCHEMA, dtype: str = "float32", shape: int = 3, **provenance: Any
    ) -> LatentStore:
        index = np.asarray(index)
        whole = {"generator": GENERATOR, "source": {"name": "toy"}} | provenance
        writer = LatentStoreWriter(tmp_path / name, (shape,), schema, whole, dtype)
        for part in np.array_split(index, 3):
            if len(part):
                writer.append(latents(part, shape), labels(part)[:, [SCHEMA.index(n) for n in schema.names]], part)
        return writer.finish()

    return of


def latents(index: np.ndarray, shape: int = 3) -> np.ndarray:
    return (index[:, None] / 8 + np.arange(shape)).astype(np.float32)


def labels(index: np.ndarray) -> np.ndarray:
    hair = np.where(index % 3 == 2, math.nan, index % 3)
    return np.stack([index % 2, hair, index / 4], axis=1).astype(np.float32)


def sound(store: LatentStore) -> np.ndarray:
    """The numbers of a store whose rows are what their numbers say."""
    store.verify()
    index = store.index().numpy()
    assert np.array_equal(store.latents().numpy(), latents(index, store.latent_shape[0]))
    assert np.array_equal(store.labels().numpy(), labels(index), equal_nan=True)
    return index


def frozen(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}


def merged(stores: list[LatentStore], out: str = "merged", **more: Any) -> LatentStore:
    before = [frozen(store.path) for store in stores]
    store = merge_stores([s.path for s in stores], stores[0].path.with_name(out), progress=False, **more)
    assert [frozen(s.path) for s in stores] == before
    return store


# --- merging ---


@pytest.mark.parametrize("at_once", [1, 3, 65536])
@pytest.mark.parametrize("shard_size", [1, 7, None])
def test_all_rows_of_all_stores_by_their_numbers(
    make: Make, at_once: int, shard_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "ROWS_AT_ONCE", at_once)
    numbers = np.random.default_rng(0).permutation(60)[:50]
    stores = [make(str(i), np.sort(part)) for i, part in enumerate((numbers[:30], numbers[30:31], numbers[31:]))]
    store = merged(stores, shard_size=shard_size)
    assert sound(store).tolist() == sorted(numbers)
    assert store.provenance["generator"] == GENERATOR and store.provenance["source"] == {"name": "toy"}
    parents = store.provenance["merge"]["parents"]
    assert [parent["fingerprint"] for parent in parents] == [s.fingerprint for s in stores]
    assert store.schema == SCHEMA


def test_attributes_that_some_lack_are_missing_labels(make: Make) -> None:
    age, smile = Schema((SCHEMA["age"], SCHEMA["hair"])), Schema((SCHEMA["smile"],))
    store = merged([make("a", range(4), age), make("b", range(4, 6), smile)])
    assert store.schema.names == ("age", "hair", "smile")
    expected = labels(np.arange(6))[:, [2, 1, 0]]
    expected[4:, :2] = math.nan
    expected[:4, 2] = math.nan
    assert np.array_equal(store.labels().numpy(), expected, equal_nan=True)


@pytest.mark.parametrize(("given", "expected"), [(None, "float16"), ("float32", "float32"), ("bfloat16", "bfloat16")])
def test_the_type_is_that_of_the_first_or_the_given(make: Make, given: str | None, expected: str) -> None:
    stores = [make("a", range(4), dtype="float16"), make("b", range(4, 9))]
    store = merged(stores, dtype=given)
    assert store.manifest.dtype == expected
    assert torch.equal(store.latents(), torch.cat([s.latents() for s in stores]))  # eighths are exact in all


def test_numbers_that_are_shared_are_refused_or_shifted(make: Make) -> None:
    a, b = make("a", [0, 1, 5]), make("b", [2, 5, 9])
    with pytest.raises(
        ValueError, match=r"/a and .*/b both have a sample 5; number the later ones anew with --renumber"
    ):
        merged([a, b])
    assert not a.path.with_name("merged").exists()
    store = merged([a, b], renumber=True)
    assert store.index().tolist() == [0, 1, 5, 8, 11, 15]
    assert torch.equal(store.latents(), torch.cat([a.latents(), b.latents()]))
    assert store.provenance["merge"]["renumber"] is True


def test_numbers_that_cannot_be_shifted_are_refused(make: Make) -> None:
    a, b = make("a", [2**63 - 2]), make("b", [0, 5])
    with pytest.raises(ValueError, match=r"/b has numbers so large that they cannot be shifted; merge it first"):
        merged([a, b], renumber=True)
    assert merged([b, a]).index().tolist() == [0, 5, 2**63 - 2]


def test_stores_that_do_not_go_together_are_refused(make: Make) -> None:
    a = make("a", range(3))
    other = Schema((Attribute("smile"), Attribute("hair", "categorical", ("red", "blond")), SCHEMA["age"]))
    for index, (more, message) in enumerate(
        (
            ({"shape": 2}, r"has latents of shape \(3,\), .* of \(2,\); only latents of one generator"),
            (
                {"generator": {"weights_sha256": "bb"}},
                r"different generators \(weights_sha256 aa and bb\).*any_generator",
            ),
            ({"generator": None}, r"different generators \(weights_sha256 aa and unknown\)"),
            ({"schema": other}, r"'hair' is categorical \(blond, red\) in .*/a and categorical \(red, blond\) in"),
        )
    ):
        with pytest.raises(ValueError, match=message):
            merged([a, make(f"b{index}", range(3, 5), **more)])
    with pytest.raises(ValueError, match="`stores` must name at least two stores, got 1"):
        merged([a])
    with pytest.raises(FileNotFoundError, match="no latent store at"):
        merge_stores([a.path, a.path.with_name("none")], a.path.with_name("merged"), progress=False)
    assert not a.path.with_name("merged").exists()


def test_other_generators_are_merged_when_told_and_then_none_is_vouched_for(make: Make) -> None:
    store = merged([make("a", [0]), make("b", [1], generator={"weights_sha256": "bb"})], any_generator=True)
    assert "generator" not in store.provenance and sound(store).tolist() == [0, 1]


def test_a_parent_is_never_written_to(make: Make) -> None:
    a, b = make("a", [0]), make("b", [1])
    before = frozen(a.path)
    with pytest.raises(ValueError, match="was written with other settings"):
        merge_stores([a.path, b.path], a.path, progress=False)
    assert frozen(a.path) == before


@pytest.mark.parametrize("job", ["merge", "split"])
def test_a_job_that_was_stopped_goes_on_to_the_same_bytes(
    make: Make, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = make("a", range(0, 40, 2)), make("b", range(1, 40, 2))

    def run(out: str) -> list[Path]:
        path = a.path.with_name(out)
        if job == "merge":
            return [merge_stores([a.path, b.path], path, shard_size=3, progress=False).path]
        made = split_store(a.path, path, {"x": 0.5, "y": 0.5}, shard_size=3, progress=False)
        return [store.path for store in made.values()]

    whole = [{p.name: p.read_bytes() for p in path.iterdir()} for path in run("whole")]
    append, left = LatentStoreWriter.append, 2

    def dies(self: LatentStoreWriter, *args: Any) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        append(self, *args)

    monkeypatch.setattr(LatentStoreWriter, "append", dies)
    with pytest.raises(KeyboardInterrupt):
        run("s")
    monkeypatch.undo()
    written: list[int] = []
    monkeypatch.setattr(LatentStoreWriter, "append", lambda s, *a: (written.append(len(a[2])), append(s, *a))[1])
    assert [{p.name: p.read_bytes() for p in path.iterdir()} for path in run("s")] == whole
    assert sum(written) == (40 if job == "merge" else 20) - 6


# --- splitting ---


@pytest.mark.parametrize("at_once", [7, 65536])
def test_parts_are_disjoint_and_together_the_store(make: Make, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "ROWS_AT_ONCE", at_once)
    store = make("a", np.arange(3000) * 3)
    before = frozen(store.path)
    made = split_store(store.path, store.path.with_name("s"), {"train": 0.7, "judge": 0.3}, progress=False)
    assert frozen(store.path) == before
    train, judge = sound(made["train"]), sound(made["judge"])
    assert sorted([*train, *judge]) == store.index().tolist()
    assert abs(len(train) / 3000 - 0.7) < 4 * math.sqrt(0.7 * 0.3 / 3000)
    share = in_validation(judge, 0.2).mean()  # another stream: each part has its share of validation samples
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / len(judge))
    told = made["judge"].provenance
    assert told["split"] == {"of": store.fingerprint, "parts": {"train": 0.7, "judge": 0.3}, "part": "judge"}
    assert told["generator"] == GENERATOR
    together = merge_stores([s.path for s in made.values()], store.path.with_name("m"), progress=False)
    assert torch.equal(together.latents(), store.latents()) and sound(together).tolist() == store.index().tolist()


def test_a_sample_stays_in_its_part_when_the_store_grows(make: Make) -> None:
    parts = {"x": 0.5, "y": 0.25, "z": 0.25}
    small, large = make("small", range(50)), make("large", range(200))
    few = split_store(small.path, small.path.with_name("s"), parts, progress=False)
    many = split_store(large.path, large.path.with_name("l"), parts, progress=False)
    for name in parts:
        assert [i for i in many[name].index().tolist() if i < 50] == few[name].index().tolist()


def test_by_an_attribute(make: Make) -> None:
    store = make("a", range(30))
    made = split_store(store.path, store.path.with_name("hair"), by="hair", progress=False)
    assert {name: sound(part).tolist() for name, part in made.items()} == {
        "hair-blond": list(range(0, 30, 3)),
        "hair-red": list(range(1, 30, 3)),
        "hair-unknown": list(range(2, 30, 3)),
    }
    again = split_store(made["hair-red"].path, store.path.with_name("smile"), by="smile", progress=False)
    assert set(again) == {"smile-0", "smile-1"}  # nobody lacks the label: no part for it
    assert again["smile-1"].provenance["split"]["before"]["part"] == "hair-red"


def test_a_value_cannot_lead_out_of_the_folder(make: Make, tmp_path: Path) -> None:
    schema = Schema((Attribute("smile"), Attribute("hair", "categorical", ("../../up", "red")), SCHEMA["age"]))
    store = make("deep/down/a", range(6))
    writer = LatentStoreWriter(tmp_path / "deep/b", (3,), schema, {})
    writer.append(store.latents(), store.labels(), store.index())
    writer.finish()
    made = split_store(tmp_path / "deep/b", tmp_path / "deep/s", by="hair", progress=False)
    assert set(made) == {"hair-0", "hair-1", "hair-unknown"} and not (tmp_path / "up").exists()


def test_parts_that_cannot_be_are_refused(make: Make) -> None:
    store = make("a", range(6))
    out = store.path.with_name("s")
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "give either `parts`, shares by name, or `by`, an attribute"),
        ({"parts": {"a": 0.5, "b": 0.5}, "by": "smile"}, "give either `parts`"),
        ({"parts": {"a": 1.0}}, "two or more shares that add up to 1"),
        ({"parts": {"a": 0.5, "b": 0.6}}, r"two or more shares that add up to 1, got \{'a': 0\.5, 'b': 0\.6\}"),
        ({"parts": {"a": 1.5, "b": -0.5}}, "shares in `parts` must be positive, got -0.5 for 'b'"),
        ({"parts": {"../a": 0.5, "b": 0.5}}, r"names in `parts` must be letters, .* got '\.\./a'"),
        ({"parts": {"a": 1 - 1e-6, "b": 1e-6}}, "part 'b' would have none of the 6 samples; give it a larger share"),
        ({"by": "smlie"}, "unknown attribute 'smlie'; did you mean 'smile'"),
        ({"by": "age"}, "`by` must be a binary or categorical attribute, got 'age', which is continuous"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            split_store(store.path, out, progress=False, **options)
    assert not out.exists()


# --- pieces of rows ---


@pytest.mark.parametrize("pieces", [[10], [1] * 10, [3, 0, 4, 3]])
@pytest.mark.parametrize("size", [1, 4, 10, 99])
@pytest.mark.parametrize("skip", [0, 3, 8, 10])
def test_rows_are_regrouped_in_order(pieces: list[int], size: int, skip: int) -> None:
    def picks(index: np.ndarray) -> Picks:
        return Picks(index % 2, index + 1, index)

    found = list(regrouped((picks(p) for p in np.split(np.arange(10), np.cumsum(pieces)[:-1])), size, skip))
    assert all(len(piece) == size for piece in found[:-1]) and all(0 < len(piece) <= size for piece in found)
    together = np.concatenate([piece.index for piece in found]) if found else np.zeros(0)
    assert together.tolist() == list(range(skip, 10))
    assert all((piece.row == piece.index + 1).all() and (piece.store == piece.index % 2).all() for piece in found)


@pytest.mark.parametrize(
    ("shape", "dtype", "rows"),
    [((64,), "float32", 2**18), ((512,), "float16", 2**16), ((18, 512), "float32", 1820), ((2**27,), "float32", 1)],
)
def test_shards_are_of_a_handy_size(shape: tuple[int, ...], dtype: str, rows: int) -> None:
    assert rows_of_shard(shape, dtype) == rows
