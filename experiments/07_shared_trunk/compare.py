"""One trunk for all attributes against a network for each: python experiments/07_shared_trunk/compare.py

Validation as in `lcg validate`, on the same noised latents for all; samples judged as in `lcg bench`; CPU time of one
thread, all methods in turn. Writes results.csv and prints a table.
"""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lcg.benchmarks.evaluator import Evaluator
from lcg.benchmarks.setting import Setting
from lcg.benchmarks.speed.timing import alternate, one_core, summary
from lcg.checkpoint import load_network
from lcg.data.datamodule import LatentDataModule
from lcg.guidance import parse
from lcg.metrics.frechet import frechet_distance, moments
from lcg.metrics.temperature import band_of
from lcg.modules.bands import BANDS, band_name
from lcg.modules.calibration import observe
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import ScheduleName, make_schedule
from lcg.nets.heads import independent, log_likelihoods, mean_negative_log_likelihood
from lcg.pipeline import Pipeline
from lcg.settings import Guidance, Sampling

OUT, CACHE, DEMO = Path(__file__).parent / "results.csv", "runs/cache", Path("runs/demo")
METHODS = {name: f"runs/trunks/{name}/classifier.ckpt" for name in ("shared", "separate", "narrow")}
"""The first is what the others are compared with."""

FORMULAS = ("smile", "hat & ~beard", "glasses & beard & smile & hat")
COUNT, SEEDS = 1000, (0, 1, 2)
BATCHES, REPEATS, SECONDS = (1, 64), 5, 0.1
SAMPLING, GUIDANCE = Sampling("dpm++2m", 50), Guidance(dependence="independent", attempts=1)
TRAINED_ROWS = 512
SCHEDULE: ScheduleName = "cosine"

Row = tuple[str, str, str, float, float | str, int, int | str]
"""Method, task, metric, value, stderr, n, seed."""


def main() -> None:
    """Measures everything."""
    torch.set_num_threads(1)
    networks = (f"{DEMO}/prior/prior.ckpt", f"{DEMO}/classifier/classifier.ckpt")
    setting = Setting.load(f"{DEMO}/store", *networks, None, None, None, CACHE, torch.device("cpu"), {})
    evaluator = Evaluator(setting.pipeline, setting.judge, setting.world, setting.marginals, 4096, 16384, setting.cache)
    pipelines = {
        name: replace(
            setting.pipeline,
            classifier=load_network(path, "classifier").network,
            sampling=SAMPLING,
            guidance=GUIDANCE,
            supports={},
        )
        for name, path in METHODS.items()
    }
    classifiers = {name: pipeline.classifier for name, pipeline in pipelines.items()}
    rows: list[Row] = []
    for part in (validation(classifiers), cost(pipelines), samples(pipelines, evaluator)):
        for row in part:
            rows.append(row)
            with OUT.open("w", newline="") as file:
                header = ("method", "task", "metric", "value", "stderr", "n", "seed")
                csv.writer(file, lineterminator="\n").writerows([header, *rows])
    print(table(rows))


# --- what they know ---


def validation(classifiers: dict[str, TimeConditionedClassifier]) -> Iterator[Row]:
    """Negative log-likelihood and accuracy per known label, by noise band, and their differences to the first."""
    data = LatentDataModule(DEMO / "store", batch_size=512)
    data.setup()
    found = {name: known(classifier, data) for name, classifier in classifiers.items()}
    first = found[next(iter(found))]
    for name, figures in found.items():
        for metric, (value, band) in figures.items():
            for b in range(BANDS):
                task, difference = f"validation/{band_name(b)}", value - first[metric][0]
                yield name, task, metric, *share(value[band == b]), ""
                yield name, task, f"{metric}_difference", *share(difference[band == b]), ""


def known(classifier: TimeConditionedClassifier, data: LatentDataModule) -> dict[str, tuple[Tensor, Tensor]]:
    """Of every validation latent at every noise level, by metric: (M, A), NaN for unknown labels; and the band (M,)."""
    schema = classifier.schema
    observed = observe(classifier, make_schedule(SCHEDULE), data).double()
    outputs = independent(observed.tempered(classifier.log_temperature.double()))
    unknown, band = observed.labels.isnan(), band_of(observed.t, BANDS)
    values = [torch.stack([-o, o]) if o.ndim == 1 else o.t() for o in (outputs[name] for name in schema.names)]
    chosen = torch.stack([value.argmax(0) for value in values], dim=1)
    nll = -log_likelihoods(schema, outputs, observed.labels)
    accuracy = (chosen == observed.labels).double()
    found = {"nll": nll, "accuracy": accuracy}
    return {name: (value.masked_fill(unknown, math.nan), band) for name, value in found.items()}


def share(value: Tensor) -> tuple[float, float, int]:
    """Mean over the known labels of (N, A), its standard error over latents, and N."""
    known_labels = ~value.isnan()
    mean = float(value.nansum() / known_labels.sum())
    residual = torch.where(known_labels, value - mean, 0.0).sum(1)  # of a ratio of sums over independent latents
    return mean, float(residual.square().sum().sqrt() / known_labels.sum()), len(value)


# --- what they cost ---


def cost(pipelines: dict[str, Pipeline]) -> Iterator[Row]:
    """Parameters; CPU seconds per step of training, guided step of sampling, and edit."""
    for name, pipeline in pipelines.items():
        yield name, "network", "parameters", float(sum(p.numel() for p in pipeline.classifier.parameters())), "", 1, ""
    first = next(iter(pipelines.values()))
    runs: dict[tuple[str, str], dict[str, Callable[[], object]]] = {
        ("training", "seconds_per_step"): {n: training_step(p.classifier) for n, p in pipelines.items()}
    }
    z = torch.randn(max(BATCHES), *first.classifier.latent_shape, generator=torch.Generator().manual_seed(0))
    for batch in BATCHES:
        runs["sample/unconditional", f"seconds_per_step/{batch}"] = {
            "prior": partial(SAMPLING.build(first.denoiser).sample, first.denoiser, z[:batch])
        }
        for formula in FORMULAS:
            plan = first.plan(parse(formula, first.schema))
            runs[f"sample/{formula}", f"seconds_per_step/{batch}"] = {
                name: partial(
                    SAMPLING.build(first.denoiser, plan.weight.largest).sample, pipeline.guided(plan), z[:batch]
                )
                for name, pipeline in pipelines.items()
            }
        runs["edit/+smile", f"seconds_per_edit/{batch}"] = {
            name: partial(pipeline.edit_latents, z[:batch], ["+smile"]) for name, pipeline in pipelines.items()
        }
    with one_core():
        for (task, metric), candidates in runs.items():
            for name, timing in alternate(candidates, REPEATS, SECONDS).items():
                steps = SAMPLING.steps if task.startswith("sample/") else 1
                yield name, task, metric, summary(timing.rounds)["median"] / steps, "", REPEATS, ""


def training_step(classifier: TimeConditionedClassifier) -> Callable[[], object]:
    """Loss, gradient and a step of AdamW, as in training, of a new network of this kind."""
    config = {**classifier.config, "latent_shape": classifier.latent_shape, "schema": classifier.schema}
    network = TimeConditionedClassifier(**config)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    z_t, t = torch.randn(TRAINED_ROWS, *network.latent_shape), torch.rand(TRAINED_ROWS)
    labels = torch.zeros(TRAINED_ROWS, len(network.schema))

    def step() -> None:
        optimizer.zero_grad()
        mean_negative_log_likelihood(network.schema, network(z_t, t), labels).backward()
        optimizer.step()

    return step


# --- where they lead ---


def samples(pipelines: dict[str, Pipeline], evaluator: Evaluator) -> Iterator[Row]:
    """Joint accuracy and distance of samples that are guided alike, from the same noise."""
    first = next(iter(pipelines.values()))
    for seed in SEEDS:
        for formula in FORMULAS:
            asked = parse(formula, first.schema)
            plan, reference = first.plan(asked), evaluator.satisfying(asked)
            for name, pipeline in pipelines.items():
                z_0 = pipeline.draw_each([plan], range(seed * COUNT, (seed + 1) * COUNT))[0].z_0
                seen, near = evaluator.see(pipeline.decode(z_0)), evaluator.nearest.near(z_0)
                holds = asked.holds(seen.labels)
                distance = frechet_distance(*moments(seen.features), reference.mean, reference.covariance)
                for metric, value in (("joint_accuracy", holds), ("sharp", holds & near)):
                    p = float(value.float().mean())
                    yield name, f"generate/{formula}", metric, p, math.sqrt(p * (1 - p) / COUNT), COUNT, seed
                yield name, f"generate/{formula}", "frechet_distance", distance, "", COUNT, seed


def table(rows: list[Row]) -> str:
    """A line per task and metric, a column per method: means over seeds, and the standard error where there is one."""
    cells: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        cells.setdefault(row[1:3], {}).setdefault(row[0], []).append(row)
    columns = list(dict.fromkeys(row[0] for row in rows))
    lines = ["| task | metric | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for (task, metric), methods in cells.items():
        values = [cell(methods.get(name, [])) for name in columns]
        lines.append(f"| {task} | {metric} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def cell(rows: list[Row]) -> str:
    """The mean of a figure over seeds."""
    if not rows:
        return ""
    mean = sum(row[3] for row in rows) / len(rows)
    errors = [row[4] for row in rows if isinstance(row[4], float)]
    error = f" ± {math.sqrt(sum(e * e for e in errors)) / len(errors):.2g}" if errors else ""
    return f"{mean:.5g}{error}"


if __name__ == "__main__":
    main()
