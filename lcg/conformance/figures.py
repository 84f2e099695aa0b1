"""Pictures of a run: samples against the exact density, every check on one axis; a trained pair's averages over t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lcg.conformance.distances import total_variation
from lcg.conformance.laboratory import Laboratory
from lcg.conformance.outcome import Outcome
from lcg.conformance.pair import TIMES, Pair
from lcg.conformance.particles import run as run_particles
from lcg.conformance.sampling import FAST, Negated, guide, product
from lcg.metrics.diagnostics_plot import BLUE, GREY, INK, LINE, RUST, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREEN, SHADE = "#4c7a2f", "#eceeec"
BINS = 44
EXACT: Any = {"color": INK, "linewidth": 0.9}
WRONG: Any = {"color": RUST, "linewidth": 1.6}
RIGHT: Any = {"color": BLUE, "marker": "o", "markersize": 3.2, "linestyle": "none"}
WEIGHTED: Any = {
    "color": GREEN,
    "marker": "D",
    "markersize": 3.4,
    "linestyle": "none",
    "markerfacecolor": "none",
    "markeredgewidth": 0.9,
}
LEGEND = (
    ("exact density", EXACT),
    ("product of separate classifiers", WRONG),
    ("exact joint", RIGHT),
    ("product, weighted by twisted SMC", WEIGHTED),
)
PALETTE = ("#1f6fb5", "#b8561c", "#4c7a2f", "#7d4ea3", "#9a6a00", "#62686f")
GROUPS = ("samplers", "formulas", "correctors", "particles", "controls")

CAPTION = (
    "Above: samples, as dots and steps, on the exact density of what is asked for, in grey. The sum of the scores of "
    "perfect but separate classifiers misses it where attributes depend on one another; the exact joint and twisted "
    "sequential Monte Carlo do not. Below: total variation of every check; strokes are the floors of exact samples "
    "(grey) and bounds (pale). Methods must lie left of their bounds, negative controls right of 0.1."
)
PAIR_CAPTION = (
    "What the classifier expects on average: on the left over validation latents noised to t, on the right over the "
    "prior's own latents on their way from noise. Dashed: the labels' shares. For an exact pair all lines are level."
)


def draw_suite(lab: Laboratory, outcomes: Sequence[Outcome], path: Path) -> None:
    """Histograms on one line, and every total variation.

    Args:
        lab: where the checks were made.
        outcomes: of the checks.
        path: of the PNG.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    with mpl.rc_context(STYLE):
        figure = Figure((12.0, 6.2), facecolor="white", dpi=130)
        FigureCanvasAgg(figure)
        above = figure.add_gridspec(1, 4, left=0.07, right=0.985, top=0.87, bottom=0.53, wspace=0.1)
        panels = [figure.add_subplot(above[0, i]) for i in range(4)]
        _conjunction(panels[0], lab, "line", 1.0, "a & b")
        _conjunction(panels[1], lab, "line mixture", 1.0, "a & b, two modes")
        _conjunction(panels[2], lab, "line", 3.0, "a & b, weight 3")
        _negation(panels[3], lab)
        handles = [Line2D([], [], label=label, **look) for label, look in LEGEND]
        figure.legend(handles=handles, loc="upper left", ncols=4, bbox_to_anchor=(0.06, 1.0), columnspacing=2.5)
        _overview(figure.add_axes((0.07, 0.07, 0.915, 0.34)), outcomes)
        figure.savefig(path)


def _conjunction(axes: Axes, lab: Laboratory, world: str, weight: float, title: str) -> None:
    w, formula = lab.worlds[world], "a & b"
    drawn = [(guide(lab, world, [product(w, formula)], FAST, weight), WRONG)]
    if weight == 1:
        drawn.append((guide(lab, world, [w.joint(formula)], FAST), RIGHT))
    drawn.append((run_particles(lab, "twisted SMC", world, formula, weight)[0], WEIGHTED))
    _panel(axes, lab, world, formula, weight, drawn)
    axes.set_title(title)


def _negation(axes: Axes, lab: Laboratory) -> None:
    w = lab.worlds["line"]
    drawn = [(guide(lab, "line", [Negated(w, "a")], FAST), WRONG), (guide(lab, "line", [w.joint("~a")], FAST), RIGHT)]
    _panel(axes, lab, "line", "~a", 1.0, drawn)
    axes.set_title("~a")
    axes.text(0.03, 0.4, "score negated", color=RUST, transform=axes.transAxes)
    axes.text(0.03, 0.52, "log(1 - P(a))", color=BLUE, transform=axes.transAxes)


def _panel(
    axes: Axes, lab: Laboratory, world: str, formula: str, weight: float, drawn: Sequence[tuple[Tensor, dict[str, Any]]]
) -> None:
    """Samples on the exact density, which is normalised on a grid; their total variation in the corner."""
    z = torch.linspace(-4.0, 4.0, 4001, dtype=torch.float64)
    density = lab.worlds[world].log_density(z[:, None], formula, weight).exp()
    density = density / (density.sum() * (z[1] - z[0]))
    seen = z[density > 2e-3 * density.max()]
    edges = torch.linspace(float(seen[0]) - 0.4, float(seen[-1]) + 0.8, BINS + 1, dtype=torch.float64)
    axes.fill_between(z, density, color=SHADE, linewidth=0)
    axes.plot(z, density, **EXACT)
    reference = lab.reference(world, formula, weight)
    for i, (samples, look) in enumerate(drawn):
        counts = torch.histogram(samples[:, 0].double(), edges).hist
        heights = counts / (len(samples) * (edges[1] - edges[0]))
        if look is WRONG:
            axes.stairs(heights, edges, **look)
        else:
            axes.plot(((edges[1:] + edges[:-1]) / 2)[heights > 0], heights[heights > 0], **look)
        distance = total_variation(samples, reference, lab.axes(world))
        axes.text(
            0.99,
            0.97 - 0.1 * i,
            f"TV {distance:.3f}",
            color=look["color"],
            ha="right",
            va="top",
            transform=axes.transAxes,
        )
    axes.set(yticks=(), xlim=(float(edges[0]), float(edges[-1])))
    axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
    axes.spines["left"].set_visible(False)


def _overview(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Total variation of every check, a row per group, on a logarithmic axis."""
    axes.axvspan(0.1, 1.0, color="#f7ece5", linewidth=0, zorder=0)
    axes.axvline(0.1, color=RUST, linewidth=0.8)
    axes.text(0.104, -0.78, "negative controls must be here", color=RUST, fontsize=8, va="center")
    for row, group in enumerate(GROUPS):
        found = [
            m
            for outcome in outcomes
            if outcome.check.group == group
            for m in outcome.measurements
            if m.metric == "total variation" and not math.isnan(m.value)
        ]
        for i, m in enumerate(found):
            y = row + 0.6 * ((i + 0.5) / len(found) - 0.5)
            floor = max(m.floor or 0.0, 1e-3)
            axes.plot((floor, floor), (y - 0.09, y + 0.09), color=GREY, linewidth=1.0, zorder=2)
            if m.expected == "right":
                axes.plot((m.bound, m.bound), (y - 0.09, y + 0.09), color=LINE, linewidth=1.6, zorder=1)
            colour = RUST if m.expected == "wrong" else BLUE
            look: dict[str, Any] = (
                {"s": 22, "color": colour} if m.passed else {"s": 60, "color": INK, "marker": "x", "linewidth": 2}
            )
            axes.scatter(m.value, y, zorder=3, **look)
    axes.set(xscale="log", xlim=(0.006, 1.0), ylim=(len(GROUPS) - 0.5, -1.1), title="every check, total variation")
    axes.set_yticks(range(len(GROUPS)), GROUPS)
    ticks = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.tick_params(axis="x", which="minor", length=0)
    axes.tick_params(axis="y", length=0)


def draw_pair(pair: Pair, outcomes: Sequence[Outcome], path: Path) -> None:
    """Averages of every binary attribute over t: of data where there are any, and along the prior's path.

    Args:
        pair: the trained pair.
        outcomes: of its checks; attributes whose averages failed are drawn bold.
        path: of the PNG.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure((12.0, 4.4), facecolor="white", dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        places = list(figure.subplots(1, 1 if pair.data is None else 2, sharey=True, squeeze=False)[0])
        over_path = places[-1]
        path_times = [t for t, _ in pair.path]
        failed = {o.check.task for o in outcomes if o.check.group in ("average", "path") and not o.passed}
        for i, attribute in enumerate(pair.schema.of_kind("binary")):
            look: dict[str, Any] = {"color": PALETTE[i % len(PALETTE)], "marker": "o", "markersize": 3}
            look["linewidth"] = 3.0 if attribute.name in failed else 1.4
            look["label"] = attribute.name
            if pair.data is not None:
                y = pair.data.labels[:, pair.schema.index(attribute.name)]
                known = ~y.isnan()
                said = [pair.says_of_data(pair.data, t)[attribute.name][known] for t in TIMES]
                places[0].plot(TIMES, [_mean(logits) for logits in said], **look)
                for axes in places:
                    axes.axhline(float(y[known].mean()), color=look["color"], linewidth=0.8, linestyle=(0, (4, 3)))
            over_path.plot(path_times, [_mean(heads[attribute.name]) for heads in pair.said_along_path], **look)
        if pair.data is not None:
            places[0].set_title("validation latents, noised")
        over_path.set_title("the prior's own latents")
        if over_path.lines:
            over_path.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        low, high = places[0].get_ylim()
        for axes in places:
            axes.set(xlabel="t", xlim=(0, 1), ylim=(max(0.0, low - 0.03), min(1.0, high + 0.03)))
        places[0].set_ylabel("average probability")
        figure.savefig(path)


def _mean(logits: Tensor) -> float:
    return float(logits.double().sigmoid().mean())
