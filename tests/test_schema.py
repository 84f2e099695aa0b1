"""The vocabulary: names, kinds and details, and errors that know the nearest name."""

import json
from typing import Any

import pytest

from lcg.schema import Attribute, Schema, unknown_name

SCHEMA = Schema(
    (
        Attribute("hat"),
        Attribute("beard"),
        Attribute("hair", "categorical", ("blond", "red"), applies_if={"hat": False}),
        Attribute("beard_color", "categorical", ("blond", "dark brown", "red"), applies_if={"beard": True}),
        Attribute("top", "categorical", ("cap", "bob"), detail_of=("hat",)),
        Attribute("age", "continuous"),
    )
)


def test_order_is_that_of_the_label_columns() -> None:
    assert SCHEMA.names == ("hat", "beard", "hair", "beard_color", "top", "age")
    assert [SCHEMA.index(name) for name in SCHEMA.names] == list(range(len(SCHEMA)))
    assert [attribute.name for attribute in SCHEMA] == list(SCHEMA.names)
    assert SCHEMA["top"] is SCHEMA.attributes[4]
    assert "hat" in SCHEMA and "hats" not in SCHEMA and 3 not in SCHEMA


def test_heads_have_an_output_per_number_that_they_give() -> None:
    assert [attribute.outputs for attribute in SCHEMA] == [1, 1, 2, 3, 2, 2]


def test_attributes_of_some_kinds_keep_their_order() -> None:
    assert [a.name for a in SCHEMA.of_kind("binary")] == ["hat", "beard"]
    assert [a.name for a in SCHEMA.of_kind("continuous", "binary")] == ["hat", "beard", "age"]
    assert SCHEMA.of_kind() == ()


def test_an_edit_frees_its_details() -> None:
    assert SCHEMA.freed_by(["hat"]) == ("hat", "hair", "top")
    assert SCHEMA.freed_by(["beard", "age"]) == ("beard", "beard_color", "age")
    assert SCHEMA.freed_by(["hair"]) == ("hair",)  # a detail does not free what it belongs to
    assert SCHEMA.freed_by(iter(["hair", "hat"])) == ("hat", "hair", "top")
    assert SCHEMA.freed_by([]) == ()


def test_values_are_indices_into_labels() -> None:
    assert [SCHEMA["beard_color"].value_index(value) for value in ("blond", "dark brown", "red")] == [0, 1, 2]
    with pytest.raises(ValueError, match="unknown value of 'hair' 'blonde'; did you mean 'blond'"):
        SCHEMA["hair"].value_index("blonde")


def test_a_schema_survives_json() -> None:
    text = json.dumps(SCHEMA.to_dict())
    assert Schema.from_dict(json.loads(text)) == SCHEMA
    assert Schema.from_dict([{"name": "hat"}]) == Schema((Attribute("hat"),))


def test_entries_that_are_no_attributes_are_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        Schema.from_dict([{"name": "hat", "colour": "red"}])
    with pytest.raises(TypeError, match="'name'"):
        Schema.from_dict([{"kind": "binary"}])


def test_unknown_names_come_with_the_nearest_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown attribute 'beart'; did you mean 'beard'.* schema has: hat, beard"):
        SCHEMA.index("beart")
    with pytest.raises(ValueError, match="unknown attribute 'xyz'; the schema has: hat"):
        SCHEMA["xyz"]
    with pytest.raises(ValueError, match="unknown attribute 'hut'"):
        SCHEMA.freed_by(["beard", "hut"])
    error = unknown_name("dish", "soap", iter(("soup", "soap opera", "salad")), "the menu")
    assert str(error).startswith("unknown dish 'soap'; did you mean 'soup' or 'soap opera'?")


@pytest.mark.parametrize("name", ["", "long hair", "2nd", "a-b"])
def test_names_are_identifiers(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be an identifier such as 'long_hair', got .*; rename the column"):
        Attribute(name)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind 'binray'; did you mean 'binary'"):
        Attribute("hat", "binray")


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("categorical", (), "at least two names"),
        ("categorical", ("red",), "at least two names"),
        ("binary", ("yes", "no"), "none"),
        ("continuous", ("low",), "none"),
    ],
)
def test_values_fit_the_kind(kind: str, values: tuple[str, ...], expected: str) -> None:
    with pytest.raises(ValueError, match=f"`values` of {kind} attribute 'hat': expected {expected}, got"):
        Attribute("hat", kind, values)


def test_names_are_distinct() -> None:
    with pytest.raises(ValueError, match=r"attribute names must be distinct, got \['hat', 'hat'\]"):
        Schema((Attribute("hat"), Attribute("hat")))
    with pytest.raises(ValueError, match=r"`values` of attribute 'hair' must be distinct, got \['red', 'red'\]"):
        Attribute("hair", "categorical", ("red", "red"))


@pytest.mark.parametrize("detail", [{"detail_of": ("hut",)}, {"applies_if": {"hut": True}}])
def test_details_belong_to_attributes_that_exist(detail: dict) -> None:
    with pytest.raises(ValueError, match=r"unknown attribute \(named by 'hair'\) 'hut'; did you mean 'hat'"):
        Schema((Attribute("hat"), Attribute("hair", "categorical", ("blond", "red"), **detail)))


ORDINAL = Attribute("age", "categorical", ("child", "adult", "old"), ordered=True)
GROUP = (Attribute("accessory_hat", group="accessory"), Attribute("accessory_sun_glasses", group="accessory"))


def test_what_is_neither_ordered_nor_in_a_group_is_written_as_ever() -> None:
    """Manifests, checkpoints and their fingerprints are made of this text."""
    plain = {"name": "hat", "kind": "binary", "values": [], "detail_of": [], "applies_if": {}}
    assert json.dumps(Schema((Attribute("hat"),)).to_dict()) == json.dumps([plain])
    refined = Schema((ORDINAL, *GROUP))
    assert [set(entry) - set(plain) for entry in refined.to_dict()] == [{"ordered"}, {"group"}, {"group"}]
    assert Schema.from_dict(json.loads(json.dumps(refined.to_dict()))) == refined
    assert Schema.from_dict([{**plain, "ordered": False, "group": None}]).to_dict() == [plain]


def test_members_are_named_within_their_group() -> None:
    schema = Schema((*GROUP, ORDINAL))
    assert schema.groups == {"accessory": GROUP} and [a.member for a in schema] == ["hat", "sun_glasses", "age"]
    assert schema.member("accessory", "sun glasses") == 1
    with pytest.raises(ValueError, match="unknown member of 'accessory' 'hst'; did you mean 'hat'"):
        schema.member("accessory", "hst")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "a", "ordered": True}, "`ordered` is for categorical attributes, got it for the binary 'a'"),
        ({"name": "g_a", "kind": "continuous", "group": "g"}, "`group` is for binary attributes, one per member"),
        ({"name": "a", "group": "g"}, "`group` of 'a' must be an identifier that its name continues"),
        ({"name": "g_", "group": "g"}, "`group` of 'g_' must be an identifier that its name continues"),
        ({"name": "g_a", "group": ""}, "`group` of 'g_a' must be an identifier"),
    ],
)
def test_orders_and_groups_that_do_not_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Attribute(**fields)


def test_a_group_is_not_called_like_an_attribute() -> None:
    with pytest.raises(ValueError, match="`group` of 'accessory_hat' must not be the name of an attribute"):
        Schema((*GROUP, Attribute("accessory")))
