"""Tables of labels: CSV or Parquet, a column per attribute, read in blocks so that memory does not grow with the rows.

    file,smile,hair,age
    0001.png,1,blond,0.4
    0002.png,0,red,

An empty cell is a label that is not known. Binary cells are 0 or 1 (also false/true, and -1/1 as in CelebA),
categorical cells are the names of values, continuous cells are numbers. Without a schema the cells decide on the kinds:
binary before continuous before categorical. Which values ascend they cannot tell: an ordinal attribute needs a schema.
A column with cells that list several values, `hat;glasses`, is a group of binary attributes (`lcg.data.multilabel`).
Every mistake is named by its line, or by the row of a Parquet file.
"""

from __future__ import annotations

import csv
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lcg.data import multilabel
from lcg.schema import Attribute, Schema

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

BINARY = {"0": 0.0, "1": 1.0, "-1": 0.0, "false": 0.0, "true": 1.0}
MISSING = {"", "nan"}
MAX_VALUES = 64
"""Of an inferred categorical attribute; more are rather names or remarks."""
SPREADSHEETS = (".xlsx", ".xls", ".ods")
LARGEST = float(np.finfo(np.float32).max)
"""Of a label: labels are stored as float32."""
ROWS_AT_ONCE = 65536


@dataclass(frozen=True)
class Block:
    """Some successive rows of a table.

    Attributes:
        lines: (n,) where each stands, as messages name it.
        columns: the n cells of each column, without surrounding blanks.
    """

    lines: Sequence[int]
    columns: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.lines)


class Table(ABC):
    """A table in a file.

    Attributes:
        path: the file.
        names: of its columns, distinct.
        unit: what is counted to name a row: "line" or "row".
    """

    path: Path
    names: tuple[str, ...]
    unit: str

    @abstractmethod
    def blocks(self, columns: Collection[str] | None = None) -> Iterator[Block]:
        """All rows in order, `ROWS_AT_ONCE` or fewer at a time.

        Args:
            columns: which; None for all.

        Raises:
            ValueError: a line has another number of cells than the first one, or cannot be read; it is named.
        """

    def where(self, line: int) -> str:
        """How a message names a row."""
        return f"{self.path}, {self.unit} {line}"

    def _check_names(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"{self.path}: column names must be distinct, got {list(self.names)}")


def open_table(path: str | os.PathLike[str]) -> Table:
    """The table in a file, Parquet if its name ends in .parquet or .pq, and else CSV (UTF-8, commas).

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, is a spreadsheet, or repeats the name of a column.
        ImportError: it is Parquet, and pyarrow is not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"no table at {file}; write a CSV file with a line per sample and a column per attribute"
        )
    if file.suffix.lower() in SPREADSHEETS:
        raise ValueError(f"a table must be CSV or Parquet, got {file}; save the spreadsheet as CSV (UTF-8, commas)")
    return ParquetTable(file) if file.suffix.lower() in (".parquet", ".pq") else CsvTable(file)


class CsvTable(Table):
    """CSV: cells may be quoted and then hold commas and line breaks; a byte-order mark is skipped."""

    unit = "line"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = tuple(next((row for _, row in self._rows()), []))
        self._check_names()

    def blocks(self, columns: Collection[str] | None = None) -> Iterator[Block]:
        chosen = [(j, name) for j, name in enumerate(self.names) if columns is None or name in columns]
        lines: list[int] = []
        rows: list[list[str]] = []

        def block() -> Block:
            return Block(lines, {name: [row[j].strip() for row in rows] for j, name in chosen})

        width = len(self.names)
        for number, (line, row) in enumerate(self._rows()):
            if number == 0:
                continue
            if len(row) != width:
                raise ValueError(f"{self.where(line)}: expected {width} cells, got {len(row)}")
            lines.append(line)
            rows.append(row)
            if len(rows) == ROWS_AT_ONCE:
                yield block()
                lines, rows = [], []
        if rows:
            yield block()

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Each row with the line that it begins on; the first holds the names."""
        with open(self.path, newline="", encoding="utf-8-sig") as file:
            reader, line, first = csv.reader(file), 1, True
            try:
                for row in reader:
                    yield line, [name.strip() for name in row] if first else row
                    line, first = reader.line_num + 1, False
            except (csv.Error, UnicodeDecodeError) as error:
                line = line if isinstance(error, csv.Error) else self._undecodable()
                raise ValueError(f"{self.where(line)} cannot be read: {error}; save the table as UTF-8 CSV") from error

    def _undecodable(self) -> int:
        """The first line that is not UTF-8; text is decoded in blocks, so that the error comes before its line."""
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return number
        raise RuntimeError(f"{self.path} was changed while it was read; read it again")


class ParquetTable(Table):
    """Parquet, read batch by batch; null and NaN are missing, numbers and booleans are spelled as CSV has them."""

    unit = "row"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = tuple(str(name) for name in self._open().schema_arrow.names)
        self._check_names()

    def blocks(self, columns: Collection[str] | None = None) -> Iterator[Block]:
        chosen, row = [name for name in self.names if columns is None or name in columns], 0
        with self._readable():
            for batch in self._open().iter_batches(batch_size=ROWS_AT_ONCE, columns=chosen):
                cells = {name: [spelled(value) for value in batch.column(name).to_pylist()] for name in chosen}
                yield Block(range(row, row + batch.num_rows), cells)
                row += batch.num_rows

    def _open(self) -> ParquetFile:
        with self._readable():
            from pyarrow.parquet import ParquetFile

            return ParquetFile(self.path)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Says what is wrong with the file, or that there is nothing to read it with."""
        try:
            from pyarrow import ArrowException
        except ImportError as error:
            raise ImportError(
                f"reading the Parquet table {self.path} needs pyarrow: pip install 'lcg[parquet]', or save it as CSV"
            ) from error
        try:
            yield
        except (ArrowException, OSError) as error:
            raise ValueError(f"{self.path} is no Parquet file that can be read: {error}; save it again") from error


def spelled(value: object) -> str:
    """A value of a typed table as a CSV file would have it; pandas turns whole numbers with gaps into floats."""
    if value is None:
        return ""
    if isinstance(value, list) and (cell := multilabel.spelled_list(value)) is not None:
        return cell
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def scan(table: Table, schema: Schema | None, ignore: Collection[str]) -> tuple[Schema, int]:
    """Goes through a table once: what its columns are, and how many rows it has.

    Args:
        table: the table.
        schema: the attributes to read, each a column, or a column for each group; inferred from all columns when None.
        ignore: columns that are no attributes.

    Raises:
        ValueError: the table lacks a column of the schema, has a cell that is no label of its attribute (the message
            names the line), or a column that can be no attribute.
    """
    count = 0
    if schema is not None:
        check_columns(table, schema)
        for block in table.blocks(columns_of(schema, table)):
            labels_of(block, schema, table)
            count += len(block)
        return schema, count
    columns = {name: _Column() for name in table.names if name not in ignore}
    for block in table.blocks(columns):
        count += len(block)
        for name, column in columns.items():
            column.see(set(block.columns[name]))
    if not columns:
        beside = " beside " + ", ".join(f"`{name}`" for name in table.names) if table.names else ""
        raise ValueError(f"{table.path}: expected a column per attribute{beside}, got none")
    return Schema(tuple(a for name, column in columns.items() for a in column.attributes(name, table))), count


class _Column:
    """What the cells of a column seen so far allow it to be."""

    def __init__(self) -> None:
        self.binary = self.number = True
        self.several = False
        self.values: set[str] = set()
        self.members: set[str] = set()

    def see(self, cells: set[str]) -> None:
        known = {cell for cell in cells if cell.lower() not in MISSING}
        self.binary = self.binary and all(cell.lower() in BINARY for cell in known)
        self.number = self.number and all(_number(cell) is not None for cell in known)
        self.several = self.several or any(map(multilabel.is_list, known))
        if len(self.values) <= MAX_VALUES:
            self.values |= known
        if len(self.members) <= MAX_VALUES:
            self.members.update(*map(multilabel.members, known))

    def attributes(self, name: str, table: Table) -> tuple[Attribute, ...]:
        if self.several:
            return self._group(name, table)
        if self.binary:
            return (Attribute(name),)
        if self.number:
            return (Attribute(name, "continuous"),)
        if 2 <= len(self.values) <= MAX_VALUES:
            return (Attribute(name, "categorical", tuple(sorted(self.values))),)
        count = (
            f"more than {MAX_VALUES} different texts" if len(self.values) > 1 else f"one text only, {[*self.values]}"
        )
        raise ValueError(
            f"{table.path}: column {name!r} has {count}, a categorical attribute has 2 to {MAX_VALUES}; remove the "
            "column, or give a `schema` without it"
        )

    def _group(self, name: str, table: Table) -> tuple[Attribute, ...]:
        if 1 <= len(self.members) <= MAX_VALUES:
            return tuple(Attribute(f"{name}_{member}", group=name) for member in sorted(self.members))
        count = len(self.members) if len(self.members) <= MAX_VALUES else f"more than {MAX_VALUES}"
        raise ValueError(
            f"{table.path}: the lists in column {name!r} have {count} different members, a group has 1 to "
            f"{MAX_VALUES}; remove the column, or give a `schema` without it"
        )


def check_columns(table: Table, schema: Schema) -> None:
    """Raises ValueError when an attribute has no column, nor its group."""
    for attribute in schema:
        if attribute.name not in table.names and (attribute.group is None or attribute.group not in table.names):
            either = f" or {attribute.group!r}" if attribute.group is not None else ""
            raise ValueError(f"{table.path} has no column {attribute.name!r}{either}; it has: {', '.join(table.names)}")


def columns_of(schema: Schema, table: Table) -> tuple[str, ...]:
    """The columns that `labels_of` reads: of a member of a group its own if there is one, else that of the group."""
    return tuple(dict.fromkeys(_column_of(attribute, table.names) for attribute in schema))


def _column_of(attribute: Attribute, names: Collection[str]) -> str:
    return attribute.name if attribute.group is None or attribute.name in names else attribute.group


def labels_of(block: Block, schema: Schema, table: Table) -> np.ndarray:
    """The labels (n, A) of a block, float32, NaN where missing.

    Raises:
        ValueError: a cell is no label of its attribute; the message names the line.
    """
    labels = np.empty((len(block), len(schema)), np.float32)
    members = {group: frozenset(a.member for a in among) for group, among in schema.groups.items()}
    for j, attribute in enumerate(schema):
        name = _column_of(attribute, block.columns)
        cells, among = block.columns[name], None if name == attribute.name else members[name]
        found = {cell: _label(cell, attribute, among) for cell in set(cells)}
        if None in found.values():
            row = next(i for i, cell in enumerate(cells) if found[cell] is None)
            raise ValueError(
                f"{table.where(block.lines[row])}: {name!r} must be {_expected(attribute, among)}, or empty when it is "
                f"not known; got {cells[row]!r}"
            )
        labels[:, j] = [found[cell] for cell in cells]
    return labels


def _expected(attribute: Attribute, among: frozenset[str] | None) -> str:
    if among is not None:
        return f"`none` or some of {', '.join(sorted(among))}, with `{multilabel.SEPARATOR}` between them"
    return {
        "binary": "0 or 1",
        "categorical": f"one of {', '.join(attribute.values)}",
        "continuous": "a finite number",
    }[attribute.kind]


def _label(cell: str, attribute: Attribute, among: frozenset[str] | None) -> float | None:
    """The label that a cell spells, which lists members of a group if `among` says which; None when it spells none."""
    if cell.lower() in MISSING:
        return math.nan
    if among is not None:
        listed = multilabel.members(cell)
        return float(attribute.member in listed) if listed <= among else None
    if attribute.kind == "binary":
        return BINARY.get(cell.lower())
    if attribute.kind == "categorical":
        return float(attribute.values.index(cell)) if cell in attribute.values else None
    return _number(cell)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None
