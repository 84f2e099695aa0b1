import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcg.guidance import FormulaReadout
from lcg.guidance.formula import And, Beyond, Formula, Has, Near, Not, OneOf, Or, Weighted
from lcg.guidance.logic import FormulaError, parse, parse_edit
from lcg.schema import Attribute, Schema

# beartype checks one element of a tuple, chosen at random, of which hypothesis takes notice.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("beard"),
        Attribute("smile"),
        Attribute("hair", "categorical", ("blond", "red", "dark brown", "2")),
        Attribute("age", "continuous"),
    )
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("glasses&~beard | smile", "(glasses & ~beard) | smile"),
        ("glasses & (~beard | smile)", "glasses & (~beard | smile)"),
        ("~ glasses & beard", "~glasses & beard"),
        ("~(glasses & beard)", "~(glasses & beard)"),
        ("~~glasses", "~~glasses"),
        ("(glasses & (beard & smile))", "glasses & beard & smile"),
        ("hair in {red, blond ,red}", "hair in {blond, red}"),
        ("hair in {red}", "hair=red"),
        ('hair = "dark brown" | hair=2', 'hair="dark brown" | hair="2"'),
        ("age>.6 & age < 1e1 & age>-0.5", "age>0.6 & age<10.0 & age>-0.5"),
        ("smile^2 & (beard|glasses)^.5", "smile^2.0 & (beard | glasses)^0.5"),
        ("~smile^2", "~smile^2.0"),
        ("(smile^2 & beard) & glasses", "smile^2.0 & beard & glasses"),
        ("smile^1 & beard", "smile^1.0 & beard"),
        ("smile^-0 & beard & age>-0.0", "smile^0.0 & beard & age>0.0"),
        ("\tglasses\n & beard", "glasses & beard"),
    ],
)
def test_precedence_and_canonical_text(text: str, canonical: str) -> None:
    assert str(parse(text, SCHEMA)) == canonical


SETTINGS = settings(derandomize=True, deadline=None, max_examples=100)
WORDS = ("blond", "né", "ne\u0301", "2", "2nd", "-1", "1e5", "in", "½", "·", "😀", "it's")
TEXTS = (
    "",
    " ",
    "dark brown",
    '"so-called" red',
    "back\\slash",
    "line\nbreak",
    "\t",
    "\u2028",
    "{a}, b",
    "~x & (y)^2.0",
)
NAMES = ("glasses", "in", "and", "été", "e\u0301te\u0301", "हिन्दी", "a·b", "眼鏡", "_1")
WORLD = Schema(
    (
        *(Attribute(name) for name in NAMES),
        Attribute("hair", "categorical", (*WORDS, *TEXTS)),
        Attribute("âge", "continuous"),
    )
)


def atoms(schema: Schema) -> st.SearchStrategy[Formula]:
    def of(column: int, attribute: Attribute) -> st.SearchStrategy[Formula]:
        if attribute.kind == "binary":
            return st.just(Has(attribute, column))
        if attribute.kind == "categorical":
            indices = st.sets(st.integers(0, len(attribute.values) - 1), min_size=1, max_size=3)
            return indices.map(lambda chosen: OneOf(attribute, column, tuple(chosen)))
        thresholds = st.floats(allow_nan=False, allow_infinity=False)
        return st.builds(lambda c, above: Beyond(attribute, column, c, above), thresholds, st.booleans())

    return st.one_of(*(of(column, attribute) for column, attribute in enumerate(schema)))


def formulas(schema: Schema) -> st.SearchStrategy[Formula]:
    def several(parts: st.SearchStrategy[Formula]) -> st.SearchStrategy[tuple[Formula, ...]]:
        return st.lists(parts, min_size=2, max_size=3).map(tuple)

    unweighted = st.recursive(
        atoms(schema), lambda parts: st.one_of(parts.map(Not), several(parts).map(And), several(parts).map(Or))
    )
    weights = st.floats(0, allow_infinity=False, allow_nan=False) | st.just(1.0)
    conjuncts = unweighted | st.builds(Weighted, unweighted, weights)
    return conjuncts | several(conjuncts).map(And)


@SETTINGS
@given(formulas(WORLD))
def test_every_formula_is_read_back_from_its_canonical_text(formula: Formula) -> None:
    text = str(formula)
    again = parse(text, WORLD)
    assert again == formula and hash(again) == hash(formula) and str(again) == text
    assert again.is_weighted == formula.is_weighted and again.conjuncts == formula.conjuncts


@SETTINGS
@given(formulas(WORLD))
def test_space_and_brackets_that_say_nothing_change_nothing(formula: Formula) -> None:
    wide = " & ".join(f"\t( {c} )^{w!r} " if formula.is_weighted else f"(({c}))" for c, w in formula.conjuncts)
    assert parse(wide, WORLD).conjuncts == formula.conjuncts


@SETTINGS
@given(st.lists(st.text(), min_size=2, max_size=5, unique=True), st.data())
def test_values_may_be_any_text(values: list[str], data: st.DataObject) -> None:
    schema = Schema((Attribute("hair", "categorical", tuple(values)),))
    formula = data.draw(atoms(schema))
    assert parse(str(formula), schema) == formula


@SETTINGS
@given(st.lists(st.sampled_from(["glasses", "hair", "smlie", "age", "red", "0.5", '"x', "in", *"&|~^(){},=<> $*é"])))
def test_whatever_cannot_be_read_points_into_the_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    try:
        assert isinstance(parse(text, SCHEMA), Formula)
    except FormulaError as error:
        assert 0 <= error.column <= len(text)


def test_text_is_nested_up_to_a_limit_and_formulas_of_python_deeper() -> None:
    formula = parse("glasses", SCHEMA)
    for _ in range(31):
        formula = ~formula
    assert parse(str(formula), SCHEMA) == formula
    with pytest.raises(FormulaError, match="nested deeper than 32"):
        parse(str(~formula), SCHEMA)


def test_python_operators_build_what_the_text_says() -> None:
    glasses, beard, smile = (parse(name, SCHEMA) for name in ("glasses", "beard", "smile"))
    assert glasses & ~beard & smile**2.0 == parse("glasses & ~beard & smile^2.0", SCHEMA)
    assert ~(glasses | beard) == parse("~(glasses | beard)", SCHEMA)
    assert isinstance(glasses & beard, And) and isinstance(glasses | beard, Or) and isinstance(smile**2.0, Weighted)
    assert len({glasses & beard, parse("glasses & beard", SCHEMA)}) == 1  # equal formulas hash equally
    with pytest.raises(TypeError):
        glasses & True


def test_attributes_are_named_in_order_of_first_use() -> None:
    assert parse("smile & (age>1 | smile) & hair=red", SCHEMA).attributes == ("smile", "age", "hair")


ERRORS = [
    ("glasses & smlie", 10, "unknown attribute 'smlie'; did you mean 'smile'"),
    ("hair=blnd", 5, "did you mean 'blond'"),
    ("hair in {blond, rde}", 16, "did you mean 'red'"),
    ("", 0, "the formula is empty; leave it out"),
    ("glasses &  ", 9, "expected an attribute, `~` or `\\(`, got the end"),
    ("glasses beard", 8, "expected `&`, `\\|` or the end, got 'beard'"),
    ("glasses and beard", 8, "got 'and'; write `&`"),
    ("glasses || beard", 8, "write `\\|`"),
    ("!glasses", 0, "write `~`"),
    ("not glasses", 0, "write `~`"),
    ("(glasses | beard", 16, "`\\)` for the `\\(` at column 1, got the end"),
    ("()", 1, "expected an attribute"),
    ("+glasses", 0, "cannot read '\\+'; leave it out"),
    ("glasses $ beard", 8, "cannot read '\\$'"),
    ('hair="red', 5, "a quoted value that is not closed"),
    ("glasses=1", 7, "'glasses' is binary: write glasses or ~glasses"),
    ("hair", 0, "'hair' is categorical: expected hair=VALUE"),
    ("hair==red", 4, "write `=`"),
    ("hair in red", 8, "expected '{', got 'red'"),
    ("hair in {}", 9, "expected a value of 'hair'"),
    ("hair in {red", 12, "expected `,` or `}`"),
    ("age", 0, "'age' is continuous: expected age>NUMBER"),
    ("age=0.5", 3, "'age' is continuous"),
    ("age>=0.5", 3, "write `>`"),
    ("age>old", 4, "expected a threshold, a number"),
    ("age>1e999", 4, "must be finite"),
    ("smile^-1", 6, "a weight must be >= 0.*negate it with `~`"),
    ("smile^x", 6, "expected a weight, a number"),
    ("smile^2^3", 7, "a conjunct has one weight; multiply them"),
    ("2*smile", 0, "got '2'; a number stands on the right, such as age>0.5"),
    ("smile*2", 5, "a weight stands behind its conjunct, such as glasses\\^2.0"),
    ("hair=red | blond", 11, "unknown attribute 'blond'.*'blond' is a value: write hair=blond"),
    ("hair='red'", 5, 'cannot read "\'"; quote values by "'),
    ('hair="r\\ed"', 7, "a quoted value is written as in JSON"),
    ("hair=2nd", 5, "unknown value of 'hair' '2nd'"),
    ("age>5e", 4, "expected a threshold, a number such as 0.5, got '5e'"),
    ("smile^1 | beard", 5, "cannot stand under `\\|`"),
    ("smile^2 | beard", 5, "cannot stand under `\\|`"),
    ("beard & ~(smile^2)", 15, "cannot stand under `~`"),
    ("(smile^2 & beard)^3", 6, "cannot stand under `\\^`"),
    ("(" * 200 + "smile", 32, "nested deeper than 32"),
    ("~" * 200 + "smile", 32, "nested deeper than 32"),
]


@pytest.mark.parametrize(("text", "column", "message"), ERRORS, ids=[text[:20] for text, _, _ in ERRORS])
def test_errors_point_at_the_column(text: str, column: int, message: str) -> None:
    with pytest.raises(FormulaError, match=message) as info:
        parse(text, SCHEMA)
    assert info.value.column == column
    problem, line, caret = str(info.value).split("\n")
    assert (problem, line[2:]) == (info.value.problem, text)
    assert caret == " " * (2 + column) + "^"


def test_the_caret_stays_in_place_under_text_with_line_breaks() -> None:
    with pytest.raises(FormulaError) as info:
        parse("glasses &\n\tsmlie", SCHEMA)
    assert str(info.value).split("\n")[1:] == ["  glasses &  smlie", "             ^"]


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("+glasses", "glasses"),
        ("-beard", "~beard"),
        (" - beard ", "~beard"),
        ("~beard", "~beard"),
        ("smile", "smile"),
        ("hair=blond", "hair=blond"),
        ("+hair in {red, blond}", "hair in {blond, red}"),
        ("-hair=red", "~hair=red"),
        ("age>0.6", "age>0.6"),
    ],
)
def test_edits_are_literals(text: str, literal: str) -> None:
    assert parse_edit(text, SCHEMA) == parse(literal, SCHEMA)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("-smlie", 1, "did you mean 'smile'"),
        ("+glasses & beard", 9, "expected the end of the edit"),
        ("+glasses -beard", 9, "cannot read '-'"),
        ("-~beard", 1, "expected an attribute"),
        ("+", 1, "expected an attribute"),
        ("", 0, "expected an attribute"),
        ("smile^2", 5, "expected the end of the edit"),
    ],
)
def test_errors_in_edits_point_at_the_column(text: str, column: int, message: str) -> None:
    with pytest.raises(FormulaError, match=message) as info:
        parse_edit(text, SCHEMA)
    assert info.value.column == column and info.value.text == text


def test_an_edit_may_give_a_continuous_attribute_a_target() -> None:
    target = parse_edit("age=0.7", SCHEMA)
    assert str(target) == "age=0.7" == str(parse_edit("+age = 0.7", SCHEMA))
    assert target.attributes == ("age",)
    labels = torch.full((4, len(SCHEMA)), float("nan"))
    labels[:3, SCHEMA.index("age")] = torch.tensor([0.7, 0.74, 0.8])
    assert target.holds(labels).tolist() == [True, True, False, False]
    for text in ("-age=0.7", "~age=0.7"):
        with pytest.raises(FormulaError, match="a target cannot be negated"):
            parse_edit(text, SCHEMA)
    with pytest.raises(FormulaError, match="expected a target, a number such as"):
        parse_edit("age=old", SCHEMA)
    with pytest.raises(ValueError, match=r"'age=0.7' is a target for edits.*such as age>0.65 & age<0.75"):
        FormulaReadout(target)
    with pytest.raises(ValueError, match="`value` of 'age' must be finite, got inf"):
        Near(SCHEMA.attributes[SCHEMA.index("age")], SCHEMA.index("age"), float("inf"))


# --- ordinal attributes and groups ---

ORDERED = Schema(
    (
        Attribute("smile"),
        Attribute("size", "categorical", ("small", "medium", "large", "very large"), ordered=True),
        Attribute("hair", "categorical", ("blond", "red")),
        Attribute("years", "categorical", ("0-2", "3-9", "10"), ordered=True),
        Attribute("accessory_hat", group="accessory"),
        Attribute("accessory_sun_glasses", group="accessory"),
        Attribute("pet_dog", group="pet"),
    )
)


@pytest.mark.parametrize(
    ("text", "canonical", "indices"),
    [
        ("size>=large", "size>=large", (2, 3)),
        ("size>medium", "size>=large", (2, 3)),
        ("size<large", "size<=medium", (0, 1)),
        ("size <= medium", "size<=medium", (0, 1)),
        ("size<medium", "size=small", (0,)),
        ('size>="very large"', 'size="very large"', (3,)),
        ("size in {large, medium}", "size in {medium, large}", (1, 2)),
        ("size in {small, large}", "size in {small, large}", (0, 2)),
        ('size in {large, "very large"}', "size>=large", (2, 3)),
        ("size>=small", 'size in {small, medium, large, "very large"}', (0, 1, 2, 3)),
        ('years>="3-9"', 'years>="3-9"', (1, 2)),
        ("years<10", 'years<="3-9"', (0, 1)),
    ],
)
def test_values_of_ordinal_attributes_compare(text: str, canonical: str, indices: tuple[int, ...]) -> None:
    formula = parse(text, ORDERED)
    assert str(formula) == canonical and parse(canonical, ORDERED) == formula
    assert isinstance(formula, OneOf) and formula.indices == indices
    labels = torch.full((5, len(ORDERED)), torch.nan)
    labels[:4, ORDERED.index(formula.name)] = torch.arange(4.0)
    assert formula.holds(labels).tolist() == [k in indices for k in range(4)] + [False]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("accessory=hat", "accessory_hat"),
        ('accessory="sun glasses"', "accessory_sun_glasses"),
        ("~accessory in {hat, sun_glasses} & smile", "~(accessory_hat | accessory_sun_glasses) & smile"),
        ("accessory in {hat}", "accessory_hat"),
        ("accessory={}", "~accessory_hat & ~accessory_sun_glasses"),
        ("accessory={sun_glasses}^2", "(~accessory_hat & accessory_sun_glasses)^2.0"),
        ("pet={} | pet={dog}", "~pet_dog | pet_dog"),
    ],
)
def test_groups_are_spelled_by_their_members(text: str, canonical: str) -> None:
    assert str(parse(text, ORDERED)) == canonical and parse(canonical, ORDERED) == parse(text, ORDERED)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("size<small", 5, "'size' is never below its least value, 'small'"),
        ('size>"very large"', 5, "'size' is never above its greatest value, 'very large'"),
        ("size=>large", 4, "expected one of < <= > >=, got '=>'; write `>=`"),
        ("size>lage", 5, "unknown value of 'size' 'lage'; did you mean 'large'"),
        ("size>0.5", 5, "unknown value of 'size' '0.5'"),
        ("size", 0, "expected size=VALUE, size>=VALUE or size in"),
        ("hair>blond", 4, "the values of 'hair' have no order: write hair=VALUE.*say `ordered: true` in the schema"),
        ("hair=<blond", 4, "the values of 'hair' have no order"),
        ("smile>=1", 5, "'smile' is binary"),
        (
            "accessory",
            0,
            "'accessory' is a group: expected accessory=MEMBER.*a member of hat, sun_glasses; got the end",
        ),
        ("accessory>hat", 9, "'accessory' is a group.*got '>'"),
        ("accessory=hta", 10, "unknown member of 'accessory' 'hta'; did you mean 'hat'"),
        ("accessory=", 10, r"expected a member of 'accessory' \(hat, sun_glasses\), got the end"),
        ("accessory in {}", 14, "expected a member of 'accessory'"),
        ("accessory={hat", 14, "expected `,` or `}`"),
        ("hat & smile", 0, "'hat' is a value: write accessory=hat"),
        ("acessory=hat", 0, "unknown attribute 'acessory'; did you mean 'accessory'"),
    ],
)
def test_errors_know_orders_and_groups(text: str, column: int, message: str) -> None:
    with pytest.raises(FormulaError, match=message) as info:
        parse(text, ORDERED)
    assert info.value.column == column


def test_edits_may_compare_and_name_members() -> None:
    assert str(parse_edit("size>=large", ORDERED)) == "size>=large"
    assert str(parse_edit("-size=small", ORDERED)) == "~size=small"
    assert str(parse_edit("-accessory=hat", ORDERED)) == "~accessory_hat"
    with pytest.raises(FormulaError, match=r"one literal such as \+accessory_hat, got ~accessory_hat & ~accessory_sun"):
        parse_edit("accessory={}", ORDERED)
