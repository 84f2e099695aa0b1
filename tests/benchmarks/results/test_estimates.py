"""results.csv: seeds pooled by the stated formula, and every malformed line refused by its number."""

import math
from pathlib import Path

import pytest

from lcg.benchmarks.results.estimates import Estimate, Results, Row, pool, read_results, read_rows

HEADER = "method,task,metric,value,stderr,n,seed"


def write(path: Path, *lines: str) -> Path:
    file = path / "results.csv"
    file.write_text("\n".join((HEADER, *lines)) + "\n")
    return file


def of(value: float, stderr: float | None, seed: int | None, n: int | None = 100) -> Row:
    return Row("lcg", "generate/a", "sharp", value, stderr, n, seed)


def test_spread_of_seeds_is_the_error_where_it_is_larger() -> None:
    pooled = pool([of(0.5, 0.01, 0), of(0.7, 0.01, 1)])
    assert pooled == Estimate(pytest.approx(0.6), pytest.approx(math.sqrt(0.02) / math.sqrt(2)), 200, (0, 1))


def test_sampling_error_is_the_error_where_seeds_agree_by_luck() -> None:
    pooled = pool([of(0.6, 0.03, 1), of(0.6, 0.04, 0)])
    assert pooled.stderr == pytest.approx(0.05 / 2) and pooled.seeds == (0, 1)


def test_one_seed_keeps_its_own_error() -> None:
    assert pool([of(0.6, 0.03, 4)]) == Estimate(0.6, 0.03, 100, (4,))
    assert pool([of(0.6, None, 4, n=None)]) == Estimate(0.6, None, None, (4,))


def test_a_missing_error_leaves_the_spread() -> None:
    assert pool([of(1.0, None, 0), of(3.0, 0.1, 1)]).stderr == pytest.approx(1.0)


def test_a_row_that_pooled_its_seeds_stands_alone() -> None:
    assert pool([of(0.1, 0.0, 0), of(0.4, 0.02, None, 500)]) == Estimate(0.4, 0.02, 500)


def test_nothing_cannot_be_pooled() -> None:
    with pytest.raises(ValueError, match="`rows` must hold at least one row, got none"):
        pool([])


def test_rows_are_read_with_quotes_empty_cells_and_blank_lines(tmp_path: Path) -> None:
    file = write(
        tmp_path, 'lcg,"generate/hair in {red, blond}",sharp,0.5,,,', "", "real,unconditional,fid,-1e-3,0.1,64,3"
    )
    assert read_rows(file) == [
        Row("lcg", "generate/hair in {red, blond}", "sharp", 0.5),
        Row("real", "unconditional", "fid", -0.001, 0.1, 64, 3),
    ]


def test_methods_stand_in_the_order_of_a_comparison() -> None:
    rows = tuple(Row(m, "t", "fid", 1.0) for m in ("real", "prior", "arithmetic", "lcg", "lace"))
    results = Results(rows)
    assert results.methods == ("lcg", "arithmetic", "lace", "prior", "real")
    assert results.tasks == ("t",) and results.metrics(["t"]) == ("fid",) and results.metrics(["u"]) == ()
    assert results.get("lcg", "t", "kid") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lcg,t,sharp,0.5,0.1,10", r"line 2: expected 7 cells, got 6.*quote cells with commas"),
        ("lcg,t,sharp,0.5,0.1,10,0,9", r"line 2: expected 7 cells, got 8"),
        (",t,sharp,0.5,,,", r"line 2: `method` is empty; only stderr, n and seed may be"),
        ("lcg,t,sharp,,,,", r"line 2: `value` is empty"),
        ("lcg,t,sharp,high,,,", r"line 2: `value` must be a finite number, got 'high'"),
        ("lcg,t,sharp,nan,,,", r"line 2: `value` must be a finite number, got 'nan'; leave out"),
        ("lcg,t,sharp,0.5,inf,,", r"line 2: `stderr` must be a finite number, got 'inf'"),
        ("lcg,t,sharp,0.5,-0.1,,", r"line 2: `stderr` must be >= 0, got -0.1"),
        ("lcg,t,sharp,0.5,,0,", r"line 2: `n` must be >= 1, got 0"),
        ("lcg,t,sharp,0.5,,1.5,", r"line 2: `n` must be a whole number or empty, got '1.5'"),
        ("lcg,t,sharp,0.5,,,zero", r"line 2: `seed` must be a finite number, got 'zero'"),
        ("lcg,t,sharp,0.5,,,1\nlcg,t,sharp,0.6,,,1", r"line 3: a second row for \('lcg', 't', 'sharp', 1\)"),
    ],
)
def test_malformed_lines_are_refused_by_number(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_rows(write(tmp_path, line))


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("method,task,score\n")
    with pytest.raises(ValueError, match=r"got method,task,score; missing: metric, value, stderr, n, seed"):
        read_rows(file)
    file.write_text("")
    with pytest.raises(ValueError, match="got an empty file"):
        read_rows(file)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no rows; run `lcg bench` again"):
        read_rows(write(tmp_path))


def test_a_missing_file_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"results\.csv does not exist; run `lcg bench` first"):
        read_rows(tmp_path / "results.csv")


def test_results_are_joined_with_costs_and_comparisons_where_they_are(tmp_path: Path) -> None:
    write(tmp_path, "lcg,t,sharp,0.5,0.1,64,1")
    assert read_results(tmp_path) == Results((Row("lcg", "t", "sharp", 0.5, 0.1, 64, 1),))
    (tmp_path / "costs.csv").write_text(f"{HEADER}\nlcg,t,evaluations,150,,64,1\n")
    (tmp_path / "comparisons.csv").write_text(
        "task,metric,method,against,difference,low,high,p,p_holm,n\nt,sharp,lace,lcg,-0.1,-0.2,0,0.01,0.02,64\n"
    )
    results = read_results(tmp_path)
    assert results.metrics(["t"]) == ("sharp", "evaluations")
    assert results.get("lcg", "t", "evaluations") == Estimate(150.0, None, 64, (1,))
    assert results.compared["t", "sharp", "lace", "lcg"].p_holm == 0.02


def test_costs_may_be_empty_but_not_repeat_a_result(tmp_path: Path) -> None:
    write(tmp_path, "lcg,t,evaluations,150,,64,1")
    (tmp_path / "costs.csv").write_text(f"{HEADER}\n")
    assert len(read_results(tmp_path).rows) == 1
    (tmp_path / "costs.csv").write_text(f"{HEADER}\nlcg,t,evaluations,150,,64,1\n")
    with pytest.raises(ValueError, match=r"costs\.csv: the row \('lcg', 't', 'evaluations', 1\) is in results\.csv"):
        read_results(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"results\.csv does not exist; run `lcg bench` first"):
        read_results(tmp_path / "nowhere")
