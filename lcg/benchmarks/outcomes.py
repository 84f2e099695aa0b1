"""The figures of all cells, put together: rows, areas of trade-offs, zero-shot means, comparisons between methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcg.benchmarks.benchmark import Benchmark
from lcg.benchmarks.cells import Cell, Direct
from lcg.benchmarks.folder import Row, read_json, read_tensors
from lcg.benchmarks.results.comparisons import compare
from lcg.benchmarks.results.pairs import Pair
from lcg.benchmarks.results.vocabulary import describe
from lcg.benchmarks.tasks import Generate, Tradeoff
from lcg.metrics.pareto import pareto_bootstrap


class Outcomes:
    """What is in the files of a finished benchmark.

    Args:
        benchmark: whose they are.
        plan: all cells.
        unseen: names of the tasks that ask for what no labelled latent has.
    """

    def __init__(self, benchmark: Benchmark, plan: Sequence[Cell | Direct], unseen: Sequence[str]) -> None:
        self.benchmark, self.plan, self.unseen = benchmark, plan, set(unseen)

    def rows(self) -> list[Row]:
        """results.csv."""
        rows = self._rows("rows")
        return [*rows, *self._tradeoffs(), *self._zero_shot(rows)]

    def costs(self) -> list[Row]:
        """costs.csv."""
        return self._rows("costs")

    def about(self) -> list[dict[str, Any]]:
        """metrics.json: what figures depend on beside the settings, and must be quoted with."""
        told = []
        for cell in self.plan:
            for metric, about in read_json(self.benchmark.figures(cell))["about"].items():
                told.append(
                    {"method": cell.method, "task": cell.task.name, "seed": cell.seed, "metric": metric, **about}
                )
        return told

    def _rows(self, name: str) -> list[Row]:
        found: list[Row] = []
        for cell in self.plan:
            for task, metric, value, stderr, n in read_json(self.benchmark.figures(cell))[name]:
                found.append((cell.method, task, metric, value, stderr, n, cell.seed))
        return found

    def _images(self, cell: Cell) -> dict[str, NDArray[Any]]:
        """What came of every image, by task and metric."""
        tensors, _ = read_tensors(self.benchmark.figures(cell).with_suffix(".safetensors"))
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def _tradeoffs(self) -> Iterator[Row]:
        """The area that a method's strengths dominate, and how far it is behind that of lcg on the same sources."""
        ours: dict[tuple[str, int], tuple[float, NDArray[np.float64]]] = {}
        for cell in self.plan:
            if not isinstance(cell, Cell) or not isinstance(cell.task, Tradeoff):
                continue
            images, name = self._images(cell), cell.task.name
            curves = [
                [f"{name}\n{metric}/{strength:g}" for strength in cell.strengths]
                for metric in ("joint_accuracy", "kept_fine")
            ]
            if not images.keys() >= {*curves[0], *curves[1]}:
                continue  # the benchmark was told to measure something else
            present, kept = (np.stack([images[key] for key in curve]) > 0.5 for curve in curves)
            area, resampled = pareto_bootstrap(present, kept, seed=cell.seed)
            yield cell.method, name, "pareto_area", area, float(resampled.std(ddof=1)), cell.count, cell.seed
            if cell.method == "lcg":
                ours[name, cell.seed] = area, resampled
            elif (name, cell.seed) in ours:
                best, others = ours[name, cell.seed]
                error = float((others - resampled).std(ddof=1))
                yield cell.method, name, "pareto_behind", best - area, error, cell.count, cell.seed

    def _zero_shot(self, rows: Sequence[Row]) -> Iterator[Row]:
        """The mean joint accuracy over the formulas that nobody was trained on."""
        tasks = {cell.task.name for cell in self.plan if isinstance(cell.task, Generate)} & self.unseen
        found: dict[tuple[str, int], list[Row]] = {}
        for row in rows:
            if row[1] in tasks and row[2] == "joint_accuracy":
                found.setdefault((row[0], row[6]), []).append(row)
        for (method, seed), those in found.items():
            if len(those) == len(tasks):
                value = float(np.mean([row[3] for row in those]))
                error = float(np.sqrt(sum((row[4] or 0.0) ** 2 for row in those))) / len(those)
                yield method, "zero-shot", "zero_shot_accuracy", value, error, sum(row[5] for row in those), seed

    def comparisons(self) -> list[Pair]:
        """comparisons.csv: every method against the best one and against lcg, on the same sources and seeds."""
        together: dict[tuple[str, str], dict[str, list[NDArray[Any]]]] = {}
        for cell in self.plan:
            if isinstance(cell, Cell) and cell.method != "real" and not cell.strengths:
                for key, outcomes in self._images(cell).items():
                    task, metric = key.split("\n")
                    if describe(metric).better is not None and "/" not in metric:
                        together.setdefault((task, metric), {}).setdefault(cell.method, []).append(outcomes)
        pairs: list[Pair] = []
        for (task, metric), methods in together.items():
            better, whole = describe(metric).better, {name: np.concatenate(parts) for name, parts in methods.items()}
            shapes = {outcomes.shape for outcomes in whole.values()}
            if better is not None and len(whole) > 1 and len(shapes) == 1:
                pairs += compare(whole, task, metric, better)
        return pairs
