"""The metrics of a benchmark, named in its YAML by their class.

A measure may look at images while they are there (`look`), and gives figures when all of a cell have been seen
(`figures`). It says nothing of tasks that it has no answer to, so one list serves for all. The mathematics is in
`lcg.metrics`; here are names, and which images are compared with which.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lcg.benchmarks.evaluator import Evaluator, Reference, Sources
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.options import options_of
from lcg.benchmarks.tasks import Edit, Generate, Scale, Single, Tradeoff
from lcg.benchmarks.view import Frame, View
from lcg.generators.base import pixels_to_x, weights_sha256
from lcg.guidance import Formula
from lcg.metrics.accuracy import attribute_accuracy, right_labels
from lcg.metrics.formula_metric import satisfaction
from lcg.metrics.frechet import frechet_distance
from lcg.metrics.judge_maps import JudgeMaps
from lcg.metrics.neighbours import density_coverage, diversity, precision_recall
from lcg.metrics.perceptual import perceptual_distance
from lcg.metrics.preservation import edit_success, kept, l1_outside
from lcg.metrics.side_effects import (
    accuracy_gain,
    cosine_similarity,
    disentangled_edit_strength,
    identity_similarity,
    side_effects,
)
from lcg.metrics.streaming import merge_parts, part_of
from lcg.schema import Schema

Images = NDArray[np.uint8]
RECONSTRUCTION = Single("reconstruction")


class Measure(ABC):
    """A metric, or several that need the same."""

    @abstractmethod
    def figures(self, view: View) -> Iterator[Figure]:
        """What it has to say of a cell; nothing for a task of another kind."""

    def look(
        self, images: Images, frame: Frame, step: int, sources: Sources | None, evaluator: Evaluator
    ) -> dict[str, Tensor]:
        """What it must know of images (n, H, W, 3), a row per image, beside what the judge sees in them.

        Args:
            images: of one frame of a chunk.
            frame: what they are.
            step: of a sequence of edits, from 0; the last one of edits that were made at once.
            sources: what was edited, row by row, or what was reconstructed; None where nothing was.
            evaluator: has the judge.
        """
        return {}

    def options(self) -> dict[str, Any]:
        """What its figures depend on, in JSON primitives."""
        return options_of(self)


class Accuracy(Measure):
    """The share of images that satisfy what was asked for, and of each attribute by itself.

    joint_accuracy of formulas and edits, or, of reconstructions, of all binary attributes at once, with accuracy/ATTR;
    marginal/ATOM of each part of a formula, and marginal/ATTR of what comes along unasked.
    """

    def figures(self, view: View) -> Iterator[Figure]:
        schema, labels = view.evaluator.world.schema, view.labels
        binary = [attribute.name for attribute in schema.of_kind("binary")]
        task, formula = view.frame.task, view.formula
        if task == RECONSTRUCTION:
            assert view.sources is not None
            wanted = view.sources.labels
            for name, (value, n) in attribute_accuracy(schema, labels, wanted).items():
                if not n:  # of a detail that applies to none of them
                    continue
                yield Figure(f"accuracy/{name}", value, float((value * (1 - value) / n) ** 0.5), n)
            right, counts = right_labels(schema, labels, wanted)
            if bool(counts[:, -1].any()):
                yield Figure.mean("joint_accuracy", right[counts[:, -1], -1])
            return
        if formula is None:
            for name in binary:
                yield Figure.mean(f"marginal/{name}", labels[:, schema.index(name)] > 0.5)
            return
        hits = satisfaction(schema, formula, labels)
        yield Figure.mean("joint_accuracy", hits.pop("joint_accuracy"))
        if isinstance(task, Generate):
            for metric, holds in hits.items():
                if metric != f"marginal/{formula}":  # a formula of one atom is what it is
                    yield Figure.mean(metric, holds)


class Sharp(Measure):
    """The share of images that are what was asked for and no ghosts."""

    def figures(self, view: View) -> Iterator[Figure]:
        if view.frame.task != RECONSTRUCTION:
            formula = view.formula
            yield Figure.mean("sharp", view.near if formula is None else formula.holds(view.labels) & view.near)


class Frechet(Measure):
    """Frechet distance to real images in the judge's features."""

    def figures(self, view: View) -> Iterator[Figure]:
        reference = _reference(view)
        if reference is not None and not isinstance(view.frame.task, Edit):
            whole = reduce(lambda a, b: merge_parts(torch.stack((a, b))), map(part_of, view.each("features")))
            mean, covariance = whole[0, 1:], whole[1:, 1:] / (len(view) - 1)
            distance = frechet_distance(mean, covariance, reference.mean, reference.covariance)
            yield Figure("frechet_distance", distance, n=len(view))


class Neighbours(Measure):
    """Fidelity and variety in the judge's features: density, coverage, precision, recall, diversity.

    Args:
        k: which neighbour is the radius of a real image, for density and coverage.
        most: images of each side at most, as the cost is their product.
    """

    def __init__(self, k: int = 5, most: int = 2048) -> None:
        if not 1 <= k < most:
            raise ValueError(f"`k` must be at least 1 and below `most`, got {k} and {most}; 5 and 2048 are usual")
        self.k, self.most = k, most

    def figures(self, view: View) -> Iterator[Figure]:
        task = view.frame.task
        ours = view.features[: self.most]
        if isinstance(task, Scale):
            yield Figure("diversity", diversity(ours), n=len(ours))
        if not isinstance(task, Generate | Single) or (reference := _reference(view)) is None:
            return
        real = self._drawn(reference, len(ours))
        if len(ours) > self.k and len(real) > self.k:
            found, balls = density_coverage(real, ours, self.k), precision_recall(real, ours)
            yield Figure("density", found.density, n=len(ours))
            yield Figure("coverage", found.coverage, n=len(ours))
            yield Figure("precision", balls.precision, n=len(ours))
            yield Figure("recall", balls.recall, n=len(ours))
        yield Figure("diversity", diversity(ours), n=len(ours))

    def _drawn(self, reference: Reference, count: int) -> Tensor:
        """As many real images as there are samples, without repetition, by their weights."""
        count = min(count, int((reference.weights > 0).sum()), self.most)
        rows = torch.multinomial(reference.weights, count, generator=torch.Generator().manual_seed(0))
        return reference.features[rows]


class Preservation(Measure):
    """Whether edits are there and everything else was kept.

    edit_success asks for all of it: every edit, every other binary attribute, and, where it is known which pixels an
    edit may change, that the others hardly did.
    """

    def look(
        self, images: Images, frame: Frame, step: int, sources: Sources | None, evaluator: Evaluator
    ) -> dict[str, Tensor]:
        if sources is None or sources.regions is None:
            return {}
        return {"outside": outside_of(images, sources, step).float()}

    def figures(self, view: View) -> Iterator[Figure]:
        task, sources = view.frame.task, view.sources
        if not isinstance(task, Edit | Tradeoff) or sources is None:
            return
        schema, outside = view.evaluator.world.schema, view.all("outside")
        edits = (task if isinstance(task, Edit) else task.edit).edits
        edited = [name for edit in edits for name in edit.attributes]
        moved = torch.zeros(len(view)) if outside is None else outside
        yield Figure.mean("edit_success", edits_succeed(schema, edits, view.labels, sources, moved))
        yield Figure.mean("kept", kept(schema, sources.labels, view.labels, edited, ("binary",)))
        yield Figure.mean("kept_fine", kept(schema, sources.labels, view.labels, edited, ("binary", "categorical")))
        if outside is not None:
            yield Figure.mean("l1_outside", outside)


class SideEffects(Measure):
    """changed/ATTR, the share of sources of which the judge sees another value; des, of edits of one attribute."""

    def figures(self, view: View) -> Iterator[Figure]:
        task, sources = view.frame.task, view.sources
        if not isinstance(task, Edit) or sources is None:
            return
        schema = view.evaluator.world.schema
        for attribute in schema.of_kind("binary", "categorical"):
            column = schema.index(attribute.name)
            old, new = sources.labels[:, column], view.labels[:, column]
            counts = ~(old.isnan() | new.isnan()) if attribute.applies_if else torch.ones_like(old, dtype=torch.bool)
            if bool(counts.any()):
                changed = ((old != new) & ~(old.isnan() & new.isnan()))[counts]
                yield Figure(f"changed/{attribute.name}", *_share(changed))
        edited = {name for edit in task.edits for name in edit.attributes}
        if len(edited) == 1:
            (name,) = edited
            effects = side_effects(schema, {name: (sources.labels, view.labels)})
            before, after = (task.edits[0].holds(labels).float() for labels in (sources.labels, view.labels))
            gain = accuracy_gain(before, after, wanted=1.0)
            yield Figure("des", disentangled_edit_strength(effects, {name: gain})[name], n=len(view))


class Extracting(Measure):
    """A measure that looks at source and result through a network of the user's choice.

    Args:
        extractor: the network; None for the judge.
    """

    def __init__(self, extractor: nn.Module | None = None) -> None:
        self._extractor = None if extractor is None else extractor.eval().requires_grad_(False)

    def options(self) -> dict[str, Any]:
        if self._extractor is None:
            return super().options()
        network = {**options_of(self._extractor), "weights_sha256": weights_sha256(self._extractor)}
        return {**super().options(), "extractor": network}


class Identity(Extracting):
    """How alike source and result are to a network that recognises the subject: the cosine of its embeddings.

    Without one it is the judge's features that are compared, which know the attributes, not the person.

    Args:
        extractor: maps images (B, C, H, W) in [-1, 1] to embeddings (B, D), such as a face recognition network.
    """

    def look(
        self, images: Images, frame: Frame, step: int, sources: Sources | None, evaluator: Evaluator
    ) -> dict[str, Tensor]:
        if sources is None or not isinstance(frame.task, Edit):
            return {}
        if self._extractor is None:
            embedded = [evaluator.see(np.asarray(i)).features for i in (sources.images, images)]
            return {"identity": cosine_similarity(*embedded).float()}
        device = evaluator.pipeline.device
        x, y = (pixels_to_x(torch.as_tensor(i).to(device)) for i in (sources.images, images))
        return {"identity": identity_similarity(self._extractor.to(device), x, y).float()}

    def figures(self, view: View) -> Iterator[Figure]:
        similarity = view.all("identity")
        if similarity is not None:
            yield Figure.mean("identity", similarity)


class Perceptual(Extracting):
    """Perceptual distance of source and result, see `lcg.metrics.perceptual`.

    Args:
        extractor: gives feature maps (B, C_l, H_l, W_l) of images in [-1, 1]; None for the judge's blocks.
    """

    def look(
        self, images: Images, frame: Frame, step: int, sources: Sources | None, evaluator: Evaluator
    ) -> dict[str, Tensor]:
        if sources is None or not isinstance(frame.task, Edit):
            return {}
        device = evaluator.pipeline.device
        maps = (JudgeMaps(evaluator.judge) if self._extractor is None else self._extractor).to(device)
        x, y = (pixels_to_x(torch.as_tensor(i).to(device)) for i in (sources.images, images))
        return {"perceptual": perceptual_distance(maps, x, y).float()}

    def figures(self, view: View) -> Iterator[Figure]:
        distance = view.all("perceptual")
        if distance is not None:
            yield Figure.mean("perceptual", distance)


class Psnr(Measure):
    """Peak signal-to-noise ratio of reconstructions in dB, the mean over images."""

    def look(
        self, images: Images, frame: Frame, step: int, sources: Sources | None, evaluator: Evaluator
    ) -> dict[str, Tensor]:
        if sources is None or frame.task != RECONSTRUCTION:
            return {}
        error = (torch.as_tensor(images).double() - sources.images.double()) / 255
        return {"psnr": -10 * error.square().mean(dim=(1, 2, 3)).log10()}

    def figures(self, view: View) -> Iterator[Figure]:
        psnr = view.all("psnr")
        if view.frame.task == RECONSTRUCTION and psnr is not None and bool(psnr.isfinite().all()):
            yield Figure.mean("psnr", psnr)


STANDARD: tuple[type[Measure], ...] = (
    Accuracy,
    Sharp,
    Preservation,
    Frechet,
    Neighbours,
    SideEffects,
    Identity,
    Perceptual,
    Psnr,
)
"""What a benchmark measures unless it is told otherwise."""


def _reference(view: View) -> Reference | None:
    """The real images that samples are compared with, None where there are none to compare with."""
    task = view.frame.task
    if task == Single("unconditional"):
        return view.evaluator.biased()[0]
    if isinstance(task, Generate | Scale) and view.formula is not None:
        return view.evaluator.satisfying(view.formula)
    return None


def _share(holds: Tensor) -> tuple[float, float, int]:
    figure = Figure.mean("", holds)
    return figure.value, figure.stderr, figure.n


def edits_succeed(
    schema: Schema, edits: Sequence[Formula], labels: Tensor, sources: Sources, outside: Tensor
) -> Tensor:
    """Whether all edits are there and all else was kept, (N,) bool.

    Args:
        schema: the attributes.
        edits: all that were made.
        labels: (N, A) that the judge sees in the results.
        sources: what they were made of.
        outside: (N,) see `outside_of`.
    """
    edited = [name for edit in edits for name in edit.attributes]
    coarse = kept(schema, sources.labels, labels, edited, ("binary",))
    present = torch.stack([edit.holds(labels) for edit in edits]).all(0)
    return edit_success(present, coarse, outside)


def outside_of(images: Images, sources: Sources, step: int) -> Tensor:
    """How much changed where edits may not show (N,), see `l1_outside`; 0 where nobody knows where that is."""
    if sources.regions is None:
        return torch.zeros(len(images))
    x, y = (pixels_to_x(torch.as_tensor(i)) for i in (sources.images, images))
    return l1_outside(x, y, sources.regions[step])
