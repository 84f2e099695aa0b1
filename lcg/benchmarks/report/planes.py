"""Two measured numbers against each other, a curve per method: trade-offs, guidance scales, quality against cost.

An axis is linear, or logarithmic where values span orders of magnitude; zero, which has no logarithm, then stands at
its own tick left of (or below) the rest. Arrows at the axes point to what is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from lcg.benchmarks.report.plots import LEFT, RIGHT, WIDTH, classes_of, mark_of, svg
from lcg.benchmarks.results.estimates import Estimate
from lcg.benchmarks.results.vocabulary import describe

APART = 0.14
"""Share of a logarithmic axis that keeps zero apart."""


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Args:
        label: what readers call it.
        low: value at its beginning, below `high`; of a logarithmic one above 0.
        high: value at its end.
        ticks: values that are written at it, from low to high; 0 on a logarithmic one keeps a place for zero.
        log: whether it is logarithmic.
        better: whether higher or lower is better; None when neither is.
        decimals: of the values that marks tell.
    """

    label: str
    low: float = 0.0
    high: float = 1.0
    ticks: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    log: bool = False
    better: Literal["higher", "lower"] | None = "higher"
    decimals: int = 3

    def place(self, value: float) -> float:
        """Where a value stands, from 0 at the beginning to 1 at the end, and no further."""
        if not self.log:
            return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        start = APART if 0 in self.ticks else 0.0
        if value <= 0:
            return 0.0
        along = math.log(value / self.low) / math.log(self.high / self.low)
        return start + (1 - start) * min(max(along, 0.0), 1.0)


def share_of(metric: str) -> Axis:
    """The axis of a metric that is a share in [0, 1]."""
    return Axis(describe(metric).label, better=describe(metric).better)


def axis_of(metric: str, values: Iterable[float], log: bool = False) -> Axis:
    """An axis with room for values, from round numbers to round numbers.

    Args:
        metric: what it shows.
        values: at least one, finite.
        log: whether it is logarithmic; then values must be >= 0.
    """
    values = list(values)
    described = describe(metric)
    low, high, ticks = _logarithmic(values) if log else _linear(min(values), max(values))
    return Axis(described.label, low, high, ticks, log, described.better, described.decimals)


def _linear(low: float, high: float) -> tuple[float, float, tuple[float, ...]]:
    """Ends and ticks at multiples of 1, 2 or 5; from zero, unless all values are far from it."""
    if 0 <= low <= high / 2:
        low = 0.0
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = next(power * unit for unit in (1, 2, 5, 10) if span / (power * unit) <= 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        first, last = first - 1, last + 1
    ticks = tuple(float(f"{i * step:.12g}") for i in range(first, last + 1))
    return ticks[0], ticks[-1], ticks


def _logarithmic(values: Sequence[float]) -> tuple[float, float, tuple[float, ...]]:
    """Ends around the values and ticks at 1, 2 and 5 times powers of ten, at powers alone over many decades."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive) / 1.25, max(positive) * 1.25
    ticks: tuple[float, ...] = ()
    while len(ticks) < 2:
        units = (1,) if math.log10(high / low) > 2.2 else (1, 2, 5)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = tuple(float(f"{u}e{p}") for p in powers for u in units if low <= float(f"{u}e{p}") <= high)
        if len(ticks) < 2:
            low, high = low / 1.5, high * 1.5
    return low, high, (0.0, *ticks) if len(positive) < len(values) else ticks


@dataclass(frozen=True)
class Point:
    """A method at one strength.

    Args:
        across: what is drawn to the right.
        up: what is drawn upwards.
        strength: in the method's own unit; None where it has one only.
    """

    across: Estimate
    up: Estimate
    strength: float | None = None


@dataclass(frozen=True)
class Curve:
    """A method's points.

    Args:
        label: what readers call it.
        style: the number of its colour and of its mark; style 0 is drawn above the others, and stronger.
        points: in the order of its strengths.
    """

    label: str
    style: int
    points: Sequence[Point]

    @property
    def mark(self) -> str:
        return mark_of(self.style)

    @property
    def classes(self) -> str:
        return classes_of(self.style)


def trade_off(curves: Sequence[Curve], across: Axis, up: Axis, title: str) -> Markup:
    """Two shares against each other, on equal scales; shaded what style 0 dominates. See `plane`."""
    return plane(curves, across, up, title, WIDTH - LEFT - RIGHT, shaded=True)


def plane(
    curves: Sequence[Curve],
    across: Axis,
    up: Axis,
    title: str,
    height: float,
    shaded: bool = False,
    bars: bool = False,
    named: bool = True,
) -> Markup:
    """Two numbers against each other, a line per method through its strengths.

    Args:
        curves: one per method.
        across: the horizontal axis.
        up: the vertical axis.
        title: what is shown, for readers who hear the page.
        height: of the plane, in pixels.
        shaded: whether to shade what the points of style 0 dominate, where higher is better of both.
        bars: whether to draw one standard error up and down.
        named: whether to name the vertical axis; not where the heading does.

    Returns:
        An svg element. Every mark says its method, strength and numbers when it is pointed at.
    """
    left = max(LEFT, max(len(f"{v:g}") for v in up.ticks) * 7 + 2)
    top, width = 20 if named else 8, WIDTH - left - RIGHT
    bottom = top + height

    def x(value: float) -> float:
        return left + across.place(value) * width

    def y(value: float) -> float:
        return bottom - up.place(value) * height

    parts = _grid(across, up, left, top, bottom, x, y, named)
    for curve in sorted(curves, key=lambda one: one.style == 0):
        first = curve.style == 0
        parts.append(f'<g class="{curve.classes}{" strong" if first else ""}">')
        if first and shaded:
            parts.append(f'<path class="area" d="{_dominated(curve.points, x, y)}"/>')
        size = 1 if len(curve.points) == 1 else 0.85 if first else 0.6
        at = [(x(p.across.value), y(p.up.value), p) for p in curve.points]
        parts.append(f'<polyline points="{" ".join(f"{px:.1f},{py:.1f}" for px, py, _ in at)}"/>')
        for px, py, p in at:
            if bars and p.up.stderr:
                low, high = y(p.up.value - p.up.stderr), y(p.up.value + p.up.stderr)
                parts.append(f'<path class="bar" d="M{px:.1f},{low:.1f}V{high:.1f}"/>')
            parts.append(
                f'<path d="{curve.mark}" transform="translate({px:.1f},{py:.1f}) scale({size})">'
                f"<title>{escape(_said(curve, p, across, up))}</title></path>"
            )
        parts.append("</g>")
    return svg(parts, bottom + 36, title)


def _grid(
    across: Axis,
    up: Axis,
    left: float,
    top: float,
    bottom: float,
    x: Callable[[float], float],
    y: Callable[[float], float],
    named: bool,
) -> list[str]:
    right = WIDTH - RIGHT
    parts = [
        f'<path class="grid" d="M{x(v):.1f},{top}V{bottom:g}"/>'
        f'<text x="{x(v):.1f}" y="{bottom + 14:g}" text-anchor="middle">{v:g}</text>'
        for v in across.ticks
    ]
    parts += [
        f'<path class="grid" d="M{left:g},{y(v):.1f}H{right}"/>'
        f'<text x="{left - 6:g}" y="{y(v):.1f}" text-anchor="end" dominant-baseline="central">{v:g}</text>'
        for v in up.ticks
    ]
    if named:
        rises = {"higher": " ↑", "lower": " ↓", None: ""}[up.better]
        parts.append(f'<text class="title" x="0" y="{top - 9:g}">{escape(up.label)}{rises}</text>')
    runs = {"higher": " →", "lower": " ←", None: ""}[across.better]
    parts.append(
        f'<text class="title" x="{right}" y="{bottom + 30:g}" text-anchor="end">{escape(across.label)}{runs}</text>'
    )
    return parts


def _said(curve: Curve, point: Point, across: Axis, up: Axis) -> str:
    strength = "" if point.strength is None else f", strength {point.strength:g}"
    numbers = (f"{a.label} {e.value:.{a.decimals}f}" for a, e in ((across, point.across), (up, point.up)))
    return f"{curve.label}{strength}: {', '.join(numbers)}"


def _dominated(points: Sequence[Point], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """The outline of what points dominate: a staircase from the best at the top left down to the right."""
    outline, reached = [f"M{x(0):.1f},{y(0):.1f}"], 0.0
    for p in sorted(points, key=lambda p: (-p.up.value, -p.across.value)):
        if p.across.value > reached:
            outline.append(f"L{x(reached):.1f},{y(p.up.value):.1f}H{x(p.across.value):.1f}")
            reached = p.across.value
    return "".join([*outline, f"V{y(0):.1f}Z"])
