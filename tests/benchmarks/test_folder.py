"""Files that are found again by everything they depend on, and are there whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from lcg.benchmarks.folder import (
    Folder,
    read_json,
    read_tensors,
    write_json,
    write_picture,
    write_rows,
    write_tensors,
)

SETTINGS = {"always": {"networks": "abc"}, "judge": "j", "sampling": {"steps": 5}}


def test_a_name_is_what_it_is_and_what_it_depends_on(tmp_path: Path) -> None:
    folder = Folder(tmp_path, SETTINGS)
    path = folder.path(["made", "lcg", 0], ("sampling",), "safetensors")
    assert path.parent == tmp_path / "cells" and path.suffix == ".safetensors"
    assert path == Folder(tmp_path, dict(reversed(SETTINGS.items()))).path(
        ["made", "lcg", 0], ("sampling",), "safetensors"
    )

    def other(**changed: object) -> Path:
        return Folder(tmp_path, SETTINGS | changed).path(["made", "lcg", 0], ("sampling",), "safetensors")

    assert other(judge="k") == path  # on which it does not depend
    assert other(sampling={"steps": 6}) != path != other(always={"networks": "abd"})
    assert folder.path(["made", "lcg", 1], ("sampling",), "safetensors") != path
    assert folder.path(["made", "lcg", 0], (), "safetensors") != path


def test_an_unknown_setting_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="editing"):
        Folder(tmp_path, SETTINGS).path(["made"], ("editing",))


def test_its_folders_are_made_once_and_twice(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a" / "b", SETTINGS)
    folder.prepare()
    folder.prepare()
    assert sorted(path.name for path in folder.root.iterdir()) == ["cells", "pictures"]


def test_several_benchmarks_may_share_what_they_make_but_not_what_they_show(tmp_path: Path) -> None:
    folders = [Folder(tmp_path / name, SETTINGS, tmp_path / "shared") for name in ("a", "b")]
    for folder in folders:
        folder.prepare()
    paths = [folder.path(["made"], ()) for folder in folders]
    assert paths[0] == paths[1] and paths[0].parent == tmp_path / "shared"
    records = [folder.own(["picture"], ()) for folder in folders]
    assert records[0].name == records[1].name and [path.parents[1].name for path in records] == ["a", "b"]


def test_tensors_come_back_with_what_is_said_of_them(tmp_path: Path) -> None:
    tensors = {"z_0": torch.randn(2, 3).T, "holds": torch.tensor([True, False]), "none": torch.zeros(0)}
    about = {"cost": None, "said": [["ess", 0.5, float("nan")]]}
    write_tensors(tmp_path / "x.safetensors", tensors, about)
    found, told = read_tensors(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in found)
    assert told["cost"] is None and told["said"][0][:2] == ["ess", 0.5]
    write_tensors(tmp_path / "empty.safetensors", {})
    assert read_tensors(tmp_path / "empty.safetensors") == ({}, None)


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tensors(tmp_path / name, {"z": torch.arange(4.0), "y": torch.ones(2)}, [1])
        write_json(tmp_path / f"{name}.json", {"rows": [1.5, None]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"rows": [1.5, None]}


def test_a_writer_that_is_stopped_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_json(path, "old")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_json(path, "new")
    assert read_json(path) == "old" and (tmp_path / ".x.json.tmp").is_file()
    write_json(path, "newer")
    assert read_json(path) == "newer" and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_rows_are_a_tidy_table(tmp_path: Path) -> None:
    rows = [("lcg", "edit/+hat", "kept", 1 / 3, None, 6, 0), ("lcg", "generate/a,b", "sharp", 0.5, 0.1, 8, 1)]
    write_rows(tmp_path / "results.csv", rows)
    with (tmp_path / "results.csv").open() as file:
        header, *lines = csv.reader(file)
    assert header == ["method", "task", "metric", "value", "stderr", "n", "seed"]
    assert lines[0] == ["lcg", "edit/+hat", "kept", repr(1 / 3), "", "6", "0"] and lines[1][1] == "generate/a,b"


def test_a_picture_lies_beside_its_entry(tmp_path: Path) -> None:
    folder = Folder(tmp_path, SETTINGS)
    folder.prepare()
    record, about = folder.path(["picture"], ()), {"kind": "edit", "method": "lcg", "task": "edit/+hat"}
    write_picture(record, tmp_path, about, lambda: (Image.new("RGB", (4, 2)), "A title", "A caption."))
    entry = json.loads(record.read_text())
    assert entry == {
        "file": f"pictures/edit-lcg-{record.stem}.png",
        **about,
        "title": "A title",
        "caption": "A caption.",
    }
    assert Image.open(tmp_path / entry["file"]).size == (4, 2)
