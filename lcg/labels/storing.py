"""Labels into a latent store, shard by shard: latents are decoded, looked at, and stored with what was seen.

Memory holds one shard, whatever the number of latents. A job that was killed goes on after the last shard; latents and
images are the same again, so the store has the same labels in the end.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from tqdm import tqdm

from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.labels.base import Floats, Labeller
from lcg.labels.pictures import DecodedPictures
from lcg.schema import Attribute, Schema


def label_store(
    pictures: DecodedPictures,
    labeller: Labeller,
    out: str | os.PathLike[str],
    shard_size: int = 4096,
    dtype: str | None = None,
    keep: list[str] | None = None,
    progress: bool = True,
) -> LatentStore:
    """Makes a store of latents with labels, or finishes one that was begun.

    Args:
        pictures: the latents and their images.
        labeller: says what is in them; its attributes take the place of known ones of the same name.
        out: folder of the new store.
        shard_size: samples stored together.
        dtype: how latents are stored; None for that of the latents' own store, or float32.
        keep: known attributes that are kept; None for all.
        progress: show samples done, rate and time left.

    Returns:
        The finished store.

    Raises:
        ValueError: `out` was begun with other settings or is longer, a size is not positive, `keep` names what there is
            not, the labeller breaks its word, or a latent is not finite.
        OSError: `out` cannot be written.
    """
    if shard_size < 1:
        raise ValueError(f"`shard_size` must be >= 1, got {shard_size}")
    schema, before = joined(pictures.schema, labeller.schema, keep), pictures.provenance()
    provenance = {**before, "labelled": labelled(before.get("labelled", []), labeller)}
    writer = LatentStoreWriter(out, pictures.latent_shape, schema, provenance, dtype or pictures.dtype or "float32")
    if writer.count > len(pictures):
        raise ValueError(
            f"the store at {out} has {writer.count} samples already, {len(pictures)} are asked for; ask for as many, "
            "or choose another folder"
        )
    with tqdm(total=len(pictures), initial=writer.count, unit="image", desc="label", disable=not progress) as bar:
        while writer.count < len(pictures):
            rows = np.arange(writer.count, min(writer.count + shard_size, len(pictures)))
            latents, labels = pictures.latents(rows), np.full((len(rows), len(schema)), np.nan, np.float32)
            known = [name for name in pictures.schema.names if name in schema]
            labels[:, columns(schema, known)] = pictures.labels(rows)[:, columns(pictures.schema, known)]
            for start in range(0, len(rows), pictures.batch_size):
                part = slice(start, min(start + pictures.batch_size, len(rows)))
                seen = checked(labeller, labeller.label(pictures.decoded(latents[part])), part.stop - part.start)
                labels[part, columns(schema, labeller.schema.names)] = seen
                bar.update(part.stop - part.start)
            writer.append(latents, labels, pictures.index(rows))
    return writer.finish()


def joined(known: Schema, labelled: Schema, keep: list[str] | None = None) -> Schema:
    """Known attributes and those of a labeller; where both mean the same, the known one's details are kept.

    Raises:
        ValueError: `keep` names what there is not, or what is left refers to an attribute that is not kept.
    """
    for name in keep or ():
        known.index(name)
    attributes = {a.name: a for a in known if keep is None or a.name in keep or a.name in labelled}
    for new in labelled:
        old = attributes.get(new.name)
        attributes[new.name] = old if old is not None and _alike(old, new) else new
    return Schema(tuple(attributes.values()))


def _alike(one: Attribute, other: Attribute) -> bool:
    return (one.kind, one.values, one.ordered) == (other.kind, other.values, other.ordered)


def columns(schema: Schema, names: Any) -> list[int]:
    """The columns of some attributes."""
    return [schema.index(name) for name in names]


def seen_by(labeller: Labeller) -> dict[str, Any]:
    """How a provenance names a labeller, in JSON primitives."""
    return {
        "labeller": labeller.identity(),
        "attributes": list(labeller.schema.names),
        "trained_on": dict(labeller.provenance),
    }


def labelled(entries: Any, labeller: Labeller) -> list[dict[str, Any]]:
    """The labellers in a provenance, earlier ones of the attributes that are still theirs, and one more."""
    left = []
    for entry in entries if isinstance(entries, list) else []:
        names = [name for name in entry.get("attributes", []) if name not in labeller.schema]
        left += [{**entry, "attributes": names}] if names else []
    return [*left, seen_by(labeller)]


def checked(labeller: Labeller, labels: Floats, rows: int) -> Floats:
    """Labels, after a look at their shape. Raises ValueError."""
    if labels.shape != (rows, len(labeller.schema)):
        raise ValueError(
            f"{type(labeller).__name__}.label must return ({rows}, {len(labeller.schema)}) for {rows} images, a column "
            f"for each of {', '.join(labeller.schema.names)}; got {tuple(labels.shape)}"
        )
    return np.asarray(labels, np.float32)
