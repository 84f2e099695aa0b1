"""Your own images: a folder, and a table with one row per image and one column per attribute.

    file,smile,hair,age
    0001.png,1,blond,0.4
    0002.png,0,red,

What cells may say stands in `lcg.data.tables`, how files are read in `lcg.data.reading` and `lcg.data.framing`. Data
sets with a layout of their own have classes of their own: `lcg.data.celeba`, `lcg.data.ffhq`, `lcg.data.imagefolder`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lcg.data.imagefiles import ImageFiles
from lcg.data.labelled import named, read_labelled, sha256_of_table
from lcg.data.lists import open_any
from lcg.data.reading import SKETCH, Reading
from lcg.data.source import ImageSource
from lcg.schema import Schema

__all__ = ["SKETCH", "Fingerprinted", "ImageFolder", "provenance_of"]


@runtime_checkable
class Fingerprinted(Protocol):
    """An image source that can tell its images from those of others by what is in them."""

    def fingerprints(self) -> dict[str, Any]:
        """See `lcg.data.imagefiles.ImageFiles.fingerprints`."""


def provenance_of(**sources: ImageSource) -> dict[str, Any]:
    """What is kept of the images that something was made of, in JSON primitives.

    Args:
        **sources: by the part that they played, such as `train`.

    Returns:
        The identity of each by its name; under `fingerprints` the fingerprints of each that has them, and under
        `labelled` the labellers that labels are from, where there are any.

    Raises:
        ValueError: a source has images that cannot be read; the message names some and counts all.
    """
    identities = {name: source.identity() for name, source in sources.items()}
    found = {name: source.fingerprints() for name, source in sources.items() if isinstance(source, Fingerprinted)}
    labelled = [dict(entry) for source in sources.values() for entry in getattr(source, "labelled", ())]
    return identities | ({"fingerprints": found} if found else {}) | ({"labelled": labelled} if labelled else {})


class ImageFolder(ImageFiles):
    """Images in a folder, labelled by a table; an `ImageSource`.

    Args:
        root: the folder that the table's file names are relative to.
        table: path of the table, CSV, Parquet or CelebA's list format (.txt); a column of files, and one per attribute.
        schema: the attributes to read, each a column; inferred from all columns when None.
        reading: size and fit of the images, and how they are read.
        column: the column of the files.

    Raises:
        FileNotFoundError: the folder, the table or an image is missing.
        ValueError: the table lacks a column, repeats a file, reaches outside the folder, or has a cell that is no label
            of its attribute (the message names the line), or the first file is no image.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        table: str | os.PathLike[str],
        schema: Schema | None = None,
        reading: Reading = Reading(),  # noqa: B008 (frozen)
        column: str = "file",
    ) -> None:
        folder, self.table = Path(root), Path(table)
        if not folder.is_dir():
            raise FileNotFoundError(f"`root` must be a folder of images, got {folder}, which is none")
        rows = named(open_any(self.table), folder, schema, column)
        origin = {"table_sha256": sha256_of_table(self.table)}
        super().__init__(folder, rows.files, rows.labels, rows.schema, origin, reading, place=rows.place)
        self.labelled = read_labelled(self.table, self.schema)
