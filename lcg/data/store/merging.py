"""Stores of one kind of latents become one store, in the order of their samples' numbers.

Samples keep their numbers, and with them their side of the train/validation split; so stores that share a number can
be merged only if the later ones are numbered anew. Attributes that only some stores have are missing labels elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from lcg import __version__
from lcg.data.store.copying import Picks, copy, rows_of_shard
from lcg.data.store.reader import LatentStore
from lcg.data.store.shards import ROWS_AT_ONCE
from lcg.data.store.writer import LatentStoreWriter
from lcg.schema import Attribute, Schema

LAST = np.iinfo(np.int64).max
"""Number of a sample, at most."""


def merge_stores(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    dtype: str | None = None,
    renumber: bool = False,
    any_generator: bool = False,
    shard_size: int | None = None,
    progress: bool = True,
) -> LatentStore:
    """Makes one store of several, or finishes it; they are not touched.

    Args:
        paths: the stores.
        out: folder of the new one.
        dtype: how latents are stored; None for that of the first.
        renumber: number the samples of each store after those of the stores before it. This moves them between
            training and validation.
        any_generator: merge latents of different generators, too.
        shard_size: samples stored together; None for about 64 MiB of latents.
        progress: show samples done, rate and time left.

    Raises:
        FileNotFoundError: there is no store.
        ValueError: latents differ in shape, attributes of one name in kind, stores share a number, or their latents are
            of different generators; nothing was written.
    """
    if len(paths) < 2:
        raise ValueError(f"`stores` must name at least two stores, got {len(paths)}")
    stores = [LatentStore.open(path) for path in paths]
    _check_alike(stores, any_generator)
    schema = union([store.schema for store in stores], [str(path) for path in paths])
    shifts = shifted(stores) if renumber else [0] * len(stores)
    if not renumber:
        for _ in interleaved(stores, shifts):  # numbers only, which is quick: a refusal comes before work
            pass
    dtype = stores[0].manifest.dtype if dtype is None else dtype
    writer = LatentStoreWriter(out, stores[0].latent_shape, schema, _provenance(stores, renumber), dtype)
    size, total = shard_size or rows_of_shard(stores[0].latent_shape, dtype), sum(map(len, stores))
    with tqdm(total=total, initial=writer.count, unit="latent", desc="merge", disable=not progress) as bar:
        return copy(stores, interleaved(stores, shifts), writer, schema, size, bar)


def union(schemas: Sequence[Schema], owners: Sequence[str]) -> Schema:
    """The attributes of all, those of the first in front.

    Raises:
        ValueError: two attributes of one name differ.
    """
    found: dict[str, tuple[Attribute, str]] = {}
    for schema, owner in zip(schemas, owners, strict=True):
        for attribute in schema:
            first, elsewhere = found.setdefault(attribute.name, (attribute, owner))
            if first != attribute:
                raise ValueError(
                    f"{attribute.name!r} is {_kind(first)} in {elsewhere} and {_kind(attribute)} in {owner}; "
                    "make the stores again with one schema"
                )
    return Schema(tuple(attribute for attribute, _ in found.values()))


def shifted(stores: Sequence[LatentStore]) -> list[int]:
    """What is added to the numbers of each store, so that they begin after those of the stores before it.

    Raises:
        ValueError: there are no such numbers left.
    """
    shifts, following = [], 0
    for store in stores:
        shifts.append(following)
        following += int(store.index([len(store) - 1])[0]) + 1
        if following - 1 > LAST:
            raise ValueError(f"{store.path} has numbers so large that they cannot be shifted; merge it first")
    return shifts


def interleaved(stores: Sequence[LatentStore], shifts: Sequence[int]) -> Iterator[Picks]:
    """All rows of all stores by their numbers, looking at no more than some of each store at a time.

    Raises:
        ValueError: two stores share a number.
    """
    done = [0] * len(stores)
    while True:
        heads = [
            store.index(slice(d, d + ROWS_AT_ONCE)).numpy() + shift
            for store, d, shift in zip(stores, done, shifts, strict=True)
        ]
        if not any(map(len, heads)):
            return
        limit = min(head[-1] for head in heads if len(head))  # nothing that is still unseen is below
        counts = [int(np.searchsorted(head, limit, side="right")) for head in heads]
        picks = Picks.joined(
            [
                Picks(np.full(count, s), np.arange(d, d + count), head[:count])
                for s, (d, head, count) in enumerate(zip(done, heads, counts, strict=True))
            ]
        )
        picks = picks[np.argsort(picks.index, kind="stable")]
        _refuse_shared(picks, stores)
        yield picks
        done = [d + count for d, count in zip(done, counts, strict=True)]


def _refuse_shared(picks: Picks, stores: Sequence[LatentStore]) -> None:
    shared = np.flatnonzero(np.diff(picks.index) == 0)
    if len(shared):
        one, other = (stores[picks.store[i]].path for i in (shared[0], shared[0] + 1))
        raise ValueError(
            f"{one} and {other} both have a sample {picks.index[shared[0]]}; number the later ones anew with "
            "--renumber true, which moves them between training and validation"
        )


def _check_alike(stores: Sequence[LatentStore], any_generator: bool) -> None:
    first = stores[0]
    for store in stores[1:]:
        if store.latent_shape != first.latent_shape:
            raise ValueError(
                f"{first.path} has latents of shape {first.latent_shape}, {store.path} of {store.latent_shape}; "
                "only latents of one generator can be merged"
            )
        if not any_generator and _weights(store) != _weights(first):
            raise ValueError(
                f"{first.path} and {store.path} hold latents of different generators (weights_sha256 "
                f"{_weights(first)} and {_weights(store)}); one prior learns both only if you know that they share "
                "a space: then say --any_generator true"
            )


def _weights(store: LatentStore) -> str:
    generator = store.provenance.get("generator")
    return str(generator.get("weights_sha256", "unknown")) if isinstance(generator, dict) else "unknown"


def _provenance(stores: Sequence[LatentStore], renumber: bool) -> dict[str, Any]:
    """What the parents agree on, and each parent's own."""
    first = stores[0].provenance
    common = [
        name
        for name in ("source", "fingerprints", "generator")
        if name in first and all(store.provenance.get(name) == first[name] for store in stores)
    ]
    parents = [{"fingerprint": store.fingerprint, "provenance": dict(store.provenance)} for store in stores]
    return {
        **{name: first[name] for name in common},
        "merge": {"parents": parents, "renumber": renumber},
        "lcg": __version__,
    }


def _kind(attribute: Attribute) -> str:
    values = f" ({', '.join(attribute.values)})" if attribute.values else ""
    more = {
        name: value for name in ("detail_of", "applies_if", "ordered", "group") if (value := getattr(attribute, name))
    }
    return f"{attribute.kind}{values}{f' {more}' if more else ''}"
