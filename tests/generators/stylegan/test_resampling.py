"""Filters are those of SciPy, and changes of rate are zeros put in, a dense convolution, and samples dropped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from lcg.generators.stylegan.resampling import binomial, downsample, kaiser_beta, low_pass, upsample
from tests.generators.stylegan.official import array, filtered, zeros_between
from tests.generators.stylegan.official3 import low_pass as by_scipy

FILTERS = [(12, 2.0, 4.6, 32.0), (24, 7.5, 20.0, 128.0), (13, 3.0, 1.5, 16.0), (6, 5.0, 0.1, 24.0)]


@pytest.mark.parametrize(("taps", "cutoff", "width", "rate"), FILTERS)
def test_low_pass_filters_are_those_of_scipy(taps: int, cutoff: float, width: float, rate: float) -> None:
    np.testing.assert_allclose(
        array(low_pass(taps, cutoff, width, rate)), by_scipy(taps, cutoff, width, rate, False), atol=1e-7
    )
    if taps % 2 == 0:  # SciPy's formula divides by r, which is zero in the middle of an odd number
        np.testing.assert_allclose(
            array(low_pass(taps, cutoff, width, rate, True)), by_scipy(taps, cutoff, width, rate, True), atol=1e-7
        )


def test_an_odd_round_filter_goes_through_its_limit() -> None:
    f = array(low_pass(51, 2.0, 1.0, 16.0, True))
    assert f.sum() == pytest.approx(1) and f[25, 25] == f.max()
    np.testing.assert_allclose(f, f.T, atol=1e-9)
    n = np.arange(51) - 25
    along = [abs((f * np.exp(-2j * np.pi * c / 16 * n)[:, None]).sum()) for c in (1.0, 2.0, 3.5)]  # c cycles
    root = np.exp(-2j * np.pi * 2.0 / 16 * np.sqrt(0.5) * n)
    assert along[0] == pytest.approx(1, abs=0.01) and along[1] == pytest.approx(0.5, abs=0.03) and along[2] < 0.01
    assert abs((f * np.outer(root, root)).sum()) == pytest.approx(along[1], abs=0.01)  # the same aslant


@pytest.mark.parametrize("width", [0.01, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("taps", [3, 6, 12, 24])
def test_the_shape_of_kaisers_window(taps: int, width: float) -> None:
    assert kaiser_beta(taps, width) == pytest.approx(signal.kaiser_beta(signal.kaiser_atten(taps, width)))


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("padding", [(2, 1), (0, 0), (9, 8), (-3, 2), (-4, -5)])
@pytest.mark.parametrize("separable", [True, False])
def test_both_changes_of_rate(factor: int, padding: tuple[int, int], separable: bool) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 14, 17, dtype=torch.float64, generator=random)
    f = torch.randn((5,) if separable else (5, 5), dtype=torch.float64, generator=random)
    dense = array(f.outer(f) if separable else f)
    margin = tuple(max(zeros, 0) for zeros in padding)
    cut = slice(max(-padding[0], 0), min(padding[1], 0) or None)
    raised = np.stack(
        [filtered(np.pad(zeros_between(row, factor), ((0, 0), margin, margin))[:, cut, cut], dense) for row in array(x)]
    )
    np.testing.assert_allclose(array(upsample(x, f, factor, padding)), raised, atol=1e-12)
    lowered = np.stack([filtered(row, dense)[:, ::factor, ::factor] for row in array(x)])
    np.testing.assert_allclose(array(downsample(x, f, factor)), lowered, atol=1e-12)


def test_doubling_keeps_a_constant_and_the_mean() -> None:
    f = 2 * binomial().double()
    x = upsample(torch.ones(1, 1, 6, 6, dtype=torch.float64), f, 2, (2, 1))
    assert x.shape == (1, 1, 12, 12) and torch.equal(x[..., 1:-1, 1:-1], torch.ones(1, 1, 10, 10, dtype=torch.float64))
