"""Small drawings as inline SVG, for what a table tells badly: success along a sequence, what ghosts cost, trade-offs.

Drawn by hand rather than by a plotting library, so that they take their colours from the page (light or dark), their
text from its font, and a few kilobytes. A method is told by the shape of its mark as well as by its colour; the first
method, style 0, has a colour of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from lcg.benchmarks.estimates import Estimate

WIDTH = 340  # CSS pixels: a phone's column, so that text is never scaled down
CHARACTER = 6.6  # width of a character of the labels, in pixels
LEFT, RIGHT = 30, 8

MARKS = (  # a circle, a square, a triangle and a diamond of equal area around the origin
    "M4,0A4,4 0 1 1 -4,0A4,4 0 1 1 4,0Z",
    "M-3.6,-3.6H3.6V3.6H-3.6Z",
    "M0,-5.2L4.8,3.2H-4.8Z",
    "M0,-5.2L5.2,0L0,5.2L-5.2,0Z",
)
COLOURS = 8  # s0 to s7 of the page: one for style 0, seven for the others, so that 28 of those differ in colour or mark


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
        return _mark(self.style)

    @property
    def classes(self) -> str:
        return _classes(self.style)


@dataclass(frozen=True)
class Point:
    """A method at one strength.

    Args:
        strength: of the edits, in the method's own unit.
        across: what is drawn to the right, a proportion in [0, 1].
        up: what is drawn upwards, a proportion in [0, 1].
    """

    strength: float
    across: Estimate
    up: Estimate


@dataclass(frozen=True)
class Curve:
    """A method's trade-off.

    Args:
        label: what readers call it.
        style: the number of its colour and of its mark; style 0 is drawn above the others, with the area it dominates.
        points: in the order of its strengths.
    """

    label: str
    style: int
    points: Sequence[Point]

    @property
    def mark(self) -> str:
        return _mark(self.style)

    @property
    def classes(self) -> str:
        return _classes(self.style)


def key(series: Series | Curve) -> Markup:
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
    return _svg(parts, bottom + 8 + 15 * rows, title)


def dumbbells(series: Sequence[Series], title: str) -> Markup:
    """Two proportions per method, joined: an open mark for the first, a full one for the second.

    Args:
        series: two estimates each; a method without both shows the one it has.
        title: what is shown, for readers who hear the page.

    Returns:
        An svg element.

    Raises:
        ValueError: a series has not two estimates.
    """
    for one in series:
        _same_length(one, "ends", ("open", "full"))
    left = max((len(one.label) for one in series), default=0) * CHARACTER + 16
    pitch, top = 22, 6
    bottom = top + pitch * len(series)

    def x(value: float) -> float:
        return left + min(max(value, 0.0), 1.0) * (WIDTH - RIGHT - left)

    parts = [
        f'<path class="grid" d="M{x(v):.1f},{top}V{bottom}"/>'
        f'<text x="{x(v):.1f}" y="{bottom + 14}" text-anchor="middle">{v:g}</text>'
        for v in (0.0, 0.5, 1.0)
    ]
    for i, one in enumerate(series):
        y = top + (i + 0.5) * pitch
        ends = [x(e.value) for e in one.estimates if e is not None]
        parts.append(f'<text x="0" y="{y + 4:.1f}">{escape(one.label)}</text><g class="{one.classes}">')
        if len(ends) == 2:
            parts.append(f'<path class="link" d="M{ends[0]:.1f},{y:.1f}H{ends[1]:.1f}"/>')
        for estimate, kind in zip(one.estimates, ("open", "full"), strict=True):
            if estimate is not None:
                parts.append(
                    f'<path class="{kind}" d="{one.mark}" transform="translate({x(estimate.value):.1f},{y:.1f})"/>'
                )
        parts.append("</g>")
    return _svg(parts, bottom + 20, title)


def trade_off(curves: Sequence[Curve], across: str, up: str, title: str) -> Markup:
    """Two proportions against each other, a line per method through its strengths; the best is at the top right.

    Args:
        curves: one per method.
        across: what the horizontal axis shows.
        up: what the vertical axis shows.
        title: what is shown, for readers who hear the page.

    Returns:
        An svg element. Every mark says its method, strength and numbers when it is pointed at.
    """
    top, side = 20, WIDTH - LEFT - RIGHT
    bottom = top + side

    def x(value: float) -> float:
        return LEFT + min(max(value, 0.0), 1.0) * side

    def y(value: float) -> float:
        return bottom - min(max(value, 0.0), 1.0) * side

    parts = [
        f'<path class="grid" d="M{x(v):.1f},{top}V{bottom}M{LEFT},{y(v):.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{x(v):.1f}" y="{bottom + 14}" text-anchor="middle">{v:g}</text>'
        f'<text x="{LEFT - 6}" y="{y(v):.1f}" text-anchor="end" dominant-baseline="central">{v:g}</text>'
        for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    parts.append(
        f'<text class="title" x="{LEFT}" y="{top - 9}">{escape(up)} ↑</text>'
        f'<text class="title" x="{WIDTH - RIGHT}" y="{bottom + 30}" text-anchor="end">{escape(across)} →</text>'
    )
    for curve in sorted(curves, key=lambda one: one.style == 0):
        first = curve.style == 0
        parts.append(f'<g class="{curve.classes}{" strong" if first else ""}">')
        if first:
            parts.append(f'<path class="area" d="{_dominated(curve.points, x, y)}"/>')
        at = [(x(p.across.value), y(p.up.value), p) for p in curve.points]
        parts.append(f'<polyline points="{" ".join(f"{px:.1f},{py:.1f}" for px, py, _ in at)}"/>')
        for px, py, p in at:
            said = f"{curve.label}, strength {p.strength:g}: {across} {p.across.value:.3f}, {up} {p.up.value:.3f}"
            parts.append(
                f'<path d="{curve.mark}" transform="translate({px:.1f},{py:.1f}) scale({0.85 if first else 0.6})">'
                f"<title>{escape(said)}</title></path>"
            )
        parts.append("</g>")
    return _svg(parts, bottom + 36, title)


def _dominated(points: Sequence[Point], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """The outline of what points dominate: a staircase from the best at the top left down to the right."""
    outline, reached = [f"M{x(0):.1f},{y(0):.1f}"], 0.0
    for p in sorted(points, key=lambda p: (-p.up.value, -p.across.value)):
        if p.across.value > reached:
            outline.append(f"L{x(reached):.1f},{y(p.up.value):.1f}H{x(p.across.value):.1f}")
            reached = p.across.value
    return "".join([*outline, f"V{y(0):.1f}Z"])


def _mark(style: int) -> str:
    return MARKS[style % len(MARKS)]


def _classes(style: int) -> str:
    """What the page's style sheet knows a method by: its colour, and its own number to make it stand out."""
    return f"s{1 + (style - 1) % (COLOURS - 1) if style else 0} m{style}"


def _labels(steps: Sequence[str], pitch: float) -> tuple[list[str], int]:
    """The steps' names and in how many rows they stand; their numbers where names do not fit in two rows."""
    widest = max(len(step) for step in steps) * CHARACTER
    for rows in (1, 2):
        if widest <= pitch * rows - 4:
            return list(steps), min(rows, len(steps))
    return [str(i + 1) for i in range(len(steps))], 1


def _svg(parts: Sequence[str], height: float, title: str) -> Markup:
    return Markup(
        f'<svg class="plot" role="img" aria-label="{escape(title)}" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}">{"".join(parts)}</svg>'
    )


def _same_length(series: Series, name: str, expected: Sequence[str]) -> None:
    if len(series.estimates) != len(expected):
        raise ValueError(
            f"`series`: {series.label!r} must have one estimate for each of the {name} {list(expected)}, "
            f"got {len(series.estimates)}; put None where nothing was measured"
        )
