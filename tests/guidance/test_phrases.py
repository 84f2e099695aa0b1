from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcg.data.avatars import SCHEMA as AVATARS
from lcg.guidance.formula import And, Beyond, Formula, Has, Not, OneOf, Or
from lcg.guidance.logic import FormulaError, parse
from lcg.guidance.phrases import read
from lcg.schema import Attribute, Schema

pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
SETTINGS = settings(derandomize=True, deadline=None, max_examples=150)

CELEBA_NAMES = """
    Five_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair
    Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup
    High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose
    Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat
    Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young
"""
CELEBA = Schema(tuple(Attribute(name) for name in CELEBA_NAMES.split()))
WORLD = Schema(
    (
        Attribute("glasses"),
        Attribute("smile"),
        Attribute("hat"),
        Attribute("No_Beard"),
        Attribute("hair", "categorical", ("blond", "red", "dark brown")),
        Attribute("eye_color", "categorical", ("blue", "green")),
        Attribute("age", "continuous"),
    )
)

ATOMS = [
    ("a smiling person with glasses and no beard", AVATARS, "smile & glasses & ~beard"),
    ("spectacles", AVATARS, "glasses"),
    ("eyeglasses", AVATARS, "glasses"),
    ("bearded", AVATARS, "beard"),
    ("beardless", AVATARS, "~beard"),
    ("unsmiling", AVATARS, "~smile"),
    ("smiles", AVATARS, "smile"),
    ("wearing a hat", AVATARS, "hat"),
    ("short hair", AVATARS, "~long_hair"),
    ("dark-skinned", AVATARS, "dark_skin"),
    ("red hair", AVATARS, "hair_color=red"),
    ("red-haired", AVATARS, "hair_color=red"),
    ("redhead", AVATARS, "hair_color=red"),
    ("grey hair", AVATARS, "hair_color=gray"),
    ("hair color is red", AVATARS, "hair_color=red"),
    ("hair_color=red", AVATARS, "hair_color=red"),
    ("round glasses", AVATARS, "glasses & glasses_style=round"),
    ("round spectacles", AVATARS, "glasses & glasses_style=round"),
    ("prescription glasses", AVATARS, "glasses & glasses_style in {prescription01, prescription02}"),
    ("a light beard", AVATARS, "beard & beard_style=beardLight"),
    ("winter hat", AVATARS, "top in {winterHat1, winterHat02, winterHat03}"),
    ("a hoodie", AVATARS, "clothes=hoodie"),
    ("collar and sweater", AVATARS, "clothes=collarAndSweater"),
    ("blue clothes", AVATARS, "clothes_color=blue"),
    ("blue eyes", WORLD, "eye_color=blue"),
    ("green-eyed", WORLD, "eye_color=green"),
    ("dark brown hair", WORLD, 'hair="dark brown"'),
    ("older than 60", WORLD, "age>60"),
    ("younger than 30 years", WORLD, "age<30"),
    ("age above 0.6", WORLD, "age>0.6"),
    ("age > -0.5", WORLD, "age>-0.5"),
    ("aged at least 18", WORLD, "age>18"),
    ("over the age of 60", WORLD, "age>60"),
    ("age between 20 and 30", WORLD, "age>20 & age<30"),
    ("age is not between 20 and 30", WORLD, "~(age>20 & age<30)"),
    ("age is not over 60", WORLD, "~age>60"),
    ("no beard", CELEBA, "No_Beard"),
    ("No_Beard", CELEBA, "No_Beard"),
    ("clean-shaven", CELEBA, "No_Beard"),
    ("with a beard", CELEBA, "~No_Beard"),
    ("not beardless", CELEBA, "~No_Beard"),
    ("bald", CELEBA, "Bald"),
    ("blonde", CELEBA, "Blond_Hair"),
    ("a woman", CELEBA, "~Male"),
    ("old", CELEBA, "~Young"),
    ("Wearing_Earrings", CELEBA, "Wearing_Earrings"),
    ("5 o'clock shadow", CELEBA, "Five_o_Clock_Shadow"),
    ("a slightly open mouth", CELEBA, "Mouth_Slightly_Open"),
]
SENTENCES = [
    ("no glasses", "~glasses"),
    ("without glasses", "~glasses"),
    ("not wearing glasses", "~glasses"),
    ("a person who isn't smiling", "~smile"),
    ("someone who doesn\u2019t smile", "~smile"),
    ("never smiles", "~smile"),
    ("not without glasses", "glasses"),
    ("neither glasses nor a hat", "~glasses & ~hat"),
    ("no hat or beard", "~(hat | beard)"),
    ("no hat, glasses or beard", "~(hat | glasses | beard)"),
    ("no hat or no beard", "~hat | ~beard"),
    ("no hat, glasses and a beard", "~hat & glasses & beard"),
    ("no hat nor a beard", "~(hat | beard)"),
    ("smiling, nor wearing a hat", "smile & ~hat"),
    ("not (smiling or bearded)", "~(smile | beard)"),
    ("glasses, hat and beard", "glasses & hat & beard"),
    ("glasses, hat or beard", "glasses | hat | beard"),
    ("glasses, hat, or beard", "glasses | hat | beard"),
    ("glasses or hat, a beard", "(glasses | hat) & beard"),
    ("glasses, hat", "glasses & hat"),
    ("with a hat or a beard but no glasses", "(hat | beard) & ~glasses"),
    ("with a hat or a beard, but no glasses.", "(hat | beard) & ~glasses"),
    ("glasses and a hat or a beard", "(glasses & hat) | beard"),
    ("glasses and either a hat or a beard", "glasses & (hat | beard)"),
    ("either a hat and glasses or a beard", "(hat & glasses) | beard"),
    ("either a hat, glasses, or a beard", "hat | glasses | beard"),
    ("both a hat and glasses or a beard", "(hat & glasses) | beard"),
    ("smiling or bearded person with glasses or a hat", "(smile | beard) & (glasses | hat)"),
    ("smiling, with a hat or glasses", "smile & (hat | glasses)"),
    ("a person without glasses or a beard who smiles", "~(glasses | beard) & smile"),
    ("a person with a hat or a person with a beard and glasses", "hat | (beard & glasses)"),
    ("a person with glasses or a person with a beard who smiles", "glasses | (beard & smile)"),
    ("bearded. No hat!", "beard & ~hat"),
    ("glasses, but no beard either", "glasses & ~beard"),
    ("red or blond hair", "hair_color=red | hair_color=blond"),
    ("red, blond or black hair", "hair_color=red | hair_color=blond | hair_color=black"),
    ("long red hair", "long_hair & hair_color=red"),
    ("hair that is red or black", "hair_color=red | hair_color=black"),
    ("hair is not red", "~hair_color=red"),
    ("red hat or hair", "(hat & hat_color=red) | hair_color=red"),
    ("no red hat", "~(hat & hat_color=red)"),
    ("a hat that is not red", "hat & ~hat_color=red"),
]


@pytest.mark.parametrize(("text", "schema", "formula"), ATOMS, ids=[text for text, _, _ in ATOMS])
def test_names_synonyms_and_numbers(text: str, schema: Schema, formula: str) -> None:
    reading = read(text, schema)
    assert reading.formula == parse(formula, schema) and reading.not_understood == ()
    assert parse(str(reading.formula), schema) == reading.formula


@pytest.mark.parametrize(("text", "formula"), SENTENCES, ids=[text for text, _ in SENTENCES])
def test_what_joins_and_denies(text: str, formula: str) -> None:
    assert read(text, AVATARS).formula == parse(formula, AVATARS)


def test_every_name_of_celeba_and_every_value_of_the_avatars_is_read() -> None:
    for attribute in CELEBA:
        assert read(attribute.name, CELEBA).formula == parse(attribute.name, CELEBA)
    for attribute in AVATARS.of_kind("categorical"):
        for value in attribute.values:
            assert f"{attribute.name}={value}" in str(read(f"{attribute.name}={value}", AVATARS).formula)


def test_women_and_men_with_different_things() -> None:
    text = "a bearded man with eyeglasses or a young woman with a hat"
    assert str(read(text, CELEBA).formula) == "(~No_Beard & Male & Eyeglasses) | (Young & ~Male & Wearing_Hat)"


def test_the_users_synonyms_win() -> None:
    own = {"young": "age<0.3", "hipster": "~No_Beard & glasses", "red hair": "hair=blond", "hat": "smile"}
    assert str(read("a young hipster", WORLD, own).formula) == "age<0.3 & ~No_Beard & glasses"
    assert str(read("red hair and no hat", WORLD, own).formula) == "hair=blond & ~smile"
    with pytest.raises(FormulaError, match="unknown word 'young'"):
        read("young", WORLD)


def test_a_reading_says_what_became_of_every_word() -> None:
    text = "A person, smiling, with glasses"
    assert str(read(text, AVATARS).formula) == "smile & glasses"
    reading = read(text, AVATARS)
    became = [(part.text, part.became) for part in reading.parts]
    assert became == [
        ("A", "skip"), ("person", "person"), (",", "comma"), ("smiling", "smile"), (",", "comma"), ("with", "with"),
        ("glasses", "glasses"),
    ]  # fmt: skip
    assert all(text[part.start : part.end] == part.text for part in reading.parts)


CHOICES = [
    ("red hat or hair", "hair", "hair_color=red", ()),
    ("red hat or beard", "beard", "beard", ("beard & beard_color=red",)),
    (
        "black",
        "black",
        "hair_color=black",
        ("hat & hat_color=black", "beard & beard_color=black", "clothes_color=black"),
    ),
    ("glasses and hat or beard", "glasses and hat or beard", "(glasses & hat) | beard", ("glasses & (hat | beard)",)),
    ("no hat or beard", "no hat or beard", "~(hat | beard)", ("~hat | beard",)),
    ("no beard and glasses", "no beard and glasses", "~beard & glasses", ("~beard & ~glasses",)),
    ("smiling, hat or beard", "smiling, hat or beard", "smile | hat | beard", ("smile & (hat | beard)",)),
    ("smiling bearded or long hair", None, "(smile & beard) | long_hair", ("smile & (beard | long_hair)",)),
    ("not smiling bearded person", "not smiling bearded", "~smile & beard", ("~(smile & beard)",)),
]


@pytest.mark.parametrize(("text", "where", "chosen", "others"), CHOICES, ids=[text for text, *_ in CHOICES])
def test_what_is_ambiguous_is_said(text: str, where: str | None, chosen: str, others: tuple[str, ...]) -> None:
    reading = read(text, AVATARS)
    found = {a.text: a for a in reading.ambiguities if a.even}[where or text]
    assert (found.chosen, found.alternatives) == (chosen, others)
    assert f"is read as {chosen}" in str(reading)


def test_plain_descriptions_are_not_ambiguous() -> None:
    for text in ("a smiling person with glasses and no beard", "with a hat or a beard but no glasses", "hat, glasses"):
        assert not [a for a in read(text, AVATARS).ambiguities if a.even]
    (named,) = read("a smile", AVATARS).ambiguities  # the schema's own name decides against the value of the mouth
    assert (named.chosen, named.alternatives, named.even) == ("smile", ("mouth=smile",), False)


ERRORS = [
    ("a smile and spectackles", AVATARS, 12, "unknown word 'spectackles'; did you mean 'spectacles'"),
    ("her hat", AVATARS, 0, "unknown word 'her'"),
    ("a red car", AVATARS, 2, "'red' is not understood as said of 'car'; if it stands by itself, put a comma"),
    ("light brown hair", AVATARS, 0, "'light' is not understood as said of 'brown'"),
    ("a very long hair", AVATARS, 2, "unknown word 'very'"),
    ("a hat and eyes", AVATARS, 10, "'eyes' is not understood without a value; 'eyes' is one of: default, happy"),
    ("her hair", CELEBA, 4, "unknown word 'hair'; the vocabulary has: Five_o_Clock_Shadow"),
    ("60 years old", WORLD, 0, "'60' is not understood as a number by itself; write what it bounds"),
    ("smile and age", WORLD, 10, "'age' is not understood without a bound; 'age' is a number: write age above 0.5"),
    ("age above average", WORLD, 0, "'age above' is not understood without its number"),
    ("age between 3 or 5", WORLD, 0, "'age between' is not understood without two numbers"),
    ("", AVATARS, 0, "the text says nothing about an attribute; the schema has: glasses"),
    ("a person", AVATARS, 8, "the text says nothing about an attribute"),
    ("glasses and", AVATARS, 11, "expected a description, got the end"),
    ("glasses and or hat", AVATARS, 12, "expected a description, got this"),
    ("glasses but", AVATARS, 11, "expected a description, got the end"),
    ("(glasses", AVATARS, 0, "a bracket that is not closed"),
    ("glasses)", AVATARS, 7, "expected something before"),
    ("neither glasses", AVATARS, 0, "`neither` without its `nor`"),
    ("either glasses and a hat", AVATARS, 0, "`either` without its `or`"),
    ("both glasses or a hat", AVATARS, 0, "`both` without its `and`"),
    ("not " * 40 + "hat", AVATARS, 64, "brackets and negations are nested deeper than 16"),
]


@pytest.mark.parametrize(("text", "schema", "column", "message"), ERRORS, ids=[e[0][:24] for e in ERRORS])
def test_errors_point_at_the_word(text: str, schema: Schema, column: int, message: str) -> None:
    with pytest.raises(FormulaError, match=message.replace("(", r"\(")) as info:
        read(text, schema)
    assert info.value.column == column


def test_what_contradicts_itself_is_refused() -> None:
    for text in ("a beard and no beard", "red hair and hair that is black"):
        with pytest.raises(ValueError, match=r"is read as .* which can never hold"):
            read(text, AVATARS)


@pytest.mark.parametrize(
    ("synonyms", "message"),
    [
        ({"posh": "smlie"}, "'posh' must stand for a formula; unknown attribute 'smlie'"),
        ({"posh": "smile^2"}, "has weights; leave them out"),
        ({" -": "smile"}, "expected phrases of words, got ' -'"),
    ],
)
def test_synonyms_are_checked(synonyms: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read("posh", WORLD, synonyms)


def test_without_strict_what_is_not_understood_is_listed() -> None:
    reading = read("a big smile on a car and no glasses", AVATARS, strict=False)
    assert str(reading.formula) == "smile & ~glasses"
    assert [(part.text, part.start) for part in reading.not_understood] == [("big", 2), ("on", 12), ("car", 17)]
    assert "not understood at column 3: 'big'" in str(reading)
    with pytest.raises(FormulaError, match="nothing of the text was understood"):
        read("a car", AVATARS, strict=False)


# --- properties ------------------------------------------------------------------------------------------------------


def atoms(schema: Schema) -> st.SearchStrategy[Formula]:
    def of(column: int, a: Attribute) -> st.SearchStrategy[Formula]:
        if a.kind == "binary":
            return st.just(Has(a, column))
        if a.kind == "categorical":
            chosen = st.sets(st.integers(0, len(a.values) - 1), min_size=1, max_size=2)
            return chosen.map(lambda indices: OneOf(a, column, tuple(indices)))
        return st.builds(
            lambda c, above: Beyond(a, column, c, above), st.sampled_from([-1.5, 0.25, 60.0]), st.booleans()
        )

    return st.one_of(*(of(column, a) for column, a in enumerate(schema)))


def formulas(schema: Schema) -> st.SearchStrategy[Formula]:
    def several(parts: st.SearchStrategy[Formula]) -> st.SearchStrategy[tuple[Formula, ...]]:
        return st.lists(parts, min_size=2, max_size=3).map(tuple)

    return st.recursive(
        atoms(schema), lambda p: st.one_of(p.map(Not), several(p).map(And), several(p).map(Or)), max_leaves=6
    )


def phrase(atom: Formula, pick: st.DataObject) -> str:
    say = lambda *ways: pick.draw(st.sampled_from(ways))  # noqa: E731
    if isinstance(atom, OneOf):
        values, noun = [atom.attribute.values[i] for i in atom.indices], atom.name.split("_")[0]
        if atom.name == "eye_color":
            noun = say("eyes", "eye color")
        spoken = f"{values[0]} {noun}" if len(values) == 1 else f"({values[0]} {noun} or {values[1]} {noun})"
        return say(spoken, f"{noun} that is {values[0]}") if len(values) == 1 else spoken
    if isinstance(atom, Beyond):
        word = say("above", "over", "more than") if atom.above else say("below", "under", "less than")
        return say(f"age {word} {atom.threshold!r}", f"{'older' if atom.above else 'younger'} than {atom.threshold!r}")
    ways = {
        "glasses": ("glasses", "spectacles"),
        "smile": ("a smile", "smiling"),
        "hat": ("wearing a hat", "a hat"),
        "No_Beard": ("beardless", "clean-shaven"),
    }
    return say(*ways[atom.name])


def english(formula: Formula, pick: st.DataObject) -> str:
    """A description; what is inside something else is bracketed unless it is one phrase."""
    if isinstance(formula, Not):
        inner, no = inside(formula.operand, pick), pick.draw(st.sampled_from(["not", "without", "no", "never"]))
        return f"{no} {inner}"
    if not isinstance(formula, And | Or):
        return phrase(formula, pick)
    parts = [inside(part, pick) for part in formula.operands]
    if isinstance(formula, And):
        denied = all(isinstance(p, Not) and not isinstance(p.operand, Not) for p in formula.operands)
        ways = [
            " and ".join(parts),
            ", ".join(parts[:-1]) + " and " + parts[-1],
            " but ".join(parts),
            " with ".join(parts),
        ]
        if denied:
            ways.append("neither " + " nor ".join(inside(p.operand, pick) for p in formula.operands))  # type: ignore[attr-defined]
    else:
        listed = ", ".join(parts[:-1]) + " or " + parts[-1]
        ways = [" or ".join(parts), listed, "either " + " or ".join(parts), "either " + listed]
    return pick.draw(st.sampled_from(ways))


def inside(formula: Formula, pick: st.DataObject) -> str:
    text = english(formula, pick)
    return f"({text})" if isinstance(formula, And | Or | Not) else text


def truth_table(*schemas: Schema) -> torch.Tensor:
    """All labels that the formulas drawn above can tell apart."""
    cells = {"binary": [0.0, 1.0], "continuous": [-2.0, -1.5, 0.0, 0.25, 1.0, 60.0, 70.0]}
    columns = [cells.get(a.kind, list(map(float, range(len(a.values))))) for a in schemas[0]]
    return torch.tensor(list(product(*columns)))


TABLE = truth_table(WORLD)


@SETTINGS
@given(formulas(WORLD), st.data())
def test_generated_english_means_the_formula_that_it_was_written_from(formula: Formula, pick: st.DataObject) -> None:
    text, truth = english(formula, pick), formula.holds(TABLE)
    if truth.any():
        reading = read(f"a person {text}", WORLD)
        assert torch.equal(reading.formula.holds(TABLE), truth), text
        assert reading == read(f"a person {text}", WORLD)
    else:
        with pytest.raises(ValueError, match="never hold"):
            read(text, WORLD)


VOCABULARY = """
    a the no not without neither nor either or both and but with who is that n't glasses hat red round light hair beard
    smiling bald 60 0.5 age older than above between , . ( ) > = 😀 car un less 1e999 _ - hair_color beardLight 007
"""


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from(VOCABULARY.split()), max_size=14).map(" ".join) | st.text(max_size=30),
    st.booleans(),
    st.data(),
)
def test_whatever_is_written_is_read_or_refused(text: str, strict: bool, pick: st.DataObject) -> None:
    schema = pick.draw(st.sampled_from([AVATARS, WORLD, CELEBA]))
    try:
        reading = read(text, schema, strict=strict)
    except ValueError as error:
        assert str(error)
        if isinstance(error, FormulaError):
            assert 0 <= error.column <= len(text)
    else:
        assert read(text, schema, strict=strict) == reading and str(reading)
        assert parse(str(reading.formula), schema) == reading.formula
        assert not (strict and reading.not_understood)
        covered = "".join(part.text for part in reading.parts)
        assert {c for c in text if c.isalnum()} <= set(covered)


# --- ordinal attributes and groups ---

REFINED = Schema(
    (
        Attribute("smile"),
        Attribute("age", "categorical", ("child", "young", "adult", "very old"), ordered=True),
        Attribute("accessory_hat", group="accessory"),
        Attribute("accessory_sun_glasses", group="accessory"),
    )
)


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("an adult with a hat", "age=adult & accessory_hat"),
        ("someone older than young", "age>=adult"),
        ("younger than an adult, smiling", "age<=young & smile"),
        ("not older than young", "~age>=adult"),
        ("younger than the very old without sun glasses", "age<=adult & ~accessory_sun_glasses"),
    ],
)
def test_ordinal_values_are_compared_and_members_named_alone(text: str, formula: str) -> None:
    assert str(read(text, REFINED).formula) == formula


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("older than 5", "without its value; write one of: child, young, adult, very old"),
        ("older than very old", "not understood as 'age' has no value above that"),
        ("younger than a child", "not understood as 'age' has no value below that"),
    ],
)
def test_comparisons_that_say_nothing_are_refused(text: str, message: str) -> None:
    with pytest.raises(FormulaError, match=message):
        read(text, REFINED)
