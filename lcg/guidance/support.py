"""Whether a prior has seen what a formula asks for: two questions that must not be confused.

Within the prior's support the target is the conditional p(z_0 | formula), to be sampled as exactly as can be. A
combination that the prior has hardly seen has no conditional to sample, only an extrapolation. The evidence is

    labels     how many of the labelled training latents satisfy the formula,
    prior      P(formula) = E[P(formula | z_0)], estimated on samples of the prior,

and labels decide as soon as there are enough of them: a prior that has never seen a combination now and then produces a
ghost that looks like it.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lcg.guidance.formula import And, Formula
from lcg.results.display import block, quiet, strong

RARE = 2e-3
"""A combination of a smaller share is beyond the support: of the few thousand latents that a prior's conditional is
learnt from, a handful have it."""


@dataclass(frozen=True)
class Support:
    """The evidence on one formula.

    Attributes:
        satisfying: labelled latents that satisfy it.
        decided: labelled latents whose known labels decide whether they do.
        p: P(formula) under the prior; nan when it was not estimated.
        stderr: of `p`.
    """

    satisfying: int
    decided: int
    p: float
    stderr: float

    @property
    def beyond(self) -> bool:
        """Whether the combination is beyond the prior's support.

        With `satisfying` of `decided` labels the share is at most (satisfying + 3) / decided (the rule of three: 95 %
        confidence when none was seen). Where that leaves it open, the prior's estimate decides; without one, no.
        """
        if self.decided and (self.satisfying + 3) / self.decided < RARE:
            return True
        if self.decided and self.satisfying / self.decided >= RARE:
            return False
        return not math.isnan(self.p) and self.p < RARE

    def __str__(self) -> str:
        labels = f"{self.satisfying} of {self.decided} labelled latents satisfy it"
        return labels if math.isnan(self.p) else f"{labels}; P = {self.p:.2%} +- {self.stderr:.2%} under the prior"

    def _repr_html_(self) -> str:
        return block(strong(f"{'Beyond' if self.beyond else 'Within'} the prior's support"), quiet(str(self)))


def assess(
    formula: Formula, labels: Float[Tensor, "n attributes"], log_p: Float[Tensor, " samples"] | None = None
) -> Support:
    """Weighs the evidence on a formula.

    Args:
        formula: what is asked for; its weights play no part.
        labels: (N, A) of training latents, NaN where missing; N may be 0.
        log_p: log P(formula | z_0) of samples of the prior, if there are any; see `without_weights`.

    Raises:
        ValueError: a column of the labels is missing.

    Example:
        >>> from lcg.guidance import parse
        >>> from lcg.schema import Attribute, Schema
        >>> schema = Schema((Attribute("hat"), Attribute("smile")))
        >>> labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(2000, 1)
        >>> print(assess(parse("hat", schema), labels))
        2000 of 4000 labelled latents satisfy it
        >>> assess(parse("hat & smile", schema), labels).beyond
        True
    """
    satisfying = decided = 0
    if len(labels):
        holds, fails = formula.holds(labels), (~without_weights(formula)).holds(labels)
        satisfying, decided = int(holds.sum()), int((holds | fails).sum())
    if log_p is None or not len(log_p):
        return Support(satisfying, decided, math.nan, math.nan)
    p = log_p.double().exp()
    return Support(satisfying, decided, float(p.mean()), float(p.std(correction=0)) / math.sqrt(len(p)))


def without_weights(formula: Formula) -> Formula:
    """The conjunction of the formula's conjuncts, as something that holds or does not."""
    parts = tuple(part for part, _ in formula.conjuncts)
    return parts[0] if len(parts) == 1 else And(parts)
