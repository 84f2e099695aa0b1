"""The command line: dispatch, configuration, help, and how errors are shown."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lcg import __version__, cli

COMMANDS = (*cli.TRAINER_COMMANDS, *(name for name in cli.JOBS if " " not in name), *cli.GROUPS)
BORING = "pytorch_lightning.demos.boring_classes.BoringModel"

JOBS_MODULE = '''
"""Jobs for the tests."""

import dataclasses
from pathlib import Path

from lcg.schema import Attribute


class Source:
    """Where images come from.

    Args:
        name: what it is called.
        count: how many there are.
    """

    def __init__(self, name: str = "avatars", count: int = 3) -> None:
        self.attribute = Attribute(name)
        self.count = count


def draw(source: Source, out: Path, seed: int = 0, weights: list[float] | None = None) -> None:
    """Draws images.

    They are drawn from the source.

    Args:
        source: where they come from.
        out: directory of the images.
        seed: of the noise.
        weights: one a term.
    """
    out.mkdir(parents=True, exist_ok=True)
    print("drew", source.count, source.attribute.name, seed, weights)


def show(directory: str, title: str = "report") -> None:
    """Shows a directory.

    Args:
        directory: what to show.
        title: of the page.
    """
    print("shown", directory, title)


def refuse(name: str = "no identifier") -> None:
    """Is refused by lcg."""
    Attribute(name)


def bug() -> None:
    """Fails in lcg, where nothing was refused."""
    Attribute(3)


def foreign() -> None:
    """Fails outside of lcg."""
    raise ValueError("not from lcg")


def verdict(passed: bool = True) -> int:
    """Passes or fails."""
    return 0 if passed else 1


def missing(path: str) -> None:
    """Opens a file."""
    Path(path).read_text()


def interrupted() -> None:
    """Is stopped by its user."""
    raise KeyboardInterrupt
'''

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `lcg ARGUMENTS` in this process and in a directory of its own; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "keep_memory", lambda: None)  # for good, and other tests measure memory

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["lcg", *arguments])
        try:
            return cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)

    return run


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The functions of JOBS_MODULE, as commands."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "jobs_of_the_tests.py").write_text(JOBS_MODULE)
    monkeypatch.syspath_prepend(folder)
    names = ("draw", "show", "refuse", "bug", "foreign", "verdict", "missing", "interrupted")
    table = {name: cli.Job(name, f"jobs_of_the_tests:{name}", positional=name in ("show", "missing")) for name in names}
    monkeypatch.setattr(cli, "JOBS", table)
    yield
    sys.modules.pop("jobs_of_the_tests", None)


# --- lcg itself ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help_has_a_line_for_every_command(run: Run, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert run(flag) == 0
    lines = capsys.readouterr().out.splitlines()
    for command in COMMANDS:
        assert sum(line.split()[:1] == [command] for line in lines) == 1
    assert max(map(len, lines)) <= 120


def test_no_command_shows_the_help_and_fails(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(run: Run, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert run(flag) == 0
    assert capsys.readouterr().out == f"lcg {__version__}\n"


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("fti", "fit"), ("genarate", "generate"), ("editt", "edit"), ("Report", "report")]
)
def test_unknown_command_suggests_the_nearest(
    run: Run, capsys: pytest.CaptureFixture[str], wrong: str, nearest: str
) -> None:
    assert run(wrong) == 2
    message = capsys.readouterr().err
    assert f"lcg: unknown command '{wrong}'; did you mean '{nearest}'" in message
    assert "Traceback" not in message


def test_options_before_the_command_are_explained(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--config", "x.yaml", "fit") == 2
    assert "expected a command before its options, got '--config'" in capsys.readouterr().err


def test_python_m_lcg_is_lcg() -> None:
    done = subprocess.run([sys.executable, "-m", "lcg", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"lcg {__version__}\n"


@pytest.mark.parametrize("command", (*cli.TRAINER_COMMANDS, *cli.JOBS))
def test_every_command_has_help(run: Run, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(*command.split(), "--help") == 0
    shown = capsys.readouterr().out
    assert "--config" in shown and "--print_config" in shown and f"lcg {command}" in shown.replace("[options] ", "")


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_later_configs_and_overrides_win(
    jobs: None, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = {"class_path": "jobs_of_the_tests.Source", "init_args": {"name": "faces", "count": 5}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"source": source, "seed": 1, "out": "drawn"}))
    (tmp_path / "b.yaml").write_text("seed: 2\nweights: [1.0, 2.5]\n")
    assert run("draw", "--config", "a.yaml", "--config", "b.yaml", "--source.count", "7") == 0
    assert capsys.readouterr().out == "drew 7 faces 2 [1.0, 2.5]\n"


def test_a_job_leaves_the_config_that_repeats_it(
    jobs: None, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = ("draw", "--source", "jobs_of_the_tests.Source", "--source.count", "4", "--seed", "3", "--out", "drawn")
    assert run(*first) == 0
    assert run("draw", "--config", "drawn/config.yaml") == 0  # ... and the second run overwrites it
    one, two = capsys.readouterr().out.splitlines()
    assert one == two == "drew 4 avatars 3 None"
    assert yaml.safe_load((tmp_path / "drawn" / "config.yaml").read_text())["seed"] == 3


def test_positional_argument_of_a_job(jobs: None, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "runs/demo", "--title", "demo") == 0
    assert capsys.readouterr().out == "shown runs/demo demo\n"


def test_help_of_a_job_is_its_docstring(jobs: None, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("draw", "--help") == 0
    shown = capsys.readouterr().out
    for text in ("usage: lcg draw", "They are drawn from the source.", "directory of the images", "of the noise"):
        assert text in shown
    assert "Args:" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("draw", "--sede", "1"), "--sede"),
        (("draw", "--seed", "many"), "seed"),
        (("draw", "--config", "nowhere.yaml"), "nowhere.yaml"),
        (("draw",), "required"),
        (("show",), "directory"),
    ],
)
def test_wrong_options_of_a_job_are_named(
    jobs: None, run: Run, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run(*arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown


# --- errors ----------------------------------------------------------------------------------------------------------


def test_what_lcg_refuses_is_one_message(jobs: None, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("refuse") == 2
    shown = capsys.readouterr().err
    assert shown == (
        "lcg refuse: `name` of an attribute must be an identifier such as 'long_hair', got 'no identifier'; "
        "rename the column\n"
    )


def test_constructors_of_the_config_are_refused_the_same_way(
    jobs: None, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ("--source", "jobs_of_the_tests.Source", "--source.name", "no identifier")
    assert run("draw", *source, "--out", "drawn") == 2
    assert capsys.readouterr().err.startswith("lcg draw: `name` of an attribute must be an identifier")


def test_a_missing_file_is_named(jobs: None, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("missing", "nowhere/labels.csv") == 2
    assert capsys.readouterr().err == "lcg missing: nowhere/labels.csv: No such file or directory\n"


def test_a_job_may_say_that_it_failed(jobs: None, run: Run) -> None:
    assert run("verdict") == 0
    assert run("verdict", "--passed", "false") == 1


def test_debug_shows_the_traceback(jobs: None, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCG_DEBUG", "1")
    with pytest.raises(ValueError, match="must be an identifier"):
        run("refuse")


def test_bugs_keep_their_traceback(jobs: None, run: Run) -> None:
    with pytest.raises(AttributeError, match="isidentifier"):
        run("bug")
    with pytest.raises(ValueError, match="not from lcg"):
        run("foreign")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("raise TypeError('refused')", True),
        ("with open(__file__): raise ValueError('refused in a block that closes')", True),
        ("None + 1", False),
        ("int('three')", False),
        ("raise KeyError('not a message')", False),
    ],
)
def test_only_a_raise_statement_in_lcg_is_a_refusal(line: str, expected: bool) -> None:
    code = compile(line, cli.__file__, "exec")  # a line that counts as one of lcg's
    with pytest.raises(Exception) as caught:
        exec(code, {"__file__": __file__})
    assert cli.is_users(caught.value) is expected


def test_system_errors_without_a_file_keep_their_message() -> None:
    assert cli.describe(FileNotFoundError("no store at runs/x; make one with `lcg encode`")).startswith("no store at")
    assert cli.describe(PermissionError(13, "Permission denied", "runs/x")) == "runs/x: Permission denied"
    assert cli.describe(ValueError()) == "ValueError"


def test_interruption_exits_130(jobs: None, run: Run) -> None:
    assert run("interrupted") == 130


# --- Lightning's commands --------------------------------------------------------------------------------------------


def quick(*more: str) -> tuple[str, ...]:
    """One batch of Lightning's smallest model, silently."""
    options = ("accelerator=cpu", "max_steps=1", "limit_val_batches=0", "enable_progress_bar=false")
    silent = (*options, "enable_model_summary=false", "enable_checkpointing=false")
    return ("--model", BORING, *(f"--trainer.{option}" for option in silent), *more)


@pytest.mark.filterwarnings("ignore")
def test_fit_saves_the_config_that_repeats_it(run: Run, tmp_path: Path) -> None:
    assert run("fit", *quick("--trainer.logger=false")) == 0
    saved = yaml.safe_load((tmp_path / "runs" / "config.yaml").read_text())
    assert saved["seed_everything"] == 0
    assert run("fit", "--config", "runs/config.yaml") == 0  # ... and overwrites it


def test_fit_without_a_device_is_one_message(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert run("fit", "--model", BORING, "--trainer.accelerator=gpu") == 2
    shown = capsys.readouterr().err
    assert shown.startswith("lcg fit: ") and "Traceback" not in shown


def test_fit_names_wrong_options(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--model", BORING, "--trainer.max_epoxs", "3") == 2
    assert "max_epoxs" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_interrupted_training_exits_130(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "callbacks_of_the_tests.py").write_text(
        "from pytorch_lightning import Callback\n\n\nclass Stop(Callback):\n"
        "    def on_train_start(self, trainer, pl_module):\n        raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(signal.SIGINT)  # Lightning ignores further interruptions while it shuts down
    try:
        assert run("fit", *quick("--trainer.logger=false", "--trainer.callbacks=callbacks_of_the_tests.Stop")) == 130
    finally:
        signal.signal(signal.SIGINT, before)
        sys.modules.pop("callbacks_of_the_tests", None)
