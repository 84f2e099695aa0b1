"""InfoMEC: exact values on full factorial codes, known information of Gaussian latents, and what maps of z change."""

import math
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from lcg.metrics.disentanglement import explicitness, infomec, normalised_information

# Every combination of three sources with 2, 3 and 4 values equally often: independent, so that information is exact.
FACTORIAL = np.array(list(product(range(2), range(3), range(4))) * 5, dtype=np.float64)
EXACT = {"rtol": 0, "atol": 1e-12}


def gaussian_information(shift: float) -> float:
    """I(s; z) / H(s) of z ~ N(+-shift, 1) with both signs equally likely, by quadrature."""
    z = np.linspace(-shift - 12, shift + 12, 200_001)
    p = np.exp(-0.5 * (z - shift) ** 2) / math.sqrt(2 * math.pi)
    return 1 - float((p * np.logaddexp(0, -2 * shift * z)).sum() * (z[1] - z[0])) / math.log(2)


def two_clusters(n: int, shift: float, seed: int) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    s = rng.integers(2, size=(n, 1)).astype(np.float64)
    return (2 * s - 1) * shift + rng.standard_normal((n, 1)), s


# --- discrete latents: exact ---


def test_a_permutation_of_the_sources_is_perfect() -> None:
    found = infomec(-7 * FACTORIAL[:, [2, 0, 1]] + 1, FACTORIAL, discrete=True)
    np.testing.assert_allclose(found.nmi, [[0, 1, 0], [0, 0, 1], [1, 0, 0]], **EXACT)
    assert found.modularity == pytest.approx(1, abs=1e-12) and found.compactness == pytest.approx(1, abs=1e-12)
    assert found.explicitness == pytest.approx(1, abs=1e-3)  # the probe's penalty
    assert found.active.all()


def test_one_latent_for_two_sources_is_compact_but_not_modular() -> None:
    """(s_1, s_2) in one code: sum_i NMI = 2, max = 1; s_3 in another."""
    code = FACTORIAL[:, 0] * 3 + FACTORIAL[:, 1]
    found = infomec(np.stack((code, FACTORIAL[:, 2]), axis=1), FACTORIAL, discrete=True)
    np.testing.assert_allclose(found.nmi, [[1, 0], [1, 0], [0, 1]], **EXACT)
    assert found.modularity == pytest.approx(((1 / 2 + 1) / 2 - 1 / 3) / (2 / 3))
    assert found.compactness == pytest.approx(1)


def test_copies_are_modular_but_not_compact() -> None:
    found = infomec(np.repeat(FACTORIAL, 2, axis=1), FACTORIAL, discrete=True)
    assert found.modularity == pytest.approx(1)
    assert found.compactness == pytest.approx((1 / 2 - 1 / 6) / (5 / 6))


def test_every_latent_telling_all_is_zero() -> None:
    code = FACTORIAL @ [12, 4, 1]
    found = infomec(np.stack((code, -code), axis=1), FACTORIAL, discrete=True)
    assert found.modularity == pytest.approx(0, abs=1e-12) and found.compactness == pytest.approx(0, abs=1e-12)


def test_what_only_two_latents_together_tell_is_neither_seen_alone_nor_linear() -> None:
    a, b = np.array(list(product((0.0, 1.0), repeat=2)) * 4).T
    z, s = np.stack((a, b), axis=1), np.stack((a, (a + b) % 2), axis=1)
    found = infomec(z, s, discrete=True)
    np.testing.assert_allclose(found.nmi, [[1, 0], [0, 0]], **EXACT)
    np.testing.assert_allclose(explicitness(z, s, discrete=True), [1, 0], atol=1e-3)
    assert found.compactness == pytest.approx(1)  # of the source that is told of at all
    np.testing.assert_allclose(
        explicitness(np.stack((a, b, a * b), axis=1), s), [1, 1], atol=1e-3
    )  # until it is linear


def test_information_is_that_of_the_joint_frequencies() -> None:
    rng = np.random.default_rng(0)
    s = rng.integers(3, size=(500, 1))
    z = np.where(rng.random((500, 1)) < 0.6, s, rng.integers(4, size=(500, 1)))
    joint = np.histogram2d(s[:, 0], z[:, 0], bins=(np.arange(4), np.arange(5)))[0] / 500
    told = (joint[joint > 0] * np.log((joint / np.outer(joint.sum(1), joint.sum(0)))[joint > 0])).sum()
    entropy = -(joint.sum(1) * np.log(joint.sum(1))).sum()
    np.testing.assert_allclose(normalised_information(z, s, discrete=True), [[told / entropy]], **EXACT)
    # A logistic regression on the one-hot code knows the frequencies of s given z, so that it knows I(s; z) too.
    np.testing.assert_allclose(explicitness(z, s, discrete=True), [told / entropy], atol=1e-4)


def test_constants_are_inactive() -> None:
    z = np.concatenate((FACTORIAL, np.full((len(FACTORIAL), 2), 3.0)), axis=1)
    found = infomec(z, FACTORIAL, discrete=True)
    assert found.active.tolist() == [True] * 3 + [False] * 2
    assert found.modularity == pytest.approx(1) and found.compactness == pytest.approx(1)


def test_one_source_or_one_latent_has_no_modularity_or_compactness() -> None:
    found = infomec(FACTORIAL, FACTORIAL[:, :1], discrete=True)
    assert math.isnan(found.modularity) and found.compactness == pytest.approx(1)
    found = infomec(FACTORIAL[:, :1], FACTORIAL, discrete=True)
    assert math.isnan(found.compactness) and found.modularity == pytest.approx(1)


def test_unknown_labels_are_left_out_source_by_source() -> None:
    s = FACTORIAL.copy()
    s[1::2, 0] = np.nan
    z = FACTORIAL.copy()
    z[1::2, 0] = 5  # what is unknown may be anything
    found = normalised_information(z, s, discrete=True)
    np.testing.assert_allclose(found[0], normalised_information(z[::2], s[::2], discrete=True)[0], **EXACT)
    np.testing.assert_allclose(found[1:], normalised_information(z, FACTORIAL, discrete=True)[1:], **EXACT)


# --- continuous latents: known information ---


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_gaussian_clusters_have_the_information_of_the_integral(shift: float) -> None:
    """The posterior is logistic, so the probe's information is all there is."""
    z, s = two_clusters(8000, shift, 0)
    exact = gaussian_information(shift)
    assert explicitness(z, s)[0] == pytest.approx(exact, abs=0.02)
    assert normalised_information(z, s)[0, 0] == pytest.approx(exact, abs=0.03)


def test_explicitness_of_rare_values_is_a_share_of_their_entropy() -> None:
    rng = np.random.default_rng(0)
    s = (rng.random((4000, 1)) < 0.03).astype(np.float64)
    assert explicitness(rng.standard_normal((4000, 2)), s)[0] == pytest.approx(0, abs=0.01)


def test_axes_are_modular_and_their_mixtures_only_explicit() -> None:
    (a, s), (b, t) = two_clusters(1500, 3.0, 0), two_clusters(1500, 3.0, 1)
    z, sources = np.concatenate((a, b), axis=1), np.concatenate((s, t), axis=1)
    straight = infomec(z, sources)
    assert straight.modularity > 0.9 and straight.compactness > 0.9 and straight.explicitness > 0.95
    turned = infomec(z @ np.array([[1, 1], [-1, 1]]) / math.sqrt(2), sources)
    assert turned.modularity < 0.1 and turned.compactness < 0.1
    assert turned.explicitness == pytest.approx(straight.explicitness, abs=1e-3)


def test_explicitness_does_not_change_under_linear_maps() -> None:
    rng = np.random.default_rng(0)
    z, s = two_clusters(500, 1.0, 0)
    z = np.concatenate((z, rng.standard_normal((500, 2))), axis=1)
    np.testing.assert_allclose(explicitness(z @ rng.standard_normal((3, 3)) + 4, s), explicitness(z, s), atol=1e-4)


def test_scale_order_and_noise_of_narrow_latents_do_not_matter() -> None:
    z, s = two_clusters(400, 1.0, 0)
    z = np.concatenate((z, 0.01 * np.random.default_rng(1).standard_normal((400, 1))), axis=1)
    found = infomec(z, s)
    assert found.active.tolist() == [True, False]
    rows = np.random.default_rng(2).permutation(400)
    moved = infomec(100 * z[rows] - 5, -s[rows])
    np.testing.assert_allclose(moved.nmi, found.nmi, atol=1e-6)
    assert moved.explicitness == pytest.approx(found.explicitness, abs=1e-4)


@pytest.mark.parametrize("neighbours", [1, 3, 10])
def test_information_from_neighbours_is_that_of_scikit_learn(neighbours: int) -> None:
    """Which seeks them in trees: also with ties and unknown labels."""
    from sklearn.feature_selection import mutual_info_classif

    rng = np.random.default_rng(0)
    s = rng.choice(3, p=[0.5, 0.3, 0.2], size=400).astype(np.float64)
    z = rng.standard_normal((400, 4)) + s[:, None] * np.array([0, 0.3, 1, 3])
    s[:60], z[:, 1] = np.nan, z[:, 1].round(1)
    codes = s[60:].astype(int)
    p = np.bincount(codes) / len(codes)
    oracle = mutual_info_classif(z[60:], codes, discrete_features=False, n_neighbors=neighbours, random_state=3)
    found = normalised_information(z, s[:, None], neighbours=neighbours, seed=3)[0]
    np.testing.assert_allclose(found, oracle / -(p * np.log(p)).sum(), rtol=0, atol=1e-12)


def test_information_from_neighbours_is_its_definition_also_for_rare_values() -> None:
    """Of a value that occurs three times the farther of the other two is the last neighbour; one that occurs once is
    left out."""
    from scipy.special import digamma

    rng = np.random.default_rng(0)
    s = np.repeat([0.0, 1, 2, 3], [40, 15, 3, 1])
    z = rng.standard_normal(59) + s
    terms = []
    for i in range(58):
        distance = np.abs(z[:58] - z[i])
        own = np.sort(distance[s[:58] == s[i]])  # the row itself first
        k = min(5, len(own) - 1)
        terms.append(digamma(k) - digamma(len(own)) - digamma((distance < own[k]).sum()))
    p = np.bincount(s.astype(int)) / 59
    exact = (digamma(58) + np.mean(terms)) / -(p * np.log(p)).sum()
    assert exact > 0.1
    found = normalised_information(z[:, None], s[:, None], neighbours=5)
    np.testing.assert_allclose(found, [[exact]], rtol=0, atol=1e-12)


def test_explicitness_of_each_source_is_told_too() -> None:
    (a, s), (b, t) = two_clusters(300, 0.5, 0), two_clusters(300, 2.0, 1)
    z, sources = np.concatenate((a, b), axis=1), np.concatenate((s, t), axis=1)
    found = infomec(z, sources)
    np.testing.assert_array_equal(found.explained, explicitness(z, sources))
    assert found.explained[0] < found.explained[1] and found.explicitness == found.explained.mean()


def test_the_seed_fixes_the_estimate() -> None:
    z, s = two_clusters(300, 1.0, 0)
    np.testing.assert_array_equal(normalised_information(z, s, seed=1), normalised_information(z, s, seed=1))


# --- what is refused ---


@pytest.mark.parametrize("measure", [infomec, normalised_information, explicitness])
def test_arrays_that_do_not_fit_are_refused(measure) -> None:
    z = FACTORIAL
    for latents, sources in ((z, z[:-1]), (z[:, 0], z), (z, z[:, 0]), (z[:0], z[:0]), (z[:, :0], z)):
        with pytest.raises(
            ValueError, match=r"`latents` and `sources` must be \(N, D\) and \(N, S\), a row per sample"
        ):
            measure(latents, sources)
    with pytest.raises(ValueError, match=r"`latents` must be finite, got NaN or infinity; leave out such rows"):
        measure(np.where(z == 3, np.inf, z), z)
    with pytest.raises(ValueError, match=r"`sources\[:, 1\]` must take at least two values.* got 1 in 120 known rows"):
        measure(z, z * [1, 0, 1])
    with pytest.raises(ValueError, match=r"`sources\[:, 0\]` must take at least two values.* got 0 in 0 known rows"):
        measure(z, z * np.nan)
    with pytest.raises(
        ValueError, match=r"got 120 in 120 known rows; leave out a constant, and bin a continuous source"
    ):
        measure(z, np.arange(120.0)[:, None])


def test_constant_latents_and_numbers_out_of_range_are_refused() -> None:
    for discrete in (True, False):
        with pytest.raises(
            ValueError, match=r"`latents` must vary in at least one coordinate, got constants; check the"
        ):
            infomec(np.ones_like(FACTORIAL), FACTORIAL, discrete=discrete)
    with pytest.raises(ValueError, match=r"`neighbours` must be >= 1, got 0; 10 is usual"):
        infomec(FACTORIAL, FACTORIAL, neighbours=0)
    with pytest.raises(ValueError, match=r"`seed` must be >= 0, got -1"):
        infomec(FACTORIAL, FACTORIAL, seed=-1)
