"""Reliability diagrams: honest bins lie on the diagonal, fuller ones are larger."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from lcg.benchmarks.report.reliability import SIDE, Bin, reliability
from lcg.benchmarks.results.estimates import Estimate


def circles(drawing: str) -> list[tuple[float, float, float]]:
    found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', drawing)
    return [(float(x), float(y), float(r)) for x, y, r in found]


def test_honest_bins_lie_on_the_diagonal_and_too_sure_ones_below() -> None:
    bins = [Bin(v, Estimate(v, 0.1, 100)) for v in (0.9, 0.3, 0.6)]
    drawing = reliability([*bins, Bin(1.0, Estimate(0.5, None, 100))], "t=0.5")
    ElementTree.fromstring(drawing)
    x0, y0, x1, y1 = map(float, re.findall(r'"diagonal" d="M([\d.]+),([\d.]+)L([\d.]+),([\d.]+)"', drawing)[0])
    assert x1 - x0 == y0 - y1 == SIDE
    *honest, (x, y, _) = circles(drawing)
    assert [x - x0 for x, _, _ in honest] == pytest.approx([SIDE * v for v in (0.3, 0.6, 0.9)], abs=0.06)
    assert all(x - x0 == pytest.approx(y0 - y, abs=0.11) for x, y, _ in honest)
    assert (x, y) == (x1, pytest.approx((y0 + y1) / 2, abs=0.06))
    assert drawing.count('class="bar"') == 3


def test_the_area_of_a_mark_grows_with_the_predictions_in_its_bin() -> None:
    (_, _, small), (_, _, large) = circles(
        reliability([Bin(0.5, Estimate(0.5, n=1)), Bin(0.9, Estimate(0.9, n=400))], "")
    )
    assert small < large and "0.900 of 400 right" in reliability([Bin(0.9, Estimate(0.9, n=400))], "")


def test_without_predictions_the_diagonal_remains() -> None:
    drawing = reliability([], "<nothing>")
    ElementTree.fromstring(drawing)
    assert circles(drawing) == [] and "diagonal" in drawing and "<nothing>" not in drawing
