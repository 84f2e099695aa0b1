"""Two small drawings as inline SVG, for what a table tells badly: success along a sequence, and what ghosts cost.

Drawn by hand rather than by a plotting library, so that they take their colours from the page (light or dark), their
text from its font, and a few kilobytes. A method is told by the shape of its mark as well as by its colour.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        return MARKS[self.style % len(MARKS)]


def key(series: Series) -> Markup:
    """The mark of a method, for a legend in text."""
    return Markup(
        '<svg class="key s{}" width="12" height="12" viewBox="-6 -6 12 12" aria-hidden="true"><path d="{}"/></svg>'
    ).format(series.style % 6, series.mark)


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
        parts.append(f'<g class="s{one.style % 6}">')
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
        parts.append(f'<text x="0" y="{y + 4:.1f}">{escape(one.label)}</text><g class="s{one.style % 6}">')
        if len(ends) == 2:
            parts.append(f'<path class="link" d="M{ends[0]:.1f},{y:.1f}H{ends[1]:.1f}"/>')
        for estimate, kind in zip(one.estimates, ("open", "full"), strict=True):
            if estimate is not None:
                parts.append(
                    f'<path class="{kind}" d="{one.mark}" transform="translate({x(estimate.value):.1f},{y:.1f})"/>'
                )
        parts.append("</g>")
    return _svg(parts, bottom + 20, title)


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
