"""Labels into a table of image files, CSV or Parquet, as `lcg.data.images.ImageFolder` reads it.

    file,smile,hair
    0001.png,1,blond
    0002.png,,red           an empty cell: the labeller could not say

Labels are kept in a file beside the table as they come (`.TABLE.labels`), so that a job that was killed goes on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lcg.data.atomic import write_atomic
from lcg.data.imagefiles import ImageFiles
from lcg.data.labelled import labelled_beside
from lcg.data.reading import Reading
from lcg.labels.base import Floats, Labeller
from lcg.labels.storing import checked
from lcg.schema import Attribute, Schema

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class UnlabelledFolder(ImageFiles):
    """All images below a folder, in the order of their names, of which nothing is known.

    Args:
        root: the folder.
        reading: how files are read, and which size they are brought to.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: as `ImageFiles`.
    """

    def __init__(self, root: str, reading: Reading = Reading()) -> None:  # noqa: B008 (frozen)
        folder = Path(root)
        if not folder.is_dir():
            raise FileNotFoundError(f"`root` must be a folder of images, got {folder}, which is none")
        found = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
        files = sorted(path.relative_to(folder).as_posix() for path in found)
        if not files:
            raise FileNotFoundError(f"{folder} has no images (files that end in {', '.join(ENDINGS)})")
        names = hashlib.sha256("\n".join(files).encode()).hexdigest()
        labels = np.empty((len(files), 0), np.float32)
        super().__init__(folder, files, labels, Schema(()), {"files_sha256": names}, reading)


def label_files(
    source: ImageFiles, labeller: Labeller, out: str, batch_size: int = 256, progress: bool = True
) -> Floats:
    """Labels (N, A) of a source's images, in its order; from where a killed job has stopped.

    Args:
        source: image files.
        labeller: says what is in them.
        out: the table that they are for.
        batch_size: images read and looked at together.
        progress: show images done, rate and time left.

    Raises:
        ValueError: an image cannot be read, or the labeller breaks its word.
        OSError: the file beside the table cannot be written.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be >= 1, got {batch_size}")
    aside, width, total = labels_aside(out), len(labeller.schema), len(source)
    aside.parent.mkdir(parents=True, exist_ok=True)
    told = json.dumps([source.identity(), labeller.identity(), source.files], sort_keys=True)
    settings = hashlib.sha256(told.encode()).digest()
    begun = aside.read_bytes()[: len(settings)] == settings if aside.is_file() else False
    with open(aside, "r+b" if begun else "w+b") as file:
        if not begun:
            file.write(settings)
        body = file.seek(0, os.SEEK_END) - len(settings)
        done = min(body // (4 * width), total)
        file.truncate(len(settings) + 4 * width * done)  # a row that was not written whole
        file.seek(0, os.SEEK_END)
        with tqdm(total=total, initial=done, unit="image", desc="label", disable=not progress) as bar:
            for start in range(done, total, batch_size):
                stop = min(start + batch_size, total)
                images, _ = source.chunk(start, stop)
                file.write(checked(labeller, labeller.label(images), stop - start).tobytes())
                file.flush()
                bar.update(stop - start)
        file.seek(len(settings))
        return np.frombuffer(file.read(), np.float32).reshape(total, width).copy()


def labels_aside(out: str) -> Path:
    """The file that keeps labels until the table is written."""
    path = Path(out)
    return path.with_name(f".{path.name}.labels")


def write_table(
    out: str, files: list[str], schema: Schema, labels: Floats, labelled: Sequence[Mapping[str, Any]]
) -> None:
    """Writes a table, in one step, and beside it who gave its labels.

    Args:
        out: its path; Parquet where it ends in .parquet or .pq, else CSV.
        files: (N,) names.
        schema: the columns of the labels.
        labels: (N, A), NaN where unknown.
        labelled: the labellers that labels are from, as `lcg.labels.storing.labelled` names them.

    Raises:
        ImportError: it is Parquet, and pyarrow is not installed.
        OSError: it cannot be written.
    """
    cells: dict[str, list[str]] = {"file": files}
    for j, attribute in enumerate(schema):
        cells[attribute.name] = [spelled(attribute, label) for label in labels[:, j]]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(labelled_beside(Path(out)), json.dumps(list(labelled), indent=1).encode())
    write_atomic(Path(out), _parquet(out, cells, schema) if is_parquet(out) else _csv(cells))
    labels_aside(out).unlink(missing_ok=True)


def spelled(attribute: Attribute, label: np.float32) -> str:
    """A label as a table has it."""
    if np.isnan(label):
        return ""
    if attribute.kind == "categorical":
        return attribute.values[int(label)]
    return str(int(label)) if attribute.kind == "binary" else str(label)  # the shortest text that reads the same


def is_parquet(out: str) -> bool:
    """Whether a table is to be Parquet, by its name."""
    return Path(out).suffix.lower() in (".parquet", ".pq")


def check_parquet(out: str) -> None:
    """Raises ImportError where a table is to be Parquet and cannot be; called before work starts."""
    if is_parquet(out):
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ImportError(f"{out} needs pyarrow: pip install 'lcg[parquet]', or name it .csv") from error


def _csv(cells: dict[str, list[str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(cells)
    writer.writerows(zip(*cells.values(), strict=True))
    return text.getvalue().encode()


def _parquet(out: str, cells: dict[str, list[str]], schema: Schema) -> bytes:
    check_parquet(out)
    import pyarrow
    from pyarrow import parquet

    def typed(name: str, column: list[str]) -> Any:
        if name in schema and schema[name].kind != "categorical":
            return pyarrow.array([None if cell == "" else float(cell) for cell in column], pyarrow.float32())
        return pyarrow.array([cell or None for cell in column], pyarrow.string())

    sink = io.BytesIO()
    parquet.write_table(pyarrow.table({name: typed(name, column) for name, column in cells.items()}), sink)
    return sink.getvalue()
