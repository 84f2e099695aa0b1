"""The pictures of a benchmark: the first rows, drawn once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcg import cli
from lcg.benchmarks.exhibits import Exhibits

TASKS = ["unconditional", "generate/hat & ~beard", "edit/+beard +glasses"]


@pytest.fixture(scope="module")
def drawn(bench_words: Callable, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exhibits]:
    """A benchmark of two seeds with its images saved, and what drew its pictures."""
    out, made = tmp_path_factory.mktemp("drawn") / "bench", []
    begin = Exhibits.__init__

    def watched(self, benchmark, plan):
        begin(self, benchmark, plan)
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Exhibits, "__init__", watched)
        assert cli.main(bench_words(out, TASKS, "--seeds", "[4, 1]", "--save_images", "true")) == 0
    return out, made[-1]


def test_every_kind_of_picture_is_there_once(drawn: tuple[Path, Exhibits]) -> None:
    out, exhibits = drawn
    entries = json.loads((out / "pictures.json").read_text())
    assert entries == exhibits.entries()
    assert [(e["kind"], e["method"], e["task"]) for e in entries] == [
        ("unconditional", "prior", "unconditional"),
        ("formula", "lcg", "generate/hat & ~beard"),
        ("formula", "arithmetic", "generate/hat & ~beard"),
        ("edit", "lcg", "edit/+beard+glasses"),
        ("edit", "arithmetic", "edit/+beard+glasses"),
        ("reconstruction", "generator", "reconstruction"),
        ("comparison", "all", "edit/+beard+glasses"),
    ]
    assert {path.name for path in (out / "pictures").iterdir()} == {Path(entry["file"]).name for entry in entries}
    for entry in entries:
        with Image.open(out / entry["file"]) as image:
            assert image.format == "PNG" and min(image.size) >= 64
        assert (entry["title"] and "not chosen" in entry["caption"]) or entry["kind"] == "reconstruction"
    tuned = [entry for entry in entries if entry["method"] == "arithmetic"]
    assert all("Strength tuned on a validation split: " in entry["caption"] for entry in tuned)


def test_pictures_show_the_first_rows_of_the_first_seed(drawn: tuple[Path, Exhibits]) -> None:
    out, exhibits = drawn
    assert {cell.seed for cell in exhibits.cells} == {4}
    of = {(cell.method, cell.task.name): cell for cell in exhibits.cells}
    for key, name in ((("lcg", "generate/hat & ~beard"), "generate_hat_&_~beard"), (("prior", "unconditional"), "")):
        folder = out / "samples" / key[0] / (name or key[1]) / "4"
        files = sorted(folder.iterdir())
        assert [path.name for path in files] == [f"{row:06d}.png" for row in range(of[key].count)]
        saved = np.stack([np.asarray(Image.open(path)) for path in files[:10]])
        assert np.array_equal(exhibits.first(of[key], 10), saved)  # over the end of a chunk of 8
        assert exhibits.first(of[key], 100).shape == (of[key].count, 64, 64, 3)


def test_every_step_of_an_edit_and_every_seed_is_saved(drawn: tuple[Path, Exhibits]) -> None:
    out, exhibits = drawn
    (cell,) = [c for c in exhibits.cells if (c.method, c.task.name) == ("lcg", "edit/+beard+glasses")]
    for frame, name in enumerate(("edit_+beard", "edit_+beard+glasses")):
        for seed in ("1", "4"):
            assert len(list((out / "samples" / "lcg" / name / seed).iterdir())) == 6
        saved = np.asarray(Image.open(out / "samples" / "lcg" / name / "4" / "000005.png"))
        assert np.array_equal(exhibits.first(cell, 6, frame)[5], saved)
