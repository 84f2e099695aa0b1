"""Tables for text: Markdown with as many cells in every row, LaTeX that is balanced, with names as they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lcg.benchmarks.report.job import render
from lcg.benchmarks.report.paper_tables import COLUMNS, PAGE, latex, markdown, tex
from lcg.benchmarks.report.section import Section
from lcg.benchmarks.report.tables import Cell, Group, Line, Table

MACROS = frozenset(
    {
        *("begin", "end", "caption", "centering", "label", "small", "scriptsize", "resizebox", "textwidth"),
        *(
            "toprule",
            "midrule",
            "bottomrule",
            "multicolumn",
            "textbf",
            "textit",
            "texttt",
            "pm",
            "uparrow",
            "downarrow",
        ),
        *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar"),
    }
)


def well_formed(source: str) -> None:
    """Braces, mathematics and environments close in order; every row has its columns; no macro is unknown."""
    text = re.sub(r"(?<!\\)%.*", "", source)
    bare = re.sub(r"\\[\\{}&%$#_]", lambda m: "\n" if m[0] == "\\\\" else "", text)  # without what is escaped
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0 and bare.count("$") % 2 == 0 and not re.search(r"[#_^\"±↑↓]", bare)
    assert set(re.findall(r"\\([A-Za-z]+)", bare)) <= MACROS
    stack: list[str] = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if what == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.S):
        rows = [line for line in body.strip().splitlines() if not re.fullmatch(r"\\(top|mid|bottom)rule", line)]
        for row in rows:
            assert row.endswith(r"\\")
            wide = re.match(r"\\multicolumn\{(\d+)\}", row)
            assert (int(wide[1]) if wide else len(re.findall(r"(?<!\\)&", row)) + 1) == len(columns)


def section(table: Table, id: str = "s") -> Section:
    return Section(id, "Heading", "Text.", tables=(table,))


def table(lines: int = 1, columns: int = 1, label: str = "lcg", groups: int = 1) -> Table:
    cells = (Cell("0.500", "± 0.010", best=True), *[Cell()] * (columns - 1))
    one = Group((Line(label, cells),) * lines, "hair in {red, blond} | ~hat_color^2", "zero-shot")
    return Table(
        "100 % of <it>", "method", ("a_b\N{NO-BREAK SPACE}↑",) * columns, (one,) * groups, "n = 8", "A # note."
    )


def none(*tasks: str) -> str:
    return ""


def test_latex_of_every_kind_of_table_is_well_formed(made_up: Callable[[Path], Path], tmp_path: Path) -> None:
    source = render(made_up(tmp_path)).latex
    well_formed(source)
    labels = re.findall(r"\\label\{(.*?)\}", source)
    assert len(labels) == len(set(labels)) == source.count(r"\caption{") == source.count(r"\begin{table}") > 15
    assert {label.split(":")[1].rsplit("-", 1)[0] for label in labels} >= {
        *("formulas", "scale", "edits", "synthetic-edits", "trade-off", "unconditional", "reconstruction"),
        *("disentanglement", "calibration", "cost"),
    }
    assert r"\textbf{0." in source and r"\texttt{glasses \& \textasciitilde{}beard}" in source
    assert "% lcg bench --config runs/demo/bench/config.yaml" in source


@pytest.mark.parametrize("change", [lambda s: s.replace("s-1}", "s-1"), lambda s: s.replace(" & ", " ", 1)])
def test_the_check_sees_what_is_broken(change: Callable[[str], str]) -> None:
    source = latex([section(table(columns=2))], none)
    well_formed(source)
    with pytest.raises(AssertionError):
        well_formed(change(source))


@pytest.mark.parametrize("text", [r"\input{/etc/passwd}", "a_b & 50 % {x} #1 $y$ ~z ^2", 'say "so" <now>|then', "a\nb"])
def test_whatever_a_name_is_it_is_printed_not_run(text: str) -> None:
    source = latex([section(table(label=text))], none)
    well_formed(source)
    assert r"\input" not in source and tex(text) in source


def test_the_best_is_bold_the_reference_slanted_and_what_was_not_measured_a_dash() -> None:
    lines = (Line("lcg", (Cell("1.0", "± 0.1", best=True),)), Line("real images", (Cell(),), reference=True))
    source = latex([section(Table("c", "method", ("m",), (Group(lines),)))], none)
    assert r"lcg & \textbf{1.0} {\scriptsize $\pm$ 0.1} \\" in source and r"\textit{real images} & -- \\" in source


def test_wide_tables_are_scaled_and_long_ones_split_by_group() -> None:
    wide = latex([section(table(columns=COLUMNS + 1))], none)
    well_formed(wide)
    assert r"\resizebox{\textwidth}{!}{%" in wide and r"\resizebox" not in latex(
        [section(table(columns=COLUMNS))], none
    )
    long = latex([section(table(lines=PAGE // 2 + 1, groups=2))], none)
    well_formed(long)
    assert long.count(r"\begin{table}") == 2 and r"\label{tab:s-1}" in long and r"\label{tab:s-2}" in long


def test_markdown_of_every_kind_has_rows_of_one_length(made_up: Callable[[Path], Path], tmp_path: Path) -> None:
    text = render(made_up(tmp_path)).markdown
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    assert len(tables) > 15
    for rows in (table.splitlines() for table in tables):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
        assert re.fullmatch(r"\| :-- (\| --: )+\|", rows[1])
    assert "| **0." in text and text.count("```") == 2 * text.count("</details>") > 0


def test_markdown_says_what_stands_on_the_page_and_nothing_is_markup() -> None:
    text = markdown("A *title* <b>", "sub", ["Seen."], [section(table(label="a|b_c"))], lambda *tasks: "lcg bench")
    assert r"# A \*title\* \<b\>" in text and "- Seen." in text and "A \\# note." in text
    assert r"| a\|b\_c | **0.500** ± 0.010 |" in text
    assert r"| **`hair in {red, blond} \| ~hat_color^2` (zero-shot)** | |" in text
    assert "```sh\nlcg bench\n```" in text
    assert "<details>" not in markdown("t", "s", [], [section(table())], none)
