"""One measured number, as it becomes a row of `results.csv`."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        metric: its fixed name.
        value: the number.
        stderr: its standard error over images, NaN where it has none.
        n: images it was measured on.
    """

    metric: str
    value: float
    stderr: float = math.nan
    n: int = 1
