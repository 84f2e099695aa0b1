"""Draws figure.png from the results of this experiment: python experiments/02_composition/figure.py"""

import csv
import json
from collections import defaultdict
from pathlib import Path

from matplotlib import image
from matplotlib.figure import Figure

BENCH, OUT = Path("runs/composition/bench"), Path(__file__).parent / "figure.png"
METHODS = {  # name: label, colour, mark
    "naive-8": ("sum of separate classifiers", "#b5483a", "o"),
    "joint": ("joint head", "#3a6ea5", "s"),
    "particles-16": ("joint head, 16 particles", "#2f8f6b", "D"),
    "lcg": ("lcg's default", "#1b1b1b", "^"),
}
SHOWN = {"generate/glasses & smile": ("naive-8", "joint"), "generate/beard & long_hair": ("joint", "lcg")}


def main() -> None:
    """One chart of all formulas, and the samples of two."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in csv.DictReader((BENCH / "results.csv").open()):
        if row["metric"] == "frechet_distance":
            values[row["method"], row["task"]].append(float(row["value"]))
    mean = {key: sum(v) / len(v) for key, v in values.items()}
    tasks = [task for method, task in mean if method == "lcg"]

    figure = Figure(figsize=(12, 6.4), layout="constrained", dpi=110)
    chart, pictures = figure.subfigures(1, 2, width_ratios=(1.15, 1))
    axes = chart.subplots()
    for place, task in enumerate(reversed(tasks)):
        axes.axhline(place, color="#e6e6e6", linewidth=1, zorder=0)
        for method, (_, colour, mark) in METHODS.items():
            ratio = mean[method, task] / mean["real", task]
            axes.scatter(ratio, place, s=52, color=colour, marker=mark, alpha=0.9, linewidths=0)
    axes.axhline(2.5, color="#888888", linewidth=1, linestyle=(0, (1, 3)))
    axes.text(11, 2.56, "in the training set", ha="right", va="bottom", fontsize=8, color="#666666")
    axes.text(11, 2.44, "never seen", ha="right", va="top", fontsize=8, color="#666666")
    axes.axvline(1, color="#888888", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axes.minorticks_off()
    axes.set_yticks(range(len(tasks)), [task.removeprefix("generate/") for task in reversed(tasks)])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(
        "Fréchet distance to real images that satisfy the formula,\nin multiples of its floor (two real sets)"
    )
    for label, colour, mark in METHODS.values():
        axes.scatter([], [], s=52, color=colour, marker=mark, label=label, linewidths=0)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, 1.12), ncols=2)

    shown = {(p["task"], p["method"]): p["file"] for p in json.loads((BENCH / "pictures.json").read_text())}
    for row, (task, methods) in zip(pictures.subplots(2, 2), SHOWN.items(), strict=True):
        for axes, method in zip(row, methods, strict=True):
            axes.imshow(image.imread(BENCH / shown[task, method]))
            axes.set_title(f"{task.removeprefix('generate/')}\n{METHODS[method][0]}", fontsize=9)
            axes.axis("off")
    figure.savefig(OUT)
    print(OUT)


if __name__ == "__main__":
    main()
