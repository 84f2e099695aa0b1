"""A user's own held-out images as a benchmark's ground truth: so many and no more, drawn without replacement.

Figures compare sets of images, and some of them must not share any: a Frechet distance between overlapping sets is no
floor, and a latent that is among the neighbours is near to itself. So the images are shuffled once and cut into parts,
one for each purpose,

    neighbours 25 %, held-out 15 %, reference 20 %, floor 20 %, sources 15 %, tuning 5 %,

and a split draws from the part of the purpose that its name begins with or contains as a word: `sources-3` and
`biased-floor-0` from those of sources and floor. Other splits, which are compared with none of these (the scale of
features, reconstructions), draw from all images.

Of a part those m images count that satisfy the formula. Split number k (`sources-3`: 3; without a number 0) begins at

    start_k = floor(m v_k),      v_k = k with its binary digits reversed behind the point: 0, 1/2, 1/4, 3/4, 1/8, ...

(van der Corput 1935), and goes round. So splits 0 to 2^j - 1 are disjoint as long as none is larger than m / 2^j, fewer
images of a split are the first of more, and no split depends on what else is drawn. Larger ones overlap as little as
powers of two allow; more than m are refused.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg.benchmarks.worlds.world import RealSet, World
from lcg.data.avatars import Distribution
from lcg.data.imagefiles import ImageFiles
from lcg.data.images import Fingerprinted, provenance_of
from lcg.data.source import ImageSource
from lcg.guidance import Formula

PERCENT = {"neighbours": 25, "held-out": 15, "reference": 20, "floor": 20, "sources": 15, "tuning": 5}
"""How the images are shared out among the purposes."""

SIZE = {
    "neighbours": "sizes.neighbours",
    "held-out": "sizes.neighbours",
    "reference": "sizes.references",
    "floor": "sizes.references",
    "sources": "sizes.sources",
    "tuning": "sizes.tuning",
}
"""The option that says how many images a purpose takes."""

LABELS_AT_ONCE = 256  # images read together where only their labels are asked for


class FolderWorld(World):
    """Images that nothing was trained on. Both distributions are the images' own.

    Args:
        source: the images, such as an `ImageFolder`, with the attributes and the size that everything else has.
        seed: another seed shuffles the images otherwise.
    """

    def __init__(self, source: ImageSource, seed: int = 0) -> None:
        self.source, self.seed = source, seed
        self.schema, self.image_shape = source.schema, source.image_shape

    def real(self, kind: Distribution, count: int, split: str, formula: Formula | None = None) -> RealSet:
        """See `World.real`; only the images that are asked for are read.

        Raises:
            ValueError: there are too few images of the formula in the part of the split's purpose, or one cannot be
                read.
        """
        rows = self.rows(split, formula)
        if count > len(rows):
            raise ValueError(self._too_few(count, split, formula))
        return RealSet(self._images(rows[:count].tolist()), self.labels[rows[:count]], rows[:count, None])

    def available(self, kind: Distribution, split: str, formula: Formula | None = None) -> int:
        return len(self.rows(split, formula))

    def share(self, kind: Distribution, formula: Formula) -> float:
        """The share of the images whose labels decide on the formula that satisfy it; 0 where none decides."""
        true, false = formula.verdict(self.labels)
        return int(true.sum()) / max(1, int((true | false).sum()))

    def identity(self) -> dict[str, Any]:
        source = self.source
        content = source.fingerprints()["sha256"] if isinstance(source, Fingerprinted) else None
        return {
            "class": "lcg.benchmarks.worlds.folder.FolderWorld",
            "source": source.identity(),
            "content": content,
            "count": len(source),
            "seed": self.seed,
        }

    def sources(self) -> list[dict[str, Any]]:
        return [provenance_of(source=self.source)]

    @cached_property
    def labels(self) -> Tensor:
        """(N, A) of all images, NaN where unknown."""
        source = self.source
        if isinstance(source, ImageFiles):
            return torch.from_numpy(source.labels)
        starts = range(0, len(source), LABELS_AT_ONCE)
        parts = [source.chunk(start, min(start + LABELS_AT_ONCE, len(source)))[1] for start in starts]
        return torch.from_numpy(np.concatenate(parts))

    def rows(self, split: str, formula: Formula | None = None) -> NDArray[np.int64]:
        """The numbers of all images that a split may draw, in the order in which it does.

        A formula holds for an image when the labels that are known decide so (`Formula.holds`).
        """
        part = self._part(purpose_of(split))
        if formula is not None:
            part = part[formula.holds(self.labels[part]).numpy()]
        return np.roll(part, -int(len(part) * start_of(split)))

    @cached_property
    def _shuffled(self) -> NDArray[np.int64]:
        return np.random.default_rng(self.seed).permutation(len(self.source)).astype(np.int64)

    def _images(self, rows: list[int]) -> NDArray[np.uint8]:
        """The images (n, H, W, C) of any rows; those of files are read by threads."""
        if isinstance(self.source, ImageFiles):
            return self.source.pixels(rows)
        channels, height, width = self.image_shape
        images = np.empty((len(rows), height, width, channels), np.uint8)
        for image, row in zip(images, rows, strict=True):
            image[:] = self.source.chunk(row, row + 1)[0][0]
        return images

    def _part(self, purpose: str | None) -> NDArray[np.int64]:
        """The images that are kept for a purpose; all of them for none."""
        if purpose is None:
            return self._shuffled
        before = sum(list(PERCENT.values())[: list(PERCENT).index(purpose)])
        start, stop = (len(self._shuffled) * percent // 100 for percent in (before, before + PERCENT[purpose]))
        return self._shuffled[start:stop]

    def _too_few(self, count: int, split: str, formula: Formula | None) -> str:
        purpose, found = purpose_of(split), self.available("uniform", split, formula)
        wanted = "" if formula is None else f" for which {str(formula)!r} holds"
        kept = "" if purpose is None else f", of which {len(self._part(purpose))} are kept for {purpose}"
        size = "its size" if purpose is None else SIZE[purpose]
        less = f"lower {size} to {found} at most" if found > 1 else "ask for a combination that more of them have"
        return (
            f"{split!r} needs {count} images{wanted}, and there are {found}: the world has "
            f"{len(self.source)} images{kept}; {less}, or give the world more images"
        )


def purpose_of(split: str) -> str | None:
    """The purpose whose name a split's contains as a word, before any formula; None for a purpose without a part."""
    head = f"-{split.partition(' ')[0]}-"
    return next((purpose for purpose in PERCENT if f"-{purpose}-" in head), None)


def start_of(split: str) -> float:
    """Where a split begins on its part, in [0, 1): its number's binary digits reversed, 0 without a number."""
    numbered = re.fullmatch(r".*-(\d+)", split.partition(" ")[0])
    k = int(numbered[1]) if numbered else 0
    return int(f"{k:b}"[::-1], 2) / 2 ** k.bit_length()
