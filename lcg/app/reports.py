"""Reports of past benchmarks, as `lcg report` writes them beside the benchmark's folder.

    RUNS/.../report.html
    RUNS/.../bench/{provenance.json, results.csv}

A browser names a report by its number in the list and never by a path. Only pages that `lcg report` has written are
listed; they are shown in a sandboxed frame in which no script runs and nothing is loaded.
"""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

NAME = "report.html"
DEPTH = 4
"""Folders below which nothing is looked for."""
MOST = 100
"""Reports that are listed."""
LARGEST = 64 * 2**20
"""Bytes of a page; the largest of ours, 14 methods with all their pictures, have 10 million."""
HEAD = 4096
"""Bytes within which a page says what wrote it."""
TABLE = 16 * 2**20
"""Bytes of a benchmark's tables."""
OURS = re.compile(r'<meta name="generator" content="lcg [^"]{1,40}">')
TITLE = re.compile(r"<title>([^<]{1,300})</title>")


@dataclass(frozen=True)
class ReportEntry:
    """A report in the list.

    Attributes:
        number: what it is asked for by.
        title: of the benchmark.
        created: when the benchmark was run or, if nothing says so, the page was written.
        methods: that it compares; none where the benchmark's folder is gone.
        folder: where it lies, below the folder of runs.
        bytes: of the page.
    """

    number: int
    title: str
    created: datetime
    methods: tuple[str, ...]
    folder: str
    bytes: int


class Reports:
    """The reports below a folder, the newest first.

    A report keeps its number as long as the process lives, also when others come or go.

    Args:
        runs: the folder; it need not exist yet.

    Raises:
        NotADirectoryError: it is a file.
    """

    def __init__(self, runs: str | os.PathLike[str] = "runs") -> None:
        self.runs = Path(runs)
        if self.runs.exists() and not self.runs.is_dir():
            raise NotADirectoryError(f"`runs` must be a folder of runs, got the file {self.runs}; give its folder")
        self._paths: list[Path] = []

    def entries(self) -> list[ReportEntry]:
        """What is there now."""
        found = [entry for entry in map(self._entry, self._found()) if entry is not None]
        return sorted(found, key=lambda entry: entry.created, reverse=True)

    def page(self, number: int) -> bytes:
        """A report, as HTML in UTF-8.

        Raises:
            KeyError: no report has this number, or it is gone, or no longer what it was.
        """
        if not 0 <= number < len(self._paths) or not _is_ours(self._paths[number]):
            raise KeyError(f"no report {number}")
        return self._paths[number].read_bytes()

    def _found(self) -> Iterator[Path]:
        """Paths of pages that `lcg report` wrote; links are not followed."""
        listed = 0
        for folder, folders, files in os.walk(self.runs):
            parts = Path(folder).relative_to(self.runs).parts
            folders[:] = sorted(name for name in folders if not name.startswith(".") and len(parts) < DEPTH)
            if NAME in files and listed < MOST and _is_ours(Path(folder, NAME)):
                listed += 1
                yield Path(folder, NAME)

    def _entry(self, path: Path) -> ReportEntry | None:
        try:
            size, written = path.stat().st_size, path.stat().st_mtime
            title = TITLE.search(_head(path))
        except OSError:  # it went away in between
            return None
        if path not in self._paths:
            self._paths.append(path)
        told = html.unescape(title[1]).strip() if title else path.parent.name
        created = datetime.fromtimestamp(written).astimezone()
        methods: tuple[str, ...] = ()
        bench = _bench_of(path, told)
        if bench is not None:
            created, methods = bench[0] or created, bench[1]
        folder = path.parent.relative_to(self.runs).as_posix()
        return ReportEntry(self._paths.index(path), told, created, methods, folder, size)


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(HEAD).decode("utf-8", errors="replace")


def _is_ours(path: Path) -> bool:
    """Whether a file is a page of `lcg report`, of a size to be shown."""
    try:
        fits = path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST
        return fits and OURS.search(_head(path)) is not None
    except OSError:
        return False


def _bench_of(path: Path, title: str) -> tuple[datetime | None, tuple[str, ...]] | None:
    """When the benchmark of a report was run, and its methods, from the folder beside the report with its title."""
    for folder in sorted(path.parent.iterdir()):
        try:
            provenance = json.loads(_small(folder / "provenance.json"))
            if not isinstance(provenance, dict) or provenance.get("title") != title:
                continue
            rows = csv.DictReader(io.StringIO(_small(folder / "results.csv")))
            methods = tuple(dict.fromkeys(row["method"] for row in rows if row.get("method")))
        except (OSError, ValueError, KeyError, RecursionError, csv.Error):
            continue
        return _date(provenance.get("created")), methods
    return None


def _small(path: Path) -> str:
    if path.stat().st_size > TABLE:
        raise ValueError(f"{path} is no table of a benchmark's results")
    return path.read_text(encoding="utf-8")


def _date(created: object) -> datetime | None:
    try:
        return datetime.strptime(str(created), "%Y-%m-%d %H:%M:%S %z")
    except ValueError:
        return None
