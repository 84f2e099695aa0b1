"""The plane and separation, against what is known in closed form."""

import numpy as np
import pytest

from lcg.app.projection import neighbours, pca, scaled, separation, tsne
from lcg.schema import Attribute


def test_pca_of_a_plane_shows_all_of_it() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(200, 2)) * [3.0, 1.0]
    basis, _ = np.linalg.qr(rng.normal(size=(7, 2)))
    z = (plane @ basis.T + 5).astype(np.float32)
    xy, share = pca(z)
    assert share == pytest.approx(1.0, abs=1e-5) and np.abs(xy).max() == pytest.approx(1.0)
    apart = np.linalg.norm(plane[:, None] - plane, axis=-1)
    order = np.linalg.svd(z - z.mean(0), full_matrices=False)
    raw = (z - z.mean(0)) @ order[2][:2].T
    np.testing.assert_allclose(np.linalg.norm(raw[:, None] - raw, axis=-1), apart, atol=1e-4)


def test_one_dimension_lies_on_a_line() -> None:
    xy, share = pca(np.arange(5, dtype=np.float32)[:, None])
    assert share == pytest.approx(1.0) and (xy[:, 1] == 0).all()
    np.testing.assert_allclose(np.abs(np.diff(xy[:, 0])), 0.5, atol=1e-6)


def test_neighbours_are_the_nearest_others() -> None:
    z = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
    assert [set(row) for row in neighbours(z, 1)] == [{1}, {0}, {1}, {2}]
    assert neighbours(z, 10).shape == (4, 3)


def test_separation_is_1_apart_and_0_mixed() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat([0.0, 1.0], [180, 20]).astype(np.float32)  # rare values count as much
    apart = neighbours((rng.normal(size=(200, 4)) * 0.1 + 9 * y[:, None]).astype(np.float32))
    mixed = neighbours(rng.normal(size=(200, 4)).astype(np.float32))
    hat = Attribute("hat")
    assert separation(hat, y, apart) == 1.0 and separation(hat, y, mixed) < 0.3
    assert np.isnan(separation(hat, np.zeros(200, np.float32), apart))  # one value only
    y[:100] = np.nan
    assert separation(hat, y, apart) == 1.0


def test_separation_of_a_number_is_what_neighbours_explain() -> None:
    z = np.linspace(0, 1, 100, dtype=np.float32)[:, None]
    age, near = Attribute("age", "continuous"), neighbours(z)
    assert separation(age, z[:, 0], near) > 0.99
    assert separation(age, np.random.default_rng(0).normal(size=100).astype(np.float32), near) < 0.2


def test_tsne_keeps_groups_together() -> None:
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(size=(20, 8)), rng.normal(size=(20, 8)) + 20]).astype(np.float32)
    xy = tsne(z)
    y = np.repeat([0.0, 1.0], 20).astype(np.float32)
    assert separation(Attribute("a"), y, neighbours(xy, 5)) == 1.0 and np.abs(scaled(xy)).max() <= 1 + 1e-6
