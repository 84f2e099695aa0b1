"""Results as they come: a cell per (method, task, seed), stored at once, found again by everything it depends on."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lcg.benchmarks.figures import Figure
from lcg.data.atomic import write_atomic

COLUMNS = ("method", "task", "metric", "value", "stderr", "n", "seed")

Row = tuple[str, str, str, float, float | None, int, int]


class Cells:
    """The results of one benchmark folder.

    Args:
        folder: of the benchmark.
        settings: JSON primitives by name. What stands under "always" every result depends on; of the others each names
            those that it depends on. A result is made again when one of them has changed, and only then.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.rows: list[Row] = []
        self.pictures: list[dict[str, str]] = []
        for name in ("cells", "pictures"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def measure(
        self,
        method: str,
        task: str,
        seed: int,
        make: Callable[[], Iterable[tuple[str, Figure]]],
        depends: tuple[str, ...] = (),
    ) -> None:
        """Adds the rows of a cell, from its file or, when there is none, by making them.

        Args:
            method: of the rows.
            task: names the cell; the rows may belong to tasks of their own (the steps of a sequence).
            seed: of the rows.
            make: gives (task, figure) pairs; called only when the cell is missing.
            depends: the settings that the cell depends on beside "always".
        """
        path = self._path(["rows", method, task, seed], depends)
        if not path.is_file():
            rows = [(method, name, *_plain(figure), seed) for name, figure in make()]
            write_atomic(path, json.dumps(rows).encode())
        self.rows += [tuple(row) for row in json.loads(path.read_text())]

    def remember(self, what: list[str], make: Callable[[], Any], depends: tuple[str, ...] = ()) -> Any:
        """Something that took long to find out, in JSON primitives; `make` finds it out when it is not stored yet.

        Args:
            what: its name, such as the tuning of a method for a task.
            make: gives it.
            depends: as in `measure`.
        """
        path = self._path(what, depends)
        if not path.is_file():
            write_atomic(path, json.dumps(make()).encode())
        return json.loads(path.read_text())

    def outcomes(
        self,
        method: str,
        task: str,
        seed: int,
        make: Callable[[], dict[str, NDArray[Any]]],
        depends: tuple[str, ...] = (),
    ) -> dict[str, NDArray[Any]]:
        """What came of every single image, for comparisons between methods image by image.

        Args:
            method: whose outcomes.
            task: what was asked for.
            seed: of the images.
            make: gives arrays by name; called only when they are not stored yet.
            depends: as in `measure`.
        """
        path = self._path(["outcomes", method, task, seed], depends).with_suffix(".npz")
        if not path.is_file():
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, **make())
            write_atomic(path, buffer.getvalue())
        with np.load(path) as stored:
            return dict(stored)

    def add(self, method: str, task: str, seed: int, figures: Iterable[Figure]) -> None:
        """Adds rows that are computed from what is stored."""
        self.rows += [(method, task, *_plain(figure), seed) for figure in figures]

    def picture(
        self,
        kind: str,
        method: str,
        task: str,
        make: Callable[[], tuple[Image.Image, str, str]],
        depends: tuple[str, ...] = (),
    ) -> None:
        """Adds a picture to the report, from its file or, when there is none, by making it.

        Args:
            kind: which section of the report it belongs to.
            method: what made it.
            task: what was asked for.
            make: gives the image, its title and its caption; called only when the picture is missing.
            depends: as in `measure`.
        """
        path = self._path(["picture", kind, method, task], depends)
        if not path.is_file():
            image, title, caption = make()
            file = f"pictures/{kind}-{method}-{path.stem}.png"
            image.save(self.folder / file)
            entry = {"file": file, "kind": kind, "method": method, "task": task, "title": title, "caption": caption}
            write_atomic(path, json.dumps(entry).encode())
        self.pictures.append(json.loads(path.read_text()))

    def _path(self, what: Sequence[Any], depends: tuple[str, ...]) -> Path:
        on = {name: self.settings[name] for name in ("always", *depends)}
        key = hashlib.sha256(json.dumps([what, on], sort_keys=True).encode()).hexdigest()[:24]
        return self.folder / "cells" / f"{key}.json"

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
