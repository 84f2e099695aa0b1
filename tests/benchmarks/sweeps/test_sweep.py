"""W&B's sweep files without its server: what is read, which runs there are, and what comes of them."""

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lcg import cli
from lcg.benchmarks.results.estimates import Estimate, read_rows
from lcg.benchmarks.sweeps.file import Metric, read_sweep
from lcg.benchmarks.sweeps.job import execute, sweep_job
from lcg.benchmarks.sweeps.runs import expand, runs, words_inside
from lcg.benchmarks.sweeps.table import average, show, spell

ROOT = Path(__file__).parents[3]
SWEEPS = sorted(ROOT.glob("experiments/*/sweep.yaml"))

# A program with one task; what it is worth is known. It fails where it is told to.
PROGRAM = """
import json, os, pathlib, sys
options = dict(word[2:].split("=", 1) for word in sys.argv[1:-2])
assert sys.argv[-2] == "--out", sys.argv
out, x, y = pathlib.Path(sys.argv[-1]), float(options["a.x"]), options.get("y", "none")
print("x is", x, "threads", os.environ["OMP_NUM_THREADS"])
if y == "broken":
    sys.exit("it is broken")
with open(out.parent.parent / "made.txt", "a") as file:
    file.write(out.parent.name + chr(10))
rows = [("lcg", "t1", "sharp", x, 0.3, 10, 0), ("lcg", "t2", "sharp", 3 * x, 0.4, 10, 0)]
rows.append(("lace", "t1", "near", 1, "", "", ""))
text = "method,task,metric,value,stderr,n,seed" + chr(10) + "".join(",".join(map(str, r)) + chr(10) for r in rows)
(y == "silent") or (out / "results.csv").write_text(text)
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a sweep file; what is None is left out."""

    def write(**keys: Any) -> Path:
        usual = {
            "command": ["${interpreter}", "-c", PROGRAM, "${args}"],
            "method": "grid",
            "metric": {"name": "sharp", "goal": "maximize"},
            "parameters": {"a.x": {"values": [1, 2]}},
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in {**usual, **keys}.items() if v is not None}))
        return path

    return write


def table(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open() as file:
        return list(csv.DictReader(file))


# --- which runs there are --------------------------------------------------------------------------------------------

GRIDS: dict[str, dict[str, Any]] = {
    "by name, not as written": {"b": {"values": [3, 1, 2]}, "a": {"values": ["y", "x"]}, "c": {"value": 7}},
    "nested": {
        "b": {"values": [1, 2]},
        "a": {"parameters": {"z": {"values": [1, 2]}, "y": {"parameters": {"x": {"values": [0.5, True]}}}}},
        "a.c": {"values": [None, "q"]},
    },
    "equal values count once": {"a": {"values": [1, 2, 1.0, 2, 3]}, "b": {"values": [[1], [1.0], {"c": 1}]}},
    "whole numbers": {"a": {"min": -1, "max": 2}, "b": {"distribution": "int_uniform", "min": 1, "max": 3}},
    "steps": {
        "a": {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.1},
        "b": {"distribution": "q_uniform", "min": 1, "max": 7, "q": 2},
        "c": {"distribution": "q_uniform", "min": 0.5, "max": 2},
    },
}

DRAWS: dict[str, dict[str, Any]] = {
    "constants take a number too": {"b": {"value": 1}, "a": {"values": ["x", "y", "z"]}, "c": {"min": 0.0, "max": 1}},
    "whole numbers": {"a": {"min": 1, "max": 6}, "b": {"distribution": "int_uniform", "min": -3, "max": 3}},
    "uniform": {"a": {"min": -1.0, "max": 2.5}, "b": {"distribution": "uniform", "min": 1, "max": 2}},
    "log": {"a": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 10}},
    "steps": {
        "a": {"distribution": "q_uniform", "min": 0, "max": 10, "q": 2},
        "b": {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25},
        "c": {"distribution": "q_log_uniform_values", "min": 1, "max": 1000, "q": 5},
        "d": {"distribution": "q_normal", "mu": 3, "q": 0.5},
        "e": {"distribution": "q_log_normal", "q": 0.1},
    },
    "normal": {"a": {"distribution": "normal"}, "b": {"distribution": "log_normal", "mu": 1, "sigma": 0.2}},
    "shares": {"a": {"values": ["x", "y", "z"], "probabilities": [0.2, 0.0, 0.8]}},
    "nested": {"a": {"parameters": {"c": {"min": 0.0, "max": 1.0}, "b": {"min": 5, "max": 9}}}},
}


def same(mine: Any, theirs: Any) -> bool:
    """Equal, and of the same kind; numbers to the last digits."""
    if isinstance(mine, dict):
        return sorted(mine) == sorted(theirs) and all(same(mine[key], theirs[key]) for key in mine)
    theirs = theirs.item() if hasattr(theirs, "item") else theirs  # of numpy's types
    if isinstance(mine, float) and isinstance(theirs, float):
        return bool(theirs == pytest.approx(mine, rel=1e-12, abs=1e-12))
    return bool(type(mine) is type(theirs) and mine == theirs)


@pytest.mark.parametrize("parameters", GRIDS.values(), ids=GRIDS)
def test_the_grid_is_that_of_wandb(write: Write, parameters: dict[str, Any]) -> None:
    theirs = pytest.importorskip("sweeps.grid_search")
    config = {"method": "grid", "parameters": parameters}
    found = theirs.grid_search_next_runs([], config, n=10_000)
    expected = [{key: found["value"] for key, found in run.config.items()} for run in found if run is not None]
    mine = [dict(run.parameters) for run in runs(read_sweep(write(**config)))]
    assert len(mine) == len(expected) > 1
    assert all(same(m, e) for m, e in zip(mine, expected, strict=True))


@pytest.mark.parametrize("parameters", DRAWS.values(), ids=DRAWS)
def test_the_draws_are_those_of_wandb(write: Write, parameters: dict[str, Any]) -> None:
    theirs = pytest.importorskip("sweeps.random_search")
    config = {"method": "random", "parameters": parameters}
    state = random.getstate()
    random.seed(3)
    found = theirs.random_search_next_runs(config, n=200)
    random.setstate(state)
    mine = runs(read_sweep(write(**config, run_cap=200)), seed=3)
    for run, other in zip(mine, found, strict=True):
        assert same(dict(run.parameters), {key: value["value"] for key, value in other.config.items()})


def test_the_grid_without_wandb(write: Write) -> None:
    sweep = read_sweep(write(parameters={"b": {"values": [2, 1]}, "a": {"parameters": {"x": {"min": 0, "max": 1}}}}))
    assert [dict(run.values) for run in runs(sweep)] == [{"a.x": x, "b": b} for x in (0, 1) for b in (2, 1)]
    assert dict(runs(sweep)[0].parameters) == {"a": {"x": 0}, "b": 2}


@pytest.mark.parametrize(
    ("options", "u", "value"),
    [
        ({"min": 2.0, "max": 6.0}, 0.25, 3.0),
        ({"min": 1, "max": 4}, 0.5, 3),
        ({"min": 1, "max": 4}, 1 - 2**-53, 4),
        ({"values": ["x", "y", "z"]}, 1 - 2**-53, "z"),
        ({"values": ["x", "y", "z"], "probabilities": [0.5, 0.0, 0.5]}, 0.5, "z"),
        ({"distribution": "log_uniform_values", "min": 0.01, "max": 100}, 0.5, 1.0),
        ({"distribution": "normal", "mu": 3, "sigma": 2}, 0.8413447460685429, 5.0),
        ({"distribution": "log_normal", "mu": 1}, 0.5, 2.718281828459045),
        ({"distribution": "q_uniform", "min": 0, "max": 10, "q": 2}, 0.55, 6),
        ({"distribution": "q_uniform", "min": 0, "max": 10, "q": 0.5}, 0.52, 5.0),
        ({"distribution": "q_normal", "sigma": 0}, 0.0, 0.0),
        ({"value": [1]}, 0.3, [1]),
    ],
)
def test_a_draw_is_the_quantile(write: Write, options: dict[str, Any], u: float, value: Any) -> None:
    sweep = read_sweep(write(method="random", parameters={"a": options}))
    drawn = sweep.parameters[0].draw(u)
    assert drawn == (pytest.approx(value) if isinstance(value, float) else value) and type(drawn) is type(value)


def test_a_draw_is_the_same_whatever_their_number_is(write: Write) -> None:
    sweep = read_sweep(write(method="random", run_cap=20, parameters={"a": {"min": 0.0, "max": 1.0}}))
    many, few = runs(sweep, seed=1), runs(sweep, seed=1, count=5)
    assert len(many) == 20 and [run.id for run in few] == [run.id for run in many[:5]]
    assert {run.id for run in many}.isdisjoint(run.id for run in runs(sweep, seed=2))


def test_the_number_of_runs_is_bounded_by_file_and_option(write: Write) -> None:
    sweep = read_sweep(write(run_cap=3, parameters={"a": {"min": 1, "max": 9}}))
    assert len(runs(sweep)) == len(runs(sweep, count=7)) == 3 and len(runs(sweep, count=2)) == 2


def test_the_id_is_of_the_parameters_only(write: Write) -> None:
    one = runs(read_sweep(write(parameters={"a": {"value": 1}, "b": {"value": 2.0}})))[0]
    two = runs(read_sweep(write(parameters={"b": {"values": [2]}, "a": {"value": 1.0}}, name="other")))[0]
    three = runs(read_sweep(write(parameters={"a": {"value": 1}, "b": {"value": 3}})))[0]
    assert one.id == two.id != three.id and len(one.id) == 12


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_below_one_is_refused(write: Write, count: int) -> None:
    with pytest.raises(ValueError, match=f"`count` must be at least 1, got {count}; leave it out for all runs"):
        runs(read_sweep(write()), count=count)


def test_a_random_search_needs_an_end(write: Write) -> None:
    with pytest.raises(ValueError, match=r"a random search has no end; set `run_cap` in the file or give --count 20"):
        runs(read_sweep(write(method="random")))


# --- the command -----------------------------------------------------------------------------------------------------

VALUES = {
    "a.b": {"value": 0.5},
    "flag": {"value": True},
    "no": {"value": False},
    "n": {"parameters": {"m": {"value": 1}}},
}


def words(write: Write, *command: str, **keys: Any) -> list[str]:
    sweep = read_sweep(write(command=list(command), parameters=VALUES, **keys))
    return expand(sweep, runs(sweep)[0], "OUT")


@pytest.mark.parametrize("macro", ["args", "args_no_equals", "args_no_hyphens", "args_no_boolean_flags", "args_json"])
def test_arguments_are_those_of_wandbs_agent(write: Write, macro: str) -> None:
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    given = {"a.b": 0.5, "flag": True, "n": {"m": 1}, "no": False}
    expected = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in given.items()}})
    assert words(write, "run", f"${{{macro}}}", "${out}") == ["run", *expected[macro], "OUT"]


def test_arguments_keep_their_dots(write: Write) -> None:
    expected = ["lcg", "--a.b=0.5", "--flag=True", "--n={'m': 1}", "--no=False", "--out", "OUT"]
    assert words(write, "lcg", "${args}") == expected


def test_the_default_command_is_that_of_wandb(write: Write) -> None:
    sweep = read_sweep(write(command=None, program="train.py", parameters={"a": {"value": 1}}))
    start = [] if os.name == "nt" else ["/usr/bin/env"]
    assert expand(sweep, runs(sweep)[0], "OUT") == [*start, sys.executable, "train.py", "--a=1", "--out", "OUT"]


def test_the_folder_of_a_run_goes_where_it_is_asked_for(write: Write) -> None:
    assert words(write, "run", "--to=${out}/x", "${args_json}", "7")[:2] == ["run", "--to=OUT/x"]
    assert words(write, "run", "${args_json}")[-2:] == ["--out", "OUT"]


def test_environment_variables(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCG_TEST_WORD", "found")
    shown = words(write, "a-${envvar:LCG_TEST_WORD}-${envvar:LCG_TEST_NONE}", "${args}")
    assert shown[0] == "a-found-LCG_TEST_NONE"  # W&B leaves the name of one that is not set


HERE = str(Path(sys.executable).parent)
BENCH = ["bench", "--out", "OUT"]


@pytest.mark.parametrize(
    ("command", "inside"),
    [
        (["/usr/bin/env", "lcg", *BENCH], True),
        ([f"{HERE}/lcg", *BENCH], True),
        ([sys.executable, "-m", "lcg", *BENCH], True),
        (["python", "-m", "lcg", *BENCH], True),
        (["lcg", "report", "OUT"], False),
        (["/usr/bin/env", "LCG_DEBUG=1", "lcg", *BENCH], False),
        (["sh", "-m", "lcg", *BENCH], False),
        ([sys.executable, "bench.py", "--out", "OUT"], False),
        (["/usr/bin/env"], False),
        (["/elsewhere/lcg", *BENCH], False),
    ],
)
def test_this_very_lcg_can_be_run_inside(command: list[str], inside: bool) -> None:
    path = os.pathsep.join((HERE, os.environ["PATH"]))
    assert words_inside(command, path) == (["--out", "OUT"] if inside else None)


# --- what is refused -------------------------------------------------------------------------------------------------


def parameter(**options: Any) -> dict[str, Any]:
    return {"method": "random", "parameters": {"lr": options}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"method": "bayes"}, "`method` is 'bayes', which needs W&B's server to choose the next run; set `method: random`"),
    ({"method": "gird"}, "`method` must be grid or random, got 'gird'"),
    ({"method": None}, "`method` must be grid or random, got none"),
    ({"paramters": {}}, "unknown key 'paramters'; did you mean 'parameters'"),
    (
        {"early_terminate": {"type": "hyperband"}},
        "`early_terminate` is not supported by `lcg sweep`: runs are not stop",
    ),
    ({"scheduler": {}}, "`scheduler` is not supported by `lcg sweep`: there is none here; remove it"),
    ({"metrics": []}, "`metrics` is not supported by `lcg sweep`: name the one that decides as `metric`"),
    ({"job": "j"}, "`job` is not supported by `lcg sweep`: only a `command` or `program` can be run here"),
    ({"image_uri": "i"}, "`image_uri` is not supported by `lcg sweep`: only a `command` or `program`"),
    ({"parameters": None}, "`parameters` must be a mapping such as {lr: {values: [0.1, 0.01]}}, got none"),
    ({"parameters": {"a": 3}}, "`parameters.a` must be a mapping such as {values: [1, 2]}, {value: 3} or"),
    ({"parameters": {"1a": {"value": 3}}}, "the name of a parameter must begin with a letter and go on with"),
    ({"parameters": {"a": {"parameters": {}}}}, "`parameters.a` must hold `parameters`, a mapping, and nothing else"),
    ({"parameters": {"a": {"parameters": {"b": {"value": 1}}, "value": 1}}}, "`parameters.a` must hold `parameters`"),
    (
        {"parameters": {"a.b": {"value": 1}, "a": {"parameters": {"b": {"value": 1}}}}},
        "the parameter `a.b` is given twice, once with a dot and once nested; remove one",
    ),
    (
        {"parameters": {"a": {"min": 0.0, "max": 1.0}}},
        "`parameters.a` has the distribution 'uniform', of which there is no grid; list its `values`, or set",
    ),
    ({"run_cap": 0}, "`run_cap` must be a whole number of at least 1, got 0; leave it out for no bound"),
    ({"run_cap": True}, "`run_cap` must be a whole number of at least 1, got True"),
    ({"metric": "sharp"}, "`metric` must be such as {name: sharp, goal: maximize}, got 'sharp'"),
    ({"metric": {"name": "sharp", "gaol": 1}}, "unknown key 'gaol'; did you mean 'goal'"),
    ({"metric": {"name": "sharp", "goal": "max"}}, "`metric.goal` must be minimize or maximize, got 'max'"),
    ({"metric": {"name": "sharp", "target": 1}}, "`metric.target` is not supported by `lcg sweep`: all runs are made"),
    ({"program": 3}, "`program` must be the path of a script or the name of a program, got 3"),
    ({"command": None}, "`program` must be given where `command` holds ${program}, as W&B's default does, got none"),
    ({"command": "lcg bench"}, "`command` must be a list of words such as [lcg, bench, '${args}'], got 'lcg bench'"),
    ({"command": ["lcg", {}]}, "`command` must be a list of words such as [lcg, bench, '${args}'], got ['lcg', {}]"),
    ({"command": ["lcg", "${arg}"]}, "unknown macro '${arg}'; did you mean '${args}'"),
    ({"command": ["lcg", "x${args}"]}, "`command`: ${args} must be a word of its own, got 'x${args}'"),
    ({"command": ["lcg", "bench"]}, "`command` must hold ${args}, or else all runs are the same, got lcg bench"),
    (parameter(distribution="log_uniform", min=0, max=1), "has the distribution 'log_uniform'; use log_uniform_values"),
    (parameter(distribution="beta"), "has the distribution 'beta'; use uniform or normal, or list its `values`"),
    (
        parameter(distribution="unifrom", min=0, max=1),
        "unknown distribution of `parameters.lr` 'unifrom'; did you mean",
    ),
    (parameter(distribution=[1]), "unknown distribution of `parameters.lr` '[1]'; `lcg sweep` has: constant,"),
    (parameter(min=0), "`parameters.lr` must have `value`, `values`, `min` and `max`, or a `distribution`, got"),
    (parameter(min=0.0, max=1.0, q=0.1), "`parameters.lr` has `q`, which uniform does not; it has min, max"),
    (parameter(distribution="uniform", min=0), "`parameters.lr` must have `max` for the distribution 'uniform', got"),
    (parameter(min="1e-3", max=1), "`min` must be a finite number, got '1e-3'; YAML needs a dot, as in 1.0e-3"),
    (parameter(distribution="int_uniform", min=0.5, max=1), "`min` must be a whole number, got 0.5"),
    (parameter(min=0, max=float("inf")), "`max` must be a finite number, got inf"),
    (parameter(min=2, max=1), "`min` must be below `max`, got 2 and 1; swap them"),
    (parameter(distribution="log_uniform_values", min=0, max=1), "`min` must be > 0 for log_uniform_values, got 0"),
    (parameter(distribution="q_uniform", min=0, max=1, q=0), "`q` must be > 0, got 0"),
    (parameter(distribution="normal", sigma=-1), "`sigma` must be >= 0, got -1"),
    (parameter(values=[]), "`values` must be a list of at least one, got none"),
    (parameter(values="abc"), "`values` must be a list of at least one, got 'abc'"),
    (parameter(value=float("nan")), "nan is no value of JSON (Out of range float values are not JSON compliant"),
    (parameter(values=[1, 2], probabilities=[0.5, 0.4]), "`probabilities` must be one per value and sum to 1, got"),
    (parameter(values=[1, 2], probabilities=[1.0]), "`probabilities` must be one per value and sum to 1, got [1.0]"),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_wrong_in_a_file_is_named(write: Write, keys: dict[str, Any], message: str) -> None:
    path = write(**keys)
    with pytest.raises(ValueError) as caught:
        read_sweep(path)
    assert message in str(caught.value) and str(caught.value).startswith(f"{path}: ")


def test_what_is_no_sweep_file_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no sweep at .*; give a W&B sweep file such as"):
        read_sweep(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"broken.yaml is not YAML \(while parsing.*\); mend it there"):
        read_sweep(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(ValueError, match=r"must be a mapping with `method` and `parameters`, got \[1\]"):
        read_sweep(tmp_path / "list.yaml")


def test_what_only_the_server_shows_is_accepted(write: Write) -> None:
    sweep = read_sweep(write(description="d", project="p", entity="e", controller={"type": "local"}, name="mine"))
    assert sweep.name == "mine" and sweep.metric == Metric("sharp", "maximize")
    assert read_sweep(write(metric={"name": "fid"})).metric == Metric("fid", "minimize")


# --- the sweeps of the experiments -----------------------------------------------------------------------------------


def name(path: Path) -> str:
    return path.parent.name


def test_there_are_sweeps() -> None:
    assert {"02_composition", "03_editing"} <= {name(path) for path in SWEEPS}


@pytest.mark.parametrize("path", SWEEPS, ids=name)
def test_every_run_of_an_experiments_sweep_is_a_command_of_lcg(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    sweep = read_sweep(path)
    found = runs(sweep)
    assert sweep.metric is not None and 4 <= len(found) <= 100
    for run in (found[0], found[-1]):
        command = expand(sweep, run, "OUT/bench")
        start = command.index("lcg") + 1
        with pytest.raises(SystemExit) as stop:
            cli.main([*command[start:], "--print_config"])
        shown = capsys.readouterr()
        assert stop.value.code in (0, None), shown.err
        config = yaml.safe_load(shown.out)
        assert config["out"] == "OUT/bench"  # later words win
        for dotted, value in run.values.items():
            place = config
            for part in dotted.split("."):
                place = place[part]
            assert place == value


@pytest.mark.parametrize("path", SWEEPS, ids=name)
def test_wandb_accepts_an_experiments_sweep(path: Path) -> None:
    theirs = pytest.importorskip("sweeps.config")
    written = yaml.safe_load(path.read_text())
    assert list(theirs.schema_violations_from_proposed_config(written)) == []
    # W&B's agent drops macros that it does not know, and leaves parts of words as they are.
    macros = {word for word in written["command"] if "${" in word}
    assert macros <= {"${env}", "${interpreter}", "${program}", "${args}"}  # `lcg` itself expands $WANDB_RUN_ID


# --- the job ---------------------------------------------------------------------------------------------------------


def lcg_sweep(file: Path, out: Path, *more: str) -> int:
    return cli.main(["sweep", str(file), "--out", str(out), *more])


def made(out: Path) -> list[str]:
    return (out / "runs" / "made.txt").read_text().split()


def test_a_sweep_leaves_tidy_results_and_its_best_run(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, parameters = tmp_path / "out", {"a.x": {"values": [1, 5, 2]}, "y": {"value": "a | b"}}
    assert lcg_sweep(write(parameters=parameters, name="three"), out) == 0
    rows = table(out)
    assert list(rows[0]) == ["run", "a.x", "y", "method", "task", "metric", "value", "stderr", "n", "seed"]
    found = [(row["a.x"], row["task"], float(row["value"])) for row in rows if row["method"] == "lcg"]
    assert found == [(str(x), task, factor * x) for x in (1, 5, 2) for task, factor in (("t1", 1), ("t2", 3))]
    ids = list(dict.fromkeys(row["run"] for row in rows))
    assert made(out) == ids and len(rows) == 9

    text = (out / "sweep.md").read_text()
    assert text.startswith("# three\n") and "3 runs, 3 finished" in text
    assert "The same for all: `y` = a | b." in text
    assert f"Best: `--a.x=5`, sharp 10 ± 0.25 (run {ids[1]})" in text
    assert "larger is better: the mean over 2 tasks" in text and "measure it again with other seeds" in text
    assert f"| **{ids[1]}** | **5** | **10 ± 0.25** | **5 ± 0.3** | **15 ± 0.4** |" in text
    assert "3 runs, 0 of them made before, 0 failed" in capsys.readouterr().out
    record = json.loads((out / "runs" / ids[0] / "run.json").read_text())
    assert record["parameters"] == {"a.x": 1, "y": "a | b"} and record["command"][-1].endswith(f"{ids[0]}/bench")
    provenance = json.loads((out / "provenance.json").read_text())
    assert list(provenance["runs"]) == ids and provenance["failed"] == {} and len(provenance["file_sha256"]) == 64
    assert (out / "config.yaml").is_file()


def test_smaller_may_be_better(write: Write, tmp_path: Path) -> None:
    assert lcg_sweep(write(metric={"name": "sharp"}), tmp_path / "out") == 0
    assert "Best: `--a.x=1`, sharp 2 " in (tmp_path / "out" / "sweep.md").read_text()


def test_a_sweep_goes_on_where_it_was_stopped(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, parameters = tmp_path / "out", {"a.x": {"values": [1, 2, 3]}}
    assert lcg_sweep(write(parameters=parameters, run_cap=1), out) == 0
    assert lcg_sweep(write(parameters=parameters), out) == 0
    assert "3 runs, 1 of them made before, 0 failed" in capsys.readouterr().out
    assert len(made(out)) == len(set(made(out))) == 3 and len(table(out)) == 9
    assert lcg_sweep(write(parameters=parameters), out, "--repeat", "true") == 0
    assert len(made(out)) == 6


def test_a_changed_command_or_file_makes_the_runs_again(write: Write, tmp_path: Path) -> None:
    script, out = tmp_path / "program.py", tmp_path / "out"
    script.write_text(PROGRAM)
    path = write(command=None, program=str(script), parameters={"a.x": {"values": [1, 2]}})
    assert lcg_sweep(path, out) == lcg_sweep(path, out) == 0 and len(made(out)) == 2
    script.write_text(PROGRAM + "\n# changed\n")
    assert lcg_sweep(path, out) == 0 and len(made(out)) == 4


def test_a_failed_run_is_reported_and_stops_no_other(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    path = write(parameters={"a.x": {"value": 1}, "y": {"values": ["broken", "silent", "well"]}})
    assert lcg_sweep(path, out) == 1
    shown = capsys.readouterr()
    assert "failed: exit code 1\n" in shown.err and "    x is 1.0 threads" in shown.err
    assert "    it is broken" in shown.err and "/log.txt:" in shown.err
    assert "failed: it left no results (" in shown.err and "must write results.csv into --out or ${out}" in shown.err
    assert "3 runs, 0 of them made before, 2 failed" in shown.out and "Traceback" not in shown.err
    assert {row["y"] for row in table(out)} == {"well"}
    text = (out / "sweep.md").read_text()
    assert text.count("| failed |") == 2 and "3 runs, 1 finished" in text
    assert len(json.loads((out / "provenance.json").read_text())["failed"]) == 2
    assert lcg_sweep(path, out) == 1 and "3 runs, 1 of them made before, 2 failed" in capsys.readouterr().out


def test_runs_at_once_share_the_threads(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    out = tmp_path / "out"
    assert lcg_sweep(write(parameters={"a.x": {"values": [1, 2, 3]}}), out, "--parallel", "2") == 0
    logs = [path.read_text() for path in (out / "runs").glob("*/log.txt")]
    assert len(logs) == 3 and all("threads 2\n" in log for log in logs)
    xs = [row["a.x"] for row in table(out)]
    assert xs == sorted(xs)  # whoever was first


def test_nothing_outlives_an_interruption(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    whole = subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> Any:
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(whole(*arguments, **options))
        return started[-1]

    monkeypatch.setattr("lcg.benchmarks.sweeps.runs.subprocess.Popen", popen)
    path = write(
        command=["${interpreter}", "-c", "import time; time.sleep(60)", "${args}"],
        parameters={"a": {"min": 1, "max": 4}},
    )
    assert lcg_sweep(path, tmp_path / "out", "--parallel", "3") == 130
    assert len(started) == 2 and all(process.poll() is not None for process in started)
    assert table(tmp_path / "out") == []  # ... and what was finished is in the table


def test_equal_draws_are_made_once(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lcg_sweep(write(method="random"), tmp_path / "out", "--count", "8", "--seed", "1") == 0
    assert "2 runs, 0 of them made before" in capsys.readouterr().out


def test_a_parameter_called_like_a_column_keeps_both(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert lcg_sweep(write(parameters={"a.x": {"value": 1}, "seed": {"values": [7]}}), out) == 0
    assert {(row["sweep.seed"], row["seed"]) for row in table(out)} == {("7", "0"), ("7", "")}


def test_a_sweep_without_metric_is_a_list_of_runs(write: Write, tmp_path: Path) -> None:
    assert lcg_sweep(write(metric=None), tmp_path / "out") == 0
    text = (tmp_path / "out" / "sweep.md").read_text()
    assert "| run | a.x | state |" in text and text.count("| finished |") == 2 and "Best" not in text


@pytest.mark.parametrize(
    ("more", "metric", "message"),
    [
        ((), "shrap", "unknown metric 'shrap'; did you mean 'sharp'? 'lcg' in results.csv has: sharp"),
        (
            ("--method", "lcgg"),
            "sharp",
            "unknown method 'lcgg'; did you mean 'lcg' or 'lace'? results.csv has: lcg, lace",
        ),
        (("--method", "lace"), "sharp", "unknown metric 'sharp'; 'lace' in results.csv has: near"),
    ],
)
def test_a_metric_that_no_run_has_costs_no_run(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], metric: str, message: str
) -> None:
    out = tmp_path / "out"
    assert lcg_sweep(write(metric={"name": metric}), out, *more) == 2
    assert message in capsys.readouterr().err and len(table(out)) == 6
    assert lcg_sweep(write(), out) == 0 and len(made(out)) == 2


COSTLY = """
import pathlib, sys
out, x = pathlib.Path(sys.argv[-1]), sys.argv[1].split("=")[1]
head = "method,task,metric,value,stderr,n,seed" + chr(10)
(out / "results.csv").write_text(head + "lcg,t,sharp,1,,,0" + chr(10))
(out / "costs.csv").write_text(head + f"lcg,t,seconds_per_sample,{x},,,0" + chr(10))
"""


def test_what_a_run_costs_may_decide(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["${interpreter}", "-c", COSTLY, "${args}"]
    path = write(command=command, metric={"name": "seconds_per_sample"}, parameters={"x": {"values": [3, 2]}})
    assert lcg_sweep(path, out) == 0
    assert "Best: `--x=2`, seconds_per_sample 2 (" in (out / "sweep.md").read_text()
    assert {row["metric"] for row in table(out)} == {"sharp"}  # which is the same however fast the machine is
    with (out / "costs.csv").open() as file:
        assert [(row["x"], row["value"]) for row in csv.DictReader(file)] == [("3", "3.0"), ("2", "2.0")]


def test_what_cannot_be_run_is_refused_before_anything_is_made(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert lcg_sweep(write(), out, "--parallel", "0") == 2
    assert "`parallel` must be at least 1, got 0; 1 makes one run after another" in capsys.readouterr().err
    for command in (["lgc-none", "${args}"], ["${env}", "lgc-none", "${args}"]):
        assert lcg_sweep(write(command=command), out) == 2
        assert "`command` begins with 'lgc-none', but there is no such program" in capsys.readouterr().err
    assert lcg_sweep(write(), out, "--inside", "always") == 2
    assert "`inside`='always' needs the command `lcg bench` on one rank, got" in capsys.readouterr().err
    assert lcg_sweep(write(), out, "--inside", "always", "--parallel", "2") == 2
    assert (
        "`inside`='always' makes one run after another, got `parallel`=2; use 1, or 'auto'" in capsys.readouterr().err
    )
    ranks = ["${env}", "lcg", "bench", "--tasks=[]", "--ranks.devices=2", "--ranks.accelerator=cpu", "${args}"]
    path = write(command=ranks, parameters={"editing.weight": {"values": [1, 2]}})
    assert lcg_sweep(path, out, "--inside", "always") == 2
    assert "needs the command `lcg bench` on one rank" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown inside 'alwyas'; did you mean 'always'"):
        sweep_job(str(write()), str(out), inside="alwyas")  # type: ignore[arg-type]
    assert lcg_sweep(write(method="bayes"), out) == 2
    assert "lcg sweep: " in capsys.readouterr().err and not out.exists()


def test_no_runs_are_no_work() -> None:
    told: list[object] = []
    execute([], 2, {}, lambda *run: told.append(run))
    assert told == []


def test_the_error_of_a_mean_over_tasks() -> None:
    assert average([Estimate(1.0, 0.3), Estimate(3.0, 0.4)]) == Estimate(2.0, 0.25)
    assert average([Estimate(1.0, 0.3), Estimate(3.0)]) == Estimate(2.0, None)
    assert show(None) == "-" and show(Estimate(0.12345)) == "0.1235" and show(Estimate(2, 0.123)) == "2 ± 0.12"
    assert spell("a") == "a" and spell([1, None]) == "[1, null]" and spell(0.5) == "0.5"


@pytest.mark.slow
def test_a_sweep_of_real_benchmarks(demo, write: Write, tmp_path: Path) -> None:
    sizes = {"sources": 4, "references": 8, "neighbours": 16, "tuning": 2, "shown": 2, "compared": 2}
    fixed = {**{f"sizes.{k}": v for k, v in sizes.items()}, "editing.steps": 4, "store": demo.store}
    words = [f"--{key}={value}" for key, value in {**fixed, "tasks": '["edit/+beard"]'}.items()]
    path = write(
        command=["${env}", "lcg", "bench", *words, *demo.networks, "${args}"],
        metric={"name": "edit_success", "goal": "maximize"},
        parameters={"editing": {"parameters": {"strength": {"values": [0.5, 1.0]}}}},
    )
    out = tmp_path / "out"
    assert lcg_sweep(path, out, "--parallel", "2") == 0
    assert not (out / "cells").exists()  # two processes, each with a folder of its own
    rows = [row for row in table(out) if row["metric"] == "edit_success"]
    assert [(row["editing.strength"], row["task"]) for row in rows] == [("0.5", "edit/+beard"), ("1.0", "edit/+beard")]
    for folder in (out / "runs").iterdir():
        strength = json.loads((folder / "run.json").read_text())["parameters"]["editing"]["strength"]
        assert yaml.safe_load((folder / "bench" / "config.yaml").read_text())["editing"]["strength"] == strength
        assert read_rows(folder / "bench" / "results.csv") and (folder / "bench" / "provenance.json").is_file()


EDIT = ["edit/+beard +glasses", "generate/glasses"]


@pytest.fixture
def benches(write: Write, bench_words: Callable, tmp_path: Path) -> Write:
    """Writes a sweep of small benchmarks."""

    def make(parameters: dict[str, Any], *more: str) -> Path:
        words = bench_words(tmp_path / "none", EDIT, *more, baselines="{}")
        metric = {"name": "edit_success", "goal": "maximize"}
        command = ["${env}", "lcg", *words[:3], *words[5:], "${args}"]  # without --out
        return write(command=command, parameters=parameters, metric=metric)

    return make


def numbers(out: Path) -> dict[tuple[str, ...], float]:
    names = ("run", "method", "task", "metric", "seed")
    return {tuple(row[name] for name in names): float(row["value"]) for row in table(out)}


@pytest.mark.slow
def test_runs_in_one_process_are_as_in_their_own(
    benches: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = {
        "editing": {"parameters": {"strength": {"values": [0.5, 0.9]}, "weight": {"values": [8.0, 24.0]}}},
        "guidance.single": {"value": 2.0},
    }
    path, one, own = benches(parameters), tmp_path / "one", tmp_path / "own"
    assert lcg_sweep(path, one) == 0 == lcg_sweep(path, own, "--inside", "never")
    together, apart = numbers(one), numbers(own)
    assert len({key[0] for key in together}) == 4 and together == pytest.approx(apart, rel=1e-4, abs=1e-6)
    assert json.loads((one / "provenance.json").read_text())["inside"] is True
    costs = [(folder / "bench" / "costs.csv") for folder in sorted((one / "runs").iterdir())]
    for cost in costs:
        other = own / "runs" / cost.parts[-3] / "bench" / "costs.csv"
        evaluations = [[r.value for r in read_rows(p) if r.metric == "evaluations"] for p in (cost, other)]
        assert evaluations[0] == evaluations[1]  # what was shared counts for each run
        folder = cost.parent
        assert (folder / "config.yaml").is_file() and list((folder / "pictures").iterdir())
        assert "rows in" in (folder.parent / "log.txt").read_text()
        assert "other runs of a sweep" in json.loads((folder / "provenance.json").read_text())["notes"][0]
    before = {p: p.stat().st_mtime_ns for p in (one / "cells").iterdir()}
    capsys.readouterr()
    assert lcg_sweep(path, one) == 0 and "4 runs, 4 of them made before" in capsys.readouterr().out
    assert lcg_sweep(path, one, "--repeat", "true") == 0  # from the samples that are there
    assert {p: p.stat().st_mtime_ns for p in (one / "cells").iterdir()} == before and numbers(one) == together


@pytest.mark.slow
def test_a_run_that_fails_inside_stops_no_other(
    benches: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, path = tmp_path / "out", benches({"editing.strength": {"values": [0.5, 2.0, 0.6, "much"]}})
    assert lcg_sweep(path, out) == 1
    shown = capsys.readouterr()
    assert "4 runs, 0 of them made before, 2 failed" in shown.out
    assert "failed: ValueError: `strength` must be in [0, 1]" in shown.err and "failed: exit code 2" in shown.err
    assert {row["editing.strength"] for row in table(out)} == {"0.5", "0.6"}
    lost = benches({"editing.strength": {"values": [0.5, 0.6]}}, "--prior", "nowhere.ckpt")
    assert lcg_sweep(lost, tmp_path / "lost") == 1
    assert capsys.readouterr().err.count("failed: FileNotFoundError: no denoiser at nowhere.ckpt") == 2
