"""The contract of a metric of a benchmark, which is named in its YAML by its class.

A measure may look at images while they are there (`look`), and gives figures when all of a cell have been seen
(`figures`). It says nothing of tasks that it has no answer to, so one list serves for all. The mathematics is in
`lcg.metrics`; here are names, and which images are compared with which.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lcg.benchmarks.evaluator import Evaluator, Sources
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.options import options_of
from lcg.benchmarks.view import Frame, View

Images = NDArray[np.uint8]
"""Images (N, H, W, 3), 0 to 255."""


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
