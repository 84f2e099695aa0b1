"""Advice for constructed classifiers: every sentence where its figures call for it, and not elsewhere."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from lcg.metrics.advice import advise, report, tables
from lcg.metrics.diagnostics import FINER, Diagnosis, Figures, Reliability
from lcg.metrics.temperature import Readings
from lcg.nets.classifier import LEVELS
from lcg.schema import Attribute, Kind, Schema

BANDS = 5
NAN = math.nan
GOOD = Figures("", "binary", 0, 1, 500, 0.6, 0.95, 0.98, 0.67, 0.1, 0.1, 0.01, 0.01, 0.01, 0.0)
POOR = replace(GOOD, accuracy=0.7, auroc=0.75, nll_before=0.55, nll_after=0.55)
CHANCE = replace(GOOD, accuracy=0.6, auroc=0.52, nll_before=0.67, nll_after=0.67)


def figures(name: str, kind: Kind, bands: int, quality: Callable[[float], Figures]) -> tuple[Figures, ...]:
    """The quality at the middle of every band."""
    return tuple(
        replace(quality((b + 0.5) / bands), attribute=name, kind=kind, t_from=b / bands, t_to=(b + 1) / bands)
        for b in range(bands)
    )


def usual(t: float) -> Figures:
    return GOOD if t < 0.6 else POOR if t < 0.9 else CHANCE


def diagnosis(
    temperature: Sequence[float] = (1.2,) + (1.0,) * (LEVELS - 1),
    joint: Sequence[float] = (0.3,) * BANDS,
    independent: Sequence[float] = (0.3,) * BANDS,
    gain: float = 0.0,
    is_joint: bool = False,
    **quality: Callable[[float], Figures],
) -> Diagnosis:
    """A classifier of the named attributes, binary, or continuous where the name says so."""
    kinds: dict[str, Kind] = {name: "continuous" if name == "age" else "binary" for name in quality}
    table, curves = (
        tuple(row for name, q in quality.items() for row in figures(name, kinds[name], bands, q))
        for bands in (BANDS, FINER * BANDS)
    )
    none = Reliability(*torch.zeros(3, BANDS, 15))
    before = tuple(value + gain for value in joint)
    readings = Readings((100,) * BANDS, before, tuple(joint), tuple(independent), tuple(independent))
    schema = Schema(tuple(Attribute(name, kind) for name, kind in kinds.items()))
    log_T = torch.tensor(temperature, dtype=torch.float64).log()
    return Diagnosis(schema, BANDS, is_joint, table, curves, none, none, log_T, readings)


def about(name: str, quality: Callable[[float], Figures]) -> str:
    (line,) = (line for line in advise(diagnosis(**{name: quality})) if line.startswith(f"{name}: "))
    return line


# --- attributes ---


def test_where_an_attribute_is_decided_and_where_at_chance() -> None:
    assert about("hat", usual) == (
        "hat: decided below t = 0.6 (accuracy above 0.9), at chance above t = 0.9 (AUROC below 0.6)"
    )
    assert about("hat", lambda t: GOOD) == "hat: decided below t = 1 (accuracy above 0.9)"
    assert about("hat", lambda t: POOR if t < 0.8 else CHANCE) == (
        "hat: not decided at any t (accuracy 0.70, AUROC 0.75 at t < 0.1), at chance above t = 0.8 (AUROC below 0.6)"
    )


def test_a_rare_attribute_is_not_decided_by_always_saying_no() -> None:
    rare = replace(POOR, majority=0.95, accuracy=0.95)
    assert "not decided at any t" in about("hat", lambda t: rare)
    assert "decided below t = 1" in about("hat", lambda t: replace(rare, accuracy=0.98))


def test_an_attribute_that_is_never_learnt() -> None:
    line = about("hat", lambda t: CHANCE)
    assert line.startswith("hat: never learnt (accuracy 0.60, AUROC 0.52 at t < 0.1), do not guide by it")


def test_too_few_labels_or_only_one_value() -> None:
    few = about("hat", lambda t: replace(GOOD, n=12 if t < 0.5 else 40))
    assert few == "hat: too few labels to judge, 12 in a band of t"
    one = about("hat", lambda t: replace(GOOD, entropy=0.0, auroc=NAN))
    assert one == "hat: all validation labels are alike: nothing to learn, and no guidance"


def test_probabilities_that_are_wrong_after_temperature() -> None:
    def wrong(t: float) -> Figures:
        sign = 1 if t < 0.4 else -1 if t > 0.8 else 0
        return replace(GOOD, ece_after=0.12 if sign else 0.01, overconfidence=0.1 * sign)

    assert about("hat", wrong).endswith(
        "; overconfident at t = 0 to 0.4 (ECE 0.12), weigh it less"
        "; underconfident at t = 0.8 to 1 (ECE 0.12), weigh it more"
    )
    by_chance = replace(GOOD, ece_after=0.12, ece_by_chance=0.07, overconfidence=0.1)
    assert "confident" not in about("hat", lambda t: by_chance)
    assert "confident" not in about("hat", lambda t: replace(GOOD, ece_after=0.04, overconfidence=0.04))


def test_continuous_attributes_by_the_variance_that_is_explained() -> None:
    def skill(share: float) -> Figures:
        nll = 1.4 + 0.5 * math.log(1 - share)
        return Figures("", "continuous", 0, 1, 500, entropy=1.4, nll_before=nll, nll_after=nll, ece_after=0.01)

    line = about("age", lambda t: skill(0.9 if t < 0.3 else 0.4 if t < 0.7 else 0.01))
    assert (
        line
        == "age: decided below t = 0.3 (over 0.8 of the variance), at chance above t = 0.7 (under 0.05 of the variance)"
    )
    assert "never learnt (0.01 of the variance at t < 0.1)" in about("age", lambda t: skill(0.01))


def test_attributes_of_which_the_same_is_true_share_a_sentence() -> None:
    lines = advise(diagnosis(hat=usual, beard=lambda t: CHANCE, smile=usual))
    assert [line.partition(":")[0] for line in lines[3:]] == ["hat, smile", "beard"]


# --- the whole ---


def test_the_range_of_guidance() -> None:
    line = advise(diagnosis(hat=usual, smile=lambda t: GOOD if t < 0.5 else POOR if t < 0.7 else CHANCE))[0]
    assert line == (
        "guidance: all 2 attributes are learnt, from t = 0.9 on down (hat first), "
        "and decided below t = 0.5, where guidance only confirms"
    )
    line = advise(diagnosis(hat=lambda t: POOR, smile=lambda t: CHANCE))[0]
    assert line == "guidance: 1 of 2 attributes are learnt, from t = 1 on down (hat first)"
    assert "no attribute is learnt" in advise(diagnosis(hat=lambda t: CHANCE))[0]


def test_temperature() -> None:
    def line(temperature: Sequence[float], gain: float = 0.0) -> str:
        return advise(diagnosis(temperature, gain=gain, hat=usual))[1]

    assert line([1.0] * LEVELS).startswith("temperature: T = 1, none was fitted; `lcg fit`")
    assert line([1.05] * LEVELS).endswith("from t = 0 to 1; about 1 everywhere, as it should be")
    hot = line([1.0, 1.0, 1.3, 1.5, 1.0, 1.0], 0.02)
    assert "T = 1.00, 1.00, 1.30, 1.50, 1.00, 1.00" in hot
    assert "overconfident at t = 0.2 to 0.8 without it (T = 1.40, worth 0.0200 nats per label)" in hot
    assert hot.endswith("more samples, fewer steps or more dropout would help")
    cold = line([0.5, 0.5, 1.0, 1.0, 1.0, 1.0], 0.001)
    assert "underconfident at t = 0 to 0.4 without it (T = 0.50, worth 0.0010 nats per label)" in cold
    assert "longer training" not in cold and "longer training would help" in line([0.5] * LEVELS, 0.05)


def test_readings() -> None:
    def line(joint: Sequence[float], is_joint: bool = True) -> str:
        return advise(diagnosis(joint=joint, is_joint=is_joint, hat=usual))[2]

    assert line((0.3,) * 5, is_joint=False).startswith(
        "reading: attributes are independent given z_t (`components: 1`)"
    )
    assert line((0.3, 0.3, 0.3, 0.1, 0.25)) == (
        "reading: attributes are read jointly, 0.050 nats per label better than as independent given z_t; "
        "most at t = 0.6 to 0.8 (0.200)"
    )
    assert line((0.4,) * 5).startswith(
        "reading: attributes are read as independent given z_t, 0.100 nats per label better than jointly"
    )


# --- tables ---


def test_tables_have_a_row_per_attribute_and_a_column_per_band() -> None:
    shown = tables(diagnosis(hat=usual, age=lambda t: replace(GOOD, accuracy=NAN, nll_after=-0.2, coverage_90=0.88)))
    assert len(shown) == 4
    for table in shown.values():
        header, rule, *rows = table.splitlines()
        assert len({len(line) for line in (header, rule, *rows)}) == 1  # aligned
        assert all(line.count("|") == BANDS + 4 for line in (header, rule, *rows))
    accuracy, variance, nll, _ = shown.values()
    assert "| hat       | 500 |  0.60 | 0.95 (0.98) |" in accuracy and "age" not in accuracy
    assert "(0.88)" in variance and "hat" not in variance
    assert "0.100 -> 0.100" in nll and "0.550 -> 0.550" in nll


@pytest.mark.parametrize("names", [("hat",), ("age",)])
def test_the_report_is_advice_and_tables_whatever_kinds_there_are(names: Sequence[str]) -> None:
    text = report(diagnosis(**{name: usual for name in names}))
    assert text.startswith("# Calibration") and text.count("\n- ") == 4 and text.count("\n## ") == 3
    assert text.encode("ascii")  # whatever the terminal
