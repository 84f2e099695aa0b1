"""What a check says: a number, what it may be at most or must be at least, and so whether lcg is as it should be.

Checks come in two kinds. Most must be right: value <= bound. Negative controls do what is known to be wrong and must
come out wrong, value >= bound: otherwise the suite could not have noticed, and its other verdicts mean nothing.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Expected = Literal["right", "wrong"]


@dataclass(frozen=True)
class Measurement:
    """One number of a check.

    Args:
        metric: what is measured.
        value: the number.
        bound: what a right method does not exceed; of a negative control, what it must reach.
        floor: what exact samples of the same number score; None where there is no chance in it.
        n: samples or latents it was measured on.
        expected: whether this is to come out right, or is a negative control.
        advice: what to do if it fails.
    """

    metric: str
    value: float
    bound: float
    floor: float | None = None
    n: int | None = None
    expected: Expected = "right"
    advice: str = ""

    @property
    def passed(self) -> bool:
        """Whether it came out as expected; never for NaN."""
        if math.isnan(self.value):
            return False
        return self.value <= self.bound if self.expected == "right" else self.value >= self.bound


@dataclass(frozen=True)
class Check:
    """Something that can be measured.

    Args:
        group: the part of lcg it is about.
        world: where.
        method: what does it.
        task: what is asked.
        measure: does it.
    """

    group: str
    world: str
    method: str
    task: str
    measure: Callable[[], Iterable[Measurement]]

    def __str__(self) -> str:
        return f"{self.group}: {self.method}, {self.task} ({self.world})"


@dataclass(frozen=True)
class Outcome:
    """A check that was made.

    Attributes:
        check: which one.
        measurements: its numbers; none if it broke down.
        seconds: how long it took.
        error: what it broke down with; empty if it did not.
    """

    check: Check
    measurements: tuple[Measurement, ...]
    seconds: float
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether every number came out as expected."""
        return not self.error and bool(self.measurements) and all(m.passed for m in self.measurements)
