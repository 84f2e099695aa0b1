"""The split is a property of each sample's index, and looks random."""

import numpy as np
import pytest
import torch

from lcg.data.split import in_validation


def test_a_sample_never_changes_sides() -> None:
    index = np.arange(10_000)
    whole = in_validation(index, 0.05)
    assert np.array_equal(in_validation(index[:777], 0.05), whole[:777])
    shuffled = np.random.default_rng(0).permutation(index)
    assert np.array_equal(in_validation(torch.from_numpy(shuffled), 0.05), whole[shuffled])
    assert not (whole & ~in_validation(index, 0.2)).any()


def test_the_sides_are_fixed_for_ever() -> None:
    """Published checkpoints rely on it. The published SplitMix64, seeded with 0, begins with these three numbers."""
    for i, output in enumerate((0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)):
        h = (output >> 11) / 2**53
        assert not in_validation(np.array([i]), h) and in_validation(np.array([i]), h + 2**-53)


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("stride", [1, 2, 1000])
def test_the_fraction_is_met_for_regular_indices(fraction: float, stride: int) -> None:
    n = 100_000
    share = in_validation(np.arange(n) * stride, fraction).mean()
    assert abs(share - fraction) < 5 * np.sqrt(fraction * (1 - fraction) / n)


def test_no_validation() -> None:
    assert not in_validation(np.arange(1000), 0.0).any()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_wrong_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"`val_fraction` must be in \[0, 1\)"):
        in_validation(np.arange(3), fraction)
