"""The labels of imported latents: a table in their order or with their numbers, an array beside them, or none.

Everything that can be wrong with them is found before the first latent is stored.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import yaml

from lcg.data.arrays import Rows, open_array
from lcg.data.tables import ROWS_AT_ONCE, Block, Table, columns_of, labels_of, open_table, scan
from lcg.schema import Attribute, Schema

KEYS = ("row", "index")
"""Columns of a table that name the sample that a line is about."""


class Labels(Protocol):
    """The labels of samples that are read from the first to the last."""

    schema: Schema

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Of samples start <= i < stop: (n, A) float32, NaN where missing."""


def read_schema(path: str | os.PathLike[str]) -> Schema:
    """The attributes that a YAML file lists: `- name: hair`, `kind: categorical`, `values: [blond, red]` each.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: it does not list attributes.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no schema at {file}; write a YAML file with a list of attributes")
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    fields = set(Attribute.__dataclass_fields__)
    proper = isinstance(entries, list) and entries
    if not proper or not all(isinstance(e, dict) and "name" in e and set(e) <= fields for e in entries):
        raise ValueError(
            f"{file} must list attributes, each with a name and of fields only {', '.join(sorted(fields))}"
        )
    try:
        return Schema.from_dict(entries)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{file}: {error}") from error


def labels_from(
    latents: Sequence[str | os.PathLike[str]],
    arrays: Rows,
    table: str | os.PathLike[str] | None,
    schema: Schema | None,
    labels: str | None,
) -> Labels:
    """Where the labels of these latents come from; everything is checked now, before any latent is stored."""
    if table is not None and labels is not None:
        raise ValueError("`table` and `labels` cannot both be given; the labels are in one of the two")
    if labels is not None:
        return LabelArrays(Rows([open_array(path, labels) for path in latents]), schema, arrays)
    if table is None:
        if schema is not None:
            raise ValueError("`schema` needs labels that it describes; give `table` or `labels`, or leave it out")
        return NoLabels()
    opened = open_table(table)
    keys = [name for name in KEYS if name in opened.names and (schema is None or name not in schema)]
    if len(keys) > 1:
        raise ValueError(f"{table} has columns `row` and `index`; keep the one that numbers the latents")
    found, count = scan(opened, schema, ignore=("file", *keys))
    if keys:
        return LabelsByNumber(opened, found, keys[0], len(arrays))
    if count != len(arrays):
        raise ValueError(
            f"{table} has {count} rows, and there are {len(arrays)} latents; give a line per latent in their order, or "
            "add a column `row` that numbers them from 0"
        )
    return LabelsInOrder(opened, found)


class NoLabels:
    """Of a store without attributes: a prior needs none."""

    schema = Schema(())

    def rows(self, start: int, stop: int) -> np.ndarray:
        return np.empty((stop - start, 0), np.float32)


class LabelArrays:
    """Labels (N, A) or (N,) in the same files as the latents."""

    def __init__(self, arrays: Rows, schema: Schema | None, latents: Rows) -> None:
        if schema is None:
            raise ValueError("`labels` are numbers without names; say with `schema` which attributes they are")
        if len(arrays) != len(latents):
            raise ValueError(f"there are {len(arrays)} labels and {len(latents)} latents; there must be one for each")
        width = math.prod(arrays.shape) if len(arrays.shape) <= 1 else None
        if width != len(schema):
            raise ValueError(
                f"`labels` must have shape (N, {len(schema)}), a column for each of {', '.join(schema.names)}; "
                f"got (N, {', '.join(map(str, arrays.shape))})"
            )
        self.schema, self._arrays = schema, arrays

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self._arrays.rows(start, stop).reshape(stop - start, len(self.schema)).astype(np.float32)


class LabelsInOrder:
    """A table with a line per latent."""

    def __init__(self, table: Table, schema: Schema) -> None:
        self.schema, self._table = schema, table
        self._blocks: Iterator[Block] | None = None
        self._first, self._labels = 0, np.empty((0, len(schema)), np.float32)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Of samples start <= i < stop; `start` may only go up."""
        self._blocks = self._blocks or self._table.blocks(columns_of(self.schema, self._table))
        while self._first + len(self._labels) < stop:
            block = next(self._blocks)
            kept = self._labels[max(start - self._first, 0) :]
            self._first += len(self._labels) - len(kept)
            self._labels = np.concatenate([kept, labels_of(block, self.schema, self._table)])
        return self._labels[start - self._first : stop - self._first]


class LabelsByNumber:
    """A table whose lines say which latent they are about, in any order; they are gathered in a temporary file.

    Args:
        table: the table.
        schema: its attributes.
        key: the column of numbers.
        count: of latents.

    Raises:
        ValueError: a number is none of a latent, or occurs twice; the message names the line.
    """

    def __init__(self, table: Table, schema: Schema, key: str, count: int) -> None:
        self.schema, self._table, self._key, self._count = schema, table, key, count
        with tempfile.TemporaryFile() as file:  # the map keeps it
            self._labels = np.memmap(file, np.float32, "w+", shape=(count, len(schema)))
        for start in range(0, count, ROWS_AT_ONCE):
            self._labels[start : start + ROWS_AT_ONCE] = np.nan
        seen = np.zeros(count, bool)
        for block in table.blocks((key, *columns_of(schema, table))):
            numbers = self._numbers(block)
            self._refuse_repeated(numbers, seen, block)
            seen[numbers] = True
            self._labels[numbers] = labels_of(block, schema, table)

    def rows(self, start: int, stop: int) -> np.ndarray:
        return np.array(self._labels[start:stop])

    def _numbers(self, block: Block) -> np.ndarray:
        cells = block.columns[self._key]
        for line, cell in zip(block.lines, cells, strict=True):
            if not (cell.isascii() and cell.isdecimal() and len(cell) < 19 and int(cell) < self._count):
                raise ValueError(
                    f"{self._table.where(line)}: `{self._key}` must number a latent, 0 to {self._count - 1}, "
                    f"got {cell!r}"
                )
        return np.array(cells, dtype=np.int64)

    def _refuse_repeated(self, numbers: np.ndarray, seen: np.ndarray, block: Block) -> None:
        again = seen[numbers]
        _, first = np.unique(numbers, return_index=True)
        within = np.ones(len(numbers), bool)
        within[first] = False
        bad = again | within
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"{self._table.where(block.lines[row])}: `{self._key}` {numbers[row]} has a line already; keep one"
            )
