"""Your own images: a folder, and a table with one row per image and one column per attribute.

    file,smile,hair,age
    0001.png,1,blond,0.4
    0002.png,0,red,

What cells may say stands in `lcg.data.tables`.

Whether two folders share images is told from the SHA-256 of their files' bytes. What is made of a folder keeps the
`SKETCH` smallest of these (a bottom-k sketch, the idea of Broder 1997, "On the resemblance and containment of
documents"): every folder chooses alike, so that common files are found among them. Up to so many files nothing is
missed; of n files, m common ones are noticed with probability about 1 - (1 - SKETCH / n)^m. An image that was resized
or saved again has other bytes, and is not recognised.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from lcg.data.source import ImageSource
from lcg.data.tables import Table, labels_of, open_table, scan
from lcg.schema import Schema

SKETCH = 1024
"""Files of a folder by which it is compared with others."""


@runtime_checkable
class Fingerprinted(Protocol):
    """An image source that can tell its images from those of others by what is in them."""

    def fingerprints(self) -> dict[str, Any]:
        """See `ImageFolder.fingerprints`."""


def provenance_of(**sources: ImageSource) -> dict[str, Any]:
    """What is kept of the images that something was made of, in JSON primitives.

    Args:
        **sources: by the part that they played, such as `train`.

    Returns:
        The identity of each by its name, and under `fingerprints` the fingerprints of each that has them.
    """
    identities = {name: source.identity() for name, source in sources.items()}
    found = {name: source.fingerprints() for name, source in sources.items() if isinstance(source, Fingerprinted)}
    return {**identities, "fingerprints": found} if found else identities


class ImageFolder(ImageSource):
    """Images of one size in a folder, labelled by a CSV or Parquet table; an `ImageSource`.

    Args:
        root: the folder that the table's file names are relative to.
        table: path of the table; column `file`, then one column per attribute.
        schema: the attributes to read, each a column; inferred from all columns when None.

    Raises:
        FileNotFoundError: the folder, the table or an image is missing.
        ValueError: the table lacks a column, repeats a file, reaches outside the folder, or has a cell that is no label
            of its attribute (the message names the line), or the first file is no image.
    """

    def __init__(
        self, root: str | os.PathLike[str], table: str | os.PathLike[str], schema: Schema | None = None
    ) -> None:
        self.root, self.table = Path(root), Path(table)
        if not self.root.is_dir():
            raise FileNotFoundError(f"`root` must be a folder of images, got {self.root}, which is none")
        columns = open_table(self.table)
        if "file" not in columns.names:
            raise ValueError(
                f"{self.table}: the first line must name the columns, one of them `file`; got {list(columns.names)}"
            )
        self.schema, count = scan(columns, schema, ignore=("file",))
        if count == 0:
            raise ValueError(f"{self.table} has no rows; add one per image")
        self.files: list[str] = []
        labels, first_line = [], dict[str, int]()
        for block in columns.blocks({"file", *self.schema.names}):
            for line, name in zip(block.lines, block.columns["file"], strict=True):
                self._check_file(name, columns, line, first_line)
            self.files += block.columns["file"]
            labels.append(labels_of(block, self.schema, columns))
        self._labels = np.concatenate(labels)
        height, width = self._pixels(0, None).shape[:2]
        self.image_shape: tuple[int, int, int] = (3, height, width)

    def __len__(self) -> int:
        return len(self.files)

    def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, H, W, 3) uint8 and labels (n, A) float32, NaN where missing, of lines start to stop.

        Raises:
            ValueError: an image cannot be read or has another size than the first one; the message names the file.
        """
        size = self.image_shape[1:]
        return np.stack([self._pixels(i, size) for i in range(start, stop)]), self._labels[start:stop].copy()

    @property
    def labels(self) -> np.ndarray:
        """All labels (N, A) float32, NaN where missing."""
        return self._labels.copy()

    def fingerprints(self) -> dict[str, Any]:
        """What is in the files, in JSON primitives; reads all of them when it is first asked.

        Returns:
            `files` how many there are; `sha256` of all their bytes, in the table's order; `smallest` the smallest
            `SKETCH` hashes of their contents, 16 hexadecimal digits each, ascending and distinct.
        """
        return self._fingerprints

    @cached_property
    def _fingerprints(self) -> dict[str, Any]:
        with ThreadPoolExecutor() as pool:  # hashlib lets other threads run
            hashed = pool.map(lambda name: hashlib.sha256((self.root / name).read_bytes()).digest(), self.files)
            digests = list(tqdm(hashed, "fingerprints", len(self), leave=False, unit="file"))
        return {
            "files": len(digests),
            "sha256": hashlib.sha256(b"".join(digests)).hexdigest(),
            "smallest": sorted({digest[:8].hex() for digest in digests})[:SKETCH],
        }

    def identity(self) -> dict[str, Any]:
        return {
            "class": "lcg.data.images.ImageFolder",
            "table_sha256": hashlib.sha256(self.table.read_bytes()).hexdigest(),
            "attributes": list(self.schema.names),
            "image_shape": list(self.image_shape),
        }

    def _check_file(self, name: str, table: Table, line: int, first_line: dict[str, int]) -> None:
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{table.where(line)}: `file` must be a path below {self.root}, got {name!r}")
        if name in first_line:
            raise ValueError(
                f"{table.where(line)}: {name!r} is on {table.unit} {first_line[name]} already; keep one of the two"
            )
        if not (self.root / name).is_file():
            raise FileNotFoundError(
                f"{table.where(line)}: no image at {self.root / name}; remove the line or add the image"
            )
        first_line[name] = line

    def _pixels(self, i: int, size: tuple[int, int] | None) -> np.ndarray:
        path = self.root / self.files[i]
        try:
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
        except (
            OSError,
            SyntaxError,
            Image.DecompressionBombError,
        ) as error:  # SyntaxError: what PIL calls a broken PNG
            raise ValueError(f"cannot read the image {path}: {error}; replace it or remove its line") from error
        if size is not None and (upright.height, upright.width) != size:
            raise ValueError(
                f"{path} is {upright.height} x {upright.width} (height x width), expected {size[0]} x {size[1]} as the "
                "first image; align and resize all images to one size"
            )
        return np.asarray(upright)
