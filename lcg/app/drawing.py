"""Samples of a formula part by part, and how far to trust them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lcg.app.answers import Generated, Image, Trust
from lcg.app.recent import Recent
from lcg.app.refusal import Refused, in_words, whole_number
from lcg.app.trust import trust_in
from lcg.app.turns import HURRIED, PATIENT, USUAL, Turns
from lcg.guidance import Formula
from lcg.pipeline import Pipeline

MAX_SAMPLES = 64
"""Images that one request may ask for."""
MAX_SEED = 2**32 - 1
PART = 16
"""Images that are generated in one turn."""
FORMULAS = 1024
"""Formulas that are remembered, for all users together."""


class Drawing:
    """Draws samples.

    Args:
        pipeline: of the model.
        turns: in which everything is computed.
    """

    def __init__(self, pipeline: Pipeline, turns: Turns) -> None:
        self.pipeline, self.turns = pipeline, turns
        self._trusted: Recent[str, Trust] = Recent(FORMULAS)

    def trust(self, formula: Formula) -> Trust:
        """How far to trust samples of a formula. Raises Refused for one that is too large."""
        return self._trusted.get(str(formula), lambda: self.turns.do(partial(self._trust, formula), HURRIED))

    def _trust(self, formula: Formula) -> Trust:
        with in_words():
            trust = trust_in(self.pipeline.plan(formula))
        known = self.pipeline.supports  # strangers' formulas shall not fill the memory
        while len(known) > FORMULAS:
            del known[next(iter(known))]
        return trust

    def generating(self, formula: Formula | None, n: int, seed: int) -> Iterator[Generated]:
        """See `Studio.generating`."""
        n, seed = whole_number("The number of images", n, 1, MAX_SAMPLES), whole_number("The seed", seed, 0, MAX_SEED)
        trust = None if formula is None else self.trust(formula)
        if trust is not None and not trust.can_sample:
            raise Refused(trust.verdict)
        return self._parts(formula, trust, tuple(range(seed, seed + n)))

    def _parts(self, formula: Formula | None, trust: Trust | None, seeds: tuple[int, ...]) -> Iterator[Generated]:
        latents, images, probabilities = list[Tensor](), list[Image](), list[float]()
        for start in range(0, len(seeds), PART):
            part = partial(self._drawn, formula, seeds[start : start + PART])
            drawn = self.turns.do(part, USUAL if start == 0 else PATIENT)
            latents.extend(drawn[0])
            images.extend(drawn[1])
            probabilities.extend(drawn[2])
            failed = sum(p < 0.5 for p in probabilities)
            warnings = () if trust is None else trust.warnings
            if failed:
                warnings += (
                    f"{failed} of {len(images)} images do not satisfy the formula, as the classifier reads them.",
                )
            yield Generated(
                None if formula is None else str(formula),
                trust,
                np.stack(images),
                seeds[: len(images)],
                tuple(probabilities),
                warnings,
                len(seeds),
                torch.stack(latents),
            )

    def _drawn(self, formula: Formula | None, seeds: Sequence[int]) -> tuple[Tensor, Image, list[float]]:
        with in_words():
            z_0 = self.pipeline.draw(seeds, formula).z_0
        p = [] if formula is None else self.pipeline.log_probability(formula, z_0).exp().clamp(max=1).tolist()
        return z_0, self.pipeline.decode(z_0), p
