"""Latents of your own: files of latents and a table of labels become a latent store.

    a.npy, b.npz, c.safetensors  +  labels.csv or labels.parquet  ->  store

Row i of all files together is sample i of the store. Row i of the table labels it; or, where the table has a column
`row` or `index`, whatever row the cell there says, counted from 0: samples without a line have no labels. Nothing is
held in memory but one shard. The job may be killed and started again at any moment; it goes on after the last shard.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lcg import __version__
from lcg.data.arrays import Rows, open_array
from lcg.data.store.copying import rows_of_shard
from lcg.data.store.labelling import labels_from
from lcg.data.store.reader import LatentStore
from lcg.data.store.shards import sha256_of
from lcg.data.store.writer import LatentStoreWriter
from lcg.generators.base import Generator
from lcg.schema import Schema


def import_latents(
    latents: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    table: str | os.PathLike[str] | None = None,
    schema: Schema | None = None,
    member: str | None = None,
    labels: str | None = None,
    dtype: str = "float32",
    generator: Generator | None = None,
    shard_size: int | None = None,
    progress: bool = True,
) -> LatentStore:
    """Makes a latent store of latents in files, or finishes one that was begun.

    Args:
        latents: .npy, .npz or .safetensors files of arrays (N, *latent_shape), in order.
        out: folder of the store.
        table: CSV or Parquet with a column per attribute; None for a store without attributes, or with `labels`.
        schema: the attributes; None to infer them from the table.
        member: name of the latents in .npz and .safetensors files; None for the only array.
        labels: name of the labels (N, A) in the same files, in the order of `schema`; in the place of a table.
        dtype: how latents are stored.
        generator: what made the latents; its identity is kept, so that images are not made by another one.
        shard_size: samples stored together; None for about 64 MiB of latents.
        progress: show samples done, rate and time left.

    Returns:
        The finished store.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not what it should be, numbers of samples differ, a cell is no label (its line is named),
            a latent is not finite (its row is named), or `out` was begun with other settings.
        ImportError: the table is Parquet, and pyarrow is not installed.
        OSError: `out` cannot be written.
    """
    if not latents:
        raise ValueError("`latents` must name at least one .npy, .npz or .safetensors file, got none")
    if shard_size is not None and shard_size < 1:
        raise ValueError(f"`shard_size` must be >= 1, got {shard_size}")
    arrays = Rows([open_array(path, member) for path in latents])
    if generator is not None and tuple(generator.latent_shape) != arrays.shape:
        raise ValueError(
            f"the latents have shape {arrays.shape}, the generator takes {tuple(generator.latent_shape)}; "
            "they were made by another one"
        )
    if not arrays.shape:
        raise ValueError("`latents` must have a row per sample, such as (N, 512), got one number per sample")
    labelled = labels_from(latents, arrays, table, schema, labels)
    provenance = described(latents, table, member, labels, generator)
    writer = LatentStoreWriter(out, arrays.shape, labelled.schema, provenance, dtype)
    size = shard_size or rows_of_shard(arrays.shape, dtype)
    with tqdm(total=len(arrays), initial=writer.count, unit="latent", desc="import", disable=not progress) as bar:
        while writer.count < len(arrays):
            start, stop = writer.count, min(writer.count + size, len(arrays))
            rows = arrays.rows(start, stop)
            refuse_not_finite(rows, start, arrays)
            writer.append(rows, labelled.rows(start, stop), np.arange(start, stop))
            bar.update(stop - start)
    return writer.finish()


def refuse_not_finite(rows: np.ndarray, start: int, arrays: Rows) -> None:
    """Raises ValueError where one of the rows, the first of which is number `start`, is not finite."""
    bad = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    if bad.any():
        raise ValueError(
            f"the latent in {arrays.where(start + int(bad.argmax()))} is not finite, and {int(bad.sum())} of "
            f"{len(rows)} rows near it are not; leave them out, or make them again"
        )


def described(
    latents: Sequence[str | os.PathLike[str]],
    table: str | os.PathLike[str] | None,
    member: str | None,
    labels: str | None,
    generator: Generator | None,
) -> dict[str, Any]:
    """The provenance: what was imported, by name and content. Reads the files once."""
    paths = [Path(path) for path in latents]
    told: dict[str, Any] = {
        "latents": [{"file": path.name, "sha256": sha256_of(path)} for path in paths],
        "member": member,
        "labels": labels,
        "table": None if table is None else {"file": Path(table).name, "sha256": sha256_of(Path(table))},
    }
    made = {} if generator is None else {"generator": generator.identity()}
    return {"import": told, **made, "lcg": __version__}
