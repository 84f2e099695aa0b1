"""Draws figure.png from results.csv: python experiments/06_few_steps/figure.py"""

import csv
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
TASKS = ("unconditional", "generate/smile", "generate/hat & ~beard", "generate/glasses & beard & smile & hat")
DISTILLED, SOLVER, GENTLE = "#2f8f6b", "#1b1b1b", "#b5483a"


def main() -> None:
    """Distance against evaluations, a chart for each task."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in csv.DictReader((HERE / "results.csv").open()):
        if row["metric"] == "frechet_distance":
            values[row["task"], row["method"]].append(float(row["value"]))
    figure = Figure(figsize=(12, 3.4), layout="constrained", dpi=110)
    for axes, task in zip(figure.subplots(1, 4), TASKS, strict=True):
        curves: dict[str, dict[int, float]] = defaultdict(dict)
        for (of, method), found in values.items():
            name, _, rest = method.partition("-")
            steps, _, more = rest.partition("-")
            if of == task and name != "real" and more in ("", "gentle"):
                kind = "distilled" if name == "distilled" else f"solver{more}"
                curves[kind][int(steps)] = sum(found) / len(found)
        for kind, label, colour, mark in (
            ("solver", "solver, lcg's weights", SOLVER, "o"),
            ("solvergentle", "solver, smaller weights", GENTLE, "^"),
            ("distilled", "distilled prior", DISTILLED, "s"),
        ):
            if curves[kind]:
                at = sorted(curves[kind])
                axes.plot(
                    at,
                    [curves[kind][n] for n in at],
                    marker=mark,
                    color=colour,
                    label=label,
                    linewidth=1.4,
                    markersize=5,
                )
        floor = values[task, "real"]
        axes.axhline(sum(floor) / len(floor), color="#888888", linewidth=1, linestyle=(0, (1, 3)))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([1, 2, 4, 10, 50], ["1", "2", "4", "10", "50"])
        axes.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
        axes.minorticks_off()
        axes.set_ylim(0.9, 180)
        axes.set_title(task.removeprefix("generate/"), fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("evaluations of the network")
        if task == TASKS[0]:
            axes.set_ylabel("Fréchet distance (dotted: floor)")
        if task == TASKS[1]:
            axes.legend(frameon=False, fontsize=8, loc="upper right", borderaxespad=0)
    figure.savefig(HERE / "figure.png")
    print(HERE / "figure.png")


if __name__ == "__main__":
    main()
