"""One store becomes several, each sample in one of them: by a hash of its number, or by an attribute.

The hash is that of the train/validation split with a stream of its own (`lcg.data.split`): parts are as good as drawn
by chance, a sample stays in its part when the store grows, and each part has its share of validation samples.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lcg.data.split import uniform
from lcg.data.store.copying import Picks, copy, rows_of_shard
from lcg.data.store.reader import LatentStore
from lcg.data.store.shards import ROWS_AT_ONCE
from lcg.data.store.writer import LatentStoreWriter
from lcg.schema import Attribute

STREAM = "store split"
"""Of the hash; another one than that of training and validation."""
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""Names of folders: what a value is called may come from a stranger."""


@dataclass(frozen=True)
class Division:
    """Which part each sample is in.

    Attributes:
        names: of the parts.
        told: in JSON primitives, what divides.
        edges: (P + 1,) of [0, 1], for parts by hash.
        column: of the labels, for parts by attribute; the last part holds missing labels.
    """

    names: tuple[str, ...]
    told: dict[str, Any]
    edges: np.ndarray | None = None
    column: int | None = None

    @classmethod
    def by_hash(cls, parts: Mapping[str, float]) -> Division:
        """By shares.

        Raises:
            ValueError: a name cannot be that of a folder, a share is not positive, or they do not add up to 1.
        """
        for name, share in parts.items():
            if not SAFE.fullmatch(name):
                raise ValueError(f"names in `parts` must be letters, digits, '_', '.' and '-', got {name!r}")
            if not share > 0:
                raise ValueError(f"shares in `parts` must be positive, got {share} for {name!r}")
        if len(parts) < 2 or abs(sum(parts.values()) - 1) > 1e-6:
            raise ValueError(
                f"`parts` must be two or more shares that add up to 1, got {dict(parts)}; "
                'such as --parts \'{"train": 0.8, "judge": 0.2}\''
            )
        edges = np.cumsum([0.0, *parts.values()])
        edges[-1] = 1.0  # of what the sum lacks by rounding
        return cls(tuple(parts), {"parts": dict(parts)}, edges)

    @classmethod
    def by_attribute(cls, store: LatentStore, name: str) -> Division:
        """By the values of a binary or categorical attribute.

        Raises:
            ValueError: there is no such attribute, or it is continuous.
        """
        attribute = store.schema[name]
        if attribute.kind == "continuous":
            raise ValueError(f"`by` must be a binary or categorical attribute, got {name!r}, which is continuous")
        names = (*(f"{name}-{value}" for value in _values(attribute)), f"{name}-unknown")
        return cls(names, {"by": name}, column=store.schema.index(name))

    def of(self, store: LatentStore, rows: slice) -> np.ndarray:
        """The number of the part of each row (n,)."""
        if self.edges is not None:
            return np.searchsorted(self.edges, uniform(store.index(rows), STREAM), side="right") - 1
        labels = store.labels(rows)[:, self.column].numpy()
        return np.where(np.isnan(labels), len(self.names) - 1, labels).astype(np.int64)


def split_store(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    parts: Mapping[str, float] | None = None,
    by: str | None = None,
    shard_size: int | None = None,
    progress: bool = True,
) -> dict[str, LatentStore]:
    """Makes several stores of one, or finishes them; it is not touched.

    Args:
        path: the store.
        out: a folder; OUT/PART is the store of each part.
        parts: the share of each part by its name; in the place of `by`.
        by: a binary or categorical attribute; a part for each of its values, and one for missing labels.
        shard_size: samples stored together; None for about 64 MiB of latents.
        progress: show samples done, rate and time left.

    Returns:
        The stores by the names of the parts; of parts by attribute those that have samples.

    Raises:
        FileNotFoundError: there is no store.
        ValueError: the parts are none, or one by hash would have no sample; nothing was written.
    """
    if (parts is None) == (by is None):
        raise ValueError("give either `parts`, shares by name, or `by`, an attribute")
    store = LatentStore.open(path)
    division = Division.by_attribute(store, by) if by is not None else Division.by_hash(parts or {})
    counts = np.zeros(len(division.names), np.int64)
    for rows in _slices(store):
        counts += np.bincount(division.of(store, rows), minlength=len(counts))
    if by is None and not counts.all():
        empty = division.names[int((counts == 0).argmax())]
        raise ValueError(f"part {empty!r} would have none of the {len(store)} samples; give it a larger share")
    size, made = shard_size or rows_of_shard(store.latent_shape, store.manifest.dtype), {}
    for number in np.flatnonzero(counts).tolist():
        name = division.names[number]
        provenance = _provenance(store, {**division.told, "part": name})
        writer = LatentStoreWriter(Path(out) / name, store.latent_shape, store.schema, provenance, store.manifest.dtype)
        total = int(counts[number])
        with tqdm(total=total, initial=writer.count, unit="latent", desc=name, disable=not progress) as bar:
            made[name] = copy([store], _picked(store, division, number), writer, store.schema, size, bar)
    return made


def _picked(store: LatentStore, division: Division, part: int) -> Iterator[Picks]:
    """The rows of one part."""
    for rows in _slices(store):
        here = np.flatnonzero(division.of(store, rows) == part)
        yield Picks(np.zeros(len(here), np.int64), rows.start + here, store.index(rows).numpy()[here])


def _slices(store: LatentStore) -> Iterator[slice]:
    for start in range(0, len(store), ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, len(store)))


def _values(attribute: Attribute) -> tuple[str, ...]:
    """What parts are called: the values, or their numbers where a value cannot be the name of a folder."""
    if attribute.kind == "binary":
        return "0", "1"
    proper = all(SAFE.fullmatch(value) and value.lower() != "unknown" for value in attribute.values)
    proper = proper and len({value.lower() for value in attribute.values}) == len(attribute.values)
    return attribute.values if proper else tuple(str(number) for number in range(len(attribute.values)))


def _provenance(store: LatentStore, told: Mapping[str, Any]) -> dict[str, Any]:
    """The parent's, and how it was split; a split of a split tells both."""
    before = {"before": store.provenance["split"]} if "split" in store.provenance else {}
    return {**store.provenance, "split": {"of": store.fingerprint, **told, **before}}
