"""Weights of particles: what they say about the target, and how particles are drawn by them.

Weights are kept in log space and float64, one row per system; no number of one system depends on another system. Where
the effective sample size of a system,

    ESS = (sum_n W^n)^2 / sum_n (W^n)^2,        in [1, N],

becomes small, most of its particles are hardly part of the estimate: it is then resampled, each particle being replaced
by one drawn in proportion to the weights, and the weights' mean is passed on to the estimate of the normaliser, which
stays unbiased.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Weights:
    """The weights of S systems of N particles, and what resampling makes of them.

    Attributes:
        log_w: log-weights since the last resampling (S, N), float64.
        log_z: what earlier ones have contributed to each system's log-normaliser (S,).
        ess: smallest effective sample size so far, as a share of the particles (S,).
        origin: the first ancestor of each particle (S, N).
    """

    def __init__(self, systems: int, particles: int, device: torch.device) -> None:
        self.log_w = torch.zeros(systems, particles, dtype=torch.float64, device=device)
        self.log_z, self.ess = self.log_w[:, 0], self.log_w[:, 0] + 1
        self.origin = torch.arange(particles, device=device).expand(systems, particles)

    def multiply(self, log_factor: Float[Tensor, "systems particles"]) -> None:
        """Multiplies the weights by exp(log_factor)."""
        self.log_w = self.log_w + log_factor

    def resample(self, draws: Float[Tensor, "systems particles"], below: float) -> Tensor | None:
        """Replaces the particles of the systems whose effective sample size is poor by draws from among them.

        Args:
            draws: standard normal numbers; see `stratified`.
            below: the share of the particles below which it is poor.

        Returns:
            The parent of each particle (S, N), or None when no system is poor.
        """
        share = effective_share(self.log_w)
        self.ess = torch.minimum(self.ess, share)
        poor = (share < below)[:, None]
        if not poor.any():
            return None
        itself = torch.arange(self.log_w.shape[1], device=poor.device)
        parents = torch.where(poor, stratified(self.log_w, draws), itself)
        self.log_z = torch.where(poor[:, 0], self.log_normaliser(), self.log_z)
        self.log_w = self.log_w.masked_fill(poor, 0.0)
        self.origin = take(self.origin, parents)
        return parents

    def draw(self, draws: Float[Tensor, "systems chosen"]) -> Int[Tensor, "systems chosen"]:
        """Indices of particles in proportion to their weights; their effective sample size counts too."""
        self.ess = torch.minimum(self.ess, effective_share(self.log_w))
        return stratified(self.log_w, draws)

    def log_normaliser(self) -> Float[Tensor, " systems"]:
        """The log of each system's mean weight, over all resamplings."""
        return self.log_z + self.log_w.logsumexp(1) - math.log(self.log_w.shape[1])


def effective_share(log_w: Float[Tensor, "systems particles"]) -> Float[Tensor, " systems"]:
    """The effective sample size (sum W)^2 / sum W^2 as a share of the particles, in [1/N, 1] (Kong et al. 1994)."""
    return (2 * log_w.logsumexp(1) - (2 * log_w).logsumexp(1)).exp() / log_w.shape[1]


def stratified(
    log_w: Float[Tensor, "systems particles"], draws: Float[Tensor, "systems strata"]
) -> Int[Tensor, "systems strata"]:
    """Indices of particles, one from each of M equal strata of their weights; M W^n / sum W times n on average.

    Of less variance than M independent draws (Douc, Cappe & Moulines 2005, "Comparison of resampling schemes for
    particle filtering").

    Args:
        log_w: log-weights (S, N).
        draws: standard normal numbers (S, M), which their distribution function makes uniform.
    """
    stratum = torch.arange(draws.shape[1], device=draws.device)
    position = (stratum + torch.special.ndtr(draws)) / draws.shape[1]
    position = position.clamp(max=math.nextafter(1.0, 0.0))  # in [0, 1): a particle without weight is never drawn
    cumulative = log_w.softmax(1).cumsum(1)
    return torch.searchsorted(cumulative / cumulative[:, -1:], position, right=True)


def distinct(numbers: Int[Tensor, "systems particles"]) -> Int[Tensor, " systems"]:
    """How many different numbers each row holds."""
    return 1 + (numbers.sort(1).values.diff(dim=1) != 0).sum(1)


def pooled(log_z: Float[Tensor, " systems"]) -> tuple[float, float]:
    """The log of the mean of S independent estimates exp(log_z), and its standard error; nan if there is but one."""
    log_p = float(log_z.logsumexp(0)) - math.log(len(log_z))
    if len(log_z) < 2:
        return log_p, math.nan
    return log_p, float((log_z - log_p).exp().std()) / math.sqrt(len(log_z))


def take(values: Tensor, indices: Int[Tensor, "systems chosen"]) -> Tensor:
    """The values[s, indices[s, m]] of every system s: (S, N, ...) and (S, M) give (S, M, ...)."""
    return values[torch.arange(len(values), device=values.device)[:, None], indices]
