"""The sheet of images and the table that a person fills in, and the way of the labels back into the store.

    number,row,hat,beard            `number` as on the sheet, `row` of the store; empty cells are to be filled in
    1,20344,,
    2,7,,-                          `-` where there is nothing to fill in: the label is known, or does not apply

Cells are spelled as every table of labels (`lcg.data.tables`). A cell that is left empty stays unknown.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from lcg import __version__
from lcg.data.atomic import write_atomic
from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.data.store.copying import rows_of_shard
from lcg.data.store.shards import sha256_of
from lcg.data.tables import MISSING, Block, Table, labels_of, open_table
from lcg.schema import Attribute, Schema

NOTHING = "-"
NUMBER, ROW = "number", "row"
CAPTION = 18  # pixels below an image
PAPER, INK = (255, 255, 255), (45, 48, 52)


def write_table(path: Path, rows: Sequence[int], names: Sequence[str], missing: Tensor) -> None:
    """Writes the table to fill in.

    Args:
        path: the CSV file.
        rows: of the store, in the order of the sheet.
        names: of the attributes asked for.
        missing: (N, A) which labels are asked for.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow((NUMBER, ROW, *names))
    for number, (row, wanted) in enumerate(zip(rows, missing.tolist(), strict=True), start=1):
        table.writerow((number, row, *("" if asked else NOTHING for asked in wanted)))
    write_atomic(path, text.getvalue().encode())


def numbered_sheet(images: NDArray[np.uint8], columns: int = 10, scale: int = 2) -> Image.Image:
    """Images (N, H, W, 3) in reading order, numbered from 1 below each; small ones are enlarged `scale` times."""
    count, height, width, _ = images.shape
    columns, cell = min(columns, count), (width * scale + 4, height * scale + CAPTION)
    sheet = Image.new("RGB", (columns * cell[0], -(-count // columns) * cell[1]), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for i, pixels in enumerate(images):
        left, top = (i % columns) * cell[0], (i // columns) * cell[1]
        picture = Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        sheet.paste(picture, (left + 2, top))
        draw.text((left + cell[0] / 2, top + height * scale + 2), str(i + 1), INK, font, anchor="mt")
    return sheet


class FilledTable:
    """A table that somebody has filled in, for a store of `count` latents.

    Args:
        path: CSV or Parquet with a column `row` and a column per attribute.
        schema: of the store.
        count: of its latents.
        new: attributes that the store lacks.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: a column is no attribute, a cell no label of its attribute or a row none of the store; or nothing is
            filled in. The message names the line.
    """

    def __init__(self, path: str | os.PathLike[str], schema: Schema, count: int, new: Schema | None = None) -> None:
        table = open_table(path)
        names = [name for name in table.names if name not in (NUMBER, ROW)]
        if ROW not in table.names or not names:
            raise ValueError(
                f"{table.path} must have a column `row` and a column per attribute, got {list(table.names)}; "
                "fill in a table of `lcg label next`"
            )
        self.schema = joined(schema, new)
        # Details are read by themselves, whatever else is in the table.
        own = Schema(tuple(replace(self.schema[name], detail_of=(), applies_if={}) for name in names))
        self.columns = [self.schema.index(name) for name in names]
        self.cells: dict[int, tuple[int, NDArray[np.float32]]] = {}
        for block in table.blocks((ROW, *names)):
            labels = labels_of(_without_dashes(block, names), own, table)
            for line, row, cells in zip(block.lines, block.columns[ROW], labels, strict=True):
                self._add(table, line, row, cells, count)
        self.path, self.where = table.path, table.where
        self.filled = sum(int((~np.isnan(cells)).sum()) for _, cells in self.cells.values())
        if not self.filled:
            raise ValueError(f"{table.path} has no label in it; fill in its empty cells, then merge it")

    def _add(self, table: Table, line: int, row: str, cells: NDArray[np.float32], count: int) -> None:
        if not (row.isascii() and row.isdecimal() and len(row) < 19 and int(row) < count):
            raise ValueError(f"{table.where(line)}: `row` must be a row of the store, 0 to {count - 1}, got {row!r}")
        if int(row) in self.cells:
            raise ValueError(f"{table.where(line)}: row {row} has a line already; keep one")
        self.cells[int(row)] = line, cells

    def added(self, labels: Tensor, first: int, overwrite: bool = False) -> Tensor:
        """The labels (n, A) of rows first..first+n-1 of the store, by its own schema, with those of the table.

        Raises:
            ValueError: a label contradicts one that is known, and `overwrite` is off; the line is named.
        """
        more = torch.full((len(labels), len(self.schema)), torch.nan)
        more[:, : labels.shape[1]] = labels
        for row in range(first, first + len(labels)):
            if row not in self.cells:
                continue
            line, cells = self.cells[row]
            for column, value in zip(self.columns, cells.tolist(), strict=True):
                old = float(more[row - first, column])
                if value == value and old == old and old != value and not overwrite:
                    raise ValueError(
                        f"{self.where(line)}: {self.schema.names[column]!r} of row {row} is known to be {old:g}, the "
                        f"table says {value:g}; clear the cell, or replace known labels with --overwrite true"
                    )
                if value == value:
                    more[row - first, column] = value
        return more


def joined(schema: Schema, new: Schema | None) -> Schema:
    """A store's attributes and new ones. Raises ValueError for a new one that is there already as something else."""
    more: list[Attribute] = []
    for attribute in new or ():
        if attribute.name not in schema:
            more.append(attribute)
        elif schema[attribute.name] != attribute:
            raise ValueError(
                f"`schema` describes {attribute.name!r}, which the store has already as something else; leave it out"
            )
    return Schema((*schema, *more))


def merge_labels(
    store: str | os.PathLike[str],
    table: str | os.PathLike[str],
    out: str | os.PathLike[str],
    new: Schema | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> tuple[LatentStore, int]:
    """Makes a store of the same latents with the labels of a filled table, or finishes one that was begun.

    Args:
        store: folder of the store, which is not touched.
        table: the filled table.
        out: folder of the new store.
        new: attributes that the store lacks.
        overwrite: whether the table wins over labels that are known.
        progress: show samples done, rate and time left.

    Returns:
        The finished store, and how many cells were filled in.

    Raises:
        FileNotFoundError: there is no store or no table.
        ValueError: the table does not fit the store, see `FilledTable`; nothing was written.
        OSError: `out` cannot be written.
    """
    old = LatentStore.open(store)
    filled = FilledTable(table, old.schema, len(old), new)
    size = rows_of_shard(old.latent_shape, old.manifest.dtype)
    starts = range(0, len(old), size)
    for start in starts:  # refuses what contradicts before anything is written
        filled.added(old.labels(slice(start, start + size)), start, overwrite)
    writer = LatentStoreWriter(out, old.latent_shape, filled.schema, provenance_of(old, filled), old.manifest.dtype)
    with tqdm(total=len(old), initial=writer.count, unit="latent", desc="merge", disable=not progress) as bar:
        for start in range(writer.count, len(old), size):
            rows = slice(start, start + size)
            writer.append(old.latents(rows), filled.added(old.labels(rows), start, overwrite), old.index(rows))
            bar.update(len(old.index(rows)))
    return writer.finish(old.statistics.whitening is not None), filled.filled


def provenance_of(store: LatentStore, filled: FilledTable) -> dict[str, object]:
    """That of the store, with the table. `relabelled` names the store that the latents are from, however often."""
    told = {"table": {"file": filled.path.name, "sha256": sha256_of(filled.path)}, "cells": filled.filled}
    origin = store.provenance.get("relabelled", {"store": store.fingerprint})
    filled_in = [*store.provenance.get("filled_in", []), told]
    return {**store.provenance, "lcg": __version__, "relabelled": origin, "filled_in": filled_in}


def _without_dashes(block: Block, names: Sequence[str]) -> Block:
    empty = min(MISSING)
    cells = {name: [empty if cell == NOTHING else cell for cell in block.columns[name]] for name in names}
    return Block(block.lines, cells)
