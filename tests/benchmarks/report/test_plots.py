"""Charts: well-formed SVG, values where the scale puts them, names escaped, mistakes refused."""

import re
from xml.etree import ElementTree

import pytest

from lcg.benchmarks.report.plots import COLOURS, MARKS, Series, dumbbells, key, lines
from lcg.benchmarks.results.estimates import Estimate

SVG = "svg"


def marks(drawing: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"translate\(([-\d.]+),([-\d.]+)\)", drawing)]


def test_lines_put_proportions_on_a_linear_scale() -> None:
    drawing = lines(["+a", "-b", "+c"], [Series("lcg", 0, [Estimate(v, 0.01) for v in (1.0, 0.5, 0.0)])], "success")
    ElementTree.fromstring(drawing)
    (x1, top), (x2, middle), (x3, bottom) = marks(drawing)
    assert top < middle < bottom and middle == pytest.approx((top + bottom) / 2) and x3 - x2 == pytest.approx(x2 - x1)
    assert drawing.count('class="bar"') == 3 and 'aria-label="success"' in drawing


def test_a_step_that_was_not_measured_is_left_out() -> None:
    drawing = lines(["a", "b"], [Series("lcg", 0, [None, Estimate(0.5)])], "")
    assert len(marks(drawing)) == 1 and 'class="bar"' not in drawing


def test_step_names_that_do_not_fit_become_numbers() -> None:
    steps = [f"hair_color=very_long_{i}" for i in range(6)]
    drawing = lines(steps, [Series("lcg", 0, [Estimate(0.5)] * 6)], "")
    assert ">6</text>" in drawing and "very_long" not in drawing


def test_dumbbells_join_an_open_and_a_full_mark() -> None:
    drawing = dumbbells(
        [Series("a", 0, [Estimate(0.9), Estimate(0.4)]), Series("b", 1, [None, Estimate(0.4)])], "ghosts"
    )
    ElementTree.fromstring(drawing)
    assert drawing.count('class="open"') == drawing.count('class="link"') == 1 and drawing.count('class="full"') == 2
    (first, _), (second, _), (third, _) = marks(drawing)
    assert first > second == third


def test_names_from_files_are_escaped() -> None:
    bad = "<script>&"
    for drawing in (
        lines([bad], [Series("m", 0, [Estimate(0.5)])], bad),
        dumbbells([Series(bad, 0, [Estimate(0.5), Estimate(0.5)])], bad),
    ):
        assert "<script" not in drawing
        ElementTree.fromstring(drawing)


def test_methods_differ_in_shape_and_any_number_of_them_is_drawn() -> None:
    assert len({Series("m", i, []).mark for i in range(4)}) == len(MARKS)
    ElementTree.fromstring(key(Series("m", 111, [])))


def test_the_first_method_has_a_colour_of_its_own_and_28_others_differ_in_colour_or_mark() -> None:
    looks = [(s.classes.split()[0], s.mark) for s in (Series("m", i, []) for i in range(29))]
    assert len(set(looks)) == 29
    assert {colour for colour, _ in looks} == {f"s{i}" for i in range(COLOURS)}
    assert "s0" not in {colour for colour, _ in looks[1:]}


def test_series_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'m' must have one estimate for each of the steps \['a', 'b'\], got 1; put None"
    ):
        lines(["a", "b"], [Series("m", 0, [None])], "")
    with pytest.raises(ValueError, match=r"each of the ends"):
        dumbbells([Series("m", 0, [None])], "")
