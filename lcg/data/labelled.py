"""The rows of a table that names images: files, labels, and where each row stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcg.data.tables import Table, columns_of, labels_of, scan
from lcg.schema import Schema


@dataclass(frozen=True)
class Named:
    """What a table says of images.

    Attributes:
        files: names relative to the folder of the images, distinct.
        labels: (N, A) float32, NaN where missing.
        schema: the columns of the labels.
        lines: (N,) where each row stands.
        table: the table.
    """

    files: list[str]
    labels: NDArray[np.float32]
    schema: Schema
    lines: NDArray[np.int64]
    table: Table

    def place(self, i: int) -> str:
        """How a message begins that speaks of row i."""
        return f"{self.table.where(int(self.lines[i]))}: "


def named(
    table: Table,
    root: Path,
    schema: Schema | None = None,
    column: str = "file",
    chosen: Callable[[str], bool] | None = None,
    prefix: str = "",
    ignore: Collection[str] = (),
) -> Named:
    """Reads a table of images.

    Args:
        table: the table.
        root: the folder of the images.
        schema: the attributes to read, each a column; inferred from all columns when None.
        column: the column of the names.
        chosen: takes a name as the table has it; whether its row is wanted. None for all.
        prefix: put before every name.
        ignore: further columns that are no attributes.

    Raises:
        ValueError: the table lacks a column, is empty, repeats a file, reaches outside the folder, or has a cell that
            is no label of its attribute; the message names the line.
    """
    if column not in table.names:
        only = table.names[0] if len(table.names) == 1 else ""
        advice = next((f"; separate cells by commas, not by {sign!r}" for sign in ";\t|" if sign in only), "")
        raise ValueError(
            f"{table.path}: the first line must name the columns, one of them `{column}`; got {list(table.names)}"
            f"{advice}"
        )
    schema, count = scan(table, schema, ignore=(column, *ignore))
    if count == 0:
        raise ValueError(f"{table.path} has no rows; add one per image")
    files: list[str] = []
    labels, lines, first_line = [], [], dict[str, int]()
    for block in table.blocks({column, *columns_of(schema, table)}):
        names = block.columns[column]
        wanted = [i for i, name in enumerate(names) if chosen is None or chosen(name)]
        for i in wanted:
            _check(names[i], column, root, table, block.lines[i], first_line)
        files += [prefix + names[i] for i in wanted]
        labels.append(labels_of(block, schema, table)[wanted])
        lines.append(np.asarray(block.lines, dtype=np.int64)[wanted])
    return Named(files, np.concatenate(labels), schema, np.concatenate(lines), table)


def _check(name: str, column: str, root: Path, table: Table, line: int, first_line: dict[str, int]) -> None:
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{table.where(line)}: `{column}` must be a path below {root}, got {name!r}")
    if name in first_line:
        raise ValueError(
            f"{table.where(line)}: {name!r} is on {table.unit} {first_line[name]} already; keep one of the two"
        )
    first_line[name] = line


def labelled_beside(table: Path) -> Path:
    """The file beside a table that says which labellers its labels are from."""
    return table.with_name(f"{table.name}.labelled.json")


def read_labelled(table: Path, schema: Schema) -> list[dict[str, Any]]:
    """The labellers that a table's labels are from (`lcg.labels`), with the attributes of the schema that each gave.

    Raises:
        ValueError: the file beside the table does not say it.
    """
    path = labelled_beside(table)
    if not path.is_file():
        return []
    try:
        told = json.loads(path.read_bytes())
        entries = [{**entry, "attributes": [name for name in entry["attributes"] if name in schema]} for entry in told]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} must say which labellers the labels of {table.name} are from, as `lcg label images` writes it; "
            "remove it if people have labelled the images"
        ) from error
    return [entry for entry in entries if entry["attributes"]]


def sha256_of_table(path: Path, part: str = "") -> str:
    """Names what a table says of a part of its images, or of all; two parts of one table are different images."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if part:
        digest.update(f"\npart {part}".encode())
    return digest.hexdigest()
