"""The tutorials: notebooks that were run in order, without an error, and that still run."""

import ast
import re
import sys
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import matplotlib
import nbformat
import pytest

import lcg
from lcg import pipeline as pipelines

FOLDER = Path(__file__).parents[1] / "experiments" / "16_tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


def cells(path: Path, kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_the_readme_lists_every_tutorial() -> None:
    listed = re.findall(r"\]\((\w+)\.ipynb\)", (FOLDER / "README.md").read_text())
    assert listed == NAMES and len(NAMES) == 7


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_tutorials_are_whole(path: Path) -> None:
    """Valid, executed from the first cell to the last, small, and the same on every machine."""
    nbformat.validate(nbformat.read(path, as_version=4))
    code, text = cells(path, "code"), path.read_text()
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert any("image/png" in str(output.get("data", "")) for output in outputs)
    assert path.stat().st_size <= 400_000
    for machine in ("/root", "/home", "/work", "/tmp", "Traceback", "it/s]"):
        assert machine not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_tutorials_say_what_to_read_next(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source.startswith("# ") and "**Next:**" in notebook.cells[-1].source
    for target in re.findall(r"\]\(([^)]+)\)", "\n".join(cell.source for cell in cells(path, "markdown"))):
        assert (FOLDER / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_tutorials_run(path: Path) -> None:
    spec = spec_from_file_location("run_tutorials", FOLDER / "run.py")
    assert spec is not None and spec.loader is not None
    run = module_from_spec(spec)
    spec.loader.exec_module(run)
    fresh = run.execute(path)
    assert len(fresh.cells) == len(nbformat.read(path, as_version=4).cells)


@pytest.mark.parametrize("path", NOTEBOOKS[:3], ids=NAMES[:3])
def test_the_first_tutorials_run_here(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell by cell, without a kernel and in few steps; what a cell ends with shows itself."""
    monkeypatch.chdir(tmp_path)
    brief = partial(pipelines.load, sampling=lcg.Sampling(steps=8), editing=lcg.Editing(steps=4))
    monkeypatch.setattr(pipelines, "load", brief)
    monkeypatch.setattr(sys, "displayhook", shown := Shown())
    matplotlib.use("Agg")
    names: dict[str, object] = {"display": shown, "__name__": "__main__"}
    for cell in cells(path, "code"):
        for statement in ast.parse(cell.source).body:
            mode = "single" if isinstance(statement, ast.Expr) else "exec"
            tree = ast.Interactive([statement]) if mode == "single" else ast.Module([statement], [])
            exec(compile(tree, path.name, mode), names)
    assert shown.pages >= 4
    assert not list(tmp_path.iterdir())  # nothing is left behind


class Shown:
    """Stands for a notebook's display."""

    def __init__(self) -> None:
        self.pages = 0

    def __call__(self, value: object) -> None:
        if hasattr(value, "_repr_html_"):
            self.pages += "<" in value._repr_html_()
