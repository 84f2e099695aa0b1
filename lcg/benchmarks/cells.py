"""Results as they come: a cell per (method, task, seed), stored at once, found again by everything it depends on."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lcg.benchmarks.evaluator import Figure

COLUMNS = ("method", "task", "metric", "value", "stderr", "n", "seed")

Row = tuple[str, str, str, float, float, int, int]


class Cells:
    """The results of one benchmark folder.

    Args:
        folder: of the benchmark.
        settings: JSON primitives that every result depends on; another value measures everything again.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.rows: list[Row] = []
        self.pictures: list[dict[str, str]] = []
        for name in ("cells", "pictures"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def measure(self, method: str, task: str, seed: int, make: Callable[[], Iterable[tuple[str, Figure]]]) -> None:
        """Adds the rows of a cell, from its file or, when there is none, by making them.

        Args:
            method: of the rows.
            task: names the cell; the rows may belong to tasks of their own (the steps of a sequence).
            seed: of the rows.
            make: gives (task, figure) pairs; called only when the cell is missing.
        """
        key = hashlib.sha256(json.dumps([method, task, seed, self.settings], sort_keys=True).encode()).hexdigest()[:24]
        path = self.folder / "cells" / f"{key}.json"
        if path.is_file():
            rows = [tuple(row) for row in json.loads(path.read_text())]
        else:
            rows = [(method, name, *_plain(figure), seed) for name, figure in make()]
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(rows))
            temporary.replace(path)
        self.rows += rows

    def picture(self, image: Image.Image, kind: str, method: str, task: str, title: str, caption: str) -> None:
        """Adds a picture to the report."""
        name = hashlib.sha256(f"{kind} {method} {task}".encode()).hexdigest()[:12]
        file = f"pictures/{kind}-{method}-{name}.png"
        image.save(self.folder / file)
        self.pictures.append(
            {"file": file, "kind": kind, "method": method, "task": task, "title": title, "caption": caption}
        )

    def write(self, provenance: dict[str, Any]) -> None:
        """Writes results.csv, pictures.json and provenance.json."""
        with (self.folder / "results.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows([["" if v is None else v for v in row] for row in self.rows])
        (self.folder / "pictures.json").write_text(json.dumps(self.pictures, indent=2) + "\n")
        (self.folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")


def _plain(figure: Figure) -> tuple[str, float, float | None, int]:
    """JSON knows no NaN: a figure without standard error has none."""
    metric, value, stderr, n = astuple(figure)
    return metric, float(value), None if np.isnan(stderr) else float(stderr), int(n)
