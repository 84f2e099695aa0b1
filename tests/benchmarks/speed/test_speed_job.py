"""The whole job on tiny networks: well-formed JSON, tables that show it, and what it refuses."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lcg.benchmarks.speed import job
from lcg.benchmarks.speed.__main__ import main
from lcg.benchmarks.speed.job import speed_job
from lcg.benchmarks.speed.nets import Shape
from lcg.benchmarks.speed.ours import ours
from lcg.benchmarks.speed.peers import peers
from lcg.benchmarks.speed.plan import STEPS, Plan, full, quick
from lcg.benchmarks.speed.table import to_markdown

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers

TINY = Shape("tiny", latent=6, width=16, depth=1, classifier_width=12, attributes=2, time_features=8)
PLAN = Plan(
    (TINY,),
    batches=(1, 3),
    scale_batches=(2,),
    precisions=(torch.float32, torch.bfloat16),
    products=((4, 8, 8), (8, 8, 8)),
    repeats=3,
    target=0.001,
    call=1e-5,
    lace=(8, (6, 5)),
    compiled=False,
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("speed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "quick", lambda: PLAN)
        assert main(["--out", str(folder / "out"), "--quick"]) == 0
    written: dict[str, Any] = json.loads((folder / "out" / "speed.json").read_text())
    assert (folder / "out" / "speed.md").read_text() == to_markdown(written)
    return written


def test_every_candidate_is_timed_at_every_size_and_precision(record: dict[str, Any]) -> None:
    names = [candidate.name for candidate in (*peers(), *ours(torch.device("cpu"), compiled=False))]
    sizes = [(cell["batch"], cell["precision"]) for cell in record["guided"]]
    assert sizes == [(1, "float32"), (1, "bfloat16"), (3, "float32"), (3, "bfloat16")]
    assert all(list(cell["candidates"]) == names for cell in record["guided"])
    assert [cell["batch"] for cell in record["lace"]] == [1, 3]
    assert [cell["batch"] for cell in record["scales"]] == [2]


def test_times_speeds_and_shares_belong_together(record: dict[str, Any]) -> None:
    for cell in record["guided"]:
        peak = max(record["peaks_gflops"][cell["precision"]].values())
        first = next(iter(cell["candidates"].values()))
        assert first["speed"] == {"median": 1.0, "q1": 1.0, "q3": 1.0}
        for name, line in cell["candidates"].items():
            seconds = line["seconds"]
            assert len(line["rounds"]) == PLAN.repeats and line["first_call"] > 0
            assert 0 < seconds["q1"] <= seconds["median"] <= seconds["q3"]
            assert seconds["median"] == sorted(line["rounds"])[1]
            paired = sorted(a / b for a, b in zip(first["rounds"], line["rounds"], strict=True))
            assert line["speed"]["median"] == pytest.approx(paired[1])
            work = 2e-9 * cell["multiply_adds"] / seconds["median"] / peak
            if name == "lcg, shared trunk":  # is less work
                assert line["share_of_peak"] < work
            else:
                assert line["share_of_peak"] == pytest.approx(work)


def test_it_says_where_and_when(record: dict[str, Any]) -> None:
    machine = record["machine"]
    assert machine["torch"] == torch.__version__ and machine["threads"] == 1 and machine["created"].startswith("20")
    assert machine["processor"] and machine["cores"] >= 1
    assert record["quick"] is True


def test_results_are_checked_and_reported(record: dict[str, Any]) -> None:
    (check,) = record["checks"]
    assert all(math.isfinite(line["float32"]) for line in check["candidates"].values())
    assert all(line["float64"] <= line["tolerance"] for line in check["candidates"].values())


def test_tables_show_every_cell(record: dict[str, Any]) -> None:
    text = to_markdown(record)
    assert "## Guided step: tiny, 8 time features, batch 3, bfloat16 (2 steps)" in text
    median = record["lace"][0]["candidates"]["LACE"]["seconds"]["median"]
    assert f"| 1 | LACE | {1e3 * median:.3g} | 1.00 (1.00-1.00) |" in text
    assert "| tiny | 2 | one call |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} <= {5, 6}


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(NotADirectoryError, match="`out` must be a folder, got the file"):
        speed_job(str(tmp_path / "taken"), plan=PLAN)


def test_steps_are_as_many_as_fit_into_a_call() -> None:
    plan = quick()
    assert plan.steps(1.0, 1e12) == max(STEPS)
    assert plan.steps(plan.call * 1e9 / 10, 1e9) == 10
    assert plan.steps(plan.call * 1e9 / 9, 1e9) == 5
    assert plan.steps(1e12, 1e9) == 2
    assert all(1000 % steps == 0 for steps in STEPS)


def test_the_full_plan_has_both_shapes_as_peers_have_them_and_lcg_s_default() -> None:
    cpu, gpu = full(torch.device("cpu")), full(torch.device("cuda"))
    assert [(shape.name, shape.time_features) for shape in cpu.shapes] == [
        ("small", 512),
        ("big", 512),
        ("small", 64),
    ]
    assert cpu.batches == (1, 64, 1024) and cpu.precisions == (torch.float32,)
    assert {256, 4096} <= set(gpu.batches) and torch.bfloat16 in gpu.precisions
