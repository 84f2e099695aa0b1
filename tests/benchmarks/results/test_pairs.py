"""comparisons.csv: read as it is written, and every malformed line refused by its number."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcg.benchmarks.results.pairs import COLUMNS, Pair, read_comparisons


def write(path: Path, *lines: str) -> Path:
    file = path / "comparisons.csv"
    file.write_text("\n".join((",".join(COLUMNS), *lines)) + "\n")
    return file


def test_lines_become_pairs(tmp_path: Path) -> None:
    file = write(tmp_path, '"edit/+a",kept,lace,lcg,-0.25,-0.5,0,0.01,0.02,128')
    assert read_comparisons(file) == [Pair("edit/+a", "kept", "lace", "lcg", -0.25, -0.5, 0.0, 0.01, 0.02, 128)]


def test_a_benchmark_with_nothing_to_compare_has_a_header_only(tmp_path: Path) -> None:
    assert read_comparisons(write(tmp_path)) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("t,kept,lace,,-0.25,-0.5,0,0.01,0.02,128", r"line 2: task, metric, method and against must not be empty"),
        ("t,kept,lace,lcg,nan,-0.5,0,0.01,0.02,128", r"line 2: `difference` must be a finite number, got 'nan'"),
        ("t,kept,lace,lcg,-0.25,-0.5,0,1.5,0.02,128", r"line 2: `p` and `p_holm` must be probabilities.*got 1.5 and"),
        ("t,kept,lace,lcg,-0.25,-0.5,0,0.01,0.02,12.5", r"line 2: `n` must be a whole number"),
        (
            "t,kept,a,b,0,0,0,1,1,9\nt,kept,a,b,0,0,0,1,1,9",
            r"line 3: a second comparison for \('t', 'kept', 'a', 'b'\)",
        ),
        ("t,kept,lace,lcg", r"line 2: expected 10 cells, got 4"),
    ],
)
def test_malformed_lines_are_refused_by_number(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_comparisons(write(tmp_path, line))


def test_a_missing_file_and_missing_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"comparisons\.csv does not exist; run `lcg bench` first"):
        read_comparisons(tmp_path / "comparisons.csv")
    (tmp_path / "comparisons.csv").write_text("task,metric\n")
    with pytest.raises(ValueError, match="got task,metric; missing: method, against, difference"):
        read_comparisons(tmp_path / "comparisons.csv")
