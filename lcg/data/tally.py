"""The parts of a store that is being encoded, by any number of processes, and how far they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm


@dataclass(frozen=True)
class Part:
    """A shard to be made.

    Attributes:
        number: of the shard.
        rows: the samples in it.
        path: of the file that says that it is done.
    """

    number: int
    rows: range
    path: Path


class Tally:
    """Shows how many images all processes have encoded, at which rate, and how long the rest will take.

    Own images are counted as they are encoded, those of others when their part is done.

    Args:
        parts: all of them.
        begun: samples that are stored already.
        shown: whether anybody is told.
    """

    def __init__(self, parts: Sequence[Part], begun: int, shown: bool) -> None:
        self._others = {part.number: part for part in parts}
        found = sum(len(part.rows) for part in parts if part.path.is_file())
        total = begun + sum(len(part.rows) for part in parts)
        self._own = 0
        self._bar = tqdm(total=total, initial=begun + found, unit="image", desc="encode", disable=not shown)
        self._begun = begun

    def advance(self, part: Part, images: int) -> None:
        """Hears of images of one's own."""
        self._others.pop(part.number, None)
        self._own += images
        if not self._bar.disable:
            self._bar.update(self.done - self._bar.n)

    @property
    def done(self) -> int:
        """Images, of all processes."""
        elsewhere = sum(len(part.rows) for part in self._others.values() if part.path.is_file())
        return self._begun + self._own + elsewhere

    def __enter__(self) -> Tally:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None and not self._bar.disable:
            self._bar.update(self._bar.total - self._bar.n)
        self._bar.close()
