"""Reliability diagrams: how often predictions of a confidence are right, which is as often as they say on the diagonal.

(DeGroot & Fienberg 1983, The Statistician 32; Guo et al. 2017, arXiv:1706.04599, figure 1.) Bins with more predictions
have larger marks; the shaded area is what the calibration error adds up, were all bins equally full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from lcg.benchmarks.report.plots import svg
from lcg.benchmarks.results.estimates import Estimate

SIDE = 132
LEFT, TOP, RIGHT, BOTTOM = 26, 6, 8, 20


@dataclass(frozen=True)
class Bin:
    """Predictions of about the same confidence; `accuracy.n` is how many there are."""

    confidence: float
    accuracy: Estimate


def reliability(bins: Sequence[Bin], title: str) -> Markup:
    """One diagram, small enough for two beside each other on a phone.

    Args:
        bins: those that hold predictions.
        title: what is shown, for readers who hear the page.

    Returns:
        An svg element, 166 pixels wide.
    """
    bins = sorted(bins, key=lambda one: one.confidence)
    largest = max((one.accuracy.n or 1 for one in bins), default=1)

    def x(value: float) -> float:
        return LEFT + value * SIDE

    def y(value: float) -> float:
        return TOP + (1 - value) * SIDE

    parts = [
        f'<path class="grid" d="M{x(v):.1f},{y(0)}V{y(1)}M{x(0)},{y(v):.1f}H{x(1)}"/>'
        f'<text x="{x(v):.1f}" y="{y(0) + 14:.1f}" text-anchor="{"end" if v == 1 else "middle"}">{v:g}</text>'
        f'<text x="{LEFT - 6}" y="{y(v):.1f}" text-anchor="end" dominant-baseline="central">{v:g}</text>'
        for v in (0.0, 0.5, 1.0)
    ]
    parts.append(f'<path class="diagonal" d="M{x(0)},{y(0)}L{x(1)},{y(1)}"/><g class="s0">')
    if bins:
        curve = [(x(one.confidence), y(one.accuracy.value)) for one in bins]
        back = [(x(one.confidence), y(one.confidence)) for one in reversed(bins)]
        outline = "L".join(f"{px:.1f},{py:.1f}" for px, py in [*curve, *back])
        parts.append(f'<path class="area" d="M{outline}Z"/>')
        parts.append(f'<polyline points="{" ".join(f"{px:.1f},{py:.1f}" for px, py in curve)}"/>')
    for one in bins:
        radius = 1.5 + 3 * math.sqrt((one.accuracy.n or 1) / largest)
        count = f" of {one.accuracy.n}" if one.accuracy.n else ""
        said = f"confidence {one.confidence:.3f}: {one.accuracy.value:.3f}{count} right"
        if one.accuracy.stderr:
            low, high = (min(max(one.accuracy.value + s * one.accuracy.stderr, 0), 1) for s in (-1, 1))
            parts.append(f'<path class="bar" d="M{x(one.confidence):.1f},{y(low):.1f}V{y(high):.1f}"/>')
        parts.append(
            f'<circle cx="{x(one.confidence):.1f}" cy="{y(one.accuracy.value):.1f}" r="{radius:.1f}">'
            f"<title>{escape(said)}</title></circle>"
        )
    parts.append("</g>")
    return svg(parts, TOP + SIDE + BOTTOM, title, LEFT + SIDE + RIGHT)
