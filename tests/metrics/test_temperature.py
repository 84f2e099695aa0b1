"""The temperature that labels were drawn with is found again, and no fit makes validation labels less likely."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lcg.metrics.temperature import (
    Observed,
    compare_readings,
    fit_log_temperature,
)
from lcg.nets.classifier import LEVELS, TimeConditionedClassifier
from lcg.nets.cumulative import cumulative
from lcg.nets.heads import (
    HeadOutputs,
    JointOutputs,
    Outputs,
    between_levels,
    independent,
    joint_log_likelihood,
    mean_negative_log_likelihood,
    tempered,
    tensors,
)
from lcg.nets.label_noise import LabelNoise
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("hat"), Attribute("hair", "categorical", ("a", "b", "c")), Attribute("age", "continuous")))
DISCRETE = Schema(SCHEMA.attributes[:2])
NAN = math.nan


def normal(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def times(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def alone(n: int, seed: int = 0) -> HeadOutputs:
    return {
        "hat": normal(n, seed=seed, scale=2),
        "hair": normal(n, 3, seed=seed + 1, scale=2),
        "age": torch.stack((normal(n, seed=seed + 2), normal(n, seed=seed + 3, scale=0.5)), dim=-1),
    }


def drawn_alone(heads: HeadOutputs, seed: int = 10) -> Tensor:
    """Labels of independent attributes, drawn from these heads' own probabilities."""
    n = len(heads["hat"])
    hat = (uniform(n, seed=seed) < heads["hat"].sigmoid()).double()
    hair = (uniform(n, 1, seed=seed + 1) > heads["hair"].softmax(-1).cumsum(-1)[:, :2]).sum(-1).double()
    mean, log_variance = heads["age"].unbind(-1)
    return torch.stack((hat, hair, mean + torch.exp(0.5 * log_variance) * normal(n, seed=seed + 2)), dim=1)


def joint(n: int, components: int = 4, seed: int = 0) -> JointOutputs:
    """A mixture over hat and hair, and heads of single attributes that are its exact marginals."""
    log_weights = normal(n, components, seed=seed).log_softmax(1)
    heads = {
        "hat": normal(n, components, seed=seed + 1, scale=3),
        "hair": normal(n, components, 3, seed=seed + 2, scale=3),
    }
    yes, no = ((log_weights + functional.logsigmoid(sign * heads["hat"])).logsumexp(1) for sign in (1, -1))
    hair = (log_weights[..., None] + heads["hair"].log_softmax(-1)).logsumexp(1)
    return JointOutputs(log_weights, heads, {"hat": yes - no, "hair": hair})


def drawn_jointly(outputs: JointOutputs, seed: int = 10) -> Tensor:
    n = len(outputs.log_weights)
    k = (uniform(n, 1, seed=seed) > outputs.log_weights.exp().cumsum(1)[:, :-1]).sum(1)
    rows = torch.arange(n)
    hat = (uniform(n, seed=seed + 1) < outputs.heads["hat"][rows, k].sigmoid()).double()
    hair = (uniform(n, 1, seed=seed + 2) > outputs.heads["hair"][rows, k].softmax(-1).cumsum(-1)[:, :2]).sum(-1)
    return torch.stack((hat, hair.double()), dim=1)


def at(schema: Schema, outputs: Outputs, t: Tensor, levels: Tensor) -> Outputs:
    """What a network says that is this much too sure: its raw outputs are T times what they should be."""
    return tempered(schema, outputs, -between_levels(levels, t))


# --- what a temperature does ---


@pytest.mark.parametrize("components", [1, 3])
def test_outputs_are_tempered_as_the_classifier_does(components: int) -> None:
    torch.manual_seed(0)
    network = TimeConditionedClassifier((4,), SCHEMA, width=8, depth=1, components=components).double().eval()
    torch.nn.init.normal_(network.net.output.weight)
    z_t, t = normal(30, 4, seed=1), torch.linspace(0, 1, 30, dtype=torch.float64)
    levels = normal(LEVELS, seed=2)
    raw = network(z_t, t)
    network.log_temperature.copy_(levels)
    for (name, wanted), (_, found) in zip(
        tensors(network(z_t, t)), tensors(Observed(SCHEMA, raw, t, torch.zeros(30, 3)).tempered(levels)), strict=True
    ):
        assert (found - wanted).abs().max() < 1e-12, name


def test_temperature_one_changes_nothing_and_rows_are_independent() -> None:
    outputs, log_T = joint(20), normal(20, seed=5)
    for (_, before), (_, after) in zip(tensors(outputs), tensors(tempered(DISCRETE, outputs, 0 * log_T)), strict=True):
        assert (before - after).abs().max() < 1e-12
    observed = Observed(DISCRETE, outputs, times(20), torch.zeros(20, 2))
    whole = tempered(DISCRETE, outputs, log_T)
    one = tempered(DISCRETE, observed[7:8].outputs, log_T[7:8])
    for (_, many), (_, single) in zip(tensors(whole), tensors(one), strict=True):
        assert (many[7:8] - single).abs().max() < 1e-14


def test_levels_are_met_and_joined_by_lines() -> None:
    levels = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    t = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0], dtype=torch.float64)
    expected = torch.tensor([1.0, -0.5, -2.0, 0.0, 0.5], dtype=torch.float64)
    assert (between_levels(levels, t) - expected).abs().max() < 1e-14


# --- the fit ---


@pytest.mark.parametrize("levels", [[3.0] * LEVELS, [0.5, 0.7, 1.0, 1.4, 2.0, 2.8]])
def test_a_known_temperature_is_found(levels: list[float]) -> None:
    n, log_T = 12_000, torch.tensor(levels, dtype=torch.float64).log()
    heads = alone(n)
    observed = Observed(SCHEMA, at(SCHEMA, heads, times(n), log_T), times(n), drawn_alone(heads))
    assert (fit_log_temperature(observed) - log_T).abs().max() < 0.06


def test_every_kind_of_attribute_tells_its_temperature() -> None:
    n, log_T = 40_000, torch.full((LEVELS,), math.log(3), dtype=torch.float64)
    heads = alone(n)
    raw, labels = at(SCHEMA, heads, times(n), log_T), drawn_alone(heads)
    for j, attribute in enumerate(SCHEMA):
        only = Schema((attribute,))
        observed = Observed(only, {attribute.name: raw[attribute.name]}, times(n), labels[:, j : j + 1])
        assert (fit_log_temperature(observed) - log_T).abs().max() < 0.1, attribute.name


def test_log_variance_that_is_off_by_a_constant_is_put_right() -> None:
    n, schema = 10_000, Schema((Attribute("age", "continuous"),))
    age = torch.stack((normal(n, seed=0), normal(n, seed=1)), dim=-1)
    labels = age[:, :1] + torch.exp(0.5 * age[:, 1:]) * normal(n, 1, seed=2)
    raw = {"age": age - torch.tensor([0.0, math.log(4)], dtype=torch.float64)}
    assert (fit_log_temperature(Observed(schema, raw, times(n), labels)).exp() - 2).abs().max() < 0.1


def test_a_known_temperature_of_a_joint_head_is_found() -> None:
    n, log_T = 12_000, torch.tensor([3.0, 2.0, 1.5, 1.0, 0.8, 0.6], dtype=torch.float64).log()
    # The single heads are the mixture's marginals at T = 1, so that one temperature is right for both.
    outputs = joint(n)
    observed = Observed(DISCRETE, at(DISCRETE, outputs, times(n), log_T), times(n), drawn_jointly(outputs))
    assert (fit_log_temperature(observed) - log_T).abs().max() < 0.1


def test_what_is_calibrated_is_left_alone() -> None:
    heads, outputs = alone(12_000), joint(12_000)
    assert fit_log_temperature(Observed(SCHEMA, heads, times(12_000), drawn_alone(heads))).abs().max() < 0.04
    labels = drawn_jointly(outputs)
    assert fit_log_temperature(Observed(DISCRETE, outputs, times(12_000), labels)).abs().max() < 0.07


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["alone", "joint"])
def test_labels_are_never_less_likely_after_a_fit(seed: int, kind: str) -> None:
    """Few labels that have nothing to do with the outputs: whatever is found, it was no loss."""
    n = 60
    schema, outputs = (SCHEMA, alone(n, seed)) if kind == "alone" else (DISCRETE, joint(n, seed=seed))
    labels = drawn_alone(alone(n, seed + 50))[:, : len(schema)]
    observed = Observed(schema, outputs, times(n), labels)
    found = fit_log_temperature(observed)
    before, after = (
        mean_negative_log_likelihood(schema, observed.tempered(x), labels) for x in (torch.zeros_like(found), found)
    )
    assert after < before and found.abs().max() > 0.05


def test_a_classifier_without_mistakes_does_not_become_infinitely_sure() -> None:
    """Its likelihood has no maximum: it grows as T -> 0."""
    n, schema = 5_000, Schema((Attribute("hat"),))
    logits = normal(n, seed=0).sign() * (6 + uniform(n, seed=1))
    found = fit_log_temperature(Observed(schema, {"hat": logits}, times(n), (logits > 0).double()[:, None]))
    assert ((found < 0) & (found > math.log(0.3))).all()


def test_missing_labels_say_nothing() -> None:
    n = 3_000
    heads = alone(n)
    labels = drawn_alone(heads)
    labels[::3, 0], labels[1::3, 1], labels[::2, 2] = NAN, NAN, NAN
    raw = at(SCHEMA, heads, times(n), torch.full((LEVELS,), 0.7, dtype=torch.float64))
    found = fit_log_temperature(Observed(SCHEMA, raw, times(n), labels))
    other = dict(raw)
    other["age"] = torch.where(labels[:, 2:].isnan(), 1e3, raw["age"])  # whatever the heads say of them
    assert (fit_log_temperature(Observed(SCHEMA, other, times(n), labels)) - found).abs().max() < 1e-9
    assert (found - 0.7).abs().max() < 0.2
    assert fit_log_temperature(Observed(SCHEMA, raw, times(n), torch.full_like(labels, NAN))).abs().max() == 0


def test_outputs_that_are_no_numbers_get_no_temperature() -> None:
    heads = alone(50)
    heads["hat"][3] = NAN
    assert fit_log_temperature(Observed(SCHEMA, heads, times(50), drawn_alone(alone(50)))).abs().max() == 0


# --- the readings ---


def test_readings_are_the_mean_likelihoods_of_their_bands() -> None:
    n, bands = 1_000, 4
    outputs = joint(n)
    labels = drawn_jointly(outputs)
    labels[::5, 1] = NAN
    levels = normal(LEVELS, seed=3, scale=0.3)
    observed = Observed(DISCRETE, outputs, times(n), labels)
    readings = compare_readings(observed, levels, bands)
    after = observed.tempered(levels)
    for b in range(bands):
        rows = slice(b * n // bands, (b + 1) * n // bands)
        count = int((~labels[rows].isnan()).sum())
        assert readings.count[b] == count
        for name, reading in (
            ("joint_before", outputs),
            ("independent_before", independent(outputs)),
            ("joint_after", after),
            ("independent_after", independent(after)),
        ):
            expected = -joint_log_likelihood(DISCRETE, reading, labels)[rows].sum() / count
            assert getattr(readings, name)[b] == pytest.approx(float(expected), rel=1e-12), name


def test_dependence_is_what_the_labels_are_likelier_under() -> None:
    n, levels = 6_000, torch.zeros(LEVELS)
    outputs = joint(n)
    jointly = compare_readings(Observed(DISCRETE, outputs, times(n), drawn_jointly(outputs)), levels, 5)
    assert (
        jointly.dependence == "joint"
        and min(i - j for i, j in zip(jointly.independent_after, jointly.joint_after, strict=True)) > 0.01
    )
    labels = drawn_alone({**independent(outputs), "age": torch.zeros(n, 2)})[:, :2]
    apart = compare_readings(Observed(DISCRETE, outputs, times(n), labels), levels, 5)
    assert apart.dependence == "independent"
    plain = compare_readings(Observed(DISCRETE, independent(outputs), times(n), labels), levels, 5)
    assert plain.dependence == "independent" and plain.joint_after == plain.independent_after


def test_the_record_of_readings_is_json() -> None:
    n = 40
    observed = Observed(DISCRETE, joint(n), times(n) / 2, drawn_jointly(joint(n)))  # nothing above t = .5
    record = compare_readings(observed, torch.zeros(LEVELS), 2).to_dict()
    assert record["labels"] == [80, 0] and math.isnan(record["joint"]["after"][1])
    again = json.loads(json.dumps(record))
    assert again["dependence"] == record["dependence"] and again["independent"]["before"][0] > 0


def test_a_temperature_is_fitted_on_what_is_to_be_expected_of_wrong_labels() -> None:
    """A perfect classifier needs none; against labels of which a fifth is wrong it would be taken for overconfident."""
    n, schema = 12_000, Schema((Attribute("hat"),))
    g = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, generator=g, dtype=torch.float64)
    labels = torch.rand(n, generator=g, dtype=torch.float64) < logits.sigmoid()
    wrong = labels != (torch.rand(n, generator=g) < 0.2)
    observed = Observed(schema, {"hat": logits}, times(n), wrong.double()[:, None])
    noise = LabelNoise(schema, {"hat": 0.2})
    assert fit_log_temperature(observed).min() > 0.8
    aware = replace(observed, noise=noise)
    assert fit_log_temperature(aware).mean().abs() < 0.15
    assert aware[:5].noise is noise and aware.double().noise is noise
    before = compare_readings(aware, torch.zeros(6), 1).independent_before[0]
    exact = joint_log_likelihood(schema, noise({"hat": logits}), wrong.double()[:, None])
    assert before == pytest.approx(float(-exact.mean()), rel=1e-9)


def test_an_ordinal_attribute_s_temperature_is_that_of_its_scale() -> None:
    n, log_T = 12_000, 0.5
    schema = Schema((Attribute("age", "categorical", ("a", "b", "c", "d"), ordered=True),))
    g = torch.Generator().manual_seed(0)
    output = torch.randn(n, 2, generator=g, dtype=torch.float64) * torch.tensor([2.0, 0.3])
    log_p = cumulative(output, torch.tensor([-1.0, 0.0, 0.2], dtype=torch.float64))
    drawn = torch.multinomial(log_p.exp(), 1, generator=g).double()
    too_sure = cumulative(output - torch.tensor([0.0, log_T]), torch.tensor([-1.0, 0.0, 0.2], dtype=torch.float64))
    assert (fit_log_temperature(Observed(schema, {"age": too_sure}, times(n), drawn)) - log_T).abs().max() < 0.1
