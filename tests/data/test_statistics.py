"""Standardisation: exact moments in one pass, a map with an inverse, and no division by zero."""

import json
import math
from functools import reduce

import numpy as np
import pytest
import torch

from lcg.data.statistics import MAX_WHITENED, RIDGE, Moments, Statistics, Whitening


def test_merged_moments_do_not_cancel() -> None:
    """Far from zero, E[z^2] - E[z]^2 has no correct digit left in float32; the merged moments keep float64's."""
    rng = np.random.default_rng(0)
    z = 1e4 + rng.normal(0.0, 0.5, (3000, 3))
    statistics = Statistics.of(np.array_split(z, [1, 10, 11, 2000]))
    assert np.abs(statistics.std.numpy() / z.std(0) - 1).max() < 1e-6


def test_restore_inverts_standardise() -> None:
    z = torch.randn(64, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 7 + 3
    statistics = Statistics.of([z.numpy()])
    assert (statistics.restore(statistics.standardise(z)) - z).abs().max() < 1e-13
    assert statistics.standardise(z.float()).dtype == torch.float32


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e5, 1e-30])
def test_a_constant_element_is_standardised_to_zero(constant: float) -> None:
    z = np.full((1001, 1), constant, np.float32)
    statistics = Statistics.of([z[:500], z[500:]])
    assert statistics.std.item() == 1.0 and statistics.standardise(torch.from_numpy(z)).abs().max() == 0.0


def test_statistics_survive_json_exactly() -> None:
    statistics = Statistics.of([np.random.default_rng(0).normal(size=(9, 2, 3))])
    again = Statistics.from_dict(json.loads(json.dumps(statistics.to_dict())))
    assert torch.equal(again.mean, statistics.mean) and torch.equal(again.std, statistics.std)
    assert again.latent_shape == (2, 3)


def test_wrong_statistics_are_refused() -> None:
    one = torch.ones(2)
    with pytest.raises(ValueError, match="one shape"):
        Statistics(one, torch.ones(3))
    with pytest.raises(ValueError, match="finite"):
        Statistics(one * math.nan, one)
    with pytest.raises(ValueError, match=r"positive, got 0\.0"):
        Statistics(one, one * 0)
    with pytest.raises(ValueError, match="at least one latent"):
        Statistics.of([np.zeros((0, 2))])
    with pytest.raises(ValueError, match="'mean'"):
        Statistics.from_dict({"mean": [0.0]})
    for wrong in (None, {}, [[1.0], [1.0, 2.0]], "text", 1e300):
        with pytest.raises(ValueError):
            Statistics.from_dict({"mean": wrong, "std": [1.0]})


# --- moments ----------------------------------------------------------------------------------------------------------


def ill_conditioned(n: int = 2000, size: int = 6) -> np.ndarray:
    """Correlated rows far from zero whose covariance has eigenvalues from 1e4 to 1e-4."""
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(size, size)))
    return 1e3 + (rng.normal(size=(n, size)) * np.logspace(2, -2, size)) @ turn


def test_merged_moments_are_those_of_all_rows() -> None:
    z = ill_conditioned()
    moments = reduce(Moments.merge, (Moments.of(part, products=True) for part in np.array_split(z, [1, 7, 500, 501])))
    covariance = np.cov(z.T, bias=True)
    assert moments.count == len(z) and np.abs(moments.mean - z.mean(0)).max() < 1e-9
    assert np.abs(moments.m2 / len(z) - np.diag(covariance)).max() < 1e-9 * covariance.max()
    assert moments.products is not None
    assert np.abs(moments.products / len(z) - covariance).max() < 1e-9 * np.abs(covariance).max()


def test_merging_in_one_order_gives_one_result() -> None:
    """Whoever computed the parts: ranks may be merged in the order of the shards, bit by bit as by one process."""
    parts = np.array_split(ill_conditioned().reshape(-1, 2, 3), [100, 300, 1500])
    alone, ranks = Statistics.of(parts), [Moments.of(part) for part in parts]
    merged = Statistics.from_moments(reduce(Moments.merge, ranks))
    assert torch.equal(alone.mean, merged.mean) and torch.equal(alone.std, merged.std)
    assert Moments.of(parts[0]).merge(Moments.of(parts[1], products=True)).products is None


# --- whitening --------------------------------------------------------------------------------------------------------


def test_whitening_is_the_symmetric_root_of_the_covariance() -> None:
    z = ill_conditioned(size=4)
    whitening = Statistics.of(np.array_split(z, 5), whiten=True).whitening
    assert whitening is not None
    values, vectors = np.linalg.eigh(np.cov(z.T, bias=True))
    expected = vectors @ np.diag((values + RIDGE * values.max()) ** -0.5) @ vectors.T
    assert np.abs(whitening.matrix.numpy() - expected).max() < 1e-6 * np.abs(expected).max()
    inverse = whitening.inverse.numpy()
    assert np.abs(inverse - np.linalg.inv(expected)).max() < 1e-6 * np.abs(inverse).max()


@pytest.mark.parametrize("shape", [(6,), (3, 2), (1, 2, 3)])
def test_whitened_latents_have_unit_covariance(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    z = (5 + rng.normal(size=(3000, 6)) @ rng.normal(size=(6, 6))).reshape(-1, *shape)
    statistics = Statistics.of([z[:10], z[10:]], whiten=True)
    z_0 = statistics.standardise(torch.from_numpy(z))
    assert z_0.shape == z.shape and statistics.latent_shape == shape
    covariance = np.cov(z_0.flatten(1).numpy().T, bias=True)
    assert np.abs(covariance - np.eye(6)).max() < 1e-4  # of the ridge
    torch.testing.assert_close(statistics.restore(z_0), torch.from_numpy(z), rtol=1e-4, atol=1e-4)


def test_whitening_of_uncorrelated_latents_is_division_by_their_spread() -> None:
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * [2.0, 0.5]
    plain, white = (Statistics.of([signs], whiten=whiten) for whiten in (False, True))
    z = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(white.standardise(z), plain.standardise(z), rtol=1e-4, atol=1e-4)


def test_gradients_go_through_a_whitening() -> None:
    statistics = Statistics.of([ill_conditioned(size=3)], whiten=True)
    assert statistics.whitening is not None
    z_0 = torch.zeros(2, 3, requires_grad=True)
    statistics.restore(z_0)[:, 1].sum().backward()
    torch.testing.assert_close(z_0.grad, statistics.whitening.inverse[1].expand(2, 3))


@pytest.mark.parametrize("rows", [np.ones((7, 3)), np.eye(3)[[0, 0, 1]]])
def test_directions_that_never_vary_are_whitened_to_zero(rows: np.ndarray) -> None:
    statistics = Statistics.of([rows], whiten=True)
    z_0 = statistics.standardise(torch.from_numpy(rows))
    assert torch.isfinite(z_0).all() and z_0.abs().max() < 2
    torch.testing.assert_close(statistics.restore(z_0), torch.from_numpy(rows), rtol=0, atol=1e-3)


def test_wrong_whitenings_are_refused() -> None:
    eye = torch.eye(2)
    with pytest.raises(ValueError, match=r"square and of one size, got \(2, 2\) and \(3, 3\)"):
        Whitening(eye, torch.eye(3))
    with pytest.raises(ValueError, match="whitening must be finite"):
        Whitening(eye * math.nan, eye)
    with pytest.raises(ValueError, match="inverse to each other"):
        Whitening(eye, eye * 2)
    with pytest.raises(ValueError, match="of latents of 3 elements, got 2"):
        Statistics(torch.zeros(3), torch.ones(3), Whitening(eye, eye))
    with pytest.raises(ValueError, match="products=True"):
        Statistics.from_moments(Moments.of(np.eye(2)), whiten=True)
    with pytest.raises(
        ValueError, match=rf"at most {MAX_WHITENED} elements, these \[2, 4096\] have 8192; leave it off"
    ):
        Statistics.of([np.zeros((1, 2, 4096))], whiten=True)
    with pytest.raises(ValueError, match="at least one latent"):
        Moments.of(np.zeros((0, 2)))
