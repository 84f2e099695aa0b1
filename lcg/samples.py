"""What is drawn, and what is known about it: the plan for a formula, latents, images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lcg.guidance import Dependence, Formula, Support
from lcg.settings import Weight


@dataclass(frozen=True)
class Plan:
    """How a formula will be sampled, and why.

    Attributes:
        formula: what shall hold.
        support: the evidence on whether the prior has seen it.
        extrapolate: whether it is sampled beyond the prior's support.
        dependence: how several attributes are read.
        weight: of the guidance.
    """

    formula: Formula
    support: Support
    extrapolate: bool
    dependence: Dependence
    weight: Weight

    @property
    def warnings(self) -> tuple[str, ...]:
        """In plain words, why samples of this formula should not be trusted blindly."""
        if self.extrapolate and self.support.beyond:
            return (f"{self.formula} is beyond the prior's support ({self.support}): samples are extrapolated",)
        if self.support.beyond:
            return (f"{self.formula} is beyond the prior's support ({self.support}): no conditional to sample",)
        return ()


@dataclass(frozen=True)
class Draw:
    """Latents, and what is known about how far to trust them.

    Attributes:
        z_0: (N, *latent) standardised.
        plan: how they were sampled; None for samples of the prior.
        ess: smallest effective sample size on the way as a share of the particles, the mean over samples; nan without
            particles.
        log_p_formula: estimate of log P(formula) under the prior, nan when there is none.
        stderr: of `log_p_formula`.
        warnings: in plain words, why the samples should not be trusted.
        drawn: latents that were sampled for these, with those that were drawn again.
    """

    z_0: Tensor
    plan: Plan | None = None
    ess: float = math.nan
    log_p_formula: float = math.nan
    stderr: float = math.nan
    warnings: tuple[str, ...] = ()
    drawn: int = 0


@dataclass(frozen=True)
class Samples:
    """Generated images.

    Attributes:
        draw: their latents, and how far to trust them.
        images: (N, H, W, C) uint8.
        seeds: the seed of each.
    """

    draw: Draw
    images: NDArray[np.uint8]
    seeds: tuple[int, ...]

    @property
    def z_0(self) -> Tensor:
        """(N, *latent) standardised."""
        return self.draw.z_0

    @property
    def formula(self) -> Formula | None:
        """What they were guided by."""
        return None if self.draw.plan is None else self.draw.plan.formula
