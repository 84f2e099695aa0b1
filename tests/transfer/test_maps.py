"""Maps between latent spaces: exact where they can be, honest about what they have not seen."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lcg.transfer.maps import LatentMap, fit_map, r2, r2_of_attributes
from lcg.transfer.solvers import HOW, SOLVERS, How, regularised
from tests.transfer.worlds import rng, rotation, stretched

D = 6


def latents(n: int = 200, seed: int = 0, size: int = D) -> Tensor:
    return 0.5 + torch.randn(n, size, generator=rng(seed), dtype=torch.float64) @ stretched(size, 7)


@pytest.mark.parametrize("how", HOW)
def test_a_rotated_scaled_and_shifted_space_is_found_exactly_both_ways(how: How) -> None:
    z_a, unseen = latents(), latents(50, seed=1)
    turned = 1.7 * rotation(D)
    found = fit_map(z_a, z_a @ turned + 3.0, how).double()
    torch.testing.assert_close(found(unseen), unseen @ turned + 3.0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.inverse(unseen @ turned + 3.0), unseen, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["ridge", "cca"])
def test_every_invertible_affine_map_is_found_by_ridge_and_cca(how: How) -> None:
    z_a, unseen, change = latents(), latents(50, seed=1), stretched(D)
    found = fit_map(z_a, z_a @ change - 1.0, how).double()
    torch.testing.assert_close(found(unseen), unseen @ change - 1.0, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["procrustes", "relative"])
def test_no_rotation_is_a_stretch(how: How) -> None:
    z_a, change = latents(), stretched(D)
    found = fit_map(z_a, z_a @ change, how).double()
    assert r2(z_a @ change, found(z_a)) < 0.99


def test_ridge_is_the_posterior_mean_of_a_gaussian_world_and_cca_keeps_its_spread() -> None:
    """y = x + n with x, n ~ N(0, I): E[y | x] = x, E[x | y] = y / 2, and cca must give cov(y) = 2 I."""
    x = torch.randn(20_000, 3, generator=rng(0), dtype=torch.float64)
    y = x + torch.randn(20_000, 3, generator=rng(1), dtype=torch.float64)
    shrunk, kept = fit_map(x, y, "ridge").double(), fit_map(x, y, "cca", [0.0]).double()
    torch.testing.assert_close(shrunk.there, torch.eye(3, dtype=torch.float64), atol=0.03, rtol=0)
    torch.testing.assert_close(shrunk.back, torch.eye(3, dtype=torch.float64) / 2, atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(kept(x).T), torch.cov(y.T), atol=1e-4, rtol=1e-4)


def test_few_pairs_in_noise_are_regularised() -> None:
    """With as many pairs as dimensions the pseudo-inverse interpolates noise; the strength chosen must do better."""
    change = rotation(30)
    x, noise = torch.randn(40, 30, generator=rng(0)).double(), torch.randn(40, 30, generator=rng(1)).double()
    unseen = torch.randn(500, 30, generator=rng(2)).double()
    y = x @ change + 0.5 * noise
    chosen, bare = fit_map(x, y), fit_map(x, y, strengths=[0.0])
    assert chosen.provenance["fit"]["there"]["strength"] > 0
    assert r2(unseen @ change, chosen.double()(unseen)) > r2(unseen @ change, bare.double()(unseen)) + 0.1


def test_cross_validation_tells_the_error_on_what_was_left_out() -> None:
    """y = x + n of equal variance: R^2 of the best prediction is 1/2, and no more must be claimed."""
    x, n = latents(4000, size=2), latents(4000, seed=1, size=2)
    told = fit_map(x - 0.5, x + n).provenance["fit"]["there"]
    assert told["r2_left_out"] == pytest.approx(0.5, abs=0.03)


def test_procrustes_into_fewer_dimensions_drops_the_faintest() -> None:
    z = torch.randn(500, 3, generator=rng(0), dtype=torch.float64) * torch.tensor([3.0, 2.0, 1e-3])
    matrix = SOLVERS["procrustes"](z, z[:, :2], 0.0)
    torch.testing.assert_close(matrix[:2], torch.eye(2, dtype=torch.float64), atol=1e-3, rtol=0)


def test_relative_is_the_way_through_cosines_with_the_norm_carried_over() -> None:
    x, y = latents(80), latents(80, seed=3, size=4)
    x, y = x - x.mean(0), y - y.mean(0)
    a_x, a_y = (z / z.norm(dim=1, keepdim=True) for z in (x, y))
    cosines = a_x @ a_x.T
    back = x.norm(dim=1, keepdim=True) * (cosines @ torch.linalg.pinv(a_y).T)
    scale = y.norm(dim=1).mean() / x.norm(dim=1).mean()
    torch.testing.assert_close(x @ SOLVERS["relative"](x, y, 0.0), scale * back)


def test_the_regularised_inverse_is_the_pseudo_inverse_and_ridge() -> None:
    x = latents(20) @ torch.diag(torch.tensor([1.0, 1, 1, 1, 1, 0], dtype=torch.float64))  # of rank 5
    torch.testing.assert_close(regularised(x, 0.0), torch.linalg.pinv(x))
    strength = 0.1 * torch.linalg.matrix_norm(x, 2) ** 2 * torch.eye(D, dtype=torch.float64)
    torch.testing.assert_close(regularised(x, 0.1), torch.linalg.solve(x.T @ x + strength, x.T))


def test_a_constant_element_and_latents_of_several_axes_pass() -> None:
    z_a = latents(100).unflatten(1, (2, 3))
    z_a[:, 0, 0] = 4.0
    found = fit_map(z_a, z_a.flatten(1)[:, 1:]).double()
    torch.testing.assert_close(found(z_a), z_a.flatten(1)[:, 1:], atol=1e-5, rtol=0)
    assert found.inverse(found(z_a)).shape == (100, 2, 3)


def test_r2_along_an_attribute_sees_the_error_that_matters_and_no_other() -> None:
    z = torch.randn(2000, 2, generator=rng(0), dtype=torch.float64)
    labels = torch.stack([(z[:, 0] > 0).float(), (z[:, 1] > 0).float(), torch.full((2000,), torch.nan)], 1)
    harmed = torch.stack([z[:, 0], torch.zeros(2000, dtype=torch.float64)], 1)
    along = r2_of_attributes(z, harmed, labels)
    assert along[0] > 0.99
    assert abs(along[1]) < 0.02
    assert math.isnan(along[2])
    assert r2(z, harmed) == pytest.approx(0.5, abs=0.05)


def test_a_map_survives_its_file_to_the_last_bit(tmp_path: Path) -> None:
    found = fit_map(latents(), latents(seed=1, size=4), provenance={"source": {"weights_sha256": "a"}})
    found.save(tmp_path / "map.safetensors")
    again = LatentMap.load(tmp_path / "map.safetensors")
    assert again.provenance == found.provenance
    for name, tensor in found.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_what_cannot_be_fitted_is_refused() -> None:
    z = latents(30)
    with pytest.raises(
        ValueError, match=r"got 30 latents of one generator and 29 of the other; encode the same images"
    ):
        fit_map(z, z[:29])
    with pytest.raises(ValueError, match=r"at least 10 of them for 5 folds"):
        fit_map(z[:9], z[:9])
    with pytest.raises(ValueError, match=r"`how` must be one of ridge, cca, procrustes, relative, got 'lasso'"):
        fit_map(z, z, "lasso")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`folds` must be >= 2 and `strengths` >= 0"):
        fit_map(z, z, strengths=[-1.0])
    with pytest.raises(ValueError, match=r"`z_b` must be finite"):
        fit_map(z, z.masked_fill(z > 2, torch.nan))
    with pytest.raises(ValueError, match=r"latents of the source of the map, of shape \(6,\), got \(4,\)"):
        fit_map(z, z)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"of the target of the map"):
        fit_map(z, z[:, :4]).inverse(torch.zeros(2, 6))


def test_a_file_of_something_else_is_no_map(tmp_path: Path) -> None:
    from lcg.weights import save_weights

    save_weights(tmp_path / "other.safetensors", torch.nn.Linear(2, 2), {}, {})
    with pytest.raises(ValueError, match=r"does not hold a map between latents"):
        LatentMap.load(tmp_path / "other.safetensors")
