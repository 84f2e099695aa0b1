"""Frechet distance against its closed forms; moments against those of numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lcg.metrics import frechet_between, frechet_distance, moments


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariance(size: int, seed: int = 0) -> Tensor:
    factor = normal(size, size, seed=seed)
    return factor @ factor.T + 0.1 * torch.eye(size, dtype=torch.float64)


# --- the distance ---


def test_equal_distributions_are_at_zero() -> None:
    mean, c = normal(6), covariance(6)
    assert frechet_distance(mean, c, mean, c) == pytest.approx(0, abs=1e-12)


def test_with_one_covariance_it_is_the_distance_of_the_means() -> None:
    a, b, c = normal(6, seed=1), normal(6, seed=2), covariance(6)
    assert frechet_distance(a, c, b, c) == pytest.approx(float((a - b).square().sum()), rel=1e-12)


def test_in_one_dimension_it_is_the_distance_of_mean_and_deviation() -> None:
    one = torch.ones(1, dtype=torch.float64)
    assert frechet_distance(one, 9 * one[None], 3 * one, 4 * one[None]) == pytest.approx(2**2 + (3 - 2) ** 2, rel=1e-12)


def test_commuting_covariances() -> None:
    """With common axes the axes separate: sum (m_1 - m_2)^2 + (s_1 - s_2)^2."""
    basis = torch.linalg.qr(normal(5, 5)).Q
    s_1, s_2 = torch.tensor([0.0, 0.1, 1.0, 2.0, 30.0]).double(), torch.tensor([0.5, 0.1, 0.0, 3.0, 20.0]).double()
    zero = torch.zeros(5, dtype=torch.float64)
    found = frechet_distance(zero, basis * s_1**2 @ basis.T, zero, basis * s_2**2 @ basis.T)
    assert found == pytest.approx(float((s_1 - s_2).square().sum()), rel=1e-8)  # two are singular


def test_linear_images_of_one_normal_distribution() -> None:
    """x -> R x with R symmetric positive definite is the optimal map, so d^2 = E|R x - x|^2 = tr((R - I) C (R - I))."""
    c, r = covariance(5, seed=3), covariance(5, seed=4)
    eye, zero = torch.eye(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    expected = float(((r - eye) @ c @ (r - eye)).trace())
    assert frechet_distance(zero, c, zero, r @ c @ r) == pytest.approx(expected, rel=1e-10)


def test_it_is_symmetric_and_does_not_see_rotations() -> None:
    a, b, c, d = normal(5, seed=1), normal(5, seed=2), covariance(5, seed=3), covariance(5, seed=4)
    q = torch.linalg.qr(normal(5, 5, seed=5)).Q
    distance = frechet_distance(a, c, b, d)
    assert frechet_distance(b, d, a, c) == pytest.approx(distance, rel=1e-12)
    assert frechet_distance(q @ a, q @ c @ q.T, q @ b, q @ d @ q.T) == pytest.approx(distance, rel=1e-10)


def test_singular_covariances_are_allowed() -> None:
    zero, u, v = torch.zeros(2).double(), torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    assert frechet_distance(zero, torch.outer(u, u), zero, torch.outer(v, v)) == pytest.approx(2, rel=1e-12)


def test_single_precision_input_is_computed_in_double() -> None:
    mean, c = 1000 + normal(4).float(), covariance(4).float()
    c = (c + c.T) / 2
    assert frechet_distance(mean, c, mean, c) == pytest.approx(0, abs=1e-12)


# --- moments ---


def test_moments_are_numpys() -> None:
    features = normal(50, 4) * 3 + 7
    mean, c = moments(features.float())
    assert mean.dtype == c.dtype == torch.float64
    np.testing.assert_allclose(mean, features.float().double().numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(c, np.cov(features.float().double().numpy(), rowvar=False), rtol=1e-10)


def test_weights_are_numpys_and_their_scale_is_immaterial() -> None:
    features, weights = normal(50, 4), normal(50, seed=1).exp()
    mean, c = moments(features, weights)
    np.testing.assert_allclose(mean, np.average(features.numpy(), axis=0, weights=weights.numpy()), rtol=1e-10)
    np.testing.assert_allclose(c, np.cov(features.numpy(), rowvar=False, aweights=weights.numpy()), rtol=1e-10)
    torch.testing.assert_close(moments(features, 1e-6 * weights), (mean, c), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(moments(features, torch.full((50,), 3.0)), moments(features), rtol=1e-12, atol=1e-14)


def test_rows_of_weight_zero_are_not_there() -> None:
    features = normal(50, 4)
    weights = (torch.arange(50) < 30).double()
    torch.testing.assert_close(moments(features, weights), moments(features[:30]), rtol=1e-12, atol=1e-14)


def test_weights_recover_a_distribution_from_samples_of_another() -> None:
    """Importance weights p/q make N(0, I) samples a reference for N(m, I); unweighted ones are |m|^2 away."""
    samples, wanted = normal(60_000, 2), normal(60_000, 2, seed=1) + torch.tensor([0.6, 0.0]).double()
    weights = (0.6 * samples[:, 0]).exp()
    assert frechet_between(wanted, samples, weights) < 2e-3
    assert frechet_between(wanted, samples) == pytest.approx(0.36, abs=0.02)


# --- refusals ---


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"more rows than dimensions.*got N=4, F=4; take more samples"):
        moments(normal(4, 4))
    weights = torch.zeros(50, dtype=torch.float64)
    weights[:3] = 1
    with pytest.raises(ValueError, match=r"rows of positive weight.*N=3, F=4"):
        moments(normal(50, 4), weights)


def test_features_that_are_not_numbers_are_refused() -> None:
    features = normal(50, 4)
    features[3, 1], features[7] = torch.nan, torch.inf
    with pytest.raises(ValueError, match=r"`features` must be finite, got 2 of 50 rows"):
        moments(features)
    with pytest.raises(ValueError, match=r"`features` must be \(N, F\), got shape \(50, 2, 2\)"):
        moments(normal(50, 2, 2))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(49), r"must be \(50,\), one per row of features, got \(49,\)"),
        (torch.linspace(-1, 1, 50), "must be finite and >= 0"),
        (torch.full((50,), torch.nan), "must be finite and >= 0"),
    ],
)
def test_wrong_weights_are_refused(weights: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"`weights` {message}"):
        moments(normal(50, 4), weights)


def test_features_of_two_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`mean_2` must have shape \(3,\).*got \(4,\); take both.*same network"):
        frechet_between(normal(50, 3), normal(50, 4))


def test_a_covariance_that_is_none_is_refused() -> None:
    mean, c = normal(3), covariance(3)
    with pytest.raises(ValueError, match=r"`covariance_1` must have shape \(3, 3\).*got \(3,\)"):
        frechet_distance(mean, mean, mean, c)
    with pytest.raises(ValueError, match="`covariance_2` must be finite"):
        frechet_distance(mean, c, mean, c * torch.nan)
    with pytest.raises(ValueError, match="`covariance_2` must be symmetric"):
        frechet_distance(mean, c, mean, c.triu())
    with pytest.raises(ValueError, match="`covariance_1` must be positive semi-definite, got an eigenvalue -1"):
        frechet_distance(mean, -torch.eye(3, dtype=torch.float64), mean, c)
