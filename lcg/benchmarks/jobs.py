"""The benchmark job: methods x tasks x seeds -> `results.csv`, pictures, provenance.

A job that was stopped goes on with what is missing; a changed network or setting measures again what it changes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lcg import __version__
from lcg.baselines.contract import Baseline, Training
from lcg.benchmarks.benchmark import Benchmark, Sizes, sources_of
from lcg.benchmarks.cells import Cells
from lcg.benchmarks.evaluator import Evaluator
from lcg.benchmarks.methods import LCG, Competitor, Method, Variant
from lcg.benchmarks.tasks import Edit, Generate, Task, Tradeoff, Unconditional, parse_task
from lcg.benchmarks.world import AvatarWorld
from lcg.data.store import LatentStore
from lcg.generators.base import Generator, weights_sha256
from lcg.guidance import Formula, parse
from lcg.metrics.judge import AvatarJudge
from lcg.metrics.reference import marginals
from lcg.pipeline import CLASSIFIER, PRIOR, load
from lcg.settings import Editing, Guidance, Sampling

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
    sizes: Sizes = Sizes(),  # noqa: B008
    sampling: Sampling = Sampling(),  # noqa: B008
    guidance: Guidance = Guidance(),  # noqa: B008
    editing: Editing = Editing(),  # noqa: B008
    compare: dict[str, Guidance] = {},  # noqa: B006 (never changed)
    baselines: dict[str, Baseline] = {},  # noqa: B006
    title: str = "Latent classifier guidance on the embedded avatars",
    commands: list[str] = [],  # noqa: B006
) -> None:
    """Measures latent classifier guidance beside its baselines; run again, it goes on where it was stopped.

    Writes OUT/results.csv, OUT/pictures/*.png, OUT/pictures.json and OUT/provenance.json; `lcg report OUT` shows them.

    Args:
        tasks: unconditional, reconstruction, generate/FORMULA, edit/EDIT EDIT ..., tradeoff/EDIT EDIT ...
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
        baselines: competing methods by the name they shall have, such as `lace: {class_path: lcg.baselines.LACE}`.
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
        **{f"baseline {name}": options_of(baseline) for name, baseline in baselines.items()},
    }
    taken = {"lcg", "prior", "gaussian", "generator", "real", "all", *compare}
    if again := taken & {*baselines}:
        raise ValueError(f"`baselines` must have names of their own, got {sorted(again)[0]!r}; rename it")
    training = Training(
        pipeline.statistics.standardise(data.latents()),
        labels,
        pipeline.schema,
        pipeline.generator,
        pipeline.statistics,
        pipeline.denoiser,
        pipeline.denoiser.schedule,
        pipeline.classifier,
        data.fingerprint,
    )
    competitors = [Competitor(pipeline, baseline.fit(training), name) for name, baseline in baselines.items()]
    cells = Cells(Path(out), settings)
    variants = [Variant(replace(pipeline, guidance=other), name) for name, other in compare.items()]
    methods: list[Method] = [LCG(pipeline), *variants, *competitors]
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
        if isinstance(task, Edit | Tradeoff):
            edit = task if isinstance(task, Edit) else task.edit
            binary = {a.name for a in world.schema.of_kind("binary")}
            names = [name for literal in edit.edits for name in literal.attributes]
            if len(set(names)) != len(names) or not set(names) <= binary:
                raise ValueError(
                    f"the edits of {task.name!r} must each change another binary attribute, one of "
                    f"{', '.join(sorted(binary))}; use `lcg edit` for others"
                )
            world.check_exists(sources_of(edit, conditions))


def options_of(baseline: Baseline) -> dict[str, Any]:
    """What a baseline's results depend on, before it is fitted: its class, its options, the bytes of its checkpoint."""
    options = {k: v for k, v in vars(baseline).items() if not k.startswith("_") and _is_plain(v)}
    checkpoint = Path(str(options.get("checkpoint", "")))
    if checkpoint.is_file():
        options["checkpoint_sha256"] = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    return {"class": f"{type(baseline).__module__}.{type(baseline).__qualname__}", **options}


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def never_seen(task: Task, labels: Tensor) -> list[str]:
    """The names of a task's results that ask for a combination which no labelled latent has."""
    if isinstance(task, Generate):
        return [] if bool(task.formula.holds(labels).any()) else [task.name]
    if isinstance(task, Edit):
        return [p.name for p in task.steps() if not bool(torch.stack([e.holds(labels) for e in p.edits]).all(0).any())]
    if isinstance(task, Tradeoff):
        last = never_seen(task.edit, labels)[-1:]
        return [task.name] if last == [task.edit.name] else []
    return []
