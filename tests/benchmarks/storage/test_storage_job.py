"""The whole job on stores that take a second, and what it finds true."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lcg.benchmarks.storage import job, readers
from lcg.benchmarks.storage.__main__ import main
from lcg.benchmarks.storage.job import storage_job
from lcg.benchmarks.storage.measures import build, forget, watched
from lcg.benchmarks.storage.plan import Plan, Size, full, quick

TINY = Plan(Size(3000, 8, 512), Size(2000, 4, 512), batch=64, warm=2, cold=2, rounds=1)


def test_all_readers_give_the_same(tmp_path: Path) -> None:
    build(tmp_path / "s", TINY.read, npy=True)
    rows = np.random.default_rng(0).integers(0, 3000, 100)
    expected = readers.ours(tmp_path / "s")(rows)
    for reader in readers.READERS.values():
        assert (reader(tmp_path / "s")(rows) == expected).all()


def test_growth_is_what_was_taken() -> None:
    with watched() as record:
        taken = np.ones(8_000_000)
    assert 60 < record["growth"] < 90 and record["seconds"] > 0 and len(taken)


def test_forgotten_files_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10_000)
    forget(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"x" * 10_000


@pytest.mark.slow
def test_the_job_leaves_its_figures_and_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert storage_job(str(tmp_path / "out"), plan=TINY) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["storage.json", "storage.md"]
    record = json.loads((tmp_path / "out" / "storage.json").read_text())
    assert set(record["batches"]) == {"warm", "cold"} and set(record["batches"]["cold"]) == set(readers.READERS)
    assert all(found["rows"]["median"] > 0 for found in record["batches"]["warm"].values())
    assert "## 2,000 x 4 in float16" in capsys.readouterr().out


def test_wrong_places_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="`out` must be a folder, got the file"):
        storage_job(str(tmp_path / "file"))
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RuntimeError, match="run it on Linux"):
        storage_job(str(tmp_path / "out"))


def test_readers_that_disagree_stop_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = iter(range(1000))
    found = {"rows": 1.0, "growth": 0.0}
    monkeypatch.setattr(job, "_alone", lambda *_: {**found, "sum": next(sums)})
    with pytest.raises(RuntimeError, match="do not give the same latents"):
        storage_job(str(tmp_path / "out"), plan=TINY)


def test_the_command_takes_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, bool]] = []
    monkeypatch.setattr("lcg.benchmarks.storage.__main__.storage_job", lambda *a: called.append(a) or 0)
    assert main(["--out", str(tmp_path), "--quick"]) == 0 and called == [(str(tmp_path), True)]
    assert quick().read.rows < full().read.rows == 1_000_000 and full().large.rows == 10_000_000
