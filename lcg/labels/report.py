"""A report of labels, so that a person sees at a glance whether they are right.

    labels.json    all figures
    labels.md      those that matter, as text
    labels.html    the same with score histograms and, for every attribute, images that are surely one thing, surely
                   the other, and in doubt; one file without references to anything outside

Balance, missing labels, dependence and rare combinations are those of all images. Scores, doubts and a second
labeller's opinion are taken from a sample, evenly spaced, which is looked at again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lcg.data.atomic import write_atomic
from lcg.labels.base import Evidence, Floats, Labeller
from lcg.labels.page import page, text
from lcg.labels.pictures import Pictures, some_rows
from lcg.labels.quality import agreement, atom, balance, dependences, rare_pairs
from lcg.labels.ruled import RuledLabeller
from lcg.schema import Attribute, Schema

BINS = 40
SHOWN = 12
"""Images of a group."""


@dataclass(frozen=True, eq=False)
class Known:
    """Labels that were there before.

    Attributes:
        schema: their columns.
        labels: (N, A).
    """

    schema: Schema
    labels: Floats


def write_report(
    folder: str | Path,
    pictures: Pictures,
    labeller: Labeller,
    labels: Floats,
    sample: int = 1000,
    known: Known | None = None,
    second: Labeller | None = None,
) -> dict[str, Any]:
    """Writes the report of labels into a folder.

    Args:
        folder: made when missing.
        pictures: the images that were labelled.
        labeller: who labelled them.
        labels: (N, A) what it said.
        sample: images that are looked at again.
        known: labels to compare with.
        second: another labeller to compare with, on the sample.

    Returns:
        What is in labels.json.

    Raises:
        ValueError: `sample` is not positive, or there are no attributes in common with the second labeller.
        OSError: the folder cannot be written.
    """
    check_report(labeller, second, sample)
    schema, rows = labeller.schema, some_rows(len(labels), sample)
    images = pictures.images(rows)
    seen = labeller.evidence(images)
    told: dict[str, Any] = {
        "images": len(labels),
        "labeller": labeller.identity(),
        "attributes": {a.name: balance(a, labels[:, j]) for j, a in enumerate(schema)},
        "dependence": {"attributes": list(schema.names), "table": _plain(dependences(schema, labels))},
        "rare": rare_pairs(schema, labels),
        "sample": {"images": len(rows), "scores": histograms(labeller, seen)},
        "doubtful": {a.name: _doubtful(seen.margins[:, j], rows) for j, a in enumerate(schema)},
        "agreement": {},
    }
    if known is not None and (common := shared(schema, known.schema)):
        told["agreement"]["labels that were known"] = compared(schema, labels, known.schema, known.labels, common)
    if second is not None:
        common = shared(schema, second.schema)
        other = second.label(images)
        told["agreement"]["the second labeller"] = compared(schema, seen.labels, second.schema, other, common)
        told["second"] = second.identity()
    sheets = {a.name: groups(a, j, seen) for j, a in enumerate(schema)}
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    write_atomic(path / "labels.json", (json.dumps(told, indent=2) + "\n").encode())
    write_atomic(path / "labels.md", text(told).encode())
    write_atomic(path / "labels.html", page(told, images, sheets).encode())
    return told


def check_report(labeller: Labeller, second: Labeller | None, sample: int) -> None:
    """Called before work starts: raises ValueError where there could be no report; as `write_report`."""
    if sample < 1:
        raise ValueError(f"`sample` must be >= 1, got {sample}")
    if second is not None and not shared(labeller.schema, second.schema):
        raise ValueError(
            f"the second labeller knows {', '.join(second.schema.names)}, none of which means the same as one of "
            f"{', '.join(labeller.schema.names)}; give one that shares attributes, with the same kinds and values"
        )


def histograms(labeller: Labeller, seen: Evidence) -> dict[str, dict[str, Any]]:
    """Of each score: `edges`, `counts`, `places` where a label changes, and the `attributes` that go by it."""
    places: dict[str, tuple[float, ...]] = {}
    readers: dict[str, list[str]] = {}
    if isinstance(labeller, RuledLabeller):
        for name, rule in labeller.rules.items():
            for score in labeller.reads(name):
                places[score] = (*places.get(score, ()), *rule.places())
                readers.setdefault(score, []).append(name)
    told = {}
    for j, name in enumerate(seen.names):
        column = seen.scores[:, j]
        finite = column[np.isfinite(column)]
        if len(finite):
            counts, edges = np.histogram(finite, BINS)
            told[name] = {
                "edges": edges.tolist(),
                "counts": counts.tolist(),
                "places": list(places.get(name, ())),
                "attributes": readers.get(name, []),
            }
    return told


def groups(attribute: Attribute, column: int, seen: Evidence) -> dict[str, list[int]]:
    """Which of the images looked at show what: by name of the group, the numbers of at most `SHOWN`."""
    y, margins = seen.labels[:, column], seen.margins[:, column]
    known = np.flatnonzero(np.isfinite(y))
    if attribute.kind == "continuous":
        order = known[np.argsort(y[known], kind="stable")]
        middle = max(0, len(order) // 2 - SHOWN // 2)
        parts = {"lowest": order, "middle": order[middle:], "highest": order[::-1]}
        return {name: part[:SHOWN].tolist() for name, part in parts.items()}
    surest = known[np.argsort(-np.nan_to_num(margins[known]), kind="stable")]
    values = range(2 if attribute.kind == "binary" else len(attribute.values))
    told = {f"surely {atom(attribute, v)}": surest[y[surest] == v][:SHOWN].tolist() for v in values}
    doubtful = np.argsort(margins, kind="stable")[: np.isfinite(margins).sum()]
    return {**told, "in doubt": doubtful[:SHOWN].tolist(), "left open": np.flatnonzero(np.isnan(y))[:SHOWN].tolist()}


def shared(one: Schema, other: Schema) -> list[str]:
    """Attributes of both that mean the same."""
    return [a.name for a in one if a.name in other and (other[a.name].kind, other[a.name].values) == (a.kind, a.values)]


def compared(schema: Schema, labels: Floats, other: Schema, theirs: Floats, names: list[str]) -> dict[str, Any]:
    """`agreement` by attribute."""
    return {
        name: _plain(agreement(schema[name], labels[:, schema.index(name)], theirs[:, other.index(name)]))
        for name in names
    }


def _doubtful(margins: Floats, rows: np.ndarray) -> list[dict[str, Any]]:
    """The images of which a label is least sure."""
    order = np.argsort(margins, kind="stable")[: min(SHOWN, int(np.isfinite(margins).sum()))]
    return [{"row": int(rows[k]), "margin": float(margins[k])} for k in order]


def _plain(value: Any) -> Any:
    """With None for NaN, which JSON has no word for."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
