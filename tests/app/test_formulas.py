"""Formulas as a page handles them: errors in their place, completion by the grammar, controls there and back."""

import itertools

import pytest

from lcg.app.answers import Control
from lcg.app.completion import complete
from lcg.app.descriptions import describe
from lcg.app.formulas import check, controls_of, edit_text, formula_text, read_formula
from lcg.app.refusal import Refused
from lcg.guidance import parse, parse_edit
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("hat"),
        Attribute("hair_color", "categorical", ("black", "blond", "dark red"), applies_if={"hat": False}),
        Attribute("size", "categorical", ("small", "medium", "large"), ordered=True),
        Attribute("age", "continuous"),
        Attribute("extra_scarf", group="extra"),
        Attribute("extra_pipe", group="extra"),
    )
)


def marked(text: str) -> str:
    found = check(text, SCHEMA)
    return text[found.start : found.end]


# --- errors ----------------------------------------------------------------------------------------------------------


def test_what_can_be_read_is_told_in_canonical_text() -> None:
    found = check(" glasses&(~hat) & age > .50 ", SCHEMA)
    assert found.ok and found.canonical == "glasses & ~hat & age>0.5" and found.problem is None
    assert found.asked == {"glasses": True, "hat": False, "age": (">", 0.5)}


@pytest.mark.parametrize(
    ("text", "where", "nearest"),
    [
        ("glases & hat", "glases", "glasses"),
        ("hat and glasses", "and", "&"),
        ("hat && glasses", "&&", "&"),
        ("hair_color=blnd", "blnd", "blond"),
        ('hair_color="dark rde"', '"dark rde"', '"dark red"'),
        ("hair_color == blond", "==", "="),
        ("glasses & (hat", "", None),
        ("hat ) glasses", ")", None),
        ("size=>large", "=>", ">="),
    ],
)
def test_an_error_is_marked_where_it_is(text: str, where: str, nearest: str | None) -> None:
    found = check(text, SCHEMA)
    assert not found.ok and found.canonical is None and found.asked is None
    assert marked(text) == where and found.start < found.end <= len(text) + 1
    assert found.nearest == nearest and "\n" not in str(found.problem)


def test_putting_the_nearest_name_there_mends_the_formula() -> None:
    for text in ("glases", 'hair_color="dark rde" & hat', "hat and glasses"):
        found = check(text, SCHEMA)
        mended = text[: found.start] + str(found.nearest) + text[found.end :]
        assert check(mended, SCHEMA).ok, mended


def test_an_empty_text_asks_for_nothing() -> None:
    assert check("  ", SCHEMA).ok and check("", SCHEMA).asked == {} and read_formula(None, SCHEMA) is None


def test_a_text_that_is_too_long_is_refused() -> None:
    assert "at most 2000 characters" in str(check("hat & " * 1000, SCHEMA).problem)
    with pytest.raises(Refused, match=r"Column 7: unknown attribute 'glases'; did you mean 'glasses'"):
        read_formula("hat & glases", SCHEMA)


def test_edits_are_checked_as_edits() -> None:
    assert check("+glasses", SCHEMA, parse_edit).asked == {"glasses": True}
    assert check("-hat", SCHEMA, parse_edit).asked == {"hat": False}
    assert check("age=0.7", SCHEMA, parse_edit).asked == {"age": 0.7}
    assert "one literal" in str(check("glasses & hat", SCHEMA, parse_edit).problem)


# --- controls --------------------------------------------------------------------------------------------------------

STATES = {
    "glasses": (None, True, False),
    "hair_color": (None, "blond", ("black", "dark red"), ()),
    "size": (None, (">=", "medium"), ("<", "medium"), ("small", "large")),
    "age": (None, (">", 0.5), ("<", 1e-3)),
    "extra_pipe": (None, True),
}


def test_every_state_of_the_controls_is_a_formula_that_gives_the_state_back() -> None:
    for values in itertools.product(*STATES.values()):
        asked = dict(zip(STATES, values, strict=True))
        text = formula_text(asked, SCHEMA)
        assert text == "" or str(parse(text, SCHEMA)) == text
        back = check(text, SCHEMA).asked
        assert back is not None and formula_text(back, SCHEMA) == text
        assert set(back) == {name for name, value in asked.items() if value not in (None, ())}


def test_formulas_beyond_controls_have_no_state() -> None:
    for text in ("glasses | hat", "hat^2.0", "age>0.1 & age<0.9", "~(hat & glasses)"):
        assert check(text, SCHEMA).ok and check(text, SCHEMA).asked is None
    assert check("~hair_color=black", SCHEMA).asked == {"hair_color": ("blond", "dark red")}


def test_all_values_ask_for_nothing() -> None:
    assert formula_text({"hair_color": ["black", "blond", "dark red"]}, SCHEMA) == ""


def test_one_control_is_an_edit() -> None:
    told = {
        ("glasses", True): "+glasses",
        ("glasses", False): "-glasses",
        ("hair_color", "dark red"): 'hair_color="dark red"',
        ("hair_color", ("black", "blond")): "hair_color in {black, blond}",
        ("size", (">=", "medium")): "size>=medium",
        ("age", 0.7): "age=0.7",
        ("age", (">", 0.7)): "age>0.7",
        ("age", None): None,
    }
    for (name, asked), text in told.items():
        assert edit_text(name, asked, SCHEMA) == text
        assert text is None or parse_edit(text, SCHEMA).attributes == (name,)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"glases": True}, "unknown attribute 'glases'; did you mean 'glasses'"),
        ({"glasses": "yes"}, "glasses can be asked for or not, got 'yes'; choose yes, no or any"),
        ({"hair_color": "blnd"}, "unknown value of 'hair_color' 'blnd'; did you mean 'blond'"),
        ({"hair_color": 3}, "hair_color takes values, such as black, got 3"),
        ({"hair_color": (">=", "blond")}, "unknown value of 'hair_color' '>='"),
        ({"age": 0.5}, "age takes a threshold such as age>0.5, got 0.5"),
        ({"age": (">", float("nan"))}, "age takes a threshold"),
        ({3: True}, "unknown attribute '3'"),
        ([("glasses", True)], "The controls must be given by the names of attributes"),
    ],
)
def test_what_a_control_cannot_ask_is_refused(asked: object, message: str) -> None:
    with pytest.raises(Refused, match=message):
        formula_text(asked, SCHEMA)  # type: ignore[arg-type]


def test_a_target_must_be_finite() -> None:
    with pytest.raises(Refused, match="age must be a finite number"):
        edit_text("age", float("inf"), SCHEMA)


def test_controls_follow_the_schema() -> None:
    controls = controls_of(SCHEMA, {"age": (0.1, 0.9)})
    assert [c.kind for c in controls] == ["toggle", "toggle", "choice", "choice", "number", "toggle", "toggle"]
    assert controls[4] == Control("age", "age", "number", (), False, 0.1, 0.9)
    assert controls[2].detail and controls[2].applies_if == "only without hat" and controls[2].title == "hair color"
    assert controls[3].ordered and controls[5].group == "extra"


# --- completion ------------------------------------------------------------------------------------------------------


def offered(text: str) -> list[str]:
    return [s.text for s in complete(text, len(text), SCHEMA, limit=30)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [*SCHEMA.names, "extra", "~", "("]),
        ("glasses & ~", [*SCHEMA.names, "extra", "("]),
        ("gl", ["glasses"]),
        ("glases", ["glasses"]),
        ("color", ["hair_color"]),
        ("hair_color=", ["black", "blond", '"dark red"']),
        ("hair_color=bl", ["black", "blond"]),
        ("hair_color in ", ["{"]),
        ("hair_color in {black, ", ["black", "blond", '"dark red"']),
        ("hair_color in {black ", [",", "}"]),
        ("hair_color ", ["=", "in"]),
        ("size ", ["=", "in", ">=", "<="]),
        ("size>=m", ["medium", "small"]),
        ("age ", [">", "<"]),
        ("extra=", ["scarf", "pipe"]),
        ("(hat ", ["&", "|", ")"]),
        ("hat ", ["&", "|", "^"]),
        ("hat^2 ", ["&", "|"]),
        ("hat^", []),
    ],
)
def test_what_may_stand_at_the_caret(text: str, expected: list[str]) -> None:
    assert offered(text) == expected


def test_a_whole_name_is_followed_by_its_operators() -> None:
    assert offered("hat")[-3:] == [" &", " |", " ^"]
    assert offered("age")[-2:] == [" >", " <"]


def test_a_suggestion_replaces_the_word_at_the_caret() -> None:
    (suggestion,) = (s for s in complete("glas & hat", 2, SCHEMA) if s.text == "glasses")
    assert (suggestion.start, suggestion.end) == (0, 4) and suggestion.about == "yes or no"


@pytest.mark.parametrize("before", ["hair_color=", "extra=", "size<=", "hat & ~"])
def test_what_is_completed_can_be_read(before: str) -> None:
    for s in complete(before, len(before), SCHEMA, limit=30):
        whole = s.kind == "value" or (s.text in SCHEMA and SCHEMA[s.text].kind == "binary")
        assert not whole or check(before + s.text, SCHEMA).ok, s.text


# --- English ---------------------------------------------------------------------------------------------------------


def test_english_becomes_a_formula_and_every_word_is_accounted_for() -> None:
    told = describe("a man with glasses and no hat", SCHEMA)
    assert told.formula is not None and set(parse(told.formula, SCHEMA).attributes) == {"glasses", "hat"}
    assert [p.text for p in told.phrases if p.became is None] and "'man' is not understood" in " ".join(told.notes)
    for phrase in told.phrases:
        assert told.text[phrase.start : phrase.end] == phrase.text


@pytest.mark.parametrize("text", ["", "what a lovely day", "x" * 600, "glasses and no glasses"])
def test_english_that_says_nothing_is_answered_with_why(text: str) -> None:
    told = describe(text, SCHEMA)
    assert told.formula is None and told.problem and "\n" not in told.problem
