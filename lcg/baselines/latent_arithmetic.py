"""Latent arithmetic: an attribute is a direction, an edit adds it.

    z' = z_0 + step * sum_i w_i s_i d_i,      d_a = E[z_0 | a] - E[z_0 | not a],      s = +1 for a, -1 for ~a

"Smiling woman - neutral woman + neutral man" (Radford et al. 2016, arXiv:1511.06434, section 6.3.2), with the attribute
vector taken as a difference of means over labelled latents (White 2016, arXiv:1609.04468). For a flat prior and linear
classifiers latent classifier guidance is arithmetic too, so this is the baseline that lcg has to beat.

One step for all rows: a source that has already half of what is asked moves as far as any other. It knows no density,
so far steps leave the data; and what is correlated comes along: who gets a beard gets something of the hat that goes
with it.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.editing.contract import Editor, EditRequest, EditResult
from lcg.guidance import Atom, Formula, Not
from lcg.schema import Schema


class LatentArithmetic(Editor):
    """Edits and generates by adding differences of means.

    Args:
        z_0: (N, *latent) labelled standardised latents; kept, not copied.
        labels: (N, A) in the columns of the schema, NaN where missing: such rows take no part in that direction.
        schema: the attributes.
        step: how far to go; 1 is the full difference of means.

    Raises:
        ValueError: latents and labels that do not fit each other or the schema, latents that are not finite, or a step
            that is negative or not finite.
    """

    def __init__(
        self, z_0: Float[Tensor, "n *latent"], labels: Float[Tensor, "n attributes"], schema: Schema, step: float = 1.0
    ) -> None:
        if z_0.ndim < 2 or labels.shape != (len(z_0), len(schema)):
            raise ValueError(
                f"`z_0` must be (N, *latent) and `labels` (N, {len(schema)}), a row per latent and a column per "
                f"attribute, got {tuple(z_0.shape)} and {tuple(labels.shape)}"
            )
        if not bool(z_0.isfinite().all()):
            raise ValueError("`z_0` must be finite, got NaN or infinity; check the latent store with `store.verify()`")
        self.z_0, self.labels, self.schema, self.step = z_0, labels, schema, _checked_step(step)
        self._directions: dict[str, Tensor] = {}

    @classmethod
    def fit(
        cls, z_0: Float[Tensor, "n *latent"], labels: Float[Tensor, "n attributes"], schema: Schema, step: float = 1.0
    ) -> "LatentArithmetic":
        """From training latents and their labels; the verb that all baselines share. Arguments and errors as above."""
        return cls(z_0, labels, schema, step)

    def edit(self, z_0: Tensor, request: EditRequest) -> EditResult:
        """See `Editor`. What is to be kept is not looked at. Raises ValueError as `move` does."""
        return EditResult(self.move(z_0, request.edits), request)

    def generate(self, formula: Formula, z_0: Float[Tensor, "batch *latent"]) -> Float[Tensor, "batch *latent"]:
        """Samples of a formula from unconditional samples, by moving each along the formula's directions.

        Args:
            formula: a conjunction of literals, such as `glasses & ~hat & hair=blond`; weights multiply the step.
            z_0: (B, *latent) samples of the prior.

        Returns:
            (B, *latent).

        Raises:
            ValueError: the formula is more than a conjunction of literals, or as `move` does.
        """
        return self.move(z_0, [formula])

    def move(
        self, z_0: Float[Tensor, "batch *latent"], literals: Iterable[Formula], step: float | None = None
    ) -> Float[Tensor, "batch *latent"]:
        """z_0 + step * sum_i w_i s_i d_i.

        Args:
            z_0: (B, *latent) standardised latents.
            literals: atoms and negated atoms, with or without a weight, or conjunctions of such.
            step: overrides the constructor's.

        Returns:
            (B, *latent) in the precision of z_0.

        Raises:
            ValueError: latents of another shape, something that is no literal, a literal that holds for no or for every
                labelled latent, or a step that is negative or not finite.
        """
        if z_0.shape[1:] != self.z_0.shape[1:]:
            raise ValueError(
                f"`z_0` must be latents of shape {tuple(self.z_0.shape[1:])}, as those of the directions, "
                f"got {tuple(z_0.shape[1:])}"
            )
        step = self.step if step is None else _checked_step(step)
        total = torch.zeros(self.z_0.shape[1:], dtype=torch.float64, device=z_0.device)
        for literal, weight in (pair for formula in literals for pair in formula.conjuncts):
            total += weight * self.direction(literal).to(z_0.device)
        return z_0 + (step * total).to(z_0.dtype)

    def direction(self, literal: Formula) -> Float[Tensor, "*latent"]:
        """s d: the mean of the latents for which an atom holds less the mean of those for which it does not.

        Args:
            literal: an atom or a negated atom. A categorical value is set against all other values.

        Returns:
            (*latent) float64, computed once per atom.

        Raises:
            ValueError: it is no literal, speaks of another schema, or holds for no or for every labelled latent.
        """
        atom, sign = literal, 1.0
        while isinstance(atom, Not):
            atom, sign = atom.operand, -sign
        if not isinstance(atom, Atom):
            raise ValueError(
                "latent arithmetic has directions for literals only, such as glasses, ~hat or hair=blond, "
                f"got {str(literal)!r}; use lcg for other formulas"
            )
        if self.schema.attributes[atom.column : atom.column + 1] != (atom.attribute,):
            raise ValueError(f"{str(atom)!r} was parsed with another schema; parse it with that of the labels")
        name = str(atom)
        if name not in self._directions:
            true, false = atom.verdict(self.labels)
            for rows, what in ((true, "holds"), (false, "does not hold")):
                if not bool(rows.any()):
                    raise ValueError(f"there is no labelled latent for which {name!r} {what}, so it has no direction")
            self._directions[name] = self.z_0[true].double().mean(dim=0) - self.z_0[false].double().mean(dim=0)
        return sign * self._directions[name]

    @staticmethod
    def tune(steps: Sequence[float], score: Callable[[float], float]) -> float:
        """The step with the best score on a validation split.

        Args:
            steps: candidates.
            score: larger is better, such as the joint accuracy of `move(z_0, literals, step)` for held-out latents.

        Returns:
            The best candidate; of equally good ones the smallest, which changes least.

        Raises:
            ValueError: there are no candidates, or a score is NaN.
        """
        if not steps:
            raise ValueError("`steps` must hold at least one candidate, got none; try 0.5, 1, 1.5, 2")
        scores = {step: score(step) for step in sorted(steps)}
        for step, value in scores.items():
            if math.isnan(value):
                raise ValueError(f"the `score` of step {step} is NaN; score a validation split that is not empty")
        return max(scores, key=scores.__getitem__)  # the first of the largest, and steps ascend


def _checked_step(step: float) -> float:
    if not 0 <= step < math.inf:
        raise ValueError(f"`step` must be finite and >= 0, got {step}; to go the other way, negate the literal")
    return float(step)
