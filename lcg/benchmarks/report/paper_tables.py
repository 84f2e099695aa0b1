r"""A report's tables for text: Markdown for a README or an issue, LaTeX for a paper.

LaTeX needs \usepackage{booktabs} and, for tables wider than a column, \usepackage{graphicx}; every table is a float of
its own with a caption and a label, \input{tables} takes them all. Both show the numbers of the page, bold where it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType

from lcg.benchmarks.report.section import Section
from lcg.benchmarks.report.tables import Cell, Group, Table

PAGE = 45
"""Lines that a page of a paper has room for: a longer table becomes a table per group."""

COLUMNS = 6
"""A table with more columns is scaled to the width of the page."""

TEX = MappingProxyType(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "''",
        "\N{NO-BREAK SPACE}": "~",
        "\N{MINUS SIGN}": "$-$",
        "±": r"$\pm$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
    }
)


def tables_of(section: Section) -> list[Table]:
    """The tables of a section, those of its heat maps included."""
    return [*section.tables, *(heats.table for heats in section.heats)]


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown(
    title: str, subtitle: str, notes: Sequence[str], sections: Sequence[Section], command: Callable[..., str]
) -> str:
    """All tables as Markdown (GitHub's), each with its note and the commands that make it again.

    Args:
        title: of the document.
        subtitle: a line under it.
        notes: that must stand beside the numbers.
        sections: with the tables.
        command: gives the commands for tasks, or nothing.
    """
    parts = [f"# {_md(title)}", _md(subtitle), *(["\n".join(f"- {_md(note)}" for note in notes)] if notes else [])]
    for section in sections:
        tables = tables_of(section)
        if tables:
            parts += [f"## {_md(section.heading)}", _md(section.text)]
        for table in tables:
            parts += [part for part in (f"**{_md(_caption(table))}**", _md_table(table), _md(table.note)) if part]
            if asked := command(*table.tasks):
                parts.append(f"<details><summary>How to reproduce</summary>\n\n```sh\n{asked}\n```\n\n</details>")
    return "\n\n".join(part for part in parts if part) + "\n"


def _md_table(table: Table) -> str:
    width = len(table.columns)
    rows = [[_md(table.corner), *map(_md, table.columns)], [":--", *["--:"] * width]]
    for group in table.groups:
        if group.heading:
            rows.append([f"**{_md_heading(group)}**", *[""] * width])
        rows += [[_md(line.label), *map(_md_cell, line.cells)] for line in group.lines]
    return "\n".join(re.sub(r"\| +(?=\|)", "| ", f"| {' | '.join(row)} |") for row in rows)


def _md_heading(group: Group) -> str:
    heading = f"`{group.heading}`".replace("|", r"\|") if group.code else _md(group.heading)
    return f"{heading} ({group.prefix})" if group.prefix == "zero-shot" else f"{_md(group.prefix)} {heading}".strip()


def _md_cell(cell: Cell) -> str:
    value = f"**{cell.value}**" if cell.best else cell.value
    return f"{value} {cell.error}".strip()


def _md(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


# --- LaTeX -----------------------------------------------------------------------------------------------------------


def latex(sections: Sequence[Section], command: Callable[..., str]) -> str:
    """All tables as LaTeX floats with booktabs.

    Args:
        sections: with the tables.
        command: gives the commands for tasks, or nothing; they stand above the table as a comment.
    """
    parts = ["% \\usepackage{booktabs,graphicx}"]
    for section in sections:
        tables = [part for table in tables_of(section) for part in _pages(table)]
        for i, table in enumerate(tables):
            comment = "".join(f"% {line}\n" for line in command(*table.tasks).splitlines())
            parts.append(comment + _tex_float(table, f"{section.id}-{i + 1}", section.zero_shot))
    return "\n\n".join(parts) + "\n"


def _pages(table: Table) -> list[Table]:
    return [table] if table.lines <= PAGE else [replace(table, groups=(group,)) for group in table.groups]


def _tex_float(table: Table, label: str, zero_shot: Sequence[str]) -> str:
    wide = len(table.columns) > COLUMNS
    said = ". ".join(part.rstrip(".") for part in (_caption(table), table.note) if part)
    if any(group.prefix == "zero-shot" or group.heading in zero_shot for group in table.groups):
        said += r". Zero-shot: never seen together in training"
    body = [
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        f"{' & '.join(tex(name) for name in (table.corner, *table.columns))} \\\\",
        *_tex_rows(table),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\small",
        rf"\caption{{{tex(said)}.}}",
        rf"\label{{tab:{label}}}",
        *([r"\resizebox{\textwidth}{!}{%"] if wide else []),
        *body,
        *(["}"] if wide else []),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _tex_rows(table: Table) -> Iterator[str]:
    for group in table.groups:
        yield r"\midrule"
        if group.heading:
            heading = rf"\texttt{{{tex(group.heading)}}}" if group.code else tex(group.heading)
            prefix = "" if group.prefix == "zero-shot" else f"{tex(group.prefix)} "
            suffix = " (zero-shot)" if group.prefix == "zero-shot" else ""
            yield rf"\multicolumn{{{len(table.columns) + 1}}}{{l}}{{{prefix.lstrip()}{heading}{suffix}}} \\"
        for line in group.lines:
            label = rf"\textit{{{tex(line.label)}}}" if line.reference else tex(line.label)
            yield f"{' & '.join((label, *map(_tex_cell, line.cells)))} \\\\"


def _tex_cell(cell: Cell) -> str:
    if not cell.value:
        return "--"
    value = rf"\textbf{{{tex(cell.value)}}}" if cell.best else tex(cell.value)
    return rf"{value} {{\scriptsize {tex(cell.error)}}}" if cell.error else value


def tex(text: str) -> str:
    """Text as LaTeX prints it, on one line."""
    return "".join(TEX.get(character, character) for character in text.strip("\n").replace("\n", " "))


def _caption(table: Table) -> str:
    return f"{table.caption} ({table.samples})" if table.samples else table.caption
