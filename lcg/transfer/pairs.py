"""Pairs: latents of one image in the spaces of two generators, from their stores.

Two stores have pairs when they are of one source of images, whose numbers they keep; or when the images of one are the
decoded latents of the other, for generators that have no images in common, or one of which has no encoder
(`DecodedStore`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcg.data.source import ImageSource
from lcg.data.store import LatentStore
from lcg.data.store.shards import ROWS_AT_ONCE
from lcg.generators.base import Generator, latents_sha256_of, x_to_pixels
from lcg.schema import Schema


class DecodedStore(ImageSource):
    """What a generator makes of the latents of its store, as images for another generator to encode.

    Args:
        store: folder of the store.
        generator: that of the store, frozen.

    Raises:
        FileNotFoundError: there is no store.
        ValueError: the store was encoded by another generator.
    """

    def __init__(self, store: str, generator: Generator) -> None:
        self._store, self._generator = LatentStore.open(store), generator.eval()
        self.schema, self.image_shape = self._store.schema, generator.image_shape
        made, own = latents_sha256_of(self._store.provenance.get("generator") or {}), generator.latents_sha256()
        if made and made != own:
            raise ValueError(
                f"the store {store} was encoded by a generator with weights {made[:12]}, `generator` has {own[:12]}; "
                "give the generator that made it"
            )
        if self._store.latent_shape != tuple(generator.latent_shape):
            raise ValueError(
                f"the store {store} has latents of shape {self._store.latent_shape}, `generator` takes "
                f"{tuple(generator.latent_shape)}; give the generator that made it"
            )

    def __len__(self) -> int:
        return len(self._store)

    def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, H, W, 3) and labels (n, A) of rows start..stop-1 of the store."""
        with torch.no_grad():
            x = self._generator.decode(self._store.latents(slice(start, stop)).to(self._generator.device))
        return x_to_pixels(x).cpu().numpy(), self._store.labels(slice(start, stop)).numpy()

    def identity(self) -> dict[str, Any]:
        return {
            "class": "lcg.transfer.pairs.DecodedStore",
            "store": self._store.fingerprint,
            "generator": self._generator.identity(),
        }


@dataclass(frozen=True)
class Pairs:
    """Latents of the same images in two spaces.

    Attributes:
        z_a: raw (N, *latent_shape of A).
        z_b: raw (N, *latent_shape of B).
        labels: (N, A) of the images by the store of A, NaN where missing.
        schema: of the labels.
        provenance: of a map that is learnt from them.
    """

    z_a: Tensor
    z_b: Tensor
    labels: Tensor
    schema: Schema
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.z_a)


def read_pairs(
    source: str | os.PathLike[str], target: str | os.PathLike[str], most: int | None = None, seed: int = 0
) -> Pairs:
    """The pairs of two stores, in random order.

    Args:
        source: store of generator A.
        target: store of generator B.
        most: how many, at most; None for all.
        seed: of the order.

    Raises:
        FileNotFoundError: there is no store.
        ValueError: the stores are not of the same images, or share none.
    """
    a, b = LatentStore.open(source), LatentStore.open(target)
    numbers_a, numbers_b = _numbers(a, b)
    _, rows_a, rows_b = np.intersect1d(numbers_a, numbers_b, assume_unique=True, return_indices=True)
    if not len(rows_a):
        raise ValueError(f"the stores {source} and {target} have no sample in common; encode the same images with both")
    order = np.random.default_rng(seed).permutation(len(rows_a))[:most]
    rows_a, rows_b = rows_a[order], rows_b[order]
    provenance = {"source": told_of(a), "target": told_of(b)}
    return Pairs(a.latents(rows_a), b.latents(rows_b), a.labels(rows_a), a.schema, provenance)


def _numbers(a: LatentStore, b: LatentStore) -> tuple[np.ndarray, np.ndarray]:
    """By what number samples of two stores are known: of their common source, or rows of the one that was decoded."""
    source_a, source_b = a.provenance.get("source"), b.provenance.get("source")
    if source_a is not None and source_a == source_b:
        return _index(a), _index(b)
    if isinstance(source_b, Mapping) and source_b.get("store") == a.fingerprint:
        return np.arange(len(a)), _index(b)
    if isinstance(source_a, Mapping) and source_a.get("store") == b.fingerprint:
        return _index(a), np.arange(len(b))
    raise ValueError(
        f"the stores {a.path} and {b.path} are not of the same images; encode one source of images with both "
        "generators, or with one of them what the other makes of its store (lcg.transfer.pairs.DecodedStore)"
    )


def _index(store: LatentStore) -> np.ndarray:
    starts = range(0, len(store), ROWS_AT_ONCE)
    return np.concatenate([store.index(slice(start, start + ROWS_AT_ONCE)).numpy() for start in starts])


def told_of(store: LatentStore) -> dict[str, Any]:
    """What a map keeps of one of its sides."""
    made = store.provenance.get("generator") or {}
    return {
        "class": made.get("class", ""),
        "weights_sha256": latents_sha256_of(made),
        "latent_shape": list(store.latent_shape),
        "store": store.fingerprint,
    }
