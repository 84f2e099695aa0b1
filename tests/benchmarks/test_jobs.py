"""The whole path by the command line, encode to report; and a benchmark that goes on where it stopped."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lcg import cli
from lcg.baselines import LACE, Baseline, LatentArithmetic, Training
from lcg.baselines.contract import strength_per_row
from lcg.benchmarks.benchmark import Sizes
from lcg.benchmarks.cells import Cells
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.jobs import never_seen, options_of
from lcg.benchmarks.methods import Competitor
from lcg.benchmarks.tasks import parse_task
from lcg.data.avatars import SCHEMA
from lcg.data.store import LatentStore
from lcg.editing import EditRequest, EditResult, GuidedEditor
from lcg.metrics.judge import Judge
from lcg.weights import save_weights

TASKS = [
    "unconditional",
    "reconstruction",
    "generate/hat & ~beard",
    "generate/beard & long_hair",
    "edit/+beard +glasses",
    "tradeoff/+beard +glasses",
]
SIZES = {
    "samples": 20,
    "unconditional": 24,
    "sources": 6,
    "references": 32,
    "neighbours": 64,
    "tuning": 4,
    "shown": 4,
    "compared": 3,
}


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained judge with few features, so that few samples give a distance."""
    torch.manual_seed(0)
    small = Judge(SCHEMA, width=4, features=6)
    path = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    save_weights(path, small, small.config, {"trained": "not at all"})
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def few_renders() -> object:
    """Nothing that is measured here means anything: a tenth of the renders does as well."""
    from lcg.benchmarks.world import AvatarWorld

    whole = AvatarWorld.real
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AvatarWorld, "real", lambda self, d, n, split, f=None: whole(self, d, min(n, 128), split, f))
        yield


ARITHMETIC = '{"arithmetic": {"class_path": "lcg.baselines.LatentArithmetic"}}'


def bench(demo, out: Path, judge: str, *more: str, tasks: list[str] = TASKS, baselines: str = ARITHMETIC) -> int:
    sizes = [word for name, value in SIZES.items() for word in (f"--sizes.{name}", str(value))]
    few = ("--sampling.steps", "5", "--editing.steps", "5")
    words = ("--tasks", json.dumps(tasks), "--out", str(out), "--store", demo.store, "--judge", judge)
    return cli.main(["bench", *words, *demo.networks, *sizes, *few, "--baselines", baselines, *more])


def results(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open() as file:
        return list(csv.DictReader(file))


def without_clock(out: Path) -> list[dict[str, str]]:
    return [row for row in results(out) if row["metric"] != "seconds_per_sample"]


@pytest.fixture(scope="module")
def done(demo, judge: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "bench"
    assert bench(demo, out, judge) == 0
    return out


def test_the_results_are_tidy_and_complete(done: Path) -> None:
    rows = results(done)
    assert list(rows[0]) == ["method", "task", "metric", "value", "stderr", "n", "seed"]
    keys = [(row["method"], row["task"], row["metric"], row["seed"]) for row in rows]
    assert len(set(keys)) == len(keys) and {row["seed"] for row in rows} == {"0"}
    assert all(abs(float(row["value"])) < 1e6 and int(row["n"]) > 0 for row in rows)
    methods: dict[str, set[str]] = {}
    for row in rows:
        methods.setdefault(row["task"], set()).add(row["method"])
    assert methods == {
        "unconditional": {"prior", "gaussian", "real"},
        "reconstruction": {"generator", "real"},
        "generate/hat & ~beard": {"lcg", "arithmetic", "real"},
        "generate/beard & long_hair": {"lcg", "arithmetic", "real"},
        "edit/+beard": {"lcg", "arithmetic"},
        "edit/+beard+glasses": {"lcg", "arithmetic"},
        "tradeoff/+beard+glasses": {"lcg", "arithmetic"},
    }
    curve = {(row["method"], row["metric"]): row for row in rows if row["task"] == "tradeoff/+beard+glasses"}
    for method, strengths in (("lcg", GuidedEditor.strengths), ("arithmetic", LatentArithmetic.strengths)):
        found = {metric for m, metric in curve if m == method}
        points = {f"{kind}/{s:g}" for kind in ("joint_accuracy", "kept_fine") for s in strengths}
        assert found == {*points, "pareto_area", *(["pareto_behind"] if method != "lcg" else [])}
    areas = [float(curve[m, "pareto_area"]["value"]) for m in ("lcg", "arithmetic")]
    assert float(curve["arithmetic", "pareto_behind"]["value"]) == pytest.approx(areas[0] - areas[1], abs=1e-9)
    edit = {row["metric"] for row in rows if row["task"] == "edit/+beard+glasses" and row["method"] == "lcg"}
    assert {"edit_success", "joint_accuracy", "kept", "kept_fine", "l1_outside", "seconds_per_sample"} <= edit


def test_what_the_results_were_made_with_is_beside_them(demo, done: Path, judge: str) -> None:
    made_by = json.loads((done / "provenance.json").read_text())
    assert made_by["config"]["tasks"] == TASKS and made_by["config"]["always"]["sizes"]["samples"] == SIZES["samples"]
    assert made_by["zero_shot"] == ["generate/beard & long_hair"]
    assert made_by["store"] == json.loads(json.dumps(dict(LatentStore.open(demo.store).provenance)))
    assert made_by["judge"]["provenance"] == {"trained": "not at all"} and made_by["notes"]
    assert (done / "config.yaml").is_file()
    pictures = json.loads((done / "pictures.json").read_text())
    assert {p["kind"] for p in pictures} == {"unconditional", "reconstruction", "formula", "comparison", "edit"}
    assert [p["method"] for p in pictures if p["kind"] == "comparison"] == ["all"]
    assert all((done / p["file"]).is_file() and p["caption"] for p in pictures)


def test_the_report_renders_it(done: Path) -> None:
    assert cli.main(["report", str(done)]) == 0
    text = (done.parent / "report.html").read_text()
    assert "generate/hat &amp; ~beard" in text or "hat &amp; ~beard" in text


def test_a_finished_benchmark_measures_nothing_again(
    demo, done: Path, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, cells = (done / "results.csv").read_bytes(), sorted((done / "cells").iterdir())
    times = [cell.stat().st_mtime_ns for cell in cells]
    measured: list[str] = []
    measure = Cells.measure

    def watched(self, method, task, seed, make, depends=()):
        measure(self, method, task, seed, lambda: measured.append(task) or make(), depends)

    monkeypatch.setattr(Cells, "measure", watched)
    assert bench(demo, done, judge) == 0
    assert measured == [] and (done / "results.csv").read_bytes() == before
    assert [cell.stat().st_mtime_ns for cell in sorted((done / "cells").iterdir())] == times

    rows = {cell: json.loads(cell.read_text()) for cell in cells if cell.suffix == ".json"}
    lost = next(c for c, r in rows.items() if isinstance(r, list) and r[0][:2] == ["lcg", "generate/hat & ~beard"])
    kept = without_clock(done)
    lost.unlink()
    assert bench(demo, done, judge) == 0
    assert measured == ["generate/hat & ~beard"] and lost.is_file()  # what is missing, and only that
    assert without_clock(done) == kept  # and it comes out as it was


def test_a_changed_setting_is_measured_anew(demo, done: Path, judge: str, tmp_path: Path) -> None:
    task = "generate/hat & ~beard"
    assert bench(demo, tmp_path / "b", judge, tasks=[task]) == 0
    before = len(list((tmp_path / "b" / "cells").iterdir()))
    assert bench(demo, tmp_path / "b", judge, "--guidance.several", "1.5", tasks=[task]) == 0
    after = len(list((tmp_path / "b" / "cells").iterdir()))
    assert after == before + 3  # rows, picture and (no) tuning of lcg; what others give does not depend on its guidance
    assert bench(demo, tmp_path / "b", judge, "--guidance.several", "1.5", "--editing.weight", "3", tasks=[task]) == 0
    assert len(list((tmp_path / "b" / "cells").iterdir())) == after  # generation does not depend on how edits are made
    assert {row["task"] for row in results(tmp_path / "b")} == {task}

    def of_lcg(out: Path) -> list[str]:
        return [r["value"] for r in without_clock(out) if r["task"] == task and r["method"] == "lcg"]

    assert of_lcg(tmp_path / "b") != of_lcg(done)


def test_seeds_are_repetitions_with_other_samples(demo, judge: str, tmp_path: Path) -> None:
    assert bench(demo, tmp_path, judge, "--seeds", "[0, 3]", tasks=["generate/glasses"]) == 0
    distance = {
        row["seed"]: row["value"]
        for row in results(tmp_path)
        if row["method"] == "lcg" and row["metric"] == "frechet_distance"
    }
    assert set(distance) == {"0", "3"} and distance["0"] != distance["3"]


@pytest.mark.parametrize(
    ("more", "tasks", "message"),
    [
        ((), [], "`tasks` and `seeds` must each hold at least one entry"),
        (("--seeds", "[]"), TASKS, "`tasks` and `seeds` must each hold at least one entry"),
        ((), ["generate/glases"], "did you mean 'glasses'"),
        ((), ["sing"], "expected unconditional, reconstruction, generate/FORMULA"),
        ((), ["generate/glasses & ~glasses"], "contradicts itself"),
        ((), ["generate/hat & long_hair"], "holds for no avatar"),
        ((), ["edit/hair_color=red"], "must each change another binary attribute"),
        ((), ["edit/+hat -hat"], "must each change another binary attribute"),
        (("--source_formula", "~hat"), ["edit/-hat"], "holds for no avatar"),
        (("--editing.strength", "2"), TASKS, "`strength` must be in [0, 1]"),
        ((), ["tradeoff/+hat -hat"], "must each change another binary attribute"),
        (("--baselines", ARITHMETIC.replace("arithmetic", "lcg")), TASKS, "names of their own, got 'lcg'"),
        (("--guidance.max_step", "0"), TASKS, "`max_step` must be > 0"),
        (("--sizes.samples", "4"), TASKS, "must be above 6, the judge's features"),
        (("--source_formula", "~hatt"), TASKS, "did you mean 'hat'"),
        (("--store", "nowhere"), TASKS, "no latent store at nowhere"),
        (("--prior", "nowhere.ckpt"), TASKS, "no denoiser at nowhere.ckpt"),
        (("--judge", "nowhere.safetensors"), TASKS, "no weights at nowhere.safetensors"),
    ],
)
def test_refusals_come_before_anything_is_written(
    demo,
    judge: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    tasks: list[str],
    message: str,
) -> None:
    out = tmp_path / "out"
    assert bench(demo, out, judge, *more, tasks=tasks) == cli.USAGE_ERROR
    assert message in capsys.readouterr().err and not out.exists()


def test_another_store_is_refused(
    demo, judge: str, tmp_path: Path, tiny_store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(demo, tmp_path / "out", judge, "--store", tiny_store()) == cli.USAGE_ERROR
    assert "was fitted on another store than" in capsys.readouterr().err


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="`tuning` must be at least 2, got 1"):
        Sizes(tuning=1)


def test_combinations_that_no_latent_has_are_found(demo) -> None:
    labels = LatentStore.open(demo.store).labels()
    for text, names in (
        ("unconditional", []),
        ("generate/glasses", []),
        ("generate/beard & long_hair", ["generate/beard & long_hair"]),
        ("edit/+glasses +smile +hat", ["edit/+glasses+smile+hat"]),
        ("tradeoff/+glasses +smile +hat", ["tradeoff/+glasses+smile+hat"]),
        ("tradeoff/+glasses +smile", []),
    ):
        assert never_seen(parse_task(text, SCHEMA), labels) == names


def test_a_cell_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cells = Cells(tmp_path, {"always": 1})

    def fails():
        yield "task", Figure("sharp", 0.5, float("nan"), 4)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        cells.measure("lcg", "task", 0, fails)
    assert cells.rows == [] and list((tmp_path / "cells").iterdir()) == []
    cells.measure("lcg", "task", 0, lambda: [("task", Figure("sharp", 0.5, float("nan"), 4))])
    assert cells.rows == [("lcg", "task", "sharp", 0.5, None, 4, 0)]


def test_a_method_without_an_answer_is_left_out_and_named(demo, judge: str, tmp_path: Path) -> None:
    assert bench(demo, tmp_path, judge, tasks=["generate/glasses | hat"]) == 0
    assert {row["method"] for row in results(tmp_path)} == {"lcg", "real"}
    notes = json.loads((tmp_path / "provenance.json").read_text())["notes"]
    assert "arithmetic has no answer to generate/glasses | hat and is left out there." in notes


def test_other_settings_of_the_guidance_are_compared_on_formulas(demo, judge: str, tmp_path: Path) -> None:
    compare = '{"naive": {"dependence": "independent", "extrapolate": "never"}, "particles": {"particles": 4}}'
    tasks = ["generate/hat & glasses", "edit/+beard"]
    assert bench(demo, tmp_path, judge, "--compare", compare, tasks=tasks) == 0
    rows = results(tmp_path)
    assert {row["method"] for row in rows if row["task"] == tasks[0]} == {
        "lcg",
        "naive",
        "particles",
        "arithmetic",
        "real",
    }
    assert {row["method"] for row in rows if row["task"] == tasks[1]} == {"lcg", "arithmetic"}
    of = {(row["method"], row["metric"]): float(row["value"]) for row in rows if row["task"] == tasks[0]}
    assert 0.25 <= of["particles", "ess"] <= 1 and of["particles", "log_p_formula"] < 0
    assert ("naive", "ess") not in of and of["naive", "log_p_formula"] == of["lcg", "log_p_formula"]
    assert {"marginal/hat", "marginal/beard"} <= {metric for method, metric in of if method == "lcg"}


def test_outcomes_are_stored_image_by_image(tmp_path: Path) -> None:
    cells, made = Cells(tmp_path, {"always": 1}), []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"present": np.array([[True, False]]), "kept_fine": np.array([[False, True]])}

    first, again = (cells.outcomes("lcg", "tradeoff/+hat", 0, make) for _ in range(2))
    assert made == [1] and first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    cells.add("lcg", "tradeoff/+hat", 0, [Figure("pareto_area", 0.5, float("nan"), 2)])
    assert cells.rows == [("lcg", "tradeoff/+hat", "pareto_area", 0.5, None, 2, 0)]


def test_what_a_baseline_s_results_depend_on(tmp_path: Path) -> None:
    plain, probe = options_of(LatentArithmetic()), options_of(LatentArithmetic(direction="probe"))
    assert plain["class"] == "lcg.baselines.latent_arithmetic.LatentArithmetic" and plain != probe
    checkpoint = tmp_path / "lace.ckpt"
    absent = options_of(LACE(checkpoint=str(checkpoint)))
    hashes = []
    for content in (b"one", b"two"):
        checkpoint.write_bytes(content)
        hashes.append(options_of(LACE(checkpoint=str(checkpoint)))["checkpoint_sha256"])
    assert "checkpoint_sha256" not in absent and hashes[0] != hashes[1]


class Grower(Baseline):
    """Adds its strength to every latent; knows no formulas."""

    name = "grower"
    strengths = (0.5, 1.0, 2.0, 3.0)

    def fit(self, training: Training) -> "Grower":
        return self

    def edit(self, z_0: torch.Tensor, request: EditRequest) -> EditResult:
        return EditResult(z_0 + strength_per_row(request.strength, z_0), request)


def test_a_baseline_is_tuned_for_every_step_on_its_own_grid() -> None:
    method = Competitor(None, Grower(), "grower")
    task = parse_task("edit/+beard +glasses", SCHEMA)
    asked: list[tuple[str, float]] = []

    def score(part) -> float:
        strength = float(method.edit_at(part, torch.zeros(1, 2), torch.zeros(1, 17), method.tuned[part.name])[0, 0])
        asked.append((part.name, strength))
        return -abs(strength - (1.0 if len(part.edits) == 1 else 2.4))

    method.adopt(method.tune(task, score))
    assert asked == [(part.name, s) for part in task.steps() for s in Grower.strengths]
    assert method.tuned == {"edit/+beard": 1.0, "edit/+beard+glasses": 2.0}
    assert [float(z[0, 0]) for z in method.edit(task, torch.zeros(1, 2), torch.zeros(1, 17))] == [1.0, 2.0]
    assert method.chosen(task) == "Strength tuned on a validation split: 1, 2."
    assert method.can(task) and not method.can(parse_task("generate/glasses", SCHEMA))
    assert set(method.tune(task, lambda part: 0.5).values()) == {0.5}  # of equally good ones the gentlest
