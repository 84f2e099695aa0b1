"""The benchmark job: methods x tasks x seeds -> `results.csv`, `costs.csv`, `comparisons.csv`, pictures, provenance.

A job that was stopped goes on with what is missing; a changed network or setting measures again what it changes.
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcg import __version__
from lcg.baselines.contract import Baseline
from lcg.benchmarks.benchmark import Benchmark, Sizes
from lcg.benchmarks.checks import check_settings, check_tasks, never_seen
from lcg.benchmarks.evaluator import Evaluator
from lcg.benchmarks.exhibits import Exhibits
from lcg.benchmarks.folder import Folder, write_json, write_rows
from lcg.benchmarks.measures import STANDARD, Measure
from lcg.benchmarks.methods import LCG, Competitor, Method, Variation
from lcg.benchmarks.options import options_of
from lcg.benchmarks.outcomes import Outcomes
from lcg.benchmarks.results.comparisons import write_comparisons
from lcg.benchmarks.setting import Setting
from lcg.benchmarks.tasks import Generate, Scale, Single, Task, fill, parse_task
from lcg.benchmarks.tracking import Tracking, check_tracking, track
from lcg.benchmarks.worlds.world import World
from lcg.generators.base import Generator, weights_sha256
from lcg.guidance import parse
from lcg.metrics.judge import Judge
from lcg.modules.pieces import Crew, Ranks
from lcg.pipeline import CLASSIFIER, PRIOR
from lcg.settings import Editing, Guidance, Sampling

METHODS = "lcg", "prior", "gaussian", "generator", "real", "all", "classifier", "latents"
"""Names in `results.csv` that no baseline or variation may have."""

NOTES = (
    "Zero-shot means unseen by prior and classifiers: no labelled latent has the combination. Whether the generator "
    "has seen it is another question, which its provenance answers.",
    "Frechet distance is measured in the judge's penultimate features, each scaled to unit variance on real images; it "
    "is comparable within this project only. Its reference for a formula is real images that satisfy it, reweighted, "
    "where the combination is rare, to the training set's marginals of the other attributes; the row 'real' is the "
    "floor between two such sets.",
    "A sample is sharp when it satisfies the formula and is no ghost: its latent is no further from the nearest of "
    "many real ones than 99 % of unseen real latents are.",
)


def bench_job(
    tasks: list[str] = [],  # noqa: B006 (never changed; the default is the help)
    out: str = "runs/demo/bench",
    store: str = "runs/demo/store",
    prior: str = PRIOR,
    classifier: str = CLASSIFIER,
    generator: Generator | None = None,
    judge: Judge | None = None,
    world: World | None = None,
    attributes: list[str] = [],  # noqa: B006
    source_formula: str = "~glasses & ~beard & ~smile & ~hat & ~long_hair",
    seeds: list[int] = [0],  # noqa: B006
    sizes: Sizes = Sizes(),  # noqa: B008
    metrics: list[Measure] | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008
    guidance: Guidance = Guidance(),  # noqa: B008
    editing: Editing = Editing(),  # noqa: B008
    variations: dict[str, Variation] = {},  # noqa: B006
    baselines: dict[str, Baseline] = {},  # noqa: B006
    shared_judge: bool = False,
    save_images: bool = False,
    ranks: Ranks = Ranks(),  # noqa: B008
    tracking: Tracking = Tracking(),  # noqa: B008
    cache: str = "runs/cache",
    title: str = "Latent classifier guidance",
    notes: list[str] = [],  # noqa: B006
    commands: list[str] = [],  # noqa: B006
) -> None:
    """Measures latent classifier guidance beside its baselines; run again, it goes on where it was stopped.

    Writes OUT/results.csv, OUT/costs.csv, OUT/comparisons.csv, OUT/pictures/*.png, OUT/pictures.json and
    OUT/provenance.json; `lcg report OUT` shows them.

    Args:
        tasks: unconditional, reconstruction, calibration, disentanglement, generate/FORMULA, scale/FORMULA,
            edit/EDIT EDIT ..., synthetic/EDIT EDIT ..., tradeoff/EDIT EDIT ...; reconstruction is always measured.
        out: folder for the results.
        store: the latent store that prior and classifiers were fitted on.
        prior: checkpoint of the prior.
        classifier: checkpoint of the classifiers.
        generator: the frozen generator; the embedded one when left out.
        judge: says what is in an image; the embedded one when left out.
        world: real images that nothing was trained on; the embedded avatars when left out.
        attributes: what {1}, {2}, ... stand for in tasks.
        source_formula: what holds for the sources of edits.
        seeds: each is a repetition with other samples and other sources.
        sizes: how much is measured.
        metrics: what is measured; accuracy, ghosts, preservation, distances and side effects when left out.
        sampling: how latents are sampled.
        guidance: how strongly formulas guide.
        editing: how edits are made.
        variations: other settings of lcg to be compared, by the name they shall have.
        baselines: competing methods by the name they shall have, such as `lace: {class_path: lcg.baselines.LACE}`.
        shared_judge: go on with a judge that shares data or weights with what guides; the report says so.
        save_images: write every image, OUT/samples/METHOD/TASK/SEED/NNNNNN.png.
        ranks: how many processes.
        tracking: TensorBoard's events are always written; W&B only where it is asked for.
        cache: folder of what is computed of real images, shared by all benchmarks.
        title: of the report.
        notes: sentences that the reader of the report must see, the first about what has seen what.
        commands: what leads to these results, for the report.
    """
    check_tracking(tracking)
    setting = Setting.load(
        store, prior, classifier, generator, judge, world, cache, ranks.device, baselines, shared_judge
    )
    run(
        Job(
            tasks=tasks,
            out=out,
            attributes=attributes,
            source_formula=source_formula,
            seeds=seeds,
            sizes=sizes,
            metrics=metrics,
            sampling=sampling,
            guidance=guidance,
            editing=editing,
            variations=variations,
            baselines=baselines,
            save_images=save_images,
            tracking=tracking,
            title=title,
            notes=notes,
            commands=commands,
        ),
        setting,
        Crew(ranks),
    )


@dataclass(frozen=True)
class Job:
    """What a benchmark measures in its setting; see `bench_job`."""

    tasks: list[str]
    out: str
    attributes: list[str]
    source_formula: str
    seeds: list[int]
    sizes: Sizes
    metrics: list[Measure] | None
    sampling: Sampling
    guidance: Guidance
    editing: Editing
    variations: dict[str, Variation]
    baselines: dict[str, Baseline]
    save_images: bool
    tracking: Tracking
    title: str
    notes: list[str]
    commands: list[str]

    def __post_init__(self) -> None:
        if not self.tasks or not self.seeds:
            raise ValueError("`tasks` and `seeds` must each hold at least one entry; see configs/benchmark/demo.yaml")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"`seeds` must be different numbers >= 0, got {self.seeds}; each is a repetition")
        for name, given in (("baselines", self.baselines), ("variations", self.variations)):
            if again := {*METHODS} & {*given}:
                raise ValueError(f"`{name}` must have names of their own, got {sorted(again)[0]!r}; rename it")
            if odd := [one for one in given if not re.fullmatch(r"[\w.+=-]+", one)]:  # they are names of files, too
                raise ValueError(f"`{name}` must have names of letters, digits and _.+=-, got {odd[0]!r}; rename it")
        if again := {*self.variations} & {*self.baselines}:
            raise ValueError(
                f"`variations` and `baselines` must have different names, got {sorted(again)[0]!r} in both; rename one"
            )


def assemble(job: Job, setting: Setting) -> tuple[list[Task], Benchmark]:
    """The tasks of a job and the benchmark that measures them, checked; nothing is written yet."""
    schema = setting.pipeline.schema
    tasks = list(dict.fromkeys(parse_task(fill(text, job.attributes), schema) for text in job.tasks))
    if Single("reconstruction") not in tasks:  # the ceiling of everything else
        tasks.append(Single("reconstruction"))
    conditions = parse(fill(job.source_formula, job.attributes), schema)
    pipeline = setting.with_settings(sampling=job.sampling, guidance=job.guidance, editing=job.editing)
    sizes = job.sizes
    evaluator = Evaluator(
        pipeline, setting.judge, setting.world, setting.marginals, sizes.references, sizes.neighbours, setting.cache
    )
    check_tasks(tasks, conditions, evaluator, sizes)
    measures = [measure() for measure in STANDARD] if job.metrics is None else job.metrics
    settings = settings_of(job, setting, str(conditions), measures)
    folder = Folder(Path(job.out), settings, setting.cells)
    variations = [LCG(pipeline, name, variation) for name, variation in job.variations.items()]
    for variation in variations:
        check_settings(variation.pipeline)
    rivals = [
        Competitor(pipeline, baseline, setting.fit, name, setting.cache) for name, baseline in job.baselines.items()
    ]
    methods: list[Method] = [LCG(pipeline), *variations, *rivals]
    return tasks, Benchmark(evaluator, methods, measures, conditions, sizes, folder)


def run(job: Job, setting: Setting, crew: Crew) -> None:
    """Does a job: checks it, makes the pieces that are missing, writes the results."""
    started = time.perf_counter()
    tasks, benchmark = assemble(job, setting)
    folder, methods = benchmark.folder, benchmark.methods
    folder.prepare()
    if not benchmark.finished(tasks, job.seeds):
        for method in methods:
            method.prepare()
    crew.run("real images", benchmark.looking(tasks, job.seeds))
    crew.run("tuning", benchmark.tuning(tasks))
    benchmark.adopt(tasks)
    plan = benchmark.plan(tasks, job.seeds)
    crew.run("samples", benchmark.sampling(plan))
    exhibits = Exhibits(benchmark, plan)
    saved = exhibits.saving(plan) if job.save_images else []
    crew.run("figures", [*benchmark.measuring(plan), *exhibits.drawing(), *saved])
    if not crew.leads:
        return
    unseen = [name for task in tasks for name in never_seen(task, setting.labels)]
    outcomes = Outcomes(benchmark, plan, unseen)
    rows = outcomes.rows()
    write_rows(folder.root / "results.csv", rows)
    write_rows(folder.root / "costs.csv", outcomes.costs())
    write_comparisons(folder.root / "comparisons.csv", outcomes.comparisons())
    write_json(folder.root / "metrics.json", outcomes.about())
    write_json(folder.root / "pictures.json", exhibits.entries())
    skipped = [
        f"{method.name} has no answer to {task.name} and is left out there."
        for task in tasks
        for method in methods
        if isinstance(task, Generate | Scale) and not isinstance(method, LCG) and not method.can(task)
    ]
    told = provenance(job, setting, folder.settings, crew)
    told["notes"] = [*told["notes"], *skipped]
    spent = {"bench": time.perf_counter() - started, **crew.seconds}
    told |= {"zero_shot": unseen, "seconds": {name: round(seconds, 1) for name, seconds in spent.items()}}
    write_json(folder.root / "provenance.json", told)
    track(folder.root, job.tracking, {"tasks": job.tasks, "seeds": job.seeds, **folder.settings})
    print(f"{len(rows)} rows in {folder.root / 'results.csv'}")


def settings_of(job: Job, setting: Setting, conditions: str, measures: Sequence[Measure]) -> dict[str, Any]:
    """What results depend on, by name, in JSON primitives; see `Folder`."""
    sizes = asdict(job.sizes)
    return {
        "always": setting.always,
        "judge": weights_sha256(setting.judge),
        "world": setting.world.identity(),
        "measures": [measure.options() for measure in measures],
        "compared with": {name: sizes[name] for name in ("references", "neighbours")},
        "sizes": sizes,
        "sampling": asdict(job.sampling),
        "guidance": asdict(job.guidance),
        "editing": asdict(job.editing),
        "sources": [conditions, setting.world.identity()],
        **{f"variation {name}": asdict(variation) for name, variation in job.variations.items()},
        **{f"baseline {name}": options_of(baseline) for name, baseline in job.baselines.items()},
    }


def provenance(job: Job, setting: Setting, settings: dict[str, Any], crew: Crew) -> dict[str, Any]:
    """What a reader must know of the results, in JSON primitives."""
    generator, ranks = setting.pipeline.generator, crew.ranks.count
    return {
        "title": job.title,
        "created": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "folder": job.out,
        "lcg": __version__,
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {ranks} ranks, {torch.get_num_threads()} threads each",
        "config": {"tasks": [fill(text, job.attributes) for text in job.tasks], "seeds": job.seeds, **settings},
        "commands": job.commands,
        "notes": [*setting.faults, *setting.world.notes, *job.notes, *NOTES],
        "generator": {**generator.identity(), "provenance": getattr(generator, "provenance", {})},
        "judge": {"weights_sha256": settings["judge"], "provenance": _readable(setting.judge.provenance)},
        "store": _readable(setting.store.provenance),
    }


def _readable(told: Mapping[str, Any]) -> dict[str, Any]:
    """Without the fingerprints of image files, which are for comparing."""
    return {name: value for name, value in told.items() if name != "fingerprints"}
