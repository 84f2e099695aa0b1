"""The contract of a labeller: who looks at pixels and says which attributes an image has,

    labels = labeller.label(images),        NaN where it cannot say.

A labeller stands where a table of labels would: it names the attributes by a schema, so that whatever reads a table's
labels reads its labels too. How it comes to them is its own business; most go by scores and rules (`lcg.labels.ruled`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcg.schema import Schema

Images = NDArray[np.uint8]
"""(N, H, W, 3), RGB."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Labels, and what they rest on.

    Attributes:
        labels: (N, A), NaN where unknown.
        margins: (N, A) >= 0, how far the scores are from where the label would change, in the scores' own units, which
            compare images but not attributes; NaN where there is no such place.
        probabilities: (N, A) of binary attributes being 1, in [0, 1]; NaN where the labeller gives none.
        scores: (N, S) what the rules went by, a column per name in `names`.
        names: of the scores; none where the labeller has none.
        features: (N, F) in which images may be compared; None where the labeller has none.
    """

    labels: Floats
    margins: Floats
    probabilities: Floats
    scores: Floats
    names: tuple[str, ...]
    features: Floats | None


class Labeller(ABC):
    """Says which attributes images have.

    Attributes:
        schema: the columns of the labels.
        provenance: what its networks were trained on, as `lcg.data.images.provenance_of` has it; empty when nobody
            said.
    """

    schema: Schema
    provenance: Mapping[str, Any] = {}

    @abstractmethod
    def label(self, images: Images) -> Floats:
        """Labels of images.

        The labels of an image must not depend on the images beside it.

        Args:
            images: (N, H, W, 3) uint8, RGB, N >= 0.

        Returns:
            Labels (N, A) as `lcg.schema` spells them, NaN where unknown.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What this labeller is, in JSON primitives: equal identities give equal labels for equal images.

        Hashes of weights and code stand under keys that end in `sha256`; by these it is told whether two labellers
        share a network.
        """

    def evidence(self, images: Images) -> Evidence:
        """Labels with all that is known of how they came about; of a labeller without scores that is little."""
        labels = self.label(images)
        unknown = np.full_like(labels, np.nan)
        return Evidence(labels, unknown, unknown, np.empty((len(labels), 0), np.float32), (), None)


def check_images(images: Images) -> None:
    """Raises ValueError or TypeError for anything but (N, H, W, 3) uint8."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"`images` must be RGB pixels (N, H, W, 3), got shape {tuple(images.shape)}")
    if images.dtype != np.uint8:
        raise TypeError(f"`images` must be uint8 in [0, 255], got {images.dtype}; round and cast them first")
