"""The whole path by the command line: complete results, a report of them, and nothing done twice."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcg import cli
from lcg.baselines import LatentArithmetic
from lcg.benchmarks.checks import never_seen
from lcg.benchmarks.folder import Folder, read_json
from lcg.benchmarks.results.estimates import read_results
from lcg.benchmarks.tasks import fill, parse_task
from lcg.data.avatars import SCHEMA
from lcg.data.store import LatentStore
from lcg.editing import GuidedEditor

TASKS = [
    "unconditional",
    "generate/{1} & ~{2}",
    "generate/beard & long_hair",
    "scale/glasses",
    "edit/+beard +glasses",
    "synthetic/+glasses",
    "tradeoff/+beard +glasses",
    "calibration",
    "disentanglement",
]
PLACES = ("--attributes", "hat", "beard", "--source_formula", "~hat")
FEW = ["generate/glasses", "edit/+beard", "unconditional", "calibration"]
SCALES = ("0", "0.5", "1", "2", "4", "8", "16", "32")


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def times(out: Path) -> dict[Path, int]:
    return {path.relative_to(out): path.stat().st_mtime_ns for path in (out / "cells").iterdir()}


@pytest.fixture(scope="module")
def done(bench_words: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "bench"
    assert cli.main(bench_words(out, TASKS, *PLACES)) == 0
    return out


@pytest.fixture(scope="module")
def named() -> Iterator[dict[Path, list[object]]]:
    """What every file is that a benchmark has asked for."""
    names: dict[Path, list[object]] = {}
    path = Folder.path

    def watched(self, what, depends, suffix="json"):
        found = path(self, what, depends, suffix)
        names[found.relative_to(self.root)] = list(what)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "path", watched)
        yield names


@pytest.fixture(scope="module")
def few(bench_words: Callable, named: dict[Path, list[object]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "few"
    assert cli.main(bench_words(out, FEW)) == 0
    return out


# --- what is there ---


def test_the_results_are_tidy_and_complete(done: Path) -> None:
    rows = table(done / "results.csv")
    assert list(rows[0]) == ["method", "task", "metric", "value", "stderr", "n", "seed"]
    keys = [(row["method"], row["task"], row["metric"], row["seed"]) for row in rows]
    assert len(set(keys)) == len(keys) and {row["seed"] for row in rows} == {"0"}
    assert all(abs(float(row["value"])) < 1e6 and int(row["n"]) > 0 for row in rows)
    methods: dict[str, set[str]] = {}
    for row in rows:
        methods.setdefault(row["task"], set()).add(row["method"])
    both = {"lcg", "arithmetic"}
    assert methods == {
        "unconditional": {"prior", "gaussian", "real"},
        "reconstruction": {"generator", "real"},  # always, though nobody asked
        "calibration": {"classifier"},
        "disentanglement": {"latents"},
        "generate/hat & ~beard": both | {"real"},
        "generate/beard & long_hair": both | {"real"},
        "scale/glasses": both,
        "edit/+beard": both,
        "edit/+beard+glasses": both,
        "synthetic/+glasses": both,
        "tradeoff/+beard+glasses": both,
        "zero-shot": both | {"real"},
    }


def test_every_task_has_its_metrics(done: Path) -> None:
    of: dict[tuple[str, str], dict[str, float]] = {}
    for row in table(done / "results.csv"):
        of.setdefault((row["method"], row["task"]), {})[row["metric"]] = float(row["value"])
    samples = {"joint_accuracy", "sharp", "frechet_distance", "density", "coverage", "precision", "recall", "diversity"}
    assert samples | {"marginal/hat", "marginal/~beard", "marginal/smile"} <= {
        name.replace("marginal/beard", "marginal/~beard") for name in of["lcg", "generate/hat & ~beard"]
    }
    assert {"joint_accuracy", "psnr", "accuracy/hat"} <= of["generator", "reconstruction"].keys()
    assert "psnr" not in of["real", "reconstruction"]  # infinite
    edits = {"edit_success", "joint_accuracy", "kept", "kept_fine", "identity", "sharp", "changed/hat"}
    assert edits | {"l1_outside", "des"} <= of["lcg", "edit/+beard"].keys()
    assert edits | {"l1_outside"} <= of["arithmetic", "edit/+beard+glasses"].keys()
    assert edits | {"des"} <= of["lcg", "synthetic/+glasses"].keys()
    assert "l1_outside" not in of["lcg", "synthetic/+glasses"]  # nobody knows where it may show
    curve = of["lcg", "scale/glasses"].keys()
    metrics = ("joint_accuracy", "sharp", "frechet_distance", "diversity")
    assert curve == {f"{metric}/{scale}" for metric in metrics for scale in SCALES}
    for method, strengths in (("lcg", GuidedEditor.strengths), ("arithmetic", LatentArithmetic.strengths)):
        found = of[method, "tradeoff/+beard+glasses"].keys()
        points = {f"{kind}/{s:g}" for kind in ("joint_accuracy", "kept_fine", "sharp") for s in strengths}
        assert found == {*points, "pareto_area", *(["pareto_behind"] if method != "lcg" else [])}
    areas = [of[method, "tradeoff/+beard+glasses"]["pareto_area"] for method in ("lcg", "arithmetic")]
    behind = of["arithmetic", "tradeoff/+beard+glasses"]["pareto_behind"]
    assert behind == pytest.approx(areas[0] - areas[1], abs=1e-9)


def test_what_samples_cost_has_a_table_of_its_own(done: Path) -> None:
    rows = table(done / "costs.csv")
    assert {row["metric"] for row in rows} == {"seconds_per_sample", "evaluations", "peak_memory"}
    cost = {(row["method"], row["task"], row["metric"]): float(row["value"]) for row in rows}
    assert cost["prior", "unconditional", "evaluations"] == 5  # one per step
    assert cost["arithmetic", "generate/hat & ~beard", "evaluations"] == 5  # the sample that is moved
    assert cost["arithmetic", "edit/+beard", "evaluations"] == 0 < cost["lcg", "edit/+beard", "evaluations"]
    assert cost["lcg", "generate/hat & ~beard", "evaluations"] >= 10  # denoiser and classifier
    assert all(cost[key] > 0 for key in cost if key[2] == "seconds_per_sample")
    assert not any(method in ("real", "gaussian", "generator") for method, *_ in cost)
    assert not any(row["metric"] in ("seconds_per_sample", "evaluations") for row in table(done / "results.csv"))


def test_methods_are_compared_on_the_same_sources(done: Path) -> None:
    rows = table(done / "comparisons.csv")
    assert list(rows[0]) == ["task", "metric", "method", "against", "difference", "low", "high", "p", "p_holm", "n"]
    value = {(r["method"], r["task"], r["metric"]): float(r["value"]) for r in table(done / "results.csv")}
    seen = {(row["task"], row["metric"]) for row in rows}
    assert {("edit/+beard", "edit_success"), ("generate/hat & ~beard", "sharp")} <= seen
    for row in rows:
        one, other = (value[row[who], row["task"], row["metric"]] for who in ("method", "against"))
        assert float(row["difference"]) == pytest.approx(one - other, rel=1e-4, abs=1e-5)
        assert "real" not in (row["method"], row["against"])


def test_what_the_results_were_made_with_is_beside_them(demo, done: Path) -> None:
    made_by = json.loads((done / "provenance.json").read_text())
    assert made_by["config"]["tasks"] == [fill(text, ["hat", "beard"]) for text in TASKS]
    assert made_by["config"]["sizes"]["samples"] == 20
    assert made_by["zero_shot"] == ["generate/beard & long_hair"]
    assert made_by["store"] == json.loads(json.dumps(dict(LatentStore.open(demo.store).provenance)))
    assert made_by["judge"]["provenance"]["train"]["split"] == "judge" and made_by["notes"]
    assert (done / "config.yaml").is_file()
    pictures = json.loads((done / "pictures.json").read_text())
    assert {p["kind"] for p in pictures} == {"unconditional", "reconstruction", "formula", "comparison", "edit"}
    assert {p["method"] for p in pictures if p["kind"] == "comparison"} == {"all"}
    assert all((done / p["file"]).is_file() and p["caption"] for p in pictures)
    assert {p["task"] for p in pictures} <= {row["task"] for row in table(done / "results.csv")}


def test_the_report_renders_it(done: Path) -> None:
    assert read_results(done).methods[0] == "lcg"
    assert cli.main(["report", str(done)]) == 0
    assert "hat &amp; ~beard" in (done.parent / "report.html").read_text()


# --- what is made again ---


def test_a_finished_benchmark_makes_nothing_again(
    bench_words: Callable, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, files = (done / "results.csv").read_bytes(), times(done)
    pictures = {path: path.stat().st_mtime_ns for path in (done / "pictures").iterdir()}

    def fails(self, training):
        raise AssertionError("a baseline was fitted")

    monkeypatch.setattr(LatentArithmetic, "fit", fails)
    assert cli.main(bench_words(done, TASKS, *PLACES)) == 0
    assert times(done) == files and (done / "results.csv").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in (done / "pictures").iterdir()} == pictures


def test_what_is_missing_is_made_again_as_it_was(
    bench_words: Callable, few: Path, tmp_path: Path, named: dict[Path, list[object]]
) -> None:
    out = tmp_path / "few"
    shutil.copytree(few, out)
    chunk = next(path for path, what in named.items() if what[:3] == ["made", "lcg", "generate/glasses"])
    lost = [chunk]
    lost += [path for path, what in named.items() if what[0] in ("seen", "figures") and what[1:3] == named[chunk][1:3]]
    files = times(out)
    for path in lost:
        (out / path).unlink()
    assert cli.main(bench_words(out, FEW)) == 0
    again = times(out)
    beside = {path.with_suffix(".safetensors") for path in lost if path.suffix == ".json"}  # outcomes
    assert {path for path in again if again[path] != files[path]} == {*lost, *beside}
    assert (out / "results.csv").read_bytes() == (few / "results.csv").read_bytes()


OF_LCG = {("lcg", "generate/glasses")}
ALL = OF_LCG | {
    *(("arithmetic", task) for task in ("generate/glasses", "edit/+beard")),
    *(("real", task) for task in ("generate/glasses", "unconditional", "reconstruction")),
    *(("gaussian", "unconditional"), ("generator", "reconstruction"), ("prior", "unconditional")),
    ("lcg", "edit/+beard"),
}


@pytest.mark.parametrize(
    ("more", "made", "seen", "figures"),
    [
        (["--guidance.single", "2"], OF_LCG, OF_LCG, OF_LCG | {("classifier", "calibration")}),
        (["--editing.weight", "3"], {("lcg", "edit/+beard")}, {("lcg", "edit/+beard")}, {("lcg", "edit/+beard")}),
        (
            ["--metrics", '[{"class_path": "lcg.benchmarks.measures.Accuracy"}]'],
            set(),
            ALL,
            ALL | {("classifier", "calibration")},
        ),
        (
            ["--sizes.references", "40"],
            {("real", "generate/glasses"), ("gaussian", "unconditional")},  # drawn from the references
            ALL,
            ALL | {("classifier", "calibration")},
        ),
        (["--sizes.compared", "2"], set(), set(), set()),
        (["--title", "Another one"], set(), set(), set()),
    ],
)
def test_a_changed_setting_makes_again_what_depends_on_it(
    bench_words: Callable,
    few: Path,
    tmp_path: Path,
    named: dict[Path, list[object]],
    more: list[str],
    made: set[tuple[str, str]],
    seen: set[tuple[str, str]],
    figures: set[tuple[str, str]],
) -> None:
    out = tmp_path / "few"
    shutil.copytree(few, out)
    before = times(out)
    assert cli.main(bench_words(out, FEW, *more)) == 0
    new = [named[path] for path in times(out).keys() - before.keys() if path in named]
    for kind, expected in (("made", made), ("seen", seen), ("figures", figures)):
        assert {(what[1], what[2]) for what in new if what[0] == kind} == expected, kind
    assert not [what for what in new if what[0] == "tuning"]
    after = times(out)
    assert all(after[path] == before[path] for path in before)


def test_another_judge_sees_the_same_samples(
    bench_words: Callable, few: Path, tmp_path: Path, named: dict[Path, list[object]]
) -> None:
    out = tmp_path / "few"
    shutil.copytree(few, out)
    before = times(out)
    assert cli.main(bench_words(out, FEW, judge=1)) == 0
    new = [named[path] for path in times(out).keys() - before.keys() if path in named]
    tuned = {"arithmetic"}  # by what the judge says: another strength may be the best
    assert {what[1] for what in new if what[0] == "made"} <= tuned == {what[1] for what in new if what[0] == "tuning"}
    assert {(what[1], what[2]) for what in new if what[0] == "seen"} == ALL


def test_other_options_of_a_baseline_concern_nobody_else(
    bench_words: Callable, few: Path, tmp_path: Path, named: dict[Path, list[object]]
) -> None:
    out = tmp_path / "few"
    shutil.copytree(few, out)
    before = times(out)
    probe = '{"arithmetic": {"class_path": "lcg.baselines.LatentArithmetic", "init_args": {"direction": "probe"}}}'
    assert cli.main(bench_words(out, FEW, baselines=probe)) == 0
    new = [named[path] for path in times(out).keys() - before.keys() if path in named]
    assert {what[1] for what in new if what[0] in ("tuning", "made", "seen", "figures")} == {"arithmetic"}
    ours = [[row for row in table(where / "results.csv") if row["method"] != "arithmetic"] for where in (few, out)]
    assert ours[0] == ours[1]


def test_seeds_are_repetitions_with_other_samples(bench_words: Callable, few: Path, tmp_path: Path) -> None:
    assert cli.main(bench_words(tmp_path / "out", ["generate/glasses"], "--seeds", "[0, 3]")) == 0
    rows = [r for r in table(tmp_path / "out" / "results.csv") if (r["method"], r["metric"]) == ("lcg", "diversity")]
    assert [row["seed"] for row in rows] == ["0", "3"] and rows[0]["value"] != rows[1]["value"]
    once = {(r["method"], r["task"], r["metric"]): r["value"] for r in table(few / "results.csv")}
    assert rows[0]["value"] == once["lcg", "generate/glasses", "diversity"]  # whatever else was asked for


def test_the_size_of_chunks_shows_in_the_last_digits_only(bench_words: Callable, few: Path, tmp_path: Path) -> None:
    tasks = ["generate/glasses", "edit/+beard"]
    assert cli.main(bench_words(tmp_path / "out", tasks, "--sizes.chunk", "5")) == 0
    values = [
        {(r["method"], r["task"], r["metric"]): float(r["value"]) for r in table(out / "results.csv")}
        for out in (few, tmp_path / "out")
    ]
    both = [key for key in values[1] if key[1].startswith(("generate", "edit"))]
    assert len(both) > 80 and all(values[1][key] == pytest.approx(values[0][key], rel=1e-2, abs=1e-2) for key in both)


# --- variations, and methods without an answer ---


def test_a_method_without_an_answer_is_left_out_and_named(bench_words: Callable, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli.main(bench_words(out, ["generate/glasses | hat"])) == 0
    rows = table(out / "results.csv")
    assert {row["method"] for row in rows if row["task"].startswith("generate")} == {"lcg", "real"}
    notes = json.loads((out / "provenance.json").read_text())["notes"]
    assert "arithmetic has no answer to generate/glasses | hat and is left out there." in notes


def test_other_settings_of_lcg_are_compared_where_they_matter(bench_words: Callable, tmp_path: Path) -> None:
    variations = {
        "naive": {"guidance": {"dependence": "independent", "extrapolate": "never"}},
        "particles": {"guidance": {"particles": 4}},
        "ddim": {"sampling": {"sampler": "ddim", "steps": 4}},
        "weak": {"editing": {"weight": 1.0, "steps": 3}},
    }
    out, formula = tmp_path / "out", "generate/hat & glasses"
    tasks = ["unconditional", formula, "edit/+beard"]
    assert cli.main(bench_words(out, tasks, "--variations", json.dumps(variations), baselines="{}")) == 0
    rows = table(out / "results.csv")
    methods = [{row["method"] for row in rows if row["task"] == task} for task in tasks]
    assert methods[0] == {"prior", "gaussian", "real", "ddim"}
    assert methods[1] == {"lcg", "naive", "particles", "ddim", "real"} and methods[2] == {"lcg", "weak"}
    of = {(row["method"], row["metric"]): float(row["value"]) for row in rows if row["task"] == formula}
    assert 0.25 <= of["particles", "ess"] <= 1 and of["particles", "log_p_formula"] < 0
    assert ("naive", "ess") not in of and of["naive", "log_p_formula"] == of["lcg", "log_p_formula"]


def test_images_are_saved_on_request(bench_words: Callable, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli.main(bench_words(out, ["edit/+beard +glasses"], "--save_images", "true", baselines="{}")) == 0
    saved = out / "samples" / "lcg"
    names = sorted(path.name for path in saved.iterdir())
    assert len(names) == 2 and all("beard" in name for name in names)
    for name in names:
        files = sorted(path.name for path in (saved / name / "0").iterdir())
        assert files == [f"{row:06d}.png" for row in range(6)]


def test_combinations_that_no_latent_has_are_found(demo) -> None:
    labels = LatentStore.open(demo.store).labels()
    for text, names in (
        ("unconditional", []),
        ("generate/glasses", []),
        ("generate/beard & long_hair", ["generate/beard & long_hair"]),
        ("scale/beard & long_hair", ["scale/beard & long_hair"]),
        ("edit/+glasses +smile +hat", ["edit/+glasses+smile+hat"]),
        ("tradeoff/+glasses +smile +hat", ["tradeoff/+glasses+smile+hat"]),
        ("tradeoff/+glasses +smile", []),
    ):
        assert never_seen(parse_task(text, SCHEMA), labels) == names


def test_every_row_of_a_cell_is_in_the_results_once(done: Path) -> None:
    figures = [read_json(path) for path in (done / "cells").glob("*.json")]
    rows = sum(len(content["rows"]) for content in figures if isinstance(content, dict) and "rows" in content)
    derived = ("pareto_area", "pareto_behind", "zero_shot_accuracy")
    assert rows == sum(row["metric"] not in derived for row in table(done / "results.csv"))
