"""Every figure by its definition, on small data, and what it is for a classifier that knows all, nothing, or lies."""

import csv
import io
import math

import pytest
import torch
from torch import Tensor

from lcg.metrics.diagnostics import COVERAGES, FINER, Diagnosis, Figures, auroc, central_mass, diagnose
from lcg.metrics.temperature import Observed
from lcg.nets.classifier import LEVELS
from lcg.nets.heads import JointOutputs
from lcg.schema import Attribute, Schema

HAT, HAIR, AGE = Attribute("hat"), Attribute("hair", "categorical", ("a", "b", "c")), Attribute("age", "continuous")
SCHEMA = Schema((HAT, HAIR, AGE))
NAN = math.nan
BANDS = 5
ONE = torch.zeros(LEVELS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observed(n: int = 2_000, seed: int = 0, sureness: float = 1.0) -> Observed:
    """Labels drawn from the heads' probabilities, which are then exaggerated."""
    g = generator(seed)
    hat, hair, mean = 2 * torch.randn(n, generator=g), 2 * torch.randn(n, 3, generator=g), torch.randn(n, generator=g)
    labels = torch.stack(
        (
            (torch.rand(n, generator=g) < hat.sigmoid()).float(),
            torch.multinomial(hair.softmax(-1), 1, generator=g)[:, 0].float(),
            mean + 0.5 * torch.randn(n, generator=g),
        ),
        dim=1,
    )
    age = torch.stack((mean, torch.full((n,), 2 * math.log(0.5 / sureness))), dim=1)
    t = torch.rand(n, generator=g)
    return Observed(SCHEMA, {"hat": sureness * hat, "hair": sureness * hair, "age": age}, t, labels)


def of(diagnosis: Diagnosis, attribute: Attribute, band: int) -> Figures:
    return diagnosis.of(attribute)[band]


# --- AUROC ---


def pairs_in_order(score: Tensor, positive: Tensor) -> float:
    """The share of pairs of a positive and a negative that are in the right order; a tie is half a pair."""
    above = score[positive][:, None] - score[~positive][None, :]
    return float((above.sign() + 1).mean() / 2)


@pytest.mark.parametrize("seed", range(3))
def test_auroc_is_the_share_of_pairs_in_order(seed: int) -> None:
    g = generator(seed)
    score = torch.randn(60, generator=g).mul(2).round()  # with ties
    label = (torch.rand(60, generator=g) < (0.8 * score).sigmoid()).double()
    assert auroc(HAT, score, label) == pytest.approx(pairs_in_order(score, label == 1), abs=1e-6)


def test_auroc_of_a_categorical_attribute_is_the_mean_of_one_against_the_rest() -> None:
    g = generator()
    logits = 2 * torch.randn(90, 3, generator=g, dtype=torch.float64)
    label = torch.multinomial(logits.softmax(-1), 1, generator=g)[:, 0].double()
    each = [pairs_in_order(logits.softmax(-1)[:, c], label == c) for c in range(3)]
    assert auroc(HAIR, logits, label) == pytest.approx(sum(each) / 3, abs=1e-6)
    some = label != 1  # a value that does not occur is left out
    each = [pairs_in_order(logits.softmax(-1)[some, c], label[some] == c) for c in (0, 2)]
    assert auroc(HAIR, logits[some], label[some]) == pytest.approx(sum(each) / 2, abs=1e-6)


def test_auroc_tells_logits_apart_whose_probabilities_are_all_one() -> None:
    score = torch.tensor([100.0, 200, 300, 400])
    assert auroc(HAT, score, torch.tensor([0.0, 0, 1, 1])) == 1
    assert auroc(HAT, -score, torch.tensor([0.0, 0, 1, 1])) == 0
    assert auroc(HAT, 0 * score, torch.tensor([0.0, 0, 1, 1])) == 0.5


def test_auroc_of_labels_that_are_all_alike_means_nothing() -> None:
    assert math.isnan(auroc(HAT, torch.randn(5), torch.ones(5)))
    assert math.isnan(auroc(HAT, torch.randn(5), torch.zeros(5)))
    assert math.isnan(auroc(HAIR, torch.randn(5, 3), torch.full((5,), 2.0)))


# --- intervals ---


def test_the_mass_of_a_central_interval() -> None:
    output = torch.tensor([[1.0, math.log(4)]], dtype=torch.float64).expand(5, 2)
    label = torch.tensor([1.0, 1 + 2 * 1.959963984540054, 1 - 2 * 0.6744897501960817, 1e6, NAN], dtype=torch.float64)
    mass = central_mass(output, label)
    assert (mass[:4] - torch.tensor([0.0, 0.95, 0.5, 1.0], dtype=torch.float64)).abs().max() < 1e-12
    assert mass[4].isnan()


def test_honest_intervals_cover_what_they_say_and_narrow_ones_do_not() -> None:
    honest, narrow, wide = (of(diagnose(observed(20_000, sureness=s), ONE, 1), AGE, 0) for s in (1.0, 2.0, 0.5))
    assert honest.coverage_90 == pytest.approx(0.9, abs=0.01) and honest.coverage_50 == pytest.approx(0.5, abs=0.015)
    assert honest.ece_after < 3 * honest.ece_by_chance
    # Half as wide: P(|x| < q / 2) of a normal variable, where P(|x| < q) = .9 and .5.
    assert narrow.coverage_90 == pytest.approx(0.5891, abs=0.015) and narrow.coverage_50 == pytest.approx(
        0.264, abs=0.015
    )
    assert narrow.overconfidence > 0.15 and wide.overconfidence < -0.1
    assert narrow.ece_after == pytest.approx(narrow.overconfidence, abs=1e-9)  # narrow everywhere
    assert len(COVERAGES) == 9


# --- figures ---


def test_figures_are_their_definitions() -> None:
    data = observed()
    labels = data.labels
    labels[::7, 0], labels[::5, 1], labels[::3, 2] = NAN, NAN, NAN
    levels = torch.linspace(-0.5, 0.5, LEVELS)
    diagnosis = diagnose(data, levels, BANDS)
    heads = data.double().tempered(levels.double())
    band = 3
    inside = (data.t >= 0.6) & (data.t < 0.8)

    rows = inside & ~labels[:, 0].isnan()
    y, p = labels[rows, 0].double(), heads["hat"][rows].sigmoid()
    hat = of(diagnosis, HAT, band)
    assert (hat.n, hat.t_from, hat.t_to) == (int(rows.sum()), 0.6, 0.8)
    assert hat.accuracy == pytest.approx(float(((p > 0.5) == (y == 1)).double().mean()))
    assert hat.majority == pytest.approx(float(torch.maximum(y.mean(), 1 - y.mean())))
    assert hat.entropy == pytest.approx(float(-(y.mean() * y.mean().log() + (1 - y.mean()) * (1 - y.mean()).log())))
    assert hat.nll_after == pytest.approx(float(-(y * p.log() + (1 - y) * (1 - p).log()).mean()))
    q = data.outputs["hat"][rows].double().sigmoid()
    assert hat.nll_before == pytest.approx(float(-(y * q.log() + (1 - y) * (1 - q).log()).mean()))
    assert hat.auroc == pytest.approx(pairs_in_order(heads["hat"][rows], y == 1), abs=1e-6)
    assert hat.overconfidence == pytest.approx(float(torch.maximum(p, 1 - p).mean()) - hat.accuracy)
    assert hat.skill == pytest.approx(1 - hat.nll_after / hat.entropy)

    rows = inside & ~labels[:, 1].isnan()
    y, log_p = labels[rows, 1].long(), heads["hair"][rows].log_softmax(-1)
    hair = of(diagnosis, HAIR, band)
    assert hair.n == int(rows.sum())
    assert hair.accuracy == pytest.approx(float((log_p.argmax(-1) == y).double().mean()))
    assert hair.nll_after == pytest.approx(float(-log_p[torch.arange(len(y)), y].mean()))

    rows = inside & ~labels[:, 2].isnan()
    y, (mean, log_variance) = labels[rows, 2].double(), heads["age"][rows].unbind(-1)
    age = of(diagnosis, AGE, band)
    normal = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    assert age.nll_after == pytest.approx(float(-normal.log_prob(y).mean()))
    assert age.coverage_90 == pytest.approx(float(((normal.cdf(y) - 0.5).abs() <= 0.45).double().mean()))
    guess = torch.distributions.Normal(y.mean(), y.std(correction=0))
    assert age.entropy == pytest.approx(float(-guess.log_prob(y).mean()))
    assert age.skill == pytest.approx(1 - math.exp(2 * (age.nll_after - age.entropy)))
    assert math.isnan(age.accuracy) and math.isnan(age.auroc) and math.isnan(hat.coverage_90)


def test_calibration_error_is_small_for_honest_probabilities_and_falls_with_the_right_temperature() -> None:
    honest = diagnose(observed(20_000), ONE, 1)
    sure = diagnose(observed(20_000, sureness=3.0), torch.full((LEVELS,), math.log(3)), 1)
    for attribute in SCHEMA:
        row = of(honest, attribute, 0)
        assert row.ece_after == row.ece_before < 2 * row.ece_by_chance
        row = of(sure, attribute, 0)
        assert row.ece_before > 0.08 and row.ece_after < 0.02
        assert row.nll_after < row.nll_before
    assert float(honest.after.ece) < 0.01 and float(sure.before.ece) > 0.08 > 0.02 > float(sure.after.ece)


def test_who_knows_everything_and_who_knows_nothing() -> None:
    n = 400
    y = (torch.arange(n) % 4 == 0).float()[:, None]
    schema, t = Schema((HAT,)), (torch.arange(n) + 0.5) / n
    all_known = of(diagnose(Observed(schema, {"hat": 50 * (2 * y[:, 0] - 1)}, t, y), ONE, 1), HAT, 0)
    assert (all_known.accuracy, all_known.auroc) == (1, 1) and all_known.skill == pytest.approx(1)
    guess = {"hat": torch.full((n,), math.log(1 / 3))}  # the frequency of 1 is a quarter
    nothing = of(diagnose(Observed(schema, guess, t, y), ONE, 1), HAT, 0)
    assert (nothing.accuracy, nothing.auroc) == (0.75, 0.5)
    assert nothing.accuracy == nothing.majority and nothing.nll_after == pytest.approx(nothing.entropy)
    assert abs(nothing.skill) < 1e-6 and nothing.ece_after < 1e-6


def test_a_joint_classifier_is_measured_by_its_heads_of_single_attributes() -> None:
    data = observed(300)
    g = generator(3)
    mixture = {
        "hat": torch.randn(300, 4, generator=g),
        "hair": torch.randn(300, 4, 3, generator=g),
        "age": torch.randn(300, 4, 2, generator=g),
    }
    joint = JointOutputs(torch.randn(300, 4, generator=g).log_softmax(1), mixture, data.outputs)
    found = diagnose(Observed(SCHEMA, joint, data.t, data.labels), ONE, BANDS)
    plain = diagnose(data, ONE, BANDS)
    assert found.joint and not plain.joint
    assert found.to_csv() == plain.to_csv()
    assert found.readings.independent_after == pytest.approx(plain.readings.independent_after)
    assert found.readings.joint_after != pytest.approx(plain.readings.joint_after)


def test_bands_without_labels_say_nothing() -> None:
    data = observed(200)
    low = Observed(SCHEMA, data.outputs, data.t / 2, data.labels)
    diagnosis = diagnose(low, ONE, BANDS)
    empty = of(diagnosis, HAT, 4)
    assert empty.n == 0 and math.isnan(empty.accuracy) and math.isnan(empty.skill)
    assert diagnosis.after.count[4].sum() == 0 and diagnosis.after.ece[4].isnan()


def test_labels_that_are_all_alike_leave_nothing_to_know() -> None:
    n = 50
    labels = torch.tensor([[1.0, 2.0, 0.25]]).expand(n, 3)
    diagnosis = diagnose(Observed(SCHEMA, observed(n).outputs, observed(n).t, labels), ONE, 1)
    for attribute in SCHEMA:
        assert math.isnan(of(diagnosis, attribute, 0).skill)


def test_reliability_counts_every_known_label_once() -> None:
    data = observed(500)
    data.labels[:100, 1] = NAN
    diagnosis = diagnose(data, ONE, BANDS)
    assert diagnosis.before.count.sum() == 900  # of hat and hair
    right = sum(row.n * row.accuracy for row in diagnosis.table if row.kind != "continuous")
    assert float(diagnosis.after.correct.sum()) == pytest.approx(right)


def test_curves_are_finer_and_both_are_in_order() -> None:
    diagnosis = diagnose(observed(500), ONE, BANDS)
    assert [row.t_from for row in diagnosis.of(HAIR)] == [0, 0.2, 0.4, 0.6, 0.8]
    finer = diagnosis.of(HAIR, finer=True)
    assert len(finer) == FINER * BANDS and sum(row.n for row in finer) == 500


def test_csv_holds_the_table_with_blanks_for_what_means_nothing() -> None:
    diagnosis = diagnose(observed(500), ONE, BANDS)
    rows = list(csv.DictReader(io.StringIO(diagnosis.to_csv())))
    assert len(rows) == 3 * BANDS and [row["attribute"] for row in rows[:6]] == ["hat"] * 5 + ["hair"]
    row = rows[2]
    figures = of(diagnosis, HAT, 2)
    assert (row["kind"], row["t_from"], row["t_to"], row["n"]) == ("binary", "0.4", "0.6", str(figures.n))
    assert float(row["nll_after"]) == pytest.approx(figures.nll_after, rel=1e-5)
    assert row["coverage_90"] == "" and rows[-1]["accuracy"] == "" and rows[-1]["coverage_90"] != ""
