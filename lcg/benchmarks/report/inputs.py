"""provenance.json and pictures.json of a benchmark: what was run, what must be said about it, and what it looks like.

Both may come from somebody else's machine: types, kinds, file formats and paths are checked before anything is shown.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lcg.benchmarks.report.embedded import Layer, embedded
from lcg.benchmarks.results.estimates import Results
from lcg.benchmarks.results.vocabulary import label_of
from lcg.schema import unknown_name

KINDS = ("unconditional", "formula", "comparison", "edit", "reconstruction")  # in the order of the page
STRINGS = ("file", "kind", "method", "task", "title", "caption")
REQUIRED = ("title", "created", "lcg", "versions", "config", "commands", "notes")
CLAIM = re.compile(r"zero[- ]shot|never[- ](seen|occur)|unseen", re.IGNORECASE)


@dataclass(frozen=True)
class Picture:
    """One PNG, with everything the page says about it.

    Args:
        file: relative to the benchmark's directory.
        kind: one of `KINDS`.
        method: as in results.csv, or "all" of a picture that shows all of them.
        task: as in results.csv.
        title: a few words.
        caption: a sentence, or nothing.
        layers: the picture itself, in one part or in several from top to bottom.
        width: in pixels.
        height: in pixels.
    """

    file: str
    kind: str
    method: str
    task: str
    title: str
    caption: str
    layers: tuple[Layer, ...]
    width: int
    height: int

    @property
    def smaller(self) -> bool:
        """Whether it is not embedded byte for byte."""
        return any(layer.uri.startswith("data:image/avif") for layer in self.layers)

    @property
    def alt(self) -> str:
        said = f"{self.title}, {label_of(self.method)}"
        return f"{said}: {self.caption}" if self.caption else said


def read_provenance(path: Path) -> dict[str, Any]:
    """Reads provenance.json. Raises FileNotFoundError and ValueError."""
    provenance = _read_json(path, dict)
    missing = [name for name in REQUIRED if name not in provenance]
    if missing:
        raise ValueError(
            f"{path}: expected the keys {', '.join(REQUIRED)}; missing: {', '.join(missing)}; rerun the bench"
        )
    for name in ("commands", "notes", "zero_shot"):
        value = provenance.setdefault(name, [])
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise ValueError(f"{path}: `{name}` must be a list of strings, got {value!r}")
    if not isinstance(provenance["versions"], dict):
        raise ValueError(f"{path}: `versions` must map a package to its version, got {provenance['versions']!r}")
    _check_config(path, provenance)
    return provenance


def _check_config(path: Path, provenance: Mapping[str, Any]) -> None:
    """What commands are made of."""
    config = provenance["config"]
    if not isinstance(config, dict) or not isinstance(provenance.get("folder", ""), str):
        raise ValueError(f"{path}: `config` must be an object, and `folder` the benchmark's folder as it was given")
    for name, kind in (("tasks", str), ("seeds", int)):
        value = config.get(name, [])
        if not isinstance(value, list) or not all(isinstance(entry, kind) for entry in value):
            raise ValueError(f"{path}: `{name}` of `config` must be a list of {kind.__name__}, got {value!r}")


def read_pictures(directory: Path) -> list[Picture]:
    """Reads pictures.json and every file that it names. Raises FileNotFoundError and ValueError."""
    path = directory / "pictures.json"
    entries, files = _read_json(path, list), []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in STRINGS):
            raise ValueError(f"{path}: entry {i} must have the strings {', '.join(STRINGS)}, got {entry!r}")
        if entry["kind"] not in KINDS:
            raise unknown_name(f"kind of entry {i} in {path}:", entry["kind"], KINDS, "the report")
        files.append(_read_png(directory, entry["file"], path))
    pictures = []
    for entry, layers in zip(entries, embedded(files), strict=True):
        told = {name: entry[name] for name in STRINGS}
        width, height = layers[0].width, sum(layer.height for layer in layers)
        pictures.append(Picture(**told, layers=layers, width=width, height=height))
    return pictures


def _read_png(directory: Path, file: str, listed_in: Path) -> bytes:
    path = directory / file
    if directory.resolve() not in path.resolve().parents:
        raise ValueError(
            f"{listed_in}: {file!r} lies outside {directory}; a report shows a benchmark's own pictures only"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, but {listed_in} lists it; run `lcg bench` again")
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]):
            return data
    except OSError as error:
        raise ValueError(f"{path} is not a PNG; save pictures with picture.save('NAME.png')") from error


def _read_json(path: Path, kind: type[dict] | type[list]) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run `lcg bench` first, and give its directory to `lcg report`")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; run `lcg bench` again") from error
    if not isinstance(content, kind):
        raise ValueError(
            f"{path} must hold a JSON {'object' if kind is dict else 'list'}, got {type(content).__name__}"
        )
    return content


def claimed(provenance: Mapping[str, Any], pictures: Sequence[Picture], results: Results) -> frozenset[str]:
    """The tasks of which the results say that the prior has never seen them.

    Raises:
        ValueError: `zero_shot` names a task without results, or there are claims but no notes to stand beside them.
    """
    for task in provenance["zero_shot"]:
        if task not in results.tasks:
            raise unknown_name("task in `zero_shot` of provenance.json", task, results.tasks, "results.csv")
    said = {p.task for p in pictures if CLAIM.search(f"{p.title} {p.caption}")}
    claims = frozenset({*provenance["zero_shot"], *said})
    if claims and not provenance["notes"]:
        raise ValueError(
            f"provenance.json: `notes` must say what the generator and the judge have seen, since zero-shot is claimed "
            f"for {', '.join(sorted(claims))}; got no notes"
        )
    return claims
