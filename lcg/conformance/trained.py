"""Checks of a trained pair: what an exact prior and exact classifiers of noised latents satisfy, whatever the data.

    average      E_{q(z_t)}[p(y | z_t, t)] = P(y) at every t: noising cannot change what is true on average (p is a
                 martingale of the reverse process).
    path         the same along the prior's own path from noise, where the average stays what it becomes at the end.
    calibration  of the latents that are said to have y with probability p, a share p has it, at every t.
    regression   z_0_hat = E[z_0 | z_t], so that z_0 - z_0_hat is uncorrelated with z_0_hat, at every t.
    consistency  the prior's samples, noised again to t and denoised, are the prior's samples.
    ends         the prior's samples look like the store's latents, to the classifier and along random directions.

None of these proves a pair right, each proves some wrong. Bounds are what a well-fitted pair keeps; a failure comes
with advice. What speaks of data looks at validation latents only, and is left out without a store. Probabilities of
continuous attributes are their means, in standard deviations.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lcg.conformance.distances import sliced_wasserstein
from lcg.conformance.outcome import Check, Measurement
from lcg.conformance.pair import TIMES, Data, Pair
from lcg.guidance.formula import Has
from lcg.guidance.probability import log_probability
from lcg.metrics.calibration import BINS, bin_of, expected_by_chance, expected_calibration_error, top_label
from lcg.nets.heads import HeadOutputs
from lcg.schema import Attribute

AVERAGE, PATH, CALIBRATION, REGRESSION, CONSISTENCY, ENDS = 0.03, 0.05, 0.05, 0.08, 0.05, 0.05
"""What a well-fitted pair keeps, beside what chance adds."""

REFIT_CLASSIFIER = (
    "the classifier is biased at some noise level, and guidance by it too: fit it longer, with t drawn from all of "
    "[0, 1], and see that its temperature was fitted"
)
REFIT_JOINT = "the joint head mistakes how attributes depend on one another: give it more components, or fit it longer"
RECALIBRATE = "the classifier is too sure or too unsure there: fit its temperature, or fit with dropout or weight decay"
REFIT_PRIOR = (
    "the prior's z_0_hat is not the mean of z_0: fit it longer, and see that it was given this store's latents"
)
REFIT_BOTH = (
    "on the way from noise the prior's latents are not those that the classifier was fitted on; fit the prior longer, "
    "then see whether `average` holds"
)


def pair_checks(pair: Pair) -> Iterator[Check]:
    """All that can be checked of a pair, with or without data."""

    def check(group: str, method: str, task: str, measure: partial[list[Measurement]]) -> Check:
        return Check(group, "trained pair", method, task, measure)

    countable = pair.schema.of_kind("binary", "categorical")
    if (data := pair.data) is not None:
        for attribute in pair.schema:
            yield check("average", "classifier", attribute.name, partial(average, pair, data, attribute))
        for t in TIMES if pair.classifier.components > 1 else ():
            yield check("average", "joint head", f"pairs, t = {t:g}", partial(joint_average, pair, data, t))
        for t in TIMES if countable else ():
            yield check("calibration", "classifier", f"t = {t:g}", partial(calibration, pair, data, t))
        for t in TIMES:
            yield check("regression", "prior", f"t = {t:g}", partial(regression, pair, data, t))
    for attribute in pair.schema:
        if not attribute.applies_if:  # what is said only where it applies has another average at each t
            yield check("path", "both", attribute.name, partial(along_path, pair, attribute))
    for t in (0.3, 0.6):
        yield check("consistency", "prior", f"noised to t = {t:g}", partial(consistency, pair, t))
    if data is not None:
        yield check("ends", "prior", "latents", partial(ends, pair, data))
        for attribute in pair.schema:
            yield check("ends", "both", attribute.name, partial(marginal, pair, data, attribute))


def average(pair: Pair, data: Data, attribute: Attribute) -> list[Measurement]:
    """The largest error of E p(y | z_t, t), over all t and values."""
    y = data.labels[:, pair.schema.index(attribute.name)]
    known = ~y.isnan()
    if known.sum() < 2:
        return [Measurement("largest |E p - P|", 0.0, AVERAGE, n=int(known.sum()))]
    true = _observed(attribute, y[known])
    scale = true.std(0).clamp(min=1e-6) if attribute.kind == "continuous" else 1.0
    errors = [(_expected(attribute, pair.says_of_data(data, t))[known] - true) / scale for t in TIMES]
    stderr = max(float(e.std(0).max()) for e in errors) / math.sqrt(len(true))
    value = max(float(e.mean(0).abs().max()) for e in errors)
    return [Measurement("largest |E p - P|", value, AVERAGE + 3 * stderr, stderr, len(true), advice=REFIT_CLASSIFIER)]


def joint_average(pair: Pair, data: Data, t: float) -> list[Measurement]:
    """The largest error of E P(a & b | z_t), over all pairs of binary attributes whose labels are known together."""
    worst = Measurement("largest |E p - P|", 0.0, AVERAGE, advice=REFIT_JOINT)
    outputs = pair.says_jointly(data, t)
    columns = [(pair.schema.index(a.name), a) for a in pair.schema.of_kind("binary")]
    for (i, one), (j, other) in combinations(columns, 2):
        both = data.labels[:, i] * data.labels[:, j]  # of binary labels, NaN where one is missing
        known = ~both.isnan()
        if known.sum() < 2:
            continue
        p = log_probability(Has(one, i) & Has(other, j), outputs)[known].double().exp()
        error = p - both[known].double()
        value, stderr = abs(float(error.mean())), float(error.std()) / math.sqrt(len(error))
        if value - 3 * stderr > worst.value - 3 * (worst.floor or 0.0) or worst.floor is None:
            metric = f"largest |E p - P| ({one.name} & {other.name})"
            worst = Measurement(metric, value, AVERAGE + 3 * stderr, stderr, len(error), advice=REFIT_JOINT)
    return [worst]


def calibration(pair: Pair, data: Data, t: float) -> list[Measurement]:
    """The expected calibration error of the worst attribute at this t."""
    worst = Measurement("largest ECE", 0.0, CALIBRATION, advice=RECALIBRATE)
    outputs = pair.says_of_data(data, t)
    for attribute in pair.schema.of_kind("binary", "categorical"):
        y = data.labels[:, pair.schema.index(attribute.name)]
        known = ~y.isnan()
        if not known.any():
            continue
        confidence, correct = top_label(attribute, outputs[attribute.name][known], y[known])
        sums = torch.zeros(3, BINS, dtype=torch.float64)
        columns = torch.stack((torch.ones_like(confidence), confidence, correct.to(confidence))).double()
        sums.index_add_(1, bin_of(confidence), columns)
        value, chance = float(expected_calibration_error(*sums)), float(expected_by_chance(sums[0], sums[1]))
        if value - 2 * chance > worst.value - 2 * (worst.floor or 0.0) or worst.floor is None:
            metric, n = f"largest ECE ({attribute.name})", int(known.sum())
            worst = Measurement(metric, value, CALIBRATION + 2 * chance, chance, n, advice=RECALIBRATE)
    return [worst]


def regression(pair: Pair, data: Data, t: float) -> list[Measurement]:
    """`|E <z_0 - z_0_hat, z_0_hat - m>|` as a share of E|z_0 - m|^2, with m the means."""
    z_0_hat, z_0 = pair.predicted(pair.noised(data.z_0, t), t).flatten(1).double(), data.z_0.flatten(1).double()
    products = ((z_0 - z_0_hat) * (z_0_hat - z_0_hat.mean(0))).sum(1)
    scale = float((z_0 - z_0.mean(0)).square().sum(1).mean())
    value, stderr = abs(float(products.mean())) / scale, float(products.std()) / scale / math.sqrt(len(products))
    advice = REFIT_PRIOR
    return [Measurement("|residual . z_0_hat|", value, REGRESSION + 3 * stderr, stderr, len(products), advice=advice)]


def along_path(pair: Pair, attribute: Attribute) -> list[Measurement]:
    """How far E p(y | z_t, t) is, on the way, from what it is at the end."""
    said = [_expected(attribute, outputs) for outputs in pair.said_along_path]
    scale = said[-1].std(0).clamp(min=1e-6) if attribute.kind == "continuous" else 1.0
    stderr = float((said[-1] / scale).std(0).max()) / math.sqrt(pair.count)
    value = max(float(((p.mean(0) - said[-1].mean(0)) / scale).abs().max()) for p in said)
    return [Measurement("largest drift of E p", value, PATH + 3 * stderr, stderr, pair.count, advice=REFIT_BOTH)]


def consistency(pair: Pair, t: float) -> list[Measurement]:
    """Sliced Wasserstein distance of samples to other samples, noised to t and denoised."""
    half = pair.count // 2
    one, other = pair.samples[:half].flatten(1).double(), pair.samples[half : 2 * half]
    floor = sliced_wasserstein(other.flatten(1).double(), one)
    value = sliced_wasserstein(pair.sample(pair.noised(other, t), t).flatten(1).double(), one)
    return [Measurement("sliced Wasserstein", value, CONSISTENCY + 1.5 * floor, floor, half, advice=REFIT_PRIOR)]


def ends(pair: Pair, data: Data) -> list[Measurement]:
    """Sliced Wasserstein distance of samples to validation latents."""
    reference = data.z_0.flatten(1).double()
    n = min(len(reference) // 2, pair.count)
    floor = sliced_wasserstein(reference[:n], reference[n : 2 * n])
    value = sliced_wasserstein(pair.samples[:n].flatten(1).double(), reference[n : 2 * n])
    return [Measurement("sliced Wasserstein", value, ENDS + 1.5 * floor, floor, n, advice=REFIT_PRIOR)]


def marginal(pair: Pair, data: Data, attribute: Attribute) -> list[Measurement]:
    """How much more or less frequent an attribute is among samples than in data, by the classifier's word on both."""
    sampled = _expected(attribute, pair.said_along_path[-1])
    real = _expected(attribute, pair.says_of_data(data, pair.path[-1][0]))
    scale = real.std(0).clamp(min=1e-6) if attribute.kind == "continuous" else 1.0
    sampled, real = sampled / scale, real / scale
    stderr = math.sqrt(float((sampled.var(0) / len(sampled) + real.var(0) / len(real)).max()))
    value = float((sampled.mean(0) - real.mean(0)).abs().max())
    return [Measurement("largest |E p - E p|", value, ENDS + 3 * stderr, stderr, len(sampled), advice=REFIT_PRIOR)]


def _expected(attribute: Attribute, outputs: HeadOutputs) -> Tensor:
    """What the outputs expect, float64: probabilities (N, C), of a binary attribute (N, 1), or the mean (N, 1)."""
    output = outputs[attribute.name].double()
    if attribute.kind == "categorical":
        return output.softmax(1)
    return output.sigmoid()[:, None] if attribute.kind == "binary" else output[:, :1]


def _observed(attribute: Attribute, y: Tensor) -> Tensor:
    """The labels in the same form."""
    if attribute.kind == "categorical":
        return one_hot(y.long(), len(attribute.values)).double()
    return y[:, None].double()
