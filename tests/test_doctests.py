"""The examples in docstrings run, and give what they say."""

import doctest
import importlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lcg

ROOT = Path(lcg.__file__).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = sorted(
    ".".join(("lcg", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def pipeline() -> lcg.Pipeline:
    """What examples call `pipeline`, as long as they load none themselves."""
    return lcg.load("avatars", sampling=lcg.Sampling(steps=20), editing=lcg.Editing(steps=10))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that an example writes are gone afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str, pipeline: lcg.Pipeline) -> None:
    module = importlib.import_module(name)
    given = {"np": np, "torch": torch, "Image": Image, "lcg": lcg, "pipeline": pipeline}
    result = doctest.testmod(module, extraglobs=given, optionflags=FLAGS)
    assert result.attempted and not result.failed


def test_the_public_interface_has_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) >= 25
    names = {test.name for test in found}
    assert {
        "lcg",
        "lcg.pipeline.pipeline.Pipeline.generate",
        "lcg.results.edited.Edits",
        "lcg.pipeline.pipeline.load",
    } <= names
