"""What is a function of the sources alone, computed once for all that is asked about them.

An edit of a source at another strength, or beside another edit, begins with the same inversion of it. A function f of
latents row by row is evaluated on the rows that differ, in their order, and its last answers are kept: f(z) for z that
was seen a moment ago is what it was, bit by bit.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

KEPT = 4
"""Answers that are kept: those of the sources and of what single edits made of them."""

Answer: TypeAlias = dict[str, Tensor]


class Remembered:
    """A function of latents whose last answers are kept.

    Args:
        function: (B, *latent) -> tensors (B, ...) by name; row i depends on row i only, and nothing else changes it.
    """

    def __init__(self, function: Callable[[Tensor], Answer]) -> None:
        self.function = function
        self.answers: list[tuple[Tensor, Answer]] = []

    def __call__(self, z_0: Tensor) -> Answer:
        """The function of z_0 (B, *latent)."""
        with torch.inference_mode(False), torch.no_grad():  # what is kept may be needed where gradients are taken
            first, same = distinct(z_0)
            answer = self._whole(z_0 if len(first) == len(z_0) else z_0[first])
            return answer if len(first) == len(z_0) else {name: value[same] for name, value in answer.items()}

    def _whole(self, z_0: Tensor) -> Answer:
        for place, (known, answer) in enumerate(self.answers):
            if (known.shape, known.dtype, known.device) == (z_0.shape, z_0.dtype, z_0.device) and known.equal(z_0):
                self.answers.append(self.answers.pop(place))
                return answer
        answer = self.function(z_0)
        self.answers = [*self.answers, (z_0.clone(), answer)][-KEPT:]  # a clone: the caller may write into its latents
        return answer


def distinct(z_0: Tensor) -> tuple[list[int], list[int]]:
    """The rows that equal none before them, and for every row its place among these."""
    places: dict[bytes, int] = {}
    first: list[int] = []
    same: list[int] = []
    for row, values in enumerate(z_0.detach().flatten(1).contiguous().cpu().view(torch.uint8).numpy()):
        place = places.setdefault(values.tobytes(), len(places))
        if place == len(first):
            first.append(row)
        same.append(place)
    return first, same
