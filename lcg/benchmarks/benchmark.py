"""A benchmark's plan, and the pieces of work that it takes.

There are four rounds: real images are looked at, baselines are tuned, chunks of samples are made and seen by the judge,
cells are measured. A piece depends on files of earlier rounds only, so any rank can do it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcg.benchmarks.cells import Cell, Direct, Made
from lcg.benchmarks.costs import measured
from lcg.benchmarks.evaluator import Evaluator, Sources
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.folder import Folder, read_json, read_tensors, write_json, write_tensors
from lcg.benchmarks.measures import Measure, edits_succeed, outside_of
from lcg.benchmarks.methods import LCG, Method
from lcg.benchmarks.references import References
from lcg.benchmarks.tasks import Edit, Generate, Scale, Single, Task, Tradeoff
from lcg.benchmarks.view import View
from lcg.guidance import Formula
from lcg.modules.pieces import Piece

TUNING_SEED = 1_000
"""A repetition that is never measured: what baselines are tuned on."""
CURVES = ("joint_accuracy", "kept_fine", "sharp", "frechet_distance", "diversity")
"""What is told of every strength of a method."""
MEASURED = ("judge", "world", "measures", "compared with")
"""The settings that figures depend on beside the samples."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured, per task and seed.

    Args:
        samples: images per formula.
        unconditional: images of the prior, and images reconstructed.
        sources: images edited.
        references: real images that samples are compared with.
        neighbours: real latents among which the nearest is sought.
        tuning: images on which baselines are tuned per task.
        chunk: images that are made at once; results depend on it in their last digits only.
        shown: images in a contact sheet of a formula; the prior shows twice as many, a strip a quarter.
        compared: sources on which the results of all methods are shown side by side.
    """

    samples: int = 256
    unconditional: int = 2048
    sources: int = 128
    references: int = 2048
    neighbours: int = 16_384
    tuning: int = 64
    chunk: int = 128
    shown: int = 16
    compared: int = 10

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 2:
                raise ValueError(f"`{name}` must be at least 2, got {value}")


class Benchmark:
    """Plans the work and does it.

    Args:
        evaluator: what samples are compared with.
        methods: what is compared.
        measures: what is measured.
        conditions: what holds for the sources of edits.
        sizes: how much is measured.
        folder: where results go.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        methods: Sequence[Method],
        measures: Sequence[Measure],
        conditions: Formula,
        sizes: Sizes,
        folder: Folder,
    ) -> None:
        self.evaluator, self.methods, self.measures = evaluator, methods, measures
        self.conditions, self.sizes, self.folder = conditions, sizes, folder
        self.pipeline, self.references = evaluator.pipeline, References(evaluator)

    # --- first round: real images ---

    def looking(self, tasks: Sequence[Task], seeds: Sequence[int]) -> list[Piece]:
        """What is computed of real images; kept for other benchmarks, too."""
        evaluator, counts = self.evaluator, self.sizes
        entries: list[tuple[list[Any], Callable[[], object]]] = [(["nearest"], lambda: evaluator.nearest)]
        make: Callable[[], object]
        for task in tasks:
            if isinstance(task, Generate | Scale):
                make = partial(evaluator.satisfying, task.formula)
                entries.append((["satisfying", str(task.formula)], make))
            elif isinstance(task, Single):
                if task.name == "unconditional":
                    entries.append((["biased"], evaluator.biased))
                elif task.name == "reconstruction":
                    for seed in seeds:
                        make = partial(self.references.originals, seed, counts.unconditional)
                        entries.append((["originals", seed], make))
            else:
                for seed in seeds:
                    make = partial(self.sources, task.edit, f"sources-{seed}", counts.sources)
                    entries.append((["sources", task.edit.name, seed], make))
                parts = (p for method in self.methods for p in method.parts(task) if isinstance(p, Edit))
                for part in dict.fromkeys(parts):  # a set's order is another one on every rank
                    make = partial(self.sources, part, "tuning", counts.tuning)
                    entries.append((["sources", part.name, "tuning"], make))
        pieces = {}
        for what, make in entries:
            path = self.folder.path(
                ["looked", *what], ("judge", "world", "sources", "sampling", "compared with", "sizes")
            )
            pieces[path] = Piece(f"real images, {what[0]}", path, partial(_note, make, path))
        return list(pieces.values())

    def sources(self, task: Edit, split: str, count: int) -> Sources:
        """What a sequence is made on."""
        return self.evaluator.sources(task, self.conditions, split, count)

    # --- second round: tuning ---

    def _parts(self, tasks: Sequence[Task]) -> Iterator[tuple[Method, Generate | Edit]]:
        for method in self.methods:
            for part in dict.fromkeys(part for task in tasks if method.can(task) for part in method.parts(task)):
                yield method, part

    def tuning(self, tasks: Sequence[Task]) -> list[Piece]:
        """The search for the best strength of every baseline, for every task and step."""
        return [
            Piece(f"tuning {method.name}", path, partial(self.tune, method, part, path))
            for method, part in self._parts(tasks)
            for path in [self._tuned(method, part)]
        ]

    def _tuned(self, method: Method, part: Generate | Edit) -> Path:
        what = ["tuning", method.name, part.name, self.sizes.tuning]
        return self.folder.path(what, (*method.depends(part), "judge", "world"))

    def tune(self, method: Method, part: Generate | Edit, path: Path) -> None:
        """Finds the strength with the best joint accuracy or edit success; of equally good ones the gentlest."""
        strengths = sorted(method.scales if isinstance(part, Generate) else method.strengths)
        scores = self.scores(method, part, strengths)
        write_json(path, {"strength": strengths[int(np.argmax(scores))], "scores": scores, "strengths": strengths})

    def scores(self, method: Method, part: Generate | Edit, strengths: Sequence[float]) -> list[float]:
        """Of a method at each strength, on the validation split."""
        count, schema = self.sizes.tuning, self.evaluator.world.schema
        if isinstance(part, Generate):
            drawn = method.generate_each(part, seed_range(TUNING_SEED, count), strengths)
            return [float(part.formula.holds(self._judged(z_0)[1]).double().mean()) for z_0 in drawn]
        sources, found = self.sources(part, "tuning", count), []
        for z_0 in method.edit_each(part, *self._on_device(sources), range(count), strengths):
            images, labels = self._judged(z_0, sources.code)
            outside = outside_of(images, sources, len(part.edits) - 1)
            found.append(float(edits_succeed(schema, part.edits, labels, sources, outside).double().mean()))
        return found

    def _judged(self, z_0: Tensor, code: Tensor | None = None) -> tuple[np.ndarray, Tensor]:
        """Images (N, H, W, 3) of latents, and the labels (N, A) that the judge sees in them."""
        images = self.pipeline.decode(z_0, code=code)
        return images, self.evaluator.see(images).labels

    def adopt(self, tasks: Sequence[Task]) -> None:
        """Tells the methods what tuning has found."""
        for method, part in self._parts(tasks):
            method.tuned[part.name] = float(read_json(self._tuned(method, part))["strength"])

    def finished(self, tasks: Sequence[Task], seeds: Sequence[int]) -> bool:
        """Whether all figures are there, so that no method will be asked for anything."""
        if not all(piece.path.is_file() for piece in self.tuning(tasks)):
            return False
        self.adopt(tasks)
        plan = self.plan(tasks, seeds)
        return all(piece.path.is_file() for piece in (*self.sampling(plan), *self.measuring(plan)))

    # --- the plan ---

    def plan(self, tasks: Sequence[Task], seeds: Sequence[int]) -> list[Cell | Direct]:
        """All cells, in the order of the results; after `adopt`."""
        return [cell for task in tasks for seed in seeds for cell in self._cells(task, seed)]

    def _cells(self, task: Task, seed: int) -> Iterator[Cell | Direct]:
        count = self.sizes.unconditional if isinstance(task, Single) else self.sizes.samples
        for method in (method for method in self.methods if method.can(task)):
            depends = method.depends(task)
            tuned = tuple(method.tuned[part.name] for part in method.parts(task))
            if isinstance(task, Single):
                assert isinstance(method, LCG)  # others have no samples of their own
                name = "prior" if method.variation is None else method.name
                yield Cell(name, task, seed, count, depends, partial(self._sample, method, seed))
            elif isinstance(task, Generate):
                make = partial(self._generate, method, task, seed)
                yield Cell(method.name, task, seed, count, depends, make, tuned=tuned)
            elif isinstance(task, Scale):
                make = partial(self._scale, method, task.generate, seed)
                yield Cell(method.name, task, seed, count, depends, make, method.scales)
            else:
                sources = partial(self.sources, task.edit, f"sources-{seed}", self.sizes.sources)
                strengths = method.strengths if isinstance(task, Tradeoff) else ()
                make = partial(self._edit, method, task.edit, sources, strengths)
                yield Cell(method.name, task, seed, self.sizes.sources, depends, make, strengths, tuned, sources)
        if isinstance(task, Single):
            yield from self.references.single(task, seed, count)
        elif isinstance(task, Generate):
            yield self.references.beside(task, seed, count)

    # --- third round: samples ---

    def sampling(self, plan: Sequence[Cell | Direct]) -> list[Piece]:
        """Samples, chunk by chunk, and what is seen of them."""
        return [
            Piece(f"{cell.method} {cell.task.name.partition('/')[0]}", path, partial(self.look, cell, rows, path))
            for cell in plan
            if isinstance(cell, Cell)
            for rows in cell.chunks(self.sizes.chunk)
            for path in [self.seen(cell, rows)]
        ]

    def made(self, cell: Cell, rows: range) -> Path:
        """The file of a chunk's samples."""
        return self.folder.path(["made", *cell.name, rows.start, rows.stop], cell.depends, "safetensors")

    def seen(self, cell: Cell, rows: range) -> Path:
        """The file of what is seen of them."""
        depends = (*cell.depends, *MEASURED)
        return self.folder.path(["seen", *cell.name, rows.start, rows.stop], depends, "safetensors")

    def samples(self, cell: Cell, rows: range) -> Made:
        """A chunk's samples, from its file or, when there is none, made now."""
        path = self.made(cell, rows)
        if not path.is_file():
            write_made(path, cell.make(rows))
        tensors, _ = read_tensors(path)
        return Made(tensors["z_0"], tensors["images"].numpy() if "images" in tensors else None)

    def images(self, made: Made, frame: int, sources: Sources | None) -> np.ndarray:
        """Of a frame, (n, H, W, 3); what was made of sources is decoded with what their latents leave out of them."""
        if made.images is not None:
            return made.images[frame]
        code = None if sources is None else sources.code
        return self.pipeline.decode(made.z_0[frame].to(self.pipeline.device), code=code)

    def look(self, cell: Cell, rows: range, path: Path) -> None:
        """Makes a chunk and writes down what is seen of it."""
        made, found = self.samples(cell, rows), []
        sources = None if cell.sources is None else cell.sources()[rows.start : rows.stop]
        steps = 0 if sources is None or sources.regions is None else len(sources.regions) - 1
        for number, frame in enumerate(cell.frames):
            images = self.images(made, number, sources)
            seen = self.evaluator.see(images)
            step = number if isinstance(cell.task, Edit) else steps
            entry = {"labels": seen.labels, "features": seen.features}
            entry["near"] = self.evaluator.nearest.near(made.z_0[number])
            for measure in self.measures:
                entry |= measure.look(images, frame, step, sources, self.evaluator)
            found.append(entry)
        write_tensors(path, {name: torch.stack([entry[name] for entry in found]) for name in found[0]})

    def _sample(self, method: LCG, seed: int, rows: range) -> Made:
        with measured(self.pipeline.device) as cost:
            z_0 = method.sample(seed_range(seed, rows))
        return Made(z_0[None], cost=cost)

    def _generate(self, method: Method, task: Generate, seed: int, rows: range) -> Made:
        seeds, strength = seed_range(seed, rows), method.tuned.get(task.name)
        surcharge = method.surcharge(task, seeds)
        with measured(self.pipeline.device) as cost:
            z_0 = method.generate(task, seeds, strength)
        return Made(z_0[None], cost=cost + surcharge, said=tuple(method.diagnostics()))

    def _scale(self, method: Method, task: Generate, seed: int, rows: range) -> Made:
        seeds = seed_range(seed, rows)
        return Made(method.generate_each(task, seeds, method.scales))

    def _edit(
        self, method: Method, edit: Edit, sources: Callable[[], Sources], strengths: tuple[float, ...], rows: range
    ) -> Made:
        z_0, labels = self._on_device(sources()[rows.start : rows.stop])
        if strengths:
            return Made(method.edit_each(edit, z_0, labels, rows, strengths))
        with measured(self.pipeline.device) as cost:
            edited = method.edit(edit, z_0, labels, rows)
        return Made(edited, cost=cost)

    def _on_device(self, sources: Sources) -> tuple[Tensor, Tensor]:
        return sources.z_0.to(self.pipeline.device), sources.labels.to(self.pipeline.device)

    # --- fourth round: figures ---

    def measuring(self, plan: Sequence[Cell | Direct]) -> list[Piece]:
        """The figures of every cell."""
        return [
            Piece("figures", path, partial(self.measure, cell, path)) for cell in plan for path in [self.figures(cell)]
        ]

    def figures(self, cell: Cell | Direct) -> Path:
        """The file of a cell's figures; beside it, with the suffix .safetensors, what came of every image."""
        depends = cell.depends if isinstance(cell, Cell) else ("guidance",)
        return self.folder.path(["figures", *cell.name, self.sizes.chunk], (*depends, *MEASURED))

    def measure(self, cell: Cell | Direct, path: Path) -> None:
        """Measures a cell whose chunks are all there."""
        rows: list[list[Any]] = []
        outcomes: dict[str, Tensor] = {}
        about: dict[str, dict[str, Any]] = {}
        if isinstance(cell, Direct):
            rows += [[cell.task.name, *_plain(figure)] for figure in cell.figures()]
        else:
            for number, frame in enumerate(cell.frames):
                for figure in self._seen(cell, number):
                    if frame.strength and figure.metric not in CURVES:
                        continue
                    metric = f"{figure.metric}/{frame.strength}" if frame.strength else figure.metric
                    rows.append([frame.name, metric, *_plain(figure)[1:]])
                    if figure.about is not None:
                        about[metric] = figure.about
                    if figure.outcomes is not None:
                        outcomes[f"{frame.name}\n{metric}"] = torch.from_numpy(figure.outcomes)
        said, cost = self._told(cell) if isinstance(cell, Cell) else ([], [])
        write_tensors(path.with_suffix(".safetensors"), outcomes)
        write_json(path, {"rows": [*rows, *said], "costs": cost, "about": about})

    def _seen(self, cell: Cell, number: int) -> Iterator[Figure]:
        files = tuple(self.seen(cell, rows) for rows in cell.chunks(self.sizes.chunk))
        sources = None if cell.sources is None else cell.sources()
        view = View(cell.frames[number], number, files, self.evaluator, sources)
        for measure in self.measures:
            yield from measure.figures(view)

    def _told(self, cell: Cell) -> tuple[list[list[Any]], list[list[Any]]]:
        """What the method said of its samples, averaged over the chunks; and what they cost."""
        abouts = []
        for rows in cell.chunks(self.sizes.chunk):
            self.samples(cell, rows)  # made again if somebody has removed them
            abouts.append((len(rows), read_tensors(self.made(cell, rows))[1]))
        said: dict[str, list[tuple[int, float, float]]] = {}
        for n, about in abouts:
            for metric, value, stderr in about["said"]:
                said.setdefault(metric, []).append((n, value, stderr))
        name, told = cell.frames[-1].name, []
        for metric, entries in said.items():
            n = sum(entry[0] for entry in entries)
            value, stderr = (sum(entry[0] * entry[k] for entry in entries) / n for k in (1, 2))
            told.append([name, *_plain(Figure(metric, value, stderr, n))])
        costs = [about["cost"] for _, about in abouts if about["cost"] is not None]
        if not costs:
            return told, []
        made = cell.count * len(cell.frames)
        totals = {
            "seconds_per_sample": sum(cost["seconds"] for cost in costs) / made,
            "evaluations": sum(cost["evaluations"] for cost in costs) / made,
            "peak_memory": max(cost["memory"] for cost in costs) / 1e6,
        }
        frames = [frame.name for frame in cell.frames]
        return told, [[frame, metric, value, None, made] for frame in frames for metric, value in totals.items()]


def write_made(path: Path, made: Made) -> None:
    """The file of a chunk's samples."""
    images = {} if made.images is None else {"images": torch.from_numpy(made.images)}
    cost = None if made.cost is None else asdict(made.cost)
    said = [[figure.metric, figure.value, figure.stderr] for figure in made.said]
    write_tensors(path, {"z_0": made.z_0, **images}, {"cost": cost, "said": said})


def seed_range(seed: int, rows: range | int) -> range:
    """The samples' seeds of a repetition; repetitions share none."""
    rows = range(rows) if isinstance(rows, int) else rows
    return range(seed * 1_000_000 + rows.start, seed * 1_000_000 + rows.stop)


def _note(make: Callable[[], object], path: Path) -> None:
    """Looks at real images, which are kept elsewhere, and leaves a note that it was done."""
    make()
    write_json(path, "done")


def _plain(figure: Figure) -> list[Any]:
    """JSON knows no NaN: a figure without standard error has none."""
    stderr = None if np.isnan(figure.stderr) else float(figure.stderr)
    return [figure.metric, float(figure.value), stderr, int(figure.n)]
