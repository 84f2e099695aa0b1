"""Runs tasks: every method, every seed, rows and pictures into the cells of a benchmark folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lcg.benchmarks.cells import Cells
from lcg.benchmarks.evaluator import Evaluator
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.methods import Competitor, Method, Variant
from lcg.benchmarks.pictures import contact_sheet, strips
from lcg.benchmarks.tables import label_of
from lcg.benchmarks.tasks import Edit, Generate, Reconstruction, Task, Tradeoff, Unconditional
from lcg.benchmarks.world import RealSet
from lcg.guidance import And, Formula, Not
from lcg.metrics.pareto import pareto_bootstrap
from lcg.pipeline import Pipeline

TUNING_SEED = 1_000
"""A repetition that is never measured: what baselines are tuned on."""


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
        shown: images in a contact sheet of a formula; the prior shows twice as many, a strip a quarter.
        compared: sources on which the results of all methods are shown side by side.
    """

    samples: int = 256
    unconditional: int = 2048
    sources: int = 128
    references: int = 2048
    neighbours: int = 16_384
    tuning: int = 64
    shown: int = 16
    compared: int = 10

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 2:
                raise ValueError(f"`{name}` must be at least 2, got {value}")


class Benchmark:
    """Runs tasks and keeps what they give.

    Args:
        pipeline: what is measured.
        evaluator: what measures.
        methods: what is compared.
        conditions: what holds for the sources of edits.
        sizes: how much is measured.
        cells: where results go.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        evaluator: Evaluator,
        methods: list[Method],
        conditions: Formula,
        sizes: Sizes,
        cells: Cells,
    ) -> None:
        self.pipeline, self.evaluator, self.methods = pipeline, evaluator, methods
        self.conditions, self.sizes, self.cells = conditions, sizes, cells

    def run(self, task: Task, seed: int, show: bool) -> None:
        """Measures a task once for each method; with pictures if `show`."""
        if isinstance(task, Unconditional):
            self.unconditional(seed, show)
        elif isinstance(task, Reconstruction):
            self.reconstruction(seed, show)
        elif isinstance(task, Generate):
            self.generate(task, seed, show)
        elif isinstance(task, Tradeoff):
            self.tradeoff(task, seed)
        else:
            self.edit(task, seed, show)

    def unconditional(self, seed: int, show: bool) -> None:
        """Samples of the prior beside real images and beside a normal distribution of latents."""
        count, name, evaluator = self.sizes.unconditional, "unconditional", self.evaluator

        def samples() -> Iterator[tuple[str, Figure]]:
            z_0, cost = timed(lambda: self.pipeline.sample(seed_range(seed, count)), count)
            yield from named(name, (*evaluator.unconditional(z_0), cost))

        def sheet() -> tuple[Image.Image, str, str]:
            images = self.pipeline.decode(self.pipeline.sample(seed_range(seed, 2 * self.sizes.shown)))
            caption = f"The first {len(images)} samples of the diffusion prior, unguided, not chosen."
            return contact_sheet(images, 8), "Samples of the prior", caption

        self.cells.measure("prior", name, seed, samples, ("sampling",))
        self.cells.measure("gaussian", name, seed, lambda: named(name, evaluator.gaussian(seed)))
        self.cells.measure("real", name, seed, lambda: named(name, evaluator.unconditional_floor(seed)))
        if show:
            self.cells.picture(name, "prior", name, sheet, ("sampling",))

    def reconstruction(self, seed: int, show: bool) -> None:
        """The ceiling: unseen renders, and what is left of them after encoding and decoding."""
        count, name, evaluator = self.sizes.unconditional, "reconstruction", self.evaluator

        def sheet() -> tuple[Image.Image, str, str]:
            real = evaluator.world.real("uniform", 8, f"reconstruction-{seed}").images
            images = np.concatenate([real, self.pipeline.decode(self.pipeline.encode(real))])
            caption = "Above: fresh renders. Below: what the generator makes of their latents."
            return contact_sheet(images, len(real)), "Reconstructions", caption

        self.cells.measure("real", name, seed, lambda: named(name, evaluator.renders(count, seed)))
        self.cells.measure("generator", name, seed, lambda: named(name, evaluator.reconstructions(count, seed)))
        if show:
            self.cells.picture(name, "generator", name, sheet)

    def generate(self, task: Generate, seed: int, show: bool) -> None:
        """Samples of a formula by every method, beside real images that satisfy it."""
        count = self.sizes.samples
        for method in (m for m in self.methods if m.can(task)):
            depends = ("sampling", self.own_settings(method, "guidance"))
            tune = partial(self.tune, method, task)

            def samples(method: Method = method, tune: Callable[[], None] = tune) -> Iterator[tuple[str, Figure]]:
                tune()
                z_0, cost = timed(lambda: method.generate(task, seed_range(seed, count)), count)
                figures = (*self.evaluator.generated(task, z_0), *method.diagnostics(), cost)
                yield from named(task.name, figures)

            def sheet(method: Method = method, tune: Callable[[], None] = tune) -> tuple[Image.Image, str, str]:
                tune()
                images = self.pipeline.decode(method.generate(task, seed_range(seed, self.sizes.shown)))
                caption = f"The first {len(images)} samples, not chosen. {method.chosen(task)}".strip()
                return contact_sheet(images, 4), str(task.formula), caption

            self.cells.measure(method.name, task.name, seed, samples, depends)
            if show:
                self.cells.picture("formula", method.name, task.name, sheet, depends)
        self.cells.measure("real", task.name, seed, lambda: named(task.name, self.evaluator.real(task, count, seed)))

    def edit(self, task: Edit, seed: int, show: bool) -> None:
        """A sequence of edits by every method, each step measured."""
        count, compared = self.sizes.sources, [method for method in self.methods if method.can(task)]
        for method in compared:
            depends = self.edit_settings(method)
            tune = partial(self.tune, method, task)

            def sequence(method: Method = method, tune: Callable[[], None] = tune) -> Iterator[tuple[str, Figure]]:
                tune()
                real, z_0 = self.sources(task, f"sources-{seed}", count)
                edited, cost = timed(lambda: method.edit(task, z_0, real.labels), count * len(task.edits))
                for part, z in zip(task.steps(), edited, strict=True):
                    yield from named(part.name, (*self.evaluator.edited(part, real, z), cost))

            def strip(method: Method = method, tune: Callable[[], None] = tune) -> tuple[Image.Image, str, str]:
                tune()
                real, z_0 = self.sources(task, f"sources-{seed}", max(2, self.sizes.shown // 4))
                edited = method.edit(task, z_0, real.labels)
                frames = [real.images, self.pipeline.decode(z_0), *(self.pipeline.decode(z) for z in edited)]
                caption = f"The first sources, not chosen; each edit on top of the ones before. {method.chosen(task)}"
                image = strips(np.stack(frames, axis=1), ["source", "reconstruction", *task.words])
                return image, ", then ".join(task.words), caption.strip()

            self.cells.measure(method.name, task.name, seed, sequence, depends)
            if show:
                self.cells.picture("edit", method.name, task.name, strip, depends)

        def side_by_side() -> tuple[Image.Image, str, str]:
            real, z_0 = self.sources(task, f"sources-{seed}", self.sizes.compared)
            frames = [real.images]
            for method in compared:
                self.tune(method, task)
                frames.append(self.pipeline.decode(method.edit(task, z_0, real.labels)[-1]))
            image = strips(np.stack(frames, axis=1), ["source", *(label_of(method.name) for method in compared)])
            caption = (
                f"The first {len(z_0)} sources, not chosen, after all edits; baselines with the strength that their "
                "tuning chose."
            )
            return image, ", then ".join(task.words), caption

        if show and len(compared) > 1:
            everyone = tuple(name for method in compared for name in self.edit_settings(method))
            self.cells.picture("comparison", "all", task.name, side_by_side, tuple(dict.fromkeys(everyone)))

    def tradeoff(self, task: Tradeoff, seed: int) -> None:
        """All edits at once, at every strength: what success costs, and whether lcg is ahead by more than chance."""
        edit, count = task.edit, self.sizes.sources
        lcg: tuple[float, NDArray[np.float64]] | None = None
        for method in (m for m in self.methods if m.can(edit)):

            def verdicts(method: Method = method) -> dict[str, NDArray[Any]]:
                real, z_0 = self.sources(edit, f"sources-{seed}", count)
                seen = []
                for strength in method.strengths:
                    z = method.edit_at(edit, z_0, real.labels, strength)
                    seen.append(self.evaluator.verdict(edit, real, self.pipeline.decode(z)))
                present, fine = (torch.stack([getattr(v, name) for v in seen]) for name in ("present", "kept_fine"))
                return {"present": present.numpy(), "kept_fine": fine.numpy()}

            found = self.cells.outcomes(method.name, task.name, seed, verdicts, self.edit_settings(method))
            area, resampled = pareto_bootstrap(found["present"], found["kept_fine"], seed=seed)
            figures = [Figure("pareto_area", area, float(resampled.std(ddof=1)), count)]
            if method.name == "lcg":
                lcg = area, resampled
            elif lcg is not None:  # on the same sources, resampled alike
                figures.append(Figure("pareto_behind", lcg[0] - area, float((lcg[1] - resampled).std(ddof=1)), count))
            for strength, *pair in zip(method.strengths, found["present"], found["kept_fine"], strict=True):
                for metric, holds in zip(("joint_accuracy", "kept_fine"), pair, strict=True):
                    share = float(holds.mean())
                    stderr = (share * (1 - share) / count) ** 0.5
                    figures.append(Figure(f"{metric}/{strength:g}", share, stderr, count))
            self.cells.add(method.name, task.name, seed, figures)

    def own_settings(self, method: Method, default: str) -> str:
        """The name of the settings that a method's results depend on."""
        if isinstance(method, Variant):
            return f"guidance of {method.name}"
        return f"baseline {method.name}" if isinstance(method, Competitor) else default

    def edit_settings(self, method: Method) -> tuple[str, ...]:
        """The names of the settings that a method's edits depend on."""
        return ("sources", self.own_settings(method, "editing"), "sampling")

    def sources(self, task: Edit, split: str, count: int) -> tuple[RealSet, Tensor]:
        """Renders to edit, none of which has an edit already, and their standardised latents."""
        real = self.evaluator.world.real("uniform", count, split, sources_of(task, self.conditions))
        return real, self.pipeline.encode(real.images)

    def tune(self, method: Method, task: Generate | Edit) -> None:
        """Has a method adapted to a task; what it finds is kept for a benchmark that goes on."""
        depends: tuple[str, ...] = ("sampling", self.own_settings(method, "guidance"))
        if isinstance(task, Edit):
            depends = self.edit_settings(method)
        search = partial(method.tune, task, partial(self.tuning_score, method, task))
        method.adopt(self.cells.remember(["tuning", method.name, task.name], search, depends))

    def tuning_score(self, method: Method, whole: Generate | Edit, task: Generate | Edit) -> float:
        """Joint accuracy, or success of the last edit, on the validation split.

        Args:
            method: as it stands.
            whole: the task that is measured; it chooses the sources.
            task: the same, or the first steps of a sequence of edits.
        """
        count = self.sizes.tuning
        if isinstance(task, Generate):
            figures = self.evaluator.generated(task, method.generate(task, seed_range(TUNING_SEED, count)))
            return next(f.value for f in figures if f.metric == "joint_accuracy")
        assert isinstance(whole, Edit)
        real, z_0 = self.sources(whole, "tuning", count)
        figures = self.evaluator.edited(task, real, method.edit(task, z_0, real.labels)[-1])
        return next(f.value for f in figures if f.metric == "edit_success")


def sources_of(task: Edit, conditions: Formula) -> Formula:
    """What holds for the sources of a sequence of edits: the conditions, and not one of the edits."""
    return And((conditions, *(Not(edit) for edit in task.edits)))


def seed_range(seed: int, count: int) -> range:
    """The samples' seeds of a repetition; repetitions share none."""
    return range(seed * 1_000_000, seed * 1_000_000 + count)


def named(task: str, figures: Iterable[Figure]) -> Iterator[tuple[str, Figure]]:
    """Every figure with its task."""
    return ((task, figure) for figure in figures)


def timed(make: Callable[[], Any], count: int) -> tuple[Any, Figure]:
    """What `make` gives, and its seconds per sample."""
    started = time.perf_counter()
    made = make()
    return made, Figure("seconds_per_sample", (time.perf_counter() - started) / count, float("nan"), count)
