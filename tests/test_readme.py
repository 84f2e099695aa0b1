"""The README is followed from top to bottom: every command, every Python snippet, every link.

What is run is read from the README itself, so a new or changed command is covered as it is written. `lcg` commands and
snippets run one after another in one folder that looks like a checkout after `make demo`, each on what the ones before
it left. They are made short by rules (`shortened`) that append options and never take one away. `lcg app` is started,
asked for its page, and ended. `make` lines are not executed here: that they name what they say is checked, and
`.ci/run` executes them.
"""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import traceback
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from PIL import Image

from lcg import cli
from lcg.benchmarks.worlds.avatars import AvatarWorld
from lcg.conformance import suite
from lcg.data.avatars import SCHEMA, AvatarSource
from lcg.data.images import provenance_of
from lcg.metrics.judge import Judge
from lcg.weights import save_weights

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# A fenced block, perhaps indented; or, in the prose, a command with its options in backquotes.
CODE = re.compile(
    r"^(?P<indent> *)```(?P<kind>\S*)\n(?P<body>.*?)^(?P=indent)```|`(?P<inline>lcg \w+ -[^`]+)`",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"(?P<picture>!?)\[[^\]]*\]\((?P<target>[^)\s]+)\)")

FEW_IMAGES = 256  # the embedded generator's basis has 192 components, and needs as many images
TINY_BENCH = {
    "samples": 6,
    "unconditional": 24,
    "sources": 4,
    "references": 32,
    "neighbours": 64,
    "tuning": 4,
    "shown": 4,
    "compared": 2,
}

# What a command leaves; one of the patterns must match a file that it wrote.
LEAVES = {
    "encode": ("*/manifest.json",),
    "fit": ("*.ckpt", "*.safetensors"),
    "predict": ("*/edited-*.safetensors",),
    "generate": ("*/sheet.png",),
    "edit": ("*/strip.png",),
    "bench": ("*/results.csv",),
    "report": ("*/report.html",),
    "validate": ("*/calibration.png", "*/calibration.csv"),
    "verify": ("*/verify.csv",),
    "sweep": ("*/sweep.md",),
    "store": ("*/manifest.json",),
    "export": ("*/model.json",),
    "label": ("*/manifest.json", "*/sheet.png"),
    "new": ("*/README.md",),
}
LEAVES_NOTHING = (("lcg", "store", "info"), ("lcg", "store", "verify"), ("lcg", "check-generator"), ("lcg", "app"))
BEGUN = ("runs/", "my-generator/", "photos/animals/")
"""Where commands and snippets write."""
DESTINATION = re.compile(r"--(out|.*\bdirpath)")

# What the comment beside a `make` line says, and what make must then be about to run.
SAYS = {
    "sets everything up": "pip install",
    "trains prior and classifiers": "lcg fit --config configs/classifier/avatars.yaml",
    "ends with a report": "lcg report",
    "runs the tests": "pytest",
    "every shipped benchmark": "lcg bench",
    "beside the peers' loops": "lcg.benchmarks.speed",
    "trains those that need training": "lcg fit --config configs/baseline/styleflow.yaml",
    "checks style and types": "ruff check",
    "builds the documentation": "mkdocs build --strict",
}
ENTERED = ("source", ".venv/bin/activate")
"""What is typed once; its folder is the one that make installs into."""


# --- what the README holds -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A command line, or a snippet (`program` python), of the README."""

    program: str
    words: tuple[str, ...]
    text: str

    @property
    def label(self) -> str:
        return f"python: {self.text.splitlines()[-1]}" if self.program == "python" else shlex.join(self.words)


def command_lines(block: str) -> Iterator[Step]:
    """The commands of a shell block; a line that ends in a backslash goes on, a comment is no command."""
    for line in block.replace("\\\n", " ").splitlines():
        words = tuple(shlex.split(line, comments=True))
        if words:
            yield Step(words[0], words, line)


def steps(text: str) -> Iterator[Step]:
    """Commands and snippets in the order of the text."""
    for code in CODE.finditer(text):
        if code["kind"] == "python":
            yield Step("python", (), textwrap.dedent(code["body"]).strip())
        elif code["kind"] == "bash" or code["inline"]:
            yield from command_lines(code["inline"] or textwrap.dedent(code["body"]))


STEPS = tuple(steps(README))
FOLLOWED = tuple(step for step in STEPS if step.program in ("lcg", "python"))
MADE = tuple(step for step in STEPS if step.program == "make")
PROSE = CODE.sub("", README)
LOCAL = [link for link in LINK.finditer(PROSE) if not re.match(r"\w+:|#", link["target"])]


def test_nothing_in_the_readme_is_passed_over() -> None:
    assert {code["kind"] for code in CODE.finditer(README) if code["kind"] is not None} == {"bash", "python"}
    assert README.count("```") == 2 * sum(code["kind"] is not None for code in CODE.finditer(README))
    others = [step.label for step in STEPS if step not in FOLLOWED and step not in MADE and step.words != ENTERED]
    assert not others, "say in this file how such a command is tried"
    assert MADE and {step.program for step in FOLLOWED} == {"lcg", "python"}


def test_the_environment_is_where_make_puts_it() -> None:
    assert sum(step.words == ENTERED for step in STEPS) == 1
    assert f"VENV := {ENTERED[1].partition('/')[0]}\n" in (ROOT / "Makefile").read_text()


def test_commands_are_read_as_a_shell_reads_them() -> None:
    text = (
        "A `lcg report` is no command, `lcg edit --rows 1` is.\n\n```bash\n# none\nmake demo  # all\n```\n"
        '1. in a list\n\n   ```bash\n   lcg fit --a "x & # y" \\\n       --b 2\n   ```\n'
        "```python\nif 1:\n    pass\n```\n"
    )
    found = list(steps(text))
    assert [step.words for step in found] == [
        ("lcg", "edit", "--rows", "1"),
        ("make", "demo"),
        ("lcg", "fit", "--a", "x & # y", "--b", "2"),
        (),
    ]
    assert found[-1].text == "if 1:\n    pass"


# --- rules that make commands short ----------------------------------------------------------------------------------


def options(words: tuple[str, ...] | list[str]) -> list[tuple[str, str]]:
    """(--name, first value) of each option, written `--name value` or `--name=value`."""
    found = []
    for word, following in pairwise([*words, ""]):
        if word.startswith("--"):
            name, is_joined, value = word.partition("=")
            found.append((name, value if is_joined else following))
    return found


def merged(words: tuple[str, ...]) -> dict[str, object]:
    """The configs that a command names, later ones on top: {dotted name: value}; entries of lists are numbered."""
    leaves: dict[str, object] = {}
    for option, value in options(words):
        if option == "--config":
            written = flat(yaml.safe_load((ROOT / value).read_text()))
            leaves |= {name.replace("+", ""): leaf for name, leaf in written.items()}  # `tasks+` adds to `tasks`
    return leaves


def flat(node: object, name: str = "") -> dict[str, object]:
    """The leaves of nested mappings and lists by their dotted names."""
    if not isinstance(node, dict | list):
        return {name: node}
    entries = node.items() if isinstance(node, dict) else enumerate(node)
    return {k: v for key, value in entries for k, v in flat(value, f"{name}.{key}" if name else str(key)).items()}


def option_name(name: str) -> str:
    """A leaf's or an option's name without what the command line may leave out."""
    return ".".join(part for part in name.removeprefix("--").split(".") if part != "init_args" and not part.isdigit())


def shortened(words: tuple[str, ...], number: int, judge: Path) -> list[str]:
    """The arguments of `lcg` with others appended, which win: few steps, few images, no GPU; none is taken away."""
    command, more = words[1], {}
    if command in cli.TRAINER_COMMANDS:
        more |= {"trainer.accelerator": "cpu", "trainer.devices": 1, "trainer.enable_progress_bar": "false"}
    if command == "fit":
        more |= {"trainer.max_steps": 2}
    if command in ("fit", "encode"):
        more |= {name: FEW_IMAGES for name in merged(words) if name.endswith(".init_args.count")}
    if command in ("generate", "edit"):
        more |= {"device": "cpu"}
        if "--out" not in dict(options(words)):  # so that it cannot be in the way of another
            more |= {"out": f"runs/{command}-{number}"}
    if command == "generate":  # ranks would start this process again
        more |= {"ranks.devices": 1, "num": min(64, int(dict(options(words)).get("--num", 64)))}
    if command == "sweep":
        more |= {"count": 1}
    if command == "bench":
        more |= {f"sizes.{name}": value for name, value in TINY_BENCH.items()}
        more |= {"judge": judge_of(judge), "sampling.steps": 5, "editing.steps": 5, "ranks.devices": 1}
    return [*words[1:], *(str(word) for name, value in more.items() for word in (f"--{name}", value))]


def judge_of(weights: Path) -> str:
    """The option that names a judge."""
    return json.dumps({"class_path": "lcg.metrics.judge.AvatarJudge", "init_args": {"weights": str(weights)}})


# --- somebody who follows it -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        code: its exit code.
        output: what it printed.
        wrote: files that are new or changed, relative to the checkout.
        configs: what the files config.yaml among them say, read at once, before a later step replaces them.
    """

    code: int
    output: str
    wrote: frozenset[str]
    configs: tuple[dict[str, object], ...]


class Reader:
    """Follows the steps in order, each once, whichever of them a test asks for."""

    def __init__(self, checkout: Path, judge: Path) -> None:
        self.checkout, self.judge = checkout, judge
        self.outcomes: list[Outcome] = []

    def outcome(self, number: int) -> Outcome:
        """What became of step `number`, after all steps before it."""
        for i in range(len(self.outcomes), number + 1):
            self.outcomes.append(self.follow(FOLLOWED[i], i))
        return self.outcomes[number]

    def follow(self, step: Step, number: int) -> Outcome:
        before, output = self.files(), io.StringIO()
        with self.at_work(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                if step.program == "python":
                    exec(compile(step.text, "README.md", "exec"), {"__name__": "__main__"})
                    code = 0
                else:
                    code = self.run(shortened(step.words, number, self.judge))
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except Exception:
                traceback.print_exc()
                code = 1
        wrote = frozenset(name for name, stamp in self.files().items() if before.get(name) != stamp)
        left = (self.checkout / name for name in sorted(wrote) if name.endswith("/config.yaml"))
        return Outcome(code, output.getvalue(), wrote, tuple(flat(yaml.safe_load(path.read_text())) for path in left))

    def run(self, arguments: list[str]) -> int:
        """`lcg ARGUMENTS`, as from a shell."""
        if arguments[0] == "app":
            return self.visit(arguments)
        with mock.patch.object(sys, "argv", ["lcg", *arguments]):
            return cli.main(arguments)

    def visit(self, arguments: list[str]) -> int:
        """Starts the page, asks for it and ends it as Ctrl-C does. Returns 0 if it was there."""
        command = [sys.executable, "-m", "lcg", *arguments, "--port", "0", "--open", "false"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = process.stdout.readline()
            try:
                with urllib.request.urlopen(re.search(r"http://\S+", told)[0], timeout=60) as page:
                    return int(b"gradio_config" not in page.read())
            finally:
                process.send_signal(signal.SIGINT)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """In the checkout, with few renders and checks; what Lightning leaves in this process is removed."""
        real, open_before = AvatarWorld.real, getattr(sys.modules.get("wandb"), "run", None)
        with pytest.MonkeyPatch.context() as patch, mock.patch.dict(os.environ):  # DDP sets addresses and ranks
            patch.chdir(self.checkout)
            patch.setenv("WANDB_MODE", "offline")
            patch.delenv("WANDB_SERVICE", raising=False)  # W&B's own process, if another test has had one, is gone
            patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # of this environment's lcg
            patch.setattr(suite, "GROUPS", suite.GROUPS[:1])  # all are in tests/conformance
            patch.setattr(AvatarWorld, "real", lambda self, d, n, split, f=None: real(self, d, min(n, 128), split, f))
            try:
                yield
            finally:
                if torch.distributed.is_available() and torch.distributed.is_initialized():
                    torch.distributed.destroy_process_group()
                begun = getattr(sys.modules.get("wandb"), "run", None)
                if begun is not None and begun is not open_before:
                    begun.finish()  # as the process does when it ends
                    sys.modules["wandb"].teardown()

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file of the checkout with its time and size."""
        found = ((path, path.stat()) for path in self.checkout.rglob("*") if path.is_file())
        return {str(path.relative_to(self.checkout)): (stat.st_mtime_ns, stat.st_size) for path, stat in found}


@pytest.fixture(scope="module")
def reader(demo, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """In a checkout after `make demo baselines`, with a folder of labelled photos."""
    checkout = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "configs", checkout / "configs")
    shutil.copytree(demo.root, checkout / "runs" / "demo")
    write_photos(checkout / "photos", 120)
    experiment = checkout / "experiments" / "03_editing"
    shutil.copytree(ROOT / "experiments", experiment.parent, ignore=shutil.ignore_patterns("*.png", "*.csv"))
    torch.manual_seed(0)
    small = Judge(SCHEMA, width=4, features=3)  # few features, so that few samples give a distance
    small.heads[-1].bias.data.fill_(-9.0)  # it sees no attribute anywhere, so that samples of this prior can be edited
    judge = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    save_weights(judge, small, small.config, provenance_of(train=AvatarSource("uniform", 8, "readme-judge")))
    quicken(experiment / "sweep.yaml", judge)
    reader = Reader(checkout, judge)
    benchmark = ("lcg", "bench", "--config", "configs/world/avatars.yaml", "--config", "configs/benchmark/demo.yaml")
    baseline = ("lcg", "fit", "--config", "configs/baseline/styleflow.yaml")  # of `make baselines`, the one in need
    with reader.at_work():
        assert reader.run(shortened(baseline, 0, judge)) == 0
        assert reader.run(shortened(benchmark, 0, judge)) == reader.run(["report", "runs/demo/bench"]) == 0
    return reader


def quicken(sweep: Path, judge: Path) -> None:
    """Has the runs of a sweep file measure little: `lcg sweep` hands nothing on to them."""
    written = yaml.safe_load(sweep.read_text())
    few = {f"sizes.{name}": value for name, value in TINY_BENCH.items()}
    few |= {"judge": judge_of(judge), "sampling.steps": 5, "editing.steps": 5}
    place = written["command"].index("${args}")
    written["command"][place:place] = [f"--{name}={value}" for name, value in few.items()]
    sweep.write_text(yaml.safe_dump(written))


def write_photos(folder: Path, count: int) -> None:
    """Images and `attributes.csv`, as the README asks for; unknown labels are empty cells."""
    folder.mkdir()
    images, labels = AvatarSource("biased", count, "readme").chunk(0, count)
    with (folder / "attributes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", *SCHEMA.names])
        for i, (image, row) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(image).save(folder / f"{i:04d}.png")
            cells = [
                "" if y != y else attribute.values[int(y)] if attribute.kind == "categorical" else int(y)
                for attribute, y in zip(SCHEMA, row, strict=True)
            ]
            table.writerow([f"{i:04d}.png", *cells])


@pytest.mark.parametrize("number", range(len(FOLLOWED)), ids=[step.label for step in FOLLOWED])
def test_it_works_as_written(reader: Reader, number: int) -> None:
    step, outcome = FOLLOWED[number], reader.outcome(number)
    untrained = step.words[:2] == ("lcg", "verify") and "--checkpoint" in step.words  # it may, and should, be found out
    assert outcome.code in ((0, 1) if untrained else (0,)), outcome.output
    assert "Traceback" not in outcome.output
    assert all(name.startswith(BEGUN) for name in outcome.wrote), "it wrote into the checkout"
    if step.program == "python" or any(step.words[: len(words)] == words for words in LEAVES_NOTHING):
        return
    patterns = LEAVES.get(step.words[1], ("*",))
    if dict(options(step.words)).get("--ckpt_path") == "auto":  # nothing is left to do, which the record says
        patterns = ("*/run.json",)
    assert any(fnmatch(name, pattern) for name in outcome.wrote for pattern in patterns), outcome.output
    named = [value for option, value in options(step.words) if DESTINATION.fullmatch(option)]
    assert all(any(name.startswith(f"{folder}/") for name in outcome.wrote) for folder in named)
    if named:
        places = (*(f"{folder}/" for folder in named), "runs/cache/")  # the cache belongs to all benchmarks
        elsewhere = [name for name in outcome.wrote if not name.startswith(places)]
        assert not elsewhere, f"it was told to write into {named}"


LEAVES_NO_CONFIG = "validate"
WITH_CONFIG = [
    number
    for number, step in enumerate(FOLLOWED)
    if "--config" in dict(options(step.words)) and step.words[1] != LEAVES_NO_CONFIG
]


@pytest.mark.parametrize("number", WITH_CONFIG, ids=[FOLLOWED[number].label for number in WITH_CONFIG])
def test_its_configs_are_in_force(reader: Reader, number: int) -> None:
    """What the configs say, later ones on top, stands in the configuration that the command leaves."""
    words, outcome = FOLLOWED[number].words, reader.outcome(number)
    assert outcome.code == 0, outcome.output
    (in_force,) = outcome.configs
    given = {option_name(option) for option, _ in options(shortened(words, number, reader.judge))}
    expected = {k: v for k, v in merged(words).items() if not {option_name(k), option_name(k.split(".")[0])} & given}
    expected = {k: v for k, v in expected.items() if v != "."}  # a logger's folder, which becomes the Trainer's
    if words[1] == "fit" and "out" in given:  # moves what lies in the run's folder
        expected = {k: v for k, v in expected.items() if not k.endswith(("dirpath", "default_root_dir"))}
    assert expected and {k: in_force.get(k) for k in expected} == expected


# --- make and links --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", MADE, ids=[step.label for step in MADE])
def test_make_would_run_what_it_says(step: Step) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    # -B: what is up to date in this checkout is named too
    command = [*step.words, "--dry-run", "--always-make"]
    made = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=30)
    assert made.returncode == 0, made.stderr
    says = step.text.partition("#")[2]
    promised = [said for said in SAYS if said in says]
    assert promised, f"say in SAYS what {says!r} comes down to"
    for said in promised:
        assert SAYS[said] in made.stdout, f"it says {said!r}"
    for command, options in re.findall(r"(?:^|\s)lcg (\w+)(.*)$", made.stdout, re.MULTILINE):
        assert command in cli.TRAINER_COMMANDS or command in cli.JOBS
        assert all((ROOT / path).is_file() for path in re.findall(r"--config (\S+)", options))


@pytest.mark.parametrize("link", LOCAL, ids=[link["target"] for link in LOCAL])
def test_what_is_linked_exists(link: re.Match[str]) -> None:
    path = ROOT / link["target"].partition("#")[0]
    assert path.exists()
    if link["picture"]:
        with Image.open(path) as picture:
            picture.verify()
