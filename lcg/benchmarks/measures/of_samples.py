"""Metrics of samples and reconstructions: accuracy, ghosts, distance to real images, fidelity and variety."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from lcg.benchmarks.evaluator import Evaluator, Reference, Sources
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.measures.measure import Images, Measure
from lcg.benchmarks.tasks import Edit, Generate, Scale, Single
from lcg.benchmarks.view import Frame, View
from lcg.metrics.accuracy import attribute_accuracy, right_labels
from lcg.metrics.formula_metric import satisfaction
from lcg.metrics.frechet import frechet_distance
from lcg.metrics.neighbours import density_coverage, diversity, precision_recall
from lcg.metrics.streaming import merge_parts, part_of

RECONSTRUCTION = Single("reconstruction")


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


def _reference(view: View) -> Reference | None:
    """The real images that samples are compared with, None where there are none to compare with."""
    task = view.frame.task
    if task == Single("unconditional"):
        return view.evaluator.biased()[0]
    if isinstance(task, Generate | Scale) and view.formula is not None:
        return view.evaluator.satisfying(view.formula)
    return None
