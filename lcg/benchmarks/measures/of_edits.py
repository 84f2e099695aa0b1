"""Metrics of edits: whether they are there, what was kept, what changed beside them, who it still is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lcg.benchmarks.evaluator import Evaluator, Sources
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.measures.measure import Images, Measure
from lcg.benchmarks.options import options_of
from lcg.benchmarks.tasks import Edit, Tradeoff
from lcg.benchmarks.view import Frame, View
from lcg.generators.base import pixels_to_x, weights_sha256
from lcg.guidance import Formula
from lcg.metrics.judge_maps import JudgeMaps
from lcg.metrics.perceptual import perceptual_distance
from lcg.metrics.preservation import edit_success, kept, l1_outside
from lcg.metrics.side_effects import (
    accuracy_gain,
    cosine_similarity,
    disentangled_edit_strength,
    identity_similarity,
    side_effects,
)
from lcg.schema import Schema


class Preservation(Measure):
    """Whether edits are there and everything else was kept.

    edit_success asks for all of it: every edit, every other binary attribute, and, where it is known which pixels an
    edit may change, that the others hardly did.
    """

    def look(
        self, images: Images, frame: Frame, step: int, sources: Sources | None, evaluator: Evaluator
    ) -> dict[str, Tensor]:
        outside = None if sources is None else outside_of(images, sources, step)
        return {} if outside is None else {"outside": outside.float()}

    def figures(self, view: View) -> Iterator[Figure]:
        task, sources = view.frame.task, view.sources
        if not isinstance(task, Edit | Tradeoff) or sources is None:
            return
        schema, outside = view.evaluator.world.schema, view.all("outside")
        edits = task.edit.edits
        edited = [name for edit in edits for name in edit.attributes]
        yield Figure.mean("edit_success", edits_succeed(schema, edits, view.labels, sources, outside))
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


class Pixels(Measure):
    """change: how much of the image is another one, wherever; for worlds that do not know where an edit may show."""

    def look(
        self, images: Images, frame: Frame, step: int, sources: Sources | None, evaluator: Evaluator
    ) -> dict[str, Tensor]:
        if sources is None or not isinstance(frame.task, Edit):
            return {}
        x, y = (pixels_to_x(torch.as_tensor(i)) for i in (sources.images, images))
        return {"change": (x - y).abs().flatten(1).mean(1) / 2}

    def figures(self, view: View) -> Iterator[Figure]:
        change = view.all("change")
        if change is not None:
            yield Figure.mean("change", change)


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


def _share(holds: Tensor) -> tuple[float, float, int]:
    figure = Figure.mean("", holds)
    return figure.value, figure.stderr, figure.n


def edits_succeed(
    schema: Schema, edits: Sequence[Formula], labels: Tensor, sources: Sources, outside: Tensor | None
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


def outside_of(images: Images, sources: Sources, step: int) -> Tensor | None:
    """How much changed where edits may not show (N,), see `l1_outside`; None where nobody knows where that is."""
    if sources.regions is None:
        return None
    x, y = (pixels_to_x(torch.as_tensor(i)) for i in (sources.images, images))
    return l1_outside(x, y, sources.regions[step])
