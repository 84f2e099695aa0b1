"""CelebA's own list format: a line with the count, a line with the names of the columns, then a line per image,

    202599
    5_o_Clock_Shadow Arched_Eyebrows Attractive ...
    000001.jpg -1  1  1 ...

and tables without a head, such as `000001.jpg 0`. Read as a `Table`, whose first column is `file`. Names of columns are
made identifiers as formulas write them: in lower case, and `5_o_Clock_Shadow` is `five_o_clock_shadow`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from lcg.data.tables import ROWS_AT_ONCE, Block, Table, open_table

RENAMED = {"5_o_clock_shadow": "five_o_clock_shadow"}


def spelled(name: str) -> str:
    """A column of CelebA as formulas write it."""
    return RENAMED.get(name.lower(), name.lower())


def open_any(path: Path) -> Table:
    """The table in a file: CelebA's list format if its name ends in .txt, and else what `open_table` reads."""
    if path.suffix.lower() != ".txt":
        return open_table(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list at {path}; give the path of a file such as list_attr_celeba.txt")
    return ListTable(path)


class ListTable(Table):
    """A file of lines with cells between blanks.

    Args:
        path: the file.
        names: the columns after `file`, for a file that has no head; None for one that begins with count and names.

    Raises:
        ValueError: the file has no such head, repeats a column, or is no UTF-8.
    """

    unit = "line"

    def __init__(self, path: Path, names: tuple[str, ...] | None = None) -> None:
        self.path, self._head = path, 0 if names else 2
        if names is None:
            head = [cells for _, (_, cells) in zip(range(2), self._lines(0), strict=False)]
            if len(head) < 2 or len(head[0]) != 1 or not head[0][0].isdecimal():
                raise ValueError(
                    f"{path}: CelebA's lists begin with a line of the count and a line of the names of the columns; "
                    "got something else"
                )
            self._count: int | None = int(head[0][0])
            names = tuple(map(spelled, head[1]))
        else:
            self._count = None
        self.names = ("file", *names)
        self._check_names()

    def blocks(self, columns: Collection[str] | None = None) -> Iterator[Block]:
        """See `Table.blocks`; raises ValueError, too, where the first line counts other than there are lines."""
        chosen = [(j, name) for j, name in enumerate(self.names) if columns is None or name in columns]
        lines: list[int] = []
        rows: list[list[str]] = []
        total = 0
        for line, cells in self._lines(self._head):
            if len(cells) != len(self.names):
                raise ValueError(f"{self.where(line)}: expected {len(self.names)} cells, got {len(cells)}")
            lines.append(line)
            rows.append(cells)
            total += 1
            if len(rows) == ROWS_AT_ONCE:
                yield Block(lines, {name: [row[j] for row in rows] for j, name in chosen})
                lines, rows = [], []
        if rows:
            yield Block(lines, {name: [row[j] for row in rows] for j, name in chosen})
        if self._count not in (None, total):
            raise ValueError(f"{self.path}: the first line promises {self._count} images, got {total}; is it whole?")

    def _lines(self, skipped: int) -> Iterator[tuple[int, list[str]]]:
        """The cells of each line that has some, with its number."""
        with open(self.path, encoding="utf-8-sig") as file:
            try:
                for number, line in enumerate(file, start=1):
                    if number > skipped and (cells := line.split()):
                        yield number, cells
            except UnicodeDecodeError as error:
                raise ValueError(f"{self.path} cannot be read: {error}; save it as UTF-8 text") from error
