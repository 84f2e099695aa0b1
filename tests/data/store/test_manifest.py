"""A manifest says the same after a round trip, and nothing in it is believed."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lcg.data.store import LatentStore, manifest
from lcg.data.store.manifest import Manifest

JSON_SCHEMA = json.loads(Path(manifest.__file__).with_name("manifest.schema.json").read_text())


def test_manifest_round_trip(stores: Any, tmp_path: Path) -> None:
    store, _, _ = stores.write(tmp_path / "s")
    text = (tmp_path / "s" / "manifest.json").read_text()
    assert Manifest.from_json(text) == store.manifest and Manifest.from_json(text).to_json() == text


SHARD = {"file": "shard-00000.safetensors", "count": 13, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "zip"}, "`format` must be 'lcg-latents'"),
        ({"version": 3}, "upgrade lcg"),
        ({"version": True}, "`version` must be a positive integer, got True"),
        ({"version": "1"}, "`version` must be a positive integer"),
        ({"surprise": 1}, r"not known: \['surprise'\]"),
        ({"latent_shape": 4}, "`latent_shape` must be a list"),
        ({"latent_shape": [-4]}, "1 to 8 positive integers"),
        ({"latent_shape": [4.0]}, "1 to 8 positive integers"),
        ({"latent_shape": [True]}, "1 to 8 positive integers"),
        ({"latent_shape": [2**20, 2**20]}, "at most 268435456 elements"),
        ({"dtype": "bfloat16"}, "`version` must be 2 for what this manifest says, got 1"),
        ({"latent_shape": [5]}, r"`statistics` must have shape \[5\], got \[4\]"),
        ({"dtype": "float64"}, "`dtype` must be one of"),
        ({"dtype": ["float32"]}, "`dtype` must be one of"),
        ({"count": 14}, "`count` must be the shards' sum 13, got 14"),
        ({"count": 13.0}, "`count` must be"),
        ({"provenance": []}, "`provenance` must be an object"),
        ({"statistics": 3}, "statistics must be"),
        ({"statistics": {"mean": [0.0] * 4, "std": [0.0] * 4}}, "`std` must be positive"),
        ({"statistics": {"mean": ["0"] * 4, "std": [1.0] * 4}}, "nested lists of numbers: got '0'"),
        ({"statistics": {"mean": [True] * 4, "std": [1.0] * 4}}, "nested lists of numbers: got True"),
        ({"statistics": {"file": "/etc/passwd", "sha256": "0" * 64, "whitened": True}}, "must be exactly file"),
        ({"statistics": {"file": "statistics.safetensors", "sha256": "0", "whitened": True}}, "64 hexadecimal digits"),
        ({"statistics": {"file": "statistics.safetensors", "sha256": "0" * 64, "whitened": 1}}, "true or false"),
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
def test_a_manifest_is_not_believed(stores: Any, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    stores.write(tmp_path / "s")
    stores.edit_manifest(tmp_path / "s", **changes)
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
    with pytest.raises(ValueError, match="at most 16777216 bytes"):
        LatentStore.open(tmp_path)


# --- the JSON schema --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"dtype": "float16"}, {"dtype": "bfloat16"}, {"shape": (4, 8, 8)}, {"whiten": True}]
)
def test_written_manifests_keep_to_the_json_schema(stores: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    stores.write(tmp_path / "s", **options)
    stores.writer(tmp_path / "begun")
    for name in ("s", "begun"):
        jsonschema.validate(json.loads((tmp_path / name / "manifest.json").read_text()), JSON_SCHEMA)
    jsonschema.Draft202012Validator.check_schema(JSON_SCHEMA)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "zip"},
        {"version": 3},
        {"surprise": 1},
        {"latent_shape": [0]},
        {"dtype": "float64"},
        {"dtype": "bfloat16"},
        {"count": 13.5},
        {"provenance": []},
        {"statistics": 3},
        {"statistics": {"file": "statistics.safetensors", "sha256": "0" * 64, "whitened": True}},
        {"shards": []},
        {"shards": [{**SHARD, "file": "../shard-00000.safetensors"}]},
        {"shards": [{**SHARD, "sha256": "xyz"}]},
        {"schema": [{"name": "a", "applies_if": {"a": 1}}]},
        {"schema": [{"name": "a", "ordered": 1}]},
        {"schema": [{"name": "a_b", "group": None}]},
    ],
)
def test_the_json_schema_refuses_what_the_reader_refuses(
    stores: Any, tmp_path: Path, changes: dict[str, object]
) -> None:
    stores.write(tmp_path / "s")
    stores.edit_manifest(tmp_path / "s", **changes)
    entries = json.loads((tmp_path / "s" / "manifest.json").read_text())
    with pytest.raises(ValueError, match=r"manifest\.json"):
        LatentStore.open(tmp_path / "s")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(entries, JSON_SCHEMA)


def test_a_manifest_nested_too_deeply_is_refused() -> None:
    deep = "[" * 700 + "0" + "]" * 700
    text = json.dumps(json.loads(MINIMAL)).replace("null", f'{{"mean": {deep}, "std": {deep}}}')
    with pytest.raises(ValueError, match=r"statistics must be nested lists|nested too deeply|maximum"):
        Manifest.from_json(text)


MINIMAL = """{"format": "lcg-latents", "version": 1, "latent_shape": [4], "dtype": "float32", "count": 0, "schema": [],
"statistics": null, "shards": [], "provenance": {}}"""
