"""Tables of cells as csv files: their lines and numbers, and what is said of those that are malformed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


def read_lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[dict[str, str], str]]:
    """The lines of a csv file, blank ones left out.

    Args:
        path: of the file.
        columns: that it must have; it may have others.

    Yields:
        The cells by column, stripped, and where they stand, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or a line has more or fewer cells than there are columns.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run `lcg bench` first, and give its directory to `lcg report`")
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        missing = [name for name in columns if name not in header]
        if missing:
            raise ValueError(
                f"{path}: expected the columns {','.join(columns)}, got {','.join(header) or 'an empty file'}; "
                f"missing: {', '.join(missing)}"
            )
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"{where}: expected {len(header)} cells, got {len(cells)}: {cells}; quote cells with commas"
                )
            yield dict(zip(header, (cell.strip() for cell in cells), strict=True)), where


def number(cells: Mapping[str, str], name: str, where: str) -> float:
    """A finite number, or ValueError."""
    try:
        value = float(cells[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(
            f"{where}: `{name}` must be a finite number, got {cells[name]!r}; leave out what cannot be measured"
        )
    return value


def whole(cells: Mapping[str, str], name: str, where: str) -> int:
    """A whole number, or ValueError."""
    value = number(cells, name, where)
    if not value.is_integer():
        raise ValueError(f"{where}: `{name}` must be a whole number or empty, got {cells[name]!r}")
    return int(value)
