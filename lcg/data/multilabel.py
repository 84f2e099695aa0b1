"""Cells that list what an image has several of: `hat;glasses`, or `["hat", "glasses"]` as in JSON.

Each member of the column is a binary attribute of a group that has the column's name: `accessory_hat` of `accessory`.
An empty cell says nothing of any member; `none`, `-`, `;` and `[]` say that none is there; and a list is complete, so
that what it leaves out is not there.
"""

from __future__ import annotations

import json

from lcg.schema import member_name

SEPARATOR = ";"
NONE = {"none", "-"}


def is_list(cell: str) -> bool:
    """Whether a cell can only be a list; `hat` and `none` can be anything."""
    return SEPARATOR in cell or _json(cell) is not None


def members(cell: str) -> frozenset[str]:
    """What a cell that is not empty lists, spelled as in names of attributes; nothing for a mark of none."""
    parts = _json(cell)
    parts = cell.split(SEPARATOR) if parts is None else parts
    said = (part.strip() for part in parts)
    return frozenset(member_name(part) for part in said if part and part.lower() not in NONE)


def spelled_list(value: list[object]) -> str | None:
    """A list of a typed table as a cell; None when not all of it are texts."""
    return json.dumps(value, ensure_ascii=False) if all(isinstance(part, str) for part in value) else None


def _json(cell: str) -> list[str] | None:
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    try:
        parts = json.loads(cell)
    except ValueError:
        return None
    return parts if isinstance(parts, list) and all(isinstance(part, str) for part in parts) else None
