"""Draws figure.png and strips.png from the results of this experiment: python experiments/03_editing/figure.py"""

import csv
import json
import shutil
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from lcg.benchmarks.report.tables import label_of

HERE = Path(__file__).parent
PANELS = {"short": "short-haired sources", "long": "long-haired sources: a beard was never seen with it"}
SHOWN = {  # method: colour, mark; the others are grey
    "lcg": ("#1b1b1b", "^"),
    "styleflow": ("#2f8f6b", "D"),
    "composable": ("#3a6ea5", "s"),
    "lace_langevin": ("#b5483a", "o"),
    "interfacegan": ("#a07a1f", "v"),
    "ppgn": ("#7b5aa6", "P"),
}


def curves(results: Path) -> dict[str, list[tuple[float, float]]]:
    """Of each method the points (all edits there, everything else kept), by strength, means over seeds."""
    values: dict[tuple[str, float, str], list[float]] = defaultdict(list)
    for row in csv.DictReader(results.open()):
        metric, _, strength = row["metric"].partition("/")
        if row["task"].startswith("tradeoff/") and strength:
            values[row["method"], float(strength), metric].append(float(row["value"]))
    mean = {key: sum(v) / len(v) for key, v in values.items()}
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for method, strength, metric in sorted(mean, key=lambda key: key[1]):
        if metric == "joint_accuracy":
            points[method].append((mean[method, strength, metric], mean[method, strength, "kept_fine"]))
    return points


def main() -> None:
    """One chart per kind of sources; and the strips that the benchmark of short-haired ones made."""
    figure = Figure(figsize=(12, 5.2), layout="constrained", dpi=110)
    for axes, (name, title) in zip(figure.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
        for method, points in curves(Path(f"runs/editing/{name}/bench/results.csv")).items():
            colour, mark = SHOWN.get(method, ("#c9c9c9", "."))
            front = 3 if method in SHOWN else 1
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=2.4 if method == "lcg" else 1.2, zorder=front)
            axes.scatter(*zip(*points, strict=True), s=34, color=colour, marker=mark, zorder=front + 1, linewidths=0)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("all four edits are there")
        axes.set_xlim(-0.02, 1.03)
        axes.set_ylim(-0.02, 1.03)
        axes.grid(color="#eeeeee")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("all fine attributes are kept")
    for method, (colour, mark) in SHOWN.items():
        figure.axes[0].plot([], [], color=colour, marker=mark, label=label_of(method))
    figure.axes[0].plot([], [], color="#c9c9c9", marker=".", label="the other ten")
    figure.axes[0].legend(frameon=False, loc="lower left", fontsize=9)
    figure.savefig(HERE / "figure.png")

    bench = Path("runs/editing/short/bench")
    pictures = json.loads((bench / "pictures.json").read_text())
    shutil.copy(bench / next(p["file"] for p in pictures if p["kind"] == "comparison"), HERE / "strips.png")
    print(HERE / "figure.png", HERE / "strips.png")


if __name__ == "__main__":
    main()
