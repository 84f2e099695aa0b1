"""What a benchmark compares with: real images of any formula, sources to edit, and where an edit may show.

A world gives labelled images that nothing under test was trained on. It draws them in splits: a split's name and size
decide on its images, whatever else was drawn before, so that a benchmark that was stopped goes on with the same ones.
Avatars are drawn without end (`lcg.benchmarks.worlds.avatars`); of a user's own images there are so many and no more
(`lcg.benchmarks.worlds.folder`). Where there are no images, a generator's own stand for them
(`lcg.benchmarks.worlds.generated`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lcg.data.avatars import Distribution
from lcg.guidance import Formula
from lcg.schema import Schema


@dataclass(frozen=True, eq=False)
class RealSet:
    """Real images with their true labels.

    Attributes:
        images: (N, H, W, 3) uint8.
        labels: (N, A), NaN where a detail does not apply or nobody knows.
        origin: (N, K) what the world itself knows each image by; nobody else's business.
        z: (N, *latent) the raw latents that the images were decoded from, where they were; None for others.
    """

    images: NDArray[np.uint8]
    labels: Tensor
    origin: NDArray[np.int64]
    z: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> RealSet:
        z = None if self.z is None else self.z[rows]
        return type(self)(self.images[rows], self.labels[rows], self.origin[rows], z)


class World(ABC):
    """Real images for a benchmark.

    Attributes:
        schema: the columns of the labels.
        image_shape: (C, H, W) of every image, as the generator's.
        what: what an image shows, in a word, for messages.
        decoder: SHA-256 of the weights of the generator whose latents the images come with; empty where they come
            without.
        notes: what the reader of a report must know of this world, in sentences.
    """

    schema: Schema
    image_shape: tuple[int, int, int]
    what: str = "image"
    decoder: str = ""
    notes: tuple[str, ...] = ()

    @abstractmethod
    def real(self, kind: Distribution, count: int, split: str, formula: Formula | None = None) -> RealSet:
        """Images of a split, of which only those that satisfy a formula.

        Args:
            kind: `biased`, distributed as the training set, or `uniform`, every combination of attributes alike, where
                the world can.
            count: how many.
            split: a name such as `sources-0`. Sets of different names are independent of each other; fewer images of a
                split are the first of more.
            formula: what shall hold.

        Raises:
            ValueError: the world has not as many.
        """

    def available(self, kind: Distribution, split: str, formula: Formula | None = None) -> int | None:
        """How many images `real` can give for a split; None where there is no limit to speak of."""
        return None

    @abstractmethod
    def share(self, kind: Distribution, formula: Formula) -> float:
        """The share of a distribution's images that satisfy a formula, in [0, 1]."""

    def check_exists(self, formula: Formula) -> None:
        """Raises ValueError when a formula holds for none of the world's images."""
        if self.share("uniform", formula) == 0:
            raise ValueError(
                f"{str(formula)!r} holds for no {self.what}, so there is nothing to compare with; ask for less"
            )

    def regions(self, sources: RealSet, edits: tuple[Formula, ...]) -> NDArray[np.bool_] | None:
        """(N, H, W) bool: where each source, an image of this world, may change when all edits are made.

        None where nobody knows: then nothing can be said of what changed outside.
        """
        return None

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What this world is, in JSON primitives: equal identities give equal images."""

    @abstractmethod
    def sources(self) -> list[dict[str, Any]]:
        """The images that it draws from, each in the form of `lcg.data.images.provenance_of(source=...)`.

        A text in it that ends in `*` stands for every text that begins so.
        """
