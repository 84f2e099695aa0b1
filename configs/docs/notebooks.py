"""A notebook, as it was executed, as Markdown: its texts, its code, and what came of it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def joined(text: str | list[str]) -> str:
    """A text of a notebook, which may be a list of lines."""
    return text if isinstance(text, str) else "".join(text)


def fenced(text: str, language: str) -> str:
    """A block of code, whatever backquotes are in it."""
    marks = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", text)), 3)
    return f"{marks}{language}\n{text.rstrip()}\n{marks}"


def notebook(content: Mapping[str, Any], stem: str) -> tuple[str, dict[str, bytes]]:
    """A notebook of format 4 as Markdown.

    Args:
        content: the notebook, as JSON has it.
        stem: how the names of its pictures begin.

    Returns:
        The Markdown, and the pictures that it shows, by name.

    Raises:
        ValueError: a cell with code was not executed, or ended in an error.
    """
    blocks: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, cell in enumerate(content["cells"], 1):
        text = joined(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            blocks.append(text)
        if cell["cell_type"] != "code" or not text:
            continue
        if cell.get("execution_count") is None:
            raise ValueError(f"cell {number} of {stem} was not executed; execute the notebook and save it")
        blocks.append(fenced(text, "python"))
        for count, output in enumerate(cell["outputs"], 1):
            shown, picture = shown_output(output, f"{stem}-{number}-{count}.png", text.splitlines()[-1])
            blocks.append(f'<div class="output" markdown>\n\n{shown}\n\n</div>')
            pictures |= picture
    return "\n\n".join(blocks) + "\n", pictures


def shown_output(output: Mapping[str, Any], name: str, code: str) -> tuple[str, dict[str, bytes]]:
    """What a cell gave, in the richest form that a page can show; pictures are named by the code that made them."""
    if output["output_type"] == "error":
        raise ValueError(f"{name.removesuffix('.png')} ended in {output['ename']}; mend and execute the notebook")
    if output["output_type"] == "stream":
        return fenced(ESCAPES.sub("", joined(output["text"])), "text"), {}
    data = output["data"]
    if "text/html" in data:
        return f"<div>{joined(data['text/html'])}</div>", {}
    if "image/png" in data:
        label = re.sub(r"[\[\]]", "", code)
        return f"![What `{label}` shows]({name})", {name: base64.b64decode(joined(data["image/png"]))}
    return fenced(joined(data["text/plain"]), "text"), {}
