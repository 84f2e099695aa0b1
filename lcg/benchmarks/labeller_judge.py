"""A labeller as the judge of a benchmark: whoever labels images may say what is in samples, too.

Frechet distances need features of images. They are those of the labeller's network where it has some; otherwise plain
ones, the mean colours of 8 x 8 fields of the image, (192,): these see colours and coarse shape and nothing else, so
that a small distance in them means little.

A judge that made the labels which the guides learnt is not independent of them: it agrees with its own mistakes. What
labellers a store's labels are from is kept with the store (`lcg.labels.storing`) and compared by
`lcg.benchmarks.worlds.discipline`, network by network: other thresholds on the same scores are no other judge.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lcg.benchmarks.worlds.discipline import networks_of
from lcg.generators.base import x_to_pixels
from lcg.labels.base import Evidence, Labeller
from lcg.metrics.judge import Judge, Judgement
from lcg.nets.heads import HeadOutputs
from lcg.schema import Schema

FIELDS = 8


class LabellerJudge(Judge):
    """What a labeller sees in images.

    Args:
        labeller: with the attributes of the benchmark's world.
        image_shape: (3, H, W) of the images that it is shown; those larger by a whole factor are averaged down.
        attributes: those of the labeller that it judges, in the world's order; None for all in its own.

    Raises:
        ValueError: `image_shape` is not of RGB images of 8 x 8 pixels or more, or an attribute is none of the
            labeller's.
    """

    def __init__(
        self,
        labeller: Labeller,
        image_shape: tuple[int, int, int] = (3, 64, 64),
        attributes: list[str] | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if len(image_shape) != 3 or image_shape[0] != 3 or min(image_shape[1:]) < FIELDS:
            raise ValueError(
                f"`image_shape` must be (3, H, W) with sides of {FIELDS} or more, got {tuple(image_shape)}"
            )
        names = list(labeller.schema.names) if attributes is None else attributes
        self.columns = [labeller.schema.index(name) for name in names]
        self.labeller, self.schema, self.image_shape = labeller, part_of(labeller.schema, names), tuple(image_shape)
        self.provenance, told = dict(labeller.provenance), labeller.identity()
        self.networks = networks_of(told)
        digest = bytearray(hashlib.sha256(json.dumps([told, names], sort_keys=True).encode()).digest())
        # A parameter, so that the judge has a place and, by `weights_sha256`, a name.
        self.digest = nn.Parameter(torch.frombuffer(digest, dtype=torch.uint8).clone(), requires_grad=False)
        blank = np.zeros((1, *self.image_shape[1:], 3), np.uint8)
        features = self._features(torch.zeros(1, *self.image_shape), labeller.evidence(blank))
        self.config: dict[str, Any] = {
            "schema": self.schema.to_dict(),
            "image_shape": list(self.image_shape),
            "features": features.shape[1],
        }

    def features(self, x: Tensor) -> Tensor:
        """Features (B, F) of images in [-1, 1]; see the module."""
        x = self.shrunk(x)
        return self._features(x, self._seen(x))

    def forward(self, x: Tensor) -> HeadOutputs:
        """Raises TypeError: a labeller gives labels, and no outputs of heads that could be differentiated."""
        raise TypeError(f"{type(self.labeller).__name__} has no heads; ask for its `judge(x)`")

    @torch.no_grad()
    def judge(self, x: Tensor, batch_size: int = 512) -> Judgement:
        """What the labeller sees in images (N, C, H, W) in [-1, 1], in batches."""
        labels, features, probabilities = [], [], []
        for part in x.split(batch_size):
            small = self.shrunk(part)
            seen = self._seen(small)
            labels.append(torch.from_numpy(seen.labels[:, self.columns]))
            features.append(self._features(small, seen))
            probabilities.append(torch.from_numpy(seen.probabilities[:, self.columns]))
        told = (torch.cat(column).to(x.device) for column in (labels, features, probabilities))
        return Judgement(*told)

    def _seen(self, x: Tensor) -> Evidence:
        return self.labeller.evidence(x_to_pixels(x).cpu().numpy())

    def _features(self, x: Tensor, seen: Evidence) -> Tensor:
        if seen.features is not None:
            return torch.from_numpy(seen.features).to(x.device)
        return functional.adaptive_avg_pool2d(x, FIELDS).flatten(1)


def part_of(schema: Schema, names: Sequence[str]) -> Schema:
    """Some attributes of a schema, in another order, without what they say of those left out."""
    return Schema(
        tuple(
            replace(
                schema[name],
                detail_of=tuple(parent for parent in schema[name].detail_of if parent in names),
                applies_if={parent: value for parent, value in schema[name].applies_if.items() if parent in names},
            )
            for name in names
        )
    )
