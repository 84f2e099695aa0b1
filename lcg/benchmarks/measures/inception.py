"""FID, KID, inception score, precision and recall in Inception's features, as a benchmark's measure.

Not measured unless it is asked for: the network has seen photographs, its weights must be on this machine, and on a CPU
it takes longer than all else. What the figures depend on is written beside them, in OUT/metrics.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lcg.benchmarks.evaluator import Evaluator, Sources
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.measures.measure import Images, Measure
from lcg.benchmarks.tasks import Generate, Single
from lcg.benchmarks.view import Frame, View
from lcg.metrics.inception import figures_of
from lcg.metrics.inception_cache import cached_features
from lcg.metrics.inception_features import Features, InceptionExtractor, Layer, find_weights

NAMES = {
    "fid": "fid",
    "kid": "kid",
    "inception_score": "inception_score",
    "precision": "inception_precision",
    "recall": "inception_recall",
}


class Inception(Measure):
    """Figures of image quality that others report too; see `lcg.metrics.inception`.

    Args:
        weights: file of the Inception weights; None for the one in the cache of torch.hub. Never downloaded.
        layer: which features.
        resize: before the network's own resizing, bring the shorter side to so many pixels; None to leave images alone.
        fewest: refuse sets of fewer images; None for one more than there are features.
        kid_subset_size: images of each of the 100 subsets that KID is the mean over.
        splits: parts that the inception score is the mean over.
        neighbours: k of the balls of precision and recall.
        batch_size: images the network sees at once.

    Raises:
        FileNotFoundError: there are no weights.
        ImportError: the extra `fid` is not installed.
    """

    def __init__(
        self,
        weights: str | None = None,
        layer: Layer = "2048",
        resize: int | None = None,
        fewest: int | None = None,
        kid_subset_size: int = 1000,
        splits: int = 10,
        neighbours: int = 3,
        batch_size: int = 64,
    ) -> None:
        self.weights, self.layer, self.resize, self.fewest = str(find_weights(weights)), layer, resize, fewest
        self.kid_subset_size, self.splits, self.neighbours = kid_subset_size, splits, neighbours
        self.batch_size = batch_size
        self._device = torch.device("cpu")

    @cached_property
    def _extractor(self) -> InceptionExtractor:
        return InceptionExtractor(
            self.weights, layer=self.layer, resize=self.resize, device=self._device, batch_size=self.batch_size
        )

    def look(
        self, images: Images, frame: Frame, step: int, sources: Sources | None, evaluator: Evaluator
    ) -> dict[str, Tensor]:
        if not _answers(frame):
            return {}
        self._device = evaluator.pipeline.device
        found = self._extractor(images)
        return {"inception_features": found.features, "inception_logits": found.logits}

    def figures(self, view: View) -> Iterator[Figure]:
        features, logits = view.all("inception_features"), view.all("inception_logits")
        if not _answers(view.frame) or features is None or logits is None:
            return
        self._device = view.evaluator.pipeline.device
        generated = Features(features, logits, self._extractor.recipe, self._device.type)
        found = figures_of(
            generated,
            self._reference(view),
            fewest=self.fewest,
            kid_subset_size=self.kid_subset_size,
            splits=self.splits,
            neighbours=self.neighbours,
        )
        about = {name: value for name, value in found.items() if name not in NAMES}
        for name, metric in NAMES.items():
            spread = found.get(f"{name}_std")
            stderr = float(spread) / 10 if name == "kid" and spread is not None else np.nan  # of 100 subsets
            yield Figure(metric, float(found[name] or 0.0), stderr, len(generated), about=about)

    def _reference(self, view: View) -> Features:
        """Of real images, not of their reconstructions: those that the judge's distance is to."""
        evaluator, formula = view.evaluator, view.formula
        content = json.dumps([evaluator.cache.always, evaluator.references, str(formula)], sort_keys=True)

        def images() -> Iterator[Images]:
            if formula is None:
                chosen = evaluator.world.real("biased", evaluator.references, "biased-reference").images
            else:
                real = evaluator.real(formula, "reference")
                weights, rng = evaluator.weights(real.labels, formula), torch.Generator().manual_seed(0)
                even = bool((weights == weights[0]).all())
                rows = torch.arange(len(real)) if even else torch.multinomial(weights, len(real), True, generator=rng)
                chosen = real.images[rows.numpy()]
            for start in range(0, len(chosen), 1024):
                yield chosen[start : start + 1024]

        return cached_features(evaluator.cache.folder, images, self._extractor, content)


def _answers(frame: Frame) -> bool:
    return isinstance(frame.task, Generate) or frame.task == Single("unconditional")
