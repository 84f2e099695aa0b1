"""`lcg new`: what it writes works at once, by its own tests and by the commands of its README."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lcg import cli
from lcg.scaffold.job import TEMPLATES, names, write_scaffold

# As the console script runs it: without the current folder on the path, and without a variable that would add it.
LCG = [sys.executable, "-I", "-c", "import sys; from lcg.cli import main; sys.exit(main())"]
SHORT = {
    "encode": ["--progress", "false"],
    "fit": ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"],
    "generate": ["--sampling.steps=4", "--guidance.attempts=1", "--device=cpu", "--num=2"],
    "edit": ["--editing.steps=4", "--device=cpu"],
}


def run(folder: Path, *words: str) -> str:
    """Output of a command that ends well."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [*LCG, *words[1:]] if words[0] == "lcg" else [sys.executable, *words[1:]]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def commands(readme: str) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


def test_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "my-generator"]) == 0
    folder, told = tmp_path / "my-generator", capsys.readouterr().out
    files = {path.name for path in folder.iterdir()}
    assert len(files) == len(TEMPLATES) and {"my_generator.py", "test_my_generator.py", "README.md"} <= files
    assert all(name in told for name in files) and "cd my-generator && pytest ." in told
    for path in folder.iterdir():
        text = path.read_text()
        assert "{{ " not in text and "TODO" not in text and all(len(line) <= 120 for line in text.splitlines()), path
        if path.suffix == ".py":
            compile(text, path, "exec")
        if path.suffix == ".yaml":
            assert len(yaml.safe_load(text)) > 1


def test_the_configs_are_read_by_their_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every value is checked against the constructors; the adapter is found in the folder."""
    folder = write_scaffold("other_one", tmp_path)
    words = [word for command in commands((folder / "README.md").read_text()) for word in command]
    used = {words[i + 1] for i, word in enumerate(words) if word == "--config"}
    assert used == {path.name for path in folder.glob("*.yaml")}
    shown = yaml.safe_load(run(folder, "lcg", "bench", "--config", "benchmark.yaml", "--print_config"))
    assert shown["generator"]["class_path"] == "other_one.OtherOne" and shown["attributes"] == ["red", "round", "large"]


def test_the_contract_is_kept_and_the_folder_hides_nothing_that_is_installed(tmp_path: Path) -> None:
    folder = write_scaffold("my-generator", tmp_path)
    (folder / "torch.py").write_text("raise SystemExit('hidden')")
    told = run(folder, "lcg", "check-generator", "--generator", "my_generator.MyGenerator")
    assert "0 wrong, 0 warnings" in told


@pytest.mark.slow
def test_its_own_tests_pass_and_so_do_the_commands_of_its_readme(tmp_path: Path) -> None:
    folder = write_scaffold("my-generator", tmp_path)
    path = folder / "example_images.py"
    path.write_text(
        path.read_text()
        .replace("count=2000", "count=64")
        .replace("count=1000", "count=48")
        .replace("count=6400", "count=8")
    )
    told = commands((folder / "README.md").read_text())
    assert [command[:2] for command in told][:3] == [["pytest", "."], ["lcg", "check-generator"], ["python", path.name]]
    for program, *words in told:
        if program == "pytest":
            assert "2 passed" in run(folder, "python", "-m", "pytest", *words)
        elif program == "lcg" and words[0] not in ("bench", "report"):  # a benchmark wants a judge that can tell
            run(folder, program, *words, *SHORT.get(words[0], []))
        elif program == "python":
            run(folder, program, *words)
    for made in ("prior/prior.ckpt", "classifier/classifier.ckpt", "generate/sheet.png", "edit/strip.png"):
        assert (folder / "runs" / made).is_file()


@pytest.mark.parametrize(
    ("name", "module", "class_name"),
    [
        ("my-generator", "my_generator", "MyGenerator"),
        ("stylegan3_t", "stylegan3_t", "Stylegan3T"),
        ("gan", "gan", "Gan"),
    ],
)
def test_names(name: str, module: str, class_name: str) -> None:
    assert names(name) == (module, class_name)


@pytest.mark.parametrize("name", ["My-Generator", "3d", "a b", "../up", "a--b", "", "class", "-x", "ünter", "a/b"])
def test_names_that_are_none_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`name` must be words of lower-case letters .* such as my-generator, got"):
        write_scaffold(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["torch", "lcg", "json", "example-images"])
def test_names_of_modules_that_there_are_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`name` must be new to Python, but .* can be imported already"):
        write_scaffold(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    assert cli.main(["new", "mine"]) == cli.USAGE_ERROR
    assert "lcg new: mine exists already and is left as it is" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["precious.txt"]
