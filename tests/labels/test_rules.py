"""Rules: scores to labels, by closed forms."""

import numpy as np
import pytest

from lcg.labels.rules import ArgMax, Cuts, Linear, Rule, Threshold, default_rules
from lcg.labels.rules_file import read_rules, write_rules
from lcg.schema import Attribute

NAN = np.nan


def column(*scores: float) -> np.ndarray:
    return np.array(scores, np.float32)[:, None]


def same(found: np.ndarray, expected: list[float]) -> None:
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_a_threshold_parts_scores_and_leaves_its_band_open() -> None:
    same(Threshold(0.5).labels(column(0.2, 0.5, 0.50001, 1, NAN)), [0, 0, 1, 1, NAN])
    same(Threshold(0.5, band=0.25).labels(column(0.2, 0.25, 0.3, 0.7, 0.75, 0.8)), [0, 0, NAN, NAN, 1, 1])
    np.testing.assert_allclose(Threshold(0.5).margins(column(0.2, 0.9)), [0.3, 0.4], rtol=1e-6)


def test_a_calibrated_threshold_is_the_sigmoid_of_platt() -> None:
    rule = Threshold(0.5, platt=[2.0, -1.0])
    same(rule.labels(column(0.4, 0.6)), [0, 1])  # sigmoid(2 x - 1) = 1/2 at x = 1/2
    np.testing.assert_allclose(rule.probabilities(column(0.5, 1.0)), [0.5, 1 / (1 + np.exp(-1))], rtol=1e-6)
    assert rule.places() == pytest.approx((0.5,))
    extreme = Threshold(0.5, platt=[1.0, 0.0], logit=True).probabilities(column(0.0, 0.25, 1.0))
    np.testing.assert_allclose(extreme, [1e-6, 0.25, 1 - 1e-6], atol=1e-6)  # the identity, kept from both ends
    assert Threshold(0.5, platt=[2.0, 1.0], logit=True).places() == pytest.approx((1 / (1 + np.exp(0.5)),))
    assert Threshold(0.5, platt=[0.0, 1.0]).places() == ()


def test_only_what_is_a_probability_is_told_as_one() -> None:
    assert np.isnan(Threshold(0.0).probabilities(column(3.0))).all()
    same(Threshold(probability=True).probabilities(column(0.25)), [0.25])
    assert np.isnan(Linear().probabilities(column(3.0))).all() and np.isnan(Linear().margins(column(3.0))).all()


def test_cut_points_count_and_make_an_ordinal_attribute() -> None:
    rule = Cuts([0.0, 2.0], ["low", "mid", "high"], band=0.5)
    same(rule.labels(column(-1, 0.1, 1.0, 1.6, 9, NAN)), [0, NAN, 1, NAN, 2, NAN])
    same(Cuts([0.0, 2.0], ["low", "mid", "high"]).labels(column(0, 2)), [0, 1])  # as a threshold: larger, not equal
    assert rule.attribute("age", ()) == Attribute("age", "categorical", ("low", "mid", "high"), ordered=True)
    assert rule.places() == (0.0, 2.0) and Linear().places() == ArgMax().places() == ()


def test_the_largest_score_wins_by_a_margin() -> None:
    scores = np.array([[0.5, 0.3, 0.2], [0.3, 0.45, 0.25], [0.1, 0.2, NAN]], np.float32)
    same(ArgMax().labels(scores), [0, 1, NAN])
    same(ArgMax(margin=0.18).labels(scores), [0, NAN, NAN])
    assert ArgMax().reads("hair", ["hair=red", "hat", "hair=blond"]) == ("hair=red", "hair=blond")
    assert ArgMax(["b", "a"]).reads("x", ["x=a", "x=b"]) == ("x=b", "x=a")
    assert ArgMax(["warm", "cold"], ["red", "blue"]).reads("x", ["red", "green", "blue"]) == ("red", "blue")
    assert ArgMax(["b", "a"], ordered=True).attribute("x", ()).ordered


def test_a_linear_rule_is_the_affine_map_of_two_points() -> None:
    same(Linear(10, 30).labels(column(10, 30, 40, NAN)), [0, 1, 1.5, NAN])
    same(Linear(10, 30, clip=True).labels(column(0, 40)), [0, 1])
    same(Linear(1, 0).labels(column(0.25)), [0.75])


def test_rules_without_being_asked() -> None:
    rules = default_rules(["smile", "hair=red", "hair=blond"], probabilities=True)
    assert list(rules) == ["smile", "hair"] and isinstance(rules["hair"], ArgMax)
    assert rules["smile"].settings() == Threshold(0.5, probability=True).settings()
    assert default_rules(["smile"], probabilities=False)["smile"].settings() == Threshold(0.0).settings()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Threshold(band=-1), "`band` must be >= 0, got -1; 0 leaves nothing open"),
        (lambda: Threshold(platt=[1.0]), r"`platt` must be slope and intercept, got \[1.0\]"),
        (lambda: Cuts([], ["a"]), r"`cuts` must be ascending numbers, at least one, got \[\]"),
        (lambda: Cuts([2, 1], ["a", "b", "c"]), r"ascending numbers, at least one, got \[2, 1\]; sort them"),
        (lambda: Cuts([1, 2], ["a", "b"]), r"`values` must be 3 names, one more than `cuts`, got \['a', 'b'\]"),
        (lambda: ArgMax(scores=["a"]), r"`scores` must be one for each of `values`, got \['a'\] for None"),
        (lambda: ArgMax(margin=-0.1), "`margin` must be >= 0, got -0.1"),
        (lambda: Linear(1, 1), "`low` and `high` must differ, both are 1"),
        (lambda: Threshold().reads("smlie", ["smile"]), r"unknown score \(of 'smlie'\) 'smlie'; did you mean 'smile'"),
        (lambda: ArgMax().reads("hair", ["hat"]), r"unknown score \(of 'hair'\) 'hair=...'; "),
    ],
)
def test_what_is_no_rule_is_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- files ---

RULES: dict[str, Rule] = {
    "smile": Threshold(0.4, band=0.1, platt=[1.5, -0.25], logit=True),
    "hair": ArgMax(["red", "blond"], margin=0.2),
    "age": Cuts([20.0, 40.0], ["young", "middle", "old"], score="years"),
    "light": Linear(0.1, 0.9, clip=True),
}


@pytest.mark.parametrize("name", ["rules.yaml", "rules.json", "deep/rules.yaml"])
def test_what_is_written_is_read(tmp_path, name) -> None:
    write_rules(tmp_path / name, RULES, {"smile": {"method": "Platt", "images": 3}})
    found = read_rules(tmp_path / name)
    assert list(found) == list(RULES)
    for attribute, rule in RULES.items():
        assert type(found[attribute]) is type(rule) and found[attribute].settings() == rule.settings()
    assert "method" in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "is not YAML"),
        ("3", "must hold a rule for each of some attributes, got int"),
        ("smile: 3", r"'smile': expected `rule`, one of Threshold, Cuts, ArgMax, Linear, and its settings; got 3"),
        ("smile: {rule: Treshold}", r"unknown rule 'Treshold'; did you mean 'Threshold'"),
        ("smile: {rule: Threshold, tresh: 1}", r"unknown setting 'tresh'; did you mean 'threshold'"),
        ("smile: {rule: Linear, low: 1}", r"'smile': `low` and `high` must differ"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, message) -> None:
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_rules(tmp_path / "rules.yaml")


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="write them with `lcg label thresholds`"):
        read_rules(tmp_path / "none.yaml")
