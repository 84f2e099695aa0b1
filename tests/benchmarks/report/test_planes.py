"""Planes: axes with round ticks, values where the scale puts them, marks that say what they are."""

import itertools
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from lcg.benchmarks.report.planes import APART, Axis, Curve, Point, axis_of, plane, share_of, trade_off
from lcg.benchmarks.results.estimates import Estimate
from lcg.metrics.pareto import pareto_area

ACCURACY, KEPT = Axis("accuracy"), Axis("kept")


def marks(drawing: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"translate\(([-\d.]+),([-\d.]+)\)", drawing)]


# --- axes ---


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (3.0, 170.0), (11.2, 15.9), (-0.004, 0.02), (5.0, 5.0), (0.0, 0.0), (-3.0, -3.0)]
)
def test_linear_axes_hold_all_values_between_round_ticks_at_equal_distances(low: float, high: float) -> None:
    axis = axis_of("diversity", [low, high])
    assert axis.ticks[0] == axis.low <= low <= high <= axis.high == axis.ticks[-1]
    steps = np.diff(axis.ticks)
    assert 2 <= len(axis.ticks) <= 7 and np.allclose(steps, steps[0], rtol=1e-9)
    assert float(f"{steps[0]:.0e}"[0]) in (1, 2, 5)
    assert axis.place(axis.low) == 0 and axis.place(axis.high) == 1


def test_linear_axes_begin_at_zero_unless_all_values_are_far_from_it() -> None:
    assert axis_of("fid", [40.0, 100.0]).low == 0 and axis_of("fid", [90.0, 100.0]).low > 0


@pytest.mark.parametrize("values", [(0.5, 16.0), (30.0, 30.0), (1.0, 1e6), (7.0, 8.0)])
def test_logarithmic_axes_keep_ratios_and_have_ticks(values: tuple[float, float]) -> None:
    axis = axis_of("evaluations", values, log=True)
    assert axis.low < min(values) and max(values) < axis.high and len(axis.ticks) >= 2
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    low, middle, high = (axis.place(v) for v in (axis.low, math.sqrt(axis.low * axis.high), axis.high))
    assert (low, middle, high) == pytest.approx((0, 0.5, 1))


def test_zero_has_a_place_of_its_own_on_a_logarithmic_axis() -> None:
    axis = axis_of("evaluations", [0.0, 10.0, 1000.0], log=True)
    assert axis.ticks[0] == 0 and axis.place(0.0) == 0 and axis.place(axis.low) == APART < axis.place(10.0)
    assert axis_of("evaluations", [0.0, 0.0], log=True).place(0.0) == 0


def test_shares_have_the_whole_scale_and_nothing_leaves_an_axis() -> None:
    axis = share_of("joint_accuracy")
    assert (axis.label, axis.low, axis.high, axis.better) == ("joint accuracy", 0, 1, "higher")
    assert (axis.place(-1), axis.place(0.25), axis.place(2)) == (0, 0.25, 1)


# --- planes ---


def test_marks_stand_where_the_axes_say_and_tell_their_numbers() -> None:
    across = axis_of("evaluations", [1.0, 100.0], log=True)
    up = axis_of("frechet_distance", [0.0, 40.0])
    points = [Point(Estimate(float(10**i)), Estimate(20.0 * i, 2.0), float(i)) for i in range(3)]
    drawing = plane([Curve("lcg", 0, points)], across, up, "title", 200, bars=True)
    ElementTree.fromstring(drawing)
    (x1, y1), (x2, y2), (x3, y3) = marks(drawing)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11) and y1 - y2 == pytest.approx(100, abs=0.11) and y1 - y3 == 200
    assert drawing.count('class="bar"') == 3 and 'class="area"' not in drawing
    assert "lcg, strength 1: network evaluations / sample 10, Fréchet distance 20.0</title>" in drawing
    assert ">Fréchet distance ↓<" in drawing and ">network evaluations / sample ←<" in drawing
    assert "Fréchet distance ↓" not in plane([], across, up, "", 200, named=False)


def test_long_tick_labels_have_room() -> None:
    up = axis_of("fid", [0.0, 200_000.0])
    drawing = plane([], ACCURACY, up, "", 100)
    x = [float(v) for v in re.findall(r'<text x="([-\d.]+)" y="[-\d.]+" text-anchor="end" dominant', drawing)]
    assert min(x) >= 6 * max(len(f"{tick:g}") for tick in up.ticks)


def test_names_from_files_are_escaped() -> None:
    bad = "<script>&"
    drawing = plane([curve(bad, 0, (0.5, 0.5))], Axis(bad), Axis(bad), bad, 100)
    assert "<script" not in drawing
    ElementTree.fromstring(drawing)


# --- trade-offs ---


def curve(label: str, style: int, *points: tuple[float, float]) -> Curve:
    return Curve(label, style, [Point(Estimate(a), Estimate(k), 0.5 * (i + 1)) for i, (a, k) in enumerate(points)])


def test_trade_off_puts_accuracy_to_the_right_and_preservation_upwards_on_equal_scales() -> None:
    drawing = trade_off([curve("lace", 1, (0.0, 1.0), (0.5, 0.5), (1.0, 0.0))], ACCURACY, KEPT, "trade")
    ElementTree.fromstring(drawing)
    (x1, y1), (x2, y2), (x3, y3) = marks(drawing)
    assert x2 - x1 == x3 - x2 == y2 - y1 == y3 - y2 > 100
    assert re.findall('<polyline points="([^"]*)"', drawing) == [f"{x1},{y1} {x2},{y2} {x3},{y3}"]
    assert "lace, strength 1.5: accuracy 1.000, kept 0.000" in drawing and 'aria-label="trade"' in drawing


def test_the_first_method_is_drawn_above_the_others() -> None:
    drawing = trade_off([curve("lcg", 0, (0.5, 0.5)), curve("lace", 1, (0.5, 0.5))], ACCURACY, KEPT, "")
    assert drawing.index("lace, strength") < drawing.index("lcg, strength")
    assert drawing.count('class="area"') == drawing.count(" strong") == 1
    assert 'class="area"' not in trade_off([curve("lace", 1, (0.5, 0.5))], ACCURACY, KEPT, "")


def test_what_is_shaded_is_the_area_of_the_metric() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 9):
        points = rng.uniform(size=(n, 2))
        drawing = trade_off([curve("lcg", 0, *points)], ACCURACY, KEPT, "")
        (outline,) = re.findall('class="area" d="([^"]*)"', drawing)
        x, y, corners = 0.0, 0.0, []
        for command, numbers in re.findall("([MLHV])([-0-9.,]+)", outline):
            values = [float(v) for v in numbers.split(",")]
            x, y = values if command in "ML" else (values[0], y) if command == "H" else (x, values[0])
            corners.append((x, y))
        shoelace = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in itertools.pairwise([*corners, corners[0]])) / 2
        side = 340 - 30 - 8
        assert abs(shoelace) / side**2 == pytest.approx(pareto_area(*points.T), abs=0.002)  # drawn to 0.1 pixels


def test_trade_offs_without_points_are_empty_but_drawn() -> None:
    drawing = trade_off([curve("lcg", 0)], ACCURACY, KEPT, "")
    ElementTree.fromstring(drawing)
    assert marks(drawing) == []
