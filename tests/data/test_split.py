"""The split is a property of each sample's index, and looks random."""

import numpy as np
import pytest
import torch

from lcg.data.split import TEST, TRAIN, VALIDATION, check_label_fraction, in_validation, keeps_labels, side_of, uniform


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


def test_neither_held_out_side_moves_when_the_other_changes() -> None:
    index = np.arange(20_000)
    for val, test in ((0.0, 0.3), (0.05, 0.3), (0.6, 0.3), (0.05, 0.0)):
        side = side_of(index, val, test)
        assert np.array_equal(side == VALIDATION, in_validation(index, val))
        assert np.array_equal(side == TEST, side_of(index, 0.0, test) == TEST)
        for which, share in ((VALIDATION, val), (TEST, test), (TRAIN, 1 - val - test)):
            assert abs((side == which).mean() - share) < 5 * np.sqrt(0.25 / len(index))
    assert not ((side_of(index, 0, 0.1) == TEST) & (side_of(index, 0, 0.2) != TEST)).any()


def test_fractions_of_test_are_refused_like_those_of_validation() -> None:
    with pytest.raises(ValueError, match=r"`test_fraction` must be in \[0, 1\), got -1; 0\.05 holds out"):
        side_of(np.arange(3), 0.0, -1)
    with pytest.raises(ValueError, match=r"must be below 1, got 0\.5 \+ 0\.5; lower one"):
        side_of(np.arange(3), 0.5, 0.5)


def test_streams_are_independent() -> None:
    """All four combinations of two coins, and no correlation of neighbours, within five standard errors."""
    index, n = np.arange(100_000), 100_000
    for one, two in (("", "labels"), ("labels of hat", "labels of hair"), ("", "labels of hat")):
        a, b = uniform(index, one), uniform(index, two)
        joint = np.histogram2d(a, b, bins=4)[0].ravel() / n
        assert np.abs(joint - 1 / 16).max() < 5 * np.sqrt(15) / 16 / np.sqrt(n)
        assert abs(np.corrcoef(a[1:], b[:-1])[0, 1]) < 5 / np.sqrt(n)


def test_labels_are_kept_by_sample_or_by_attribute_and_fractions_are_nested() -> None:
    index, names = np.arange(50_000), ("hat", "hair", "age")
    together = keeps_labels(index, 0.3, names)
    assert (together.all(1) == together.any(1)).all() and abs(together.mean() - 0.3) < 0.011
    assert not (together & ~keeps_labels(index, 0.4, names)).any()

    apart = keeps_labels(index, {"hat": 0.5, "age": 0.5}, names)
    assert apart[:, 1].all() and abs((apart[:, 0] & apart[:, 2]).mean() - 0.25) < 0.011
    assert not (apart & ~keeps_labels(index, {"hat": 0.6, "age": 0.7}, names)).any()
    assert keeps_labels(index, 1.0, names).all() and not keeps_labels(index, 0.0, names).any()


def test_wrong_label_fractions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`label_fraction` must be in \[0, 1\], got 1\.5; 1 keeps all"):
        check_label_fraction(1.5)
    with pytest.raises(ValueError, match=r"`label_fraction` of 'hat' must be in \[0, 1\], got -0\.1"):
        check_label_fraction({"hair": 1.0, "hat": -0.1})
