"""A benchmark's folder: results as they come, under OUT/cells, each found again by everything that it depends on.

    chunk       samples of a method for a task and a seed, rows start <= i < stop: latents and what they cost
    seen        what is known of them: the judge's labels and features, distances, regions
    figures     the numbers of a cell (method, task, seed), of all its chunks; and image by image what came of it

A file's name is a hash of what it is, of the settings it depends on, and of the weights. So a changed setting makes
again what depends on it, and nothing else; and results are put together by the plan, never by what lies in the folder,
so nothing is counted twice.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from lcg.benchmarks.results.estimates import COLUMNS
from lcg.data.atomic import write_atomic

Row = tuple[str, str, str, float, float | None, int, int]
"""method, task, metric, value, standard error, n, seed"""


class Folder:
    """Where everything lies.

    Args:
        root: OUT.
        settings: JSON primitives by name. What stands under "always" every result depends on; of the others each names
            those that it depends on.
        cells: where results lie as they come, when several benchmarks share them; None for OUT/cells.
    """

    def __init__(self, root: Path, settings: dict[str, Any], cells: Path | None = None) -> None:
        self.root, self.settings, self.cells = root, settings, cells or root / "cells"

    def prepare(self) -> None:
        """Makes the folders."""
        for place in (self.cells, self.root / "cells", self.root / "pictures"):
            place.mkdir(parents=True, exist_ok=True)

    def path(self, what: Sequence[Any], depends: Iterable[str], suffix: str = "json") -> Path:
        """The file of something.

        Args:
            what: its name, JSON primitives.
            depends: the settings it depends on beside "always".
            suffix: of the file.
        """
        on = {name: self.settings[name] for name in ("always", *depends)}
        key = hashlib.sha256(json.dumps([what, on], sort_keys=True).encode()).hexdigest()[:24]
        return self.cells / f"{key}.{suffix}"

    def own(self, what: Sequence[Any], depends: Iterable[str]) -> Path:
        """The file that says that something was written into OUT itself, as pictures are; it is not shared."""
        return self.root / "cells" / self.path(what, depends).name


def write_tensors(path: Path, tensors: dict[str, Tensor], about: Any = None) -> None:
    """A safetensors file, whole or not at all, with something in JSON primitives beside the tensors."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(kept, {"about": json.dumps(about)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """What `write_tensors` wrote."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return tensors, json.loads(file.metadata()["about"])


def write_json(path: Path, content: Any) -> None:
    """JSON primitives, whole or not at all."""
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(path.read_text())


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """A tidy table, whole or not at all."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    write_atomic(path, buffer.getvalue().encode())


def write_picture(
    record: Path, folder: Path, about: dict[str, str], make: Callable[[], tuple[Image.Image, str, str]]
) -> None:
    """A picture of the report and, when it is there, its entry in pictures.json.

    Args:
        record: where the entry is kept.
        folder: of the benchmark.
        about: `kind`, `method` and `task` of the entry.
        make: gives the image, its title and its caption.
    """
    image, title, caption = make()
    file = f"pictures/{about['kind']}-{about['method']}-{record.stem}.png"
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_atomic(folder / file, buffer.getvalue())
    write_json(record, {"file": file, **about, "title": title, "caption": caption})
