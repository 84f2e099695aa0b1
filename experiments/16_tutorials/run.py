"""Executes the tutorials in place: `python experiments/16_tutorials/run.py [NAME ...]`, or `make tutorials`.

Outputs are stored with the notebooks, so that they can be read without being run. What would differ from run to run and
from machine to machine (times of execution, versions of the kernel) is left out.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs, run in an empty folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    quiet = os.environ | {"PYTHONWARNINGS": "ignore"}  # of packages that a machine has or lacks
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources, record_timing=False)
        client.execute(env=quiet)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main(names: list[str]) -> None:
    """Executes the named tutorials, or all of them."""
    for path in sorted(HERE.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        started = time.perf_counter()
        nbformat.write(execute(path), path)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
