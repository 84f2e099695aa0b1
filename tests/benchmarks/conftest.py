"""A made-up benchmark folder with every kind of task, picture and file that a report knows; and small true ones."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcg.benchmarks.results.estimates import COLUMNS
from lcg.benchmarks.results.pairs import COLUMNS as PAIRS
from lcg.data.avatars import SCHEMA, AvatarSource
from lcg.data.images import provenance_of
from lcg.generators.base import pixels_to_x
from lcg.metrics.judge import Judge
from lcg.pictures import contact_sheet, strips
from lcg.weights import save_weights

Line = tuple[Any, ...]

METHODS = {
    "lcg": 0.93,
    "arithmetic": 0.55,
    "lace": 0.78,
    "styleflow": 0.71,
    "composable_mcmc": 0.84,
}  # how good each is
FORMULAS = ("glasses & ~beard", "smile & hat & (beard | glasses)")
EDITS = ("+glasses", "+hat", "-smile")
ATTRIBUTES = ("glasses", "hat", "smile", "beard", "long_hair", "dark_skin", "hair_color", "hat_color", "beard_style")
ATTRIBUTES += ("beard_color", "glasses_style", "skin_color", "mouth", "eyes", "clothes", "clothes_color", "top")
BANDS = ("t=0.05", "t=0.25", "t=0.5", "t=0.75", "t=0.95")
SEEDS = (1, 2)
N = 256


@pytest.fixture(scope="session")
def made_up() -> Callable[[Path], Path]:
    """Makes the folder demo/bench under a path."""
    return make


def make(path: Path) -> Path:
    folder = path / "demo" / "bench"
    (folder / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    _write(folder / "results.csv", COLUMNS, _results(rng))
    _write(folder / "costs.csv", COLUMNS, _costs(rng))
    _write(folder / "comparisons.csv", PAIRS, _comparisons())
    (folder / "pictures.json").write_text(json.dumps(list(_pictures(folder, rng))))
    provenance = {
        "title": "A made-up benchmark of everything",
        "created": "2025-01-02 03:04 UTC",
        "lcg": "0.1.0",
        "folder": "runs/demo/bench",
        "versions": {"torch": "2.13.0"},
        "config": {
            "tasks": [
                *("unconditional", "reconstruction", "calibration", "disentanglement"),
                *(f"{kind}/{formula}" for kind in ("generate", "scale") for formula in FORMULAS),
                *(f"{kind}/{' '.join(EDITS)}" for kind in ("edit", "synthetic", "tradeoff")),
            ],
            "seeds": list(SEEDS),
        },
        "commands": ["lcg bench --config configs/benchmark/demo.yaml", "lcg report runs/demo/bench"],
        "notes": ["The generator has seen every combination, the prior has not.", "The judge has weights of its own."],
        "zero_shot": [f"generate/{FORMULAS[1]}"],
        "seconds": {"bench": 754.3},
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def _write(path: Path, columns: tuple[str, ...], lines: Iterator[Line]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *lines])


def _share(rng: np.random.Generator, mean: float, n: int = N) -> tuple[float, float]:
    value = rng.binomial(n, min(max(mean, 0.0), 1.0)) / n
    return value, (value * (1 - value) / n) ** 0.5


def _steps(kind: str) -> list[str]:
    return [f"{kind}/{''.join(EDITS[: k + 1])}" for k in range(len(EDITS))]


def _results(rng: np.random.Generator) -> Iterator[Line]:
    for seed in SEEDS:
        for method, good in (*METHODS.items(), ("real", 0.99)):
            for task in (f"generate/{formula}" for formula in FORMULAS):
                for metric, mean in (("joint_accuracy", good), ("sharp", good - 0.1), ("precision", good - 0.2)):
                    yield method, task, metric, *_share(rng, mean), N, seed
                for metric in ("recall", "coverage"):
                    yield method, task, metric, *_share(rng, good - 0.3), N, seed
                yield method, task, "density", 1.1 * good + rng.normal(0, 0.01), "", N, seed
                yield method, task, "diversity", 12 + 3 * good + rng.normal(0, 0.1), 0.05, N, seed
                yield method, task, "frechet_distance", 160 - 140 * good + rng.normal(0, 2), "", N, seed
                yield method, task, "kid", 0.02 - 0.015 * good, 0.001, N, seed
        for method, good in METHODS.items():
            yield from _edited(rng, method, good, seed)
            yield from _scaled(rng, method, good, seed)
            for strength in (0.25, 0.5, 1, 2, 4):
                task = f"tradeoff/{''.join(EDITS)}"
                reached = good * strength / (strength + 0.5)
                yield method, task, f"joint_accuracy/{strength:g}", *_share(rng, reached), N, seed
                yield method, task, f"kept_fine/{strength:g}", *_share(rng, 1 - (1 - good) * strength / 2), N, seed
            yield method, f"tradeoff/{''.join(EDITS)}", "pareto_area", good - 0.1, 0.01, N, seed
    yield "lcg", "unconditional", "frechet_distance", 48.25, "", 512, ""
    yield "real", "unconditional", "frechet_distance", 8.7, "", 512, ""
    yield "lcg", "reconstruction", "psnr", 41.2, 0.1, 512, ""
    for attribute in ATTRIBUTES:
        yield "real", "reconstruction", f"accuracy/{attribute}", *_share(rng, 0.995), N, ""
        for space, information in (("z_sem", 0.6), ("W", 0.4)):
            yield space, "disentanglement", f"information/{attribute}", rng.uniform(0, information), "", N, ""
        for i, band in enumerate(BANDS):
            yield "classifier", "calibration", f"ece/{attribute}/{band}", 0.01 + 0.01 * i, 0.004, N, ""
            yield "classifier", "calibration", f"ece_chance/{attribute}/{band}", 0.008, "", N, ""
    for space, value in (("z_sem", 0.41), ("W", 0.35)):
        for metric in ("modularity", "explicitness", "compactness"):
            yield space, "disentanglement", metric, value + rng.uniform(0, 0.2), "", N, ""
    for i, band in enumerate(BANDS):
        for k in range(5 - i // 3, 15):
            confidence, count = (k + 0.5) / 15, 20 + 10 * (k - 4) ** 2
            accuracy = _share(rng, confidence - 0.03 * i * (confidence - 0.4), count)
            yield "classifier", "calibration", f"accuracy_in_bin/{band}/{k}", *accuracy, count, ""
            yield "classifier", "calibration", f"confidence_in_bin/{band}/{k}", confidence, "", count, ""


def _edited(rng: np.random.Generator, method: str, good: float, seed: int) -> Iterator[Line]:
    for kind in ("edit", "synthetic"):
        for k, task in enumerate(_steps(kind)):
            for metric, mean in (("edit_success", good - 0.08 * k), ("kept", good), ("kept_fine", good - 0.1 * k)):
                yield method, task, metric, *_share(rng, mean), N, seed
            yield method, task, "des", good - 0.15, 0.02, N, seed
            yield method, task, "identity", 0.5 + good / 2, 0.004, N, seed
            edited = [edit[1:] for edit in EDITS[: k + 1]]
            for attribute in ATTRIBUTES:
                mean = good if attribute in edited else (1 - good) * rng.uniform(0, 1)
                yield method, task, f"changed/{attribute}", *_share(rng, mean), N, seed


def _scaled(rng: np.random.Generator, method: str, good: float, seed: int) -> Iterator[Line]:
    for formula in FORMULAS:
        for strength in (0.5, 1, 2, 4, 8, 16) if method == "lcg" else (0.1, 0.3, 1, 3):
            task, reached = f"scale/{formula}", good * strength / (strength + 0.4)
            yield method, task, f"joint_accuracy/{strength:g}", *_share(rng, reached), N, seed
            yield method, task, f"sharp/{strength:g}", *_share(rng, reached * (1 - 0.03 * strength)), N, seed
            distance = 20 + 60 * (1 - good) + 9 * strength + rng.normal(0, 1)
            yield method, task, f"frechet_distance/{strength:g}", distance, "", N, seed
            yield method, task, f"diversity/{strength:g}", 16 - 0.3 * strength, 0.05, N, seed


def _costs(rng: np.random.Generator) -> Iterator[Line]:
    evaluations = {"lcg": 150, "arithmetic": 0, "lace": 1240, "styleflow": 40, "composable_mcmc": 3000}
    for seed in SEEDS:
        for method, count in evaluations.items():
            for task in (*(f"generate/{formula}" for formula in FORMULAS), _steps("edit")[-1]):
                yield method, task, "seconds_per_sample", 0.0004 * (count + 1), "", N, seed
                yield method, task, "evaluations", count, "", N, seed
                yield method, task, "peak_memory", 40 + count / 100, "", N, seed


def _comparisons() -> Iterator[Line]:
    """lcg is better than all others by test, but for one metric of one task, where a difference may be chance."""
    for task in (*(f"generate/{formula}" for formula in FORMULAS), *_steps("edit")):
        metric = "joint_accuracy" if task.startswith("generate") else "edit_success"
        for method, good in METHODS.items():
            if method != "lcg":
                p = 0.4 if task == _steps("edit")[0] and method == "composable_mcmc" else 0.001
                yield task, metric, method, "lcg", good - 0.93, good - 0.97, good - 0.89, p / 4, p, N * len(SEEDS)


def _pictures(folder: Path, rng: np.random.Generator) -> Iterator[dict[str, str]]:
    for i, (kind, method, task) in enumerate(
        (
            ("unconditional", "lcg", "unconditional"),
            *(("formula", method, f"generate/{FORMULAS[1]}") for method in ("lcg", "lace", "real")),
            ("edit", "lcg", _steps("edit")[-1]),
            ("edit", "lcg", _steps("synthetic")[-1]),
            ("comparison", "all", _steps("edit")[-1]),
            ("reconstruction", "real", "reconstruction"),
        )
    ):
        images = rng.integers(0, 256, (2, 8, 1, 1, 3), dtype=np.uint8).repeat(64, 2).repeat(64, 3)
        labels = ["source", *EDITS] if kind == "edit" else ["source", *METHODS]
        shown = images[:, : len(labels)]
        picture = strips(shown, labels) if kind in ("edit", "comparison") else contact_sheet(images[0], 4)
        picture.save(folder / "pictures" / f"{i}.png")
        entry = {"file": f"pictures/{i}.png", "kind": kind, "method": method, "task": task}
        yield entry | {"title": f"Title {i}", "caption": f"Caption {i}, not chosen."}


@pytest.fixture(scope="session")
def small_judge(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """Weights of an untrained judge with few features, so that few samples give a distance; another for each seed.

    It sees something, though nothing that is there: of each binary attribute about half of all avatars have it.
    """

    def make(seed: int) -> str:
        torch.manual_seed(seed)
        judge = Judge(SCHEMA, width=4, features=6).eval()
        images, _ = AvatarSource("uniform", 64, "judge").chunk(0, 64)
        logits, start = judge(pixels_to_x(torch.from_numpy(images))), 0
        for attribute in SCHEMA:
            if attribute.kind == "binary":
                judge.heads[-1].bias.data[start] -= logits[attribute.name].detach().median()
            start += attribute.outputs
        path = tmp_path_factory.mktemp("judge") / f"judge-{seed}.safetensors"
        save_weights(path, judge, judge.config, provenance_of(train=AvatarSource("uniform", 8, "judge")))
        return str(path)

    return functools.cache(make)


SMALL = {
    "samples": 20,
    "unconditional": 24,
    "sources": 6,
    "references": 32,
    "neighbours": 64,
    "tuning": 4,
    "chunk": 8,
    "shown": 4,
    "compared": 3,
}
ARITHMETIC = '{"arithmetic": {"class_path": "lcg.baselines.LatentArithmetic"}}'


@pytest.fixture(scope="session")
def bench_words(demo, small_judge: Callable[[int], str], tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """The words of a small `lcg bench` into a folder; the cache of real images is shared among the tests."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def words(out: Path, tasks: list[str], *more: str, judge: int = 0, baselines: str = ARITHMETIC) -> list[str]:
        sizes = [word for name, value in SMALL.items() for word in (f"--sizes.{name}", str(value))]
        chosen = {"class_path": "lcg.metrics.judge.AvatarJudge", "init_args": {"weights": small_judge(judge)}}
        where = ("--out", str(out), "--cache", cache, "--store", demo.store, *demo.networks)
        few = ("--sampling.steps", "5", "--editing.steps", "4", "--judge", json.dumps(chosen))
        return ["bench", "--tasks", json.dumps(tasks), *where, *few, *sizes, "--baselines", baselines, *more]

    return words
