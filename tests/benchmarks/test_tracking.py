"""A benchmark in TensorBoard and W&B: what is written is read back; W&B's own commands run against a server here."""

import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lcg.benchmarks.sweeps.file import read_sweep
from lcg.benchmarks.sweeps.runs import runs
from lcg.benchmarks.tracking import EVENTS, FILES, Tracking, check_tracking, flat, track

ROOT = Path(__file__).parents[2]
CONFIG = {"tasks": ["generate/hat"], "guidance": {"several": 2.0, "particles": 4, "how": "joint", "exact": True}}
RESULTS = """method,task,metric,value,stderr,n,seed
lcg,generate/hat,sharp,0.5,0.1,16,1
lcg,generate/hat,sharp,0.75,0.1,16,2
lcg,generate/age>0.6 & hat,sharp,0.125,,16,1
lace,generate/hat,sharp,0.25,0.1,16,1
real,unconditional,frechet_distance,3.5,,16,
"""
COSTS = "method,task,metric,value,stderr,n,seed\nlcg,generate/hat,evaluations,40,,16,1\n"
AVERAGES = {"sharp": (0.625 + 0.125) / 2, "evaluations": 40.0}
KEY = "0123456789" * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return finished(tmp_path / "bench")


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B knows of no account here, and nothing of the user's."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def finished(out: Path) -> Path:
    """A benchmark's folder."""
    (out / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = []
    for kind, size in (("formula", (12, 20)), ("edit", (8, 30))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(out / "pictures" / f"{kind}.png")
        entry = {"file": f"pictures/{kind}.png", "kind": kind, "method": "lcg", "task": "generate/hat"}
        pictures.append({**entry, "title": "Hats", "caption": "Not chosen."})
    (out / "pictures.json").write_text(json.dumps(pictures))
    (out / "results.csv").write_text(RESULTS)
    (out / "costs.csv").write_text(COSTS)
    (out / "comparisons.csv").write_text("task,metric,method,against,difference,low,high,p,p_holm,n\n")
    (out / "provenance.json").write_text('{"lcg": "1"}')
    return out


# --- reading back ----------------------------------------------------------------------------------------------------


def records(folder: Path) -> list[Any]:
    """The records of the offline run in FOLDER/wandb: W&B's protocol buffers in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, whole, found, at = path.read_bytes(), b"", [], 7
    assert data[:4] == b":W&B"
    while at < len(data):
        if 32768 - at % 32768 < 7:  # a block's end, too short for a header
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of a record, or its last part
            found.append(Record.FromString(whole))
            whole = b""
    assert not whole
    return found


def offline(folder: Path) -> dict[str, Any]:
    """An offline run by kind of record: id, project and the like, config, history, artifact."""
    read: dict[str, Any] = {"config": {}, "history": {}, "summary": {}, "artifact": {}}
    for record in records(folder):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            read |= {"id": run.run_id, "project": run.project, "sweep": run.sweep_id, "group": run.run_group}
            read |= {"name": run.display_name, "tags": list(run.tags), "entity": run.entity}
            read["config"] |= {item.key: json.loads(item.value_json) for item in run.config.update}
        elif kind in ("history", "summary"):
            items = record.history.item if kind == "history" else record.summary.update
            for item in items:
                read[kind]["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        elif kind == "artifact" and record.artifact.type == "benchmark":
            entries = record.artifact.manifest.contents
            read["artifact"] = {entry.path: Path(entry.local_path).read_bytes() for entry in entries}
        elif kind == "exit":
            read["exit"] = record.exit.exit_code
    return read


def events(folder: Path) -> EventAccumulator:
    (file,) = (folder / "tensorboard").iterdir()
    found = EventAccumulator(str(file), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    return found.Reload()


# --- TensorBoard -----------------------------------------------------------------------------------------------------


def test_tensorboard_has_every_row_at_its_seed_and_the_averages(folder: Path) -> None:
    track(folder, Tracking(), CONFIG)
    found = events(folder)
    scalars = {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert scalars == {
        "lcg/generate/hat/sharp": [(1, 0.5), (2, 0.75)],
        "lcg/generate/age>0.6 & hat/sharp": [(1, 0.125)],
        "lace/generate/hat/sharp": [(1, 0.25)],
        "real/unconditional/frechet_distance": [(0, 3.5)],
        "lcg/generate/hat/evaluations": [(1, 40.0)],
        **{metric: [(0, value)] for metric, value in AVERAGES.items()},
    }


def test_tensorboard_has_the_pictures_as_they_are(folder: Path) -> None:
    track(folder, Tracking(), CONFIG)
    found = events(folder)
    assert found.Tags()["images"] == ["formula/lcg/generate/hat", "edit/lcg/generate/hat"]
    (image,) = found.Images("edit/lcg/generate/hat")
    assert image.encoded_image_string == (folder / "pictures" / "edit.png").read_bytes()
    assert (image.width, image.height) == (30, 8)


def test_tensorboard_has_the_settings_as_hyperparameters(folder: Path) -> None:
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

    track(folder, Tracking(), CONFIG)
    found = events(folder)
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = parse_session_start_info_plugin_data(content).hparams
    assert values["guidance.several"].number_value == 2.0 and values["guidance.how"].string_value == "joint"
    assert values["guidance.exact"].bool_value and values["tasks"].string_value == '["generate/hat"]'


def test_tracking_again_replaces_what_tensorboard_shows(folder: Path) -> None:
    track(folder, Tracking(), CONFIG)
    first = (folder / "tensorboard" / EVENTS).read_bytes()
    track(folder, Tracking(), CONFIG)
    assert (folder / "tensorboard" / EVENTS).read_bytes() == first
    (folder / "results.csv").write_text(RESULTS.replace("0.75", "1.0"))
    track(folder, Tracking(), CONFIG)
    assert [event.value for event in events(folder).Scalars("lcg/generate/hat/sharp")] == [0.5, 1.0]


def test_the_averages_are_those_of_the_method_that_is_asked_for(folder: Path) -> None:
    track(folder, Tracking(), CONFIG, method="lace")
    assert [event.value for event in events(folder).Scalars("sharp")] == [0.25]


def test_costs_are_shown_where_there_are_any(folder: Path) -> None:
    (folder / "costs.csv").unlink()
    track(folder, Tracking(), CONFIG)
    assert "evaluations" not in events(folder).Tags()["scalars"]


def test_without_wandb_neither_it_nor_tensorflow_nor_torch_is_imported(folder: Path) -> None:
    heavy = "{'wandb', 'tensorflow', 'torch'}"
    code = f"import sys; track(Path({str(folder)!r}), Tracking(), {{}}); assert not {heavy} & set(sys.modules)"
    start = "from pathlib import Path; from lcg.benchmarks.tracking import Tracking, track; "
    subprocess.run([sys.executable, "-c", start + code], check=True, cwd=folder)
    assert not (folder / "wandb").exists()


def test_a_nested_config_by_dotted_names() -> None:
    nested = {"a": {"b": {"c": 1, "d": "x"}, "e": None}, "f": [1, "y"], "g": False}
    assert flat(nested) == {"a.b.c": 1, "a.b.d": "x", "a.e": "null", "f": '[1, "y"]', "g": False}
    assert flat({}) == {}


# --- what is asked of W&B --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["off", "offline", "online"])
def test_what_is_asked_for_holds_whatever_the_environment_says(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_MODE", "offline" if mode == "online" else "online")
    assert Tracking(mode).mode == mode


@pytest.mark.parametrize(
    ("said", "mode"),
    [(None, "online"), ("online", "online"), ("offline", "offline"), ("dryrun", "offline"), ("disabled", "off")],
)
def test_auto_is_for_agents(said: str | None, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if said is not None:
        monkeypatch.setenv("WANDB_MODE", said)
    assert Tracking().mode == "off"
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert Tracking().mode == mode


@pytest.mark.parametrize("project", ["", "a/b", "a:b", "x" * 129])
def test_a_project_that_wandb_would_refuse_is_refused_first(project: str) -> None:
    with pytest.raises(ValueError, match=r"`project` must have 1 to 128 characters, none of .*a user or team goes to"):
        Tracking(project=project)


def test_online_needs_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    wandb.teardown()  # it keeps what it has read of the environment
    online = Tracking("online")
    with pytest.raises(ValueError, match=r"`tracking.wandb` is online, but there is no W&B account: .* `wandb login`"):
        check_tracking(online)
    for other in ("auto", "off", "offline"):
        check_tracking(Tracking(other))  # need none
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine elsewhere.org login user password x\n")
    netrc.chmod(0o600)
    with pytest.raises(ValueError, match="there is no W&B account"):
        check_tracking(online)
    netrc.write_text(f"machine api.wandb.ai login user password {KEY}\n")
    check_tracking(online)
    netrc.unlink()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    check_tracking(online)


# --- W&B -------------------------------------------------------------------------------------------------------------


def test_an_offline_run_holds_numbers_settings_and_files(folder: Path) -> None:
    import wandb

    about = Tracking("offline", project="hats", entity="me", name="first", group="g", tags=("a", "b"))
    track(folder, about, CONFIG)
    wandb.teardown()  # as the process does when it ends
    run = offline(folder)
    assert run["exit"] == 0 and run["project"] == "hats" and run["entity"] == "me"
    assert run["name"] == "first" and run["group"] == "g" and run["tags"] == ["a", "b"]
    assert {key: run["config"][key] for key in CONFIG} == CONFIG
    numbers = {
        "lcg/generate/hat/sharp": 0.625,
        "lcg/generate/age>0.6 & hat/sharp": 0.125,
        "lace/generate/hat/sharp": 0.25,
        "real/unconditional/frechet_distance": 3.5,
        "lcg/generate/hat/evaluations": 40.0,
        **AVERAGES,
    }
    for kind in ("history", "summary"):
        assert {key: run[kind][key] for key in numbers} == numbers
    assert set(run["artifact"]) == {*FILES, "config.yaml"}
    assert all(run["artifact"][name] == (folder / name).read_bytes() for name in FILES)
    assert yaml.safe_load(run["artifact"]["config.yaml"]) == CONFIG

    image = {key: run["history"][f"edit/lcg/generate/hat/{key}"] for key in ("caption", "width", "height", "path")}
    assert image["caption"] == "Hats. Not chosen." and (image["width"], image["height"]) == (30, 8)
    (files,) = folder.glob("wandb/offline-run-*/files")
    assert (files / image["path"]).read_bytes() == (folder / "pictures" / "edit.png").read_bytes()
    table = json.loads((files / run["history"]["results/path"]).read_text())
    assert table["columns"] == RESULTS.split()[0].split(",") and len(table["data"]) == 6
    assert table["data"][2] == ["lcg", "generate/age>0.6 & hat", "sharp", 0.125, None, 16, 1]


def test_a_run_that_stands_is_left_alone(folder: Path, tmp_path: Path) -> None:
    import wandb

    with wandb.init(mode="offline", project="theirs", dir=tmp_path) as theirs:
        track(folder, Tracking("offline"), CONFIG)
        assert wandb.run is theirs
        theirs.log({"x": 1})
    wandb.teardown()
    assert offline(folder)["id"] != theirs.id
    assert offline(folder)["exit"] == offline(tmp_path)["exit"] == 0 and offline(tmp_path)["history"]["x"] == 1


# --- W&B's agent -----------------------------------------------------------------------------------------------------

# Stands for `lcg bench`: leaves a folder's results, the metric being what the parameters say, and tracks them.
PROGRAM = """
import os, pathlib, shutil, sys
from lcg.benchmarks.tracking import Tracking, check_tracking, track
options = dict(word[2:].split("=", 1) for word in sys.argv[1:])
out, x = pathlib.Path(os.path.expandvars(options["out"])), float(options["guidance.several"])
check_tracking(Tracking())
shutil.copytree(options["from"], out)
(out / "results.csv").write_text("method,task,metric,value,stderr,n,seed" + chr(10) + f"lcg,t,sharp,{x / 10},,,1")
(out / "costs.csv").unlink()
track(out, Tracking(), {"guidance": {"several": x}})
"""


def test_what_an_agent_starts_is_its_run(folder: Path, tmp_path: Path) -> None:
    """The environment of `Agent._command_run` in wandb/wandb_agent.py."""
    parameters = tmp_path / "wandb" / "sweep-s1" / "config-r1.yaml"
    parameters.parent.mkdir(parents=True)
    parameters.write_text("wandb_version: 1\n\nguidance.several:\n  value: 3.0\n")
    given = {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "r1", "WANDB_SWEEP_PARAM_PATH": str(parameters)}
    given |= {"WANDB_PROJECT": "theirs", "WANDB_ENTITY": "me", "WANDB_DIR": str(tmp_path), "WANDB_MODE": "offline"}
    words = [f"--from={folder}", "--out=agent/$WANDB_RUN_ID", "--guidance.several=3.0"]
    subprocess.run([sys.executable, "-c", PROGRAM, *words], check=True, cwd=tmp_path, env={**os.environ, **given})
    run = offline(tmp_path / "agent" / "r1")
    assert (run["id"], run["sweep"], run["project"], run["entity"]) == ("r1", "s1", "theirs", "me")
    assert run["config"]["guidance.several"] == 3.0 and run["config"]["guidance"] == {"several": 3.0}
    assert run["summary"]["sharp"] == run["history"]["sharp"] == 0.3


class Server(ThreadingHTTPServer):
    """Answers what `wandb sweep` and `wandb agent` ask of W&B's server: a sweep, an agent, its runs one by one."""

    def __init__(self, commands: list[dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.commands, self.asked, self.sweep = commands, list[str](), ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        if "upsertSweep" in query:
            self.sweep = given["config"]
            project = {"id": "p", "name": given["projectName"], "entity": {"id": "e", "name": given["entityName"]}}
            return {"upsertSweep": {"sweep": {"name": "s1", "project": project}, "configValidationWarnings": []}}
        if "createAgent" in query:
            return {"createAgent": {"agent": {"id": "a1"}}}
        if "agentHeartbeat" in query:
            ready = not json.loads(given["runState"])
            commands = [self.commands.pop(0) if self.commands else {"type": "exit"}] if ready else []
            return {"agentHeartbeat": {"agent": {"id": "a1"}, "commands": json.dumps(commands)}}
        if "SweepWithRuns" in query:
            return {"project": {"sweep": {"id": "S", "name": "s1", "config": self.sweep, "runs": {"edges": []}}}}
        viewer = {"id": "v", "username": "me", "entity": "me", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer, "serverInfo": {"cliVersionInfo": {}, "features": []}}


class Answers(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/graphql":  # telemetry
            return self.send_error(404)
        asked = json.loads(body)
        self.server.asked.append(asked["query"])
        refused = "UpsertBucket" in asked["query"]  # a run that is online
        answer = {} if refused else self.server.answer(asked["query"], asked.get("variables") or {})
        body = json.dumps({"errors": [{"message": "no such entity"}]} if refused else {"data": answer}).encode()
        self.send_response(403 if refused else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def sweep(folder: Path, tmp_path: Path) -> Path:
    """A sweep file of two runs, which are offline while their agent is not."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = ["${env}", "WANDB_MODE=offline", "${interpreter}", "program.py", f"--from={folder}"]
    written = {
        "command": [*command, "--out=agent/$WANDB_RUN_ID", "${args}"],
        "method": "grid",
        "metric": {"name": "sharp", "goal": "maximize"},
        "parameters": {"guidance.several": {"values": [2.0, 5.0]}},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(written))
    return tmp_path / "sweep.yaml"


@pytest.fixture
def server(sweep: Path) -> Iterator[Server]:
    commands = [
        {"type": "run", "run_id": f"r{i}", "program": None, "args": {k: {"value": v} for k, v in run.values.items()}}
        for i, run in enumerate(runs(read_sweep(sweep)))
    ]
    with Server(commands) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def wandb_command(server: Server, cwd: Path, *words: str) -> str:
    """Runs a command of W&B's with the server of the test; gives what it printed."""
    program = Path(sys.executable).with_name("wandb")
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "PATH": path}
    done = subprocess.run([program, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_run_that_the_server_refuses_leaves_the_results(server: Server, folder: Path) -> None:
    environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    code = f"track(Path({str(folder)!r}), Tracking('online'), {{}})"
    start = "from pathlib import Path; from lcg.benchmarks.tracking import Tracking, track; "
    done = subprocess.run([sys.executable, "-c", start + code], env=environment, capture_output=True, text=True)
    assert "UpsertBucket" in "".join(server.asked)
    assert "RuntimeError: W&B refused the run (" in done.stderr, done.stderr
    assert f"); all results are in {folder}: give the same command again, or set `tracking.wandb`" in done.stderr
    assert events(folder).Tags()["scalars"]


@pytest.mark.slow
def test_wandb_sweep_and_wandb_agent_make_runs_in_folders_of_their_own(server: Server, sweep: Path) -> None:
    assert shutil.which("env"), "an agent's commands begin with it"
    shown = wandb_command(server, sweep.parent, "sweep", "-e", "me", "-p", "lcg", sweep.name)
    assert "wandb agent me/lcg/s1" in shown and yaml.safe_load(server.sweep)["metric"]["name"] == "sharp"
    wandb_command(server, sweep.parent, "agent", "me/lcg/s1")
    found = [offline(sweep.parent / "agent" / name) for name in ("r0", "r1")]
    assert [run["id"] for run in found] == ["r0", "r1"] and {run["sweep"] for run in found} == {"s1"}
    assert [run["config"]["guidance.several"] for run in found] == [2.0, 5.0]
    assert [run["summary"]["sharp"] for run in found] == [0.2, 0.5]


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiments/*/sweep.yaml")), ids=lambda path: path.parent.name)
def test_an_agents_runs_of_an_experiment_have_folders_of_their_own(path: Path) -> None:
    """W&B fills in ${envvar:WANDB_RUN_ID} before it has set it; lcg itself reads $WANDB_RUN_ID in `out`."""
    (out,) = (word for word in read_sweep(path).command if word.startswith("--out="))
    assert out.endswith("/agent/$WANDB_RUN_ID")
