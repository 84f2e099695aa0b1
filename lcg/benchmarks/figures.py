"""One measured number, as it becomes a row of `results.csv`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        metric: its fixed name.
        value: the number.
        stderr: its standard error over images, NaN where it has none.
        n: images it was measured on.
        outcomes: (n,) what it is the mean of, where it is one: for comparisons image by image.
        about: what else it depends on and must be quoted with it, in JSON primitives.
    """

    metric: str
    value: float
    stderr: float = math.nan
    n: int = 1
    outcomes: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    about: dict[str, Any] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def mean(cls, metric: str, outcomes: Tensor) -> Figure:
        """The mean of outcomes (n,), n >= 1, numbers or truth values, with its standard error."""
        x, n = outcomes.double(), len(outcomes)
        value = float(x.mean())
        return cls(metric, value, float(x.std(correction=0)) / n**0.5, n, outcomes.float().numpy())
