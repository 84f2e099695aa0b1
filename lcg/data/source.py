"""The contract of labelled images: what the encode job and the image data module read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lcg.schema import Schema


class ImageSource(ABC):
    """A numbered sequence of labelled images.

    Attributes:
        schema: the columns of the labels.
        image_shape: (C, H, W) of every image, C = 3, as a generator's.
        labelled: the labellers that labels are from (`lcg.labels`), in JSON primitives; none where people gave them.
    """

    schema: Schema
    image_shape: tuple[int, int, int]
    labelled: Sequence[Mapping[str, Any]] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples start <= i < stop: images (n, H, W, 3) uint8, labels (n, A) float32 with NaN for missing.

        Sample i must not depend on the chunk that it is asked in, nor on the length of the source.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What this source is, in JSON primitives. A source that only grew longer may keep its identity."""
