"""Tables of labels: CSV and Parquet say the same, block by block; every mistake is named by its line."""

from __future__ import annotations

import builtins
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcg.data import tables
from lcg.data.tables import Table, labels_of, open_table, scan
from lcg.schema import Attribute, Schema

TEXT = "file,smile,hair,age\na.png,1,blond,0.25\nb.png,,red,\nc.png,false,,-1e-3\n"
SCHEMA = Schema(
    (Attribute("smile"), Attribute("hair", "categorical", ("blond", "red")), Attribute("age", "continuous"))
)
LABELS = np.array([[1, 0, 0.25], [math.nan, 1, math.nan], [0, math.nan, -1e-3]], np.float32)


def labels(table: Table, schema: Schema) -> np.ndarray:
    return np.concatenate([labels_of(block, schema, table) for block in table.blocks(schema.names)])


def written(path: Path, text: str | bytes = TEXT) -> Path:
    file = path / "table.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize("rows", [1, 2, 3, 65536])
def test_blocks_of_any_size_give_the_same(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", rows)
    table = open_table(written(tmp_path))
    assert scan(table, None, ignore=("file",)) == (SCHEMA, 3)
    assert max(map(len, table.blocks())) == min(rows, 3)
    assert np.array_equal(labels(table, SCHEMA), LABELS, equal_nan=True)


def test_parquet_says_the_same(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "file": ["a.png", "b.png", "c.png"],
        "smile": arrow.array([1.0, math.nan, 0.0]),  # as pandas has a whole number with gaps
        "hair": arrow.array(["blond", "red", None]).dictionary_encode(),
        "age": [0.25, None, -1e-3],
        "tall": [True, None, False],
        "many": arrow.array([0, 1, None], arrow.int8()),
    }
    parquet.write_table(arrow.table(columns), tmp_path / "table.parquet", row_group_size=2)
    table = open_table(tmp_path / "table.parquet")
    more = Schema((*SCHEMA, Attribute("tall"), Attribute("many")))
    assert scan(table, None, ignore=("file",)) == (more, 3)
    nan = math.nan
    expected = np.concatenate([LABELS, np.array([[1, 0], [nan, 1], [0, nan]], np.float32)], axis=1)
    assert np.array_equal(labels(table, more), expected, equal_nan=True)
    wrong = Schema((Attribute("age"),))
    with pytest.raises(ValueError, match=r"table\.parquet, row 0: 'age' must be 0 or 1, .* got '0\.25'"):
        scan(table, wrong, ignore=())


def test_parquet_without_its_reader_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    (tmp_path / "table.parquet").write_bytes(b"")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"needs pyarrow: pip install 'lcg\[parquet\]', or save it as CSV"):
        open_table(tmp_path / "table.parquet")


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "table.pq").write_text(TEXT)
    with pytest.raises(ValueError, match=r"table\.pq is no Parquet file that can be read"):
        open_table(tmp_path / "table.pq")


def test_a_parquet_table_that_is_damaged_inside_is_refused(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"x": [str(i) for i in range(500)]}), tmp_path / "table.parquet")
    data = bytearray((tmp_path / "table.parquet").read_bytes())
    data[4:200] = bytes(196)
    (tmp_path / "table.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=r"table\.parquet is no Parquet file that can be read"):
        scan(open_table(tmp_path / "table.parquet"), None, ignore=())


def test_quotes_and_the_mark_of_spreadsheets_are_understood(tmp_path: Path) -> None:
    text = 'hair,"a, b"\r\n"dark ""brown""", 1 \r\n"light\r\nbrown",0\r\nred,2\r\n'
    table = open_table(written(tmp_path, b"\xef\xbb\xbf" + text.encode()))
    assert table.names == ("hair", "a, b")
    (block,) = table.blocks()
    assert block.columns == {"hair": ['dark "brown"', "light\r\nbrown", "red"], "a, b": ["1", "0", "2"]}
    assert list(block.lines) == [2, 3, 5]  # a cell may span lines, and messages name the one in the editor


def test_a_wrong_cell_after_a_cell_of_two_lines_is_named_by_its_line(tmp_path: Path) -> None:
    table = open_table(written(tmp_path, 'note,x\n"a\nb",1\nc,5\n'))
    with pytest.raises(ValueError, match=r"table\.csv, line 4: 'x' must be 0 or 1, or empty .* got '5'"):
        scan(table, Schema((Attribute("x"),)), ignore=())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"x,x\n1,1\n", "column names must be distinct"),
        (b"x,y\n1\n", "line 2: expected 2 cells, got 1"),
        (b"x\n1\n\xff\n", "line 3 cannot be read: .*save the table as UTF-8 CSV"),
        (b"x\n" + b"a" * 200_000 + b"\n", "line 2 cannot be read: field larger than field limit"),
        ("x\n" + "\n".join(f"v{i}" for i in range(65)), "has more than 64 different texts"),
        ("x\none\none\n", "'x' has one text only"),
        ("file\na\n", "expected a column per attribute beside `file`, got none"),
        ("", "expected a column per attribute, got none"),
    ],
)
def test_what_is_no_table_of_labels_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scan(open_table(written(tmp_path, text)), None, ignore=("file",))


def test_numbers_that_labels_cannot_hold_are_refused(tmp_path: Path) -> None:
    table, schema = open_table(written(tmp_path, "x\n1\n1e39\n")), Schema((Attribute("x", "continuous"),))
    with pytest.raises(ValueError, match=r"line 3: 'x' must be a finite number, or empty .* got '1e39'"):
        scan(table, schema, ignore=())


def test_a_column_that_lacks_and_a_table_that_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no column 'tall'; it has: file, smile, hair, age"):
        scan(open_table(written(tmp_path)), Schema((Attribute("tall"),)), ignore=())
    with pytest.raises(FileNotFoundError, match=r"no table at .*/none"):
        open_table(tmp_path / "none")


GROWTH = """
import resource, sys
from lcg.data.tables import labels_of, open_table, scan
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def read(path):
    table = open_table(path)
    schema, count = scan(table, None, ())
    return sum(float(labels_of(block, schema, table)[:, 0].sum()) for block in table.blocks()), count
read(sys.argv[1])
before = peak()
print(*read(sys.argv[2]), peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_lines(tmp_path: Path) -> None:
    for name, count in (("few", 200_000), ("many", 2_000_000)):
        with (tmp_path / f"{name}.csv").open("w") as file:
            file.write("smile,hair,age\n")
            file.writelines(f"{i % 2},{('red', 'blond')[i % 2]},{i / 7:.5f}\n" for i in range(count))
    command = [sys.executable, "-c", GROWTH, str(tmp_path / "few.csv"), str(tmp_path / "many.csv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    total, count, growth = map(float, done.stdout.split())
    assert (total, count) == (1_000_000, 2_000_000) and growth < 20  # MiB; the file has 38
