"""Images to be labelled, numbered: those of a source, those that a store's latents decode to, or a generator's draws.

Draw i of a generator is a function of a seed and i alone: x_i = decode(z_i), z_i ~ p(z) by random numbers of its own,
whatever else is drawn. So a job that was killed goes on with the same latents, and a store may grow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg import __version__
from lcg.data.source import ImageSource
from lcg.data.store import LatentStore
from lcg.generators.base import Generator, latents_sha256_of, x_to_pixels
from lcg.labels.base import Floats, Images
from lcg.schema import Schema

Rows = NDArray[np.int64]


class Pictures(ABC):
    """Numbered images, with the labels that are known of them.

    Attributes:
        schema: of the known labels.
    """

    schema: Schema

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def images(self, rows: Rows) -> Images:
        """The images (n, H, W, 3) of any rows."""

    @abstractmethod
    def labels(self, rows: Rows) -> Floats:
        """Their known labels (n, A), NaN where missing."""


class SourcePictures(Pictures):
    """Those of an image source."""

    def __init__(self, source: ImageSource) -> None:
        self.source, self.schema = source, source.schema

    def __len__(self) -> int:
        return len(self.source)

    def images(self, rows: Rows) -> Images:
        return self._chunks(rows)[0]

    def labels(self, rows: Rows) -> Floats:
        return self._chunks(rows)[1]

    def _chunks(self, rows: Rows) -> tuple[Images, Floats]:
        if len(rows) and (np.diff(rows) == 1).all():
            images, labels = self.source.chunk(int(rows[0]), int(rows[-1]) + 1)
            return images, np.asarray(labels, np.float32)
        parts = [self.source.chunk(row, row + 1) for row in rows.tolist()]
        if not parts:
            _, height, width = self.source.image_shape
            return np.empty((0, height, width, 3), np.uint8), np.empty((0, len(self.schema)), np.float32)
        images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        return images, labels.astype(np.float32)


class DecodedPictures(Pictures):
    """Those of latents.

    Attributes:
        generator: decodes.
        latent_shape: of one latent.
        dtype: in which a store of them keeps latents; None where nothing suggests one.
    """

    latent_shape: tuple[int, ...]
    dtype: str | None = None

    def __init__(self, generator: Generator, batch_size: int = 256) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be >= 1, got {batch_size}")
        self.generator, self.batch_size = generator.eval(), batch_size
        self.latent_shape = tuple(generator.latent_shape)

    @abstractmethod
    def latents(self, rows: Rows) -> Tensor:
        """Raw latents (n, *latent_shape), float32, on the CPU."""

    @abstractmethod
    def index(self, rows: Rows) -> Rows:
        """The samples' numbers."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """What the latents are from, for a store of them."""

    def images(self, rows: Rows) -> Images:
        return self.decoded(self.latents(rows))

    @torch.no_grad()
    def decoded(self, latents: Tensor) -> Images:
        """The images of latents, batch by batch."""
        _, height, width = self.generator.image_shape
        images = np.empty((len(latents), height, width, 3), np.uint8)
        for start in range(0, len(latents), self.batch_size):
            z = latents[start : start + self.batch_size].to(self.generator.device)
            images[start : start + len(z)] = x_to_pixels(self.generator.decode(z)).cpu().numpy()
        return images


class StorePictures(DecodedPictures):
    """Those that a store's latents decode to.

    Args:
        store: the latents.
        generator: what decodes them.
        batch_size: latents decoded together.

    Raises:
        ValueError: the store's latents are another generator's.
    """

    def __init__(self, store: LatentStore, generator: Generator, batch_size: int = 256) -> None:
        super().__init__(generator, batch_size)
        if store.latent_shape != self.latent_shape:
            raise ValueError(
                f"the store's latents have shape {store.latent_shape}, the generator takes {self.latent_shape}; give "
                "the generator that they are from"
            )
        made = store.provenance.get("generator")
        if isinstance(made, Mapping) and latents_sha256_of(made) != generator.latents_sha256():
            raise ValueError(
                f"the latents of {store.path} are of {made.get('class')} with weights "
                f"{latents_sha256_of(made)[:12]}, this generator has "
                f"{generator.latents_sha256()[:12]}; its images would be other ones"
            )
        self.store, self.schema, self.dtype = store, store.schema, store.manifest.dtype

    def __len__(self) -> int:
        return len(self.store)

    def latents(self, rows: Rows) -> Tensor:
        return self.store.latents(rows)

    def labels(self, rows: Rows) -> Floats:
        return self.store.labels(rows).numpy()

    def index(self, rows: Rows) -> Rows:
        return self.store.index(rows).numpy()

    def provenance(self) -> dict[str, Any]:
        """The store's; `relabelled` names the one that the latents are from, however often they were labelled."""
        known = self.store.provenance
        origin = known.get("relabelled", {"store": self.store.fingerprint})
        return {"generator": self.generator.identity(), **known, "lcg": __version__, "relabelled": origin}


class DrawnPictures(DecodedPictures):
    """A generator's own draws.

    Args:
        generator: with a prior of its own (`Generator.sample_latents`).
        num: how many.
        seed: others give other draws.
        batch_size: latents decoded together.

    Raises:
        ValueError: a number is out of range.
        NotImplementedError: the generator has no prior; raised before any work.
    """

    schema = Schema(())

    def __init__(self, generator: Generator, num: int, seed: int = 0, batch_size: int = 256) -> None:
        super().__init__(generator, batch_size)
        if num < 1:
            raise ValueError(f"`num` must be >= 1, got {num}")
        if seed < 0:
            raise ValueError(f"`seed` must be >= 0, got {seed}")
        self.num, self.seed = num, seed
        try:
            self.latents(np.arange(1))
        except NotImplementedError as error:
            raise ValueError(f"{error}; or label the latents of a store with `lcg label store`") from error

    def __len__(self) -> int:
        return self.num

    def latents(self, rows: Rows) -> Tensor:
        drawn = [self.generator.sample_latents(1, self._random(row)).float().cpu() for row in rows.tolist()]
        return torch.cat(drawn) if drawn else torch.empty(0, *self.latent_shape)

    def labels(self, rows: Rows) -> Floats:
        return np.empty((len(rows), 0), np.float32)

    def index(self, rows: Rows) -> Rows:
        return rows

    def provenance(self) -> dict[str, Any]:
        identity = self.generator.identity()
        source = {"name": "draws of a generator", "generator": identity["weights_sha256"], "seed": self.seed}
        return {"source": source, "generator": identity, "lcg": __version__}

    def _random(self, row: int) -> torch.Generator:
        # Hashed, as neighbouring seeds of two stores would otherwise share all draws but one.
        state = np.random.SeedSequence((self.seed, row)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def some_rows(count: int, most: int) -> Rows:
    """At most `most` of the numbers below `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
