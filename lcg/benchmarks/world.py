"""The avatars as a benchmark's ground truth: real images of any formula, sources to edit, and where an edit may show.

Everything here is drawn from splits of its own, independently of what prior, classifiers, generator and judge were
trained on. The world is finite, so a few avatars coincide by chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg.data.avatars import SCHEMA, AvatarSource, Distribution, edited_region, labels_of, render
from lcg.guidance import Formula, Not
from lcg.schema import Schema


@dataclass(frozen=True)
class RealSet:
    """Rendered avatars with their true labels.

    Attributes:
        images: (N, H, W, 3) uint8.
        labels: (N, A), NaN where a detail does not apply.
        parts: (N, P) what was drawn.
    """

    images: NDArray[np.uint8]
    labels: Tensor
    parts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)


class AvatarWorld:
    """Real avatars for a benchmark.

    Args:
        seed: another seed renders other avatars everywhere.
    """

    schema: Schema = SCHEMA
    image_shape = (3, 64, 64)

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def real(self, distribution: Distribution, count: int, split: str, formula: Formula | None = None) -> RealSet:
        """Avatars of a distribution, of which only those that satisfy a formula.

        Args:
            distribution: biased (as the training set) or uniform.
            count: how many.
            split: a name; sets of different names share no randomness.
            formula: what shall hold.

        Raises:
            ValueError: the formula is so rare in the distribution that a million draws do not give enough.
        """
        total = count
        while True:
            parts = AvatarSource(distribution, total, f"bench-{split}", self.seed).parts
            labels = torch.from_numpy(labels_of(parts))
            rows = torch.arange(total) if formula is None else formula.holds(labels).nonzero()[:, 0]
            if len(rows) >= count:
                chosen = rows[:count].numpy()
                return RealSet(render(parts[chosen]), labels[chosen], parts[chosen])
            if total > 1_000_000:
                raise ValueError(
                    f"{str(formula)!r} holds for {len(rows)} of {total} {distribution} avatars, {count} needed"
                )
            total *= 4

    def share(self, distribution: Distribution, formula: Formula, draws: int = 65_536) -> float:
        """The share of a distribution's avatars that satisfy a formula, in [0, 1], from this many draws."""
        labels = torch.from_numpy(labels_of(AvatarSource(distribution, draws, "bench-exists", self.seed).parts))
        return float(formula.holds(labels).double().mean())

    def check_exists(self, formula: Formula) -> None:
        """Raises ValueError when a formula holds for none of many uniform avatars."""
        if self.share("uniform", formula) == 0:
            raise ValueError(f"{str(formula)!r} holds for no avatar, so there is nothing to compare with; ask for less")

    def regions(self, sources: RealSet, edits: tuple[Formula, ...]) -> NDArray[np.bool_]:
        """(N, H, W): where each source may change when all edits are made."""
        wanted = {edit.attributes[0]: not isinstance(edit, Not) for edit in edits}
        return np.stack([edited_region(parts, wanted) for parts in sources.parts])
