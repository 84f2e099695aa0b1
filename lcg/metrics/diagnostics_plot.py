"""A picture of a noisy classifier's calibration: reliability, what is known at which noise, temperature, readings.

    reliability   how often it is right against how sure it is, a dot per bin of confidence; honest is the diagonal
    heat maps     an attribute per row, from clean latents on the left to pure noise, and what a guess is worth
    temperature   T(t), which divides every output
    readings      negative log-likelihood per label, read jointly and as independent given z_t

Drawn on a figure of its own, without pyplot: nothing global is changed and no window is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lcg.metrics.diagnostics import FINER, Diagnosis, Figures, Reliability
from lcg.nets.heads import between_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

INK, SOFT, LINE, FAINT = "#1d2125", "#565d65", "#dfe1e0", "#f1f2ef"
BLUE, RUST, GREY = "#1f6fb5", "#b8561c", "#a3abb3"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
BEFORE: Any = {"facecolor": "none", "edgecolor": GREY, "linewidth": 0.9}
AFTER: Any = {"facecolor": BLUE, "edgecolor": "white", "linewidth": 0.7}

# All in inches.
WIDTH, LEFT, RIGHT = 13.0, 1.35, 0.3
GAP = 0.55
HEAD, TITLES = 0.5, 0.95  # above the first row; between rows, for ticks, labels and titles
ROW = 0.24  # height of an attribute in the heat maps
LINES = 2.1  # height of the last row
APART = 0.7  # between the last band of a heat map and what a guess gives, in cells

FEW = 10
"""Predictions in a bin of confidence below which it is not drawn: its place says more of chance than of calibration."""


def draw(diagnosis: Diagnosis, path: Path) -> None:
    """Writes the picture as PNG.

    Args:
        diagnosis: what to show.
        path: where to.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    square = _across(diagnosis.bands)
    heat = ROW * len(diagnosis.schema)
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, HEAD + square + TITLES + heat + TITLES + LINES + 0.6), facecolor="white", dpi=120)
        FigureCanvasAgg(figure)
        _reliability(figure, diagnosis, HEAD, square)
        _heat_maps(figure, diagnosis, HEAD + square + TITLES, heat)
        _curves(figure, diagnosis, HEAD + square + TITLES + heat + TITLES)
        figure.savefig(path)


def _across(panels: int) -> float:
    """The width of each of some panels side by side."""
    return (WIDTH - LEFT - RIGHT - (panels - 1) * GAP) / panels


def _panel(figure: Figure, index: int, panels: int, top: float, height: float) -> Axes:
    """One of some panels side by side, `top` inches below the figure's upper edge."""
    width, total = _across(panels), figure.get_figheight()
    left = LEFT + index * (width + GAP)
    return figure.add_axes((left / WIDTH, 1 - (top + height) / total, width / WIDTH, height / total))


def _reliability(figure: Figure, diagnosis: Diagnosis, top: float, height: float) -> None:
    largest = max(float(diagnosis.before.count.max()), float(diagnosis.after.count.max()), 1.0)
    for band in range(diagnosis.bands):
        axes = _panel(figure, band, diagnosis.bands, top, height)
        axes.plot((0, 1), (0, 1), color=LINE, linewidth=1, zorder=1)
        for sums, look in ((diagnosis.before, BEFORE), (diagnosis.after, AFTER)):
            _dots(axes, sums, band, largest, look)
        before, after = float(diagnosis.before.ece[band]), float(diagnosis.after.ece[band])
        axes.set_title(f"t = {band / diagnosis.bands:g} to {(band + 1) / diagnosis.bands:g}")
        if not math.isnan(before):
            axes.text(0.98, 0.04, f"ECE {before:.3f}\n→ {after:.3f}", ha="right", color=SOFT, linespacing=1.4)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence")
        axes.set_xticks((0, 0.5, 1), ("0", ".5", "1"))
        axes.set_yticks((0, 0.5, 1), ("0", ".5", "1"))
        if band == 0:
            axes.set_ylabel("accuracy")
            for label, look in (("before", BEFORE), ("after temperature", AFTER)):
                axes.scatter([], [], s=36, label=label, **look)
            axes.legend(loc="upper left", bbox_to_anchor=(-0.04, 1.02), handletextpad=0.3)


def _dots(axes: Axes, sums: Reliability, band: int, largest: float, look: Any) -> None:
    """Accuracy against confidence, in dots whose area is the number of predictions."""
    some = sums.count[band] >= FEW
    count = sums.count[band][some]
    confidence, accuracy = sums.confidence[band][some] / count, sums.correct[band][some] / count
    axes.scatter(confidence, accuracy, s=12 + 190 * count / largest, zorder=2, clip_on=False, **look)


def _heat_maps(figure: Figure, diagnosis: Diagnosis, top: float, height: float) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("knowledge", [FAINT, "#bcd3e8", BLUE, "#123f68"])
    _heat_map(
        _panel(figure, 0, 3, top, height),
        diagnosis,
        colours,
        "accuracy",
        lambda row: row.accuracy,
        lambda row: row.majority,
        lambda row: (row.accuracy - row.majority) / (1 - row.majority) if row.majority < 1 else math.nan,
    )
    _heat_map(
        _panel(figure, 1, 3, top, height),
        diagnosis,
        colours,
        "AUROC",
        lambda row: row.auroc,
        lambda row: math.nan if math.isnan(row.auroc) else 0.5,
        lambda row: 2 * row.auroc - 1,
    )
    _heat_map(
        _panel(figure, 2, 3, top, height),
        diagnosis,
        colours,
        "not known: NLL / entropy" + (", share of variance" if diagnosis.schema.of_kind("continuous") else ""),
        lambda row: 1 - row.skill,
        lambda row: math.nan if math.isnan(row.skill) else 1.0,
        lambda row: row.skill,
    )


def _heat_map(
    axes: Axes,
    diagnosis: Diagnosis,
    colours: Colormap,
    title: str,
    value: Callable[[Figures], float],
    guess: Callable[[Figures], float],
    knowledge: Callable[[Figures], float],
) -> None:
    """Numbers on a ground as dark as what is known: white where a guess is as good, darkest where all is known."""
    from matplotlib.patches import Rectangle

    bands = FINER * diagnosis.bands
    for row, attribute in enumerate(diagnosis.schema):
        curve = diagnosis.of(attribute, finer=True)
        cells = [(float(column), value(figures), knowledge(figures)) for column, figures in enumerate(curve)]
        for left, number, known in (*cells, (bands + APART, guess(curve[-1]), 0.0)):
            share = 0.0 if math.isnan(known) else min(max(known, 0.0), 1.0)
            ground = "none" if math.isnan(number) else colours(share)
            axes.add_patch(Rectangle((left, row), 1, 1, facecolor=ground, edgecolor="white", linewidth=1))
            ink = "white" if share > 0.5 else INK
            axes.text(left + 0.5, row + 0.52, _short(number), ha="center", va="center", fontsize=6.8, color=ink)
    axes.set(xlim=(0, bands + APART + 1), ylim=(len(diagnosis.schema), 0), title=title, xlabel="noise level t")
    axes.set_xticks([*range(0, bands + 1, FINER), bands + APART + 0.5])
    axes.set_xticklabels(
        [*(f"{i / diagnosis.bands:g}".lstrip("0") or "0" for i in range(diagnosis.bands + 1)), "guess"]
    )
    first = title == "accuracy"
    names = [attribute.name.replace("_", " ") if first else "" for attribute in diagnosis.schema]
    axes.set_yticks([row + 0.5 for row in range(len(names))], names, color=INK)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _short(number: float, form: str = ".2f") -> str:
    """Without what is not needed: `.97`, `1`, `0`."""
    if math.isnan(number):
        return "–"  # noqa: RUF001 (a dash, as wide as a digit)
    text = format(number, form)
    return {"0.00": "0", "-0.00": "0", "1.00": "1"}.get(text, text if text == "0" else text.removeprefix("0"))


def _curves(figure: Figure, diagnosis: Diagnosis, top: float) -> None:
    _temperature(_panel(figure, 0, 2, top, LINES), diagnosis)
    _readings(_panel(figure, 1, 2, top, LINES), diagnosis)


def _temperature(axes: Axes, diagnosis: Diagnosis) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    levels = torch.linspace(0, 1, len(diagnosis.log_temperature))
    T = between_levels(diagnosis.log_temperature, t).exp()
    axes.axhline(1, color=LINE, linewidth=1)
    axes.plot(t, T, color=BLUE, linewidth=1.6)
    axes.plot(levels, diagnosis.log_temperature.exp(), "o", color=BLUE, markersize=5, clip_on=False, zorder=3)
    axes.set_yscale("log", base=2)
    axes.set_xticks(levels.tolist(), [_short(round(level, 3), "g") for level in levels.tolist()])
    reach = max(1.6, float(diagnosis.log_temperature.abs().max().exp())) * 1.3  # room for the words at the edges
    ticks = [2.0**power for power in range(-8, 9) if 2.0 ** abs(power) <= reach]
    axes.set(xlim=(0, 1), ylim=(1 / reach, reach), xlabel="noise level t", title="temperature T(t)")
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.text(1, 1 / reach * 1.06, "underconfident without it", ha="right", va="bottom", color=SOFT)
    axes.text(1, reach / 1.06, "overconfident without it", ha="right", va="top", color=SOFT)


def _readings(axes: Axes, diagnosis: Diagnosis) -> None:
    readings, bands = diagnosis.readings, diagnosis.bands
    t = [(band + 0.5) / bands for band in range(bands)]
    axes.plot(
        t,
        _mean_entropy(diagnosis),
        color=GREY,
        linewidth=1.4,
        linestyle=(0, (4, 2)),
        label="prior only: the labels' entropy",
    )
    name = "independent attributes" if diagnosis.joint else "classifier"
    axes.plot(t, readings.independent_after, "s-", color=RUST, linewidth=1.4, markersize=4.5, label=name)
    if diagnosis.joint:
        axes.plot(t, readings.joint_after, "o-", color=BLUE, linewidth=1.6, markersize=5, label="joint reading")
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="noise level t", title="negative log-likelihood, nats per label")
    ends = [band / bands for band in range(bands + 1)]
    axes.set_xticks(ends, [_short(end, "g") for end in ends])
    axes.legend(loc="best")


def _mean_entropy(diagnosis: Diagnosis) -> list[float]:
    """Per label, by band, what knowing nothing but the labels' frequencies gives."""
    means = []
    for band in range(diagnosis.bands):
        rows = [diagnosis.of(a)[band] for a in diagnosis.schema]
        known = [row for row in rows if not math.isnan(row.entropy)]
        count = sum(row.n for row in known)
        means.append(sum(row.n * row.entropy for row in known) / count if count else math.nan)
    return means
