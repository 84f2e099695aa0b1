"""The whole job on data sets that take a second, and what it compares."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lcg.benchmarks.encoding import measures
from lcg.benchmarks.encoding.__main__ import main
from lcg.benchmarks.encoding.job import encoding_job
from lcg.benchmarks.encoding.measures import ENCODERS, KINDS, Convolutions, Plan, draw, job, source_of

TINY = Plan(images=32, slow=16, rounds=1, batch=8, threads=1)


def test_files_and_memory_hold_the_same_images(tmp_path: Path) -> None:
    assert set(draw(tmp_path, 12, 1)["kilobytes"]) == set(KINDS)
    memory, png = (source_of(tmp_path, place, 10, TINY) for place in ("memory", "png"))
    for images, labels in zip(memory.chunk(2, 10), png.chunk(2, 10), strict=True):
        assert np.array_equal(images, labels)
    jpg = source_of(tmp_path, "jpg", 10, TINY).chunk(0, 10)[0].astype(int)
    assert np.abs(jpg - memory.chunk(0, 10)[0]).mean() < 8
    assert np.array_equal(memory.chunk(12, 14)[0], memory.chunk(0, 2)[0])  # a longer one begins anew


def test_the_job_is_what_is_measured(tmp_path: Path) -> None:
    draw(tmp_path, 12, 1)
    before = torch.get_num_threads()
    try:
        record = job(tmp_path, "embedded", "png", 12, TINY)
    finally:
        torch.set_num_threads(before)
    assert record["images"] == pytest.approx(12 / record["seconds"]) and record["cpu"] > 0
    assert not list(tmp_path.glob("*/store"))


def test_the_larger_encoder_gives_latents_of_its_shape() -> None:
    assert Convolutions().encode(torch.zeros(2, 3, 64, 64)).shape == (2, 64)
    with pytest.raises(NotImplementedError, match="is for measuring the encode job"):
        Convolutions().decode(torch.zeros(2, 64))


@pytest.mark.slow
def test_the_job_leaves_its_figures_and_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert encoding_job(str(tmp_path / "out"), plan=TINY) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["encoding.json", "encoding.md"]
    record = json.loads((tmp_path / "out" / "encoding.json").read_text())
    assert set(record["encoders"]) == set(ENCODERS) and set(record["files"]) == set(KINDS)
    for told in record["encoders"].values():
        assert told["rounds"]["alone"]["share_of_images"]["median"] == 1
        assert all(found["images"]["median"] > 0 for found in told["rounds"].values())
    assert "## The embedded encoder, 32 images" in capsys.readouterr().out


def test_wrong_places_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="`out` must be a folder, got the file"):
        encoding_job(str(tmp_path / "file"))
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RuntimeError, match="run it on Linux"):
        encoding_job(str(tmp_path / "out"))


def test_the_command_takes_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, bool]] = []
    monkeypatch.setattr("lcg.benchmarks.encoding.__main__.encoding_job", lambda *a: called.append(a) or 0)
    assert main(["--out", str(tmp_path), "--quick"]) == 0 and called == [(str(tmp_path), True)]
    assert Plan().images == 100_000 and measures.SIDE == 64
