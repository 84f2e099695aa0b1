"""Particle methods: guided samples that carry weights, so that what is sampled is what was asked for.

Guidance follows the densities pi_t ~ q_t(z_t) H_t(z_t) with H_t = prod_i h_i(z_t)^{w_i}, but where attributes depend on
one another, or weights are not 1, a guided sample at t is not one from pi_t. Sequential Monte Carlo moves N particles
z^n by guided steps, gives each the weight W^n by which its path is too rare or too frequent, and where the weights have
become uneven replaces the particles by draws from among them. So at the end, as N grows,

    sum_n W^n f(z^n) / sum_n W^n  ->  E[f(z_0) H_0(z_0)] / E[H_0(z_0)],        (1/N) sum_n W^n  ->  E[H_0(z_0)],

expectations under the prior; the second is unbiased for any N, and is P(formula) where H_0 is its probability given z_0
(Doucet & Johansen 2011, "A tutorial on particle filtering and smoothing"). The methods differ in their weights: see
`lcg.guidance.twisted` and `lcg.guidance.feynman_kac`.

Particles of one system share ancestors, and are not independent. Hence many small systems side by side, all in one
batch, and a single draw from each: as many independent samples as systems, and a standard error from their spread.

H_t need not be the product of h_i(z_t)^{w_i} before the end. Best is E[H_0 | z_t], which that product misses to its
cost: particles sent too far out leave a few that were not with nearly all the weight, where holding them back costs
little. Two reasons for holding back at first: attributes that go together are counted several times by the product; and
of an attribute that is nearly certain given z_0, h_0^w is hardly other than h_0, and E[h_0^w | z_t] not h_t^w but h_t.
Both end where z_t leaves little open about z_0. So the weights rise,

    w(t) = w_1 + (w - w_1) (alpha_t / alpha_end)^rise,        w_1 = early * min(w, 1),

late, about where sigma_t = 0.15. The target keeps the weights w whatever the way there; rise = 0 has them constant.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lcg.diffusion.chain import Chain
from lcg.diffusion.noise import Randomness, randn
from lcg.diffusion.samplers.base import Progress, Spacing
from lcg.diffusion.schedule import Schedule
from lcg.guidance.resampling import Weights, distinct, pooled, take
from lcg.guidance.support import RARE
from lcg.guidance.terms import refuse_inference_mode

TOLERATED = 0.1
"""Share of the systems that may be degenerate without a warning."""
LONELY = 1.5
"""Effective number of particles below which nearly all weight is on one."""
LARGE_ERROR = 0.3
"""Standard error of log P(formula) above which the estimate comes with a warning."""

Evaluation = dict[str, Tensor]
"""What is known at the particles: "eps_hat", by which the chain moves on, "log_h", and what a method needs besides."""


@dataclass(frozen=True)
class Particles:
    """The outcome of S independent systems of N particles each.

    Attributes:
        z_0: one draw from each system (S, *latent), hence S independent samples.
        log_normaliser: log of each system's unbiased estimate of E[H(z_0)] under the prior (S,), float64.
        ess: the smallest effective sample size on each system's way, as a share of its particles (S,), in (0, 1].
        ancestors: how many of each system's first particles have descendants among its last (S,).
        log_p: log of the systems' pooled estimate, which is log P(formula) for weight 1.
        stderr: standard error of log_p, by the delta method; nan for a single system.
        warnings: why the answer should not be trusted, in plain words; empty when there is no reason.
    """

    z_0: Float[Tensor, "systems *latent"]
    log_normaliser: Float[Tensor, " systems"]
    ess: Float[Tensor, " systems"]
    ancestors: Int[Tensor, " systems"]
    log_p: float
    stderr: float
    warnings: tuple[str, ...]


class ParticleSampler(ABC):
    """What the particle methods share: the loop, resampling, estimates and warnings.

    Args:
        schedule: of the noise.
        particles: N >= 2 of each system. A sample costs as much as N guided ones.
        steps: evaluations of denoiser and classifier per particle, the first at t_start and the last at t_end.
        t_start: where the particles begin as pure noise.
        t_end: where the last evaluation is made.
        spacing: of the times in between; see `lcg.diffusion.time_grid`.
        resample_below: a system is resampled when its effective sample size falls below this share of N; 0 never, 1
            whenever weights differ.
        eta: share of the noise that the prior's chain draws anew at each step, in (0, 1]; 1 is ancestral sampling.
        early: share of a weight, up to 1, that acts at first, in [0, 1]; see the module.
        rise: how late weights rise to their values, >= 0; 0 has them constant.
        support: c in [0, 1): less probable than c is off the prior's support, and warned about; see `RARE`.
        batch_size: rows that are given to denoiser and classifier at once.

    Raises:
        ValueError: particles < 2, or resample_below, eta, early, rise, support, batch_size or times out of range.
    """

    def __init__(
        self,
        schedule: Schedule,
        particles: int,
        steps: int,
        t_start: float,
        t_end: float,
        spacing: Spacing,
        resample_below: float,
        eta: float,
        early: float,
        rise: float,
        support: float,
        batch_size: int,
    ) -> None:
        if particles < 2:
            raise ValueError(f"`particles` must be at least 2, got {particles}; 32 is usual")
        if not 0 <= resample_below <= 1:
            raise ValueError(f"`resample_below` must be in [0, 1], got {resample_below}; 0.5 is usual")
        if not 0 <= early <= 1:
            raise ValueError(f"`early` must be in [0, 1], got {early}; 0.75 is usual, 1 begins at the full weight 1")
        if not rise >= 0:
            raise ValueError(f"`rise` must be >= 0, got {rise}; 64 is usual, 0 keeps weights constant")
        if not 0 <= support < 1:
            raise ValueError(f"`support` must be in [0, 1), got {support}; {RARE} is usual, 0 never warns")
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}; 4096 is usual")
        self.chain = Chain(schedule, steps, t_start, t_end, spacing, eta)
        self.schedule, self.particles, self.resample_below = schedule, particles, resample_below
        self.early, self.rise, self.support, self.batch_size = early, rise, support, batch_size
        self._log_alpha_end = float(schedule.log_alpha(self.chain.times()[-1]))

    @torch.no_grad()
    def sample(
        self,
        systems: int,
        latent_shape: Sequence[int],
        generator: Randomness = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> Particles:
        """Runs S independent systems from noise, side by side.

        Args:
            systems: S >= 1, how many samples are wanted.
            latent_shape: of one latent.
            generator: randomness: none, one, or one per system; system i then depends on generator i alone.
            dtype: precision of the latents, float32 or float64; weights are float64 anyway.
            device: where denoiser and classifier are.
            progress: called as progress(step, steps) after each step.

        Raises:
            TypeError: dtype is neither float32 nor float64.
            ValueError: systems < 1, the number of generators is not that of systems, or a log-probability or a gradient
                is not finite.
            RuntimeError: called under torch.inference_mode.
        """
        refuse_inference_mode()
        _check(systems, dtype)
        z = randn((systems, self.particles, *latent_shape), generator, dtype=dtype, device=device)
        times = self.chain.times().to(z)
        weights = Weights(systems, self.particles, z.device)
        before: tuple[Tensor, Tensor] | None = None
        for i, t in enumerate(times):
            here = self._evaluate_all(z, t)
            weights.multiply(self._start(here, t) if i == 0 else self._arrive(here, times[i - 1], t))
            z_0_hat = self.chain.z_0_hat(z, here["eps_hat"], t)
            draws = randn((systems, self.particles), generator, dtype=torch.float64, device=z.device)
            if i + 1 < len(times):
                if (parents := weights.resample(draws, self.resample_below)) is not None:
                    z, z_0_hat = take(z, parents), take(z_0_hat, parents)
                    here = {name: take(value, parents) for name, value in here.items()}
                    before = before and (take(before[0], parents), before[1])
                mean, std = self.chain.step(z, z_0_hat, before, t, times[i + 1])
                xi = randn(z.shape, generator, dtype=dtype, device=z.device)
                z, log_step = self._leave(here, mean, std, xi, t, times[i + 1])
                weights.multiply(log_step)
                before = z_0_hat, t
            if progress is not None:
                progress(i + 1, len(times))
        z_0 = take(z_0_hat, weights.draw(draws[:, :1]))[:, 0]
        return self._report(z_0, weights)

    @abstractmethod
    def _evaluate(self, z_t: Tensor, t: Tensor) -> Evaluation:
        """What is known at rows z_t (R, *latent), all of them at the same time t (R,)."""

    @abstractmethod
    def _start(self, here: Evaluation, t: Tensor) -> Tensor:
        """The first log-weights (S, N)."""

    @abstractmethod
    def _leave(
        self, here: Evaluation, mean: Tensor, std: Tensor, xi: Tensor, t: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Particles at time s, made of the noise xi, where the chain has N(mean, std^2 I); and a log-weight (S, N)."""

    @abstractmethod
    def _arrive(self, here: Evaluation, t: Tensor, s: Tensor) -> Tensor:
        """The rest of the log-weight (S, N) of the step from t to s, where `here` is."""

    @property
    @abstractmethod
    def _power(self) -> float:
        """The largest weight p >= 1: then E[H] >= E[h^p] >= E[h]^p, and E[H] < c^p only where P(formula) < c."""

    def _risen(self, weight: Tensor, t: Tensor) -> Tensor:
        """What weights (...), float64, are at the time t: the module's w(t)."""
        share = (self.rise * (self.schedule.log_alpha(t) - self._log_alpha_end)).exp()
        first = self.early * weight.clamp(max=1)
        return first + (weight - first) * share

    def _evaluate_all(self, z: Tensor, t: Tensor) -> Evaluation:
        rows = z.flatten(0, 1).split(self.batch_size)
        parts = [self._evaluate(part, t.expand(len(part))) for part in rows]
        here = {name: torch.cat([part[name] for part in parts]).unflatten(0, z.shape[:2]) for name in parts[0]}
        for value in here.values():
            if not (finite := torch.isfinite(value)).all():
                raise ValueError(
                    f"denoiser and terms must be finite, and their gradients, got {value[~finite][0].item()} in "
                    f"system {int((~finite).nonzero()[0, 0])} at t = {float(t):.4g}; check the networks' weights"
                )
        return here

    def _report(self, z_0: Tensor, weights: Weights) -> Particles:
        log_z, ess = weights.log_normaliser(), weights.ess
        log_p, stderr = pooled(log_z)
        ancestors = distinct(weights.origin)
        warnings = self._warnings(ess, ancestors, log_p, stderr)
        return Particles(z_0, log_z, ess, ancestors, log_p, stderr, warnings)

    def _warnings(self, ess: Tensor, ancestors: Tensor, log_p: float, stderr: float) -> tuple[str, ...]:
        warnings, systems = [], len(ess)
        lonely, related = int((ess * self.particles < LONELY).sum()), int((ancestors == 1).sum())
        if lonely > TOLERATED * systems:
            warnings.append(
                f"in {lonely} of {systems} systems nearly all the weight fell on one particle at some step: "
                "use more particles, more steps or a smaller weight"
            )
        if related > TOLERATED * systems:
            warnings.append(
                f"in {related} of {systems} systems all particles descend from a single one: use more particles"
            )
        if self.support > 0 and log_p < self._power * math.log(self.support):
            warnings.append(
                f"the prior gives what is asked for a probability below {self.support:g}: that is off its support, "
                "where there is no conditional to sample; extrapolate with plain guidance instead"
            )
        if math.isnan(stderr):
            warnings.append("one system tells nothing about the error of its estimate: sample 8 or more")
        elif stderr > LARGE_ERROR:
            warnings.append(
                f"log P = {log_p:.2f} has a standard error of {stderr:.2f}: use more systems or more particles"
            )
        return tuple(warnings)


def _check(systems: int, dtype: torch.dtype) -> None:
    if systems < 1:
        raise ValueError(f"`systems` must be at least 1, got {systems}; each gives one sample")
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"`dtype` must be torch.float32 or torch.float64, got {dtype}; use torch.float32")
