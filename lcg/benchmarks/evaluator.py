"""Measures latents by the images they decode to: what the judge sees, how near they are to real ones, what was kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg.benchmarks.figures import Figure
from lcg.benchmarks.tasks import Edit, Generate
from lcg.benchmarks.world import AvatarWorld, RealSet
from lcg.data.avatars import Distribution
from lcg.generators.base import pixels_to_x
from lcg.guidance import And, Formula
from lcg.metrics.accuracy import attribute_accuracy, proportion
from lcg.metrics.frechet import frechet_between
from lcg.metrics.judge import Judge
from lcg.metrics.preservation import edit_success, kept, l1_outside
from lcg.metrics.reference import marginal_weights
from lcg.metrics.sharpness import NearestReal
from lcg.pipeline import Pipeline

IN_SUPPORT = 0.005
"""The share of biased avatars from which on a formula has a conditional distribution that can be drawn from."""


@dataclass(frozen=True)
class Seen:
    """What the judge sees in images: labels (N, A) and standardised features (N, F)."""

    labels: Tensor
    features: Tensor


@dataclass(frozen=True)
class Verdict:
    """What became of each source, (N,).

    Attributes:
        present: all edits are there.
        kept: every other binary attribute is as it was.
        kept_fine: every other attribute is.
        outside: mean absolute difference outside the edited region, see `l1_outside`.
    """

    present: Tensor
    kept: Tensor
    kept_fine: Tensor
    outside: Tensor


class Evaluator:
    """Judges images against the real ones of a world.

    Args:
        pipeline: decodes and encodes.
        judge: shares neither data nor weights with the pipeline.
        world: gives real images.
        marginals: share of each binary attribute in the training set.
        references: real images per distribution that samples are compared with.
        neighbours: real latents among which the nearest is sought.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        judge: Judge,
        world: AvatarWorld,
        marginals: dict[str, float],
        references: int,
        neighbours: int,
    ) -> None:
        self.pipeline, self.judge, self.world, self.marginals = pipeline, judge, world, marginals
        self.references, self.neighbours = references, neighbours
        self._region_cache: dict[str, NDArray[np.bool_]] = {}
        self._references: dict[str, tuple[Seen, Tensor, RealSet]] = {}

    # --- seeing ---

    @cached_property
    def _feature_scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the judge's features on uniform renders, so that every feature counts alike."""
        x = pixels_to_x(torch.from_numpy(self.world.real("uniform", 4096, "scale").images))
        _, features = self.judge.judge(x)
        return features.mean(0), features.std(0)

    def see(self, images: NDArray[np.uint8]) -> Seen:
        """What the judge sees in images (N, H, W, 3)."""
        labels, features = self.judge.judge(pixels_to_x(torch.from_numpy(images)))
        mean, std = self._feature_scale
        return Seen(labels, (features - mean) / std)

    @cached_property
    def nearest(self) -> NearestReal:
        """Distance to the nearest real latent, calibrated so that 99 % of real ones pass."""
        real = self.pipeline.encode(self.world.real("uniform", self.neighbours, "neighbours").images)
        held_out = self.pipeline.encode(self.world.real("uniform", 2048, "held-out").images)
        return NearestReal.calibrate(real, held_out)

    # --- figures ---

    def unconditional(self, z_0: Tensor) -> Iterator[Figure]:
        """Distance of samples to reconstructions of unseen biased avatars, their marginals, how many are no ghosts."""
        seen = self.see(self.pipeline.decode(z_0))
        reference, _ = self._biased
        yield Figure("frechet_distance", frechet_between(seen.features, reference.features), np.nan, len(z_0))
        yield from self._marginals(seen)
        yield Figure("sharp", *proportion(self.nearest.near(z_0)), len(z_0))

    def unconditional_floor(self, seed: int) -> Iterator[Figure]:
        """The same between two real sets, and the training set's marginals."""
        reference, _ = self._biased
        other_z = self._biased_latents(f"floor-{seed}")
        other = self.see(self.pipeline.decode(other_z))
        yield Figure("frechet_distance", frechet_between(other.features, reference.features), np.nan, len(other_z))
        for name, value in self.marginals.items():
            yield Figure(f"marginal/{name}", value, 0.0, len(other_z))
        yield Figure("sharp", *proportion(self.nearest.near(other_z)), len(other_z))

    def gaussian(self, seed: int) -> Iterator[Figure]:
        """The same for latents drawn from a normal distribution fitted to real ones: what a prior must beat."""
        reference, z = self._biased
        rng = torch.Generator().manual_seed(seed)
        root = torch.linalg.cholesky(torch.cov(z.T) + 1e-6 * torch.eye(z.shape[1]))
        drawn = z.mean(0) + torch.randn(z.shape, generator=rng) @ root.T
        seen = self.see(self.pipeline.decode(drawn))
        yield Figure("frechet_distance", frechet_between(seen.features, reference.features), np.nan, len(z))
        yield from self._marginals(seen)
        yield Figure("sharp", *proportion(self.nearest.near(drawn)), len(z))

    def renders(self, count: int, seed: int) -> Iterator[Figure]:
        """Accuracy of the judge on unseen uniform renders."""
        real = self.world.real("uniform", count, f"reconstruction-{seed}")
        yield from self._accuracy(self.see(real.images).labels, real.labels)

    def reconstructions(self, count: int, seed: int) -> Iterator[Figure]:
        """Accuracy of the judge on their reconstructions, and peak signal-to-noise ratio in dB (mean over images)."""
        real = self.world.real("uniform", count, f"reconstruction-{seed}")
        images = self.pipeline.decode(self.pipeline.encode(real.images))
        mse = np.square((images.astype(np.float64) - real.images) / 255).mean(axis=(1, 2, 3))
        psnr = -10 * np.log10(mse)
        yield Figure("psnr", float(psnr.mean()), float(psnr.std() / count**0.5), count)
        yield from self._accuracy(self.see(images).labels, real.labels)

    def generated(self, task: Generate, z_0: Tensor) -> Iterator[Figure]:
        """How well samples satisfy a formula, and how near they are to the real images that do."""
        seen = self.see(self.pipeline.decode(z_0))
        reference, weights, _ = self._satisfying(task.formula)
        yield from self._satisfied(task.formula, seen, self.nearest.near(z_0))
        distance = frechet_between(seen.features, reference.features, weights)
        yield Figure("frechet_distance", distance, np.nan, len(z_0))

    def real(self, task: Generate, count: int, seed: int) -> Iterator[Figure]:
        """The same for `count` other real images that satisfy the formula, drawn with the reference's weights."""
        reference, weights, other = self._satisfying(task.formula)
        drawn = torch.multinomial(
            self._weights(other.labels, task.formula), count, True, generator=torch.Generator().manual_seed(seed)
        )
        images = other.images[drawn.numpy()]
        seen = self.see(images)
        yield from self._satisfied(task.formula, seen, self.nearest.near(self.pipeline.encode(images)))
        distance = frechet_between(seen.features, reference.features, weights)
        yield Figure("frechet_distance", distance, np.nan, count)

    def edited(self, task: Edit, sources: RealSet, z_0: Tensor) -> Iterator[Figure]:
        """Whether all edits are present and everything else was kept.

        Args:
            task: the edits made so far.
            sources: the images that were edited, with their true labels.
            z_0: (N, *latent) edited latents.
        """
        images = self.pipeline.decode(z_0)
        verdict = self.verdict(task, sources, images)
        present, coarse, outside = verdict.present, verdict.kept, verdict.outside
        n = len(z_0)
        yield Figure("edit_success", *proportion(edit_success(present, coarse, outside)), n)
        yield Figure("joint_accuracy", *proportion(present), n)
        yield Figure("kept", *proportion(coarse), n)
        yield Figure("kept_fine", *proportion(verdict.kept_fine), n)
        yield Figure("l1_outside", float(outside.mean()), float(outside.std() / n**0.5), n)
        yield Figure("sharp", *proportion(present & self.nearest.near(z_0)), n)

    def verdict(self, task: Edit, sources: RealSet, images: NDArray[np.uint8]) -> Verdict:
        """What became of every single source, by the judge and in the pixels; images (N, H, W, 3) are the results."""
        labels = self.see(images).labels
        schema, edited = self.world.schema, [name for edit in task.edits for name in edit.attributes]
        wanted: Formula = task.edits[0] if len(task.edits) == 1 else And(task.edits)
        x, y = (pixels_to_x(torch.from_numpy(i)) for i in (sources.images, images))
        return Verdict(
            wanted.holds(labels),
            kept(schema, sources.labels, labels, edited, ("binary",)),
            kept(schema, sources.labels, labels, edited, ("binary", "categorical")),
            l1_outside(x, y, torch.from_numpy(self._regions(sources, task.edits))),
        )

    # --- parts of them ---

    def _regions(self, sources: RealSet, edits: tuple[Formula, ...]) -> NDArray[np.bool_]:
        """Where edits may show; rendering what they could look like takes time, and every method is asked the same."""
        key = f"{hash(sources.parts.tobytes())} {edits}"
        if key not in self._region_cache:
            self._region_cache[key] = self.world.regions(sources, edits)
        return self._region_cache[key]

    def _satisfied(self, formula: Formula, seen: Seen, near: Tensor) -> Iterator[Figure]:
        n = len(near)
        holds = formula.holds(seen.labels)
        yield Figure("joint_accuracy", *proportion(holds), n)
        for atom in dict.fromkeys(formula.atoms()):
            share, stderr = proportion(atom.holds(seen.labels))
            if len(formula.attributes) > 1:
                yield Figure(f"marginal/{atom}", share, stderr, n)
        for attribute in self.world.schema.of_kind("binary"):  # what comes along unasked
            if attribute.name not in formula.attributes:
                present = seen.labels[:, self.world.schema.index(attribute.name)] > 0.5
                yield Figure(f"marginal/{attribute.name}", *proportion(present), n)
        yield Figure("sharp", *proportion(holds & near), n)

    def _marginals(self, seen: Seen) -> Iterator[Figure]:
        for attribute in self.world.schema.of_kind("binary"):
            values = seen.labels[:, self.world.schema.index(attribute.name)] > 0.5
            yield Figure(f"marginal/{attribute.name}", *proportion(values), len(values))

    def _accuracy(self, predicted: Tensor, wanted: Tensor) -> list[Figure]:
        figures = []
        for name, (value, n) in attribute_accuracy(self.world.schema, predicted, wanted).items():
            figures.append(Figure(f"accuracy/{name}", value, float((value * (1 - value) / n) ** 0.5), n))
        binary = [self.world.schema.index(a.name) for a in self.world.schema.of_kind("binary")]
        right = (predicted[:, binary] == wanted[:, binary]).all(1)
        return [*figures, Figure("joint_accuracy", *proportion(right), len(right))]

    # --- references ---

    def _biased_latents(self, split: str) -> Tensor:
        """Latents of unseen biased avatars."""
        return self.pipeline.encode(self.world.real("biased", self.references, f"biased-{split}").images)

    @cached_property
    def _biased(self) -> tuple[Seen, Tensor]:
        """Reconstructions of unseen biased avatars: what the judge sees, and their latents."""
        z = self._biased_latents("reference")
        return self.see(self.pipeline.decode(z)), z

    def _satisfying(self, formula: Formula) -> tuple[Seen, Tensor, RealSet]:
        """Renders that satisfy a formula: what the judge sees and their weights; and another such set of renders.

        Where the biased world has the combination they are its own, p(x | formula). Where it has not there is no
        conditional distribution to compare with: then they are uniform renders with the training set's marginals.
        """
        key = str(formula)
        if key not in self._references:
            kind: Distribution = "biased" if self._in_support(formula) else "uniform"
            first, second = (
                self.world.real(kind, self.references, f"{name} {key}", formula) for name in ("reference", "floor")
            )
            self._references[key] = (self.see(first.images), self._weights(first.labels, formula), second)
        return self._references[key]

    def _in_support(self, formula: Formula) -> bool:
        """Whether enough biased avatars satisfy a formula to draw references from them."""
        return self.world.share("biased", formula) >= IN_SUPPORT

    def _weights(self, labels: Tensor, formula: Formula) -> Tensor:
        """What each reference counts; see `_satisfying`."""
        if self._in_support(formula):
            return torch.full((len(labels),), 1 / len(labels), dtype=torch.float64)
        return marginal_weights(labels, self.world.schema, self.marginals, formula.attributes)
