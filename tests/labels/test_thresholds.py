"""Thresholds chosen on data, against closed forms."""

import numpy as np
import pytest

from lcg.labels.bimodal import fit_mixture, otsu
from lcg.labels.calibrating import platt
from lcg.labels.cutting import best_cut, figure
from lcg.labels.rules import Threshold
from lcg.labels.thresholds import Fixed, Labelled, Method, Mixture, Otsu, Platt, Quantile, Temperature

NONE = np.full(4, np.nan)


def quantiles(mean: float, deviation: float, count: int) -> np.ndarray:
    """A sample of a normal distribution without chance: its quantiles."""
    from scipy.stats import norm

    return norm.ppf((np.arange(count) + 0.5) / count, mean, deviation)


def chosen(method: Method, scores, labels=None, rule: Threshold | None = None):
    labels = np.full(len(scores), np.nan) if labels is None else labels
    return method.apply(rule or Threshold(0.0), np.asarray(scores, float), np.asarray(labels, float))


# --- without labels ---


def test_otsu_on_two_points_is_the_middle_and_explains_everything() -> None:
    assert otsu(np.array([1.0, 1.0, 3.0])) == (2.0, pytest.approx(1.0))
    threshold, explained = otsu(np.array([0.0, 0.0, 0.0, 1.0, 9.0]))
    assert threshold == 5.0 and 0.9 < explained < 1


def test_otsu_is_the_best_of_all_places() -> None:
    s = np.sort(np.random.default_rng(0).gamma(2.0, size=60))

    def between(c: float) -> float:
        low, high = s[s <= c], s[s > c]
        return len(low) * len(high) * (high.mean() - low.mean()) ** 2 / len(s) ** 2

    threshold, explained = otsu(s)
    assert between(threshold) == pytest.approx(max(map(between, s[:-1])))
    assert explained == pytest.approx(between(threshold) / s.var())


@pytest.mark.parametrize(("share", "expected"), [(0.5, 0.0), (0.2, np.log(4) / 4)])
def test_a_mixture_of_two_gaussians_has_the_threshold_of_bayes(share, expected) -> None:
    """w_0 N(-2, 1) = w_1 N(2, 1) at x = log(w_0 / w_1) / 4."""
    upper = int(20000 * share)
    s = np.concatenate([quantiles(-2.0, 1.0, 20000 - upper), quantiles(2.0, 1.0, upper)])
    fitted = fit_mixture(s)
    assert fitted.threshold == pytest.approx(expected, abs=0.01) and fitted.bimodal(s)
    assert fitted.weights == pytest.approx([1 - share, share], abs=0.01)


def test_unequal_widths_have_the_threshold_of_the_quadratic() -> None:
    s = np.concatenate([quantiles(0.0, 1.0, 8000), quantiles(6.0, 2.0, 8000)])
    a, b, c = 1 / 2 - 1 / 8, 12 / 8, -36 / 8 - np.log(2)  # x^2/2 - (x-6)^2/8 = log 2
    expected = (-b + np.sqrt(b * b - 4 * a * c)) / (2 * a)
    fitted = fit_mixture(s)
    assert fitted.threshold == pytest.approx(expected, abs=0.03) and fitted.bimodal(s)
    assert fitted.weights == pytest.approx([0.5, 0.5], abs=0.01) and fitted.means == pytest.approx([0, 6], abs=0.05)


@pytest.mark.parametrize(
    "scores",
    [quantiles(0.0, 1.0, 4000), np.linspace(0, 1, 4000), -np.log(1 - (np.arange(4000) + 0.5) / 4000)],
    ids=["normal", "uniform", "exponential"],
)
@pytest.mark.parametrize("method", [Otsu(), Mixture()])
def test_scores_of_one_group_are_told(scores, method) -> None:
    _, choice = chosen(method, scores)
    assert choice.told["bimodal"] is False
    assert choice.told["doubts"] == ["scores are not bimodal: nothing in them says where the threshold belongs"]


@pytest.mark.parametrize("method", [Otsu(), Mixture()])
def test_two_groups_part_in_the_middle_and_without_doubt(method) -> None:
    rule, choice = chosen(method, np.concatenate([quantiles(-3, 1, 2000), quantiles(3, 1, 2000)]))
    assert rule.threshold == pytest.approx(0.0, abs=0.05) and choice.doubts == ()
    assert choice.told["positive"] == pytest.approx(0.5, abs=0.01) and choice.told["images"] == 4000


@pytest.mark.parametrize("method", [Otsu(), Mixture()])
def test_probabilities_are_parted_in_logits(method) -> None:
    u = np.concatenate([quantiles(-4, 1, 2000), quantiles(1, 1, 2000)])
    rule, _ = chosen(method, 1 / (1 + np.exp(-u)), rule=Threshold(probability=True))
    assert np.log(rule.threshold / (1 - rule.threshold)) == pytest.approx(-1.5, abs=0.05)


def test_equal_scores_have_no_threshold() -> None:
    with pytest.raises(ValueError, match="`scores` must differ to be parted into two groups, got 4 equal ones"):
        otsu(np.ones(4))


def test_a_quantile_gives_the_share_that_is_asked_for() -> None:
    rule, choice = chosen(Quantile(0.25), np.arange(100))
    assert (np.arange(100) > rule.threshold).mean() == choice.told["positive"] == 0.25 and choice.doubts == ()
    _, choice = chosen(Quantile(0.25), np.ones(100))
    assert choice.doubts == ("many scores are equal: 0.0% are positive",)


def test_a_number_takes_the_place_of_a_calibration() -> None:
    rule, choice = chosen(Fixed(0.7), [0.1, 0.9, 0.8, 0.2], rule=Threshold(band=0.1, platt=[1.0, 2.0]))
    assert (rule.threshold, rule.platt, rule.band) == (0.7, None, 0.1)
    assert choice.told == {"method": "Fixed", "positive": 0.5, "images": 4}


# --- with labels ---


@pytest.mark.parametrize("aim", ["balanced_accuracy", "f1", "precision"])
def test_the_best_cut_is_the_best_of_all(aim) -> None:
    generator = np.random.default_rng(1)
    y = (generator.random(80) < 0.3).astype(float)
    s = np.round(y + generator.normal(0, 0.7, 80), 1)  # with equal scores
    cut = best_cut(s, y, aim, floor=0.8, draws=20)
    every = [np.nextafter(s.min(), -np.inf), *np.unique(s)]
    if aim == "precision":
        reached = [c for c in every if figure(s > c, y > 0.5, aim) >= 0.8]
        best = max((s > c)[y > 0.5].mean() for c in reached)
        assert figure(s > cut.threshold, y > 0.5, aim) >= 0.8 and cut.recall == best
    else:
        best = max(figure(s > c, y > 0.5, aim) for c in every)
        assert figure(s > cut.threshold, y > 0.5, aim) == pytest.approx(best)
    assert cut.figure_interval[0] <= cut.figure <= cut.figure_interval[1] and cut.interval[0] <= cut.interval[1]


def test_separable_labels_are_parted_in_the_middle_of_the_gap() -> None:
    cut = best_cut(np.array([0.0, 1.0, 3.0, 4.0] * 10), np.array([0.0, 0.0, 1.0, 1.0] * 10))
    assert cut.threshold == 2.0 and cut.interval == (2.0, 2.0) and cut.figure == cut.recall == 1.0


def test_the_figure_is_that_of_images_left_out() -> None:
    """Scores that know nothing: the best threshold on 20 images seems better than chance, and is not."""
    generator = np.random.default_rng(0)
    told, seeming = [], []
    for seed in range(20):
        s, y = generator.normal(size=20), np.tile([0.0, 1.0], 10)
        cut = best_cut(s, y, draws=50, seed=seed)
        told.append(cut.figure)
        seeming.append(figure(s > cut.threshold, y > 0.5, "balanced_accuracy"))
    assert np.mean(seeming) > 0.6 and abs(np.mean(told) - 0.5) < 0.05


def test_platt_finds_the_sigmoid_that_labels_were_drawn_from() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(0, 2, 40000)
    y = (generator.random(40000) < 1 / (1 + np.exp(1 - 1.5 * x))).astype(float)
    assert platt(x, y) == pytest.approx((1.5, -1.0), abs=0.05)
    slope, intercept = platt(x, (generator.random(40000) < 1 / (1 + np.exp(-x / 2))).astype(float), intercept=False)
    assert (slope, intercept) == (pytest.approx(0.5, abs=0.02), 0.0)


def test_platt_stays_finite_where_scores_part_labels() -> None:
    slope, intercept = platt(np.array([-1.0, -1.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert slope == pytest.approx(np.log(3), rel=1e-4) and intercept == pytest.approx(0, abs=1e-6)  # p = 3/4


def test_calibrated_rules_say_probabilities() -> None:
    s, y = np.tile([-1.0, 1.0], 40), np.tile([0.0, 1.0], 40)
    rule, choice = chosen(Platt(band=0.1), s, y)
    assert rule.probabilities(np.array([[1.0]], np.float32)) == pytest.approx(41 / 42, abs=1e-4)
    assert rule.band == 0.1 and choice.doubts == ()
    assert chosen(Temperature(), s, y)[0].platt[1] == 0.0
    _, choice = chosen(Platt(), s, 1 - y)
    assert choice.doubts[0].startswith("larger scores do not make the label more probable")
    assert chosen(Labelled(draws=5), s[:8], y[:8])[1].doubts == ("only 4 labelled images of the rarer kind",)


def test_unknown_labels_are_left_out() -> None:
    s, y = np.tile([0.0, 1.0, 5.0], 20), np.tile([0.0, 1.0, np.nan], 20)
    rule, choice = chosen(Labelled(draws=5), s, y)
    assert rule.threshold == 0.5 and choice.told["labelled"] == 40 and choice.told["balanced_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Quantile(1.0), r"`share` of positives must be in \(0, 1\), got 1.0"),
        (lambda: Labelled(floor=0), r"`floor` of the precision must be in \(0, 1\], got 0"),
        (lambda: Labelled(draws=0), "`draws` must be >= 1, got 0"),
        (lambda: chosen(Labelled(), [1, 2, 3]), "Labelled needs images whose labels are known, got none; give a table"),
        (lambda: chosen(Otsu(), [np.nan, np.inf]), "no image of 2 has a finite score"),
        (lambda: chosen(Labelled(), [1, 2], [1, 1]), "a threshold needs labels of both kinds, got 2 positive and 0"),
        (lambda: chosen(Platt(), [1, 2], [0, 0]), "calibration needs labels of both kinds, got 0 positive and 2"),
        (lambda: chosen(Labelled("precision"), [1, 2], [1, 0]), "no threshold has a precision of 0.9 on 2 labelled"),
    ],
)
def test_what_allows_no_choice_is_refused(act, message) -> None:
    with pytest.raises(ValueError, match=message):
        act()
