"""A report of labels as text and as a page of its own."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from lcg.labels.base import Images

SIDE = 64
"""Of an image on the page, in pixels, at least."""
STRONG = 0.3
"""Dependence that the text tells."""
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { padding: .15rem .7rem .15rem 0; text-align: left; }
figure { margin: .3rem 0; } figcaption { opacity: .75; } img { max-width: 100%; image-rendering: pixelated; }
svg rect { fill: #4477aa; } svg line { stroke: #cc3311; stroke-width: 2; }
td.d { text-align: center; width: 3.2rem; }
"""


def text(told: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# Labels", "", f"{told['images']} images.", "", *_markdown(_balance(told)), ""]
    for title, heading, rows in _tables(told):
        lines += [f"## {title}", "", *_markdown([heading, *rows]), ""]
    return "\n".join(lines)


def page(told: Mapping[str, Any], images: Images, sheets: Mapping[str, Mapping[str, list[int]]]) -> str:
    """The report as HTML.

    Args:
        told: the figures.
        images: (n, H, W, 3) that were looked at.
        sheets: by attribute and name of a group, the numbers of images to show.
    """
    body = [f"<h1>Labels</h1><p>{told['images']} images, {told['sample']['images']} looked at again.</p>"]
    body.append(_html(_balance(told)))
    for name, groups in sheets.items():
        body.append(f"<h2>{escape(name)}</h2>")
        scores = told["sample"]["scores"]
        body += [_histogram(s, h) for s, h in scores.items() if name in h["attributes"]]
        for group, shown in groups.items():
            if shown:
                picture = f'<img alt="{escape(group)}" src="{_png(images[shown])}">'
                body.append(f"<figure><figcaption>{escape(group)}</figcaption>{picture}</figure>")
    for title, heading, rows in _tables(told):
        body.append(f"<h2>{escape(title)}</h2>{_html([heading, *rows])}")
    body.append(f"<h2>Dependence</h2>{_matrix(told['dependence'])}")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Labels</title><style>{STYLE}</style>'
    return f"{head}<body>{''.join(body)}</body></html>\n"


def _balance(told: Mapping[str, Any]) -> list[list[str]]:
    rows = [["attribute", "labels", "missing"]]
    for name, one in told["attributes"].items():
        if "counts" in one:
            known = max(1, one["known"])
            shown = ", ".join(f"{value} {count} ({count / known:.1%})" for value, count in one["counts"].items())
        elif "mean" in one:
            low, high = one["quantiles"][0], one["quantiles"][-1]
            shown = f"{one['mean']:.3g} ± {one['deviation']:.2g}, from {low:.3g} to {high:.3g}"
        else:
            shown = "none"
        rows.append([name, shown, f"{one['missing']:.1%}"])
    return rows


def _tables(told: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, heading and rows of each table that has rows."""
    tables = []
    for whom, entries in told["agreement"].items():
        rows = [[n, str(e["both"]), _number(e["equal"], "{:.2%}"), _number(e["kappa"])] for n, e in entries.items()]
        tables.append((f"Agreement with {whom}", ["attribute", "images", "equal", "kappa"], rows))
    names, table = told["dependence"]["attributes"], told["dependence"]["table"]
    strong = [
        [a, names[j], _number(table[i][j])]
        for i, a in enumerate(names)
        for j in range(i + 1, len(names))
        if table[i][j] is not None and abs(table[i][j]) >= STRONG
    ]
    strong.sort(key=lambda row: -abs(float(row[2])))
    tables.append((f"Dependent attributes ({STRONG} and more)", ["attribute", "attribute", "dependence"], strong[:30]))
    rare = [[e["formula"], str(e["count"]), f"{e['expected']:.1f}"] for e in told["rare"]]
    tables.append(("Rare combinations", ["combination", "images", "if independent"], rare))
    doubtful = [
        [name, ", ".join(str(entry["row"]) for entry in entries)]
        for name, entries in told["doubtful"].items()
        if entries
    ]
    tables.append(("In doubt", ["attribute", "images, the most doubtful first"], doubtful))
    return [table for table in tables if table[2]]


def _number(value: float | None, shown: str = "{:.3f}") -> str:
    return "-" if value is None else shown.format(value)


def _markdown(rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


def _html(rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"


def _matrix(dependence: Mapping[str, Any]) -> str:
    """The table of dependences, the stronger the redder."""
    names, rows = dependence["attributes"], []
    for name, values in zip(names, dependence["table"], strict=True):
        cells = "".join(map(_shaded, values))
        rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _shaded(value: float | None) -> str:
    alpha = 0 if value is None else min(1, abs(value))
    return f'<td class="d" style="background: rgb(204 51 17 / {alpha:.2f})">{_number(value, "{:.2f}")}</td>'


def _histogram(name: str, told: Mapping[str, Any], width: int = 400, height: int = 70) -> str:
    """Bars of a score's histogram, with lines where a label changes."""
    counts, low, high = told["counts"], told["edges"][0], told["edges"][-1]
    bar, tallest, span = width / len(counts), max(max(counts), 1), (high - low) or 1.0
    bars = "".join(
        f'<rect x="{k * bar:.1f}" y="{height - h:.1f}" width="{bar - 1:.1f}" height="{h:.1f}"/>'
        for k, h in enumerate(height * count / tallest for count in counts)
    )
    marks = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>'
        for x in ((place - low) / span * width for place in told["places"])
        if 0 <= x <= width
    )
    caption = f"{escape(name)}: {low:.3g} to {high:.3g}"
    drawing = f'<svg role="img" width="{width}" height="{height}"><title>{caption}</title>{bars}{marks}</svg>'
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"


def _png(images: Images) -> str:
    """Images (n, H, W, 3) side by side, as a data address."""
    scale = max(1, -(-SIDE // images.shape[1]))
    framed = np.pad(images.repeat(scale, 1).repeat(scale, 2), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(framed), axis=1)).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
