"""The benchmark job: methods x tasks x seeds -> `results.csv`, pictures, provenance.

A job that was stopped goes on with what is missing; a changed network or setting measures again what it changes.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lcg import __version__
from lcg.baselines.latent_arithmetic import LatentArithmetic
from lcg.benchmarks.cells import Cells
from lcg.benchmarks.evaluator import Evaluator, Figure
from lcg.benchmarks.methods import LCG, Arithmetic, Method, Variant
from lcg.benchmarks.pictures import contact_sheet, strips
from lcg.benchmarks.tasks import Edit, Generate, Reconstruction, Task, Unconditional, parse_task
from lcg.benchmarks.world import AvatarWorld, RealSet
from lcg.data.store import LatentStore
from lcg.generators.base import Generator, weights_sha256
from lcg.guidance import And, Formula, Not, parse
from lcg.metrics.judge import AvatarJudge
from lcg.metrics.reference import marginals
from lcg.pipeline import CLASSIFIER, PRIOR, Pipeline, load
from lcg.settings import Editing, Guidance, Sampling

TUNING_SEED = 1_000
"""A repetition that is never measured: what baselines are tuned on."""

NOTES = (
    "The generator was trained without labels on uniform avatars, so it has seen every combination of attributes, and "
    "so has the judge. Prior and classifiers were trained on biased avatars, among which glasses & smile & hat and "
    "beard & long_hair never occur: zero-shot means unseen by them.",
    "The judge has weights of its own and was trained on renders drawn independently of those of prior, classifiers "
    "and generator; the world is finite, and about one avatar in a hundred coincides by chance. Its accuracy on "
    "renders and on reconstructions is the ceiling of every accuracy here.",
    "Frechet distance is measured in the judge's penultimate features, each scaled to unit variance on uniform "
    "renders; it is comparable within this project only. Its reference for a formula is renders that satisfy it, "
    "reweighted to the training set's marginals of the other attributes; the row 'real' is the floor between two "
    "such sets.",
    "A sample is sharp when it satisfies the formula and is no ghost: its latent is no further from the nearest of "
    "many real ones than 99 % of unseen real latents are.",
)


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
    """

    samples: int = 256
    unconditional: int = 2048
    sources: int = 128
    references: int = 2048
    neighbours: int = 16_384
    tuning: int = 64
    shown: int = 16

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 2:
                raise ValueError(f"`{name}` must be at least 2, got {value}")


def bench_job(
    tasks: list[str],
    out: str = "runs/demo/bench",
    store: str = "runs/demo/store",
    prior: str = PRIOR,
    classifier: str = CLASSIFIER,
    generator: Generator | None = None,
    judge: str | None = None,
    seeds: list[int] = [0],  # noqa: B006 (never changed; the default is the help)
    source_formula: str = "~glasses & ~beard & ~smile & ~hat & ~long_hair",
    sizes: Sizes = Sizes(),
    sampling: Sampling = Sampling(),  # noqa: B008
    guidance: Guidance = Guidance(),  # noqa: B008
    editing: Editing = Editing(),  # noqa: B008
    compare: dict[str, Guidance] = {},  # noqa: B006 (never changed)
    title: str = "Latent classifier guidance on the embedded avatars",
    commands: list[str] = [],  # noqa: B006
) -> None:
    """Measures latent classifier guidance beside its baselines; run again, it goes on where it was stopped.

    Writes OUT/results.csv, OUT/pictures/*.png, OUT/pictures.json and OUT/provenance.json; `lcg report OUT` shows them.

    Args:
        tasks: unconditional, reconstruction, generate/FORMULA, edit/EDIT EDIT ...
        out: folder for the results.
        store: the latent store that prior and classifiers were fitted on.
        prior: checkpoint of the prior.
        classifier: checkpoint of the classifiers.
        generator: the frozen generator; the embedded one when left out.
        judge: weights of the judge; the shipped ones when left out.
        seeds: each is a repetition with other samples and other sources.
        source_formula: what holds for the sources of edits.
        sizes: how much is measured.
        sampling: how latents are sampled.
        guidance: how strongly formulas guide.
        editing: how edits are made.
        compare: other settings of the guidance to run the formulas with, by the name they shall have.
        title: of the report.
        commands: what leads to these results, for the report.
    """
    started = time.perf_counter()
    if not tasks or not seeds:
        raise ValueError("`tasks` and `seeds` must each hold at least one entry; see configs/benchmark/demo.yaml")
    pipeline = load(prior, classifier, generator, sampling=sampling, guidance=guidance, editing=editing)
    world, data = AvatarWorld(), LatentStore.open(store)
    if pipeline.schema != world.schema:
        raise ValueError(
            "the classifier's attributes must be those of the avatars that a benchmark renders; fit it on them"
        )
    if data.fingerprint != pipeline.store:
        raise ValueError(f"{prior} was fitted on another store than {store}; fit it again, or name its own store")
    parsed = [parse_task(text, pipeline.schema) for text in tasks]
    conditions = parse(source_formula, pipeline.schema)
    labels = data.labels()
    shares = marginals(labels, pipeline.schema)
    evaluator = Evaluator(pipeline, AvatarJudge(judge), world, shares, sizes.references, sizes.neighbours)
    check_tasks(parsed, conditions, evaluator, sizes)
    always = {
        "networks": [pipeline.store, weights_sha256(pipeline.denoiser), weights_sha256(pipeline.classifier)],
        "generator": weights_sha256(pipeline.generator),
        "judge": weights_sha256(evaluator.judge),
        "sizes": asdict(sizes),
        "lcg": __version__,
    }
    settings = {
        "always": always,
        "sampling": asdict(sampling),
        "guidance": asdict(guidance),
        "editing": asdict(editing),
        "sources": str(conditions),
        **{f"guidance of {name}": asdict(other) for name, other in compare.items()},
    }
    cells = Cells(Path(out), settings)
    z_0 = pipeline.statistics.standardise(data.latents())
    variants = [Variant(replace(pipeline, guidance=other), name) for name, other in compare.items()]
    methods: list[Method] = [
        LCG(pipeline),
        *variants,
        Arithmetic(pipeline, LatentArithmetic.fit(z_0, labels, pipeline.schema)),
    ]
    bench = Benchmark(pipeline, evaluator, methods, conditions, sizes, cells)
    skipped = [
        f"{method.name} has no answer to {task.name} and is left out there."
        for task in parsed
        for method in methods
        if isinstance(task, Generate) and not method.can(task)
    ]
    with tqdm([(task, seed) for task in parsed for seed in seeds], desc="bench", unit="task") as plan:
        for task, seed in plan:
            plan.set_postfix_str(task.name[:40])
            bench.run(task, seed, show=seed == seeds[0])
    cells.write(
        {
            "title": title,
            "created": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "lcg": __version__,
            "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "config": {"tasks": tasks, "seeds": seeds, **settings},
            "commands": commands,
            "notes": [*NOTES, *skipped],
            "zero_shot": [name for task in parsed for name in never_seen(task, labels)],
            "generator": {**pipeline.generator.identity(), "provenance": getattr(pipeline.generator, "provenance", {})},
            "judge": {"weights_sha256": always["judge"], "provenance": evaluator.judge.provenance},
            "store": data.provenance,
            "seconds": {"bench": round(time.perf_counter() - started, 1)},
        }
    )
    print(f"{len(cells.rows)} rows in {cells.folder / 'results.csv'}")


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
            depends = ("sampling", f"guidance of {method.name}" if isinstance(method, Variant) else "guidance")
            tune = partial(method.tune, task, partial(self.tuning_score, method, task))

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
        count, depends = self.sizes.sources, ("editing", "sampling", "sources")
        for method in (m for m in self.methods if m.can(task)):
            tune = partial(method.tune, task, partial(self.tuning_score, method, task))

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

    def sources(self, task: Edit, split: str, count: int) -> tuple[RealSet, Tensor]:
        """Renders to edit, none of which has an edit already, and their standardised latents."""
        real = self.evaluator.world.real("uniform", count, split, sources_of(task, self.conditions))
        return real, self.pipeline.encode(real.images)

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


def check_tasks(tasks: list[Task], conditions: Formula, evaluator: Evaluator, sizes: Sizes) -> None:
    """Finds what a benchmark cannot measure before anything is measured.

    Raises:
        ValueError: settings of guidance, sampling or editing are out of range; a formula contradicts itself or holds
            for no avatar; edits name an attribute twice, are not of binary attributes, or leave no source; or there are
            too few images for a Frechet distance.
    """
    pipeline, world = evaluator.pipeline, evaluator.world
    pipeline.sampling.build(pipeline.denoiser)
    pipeline.editor()
    features = evaluator.judge.config["features"]
    for task in tasks:
        if isinstance(task, Generate | Unconditional):
            count = sizes.samples if isinstance(task, Generate) else sizes.unconditional
            if min(count, sizes.references) <= features:
                raise ValueError(
                    f"`samples`, `unconditional` and `references` must be above {features}, the judge's features, for "
                    f"a Frechet distance, got {count} for {task.name!r} and {sizes.references} references"
                )
        if isinstance(task, Generate):
            pipeline.term(task.formula)
            world.check_exists(task.formula)
        if isinstance(task, Edit):
            binary = {a.name for a in world.schema.of_kind("binary")}
            names = [name for edit in task.edits for name in edit.attributes]
            if len(set(names)) != len(names) or not set(names) <= binary:
                raise ValueError(
                    f"the edits of {task.name!r} must each change another binary attribute, one of "
                    f"{', '.join(sorted(binary))}; use `lcg edit` for others"
                )
            world.check_exists(sources_of(task, conditions))


def never_seen(task: Task, labels: Tensor) -> list[str]:
    """The names of a task's results that ask for a combination which no labelled latent has."""
    if isinstance(task, Generate):
        return [] if bool(task.formula.holds(labels).any()) else [task.name]
    if isinstance(task, Edit):
        return [p.name for p in task.steps() if not bool(torch.stack([e.holds(labels) for e in p.edits]).all(0).any())]
    return []


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
