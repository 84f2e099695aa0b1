"""What a benchmark compares samples with: real images, what the judge sees in them, sources to edit.

All of it is computed once and kept, see `lcg.benchmarks.cache`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg.benchmarks.cache import Cache, Tensors
from lcg.benchmarks.tasks import Edit
from lcg.benchmarks.worlds.world import RealSet, World
from lcg.data.avatars import Distribution
from lcg.generators.base import pixels_to_x
from lcg.guidance import And, Formula, Not
from lcg.metrics.frechet import moments
from lcg.metrics.judge import Judge
from lcg.metrics.reference import marginal_weights
from lcg.metrics.sharpness import NearestReal
from lcg.pipeline import Pipeline

IN_SUPPORT = 0.005
"""The share of biased avatars from which on a formula has a conditional distribution that can be drawn from."""
SCALE = 4096
"""Real images whose features are scaled to unit variance."""
HELD_OUT = 2048
"""Real latents on which the distance of a ghost is calibrated."""
PATIENCE = 64
"""Batches of samples of the prior after which sources with the wanted attributes are given up."""


@dataclass(frozen=True)
class Seen:
    """What the judge sees in images: labels (N, A) and standardised features (N, F)."""

    labels: Tensor
    features: Tensor


@dataclass(frozen=True)
class Reference:
    """Real images that samples are compared with.

    Attributes:
        features: (N, F) of the judge, standardised.
        weights: (N,) what each counts, float64, of sum 1.
        mean: (F,) float64, weighted.
        covariance: (F, F) float64, weighted.
    """

    features: Tensor
    weights: Tensor
    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class Sources:
    """Images to edit, none of which has an edit already.

    Attributes:
        images: (N, H, W, 3) uint8.
        labels: (N, A) true ones, or, of synthetic images, those that the judge sees.
        z_0: (N, *latent) standardised.
        regions: (steps, N, H, W) bool, where the images may change after each edit; None where nobody knows.
        code: (N, *code) what the latents leave out of the images; None if nothing, or if the images were decoded.
    """

    images: Tensor
    labels: Tensor
    z_0: Tensor
    regions: Tensor | None
    code: Tensor | None = None

    def __getitem__(self, rows: slice) -> Sources:
        regions = None if self.regions is None else self.regions[:, rows]
        code = None if self.code is None else self.code[rows]
        return Sources(self.images[rows], self.labels[rows], self.z_0[rows], regions, code)


class Evaluator:
    """The judge, and the real images that samples are compared with.

    Args:
        pipeline: decodes and encodes.
        judge: shares neither data nor weights with the pipeline.
        world: gives real images.
        marginals: share of each binary attribute in the training set.
        references: real images per distribution that samples are compared with.
        neighbours: real latents among which the nearest is sought.
        cache: keeps what is computed of them.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        judge: Judge,
        world: World,
        marginals: dict[str, float],
        references: int,
        neighbours: int,
        cache: Cache,
    ) -> None:
        self.pipeline, self.judge, self.world, self.marginals = pipeline, judge, world, marginals
        self.references, self.neighbours, self.cache = references, neighbours, cache

    # --- seeing ---

    def see(self, images: NDArray[np.uint8]) -> Seen:
        """What the judge sees in images (N, H, W, 3)."""
        labels, features = self._judged(images)
        return Seen(labels, (features - self._scale["mean"]) / self._scale["std"])

    def _judged(self, images: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        device = next(self.judge.parameters()).device
        seen = self.judge.judge(pixels_to_x(torch.from_numpy(images).to(device)))
        return seen.labels.cpu(), seen.features.cpu()

    @property
    def _scale(self) -> Tensors:
        """Mean and deviation of the judge's features on real images, so that every feature counts alike."""

        def make() -> Tensors:
            _, features = self._judged(self.world.real("uniform", min(SCALE, self.references * 2), "scale").images)
            return {"mean": features.mean(0), "std": features.std(0).clamp_min(torch.finfo(features.dtype).tiny)}

        return self.cache.get(make, "scale", min(SCALE, self.references * 2))

    @cached_property
    def nearest(self) -> NearestReal:
        """Distance to the nearest real latent, calibrated so that 99 % of real ones pass."""
        held_out = min(HELD_OUT, self.neighbours // 8 + 1)

        def make() -> Tensors:
            real = self.encode(self.world.real("uniform", self.neighbours, "neighbours"))
            found = NearestReal.calibrate(real, self.encode(self.world.real("uniform", held_out, "held-out")))
            return {"real": found.real_latents, "threshold": torch.tensor(found.threshold, dtype=torch.float64)}

        entry = self.cache.get(make, "nearest", self.neighbours, held_out)
        return NearestReal(entry["real"], float(entry["threshold"]))

    def encode(self, real: RealSet) -> Tensor:
        """Standardised latents (N, *latent): those that the images were decoded from, where they are known."""
        if real.z is not None:
            return self.pipeline.statistics.standardise(real.z.to(self.pipeline.device)).cpu()
        return self.pipeline.encode(real.images).cpu()

    # --- references ---

    def biased(self) -> tuple[Reference, Tensor]:
        """Reconstructions of unseen images that are distributed as the training set; and their latents."""

        def make() -> Tensors:
            z_0 = self.encode(self.world.real("biased", self.references, "biased-reference"))
            features = self.see(self.pipeline.decode(z_0.to(self.pipeline.device))).features
            return {"z_0": z_0, **_reference(features, torch.full((len(z_0),), 1 / len(z_0), dtype=torch.float64))}

        entry = dict(self.cache.get(make, "biased", self.references))
        z_0 = entry.pop("z_0")
        return Reference(**entry), z_0

    def satisfying(self, formula: Formula) -> Reference:
        """Real images that satisfy a formula.

        Where the biased world has the combination they are its own, p(x | formula). Where it has not there is no
        conditional distribution to compare with: then they are uniform images with the training set's marginals.
        """

        def make() -> Tensors:
            real = self.real(formula, "reference")
            return _reference(self.see(real.images).features, self.weights(real.labels, formula))

        return Reference(**self.cache.get(make, "satisfying", str(formula), self.references, self.marginals))

    def real(self, formula: Formula, split: str) -> RealSet:
        """As many real images of a formula as there are references, see `satisfying`."""
        kind: Distribution = "biased" if self.in_support(formula) else "uniform"
        return self.world.real(kind, self.references, f"{split} {formula}", formula)

    def in_support(self, formula: Formula) -> bool:
        """Whether enough biased images satisfy a formula to draw references from them."""
        return self.world.share("biased", formula) >= IN_SUPPORT

    def weights(self, labels: Tensor, formula: Formula) -> Tensor:
        """What each reference counts (N,) float64; see `satisfying`."""
        if self.in_support(formula):
            return torch.full((len(labels),), 1 / len(labels), dtype=torch.float64)
        return marginal_weights(labels, self.world.schema, self.marginals, formula.attributes)

    # --- sources of edits ---

    def sources(self, task: Edit, conditions: Formula, split: str, count: int) -> Sources:
        """Images to edit, of which the conditions hold and none of the edits."""
        wanted = sources_of(task, conditions)

        def make() -> Tensors:
            return self._synthetic(wanted, split, count) if task.synthetic else self._real(task, wanted, split, count)

        sampling = str(self.pipeline.sampling) if task.synthetic else ""
        entry = self.cache.get(make, "sources", task.name, str(wanted), split, count, sampling)
        return Sources(entry["images"], entry["labels"], entry["z_0"], entry.get("regions"), entry.get("code"))

    def originals(self, split: str, count: int) -> Sources:
        """Images of the world as they come, to be reconstructed."""

        def make() -> Tensors:
            return self._encoded(self.world.real("uniform", count, split))

        entry = self.cache.get(make, "originals", split, count)
        return Sources(entry["images"], entry["labels"], entry["z_0"], None, entry.get("code"))

    def _encoded(self, real: RealSet) -> Tensors:
        """Images, labels and latents; and, if these do not hold all of the images, the codes that have the rest."""
        z_0 = self.encode(real)
        found = {"images": torch.from_numpy(real.images), "labels": real.labels, "z_0": z_0}
        code = self.pipeline.code(real.images, z_0) if real.z is None else None
        return found if code is None else {**found, "code": code}

    def _real(self, task: Edit, wanted: Formula, split: str, count: int) -> Tensors:
        real = self.world.real("uniform", count, split, wanted)
        found = self._encoded(real)
        regions = [self.world.regions(real, part.edits) for part in task.steps()]
        known = [torch.from_numpy(region) for region in regions if region is not None]
        return found | ({"regions": torch.stack(known)} if known else {})

    def _synthetic(self, wanted: Formula, split: str, count: int) -> Tensors:
        """Samples of the prior of which the judge says so, in the order of their seeds."""
        kept: list[Tensors] = []
        start = int.from_bytes(hashlib.sha256(split.encode()).digest()[:3], "big") * 1000  # splits share no seeds
        for batch in range(PATIENCE):
            seeds = range(start + batch * count, start + (batch + 1) * count)
            z_0 = self.pipeline.sample(seeds).cpu()
            images = self.pipeline.decode(z_0.to(self.pipeline.device))
            labels = self.see(images).labels
            holds = wanted.holds(labels)
            kept.append({"images": torch.from_numpy(images)[holds], "labels": labels[holds], "z_0": z_0[holds]})
            if sum(len(part["z_0"]) for part in kept) >= count:
                return {name: torch.cat([part[name] for part in kept])[:count] for name in kept[0]}
        raise ValueError(
            f"of {PATIENCE * count} samples of the prior {sum(len(part['z_0']) for part in kept)} satisfy "
            f"{str(wanted)!r}, {count} sources are needed; lower `sizes.sources`, or ask for less in `source_formula`"
        )


def sources_of(task: Edit, conditions: Formula) -> Formula:
    """What holds for the sources of a sequence of edits: the conditions, and not one of the edits."""
    return And((conditions, *(Not(edit) for edit in task.edits)))


def _reference(features: Tensor, weights: Tensor) -> Tensors:
    mean, covariance = moments(features, weights)
    return {"features": features, "weights": weights / weights.sum(), "mean": mean, "covariance": covariance}
