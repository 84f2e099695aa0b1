"""Figures of labels against closed forms and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from lcg.labels.quality import (
    agreement,
    balance,
    cohens_kappa,
    correlation_ratio,
    cramers_v,
    dependences,
    rare_pairs,
)
from lcg.schema import Attribute, Schema

HAT, HAIR, AGE = (
    Attribute("hat"),
    Attribute("hair", "categorical", ("red", "blond", "black")),
    Attribute("age", "continuous"),
)
SCHEMA = Schema((HAT, HAIR, AGE))
NAN = np.nan


def test_balance_counts_values_and_what_is_missing() -> None:
    told = balance(HAIR, np.array([0, 0, 2, NAN], np.float32))
    assert told == {"kind": "categorical", "known": 3, "missing": 0.25, "counts": {"red": 2, "blond": 0, "black": 1}}
    assert balance(HAT, np.array([1, 1, 0], np.float32))["counts"] == {"no": 1, "yes": 2}
    told = balance(AGE, np.array([1, 3, NAN], np.float32))
    assert told["mean"] == 2 and told["deviation"] == 1 and told["quantiles"][2] == 2
    assert balance(AGE, np.array([NAN], np.float32)) == {"kind": "continuous", "known": 0, "missing": 1.0}


def test_a_function_of_the_other_depends_wholly_and_chance_not_at_all() -> None:
    a = np.tile([0.0, 1.0, 2.0], 200)
    assert cramers_v(a, 2 - a) == pytest.approx(1, abs=1e-3)
    assert correlation_ratio(a, 2 * a) == pytest.approx(1)
    b = np.repeat([0.0, 1.0], 300)
    assert cramers_v(a, b) == 0.0 and correlation_ratio(a, b) == 0.0
    generator = np.random.default_rng(0)
    squares = [cramers_v(*generator.integers(0, 3, (2, 60)).astype(float)) ** 2 for _ in range(200)]
    assert np.mean(squares) < 0.02  # of the uncorrected one: 4 / 59 / 2 = 0.034


def test_the_table_has_sign_where_there_is_one() -> None:
    hat = np.tile([0.0, 1.0], 50)
    labels = np.stack([hat, 2 * hat, 5 - hat], 1).astype(np.float32)
    table = dependences(Schema((HAT, HAIR, AGE)), labels)
    assert table[0, 1] == pytest.approx(1, abs=0.02) and table[0, 2] == table[2, 0] == pytest.approx(1)
    two = dependences(Schema((HAT, Attribute("beard"))), np.stack([hat, 1 - hat], 1).astype(np.float32))
    assert two[0, 1] == pytest.approx(-1)
    labels[:, 2] = 3.0
    assert np.isnan(dependences(SCHEMA, labels)[0, 2])  # a constant depends on nothing


@pytest.mark.parametrize("ordered", [False, True])
def test_kappa_is_scikit_learns(ordered) -> None:
    generator = np.random.default_rng(0)
    a = generator.integers(0, 4, 200).astype(float)
    b = np.where(generator.random(200) < 0.6, a, generator.integers(0, 4, 200))
    expected = cohen_kappa_score(a, b, weights="quadratic" if ordered else None)
    assert cohens_kappa(a, b, ordered) == pytest.approx(expected)


def test_agreement_leaves_unknown_labels_out() -> None:
    one, other = np.array([0, 1, 1, NAN, 0]), np.array([0, 1, NAN, 1, 0])
    assert agreement(HAT, one, other) == {"both": 3, "equal": 1.0, "kappa": 1.0}
    assert agreement(HAT, one, 1 - one)["kappa"] == -1.0
    constant = agreement(HAT, np.ones(3), np.ones(3))
    assert constant["equal"] == 1.0 and np.isnan(constant["kappa"])
    assert np.isnan(agreement(HAT, one, np.full(5, NAN))["kappa"])


def test_numbers_agree_by_lins_coefficient() -> None:
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert agreement(AGE, a, a)["kappa"] == 1.0
    assert agreement(AGE, a, a + 1)["kappa"] == pytest.approx(2 * 1.25 / (1.25 + 1.25 + 1))


def test_rare_pairs_are_those_that_one_expects() -> None:
    beard = Attribute("beard", detail_of=())
    colour = Attribute("beard_colour", "categorical", ("red", "blond"), applies_if={"beard": True})
    hat = np.tile([0, 1], 200).astype(np.float32)
    found = rare_pairs(Schema((HAT, beard)), np.stack([hat, 1 - hat], 1))
    assert [(e["formula"], e["count"], e["expected"]) for e in found] == [
        ("~hat & ~beard", 0, 100.0),
        ("hat & beard", 0, 100.0),
    ]
    assert rare_pairs(Schema((beard, colour)), np.stack([hat, np.where(hat == 1, 0, NAN)], 1)) == []
