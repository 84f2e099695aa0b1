"""What is listed as a report, and what is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lcg.app import reports as module
from lcg.app.reports import Reports

Write = Callable[..., Path]


def test_a_report_tells_its_title_date_and_methods(report: Write, tmp_path: Path) -> None:
    report(tmp_path / "demo", title="Faces & more")
    (tmp_path / "demo" / "report.html").write_text(
        (tmp_path / "demo" / "report.html").read_text().replace("Faces & more", "Faces &amp; more")
    )
    (entry,) = Reports(tmp_path).entries()
    assert entry.title == "Faces & more" and entry.methods == ("lcg", "arithmetic") and entry.folder == "demo"
    assert entry.created.isoformat() == "2026-11-21T11:32:22+00:00"


def test_the_newest_comes_first_and_numbers_stay(report: Write, tmp_path: Path) -> None:
    report(tmp_path / "b", title="old", created="2026-01-01 00:00:00 +0000")
    reports = Reports(tmp_path)
    (old,) = reports.entries()
    report(tmp_path / "a", title="new", created="2026-02-01 00:00:00 +0000")
    assert [entry.title for entry in reports.entries()] == ["new", "old"]
    assert b"<h1>old</h1>" in reports.page(old.number)
    assert {entry.number for entry in reports.entries()} == {0, 1}


def test_no_folder_and_an_empty_one_have_no_reports(tmp_path: Path) -> None:
    assert Reports(tmp_path / "none").entries() == [] and Reports(tmp_path).entries() == []


def test_without_its_benchmark_a_report_is_listed_without_methods(report: Write, tmp_path: Path) -> None:
    path = report(tmp_path)
    (path.parent / "bench" / "provenance.json").unlink()
    (entry,) = Reports(tmp_path).entries()
    assert entry.title == "A small benchmark" and entry.methods == ()


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, '{"title": 1}', '{"title": "A small benchmark"}'])
def test_a_strange_provenance_is_passed_over(report: Write, tmp_path: Path, content: str) -> None:
    path = report(tmp_path)
    (path.parent / "bench" / "provenance.json").write_text(content)
    (entry,) = Reports(tmp_path).entries()
    assert entry.title == "A small benchmark"


def test_foreign_pages_links_and_huge_files_are_not_listed(
    report: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = report(tmp_path / "ours")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "report.html").write_text("<html><title>A small benchmark</title></html>")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "report.html").symlink_to(path)
    (tmp_path / "folder" / "report.html").mkdir(parents=True)
    assert [entry.folder for entry in Reports(tmp_path).entries()] == ["ours"]
    monkeypatch.setattr(module, "LARGEST", path.stat().st_size - 1)
    assert Reports(tmp_path).entries() == []


def test_too_deep_is_not_looked_for(report: Write, tmp_path: Path) -> None:
    report(tmp_path / "1/2/3/4")
    report(tmp_path / "1/2/3/4/5")
    report(tmp_path / ".hidden")
    assert [entry.folder for entry in Reports(tmp_path).entries()] == ["1/2/3/4"]


def test_a_page_is_asked_for_by_a_number_that_was_listed(report: Write, tmp_path: Path) -> None:
    path = report(tmp_path)
    reports = Reports(tmp_path)
    with pytest.raises(KeyError, match="no report 0"):
        reports.page(0)  # nothing was listed yet
    (entry,) = reports.entries()
    assert reports.page(entry.number) == path.read_bytes()
    for number in (-1, 1, 10**9):
        with pytest.raises(KeyError, match=f"no report {number}"):
            reports.page(number)


def test_what_has_become_of_a_page_in_the_meantime_is_seen(report: Write, tmp_path: Path) -> None:
    path = report(tmp_path / "runs" / "one")
    reports = Reports(tmp_path / "runs")
    (entry,) = reports.entries()
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path.unlink()
    os.symlink(secret, path)
    with pytest.raises(KeyError, match="no report 0"):
        reports.page(entry.number)
    assert reports.entries() == []


def test_a_file_is_no_folder_of_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="`runs` must be a folder of runs, got the file"):
        Reports(tmp_path / "file")
