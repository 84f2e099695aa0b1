"""A generator without a data set as a benchmark's ground truth: fresh images of its own, labelled by a labeller.

    z ~ generator.sample_latents,      x = decode(z),      y = labeller(x).

So a Frechet distance compares with what the generator itself draws, and a method's samples are held against the images
of a formula among these, found by rejection. The truth is the labeller's opinion, and nothing here can tell where it
errs: the report says so. The latent of every image is known, so that none is inverted; reconstructions are exact.

Images are drawn in batches of `BATCH`, each by the SHA-256 of seed, split and its number. So a split's name decides on
its images, fewer are the first of more, and splits are independent of each other and of whatever prior and classifiers
were trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from itertools import count as numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcg.benchmarks.worlds.avatars import SPLIT
from lcg.benchmarks.worlds.world import RealSet, World
from lcg.data.avatars import Distribution
from lcg.generators.base import Generator, weights_sha256, x_to_pixels
from lcg.guidance import Formula
from lcg.labels.base import Labeller
from lcg.labels.storing import seen_by

BATCH = 64
"""Images that are drawn together; another number draws other images."""
COUNTED = 2048
"""Images by which the share of a formula is estimated."""


class GeneratedWorld(World):
    """Images that a generator draws from its own prior. Both distributions are the generator's.

    Args:
        generator: the one that is controlled; it has `sample_latents`.
        labeller: says what is in an image.
        seed: another seed draws other images everywhere.
        tries: images drawn for each that is wanted, at most; from 1 in so many on a formula is too rare.

    Raises:
        ValueError: the generator has no prior of its own, or `tries` is not positive.
    """

    def __init__(self, generator: Generator, labeller: Labeller, seed: int = 0, tries: int = 200) -> None:
        try:
            generator.sample_latents(1)
        except NotImplementedError as error:
            raise ValueError(
                f"`generator` must have a prior of its own, but {type(generator).__name__} samples no latents; give "
                "the benchmark images, in an lcg.benchmarks.worlds.folder.FolderWorld"
            ) from error
        if tries < 1:
            raise ValueError(f"`tries` must be at least 1, got {tries}")
        self.generator, self.labeller = generator.eval().requires_grad_(False), labeller
        self.seed, self.tries = seed, tries
        self.schema, self.image_shape = labeller.schema, generator.image_shape
        self.decoder = weights_sha256(generator)
        self.notes = (
            f"The world's images are drawn by the generator itself, {type(generator).__name__}, from its own prior, "
            f"and labelled by {type(labeller).__name__}: distances compare with what the generator draws, and truth is "
            "this labeller's opinion. Their latents are known, so that reconstructions are exact.",
        )

    def real(self, kind: Distribution, count: int, split: str, formula: Formula | None = None) -> RealSet:
        """See `World.real`.

        Raises:
            ValueError: the formula is so rare that `tries` images for each that is wanted do not give enough.
        """
        found, drawn, parts = 0, 0, list[RealSet]()
        for part in self._batches(split):
            drawn += len(part)
            if formula is not None:
                part = part[formula.holds(part.labels).nonzero()[:, 0].numpy()]
            parts.append(part)
            found += len(part)
            if found >= count:
                return joined(parts)[:count]
            if drawn >= self.tries * count:
                break
        raise ValueError(
            f"{str(formula)!r} holds for {found} of {drawn} images of the generator, and {split!r} needs {count}; "
            "lower the size, raise `tries` of the world, or ask for a combination that is less rare"
        )

    def share(self, kind: Distribution, formula: Formula) -> float:
        """The share of the images on which the labels decide that satisfy a formula, in [0, 1], of `COUNTED`."""
        true, false = formula.verdict(self._counted)
        return int(true.sum()) / max(1, int((true | false).sum()))

    def identity(self) -> dict[str, Any]:
        return {
            "class": "lcg.benchmarks.worlds.generated.GeneratedWorld",
            "generator": self.generator.identity(),
            "labeller": self.labeller.identity(),
            "seed": self.seed,
            "batch": BATCH,
        }

    def sources(self) -> list[dict[str, Any]]:
        drawn = {"name": "generated", "generator": self.decoder, "split": f"{SPLIT}*", "seed": self.seed}
        return [{"source": drawn, "labelled": [seen_by(self.labeller)]}]

    @cached_property
    def _counted(self) -> Tensor:
        """Labels (COUNTED, A) by which shares are estimated."""
        return self.real("uniform", COUNTED, "exists").labels

    def _batches(self, split: str) -> Iterator[RealSet]:
        """The images of a split, without end."""
        for number in numbers():
            digest = hashlib.sha256(f"{self.seed} {SPLIT}{split} {number}".encode()).digest()
            random = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
            with torch.no_grad():
                z = self.generator.sample_latents(BATCH, random)
                images = x_to_pixels(self.generator.decode(z)).cpu().numpy()
            labels = torch.from_numpy(self.labeller.label(images))
            yield RealSet(images, labels, np.stack([np.full(BATCH, number), np.arange(BATCH)], axis=1), z.cpu())


def joined(parts: list[RealSet]) -> RealSet:
    """Several sets as one."""
    z = [part.z for part in parts if part.z is not None]
    return RealSet(
        np.concatenate([part.images for part in parts]),
        torch.cat([part.labels for part in parts]),
        np.concatenate([part.origin for part in parts]),
        torch.cat(z) if z else None,
    )
