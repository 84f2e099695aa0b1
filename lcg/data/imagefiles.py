"""What all data sets of image files have in common: files below a folder, in order, with labels."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcg.data.alignment import read_squares
from lcg.data.framing import Frame
from lcg.data.reading import Reading, Survey, in_order, kept, listed
from lcg.data.source import ImageSource
from lcg.schema import Schema

MOST_SKIPPED = 0.5
"""The share of files beyond which skipping is rather a mistake."""


class ImageFiles(ImageSource):
    """Image files with labels; the base of the classes that know a layout.

    Args:
        root: the folder that names are relative to.
        files: names of the files, distinct.
        labels: (N, A) float32, NaN where missing.
        schema: the columns of the labels.
        origin: what tells this data set from others, in JSON primitives.
        reading: how files are read.
        frame: what the layout takes of an image before `reading` brings it to its size.
        place: takes the number of a file; how messages say where it is named, such as "table.csv, line 3: ".
        squares: (N, 4) the part taken of each image, where the layout knows it, see `lcg.data.alignment`.

    Raises:
        FileNotFoundError: images are missing.
        ValueError: there are no images, or too many are to be skipped, or the first one, which gives all their size,
            cannot be read.
    """

    def __init__(
        self,
        root: Path,
        files: list[str],
        labels: NDArray[np.float32],
        schema: Schema,
        origin: dict[str, Any],
        reading: Reading,
        frame: Frame = Frame(),  # noqa: B008 (frozen)
        place: Callable[[int], str] = lambda _: "",
        squares: NDArray[np.float64] | None = None,
    ) -> None:
        self.root, self.files, self.schema, self.reading = root, files, schema, reading
        self.skipped: dict[str, str] = {}
        self._labels, self._origin = labels, origin
        self._kept: Survey | None = None
        if not files:
            raise ValueError(f"no images are named below {root}; is this the right folder, and the right part?")
        self._squares = squares if reading.landmarks is None else read_squares(reading.landmarks, files, root)
        if reading.broken == "refuse":
            self._refuse_missing(place)
        size = reading.shape or self._first_size(frame)
        self._frame = replace(frame, size=size, fit=reading.fit)
        self.image_shape: tuple[int, int, int] = (3, *size)
        if reading.broken == "skip":
            self._skip()

    def __len__(self) -> int:
        return len(self.files)

    def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, H, W, 3) uint8 and labels (n, A) float32, NaN where missing, of files start to stop.

        Raises:
            ValueError: images cannot be read or have another size; the message names the files.
        """
        return self.pixels(range(start, stop)), self._labels[start:stop].copy()

    def pixels(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """The images (n, H, W, 3) of any rows, read by threads.

        Raises:
            ValueError: see `chunk`.
        """
        images = np.empty((len(rows), *self.image_shape[1:], 3), np.uint8)

        def fill(k: int) -> str:
            try:
                images[k] = self._pixels(rows[k], self._bytes(rows[k]))
            except (ValueError, OSError) as error:
                return str(error)
            return ""

        if len(rows) < 2 or self.reading.threads == 1:
            told = [fill(k) for k in range(len(rows))]
        else:
            told = list(in_order(fill, len(rows), self.reading.threads))
        self._refuse({self.files[rows[k]]: fault for k, fault in enumerate(told) if fault})
        return images

    @property
    def labels(self) -> np.ndarray:
        """All labels (N, A) float32, NaN where missing."""
        return self._labels.copy()

    def fingerprints(self) -> dict[str, Any]:
        """What is in the files, in JSON primitives; looks at all of them when it is first asked.

        Returns:
            `files` how many there are; `sha256` of all their bytes, in their order; `smallest` the smallest
            `SKETCH` hashes of their contents, 16 hexadecimal digits each, ascending and distinct.

        Raises:
            ValueError: images are broken or have another size; the message names some and counts all.
        """
        return self._fingerprints

    @cached_property
    def _fingerprints(self) -> dict[str, Any]:
        if self._kept is not None:
            return self._kept.fingerprints
        survey = Survey.of(self.files, self._look, self.reading.threads)
        self._refuse(survey.faults)
        return survey.fingerprints

    def identity(self) -> dict[str, Any]:
        told = {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            **self._origin,
            "attributes": list(self.schema.names),
            "image_shape": list(self.image_shape),
            **self.reading.identity(),
        }
        return told | ({"skipped": list(self.skipped)} if self.skipped else {})

    # --- single files ---

    def _bytes(self, i: int) -> bytes:
        with open(os.path.join(self.root, self.files[i]), "rb", buffering=0) as file:
            return file.read()

    def _pixels(self, i: int, data: bytes) -> NDArray[np.uint8]:
        if self._squares is None:
            return self._frame.pixels(data)
        if np.isnan(self._squares[i]).any():
            raise ValueError("there are no landmarks of it")
        return self._frame.pixels(data, self._squares[i])

    def _look(self, i: int, thorough: bool = False) -> tuple[bytes, str]:
        """The hash of a file, and what is wrong with it; only a thorough look decodes what seems to be well."""
        try:
            data = self._bytes(i)
            if thorough or self._squares is not None or self._frame.suspects(data):
                self._pixels(i, data)
        except (FileNotFoundError, ValueError) as error:  # other errors are the disk's, which may be well tomorrow
            return b"", "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        return hashlib.sha256(data).digest(), ""

    # --- broken ones ---

    def _refuse(self, faults: dict[str, str]) -> None:
        if faults:
            raise self._refusal(faults)

    def _refusal(self, faults: dict[str, str]) -> ValueError:
        return ValueError(
            f"cannot read {len(faults)} of {len(self)} images below {self.root}: {listed(faults)}. Replace them or "
            "remove their lines, bring them to one size by `reading.size` and `reading.fit`, or leave them out with "
            "`reading.broken: skip`"
        )

    def _refuse_missing(self, place: Callable[[int], str]) -> None:
        missing = [i for i, name in enumerate(self.files) if not os.path.isfile(os.path.join(self.root, name))]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise FileNotFoundError(
                f"{place(missing[0])}no image at {self.root / self.files[missing[0]]}{more}; remove the line "
                f"or add the image (names are relative to {self.root})"
            )

    def _first_size(self, frame: Frame) -> tuple[int, int]:
        """The size of the first image that can be read; where broken ones are refused, of the first."""
        faults: dict[str, str] = {}
        while len(faults) < (len(self.files) if self.reading.broken == "skip" else 1):
            i = len(faults)
            try:
                height, width = frame.pixels(self._bytes(i)).shape[:2]
                return height, width
            except (ValueError, FileNotFoundError) as error:
                faults[self.files[i]] = str(error)
        raise self._refusal(faults)

    def _skip(self) -> None:
        """Leaves out the files that cannot be read, as all processes do."""
        path = Path(self.reading.notes or self.root) / f".lcg-skipped-{self._state()}.json"
        threads = self.reading.threads
        survey, decided = kept(path, lambda: Survey.of(self.files, lambda i: self._look(i, thorough=True), threads))
        if len(survey.faults) > MOST_SKIPPED * len(self.files):
            raise self._refusal(survey.faults)
        if survey.faults and decided:
            print(
                f"{len(survey.faults)} of {len(self.files)} images below {self.root} are skipped: "
                f"{listed(survey.faults)}. All are listed in {path}",
                file=sys.stderr,
            )
        rows = [i for i, name in enumerate(self.files) if name not in survey.faults]
        self.files, self._labels = [self.files[i] for i in rows], self._labels[rows]
        self._squares = None if self._squares is None else self._squares[rows]
        self.skipped, self._kept = survey.faults, survey

    def _state(self) -> str:
        """Names what decides on which files are skipped: they themselves, and how they are read."""
        digest = hashlib.sha256(json.dumps([repr(self._frame), self.reading.identity()]).encode())
        digest.update(b"" if self._squares is None else self._squares.tobytes())
        for name in self.files:
            try:
                found = os.stat(self.root / name)
                digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
            except FileNotFoundError:
                digest.update(f"{name}\0\n".encode())
        return digest.hexdigest()[:16]
