"""What literals are worth under a classifier of clean latents, which several methods climb.

    log P(literals | z_0) = sum_i w_i log p_phi(y_i | z_0)

The heads of such a classifier are independent. Literals of one attribute (`hair=blond & ~hair=red`) are taken together,
exactly, as in every formula (`lcg.guidance.probability`). With binary attributes the negative of this is the sum of
binary cross-entropies that the methods' authors write.

Methods that draw noise draw it for each source alone (`own_noise`), so that an edit does not depend on the batch
it is in.
"""

import zlib
from collections.abc import Callable, Sequence
from os import PathLike, fspath

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Self

from lcg.baselines.contract import Baseline, Literal, Training, pretrained, when_fitted
from lcg.guidance import And, Formula, FormulaReadout, Not, Weighted
from lcg.nets.heads import HeadOutputs
from lcg.nets.latent_classifier import LatentClassifier

CleanClassifier = Callable[[Tensor], HeadOutputs]
"""classifier(z_0) -> outputs of its heads; such as `lcg.nets.latent_classifier.LatentClassifier`."""

LogProbability = Callable[[Tensor], Tensor]
"""log_p(z_0) -> (B,), differentiable in z_0; rows are independent."""


class FollowsClassifier(Baseline):
    """A method that follows a trained classifier of clean latents and learns nothing else.

    Args:
        checkpoint: of the classifier.
    """

    def __init__(self, checkpoint: str | PathLike[str]) -> None:
        self.checkpoint = fspath(checkpoint)
        self._classifier: LatentClassifier | None = None

    def fit(self, training: Training) -> Self:
        """Reads the classifier. Raises FileNotFoundError and ValueError as `pretrained`."""
        self._classifier = pretrained(self.checkpoint, "latent_classifier", training)
        return self

    @property
    def classifier(self) -> LatentClassifier:
        """What is followed. Raises RuntimeError before `fit`."""
        return when_fitted(self._classifier, self)


def log_probability(classifier: CleanClassifier, wanted: Sequence[Literal]) -> LogProbability:
    """log P(literals | z_0), ready to be evaluated and differentiated often.

    Args:
        classifier: of clean latents.
        wanted: what shall hold, with weights.

    Returns:
        A function of z_0 (B, *latent) that gives (B,), at most 0.

    Raises:
        ValueError: no literals, literals that contradict each other, or none that has a weight.
    """
    readout = FormulaReadout(conjunction(wanted))

    def log_p(z_0: Float[Tensor, "batch *latent"]) -> Float[Tensor, " batch"]:
        return readout(classifier(z_0))

    return log_p


def conjunction(wanted: Sequence[Literal]) -> Formula:
    """The formula that all literals make together. Raises ValueError when there are none."""
    if not wanted:
        raise ValueError("`wanted` must hold at least one literal, got none; ask for one such as glasses")
    parts = tuple(_formula(literal) for literal in wanted)
    return parts[0] if len(parts) == 1 else And(parts)


def own_noise(z_0: Float[Tensor, "batch *latent"], seed: int = 0) -> list[torch.Generator]:
    """A generator per row, seeded by the row itself: another source has other noise, the same source the same.

    Args:
        z_0: (B, *latent).
        seed: another one gives other noise to the same source.
    """
    rows = z_0.detach().cpu().contiguous()
    return [torch.Generator().manual_seed(zlib.crc32(row.numpy().tobytes(), seed)) for row in rows]


def _formula(literal: Literal) -> Formula:
    plain = literal.atom if literal.positive else Not(literal.atom)
    return plain if literal.weight == 1.0 else Weighted(plain, literal.weight)
