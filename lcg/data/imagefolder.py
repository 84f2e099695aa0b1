"""The layout `imagefolder` of Hugging Face: images with a file of metadata, or in a folder per class.

    ROOT/train/metadata.csv      file_name,smile,hair         ROOT/train/cat/1.png
    ROOT/train/0001.png          0001.png,1,blond             ROOT/train/dog/2.png

The metadata are `metadata.csv`, `.parquet` or `.jsonl` (an object per line, in which null and what is missing are
unknown), in the folder of a split or in ROOT, and name files relative to where they lie. Without metadata the folders
are the values of one categorical attribute, `label`. Labels mean what they do in `lcg.data.tables`. Reference:
https://huggingface.co/docs/datasets/image_dataset.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lcg.data import multilabel
from lcg.data.imagefiles import ImageFiles
from lcg.data.labelled import named, sha256_of_table
from lcg.data.reading import Reading
from lcg.data.tables import ROWS_AT_ONCE, Block, Table, open_table, spelled
from lcg.schema import Attribute, Schema

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif"})
"""Of files in folders of classes; others are no images."""


class HuggingFaceFolder(ImageFiles):
    """Images as `datasets.load_dataset("imagefolder", data_dir=ROOT)` finds them.

    Args:
        root: the folder.
        split: the folder of a part in `root`, such as train; None for images in `root` itself.
        schema: the attributes to read, each a column of the metadata, or the order of the classes as the values of one
            categorical attribute; inferred when None.
        reading: size and fit of the images, and how they are read.

    Raises:
        FileNotFoundError: the folder or an image is missing.
        ValueError: there are neither metadata nor folders of classes, or the metadata hold a mistake, named by line.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        schema: Schema | None = None,
        reading: Reading = Reading(),  # noqa: B008 (frozen)
    ) -> None:
        top = Path(root)
        folder = top if split is None else top / split
        if not folder.is_dir():
            raise FileNotFoundError(f"`root` must be a folder of images, got {folder}, which is none")
        found = [place / name for place in dict.fromkeys((folder, top)) for name in METADATA]
        path = next(filter(Path.is_file, found), None)
        if path is None:
            files, schema = _classes(folder, schema)
            (attribute,) = schema
            labels = np.array([[attribute.value_index(name.split("/")[0])] for name in files], np.float32)
            super().__init__(folder, files, labels, schema, {"listing_sha256": _listing(folder, files)}, reading)
            return
        table = JsonLines(path) if path.suffix == ".jsonl" else open_table(path)
        part = "" if split is None or path.parent == folder else f"{split}/"
        rows = named(table, path.parent, schema, "file_name", (lambda name: name.startswith(part)) if part else None)
        origin = {"table_sha256": sha256_of_table(path, part)}
        super().__init__(path.parent, rows.files, rows.labels, rows.schema, origin, reading, place=rows.place)


class JsonLines(Table):
    """A table with a JSON object per line; its columns are the keys of all of them.

    Raises:
        ValueError: a line is no object, or holds something else than numbers, texts, booleans and null; it is named.
    """

    unit = "line"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = tuple(dict.fromkeys(key for _, row in self._rows() for key in row))

    def blocks(self, columns: Collection[str] | None = None) -> Iterator[Block]:
        chosen = [name for name in self.names if columns is None or name in columns]
        lines: list[int] = []
        rows: list[list[str]] = []
        for line, row in self._rows():
            lines.append(line)
            rows.append([self._spelled(row.get(name), line, name) for name in chosen])
            if len(rows) == ROWS_AT_ONCE:
                yield Block(lines, {name: [row[j] for row in rows] for j, name in enumerate(chosen)})
                lines, rows = [], []
        if rows:
            yield Block(lines, {name: [row[j] for row in rows] for j, name in enumerate(chosen)})

    def _rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        with open(self.path, encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except ValueError as error:
                    raise ValueError(f"{self.where(line)} is no JSON: {error}") from error
                if not isinstance(row, dict):
                    raise ValueError(f"{self.where(line)} must be a JSON object, got {text.strip()[:40]!r}")
                yield line, row

    def _spelled(self, value: object, line: int, name: str) -> str:
        members = isinstance(value, list) and multilabel.spelled_list(value) is not None
        if value is not None and not members and not isinstance(value, bool | int | float | str):
            raise ValueError(
                f"{self.where(line)}: {name!r} must be a number, a text, a boolean, a list of texts or null; "
                "give a `schema` without it"
            )
        return spelled(value)


def _classes(folder: Path, schema: Schema | None) -> tuple[list[str], Schema]:
    """The images in folders of classes, in order of their names, and what the classes are."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if schema is None:
        if len(classes) < 2:
            raise ValueError(
                f"{folder} has neither metadata ({', '.join(METADATA)}) nor two folders of classes; add metadata "
                "with a column `file_name`, or give the `split` whose folder has either"
            )
        schema = Schema((Attribute("label", "categorical", tuple(classes)),))
    if len(schema) != 1 or next(iter(schema)).kind != "categorical":
        raise ValueError(f"`schema` of folders of classes must be one categorical attribute, got {schema.names}")
    (attribute,) = schema
    for name in classes:
        attribute.value_index(name)
    files = [
        path.relative_to(folder).as_posix()
        for name in classes
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    return files, schema


def _listing(folder: Path, files: list[str]) -> str:
    """Names a set of files by their names and lengths, which takes no reading."""
    lines = (f"{name} {(folder / name).stat().st_size}\n" for name in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
