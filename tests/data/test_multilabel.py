"""Columns whose cells list several values: what they say, in every format, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from lcg.data import tables
from lcg.data.multilabel import is_list, members
from lcg.data.store import manifest
from lcg.data.store.describing import describe_store, in_words
from lcg.data.store.importing import import_latents
from lcg.data.store.labelling import read_schema
from lcg.data.store.reader import LatentStore
from lcg.data.tables import Table, columns_of, labels_of, open_table, scan, spelled
from lcg.schema import Attribute, Schema

NAN = math.nan
TEXT = """smile,accessory
1,hat;glasses
0,none
1,
1,hat
0, sun glasses ;hat
,;
0,"[""hat""]"
0,-
"""
GROUP = tuple(Attribute(f"accessory_{member}", group="accessory") for member in ("glasses", "hat", "sun_glasses"))
SCHEMA = Schema((Attribute("smile"), *GROUP))
LABELS = np.array(
    [[1, 1, 1, 0], [0, 0, 0, 0], [1, NAN, NAN, NAN], [1, 0, 1, 0], [0, 0, 1, 1], [NAN, 0, 0, 0], [0, 0, 1, 0], [0] * 4],
    np.float32,
)


def written(folder: Path, text: str) -> Path:
    (folder / "table.csv").write_text(text)
    return folder / "table.csv"


def labels(table: Table, schema: Schema) -> np.ndarray:
    return np.concatenate([labels_of(block, schema, table) for block in table.blocks(columns_of(schema, table))])


@pytest.mark.parametrize(
    ("cell", "sure", "listed"),
    [
        ("hat;glasses", True, {"hat", "glasses"}),
        ("hat;", True, {"hat"}),
        ("hat", False, {"hat"}),
        (";", True, set()),
        ("none", False, set()),
        ("-", False, set()),
        ("None; hat", True, {"hat"}),
        ('["sun glasses", "hat"]', True, {"sun_glasses", "hat"}),
        ("[]", True, set()),
        ("[1, 2]", False, {"_1_2_"}),  # numbers: a text like any other
        ("[hat]", False, {"_hat_"}),
    ],
)
def test_what_a_cell_lists(cell: str, sure: bool, listed: set[str]) -> None:
    assert is_list(cell) == sure and members(cell) == listed


@pytest.mark.parametrize("rows", [1, 3, 65536])
def test_a_column_of_lists_is_a_group_of_binary_attributes(
    tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever its first list stands, before or behind cells that could be anything."""
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", rows)
    header, *lines = TEXT.splitlines()
    table = open_table(written(tmp_path, TEXT))
    assert scan(table, None, ()) == (SCHEMA, 8)
    np.testing.assert_array_equal(labels(table, SCHEMA), LABELS)
    backwards = open_table(written(tmp_path, "\n".join([header, *lines[::-1]])))
    assert scan(backwards, None, ()) == (SCHEMA, 8)


def test_without_a_list_a_column_stays_what_it_was(tmp_path: Path) -> None:
    text = "wears,beard\nhat,none\nglasses,full\nnone,-\n"
    found, _ = scan(open_table(written(tmp_path, text)), None, ())
    assert [(a.name, a.kind, a.values) for a in found] == [
        ("wears", "categorical", ("glasses", "hat", "none")),
        ("beard", "categorical", ("-", "full", "none")),
    ]


def test_a_schema_takes_a_group_from_its_column_or_each_member_from_its_own(tmp_path: Path) -> None:
    by_list = open_table(written(tmp_path, "accessory\nhat\nnone\n"))
    schema = Schema(GROUP[:2])
    assert scan(by_list, schema, ()) == (schema, 2)
    np.testing.assert_array_equal(labels(by_list, schema), [[0, 1], [0, 0]])
    mixed = open_table(written(tmp_path, "accessory_hat,accessory\n1,glasses\n0,hat\n"))
    assert columns_of(schema, mixed) == ("accessory", "accessory_hat")
    np.testing.assert_array_equal(labels(mixed, schema), [[1, 1], [0, 0]])


def test_parquet_and_json_have_lists_of_their_own(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lists = [["hat", "glasses"], [], None, ["hat"], ["a;b"]]
    parquet.write_table(arrow.table({"accessory": lists}), tmp_path / "table.parquet")
    table = open_table(tmp_path / "table.parquet")
    schema, count = scan(table, None, ())
    assert count == 5 and [a.member for a in schema] == ["a_b", "glasses", "hat"]
    np.testing.assert_array_equal(
        labels(table, schema), np.array([[0, 1, 1], [0, 0, 0], [NAN] * 3, [0, 0, 1], [1, 0, 0]], np.float32)
    )
    assert spelled(json.loads('["hat"]')) == '["hat"]' and spelled([1.5]) == "[1.5]"


@pytest.mark.parametrize(
    ("text", "schema", "message"),
    [
        (
            "accessory\nhat;scarf\n",
            Schema(GROUP),
            r"line 2: 'accessory' must be `none` or some of glasses, hat, sun_glasses, with `;` between them, or empty "
            r"when it is not known; got 'hat;scarf'",
        ),
        ("hat\n1\n", Schema(GROUP), "has no column 'accessory_glasses' or 'accessory'; it has: hat"),
        ("remark\n;\nnone\n", None, "the lists in column 'remark' have 0 different members, a group has 1 to 64"),
        (
            "remark\n" + "\n".join(f"a{i};b" for i in range(70)),
            None,
            "the lists in column 'remark' have more than 64 different members, a group has 1 to 64; remove the column",
        ),
        ("my hats\na;b\n", None, "must be an identifier such as 'long_hair', got 'my hats_a'"),
    ],
)
def test_what_is_no_list_of_the_group_is_refused(
    tmp_path: Path, text: str, schema: Schema | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scan(open_table(written(tmp_path, text)), schema, ())


def test_a_store_knows_its_groups_and_ordinal_attributes(tmp_path: Path) -> None:
    """From table and schema file to manifest and back."""
    np.save(tmp_path / "latents.npy", np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))
    table = written(tmp_path, "accessory,age\nhat;glasses,old\nnone,young\n,child\nhat,\n")
    (tmp_path / "schema.yaml").write_text(
        "- {name: accessory_hat, group: accessory}\n- {name: accessory_glasses, group: accessory}\n"
        "- {name: age, kind: categorical, values: [child, young, old], ordered: true}\n"
    )
    out = tmp_path / "store"
    schema = read_schema(tmp_path / "schema.yaml")
    import_latents([tmp_path / "latents.npy"], out, table, schema, progress=False)
    store = LatentStore.open(out)
    assert [a.group for a in store.schema] == ["accessory", "accessory", None] and store.schema["age"].ordered
    np.testing.assert_array_equal(
        store.labels(slice(0, 4)).numpy(), np.array([[1, 1, 2], [0, 0, 1], [NAN, NAN, 0], [1, 0, NAN]], np.float32)
    )
    lines = in_words(describe_store(out)).splitlines()
    assert any(
        line.split()[:2] == ["age", "ordinal"] and "child 33.3%, young 33.3%, old 33.3%" in line for line in lines
    )
    jsonschema = pytest.importorskip("jsonschema")
    json_schema = json.loads((Path(manifest.__file__).parent / "manifest.schema.json").read_text())
    jsonschema.validate(json.loads((out / "manifest.json").read_text()), json_schema)
