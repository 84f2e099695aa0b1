"""The avatars as a benchmark's ground truth: images of any formula without end, and the exact region of an edit.

Everything here is drawn from splits of its own, independently of what prior, classifiers, generator and judge were
trained on. The world is finite, so a few avatars coincide by chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lcg.benchmarks.worlds.world import RealSet, World
from lcg.data.avatars import SCHEMA, AvatarSource, Distribution, Parts, edited_region, labels_of, render
from lcg.guidance import Formula, Not

SPLIT = "bench-"
"""How the names of all splits that a benchmark draws from begin; nothing must be trained on one."""


class AvatarSet(RealSet):
    """Avatars, which know what was drawn."""

    @property
    def parts(self) -> Parts:
        """(N, P)."""
        return self.origin


class AvatarWorld(World):
    """Real avatars for a benchmark.

    Args:
        seed: another seed renders other avatars everywhere.
    """

    schema = SCHEMA
    image_shape = AvatarSource.image_shape
    what = "avatar"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def real(self, kind: Distribution, count: int, split: str, formula: Formula | None = None) -> AvatarSet:
        """See `World.real`.

        Raises:
            ValueError: the formula is so rare in the distribution that a million draws do not give enough.
        """
        total = count
        while True:
            parts = self._drawn(kind, total, split).parts
            labels = torch.from_numpy(labels_of(parts))
            rows = torch.arange(total) if formula is None else formula.holds(labels).nonzero()[:, 0]
            if len(rows) >= count:
                chosen = rows[:count].numpy()
                return AvatarSet(render(parts[chosen]), labels[chosen], parts[chosen])
            if total > 1_000_000:
                raise ValueError(f"{str(formula)!r} holds for {len(rows)} of {total} {kind} avatars, {count} needed")
            total *= 4

    def share(self, kind: Distribution, formula: Formula, draws: int = 65_536) -> float:
        """The share of a distribution's avatars that satisfy a formula, in [0, 1], from this many draws."""
        labels = torch.from_numpy(labels_of(self._drawn(kind, draws, "exists").parts))
        return float(formula.holds(labels).double().mean())

    def regions(self, sources: RealSet, edits: tuple[Formula, ...]) -> NDArray[np.bool_]:
        """(N, H, W): the pixels in which some avatar that the edits lead to differs from the source."""
        wanted = {edit.attributes[0]: not isinstance(edit, Not) for edit in edits}
        return np.stack([edited_region(parts, wanted) for parts in sources.origin])

    def identity(self) -> dict[str, Any]:
        return {**AvatarSource("uniform", 1, f"{SPLIT}*", self.seed).identity(), "distribution": "any"}

    def sources(self) -> list[dict[str, Any]]:
        return [{"source": self.identity()}]

    def _drawn(self, kind: Distribution, count: int, split: str) -> AvatarSource:
        return AvatarSource(kind, count, f"{SPLIT}{split}", self.seed)
