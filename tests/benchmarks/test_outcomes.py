"""What is put together of the figures of all cells, from files whose content is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lcg.benchmarks.cells import Cell, Direct, Made
from lcg.benchmarks.folder import write_json, write_tensors
from lcg.benchmarks.outcomes import Outcomes
from lcg.benchmarks.results.comparisons import compare
from lcg.benchmarks.tasks import parse_task
from lcg.data.avatars import SCHEMA
from lcg.metrics.pareto import pareto_area, pareto_bootstrap

STRENGTHS = (0.5, 2.0)
RNG = np.random.default_rng(0)


def cell(method: str, text: str, seed: int = 0, count: int = 8, strengths: Sequence[float] = ()) -> Cell:
    return Cell(method, parse_task(text, SCHEMA), seed, count, (), lambda rows: Made(torch.zeros(1)), tuple(strengths))


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., Outcomes]:
    """The outcomes of cells: of each its rows and, by task and metric, what came of its images."""

    def put(
        contents: list[tuple[Cell | Direct, list[list[Any]], dict[str, np.ndarray]]], unseen: Sequence[str] = ()
    ) -> Outcomes:
        paths = {id(cell): tmp_path / f"{number}.json" for number, (cell, _, _) in enumerate(contents)}
        for of, rows, images in contents:
            path = paths[id(of)]
            costs = [[of.task.name, "evaluations", 5.0, None, of.count]]
            write_json(path, {"rows": rows, "costs": costs})
            tensors = {name: torch.from_numpy(values.astype(np.float32)) for name, values in images.items()}
            write_tensors(path.with_suffix(".safetensors"), tensors)
        benchmark = SimpleNamespace(figures=lambda of: paths[id(of)])
        return Outcomes(benchmark, [of for of, _, _ in contents], unseen)

    return put


def curve(task: str) -> dict[str, np.ndarray]:
    """Successes at each strength, 64 sources."""
    return {
        f"{task}\n{metric}/{strength:g}": RNG.random(64) < share
        for metric, shares in (("joint_accuracy", (0.3, 0.8)), ("kept_fine", (0.9, 0.5)))
        for strength, share in zip(STRENGTHS, shares, strict=True)
    }


def test_rows_are_those_of_the_plan_in_its_order(told: Callable[..., Outcomes]) -> None:
    one, two = cell("lcg", "generate/hat", 0), cell("real", "generate/hat", 3)
    task = "generate/hat"
    outcomes = told([(one, [[task, "sharp", 0.5, 0.1, 8]], {}), (two, [[task, "frechet_distance", 2.0, None, 8]], {})])
    assert outcomes.rows() == [
        ("lcg", task, "sharp", 0.5, 0.1, 8, 0),
        ("real", task, "frechet_distance", 2.0, None, 8, 3),
    ]
    assert [row[:4] for row in outcomes.costs()] == [
        ("lcg", task, "evaluations", 5.0),
        ("real", task, "evaluations", 5.0),
    ]


def test_trade_offs_are_areas_under_the_outcomes(told: Callable[..., Outcomes]) -> None:
    task, known = "tradeoff/+hat", {name: curve("tradeoff/+hat") for name in ("lcg", "other")}
    cells = [cell(name, task, 5, 64, STRENGTHS) for name in known]
    rows = told([(of, [], known[of.method]) for of in cells]).rows()
    found = {(row[0], row[2]): row for row in rows}
    assert found.keys() == {("lcg", "pareto_area"), ("other", "pareto_area"), ("other", "pareto_behind")}
    resampled = {}
    for name, images in known.items():
        present, kept = (
            np.stack([images[f"{task}\n{metric}/{strength:g}"] for strength in STRENGTHS])
            for metric in ("joint_accuracy", "kept_fine")
        )
        area, resampled[name] = pareto_bootstrap(present, kept, seed=5)
        assert found[name, "pareto_area"][3] == area == pareto_area(present.mean(1), kept.mean(1))
        assert found[name, "pareto_area"][4] == pytest.approx(resampled[name].std(ddof=1))
    behind = found["other", "pareto_behind"]
    assert behind[3] == found["lcg", "pareto_area"][3] - found["other", "pareto_area"][3]
    assert behind[4] == pytest.approx((resampled["lcg"] - resampled["other"]).std(ddof=1))
    assert all(row[5:] == (64, 5) for row in rows)


def test_a_trade_off_that_was_not_measured_has_no_area(told: Callable[..., Outcomes]) -> None:
    """Where `metrics` names others."""
    images = {name: values for name, values in curve("tradeoff/+hat").items() if "kept_fine" not in name}
    assert told([(cell("lcg", "tradeoff/+hat", 0, 64, STRENGTHS), [], images)]).rows() == []


def test_the_zero_shot_accuracy_is_the_mean_over_what_nobody_has_seen(told: Callable[..., Outcomes]) -> None:
    values = {"generate/hat & beard": (0.2, 0.03), "generate/hat & smile": (0.6, 0.04), "generate/hat": (1.0, 0.0)}
    contents = [
        (cell(method, task), [[task, "joint_accuracy", value, error, 8], [task, "sharp", 0.1, None, 8]], {})
        for method in ("lcg", "some")
        for task, (value, error) in values.items()
        if (method, task) != ("some", "generate/hat & smile")  # it has no answer to that
    ]
    rows = told(contents, [*list(values)[:2], "edit/+hat"]).rows()
    assert [row for row in rows if row[1] == "zero-shot"] == [
        ("lcg", "zero-shot", "zero_shot_accuracy", pytest.approx(0.4), pytest.approx(math.hypot(0.03, 0.04) / 2), 16, 0)
    ]


def test_comparisons_are_between_methods_on_equal_sources(told: Callable[..., Outcomes]) -> None:
    task = "edit/+hat"
    images = {
        (method, seed): {
            f"{task}\nkept": RNG.random(8) < 0.5,
            f"{task}\nchanged/hat": RNG.random(8) < 0.5,
            f"{task}\nprecision": RNG.random(8),
        }
        for method in ("lcg", "a", "b", "real")
        for seed in (0, 1)
    }
    cells = [cell(method, task, seed) for seed in (0, 1) for method in ("lcg", "a", "b", "real")]
    pairs = told([(of, [], images[of.method, of.seed]) for of in cells]).comparisons()
    together = {
        method: np.concatenate([images[method, seed][f"{task}\nkept"] for seed in (0, 1)])
        for method in ("lcg", "a", "b")
    }
    assert pairs == compare(together, task, "kept", "higher")  # not what has parts, or no direction; not real images
    assert {pair.n for pair in pairs} == {16}


def test_methods_that_met_other_sources_are_not_compared(told: Callable[..., Outcomes]) -> None:
    task = "edit/+hat"
    contents = [(cell("lcg", task, seed), [], {f"{task}\nkept": RNG.random(8) < 0.5}) for seed in (0, 1)]
    contents += [(cell("a", task, 0), [], {f"{task}\nkept": RNG.random(8) < 0.5})]
    assert told(contents).comparisons() == []
    assert told(contents[:2]).comparisons() == []  # nor one alone


def test_curves_are_not_compared_point_by_point(told: Callable[..., Outcomes]) -> None:
    task = "tradeoff/+hat"
    cells = [cell(name, task, 0, 64, STRENGTHS) for name in ("lcg", "a")]
    assert told([(of, [], curve(task)) for of in cells]).comparisons() == []


def test_what_needs_no_samples_is_not_compared(told: Callable[..., Outcomes]) -> None:
    direct = Direct("classifier", parse_task("calibration", SCHEMA), 0, 8, lambda: iter(()))
    outcomes = told([(direct, [["calibration", "ece/hat/t=0.25", 0.1, None, 8]], {})])
    assert outcomes.comparisons() == [] and len(outcomes.rows()) == 1
