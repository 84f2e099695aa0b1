"""Classifiers whose probabilities are known, so that their calibration error is; and the temperature that mends it."""

import math

import pytest
import torch
from torch import Tensor

from lcg.benchmarks.calibrated import calibration_figures, marginals
from lcg.benchmarks.figures import Figure
from lcg.diffusion.schedule import CosineSchedule
from lcg.guidance import CompiledFormula, parse
from lcg.metrics.calibration import BandedCalibration
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import JointOutputs, tempered
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("hat"), Attribute("age", "continuous"), Attribute("hair", "categorical", ("a", "b", "c"))))
SCHEDULE = CosineSchedule()


class Constant(TimeConditionedClassifier):
    """Says the same of every latent: hat with a logit, hair with logits."""

    def __init__(self, hat: float, hair: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        super().__init__((2,), SCHEMA, width=8, depth=1)
        self.net.output.bias.data[0] = hat  # the weights of its last layer are 0
        self.net.output.bias.data[3:] = torch.tensor(hair)
        self.eval()


class Posterior(TimeConditionedClassifier):
    """The exact one of z_0 ~ N(0, I) and P(hat | z_0) known to be that of the sign of z_0[0]: Phi at every t."""

    def __init__(self, sharpness: float = 1.0) -> None:
        super().__init__((2,), Schema((Attribute("hat"),)), width=8, depth=1)
        self.sharpness = sharpness

    def forward(self, z_t: Tensor, t: Tensor) -> dict[str, Tensor]:
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        x = alpha * z_t[:, 0].double() / sigma  # z_0 | z_t ~ N(alpha z_t, sigma^2)
        logit = torch.special.log_ndtr(x) - torch.special.log_ndtr(-x)
        return tempered(self.schema, {"hat": self.sharpness * logit}, self.log_temperature[:1].double().expand(len(t)))


def measured(*args, **options) -> dict[str, Figure]:
    return {figure.metric: figure for figure in calibration_figures(*args, **options)}


def table(hats: int, hairs: list[int], n: int = 100) -> tuple[Tensor, Tensor]:
    """Any latents, and labels with so many hats and hair values."""
    hat = (torch.arange(n) < hats).float()
    hair = torch.repeat_interleave(torch.arange(3.0), torch.tensor(hairs))
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0)), torch.stack((hat, hat * torch.nan, hair), 1)


def posterior_world(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    z_0 = torch.randn(n, 2, generator=torch.Generator().manual_seed(1000 + seed))  # not the noise's
    return z_0, (z_0[:, :1] > 0).float()


def test_a_constant_classifier_is_wrong_by_what_it_says_less_what_is() -> None:
    """It says hat with .9, and 70 of 100 have one; hair b with 2/3, and 20 of 100 have it."""
    z_0, labels = table(70, [50, 20, 30])
    classifier = Constant(math.log(9), (0.0, math.log(4), 0.0))
    found = measured(classifier, SCHEDULE, z_0, labels, bands=(0.25,))
    assert found["ece/hat/t=0.25"].value == pytest.approx(0.2, abs=1e-6)
    assert found["ece/hat/t=0.25"].stderr == pytest.approx(math.sqrt(0.7 * 0.3 / 99), rel=1e-6)
    assert found["ece/hair/t=0.25"].value == pytest.approx(2 / 3 - 0.2, abs=1e-6)
    assert found["accuracy/hat/t=0.25"].value == 0.7 and found["accuracy/hair/t=0.25"].value == 0.2
    assert found["nll/hat/t=0.25"].value == pytest.approx(-0.7 * math.log(0.9) - 0.3 * math.log(0.1), abs=1e-6)
    assert found["nll/hair/t=0.25"].value == pytest.approx(-0.2 * math.log(4 / 6) - 0.8 * math.log(1 / 6), abs=1e-6)
    assert found["ece_chance/hat/t=0.25"].value == pytest.approx(math.sqrt(2 / math.pi * 0.9 * 0.1 / 100), abs=1e-6)
    bins = {name: (f.value, f.n) for name, f in found.items() if "in_bin" in name}
    assert bins == {  # of 15: .9 is in the one from 13/15, 2/3 from 10/15 up to rounding
        "accuracy_in_bin/t=0.25/13": (0.7, 100),
        "confidence_in_bin/t=0.25/13": (pytest.approx(0.9, abs=1e-6), 100),
        f"accuracy_in_bin/t=0.25/{bin_of_two_thirds(found)}": (0.2, 100),
        f"confidence_in_bin/t=0.25/{bin_of_two_thirds(found)}": (pytest.approx(2 / 3, abs=1e-6), 100),
    }
    assert not any("age" in name for name in found)


def bin_of_two_thirds(found: dict[str, Figure]) -> int:
    return 10 if "accuracy_in_bin/t=0.25/10" in found else 9


def test_temperature_is_part_of_what_is_measured() -> None:
    """Odds of 81 at T = 2 are odds of 9."""
    z_0, labels = table(70, [50, 20, 30])
    classifier = Constant(math.log(81))
    classifier.log_temperature.fill_(math.log(2))
    found = measured(classifier, SCHEDULE, z_0, labels, bands=(0.25,))
    assert found["ece/hat/t=0.25"].value == pytest.approx(0.2, abs=1e-6)
    classifier.log_temperature[3:] = math.log(math.log(81) / math.log(7 / 3))
    late = measured(classifier, SCHEDULE, z_0, labels, bands=(0.25, 0.75))
    assert late["ece/hat/t=0.25"].value == pytest.approx(0.2, abs=1e-6)
    assert late["ece/hat/t=0.75"].value == pytest.approx(0, abs=1e-6)  # .7, which is so


def test_the_exact_noisy_posterior_is_calibrated_at_every_level_and_exaggeration_is_not() -> None:
    z_0, labels = posterior_world(20_000)
    honest = measured(Posterior(), SCHEDULE, z_0, labels)
    bold = measured(Posterior(3.0), SCHEDULE, z_0, labels)
    for t in (0.25, 0.5, 0.75):
        error, chance = honest[f"ece/hat/t={t}"], honest[f"ece_chance/hat/t={t}"]
        assert error.value < 3 * chance.value
        assert bold[f"ece/hat/t={t}"].value > error.value + 5 * bold[f"ece/hat/t={t}"].stderr
        assert bold[f"nll/hat/t={t}"].value > honest[f"nll/hat/t={t}"].value
        assert bold[f"accuracy/hat/t={t}"] == honest[f"accuracy/hat/t={t}"]
    accuracy = [honest[f"accuracy/hat/t={t}"].value for t in (0.05, 0.25, 0.5, 0.75, 0.95)]
    # The sign of two standard normals with correlation alpha agrees with probability 1/2 + asin(alpha) / pi = 1 - t/2.
    assert accuracy == pytest.approx([1 - t / 2 for t in (0.05, 0.25, 0.5, 0.75, 0.95)], abs=0.012)


def test_the_standard_error_is_the_spread_over_data_sets() -> None:
    errors, stated = [], []
    for seed in range(120):
        z_0, labels = posterior_world(500, seed)
        found = measured(Posterior(4.0), SCHEDULE, z_0, labels, bands=(0.6,), seed=seed)["ece/hat/t=0.6"]
        errors.append(found.value)
        stated.append(found.stderr)
    assert torch.tensor(stated).mean() == pytest.approx(float(torch.tensor(errors).std()), rel=0.2)


def test_the_bins_of_all_attributes_make_up_the_whole() -> None:
    z_0, labels = table(40, [50, 20, 30])
    found = measured(Constant(1.0, (0.2, 0.5, 0.1)), SCHEDULE, z_0, labels, bands=(0.5,))
    bins = [f for name, f in found.items() if name.startswith("accuracy_in_bin/")]
    assert sum(f.n for f in bins) == 200
    right = sum(found[f"accuracy/{name}/t=0.5"].value * 100 for name in ("hat", "hair"))
    assert sum(f.value * f.n for f in bins) == pytest.approx(right)


def test_it_agrees_with_what_validation_reports() -> None:
    z_0, labels = posterior_world(3000)
    found = measured(Posterior(2.0), SCHEDULE, z_0, labels, bands=(0.4,), seed=5)
    eps = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(5))
    t = torch.full((3000,), 0.4)
    z_t = (SCHEDULE.alpha(t)[:, None] * z_0 + SCHEDULE.sigma(t)[:, None] * eps).float()
    metric = BandedCalibration(Posterior().schema, 1)
    metric.update(Posterior(2.0)(z_t, t), labels, 0)
    for name, value in metric.compute().items():
        assert found[f"{name}/hat/t=0.4"].value == pytest.approx(float(value), abs=1e-4)


def test_a_joint_head_has_two_readings() -> None:
    """The marginals of its mixture are what a formula of one attribute is read from."""
    g = torch.Generator().manual_seed(0)
    heads = {"hat": torch.randn(5, 4, generator=g), "age": torch.randn(5, 4, 2, generator=g)}
    heads["hair"] = torch.randn(5, 4, 3, generator=g)
    outputs = JointOutputs(torch.randn(5, 4, generator=g).log_softmax(1), heads, {})
    found = marginals(SCHEMA, outputs)
    assert found["hat"].sigmoid().log() == pytest.approx(CompiledFormula(parse("hat", SCHEMA))(outputs), abs=1e-5)
    for value, log_p in zip("abc", found["hair"].log_softmax(-1).T, strict=True):
        exact = CompiledFormula(parse(f"hair={value}", SCHEMA))(outputs)
        torch.testing.assert_close(log_p, exact, rtol=0, atol=1e-5)
    assert set(found) == {"hat", "hair"}

    z_0, labels = table(70, [50, 20, 30])
    classifier = TimeConditionedClassifier((2,), SCHEMA, width=8, depth=1, components=3).eval()
    joint = measured(classifier, SCHEDULE, z_0, labels, bands=(0.5,), dependence="joint")
    alone = measured(classifier, SCHEDULE, z_0, labels, bands=(0.5,))
    assert alone["nll/hat/t=0.5"].value == pytest.approx(math.log(2))  # an untrained head's logit is 0
    with torch.no_grad():
        log_p = CompiledFormula(parse("hat", SCHEMA))(classifier(z_0[:1], torch.tensor([0.5])))
    p = float(log_p.exp())
    exact = -0.7 * math.log(p) - 0.3 * math.log(1 - p)
    assert joint["nll/hat/t=0.5"].value == pytest.approx(exact, abs=1e-5) and abs(exact - math.log(2)) > 1e-4


def test_unknown_labels_are_left_out_and_the_seed_fixes_the_noise() -> None:
    z_0, labels = table(70, [50, 20, 30])
    labels[:30, 2] = torch.nan
    found = measured(Constant(1.0), SCHEDULE, z_0, labels, bands=(0.5,))
    assert found["nll/hat/t=0.5"].n == 100 and found["nll/hair/t=0.5"].n == 70
    labels[:, 2] = torch.nan
    assert not any("hair" in name for name in measured(Constant(1.0), SCHEDULE, z_0, labels, bands=(0.5,)))
    z_0, labels = posterior_world(200)
    first, again, other = (measured(Posterior(), SCHEDULE, z_0, labels, seed=seed) for seed in (1, 1, 2))
    assert repr(first) == repr(again) != repr(other)


def test_labels_and_times_that_do_not_fit_are_refused() -> None:
    z_0, labels = table(70, [50, 20, 30])
    with pytest.raises(
        ValueError, match=r"`labels` must be \(100, 3\), a row per latent .* got \(100, 2\); take those"
    ):
        measured(Constant(1.0), SCHEDULE, z_0, labels[:, :2])
    for bands in ((), (0.0, 0.5), (1.5,)):
        with pytest.raises(
            ValueError, match=r"`bands` must be times t in \(0, 1\], at least one, got .*; at 0 there is"
        ):
            measured(Constant(1.0), SCHEDULE, z_0, labels, bands=bands)
    with pytest.raises(ValueError, match=r"the classifier was trained on latents of shape \(2,\), got \(3,\)"):
        measured(Constant(1.0), SCHEDULE, torch.zeros(100, 3), labels)
