import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lcg.guidance.formula import And, Beyond, Formula, Has, Not, OneOf, Or, Weighted
from lcg.guidance.logic import parse
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
GLASSES, BEARD, SMILE = (Has(SCHEMA.attributes[column], column) for column in range(3))
NAN = float("nan")
SETTINGS = settings(derandomize=True, deadline=None, max_examples=60)


def table(missing: bool) -> Tensor:
    """Rows of labels; with `missing` about a third of them is."""
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (64, 5), generator=g).float()
    labels[:, 3] = torch.randint(0, 4, (64,), generator=g).float()
    labels[:, 4] = torch.randn(64, generator=g)
    return torch.where(torch.rand(64, 5, generator=g) < 1 / 3, NAN, labels) if missing else labels


KNOWN, SOME = table(missing=False), table(missing=True)
ATOMS = st.one_of(
    st.sampled_from([GLASSES, BEARD, SMILE]),
    st.sets(st.integers(0, 3), min_size=1).map(lambda chosen: OneOf(SCHEMA["hair"], 3, tuple(chosen))),
    st.builds(lambda c, above: Beyond(SCHEMA["age"], 4, c, above), st.sampled_from([-0.7, 0.1, 0.6]), st.booleans()),
)
FORMULAS = st.recursive(
    ATOMS,
    lambda parts: st.one_of(
        parts.map(Not),
        *(st.lists(parts, min_size=2, max_size=3).map(lambda f, kind=kind: kind(tuple(f))) for kind in (And, Or)),
    ),
    max_leaves=6,
)


# --- truth ---


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


@SETTINGS
@given(FORMULAS, FORMULAS, FORMULAS)
def test_the_laws_of_kleenes_logic_hold_with_missing_labels(a: Formula, b: Formula, c: Formula) -> None:
    for law, left, right in (
        ("double negation", ~~a, a),
        ("De Morgan", ~(a & b), ~a | ~b),
        ("De Morgan", ~(a | b), ~a & ~b),
        ("commutation", a & b, b & a),
        ("commutation", a | b, b | a),
        ("distribution", a & (b | c), (a & b) | (a & c)),
        ("distribution", a | (b & c), (a | b) & (a | c)),
        ("absorption", a & (a | b), a),
        ("absorption", a | (a & b), a),
        ("idempotence", a & a, a),
        ("idempotence", a | a, a),
    ):
        for one, two in zip(left.verdict(SOME), right.verdict(SOME), strict=True):  # certainly true, certainly false
            assert torch.equal(one, two), f"{law}: {left} and {right}"
        assert torch.equal(left.holds(SOME), right.holds(SOME))


@SETTINGS
@given(FORMULAS)
def test_the_laws_of_complements_hold_where_the_labels_decide(a: Formula) -> None:
    """Kleene's logic has no tautologies: what is unknown stays so."""
    assert ((a | ~a).holds(KNOWN)).all() and not (a & ~a).holds(KNOWN).any()
    assert (a.holds(KNOWN) ^ (~a).holds(KNOWN)).all()
    decided = a.holds(SOME) | (~a).holds(SOME)
    assert torch.equal((a | ~a).holds(SOME), decided)
    assert not (a & ~a).holds(SOME).any() and torch.equal((~(a & ~a)).holds(SOME), decided)


@SETTINGS
@given(FORMULAS)
def test_a_label_that_becomes_known_overturns_no_verdict(a: Formula) -> None:
    known = torch.where(SOME.isnan(), KNOWN, SOME)
    for before, after in zip(a.verdict(SOME), a.verdict(known), strict=True):
        assert (before <= after).all()


@SETTINGS
@given(FORMULAS, st.permutations(range(len(SOME))))
def test_a_row_is_judged_by_itself(a: Formula, order: list[int]) -> None:
    assert torch.equal(a.holds(SOME[order[:7]]), a.holds(SOME)[order[:7]])


def test_labels_without_the_column_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have a column 4 for 'age', got 3 columns; parse the formula with"):
        parse("age>0.5", SCHEMA).holds(torch.zeros(2, 3))


# --- weights ---


@pytest.mark.parametrize(
    ("formula", "text", "weights"),
    [
        (GLASSES & BEARD, "glasses & beard", None),
        (~(GLASSES & BEARD) | SMILE, "~(glasses & beard) | smile", None),
        (GLASSES**2.0, "glasses^2.0", (2.0,)),
        (GLASSES**1.0, "glasses^1.0", (1.0,)),
        (GLASSES**0.0, "glasses^0.0", (0.0,)),
        (GLASSES**1.0 & BEARD, "glasses^1.0 & beard", (1.0, 1.0)),
        ((GLASSES & BEARD) ** 1.0, "(glasses & beard)^1.0", (1.0,)),
        (GLASSES & (BEARD | SMILE) ** 0.5 & ~SMILE, "glasses & (beard | smile)^0.5 & ~smile", (1.0, 0.5, 1.0)),
        (GLASSES**1.0 & (BEARD**1.0 & SMILE), "glasses^1.0 & beard^1.0 & smile", (1.0, 1.0, 1.0)),
    ],
)
def test_a_weight_of_one_is_a_weight(formula: Formula, text: str, weights: tuple[float, ...] | None) -> None:
    """What is not weighted takes the defaults; so a 1 that somebody wrote must not vanish."""
    assert str(formula) == text and parse(text, SCHEMA) == formula
    assert formula.is_weighted is (weights is not None)
    assert tuple(weight for _, weight in formula.conjuncts) == (weights or (1.0,) * len(formula.conjuncts))
    assert not any(part.is_weighted for part, _ in formula.conjuncts)


def test_a_weight_of_one_makes_another_formula_with_the_same_truth() -> None:
    weighted, plain = parse("glasses^1 & hair=red", SCHEMA), parse("glasses & hair=red", SCHEMA)
    assert weighted != plain and weighted.conjuncts == plain.conjuncts
    assert torch.equal(weighted.holds(SOME), plain.holds(SOME))


@pytest.mark.parametrize("weight", [2.0, 1.0, 0.0])
def test_weights_are_refused_in_python_too(weight: float) -> None:
    for build in (
        lambda: ~(SMILE**weight),
        lambda: BEARD | SMILE**weight,
        lambda: (BEARD & SMILE**weight) ** 3.0,
        lambda: (SMILE**weight) ** 1.0,
    ):
        with pytest.raises(ValueError, match="weights belong to the conjuncts of the whole formula"):
            build()


def test_weights_that_make_no_sense_are_refused() -> None:
    for weight in (-1.0, NAN, math.inf):
        with pytest.raises(ValueError, match="must be finite and >= 0"):
            SMILE**weight


# --- one way to write each formula ---


def test_equal_formulas_are_written_alike() -> None:
    hair, age = SCHEMA["hair"], SCHEMA["age"]
    for one, two in (
        (OneOf(hair, 3, (2, 0, 2)), OneOf(hair, 3, (0, 2))),
        (Beyond(age, 4, -0.0, True), Beyond(age, 4, 0.0, True)),
        (Weighted(SMILE, -0.0), Weighted(SMILE, 0.0)),
        (And((GLASSES, And((BEARD, SMILE)))), And((GLASSES, BEARD, SMILE))),
    ):
        assert one == two and hash(one) == hash(two) and str(one) == str(two)


def test_values_are_quoted_only_if_they_must_be() -> None:
    hair = Attribute("hair", "categorical", ("blond", "weiß", "dark brown", "2", 'the "red"', "in"))
    written = [str(OneOf(hair, 0, (i,))) for i in range(6)]
    assert written == ["hair=blond", "hair=weiß", 'hair="dark brown"', 'hair="2"', r'hair="the \"red\""', "hair=in"]


def test_atoms_that_make_no_sense_are_refused() -> None:
    for indices in ((), (4,), (-1, 0)):
        with pytest.raises(ValueError, match=r"`indices` of 'hair' must be at least one of 0 to 3, got .*value_index"):
            OneOf(SCHEMA["hair"], 3, indices)
    for threshold in (NAN, math.inf):
        with pytest.raises(ValueError, match=r"`threshold` of 'age' must be finite, got (nan|inf); leave out"):
            Beyond(SCHEMA["age"], 4, threshold, True)
    for kind in (And, Or):
        with pytest.raises(ValueError, match="at least two"):
            kind((SMILE,))
