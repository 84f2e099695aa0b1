import random

import pytest
import torch

from lcg.guidance.formula import And, Beyond, Formula, Has, OneOf, Or, Weighted
from lcg.guidance.logic import FormulaError, parse, parse_edit
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("beard"),
        Attribute("smile"),
        Attribute("hair", "categorical", ("blond", "red", "dark brown", "2")),
        Attribute("age", "continuous"),
    )
)
NAN = float("nan")


def random_formula(rng: random.Random, leaves: int) -> Formula:
    if leaves > 1:
        left = rng.randrange(1, leaves)
        a, b = random_formula(rng, left), random_formula(rng, leaves - left)
        formula = a & b if rng.random() < 0.5 else a | b
    else:
        kind = rng.choice(["binary", "categorical", "continuous"])
        column = rng.randrange(3)
        formula = {
            "binary": lambda: Has(SCHEMA.attributes[column], column),
            "categorical": lambda: OneOf(SCHEMA["hair"], 3, tuple(sorted(rng.sample(range(4), rng.randint(1, 4))))),
            "continuous": lambda: Beyond(
                SCHEMA["age"], 4, rng.uniform(-1, 1) * 10.0 ** rng.randint(-9, 20), rng.random() < 0.5
            ),
        }[kind]()
    return ~formula if rng.random() < 0.3 else formula


def test_canonical_text_parses_to_an_equal_formula() -> None:
    rng = random.Random(0)
    for _ in range(200):
        formula = random_formula(rng, rng.randint(1, 8))
        for _ in range(rng.randint(0, 2)):
            formula = formula & random_formula(rng, rng.randint(1, 3)) ** rng.choice([0.0, 0.25, 1.0, 1e-7, 3e20])
        assert parse(str(formula), SCHEMA) == formula, str(formula)


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
        ("smile^1 & beard", "smile & beard"),
        ("\tglasses\n & beard", "glasses & beard"),
    ],
)
def test_precedence_and_canonical_text(text: str, canonical: str) -> None:
    assert str(parse(text, SCHEMA)) == canonical


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
    ("", 0, "expected an attribute, `~` or `\\(`, got the end"),
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


def test_weights_are_refused_in_python_too() -> None:
    smile, beard = parse("smile", SCHEMA), parse("beard", SCHEMA)
    for build in (lambda: ~(smile**2.0), lambda: beard | smile**2.0, lambda: (beard & smile**2.0) ** 3.0):
        with pytest.raises(ValueError, match="weights belong to the conjuncts of the whole formula"):
            build()
    for weight in (-1.0, NAN, float("inf")):
        with pytest.raises(ValueError, match="must be finite and >= 0"):
            smile**weight
    with pytest.raises(ValueError, match="at least two"):
        And((smile,))


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


def test_truth_on_labels() -> None:
    labels = torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.7], [1.0, 1.0, 0.0, 1.0, 0.6], [0.0, 0.0, 1.0, 2.0, 0.2]])
    for text, expected in {
        "glasses": [True, True, False],
        "glasses & ~beard": [True, False, False],
        "beard | hair=blond": [True, True, False],
        'hair in {red, "dark brown"}': [False, True, True],
        "~(hair=blond | age<0.3)": [False, True, False],
        "age>0.6": [True, False, False],  # strictly above
        "smile^3.0 & glasses": [True, False, False],  # weights play no part
        "smile^0.0 & glasses": [True, False, False],
    }.items():
        assert parse(text, SCHEMA).holds(labels).tolist() == expected, text


def test_unknown_never_satisfies_but_does_not_hide_what_is_known() -> None:
    labels = torch.tensor([[NAN, 1.0, NAN, NAN, NAN]])
    for text, expected in {
        "glasses": False,
        "~glasses": False,
        "hair=red": False,
        "~hair=red": False,
        "age>0.1": False,
        "~age>0.1": False,
        "glasses | ~glasses": False,
        "glasses | beard": True,
        "beard & ~glasses": False,
        "~(glasses & ~beard)": True,
    }.items():
        assert parse(text, SCHEMA).holds(labels).item() is expected, text


def test_exactly_one_of_a_formula_and_its_negation_holds_for_known_labels() -> None:
    rng, g = random.Random(1), torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (20, 5), generator=g).float()
    labels[:, 3] = torch.randint(0, 4, (20,), generator=g).float()
    for formula in (random_formula(rng, 6) for _ in range(60)):
        assert (formula.holds(labels) ^ (~formula).holds(labels)).all(), str(formula)


def test_labels_without_the_column_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have a column 4 for 'age', got 3 columns; parse the formula with"):
        parse("age>0.5", SCHEMA).holds(torch.zeros(2, 3))
