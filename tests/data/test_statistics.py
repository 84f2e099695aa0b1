"""Standardisation: exact moments in one pass, a map with an inverse, and no division by zero."""

import json
import math

import numpy as np
import pytest
import torch

from lcg.data.statistics import Statistics


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
