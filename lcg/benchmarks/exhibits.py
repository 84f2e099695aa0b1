"""The pictures of a benchmark, drawn from the chunks that are there: the first rows, not chosen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lcg.benchmarks.benchmark import Benchmark
from lcg.benchmarks.cells import Cell, Direct
from lcg.benchmarks.folder import read_json, write_picture
from lcg.benchmarks.report.tables import label_of
from lcg.benchmarks.tasks import Edit, Generate, Single
from lcg.modules.pieces import Piece
from lcg.pictures import contact_sheet, strips

Picture = tuple[Image.Image, str, str]
"""Image, title, caption."""


class Exhibits:
    """Draws pictures of cells.

    Args:
        benchmark: whose they are.
        plan: all cells; the pictures show those of the first seed.
    """

    def __init__(self, benchmark: Benchmark, plan: Sequence[Cell | Direct]) -> None:
        self.benchmark, self.sizes = benchmark, benchmark.sizes
        cells = [cell for cell in plan if isinstance(cell, Cell)]
        self.cells = [cell for cell in cells if cell.seed == cells[0].seed]
        self.chosen = {(m.name, task.name): m.chosen(task) for m in benchmark.methods for task in self._tasks()}

    def _tasks(self) -> list[Generate | Edit]:
        return [cell.task for cell in self.cells if isinstance(cell.task, Generate | Edit)]

    def drawing(self) -> list[Piece]:
        """A piece per picture; its file is the picture's entry in pictures.json."""
        return [
            Piece("pictures", record, partial(write_picture, record, self.benchmark.folder.root, about, draw))
            for record, about, draw in self._pictures()
        ]

    def entries(self) -> list[dict[str, str]]:
        """pictures.json, when all are drawn."""
        return [read_json(record) for record, _, _ in self._pictures()]

    def _pictures(self) -> Iterator[tuple[Path, dict[str, str], Callable[[], Picture]]]:
        for cell in self.cells:
            kind, draw = self._kind(cell)
            if kind:
                about = {"kind": kind, "method": cell.method, "task": cell.task.name}
                yield self._record(kind, [cell]), about, partial(draw, cell)
        for task in dict.fromkeys(cell.task for cell in self.cells if isinstance(cell.task, Edit)):
            together = [cell for cell in self.cells if cell.task == task]
            if len(together) > 1:
                about = {"kind": "comparison", "method": "all", "task": task.name}
                yield self._record("comparison", together), about, partial(self.comparison, together)

    def _record(self, kind: str, cells: Sequence[Cell]) -> Path:
        depends = dict.fromkeys(name for cell in cells for name in (*cell.depends, "sizes", "world"))
        what = ["picture", kind, *(cell.name for cell in cells)]
        return self.benchmark.folder.own(what, depends)

    def _kind(self, cell: Cell) -> tuple[str, Callable[[Cell], Picture]]:
        """The section of the report that shows a cell, and what draws it; "" where none does."""
        if isinstance(cell.task, Edit):
            return "edit", self.strip
        if isinstance(cell.task, Generate) and cell.method != "real":
            return "formula", self.sheet
        if cell.task == Single("unconditional") and cell.method not in ("real", "gaussian"):
            return "unconditional", self.prior
        if cell.task == Single("reconstruction") and cell.method == "generator":
            return "reconstruction", self.reconstructions
        return "", self.sheet

    # --- drawing ---

    def first(self, cell: Cell, count: int, frame: int = 0) -> NDArray[np.uint8]:
        """The first images of a cell (at most `count`, H, W, 3)."""
        found: list[NDArray[np.uint8]] = []
        for rows in cell.chunks(self.sizes.chunk):
            if sum(map(len, found)) < count:
                found.append(self._images(cell, frame, rows))
        return np.concatenate(found)[:count]

    def _images(self, cell: Cell, frame: int, rows: range) -> NDArray[np.uint8]:
        sources = None if cell.sources is None else cell.sources()[rows.start : rows.stop]
        return self.benchmark.images(self.benchmark.samples(cell, rows), frame, sources)

    def prior(self, cell: Cell) -> Picture:
        images = self.first(cell, 2 * self.sizes.shown)
        caption = f"The first {len(images)} samples of the diffusion prior, unguided, not chosen."
        return contact_sheet(images, 8), "Samples of the prior", caption

    def sheet(self, cell: Cell) -> Picture:
        assert isinstance(cell.task, Generate)
        images = self.first(cell, self.sizes.shown)
        caption = f"The first {len(images)} samples, not chosen. {self._chosen(cell)}".strip()
        return contact_sheet(images, 4), str(cell.task.formula), caption

    def reconstructions(self, cell: Cell) -> Picture:
        assert cell.sources is not None
        images = self.first(cell, 8)
        real = cell.sources().images[: len(images)].numpy()
        caption = "Above: fresh images. Below: what the generator makes of their latents."
        return contact_sheet(np.concatenate([real, images]), len(real)), "Reconstructions", caption

    def strip(self, cell: Cell) -> Picture:
        assert isinstance(cell.task, Edit) and cell.sources is not None
        count = max(2, self.sizes.shown // 4)
        sources = cell.sources()[:count]
        pipeline = self.benchmark.pipeline
        decoded = pipeline.decode(sources.z_0.to(pipeline.device), code=sources.code)
        edited = [self.first(cell, count, step) for step in range(len(cell.frames))]
        frames = np.stack([sources.images.numpy(), decoded, *edited], axis=1)
        caption = f"The first sources, not chosen; each edit on top of the ones before. {self._chosen(cell)}"
        return strips(frames, ["source", "reconstruction", *cell.task.words]), self._title(cell.task), caption.strip()

    def comparison(self, cells: Sequence[Cell]) -> Picture:
        task, count = cells[0].task, self.sizes.compared
        assert isinstance(task, Edit) and cells[0].sources is not None
        sources = cells[0].sources().images[:count].numpy()
        frames = np.stack([sources, *(self.first(cell, count, len(task.edits) - 1) for cell in cells)], axis=1)
        caption = (
            f"The first {len(sources)} sources, not chosen, after all edits; baselines with the strength that their "
            "tuning chose."
        )
        return strips(frames, ["source", *(label_of(cell.method) for cell in cells)]), self._title(task), caption

    def _title(self, task: Edit) -> str:
        return ", then ".join(task.words)

    def _chosen(self, cell: Cell) -> str:
        return self.chosen.get((cell.method, cell.task.name), "")

    # --- samples on request ---

    def saving(self, plan: Sequence[Cell | Direct]) -> list[Piece]:
        """Every image of every cell as a file, OUT/samples/METHOD/TASK/SEED/NNNNNN.png, a piece per chunk."""
        root = self.benchmark.folder.root / "samples"
        pieces = []
        for cell in (cell for cell in plan if isinstance(cell, Cell)):
            for number, frame in enumerate(cell.frames):
                name = f"{frame.name}@{frame.strength}" if frame.strength else frame.name
                place = root / cell.method / re.sub(r"[^\w+=@.~&|-]+", "_", name) / str(cell.seed)
                for rows in cell.chunks(self.sizes.chunk):
                    done = self.benchmark.folder.own(
                        ["saved", *cell.name, number, rows.start], (*cell.depends, "world")
                    )
                    pieces.append(Piece("images", done, partial(self._save, cell, number, rows, place, done)))
        return pieces

    def _save(self, cell: Cell, frame: int, rows: range, place: Path, done: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        for row, image in zip(rows, self._images(cell, frame, rows), strict=True):
            Image.fromarray(image).save(place / f"{row:06d}.png")
        done.write_text("done")
