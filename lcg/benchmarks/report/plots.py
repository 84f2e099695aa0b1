"""Small drawings as inline SVG, for what a table tells badly: success along a sequence, what ghosts cost.

Drawn by hand rather than by a plotting library, so that they take their colours from the page (light or dark), their
text from its font, and a few kilobytes. A method is told by the shape of its mark as well as by its colour; the first
method, style 0, has a colour of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from markupsafe import Markup, escape

from lcg.benchmarks.results.estimates import Estimate

WIDTH = 340  # CSS pixels: a phone's column, so that text is never scaled down
CHARACTER = 6.6  # width of a character of the labels, in pixels
NARROW = 256
LEFT, RIGHT = 30, 8

MARKS = (  # a circle, a square, a triangle and a diamond of equal area around the origin
    "M4,0A4,4 0 1 1 -4,0A4,4 0 1 1 4,0Z",
    "M-3.6,-3.6H3.6V3.6H-3.6Z",
    "M0,-5.2L4.8,3.2H-4.8Z",
    "M0,-5.2L5.2,0L0,5.2L-5.2,0Z",
)
COLOURS = 8  # s0 to s7 of the page: one for style 0, seven for the others, so that 28 of those differ in colour or mark


class Labelled(Protocol):
    """What has a name, a colour and a mark."""

    @property
    def label(self) -> str: ...

    @property
    def style(self) -> int: ...

    @property
    def mark(self) -> str: ...

    @property
    def classes(self) -> str: ...


@dataclass(frozen=True)
class Series:
    """A method's numbers.

    Args:
        label: what readers call it.
        style: the number of its colour and of its mark.
        estimates: one per step or column, None where it was not measured; proportions in [0, 1].
    """

    label: str
    style: int
    estimates: Sequence[Estimate | None]

    @property
    def mark(self) -> str:
        return mark_of(self.style)

    @property
    def classes(self) -> str:
        return classes_of(self.style)


def key(series: Labelled) -> Markup:
    """The mark of a method, for a legend in text."""
    return Markup(
        '<svg class="key {}" width="12" height="12" viewBox="-6 -6 12 12" aria-hidden="true"><path d="{}"/></svg>'
    ).format(series.classes, series.mark)


def lines(steps: Sequence[str], series: Sequence[Series], title: str) -> Markup:
    """Proportions along a sequence of steps, one line per method, with a bar of one standard error.

    Args:
        steps: S names, written under the axis.
        series: S estimates each.
        title: what is shown, for readers who hear the page.

    Returns:
        An svg element.

    Raises:
        ValueError: a series has another number of estimates than there are steps.
    """
    for one in series:
        _same_length(one, "steps", steps)
    top, bottom = 8, 132
    pitch = (WIDTH - LEFT - RIGHT) / len(steps)
    labels, rows = _labels(steps, pitch)

    def y(value: float) -> float:
        return bottom - min(max(value, 0.0), 1.0) * (bottom - top)

    parts = [
        f'<path class="grid" d="M{LEFT},{y(v):.1f}H{WIDTH - RIGHT}"/><text x="{LEFT - 6}" y="{y(v) + 4:.1f}" '
        f'text-anchor="end">{v:g}</text>'
        for v in (0.0, 0.5, 1.0)
    ]
    for i, label in enumerate(labels):
        parts.append(
            f'<text x="{LEFT + (i + 0.5) * pitch:.1f}" y="{bottom + 17 + 15 * (i % rows)}" text-anchor="middle">'
            f"{escape(label)}</text>"
        )
    for order, one in enumerate(series):
        shift = (order - (len(series) - 1) / 2) * 7  # side by side, so that equal values do not hide each other
        points = [
            (LEFT + (i + 0.5) * pitch + shift, y(e.value), e) for i, e in enumerate(one.estimates) if e is not None
        ]
        parts.append(f'<g class="{one.classes}">')
        parts.append(f'<polyline points="{" ".join(f"{px:.1f},{py:.1f}" for px, py, _ in points)}"/>')
        for px, py, e in points:
            if e.stderr:
                parts.append(
                    f'<path class="bar" d="M{px:.1f},{y(e.value - e.stderr):.1f}V{y(e.value + e.stderr):.1f}"/>'
                )
            parts.append(f'<path d="{one.mark}" transform="translate({px:.1f},{py:.1f})"/>')
        parts.append("</g>")
    return svg(parts, bottom + 8 + 15 * rows, title)


def dumbbells(series: Sequence[Series], title: str, ranked: bool = False) -> Markup:
    """Two proportions per method, joined: an open mark for the first, a full one for the second.

    Args:
        series: two estimates each; a method without both shows the one it has.
        title: what is shown, for readers who hear the page.
        ranked: whether to draw many methods close together, sorted by their second proportion; then only style 0 has a
            colour, as the names beside the rows tell the others.

    Returns:
        An svg element.

    Raises:
        ValueError: a series has not two estimates.
    """
    for one in series:
        _same_length(one, "ends", ("open", "full"))
    if ranked:
        series = sorted(series, key=_height, reverse=True)
    left = max((len(one.label) for one in series), default=0) * CHARACTER + 16
    pitch, top, width = (18, 6, NARROW) if ranked else (22, 6, WIDTH)
    bottom = top + pitch * len(series)

    def x(value: float) -> float:
        return left + min(max(value, 0.0), 1.0) * (width - RIGHT - left)

    parts = [
        f'<path class="grid" d="M{x(v):.1f},{top}V{bottom}"/>'
        f'<text x="{x(v):.1f}" y="{bottom + 14}" text-anchor="middle">{v:g}</text>'
        for v in (0.0, 0.5, 1.0)
    ]
    for i, one in enumerate(series):
        y = top + (i + 0.5) * pitch
        ends = [x(e.value) for e in one.estimates if e is not None]
        plain = ranked and one.style != 0
        mark, classes = (MARKS[0], "s5") if plain else (one.mark, one.classes)
        name = "" if plain or not ranked else ' class="title"'
        parts.append(f'<text{name} x="0" y="{y + 4:.1f}">{escape(one.label)}</text><g class="{classes}">')
        if len(ends) == 2:
            parts.append(f'<path class="link" d="M{ends[0]:.1f},{y:.1f}H{ends[1]:.1f}"/>')
        for estimate, kind in zip(one.estimates, ("open", "full"), strict=True):
            if estimate is not None:
                parts.append(
                    f'<path class="{kind}" d="{mark}" transform="translate({x(estimate.value):.1f},{y:.1f})"/>'
                )
        parts.append("</g>")
    return svg(parts, bottom + 20, title, width)


def _height(one: Series) -> list[float]:
    """What methods are sorted by: the second proportion, where it is equal the first."""
    return [-1.0 if e is None else e.value for e in reversed(one.estimates)]


def mark_of(style: int) -> str:
    """The outline of a method's mark."""
    return MARKS[style % len(MARKS)]


def classes_of(style: int) -> str:
    """What the page's style sheet knows a method by: its colour, and its own number to make it stand out."""
    return f"s{1 + (style - 1) % (COLOURS - 1) if style else 0} m{style}"


def _labels(steps: Sequence[str], pitch: float) -> tuple[list[str], int]:
    """The steps' names and in how many rows they stand; their numbers where names do not fit in two rows."""
    widest = max(len(step) for step in steps) * CHARACTER
    for rows in (1, 2):
        if widest <= pitch * rows - 4:
            return list(steps), min(rows, len(steps))
    return [str(i + 1) for i in range(len(steps))], 1


def svg(parts: Sequence[str], height: float, title: str, width: float = WIDTH) -> Markup:
    """A drawing of these elements, which must be escaped; its title is for readers who hear the page."""
    return Markup(
        f'<svg class="plot" role="img" aria-label="{escape(title)}" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}">{"".join(parts)}</svg>'
    )


def _same_length(series: Series, name: str, expected: Sequence[str]) -> None:
    if len(series.estimates) != len(expected):
        raise ValueError(
            f"`series`: {series.label!r} must have one estimate for each of the {name} {list(expected)}, "
            f"got {len(series.estimates)}; put None where nothing was measured"
        )
