"""What is known of the images of a cell, chunk by chunk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lcg.benchmarks.cells import Cell, Made
from lcg.benchmarks.folder import write_tensors
from lcg.benchmarks.tasks import Edit, parse_task
from lcg.benchmarks.view import View, frames_of
from lcg.data.avatars import SCHEMA
from lcg.guidance import parse


def test_a_sequence_has_a_frame_per_step_and_a_curve_one_per_strength() -> None:
    steps = frames_of(parse_task("edit/+beard -hat", SCHEMA), ())
    assert [frame.name for frame in steps] == ["edit/+beard", "edit/+beard-hat"]
    assert all(isinstance(frame.task, Edit) and not frame.strength for frame in steps)
    for text in ("tradeoff/+beard -hat", "scale/hat"):
        task = parse_task(text, SCHEMA)
        curve = frames_of(task, (0.0, 0.5, 32.0))
        assert [frame.strength for frame in curve] == ["0", "0.5", "32"]
        assert {frame.name for frame in curve} == {task.name}
    for text in ("unconditional", "generate/hat"):
        (frame,) = frames_of(parse_task(text, SCHEMA), ())
        assert (frame.name, frame.strength) == (text, "")


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("unconditional", None),
        ("generate/hat & beard", "hat & beard"),
        ("scale/hat | beard", "hat | beard"),
        ("edit/+hat", "hat"),
        ("edit/+hat -beard", "hat & ~beard"),
        ("tradeoff/+hat -beard", "hat & ~beard"),
    ],
)
def test_what_was_asked_for_is_a_formula(text: str, formula: str | None) -> None:
    frame = frames_of(parse_task(text, SCHEMA), (1.0,))[-1]
    asked = View(frame, 0, (), None).formula
    assert (asked is None) == (formula is None)
    if formula is not None:
        labels = torch.randint(0, 2, (64, len(SCHEMA)), generator=torch.Generator().manual_seed(0)).float()
        assert torch.equal(asked.holds(labels), parse(formula, SCHEMA).holds(labels))


def test_the_chunks_of_a_frame_are_read_in_order(tmp_path: Path) -> None:
    labels = torch.arange(2 * 5 * 3.0).reshape(2, 5, 3)
    paths = tmp_path / "a", tmp_path / "b"
    for path, rows in zip(paths, (slice(0, 4), slice(4, 5)), strict=True):
        entry = {"labels": labels[:, rows], "features": -labels[:, rows], "near": (labels[:, rows, 0] % 2 == 0).float()}
        write_tensors(path, entry)
    frames = frames_of(parse_task("edit/+hat -beard", SCHEMA), ())
    for number in range(2):
        view = View(frames[number], number, paths, None)
        assert torch.equal(view.labels, labels[number]) and torch.equal(view.features, -labels[number])
        assert len(view) == 5 and torch.equal(view.near, labels[number, :, 0] % 2 == 0)
        assert [len(part) for part in view.each("labels")] == [4, 1]
        assert view.all("psnr") is None and list(view.each("psnr")) == []


@pytest.mark.parametrize(
    ("count", "size", "starts"), [(20, 8, [0, 8, 16]), (8, 8, [0]), (3, 8, [0]), (9, 4, [0, 4, 8])]
)
def test_chunks_hold_every_row_once(count: int, size: int, starts: list[int]) -> None:
    cell = Cell("lcg", parse_task("unconditional", SCHEMA), 0, count, (), lambda rows: Made(torch.zeros(1, len(rows))))
    chunks = cell.chunks(size)
    assert [rows.start for rows in chunks] == starts
    assert [row for rows in chunks for row in rows] == list(range(count))


def test_cells_of_other_strengths_have_other_names() -> None:
    task = parse_task("edit/+hat", SCHEMA)
    cells = [Cell("a", task, 0, 4, (), Made, tuned=tuned) for tuned in ((1.0,), (2.0,))]
    assert cells[0].name != cells[1].name == ["a", "edit/+hat", 0, 4, [], [2.0]]
