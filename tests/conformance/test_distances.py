import math

import pytest
import torch
from torch import Tensor

from lcg.conformance.distances import moment_errors, sliced_wasserstein, total_variation, total_variation_floor


def normal(n: int, dim: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_samples_are_at_no_distance_from_themselves() -> None:
    x = normal(4000, 3)
    assert total_variation(x, x) == 0.0
    assert sliced_wasserstein(x, x) == pytest.approx(0.0, abs=1e-12)
    assert moment_errors(x, x) == (0.0, 0.0)


def test_total_variation_of_a_shift_is_the_exact_one() -> None:
    shift = 0.8
    exact = math.erf(shift / 2 / math.sqrt(2))  # of N(0, 1) and N(shift, 1): 2 Phi(shift / 2) - 1
    x = normal(200_000)
    assert total_variation(x + shift, x, bins=64) == pytest.approx(exact, abs=0.01)


def test_disjoint_samples_are_as_far_apart_as_can_be() -> None:
    x = normal(3200)
    assert total_variation(x + 100, x) == pytest.approx(15 / 16)  # all in the last bin, which holds 1/16 of x
    planar = normal(4000, 2)
    assert total_variation(planar + 100, planar) > 0.9


def test_the_floor_is_what_exact_samples_score() -> None:
    reference = normal(200_000)
    found = [total_variation(normal(2000, seed=seed), reference) for seed in range(1, 21)]
    assert sum(found) / 20 == pytest.approx(total_variation_floor(2000), rel=0.08)


def test_total_variation_looks_along_the_axes_that_it_is_given() -> None:
    x = normal(20_000, 3)
    moved = x + torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    e = torch.eye(3, dtype=torch.float64)
    assert total_variation(moved, x, e[:, :2]) == 0.0
    assert total_variation(moved, x, e[:, 2:]) > 0.3
    assert total_variation(moved, x, e[:, 1:]) > 0.3


def test_sliced_wasserstein_of_a_shift_is_its_length_in_standard_deviations() -> None:
    x = 3.0 * normal(5000)
    assert sliced_wasserstein(x + 1.5, x) == pytest.approx(1.5 / float(x.std()), rel=1e-9)
    plane = normal(4000, 2)
    mean_cosine = 2 / math.pi  # of a random direction with the shift's
    moved = plane + torch.tensor([0.7, 0.0], dtype=torch.float64)
    assert sliced_wasserstein(moved, plane, directions=400) == pytest.approx(0.7 * mean_cosine, rel=0.1)


def test_sliced_wasserstein_takes_references_of_another_size() -> None:
    assert sliced_wasserstein(normal(500, 4), normal(50_000, 4, seed=1)) < 0.1


def test_moment_errors_are_those_that_were_made() -> None:
    x = normal(1000, 2)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T  # white, exactly
    mean, covariance = moment_errors(2 * x + torch.tensor([0.0, 0.3], dtype=torch.float64), x)
    assert mean == pytest.approx(0.3)
    assert covariance == pytest.approx(3.0)


def test_samples_that_diverged_are_refused() -> None:
    x = normal(100)
    with pytest.raises(ValueError, match="`samples` must be finite, got NaN or infinity; the method diverged"):
        total_variation(x / 0, x)


def test_more_than_two_axes_are_refused() -> None:
    x = normal(100, 3)
    with pytest.raises(ValueError, match=r"`axes` must have shape \(D, 1\) or \(D, 2\), got \(3, 3\)"):
        total_variation(x, x, torch.eye(3))
