"""`model.json`: what is written comes back, follows its JSON schema, and what is none is refused in words."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lcg.models
from lcg.models.description import DTYPES, FIELDS, MAX_BYTES, Description, checksum

Rewrite = Callable[[Callable[[dict[str, Any]], Any]], Path]


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(lcg.models.__file__).parent / "model.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_what_is_written_comes_back(exported: Path) -> None:
    text = (exported / "model.json").read_text()
    description = Description.from_json(text)
    assert description.to_json() == text and Description.read(exported) == description
    entries = json.loads(text)
    assert set(entries) == set(FIELDS) and entries["schema"] == description.schema.to_dict()
    expected = {"width", "depth", "prediction", "dropout", "time_features", "layers"}
    assert entries["prior"]["config"].keys() == expected
    assert entries["generator"] == {"class": "mine.Gan", "weights_sha256": "0" * 64}
    assert entries["provenance"] == {"source": {"name": "mine"}} and set(entries["made_with"]) == {"lcg", "torch"}


def test_what_is_written_follows_the_schema(exported: Path, validator: Any) -> None:
    entries = json.loads((exported / "model.json").read_text())
    assert list(validator.iter_errors(entries)) == []
    assert set(validator.schema["properties"]) == set(validator.schema["required"]) == set(FIELDS)
    assert tuple(validator.schema["properties"]["dtype"]["enum"]) == DTYPES


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: e.update(format="zip"), "`format` must be 'lcg-model'; this is no exported model"),
        (lambda e: e.update(version=2), "`version` is 2, this lcg reads up to 1; upgrade lcg"),
        (lambda e: e.update(version=0), "`version` must be at least 1, got 0"),
        (lambda e: e.update(version=True), "`version` must be a int, got bool"),
        (
            lambda e: e.update(hook="os.system"),
            r"the description must have exactly its fields; missing: .*not known: \['hook'",
        ),
        (lambda e: e.pop("store"), r"the description must have exactly its fields; missing: \['store'\]"),
        (lambda e: e["prior"].pop("config"), r"`prior` must have exactly its fields; missing: \['config'\]"),
        (lambda e: e["files"].update({"../x.safetensors": {}}), "`files` must have exactly its fields"),
        (lambda e: e["files"]["prior.safetensors"].update(bytes=0), "`bytes` must be positive, got 0"),
        (lambda e: e["files"]["prior.safetensors"].update(sha256="A" * 64), "`sha256` must be 64 hexadecimal digits"),
        (lambda e: e.update(latent_shape=[]), "`latent_shape` must be 1 to 8 positive integers"),
        (lambda e: e.update(latent_shape=[2.5, 3]), "`latent_shape` must be 1 to 8 positive integers"),
        (lambda e: e.update(dtype="int8"), "`dtype` must be one of float32, float16, bfloat16, got 'int8'"),
        (lambda e: e.update(schema=[]), "`schema` must have at least one attribute"),
        (lambda e: e.update(schema=[3]), "each attribute of `schema` must be an object, got int"),
        (lambda e: e["schema"][0].update(kind="evil"), "unknown kind 'evil'"),
        (lambda e: e["schema"][0].update(name="hat;rm"), "`name` of an attribute must be an identifier"),
        (lambda e: e["schema"][1].update(values=["a", 3]), "`values` and `detail_of` of an attribute must be lists of"),
        (lambda e: e["schema"][1].update(applies_if={"hat": 1}), "`applies_if` of an attribute must map names to true"),
        (
            lambda e: e["calibration"].update(dependence="no"),
            "`dependence` of `calibration` must be joint or independent",
        ),
        (lambda e: e["generator"].update(weights_sha256=3), "`weights_sha256` of `generator` must be a text"),
    ],
)
def test_what_is_no_description_is_refused(
    rewrite: Rewrite, validator: Any, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    folder = rewrite(change)
    with pytest.raises(ValueError, match=rf"model\.json: .*{said}.*; export or copy the model again"):
        Description.read(folder)
    if "identifier" not in said:  # which JSON Schema cannot say
        assert not validator.is_valid(json.loads((folder / "model.json").read_text()))


def test_a_change_without_a_new_checksum_is_found(exported: Path) -> None:
    path = exported / "model.json"
    path.write_text(path.read_text().replace('"steps": 7', '"steps": 8'))
    with pytest.raises(ValueError, match="`checksum` is not that of what it says; it was changed or damaged"):
        Description.read(exported)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply to be a description"),
        ('{"format": NaN}', "NaN is not JSON"),
        ('{"format": 1e999}', "a number is too large"),
        ('{"format": ' + "9" * 10_000 + "}", "integer string conversion"),
        ("", "Expecting value"),
        ("\x00", "Expecting value"),
        ("3", "`format` must be 'lcg-model'"),
    ],
)
def test_text_that_is_no_json_of_ours_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match=rf"model\.json: .*{said}"):
        Description.read(tmp_path)


def test_a_file_of_any_size_is_read_no_further_than_its_bound(tmp_path: Path) -> None:
    with (tmp_path / "model.json").open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(ValueError, match=f"a description has at most {MAX_BYTES} bytes, this has more"):
        Description.read(tmp_path)


def test_what_could_not_be_read_is_not_written(exported: Path) -> None:
    description = replace(Description.read(exported), provenance={"notes": "x" * MAX_BYTES})
    with pytest.raises(ValueError, match=rf"model\.json may have {MAX_BYTES} bytes, this would have"):
        description.to_json()


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no exported model at .*; `lcg export --out .*` makes one"):
        Description.read(tmp_path)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Description.from_json(text)


def test_the_checksum_does_not_depend_on_the_order_of_fields() -> None:
    assert checksum({"a": 1, "b": [2.5], "checksum": "x"}) == checksum({"b": [2.5], "a": 1})
    assert checksum({"a": 1}) != checksum({"a": 2})
