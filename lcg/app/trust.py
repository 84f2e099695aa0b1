"""How far samples of a formula can be trusted, in the words of a layman and with the numbers behind them.

Two questions are kept apart (`lcg.guidance.support`): whether the prior has seen what is asked for, and how likely it
is. What it has seen is sampled as it is; what it has hardly ever seen has nothing to be sampled from, and is
extrapolated.
"""

from __future__ import annotations

from typing import Literal

from lcg.app.answers import Trust
from lcg.guidance import CompiledFormula, Support, without_weights
from lcg.results.samples import Plan

Standing = Literal["common", "rare", "beyond", "impossible", "certain"]

COMMON = 0.02
"""Share of the labelled latents from which a combination is common."""

VERDICTS: dict[Standing, str] = {
    "impossible": "No image can be like this, because the formula contradicts itself.",
    "certain": "Every image is like this, so the formula asks for nothing.",
    "common": "The model knows this well: about {share} of its images are like this, and samples should be sound.",
    "rare": "The model has seen this, but rarely, in about {share} of its images: samples should be right, with less "
    "variety.",
    "beyond": "The model has hardly ever seen this together: samples are extrapolated from the parts, so look at them "
    "before you believe them.",
}
UNSAMPLED = (
    "The model has hardly ever seen this together, and it is set not to extrapolate: there is little it could show."
)


def trust_in(plan: Plan) -> Trust:
    """What a plan for sampling a formula says of the trust in it."""
    support, standing = plan.support, standing_of(plan)
    verdict = VERDICTS[standing].format(share=share_words(_share(support)))
    if standing == "beyond" and not plan.extrapolate:
        verdict = UNSAMPLED
    return Trust(
        str(plan.formula),
        support.p,
        support.stderr,
        support.satisfying,
        support.decided,
        standing,
        plan.extrapolate and standing == "beyond",
        verdict,
        f"{support.satisfying:,} of {support.decided:,} labelled training images satisfy it; the model itself makes "
        f"them with probability {support.p:.2%} ± {support.stderr:.2%}.",
        plan.warnings if standing not in ("impossible", "certain") else (),
    )


def standing_of(plan: Plan) -> Standing:
    """Where a formula stands to what the prior has seen."""
    compiled = CompiledFormula(plan.formula)
    if not compiled.satisfiable:
        return "impossible"
    if compiled.tautological or CompiledFormula(without_weights(plan.formula)).tautological:
        return "certain"
    if plan.support.beyond:
        return "beyond"
    return "common" if _share(plan.support) >= COMMON else "rare"


def share_words(share: float) -> str:
    """A share as people say it: `23 %`, `1 in 300`."""
    if share >= 0.01:
        return f"{share:.0%}".replace("%", " %")
    return f"1 in {round(1 / share, -1 if share > 1e-3 else -2):,.0f}" if share > 0 else "none"


def _share(support: Support) -> float:
    """The labels' share, where there are enough to tell; else the prior's."""
    return support.satisfying / support.decided if support.decided >= 100 else support.p
