"""Which latents to label next: curves from 50 to 400 labels of a rare attribute, by acquisition; see README.md.

OMP_NUM_THREADS=1 python experiments/12_active_labels/compare.py      writes results.csv and figure.png beside itself
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lcg.checkpoint import load_network
from lcg.data.store import LatentStore
from lcg.diffusion import CosineSchedule, diffuse
from lcg.generators.autoencoder import AvatarAutoencoder
from lcg.generators.base import pixels_to_x
from lcg.labels.active_acquisition import Acquisition, choose
from lcg.metrics.accuracy import proportion
from lcg.metrics.judge import AvatarJudge
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import independent, mean_negative_log_likelihood
from lcg.pipeline import Pipeline
from lcg.schema import Attribute, Schema
from lcg.settings import Guidance, Sampling

HERE = Path(__file__).parent
ACQUISITIONS: tuple[Acquisition, ...] = ("guidance", "bald", "entropy", "coverage", "random")
"""Of a binary attribute, margin orders as entropy does."""
RARE = {"flat_hair": ("top", "shortFlat"), "blond_beard": ("beard_color", "blond")}
POOL, TEST, FIRST, MORE, MOST = 6000, 3000, 50, 50, 400
GENERATED, AT = 128, (100, 200, 400)
NOISY = (0.2, 0.4, 0.6)
SCHEDULE = CosineSchedule()


@dataclass(frozen=True)
class World:
    """Latents with the true labels of one rare attribute, standardised; the first POOL may be labelled."""

    name: str
    z_0: Tensor
    y: Tensor
    store: LatentStore

    @property
    def schema(self) -> Schema:
        return Schema((Attribute(self.name),))


def main() -> None:
    """Every acquisition, attribute and seed."""
    options = argparse.ArgumentParser()
    options.add_argument("--demo", default="runs/demo")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--attributes", nargs="+", default=list(RARE))
    options.add_argument("--out", default=str(HERE))
    given = options.parse_args()
    store, judge = LatentStore.open(f"{given.demo}/store"), AvatarJudge()
    prior = load_network(f"{given.demo}/prior/prior.ckpt", "denoiser").network
    rows: list[tuple[object, ...]] = []
    for seed in given.seeds:
        for name in given.attributes:
            world = read(store, name, seed)
            for acquisition in reversed(ACQUISITIONS):
                for figures in curve(world, acquisition, seed, prior, judge):
                    rows += [(acquisition, name, *figure, seed) for figure in figures]
                print(
                    seed,
                    name,
                    acquisition,
                    f"{time.process_time():.0f} s",
                    *(f"{r[2]} {r[3]:.3f}" for r in rows[-4:]),
                    sep="; ",
                    flush=True,
                )
        with (Path(given.out) / "results.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("method", "task", "metric", "value", "labels", "seed"), *rows])
    draw(rows, Path(given.out) / "figure.png")
    print(table(rows))


def read(store: LatentStore, name: str, seed: int) -> World:
    """Other rows of the store for every seed."""
    attribute, value = RARE[name]
    rows = torch.randperm(len(store), generator=torch.Generator().manual_seed(seed))[: POOL + TEST]
    labels = store.labels(rows)[:, store.schema.index(attribute)]
    z_0 = store.statistics.standardise(store.latents(rows))
    return World(name, z_0, (labels == store.schema[attribute].value_index(value)).float()[:, None], store)


def curve(
    world: World, acquisition: Acquisition, seed: int, prior: torch.nn.Module, judge: AvatarJudge
) -> Iterator[list[tuple[object, ...]]]:
    """Figures after every round of labels; the first labels are the same random ones for every acquisition."""
    labelled = torch.zeros(POOL, dtype=torch.bool)
    labelled[torch.randperm(POOL, generator=torch.Generator().manual_seed(1000 + seed))[:FIRST]] = True
    pool = world.z_0[:POOL]
    while True:
        count = int(labelled.sum())
        classifier = trained(world, labelled, seed)
        found = list(seen(world, classifier, count))
        if count in AT:
            found.append(("generated", generated(world, labelled, classifier, prior, judge), count))
        found.append(("positives", float(world.y[:POOL][labelled].sum()), count))
        yield found
        if count >= MOST:
            return
        picked = choose(
            acquisition,
            MORE,
            pool,
            ~labelled[:, None],
            pool[labelled],
            torch.ones(count, 1, dtype=torch.bool),
            [world.name],
            classifier,
            SCHEDULE,
            seed=1000 * seed + count,
        )
        labelled[picked] = True


def trained(world: World, labelled: Tensor, seed: int, steps: int = 250) -> TimeConditionedClassifier:
    """A small classifier from scratch, as `lcg fit` trains it."""
    z_0, y = world.z_0[:POOL][labelled], world.y[:POOL][labelled]
    torch.manual_seed(seed)
    classifier = TimeConditionedClassifier(tuple(z_0.shape[1:]), world.schema, 96, 2, dropout=0.1)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.05, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(z_0), (96,))
        t = torch.rand(96)
        outputs = classifier(diffuse(SCHEDULE, z_0[rows], t, torch.randn(96, *z_0.shape[1:])), t)
        loss = mean_negative_log_likelihood(world.schema, outputs, y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return classifier.eval().requires_grad_(False)


def seen(world: World, classifier: TimeConditionedClassifier, count: int) -> Iterator[tuple[object, ...]]:
    """AUROC and accuracy on latents that nobody trained on, clean and noised."""
    z_0, y = world.z_0[POOL:], world.y[POOL:, 0]
    noise = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(0))
    found = []
    for level in (0.0, *NOISY):
        t = torch.full((len(z_0),), level)
        logit = independent(classifier(diffuse(SCHEDULE, z_0, t, noise), t))[world.name]
        found.append((auroc(logit, y), float(((logit > 0).float() == y).float().mean())))
    for column, metric in enumerate(("auroc", "accuracy")):
        yield f"{metric}/clean", found[0][column], count
        yield f"{metric}/noisy", float(np.mean([figures[column] for figures in found[1:]])), count


def auroc(score: Tensor, y: Tensor) -> float:
    """How often a positive is scored above a negative."""
    rank = torch.empty(len(score), dtype=torch.float64)
    rank[score.argsort()] = torch.arange(1, len(score) + 1, dtype=torch.float64)
    positive = int(y.sum())
    return float((rank[y > 0].sum() - positive * (positive + 1) / 2) / (positive * (len(y) - positive)))


def generated(
    world: World, labelled: Tensor, classifier: TimeConditionedClassifier, prior: torch.nn.Module, judge: AvatarJudge
) -> float:
    """The share of guided samples that have the attribute by the judge; no sample is drawn twice."""
    attribute, value = RARE[world.name]
    pipeline = Pipeline(
        AvatarAutoencoder(),
        prior,  # type: ignore[arg-type]
        classifier,
        world.store.statistics,
        world.store.fingerprint,
        world.y[:POOL][labelled],
        "independent",
        sampling=Sampling(steps=12),
        guidance=Guidance(attempts=1, extrapolate="never"),
    )
    images = pipeline.generate(world.name, GENERATED).images
    labels = judge.judge(pixels_to_x(torch.from_numpy(images))).labels[:, judge.schema.index(attribute)]
    return proportion(labels == judge.schema[attribute].value_index(value))[0]


def means(rows: list[tuple[object, ...]]) -> dict[tuple[str, str, int], list[float]]:
    """The values of all attributes and seeds by acquisition, metric and number of labels."""
    found: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for method, _, metric, value, count, _ in rows:
        found[str(method), str(metric), int(str(count))].append(float(str(value)))
    return found


def draw(rows: list[tuple[object, ...]], path: Path) -> None:
    """The curves."""
    found, figure = means(rows), Figure(figsize=(12, 3.6), layout="constrained", dpi=110)
    panels = {
        "auroc/clean": "AUROC, clean",
        "auroc/noisy": "AUROC, t = .2, .4, .6",
        "generated": "guided samples right",
    }
    for axes, (metric, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for acquisition in ACQUISITIONS:
            at = sorted(count for method, m, count in found if (method, m) == (acquisition, metric))
            style = {"color": "#1b1b1b", "linestyle": "--"} if acquisition == "random" else {}
            values = [np.mean(found[acquisition, metric, count]) for count in at]
            axes.plot(at, values, marker="o", markersize=3, linewidth=1.4, label=acquisition, **style)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("labels")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def table(rows: list[tuple[object, ...]]) -> str:
    """Means, and the standard error of the difference to random over attributes and seeds."""
    found, lines = means(rows), []
    for metric in ("auroc/clean", "auroc/noisy", "accuracy/clean", "accuracy/noisy", "generated", "positives"):
        for acquisition in ACQUISITIONS:
            cells = []
            for count in AT:
                own, base = (np.array(found[method, metric, count]) for method in (acquisition, "random"))
                spread = (own - base).std(ddof=1) / len(own) ** 0.5 if len(own) > 1 else np.nan
                cells.append(f"{own.mean():.3f} ({(own - base).mean():+.3f} +- {spread:.3f})")
            lines.append(f"| {metric} | {acquisition} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
