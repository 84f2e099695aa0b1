"""The settings of a pipeline, whose fields are options.

How latents are sampled, how formulas guide, how edits are made, how images become latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lcg.data.statistics import Statistics
from lcg.diffusion import (
    DDIM,
    DDPM,
    Consistency,
    DPMSolverPP2M,
    Heun,
    Langevin,
    PredictorCorrector,
    Sampler,
    Spacing,
    UniPC,
    recommended_order,
    time_grid,
)
from lcg.editing import GuidedEditor, Inversion, invert
from lcg.editing.guided import Start
from lcg.editing.inversion import How, check_numbers
from lcg.generators.base import Generator
from lcg.guidance import Dependence, Formula, SourceMode
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.schema import unknown_name

SamplerName = Literal["ddpm", "ddim", "heun", "dpm++2m", "unipc", "consistency"]
Extrapolate = Literal["auto", "always", "never"]

PURE_NOISE = 0.995
"""The time at which pure noise stands for a noised latent."""

USUAL = 1.0, 3.0, 8.0
"""Weights of guidance: of formulas over one attribute, over several, and beyond the prior's support."""
FEW_STEPS = {1: (1.0, 2.0, 2.0), 2: (2.0, 3.0, 3.0), 3: (1.5, 2.0, 2.0), 4: (1.0, 2.0, 2.0)}
"""The same of a distilled prior by its evaluations, from experiments/06_few_steps; it has learnt no times for more."""
UNDECIDED = 0.95
"""Above this time a classifier sees nothing yet: there the first of several evaluations is not guided."""


@dataclass(frozen=True)
class Sampling:
    """How latents are sampled.

    Args:
        sampler: `ddpm` (ancestral), `ddim` (deterministic, invertible), `heun`, `dpm++2m` or `unipc` (second order).
            The last two fall back to first order where few steps and a large weight would make them explode.
            `consistency` is for distilled priors, and they for it.
        steps: denoiser evaluations; 1 to 4 of `consistency`.
        t_start: where sampling from noise begins; `consistency` begins where priors are distilled from, at 0.99.
        t_end: where the last evaluation is made; `consistency` makes them 0.2 apart.
        spacing: of the times in between: uniform, log_snr, quadratic, karras or asinh.
        clip: bound on z_0_hat in standard deviations; None for none.

    Example:
        >>> Sampling("ddim", steps=20).steps
        20
        >>> Sampling("euler")
        Traceback (most recent call last):
            ...
        ValueError: `sampler` must be one of ddpm, ddim, heun, dpm++2m, unipc, consistency, got 'euler'
    """

    sampler: SamplerName = "dpm++2m"
    steps: int = 50
    t_start: float = PURE_NOISE
    t_end: float = 0.001
    spacing: Spacing = "uniform"
    clip: float | None = 5.0

    def __post_init__(self) -> None:
        if self.sampler not in get_args(SamplerName):
            raise ValueError(f"`sampler` must be one of {', '.join(get_args(SamplerName))}, got {self.sampler!r}")
        if self.sampler != "consistency":
            return
        if self.steps not in FEW_STEPS:
            raise ValueError(
                f"`steps` of the sampler consistency must be 1 to {max(FEW_STEPS)}, got {self.steps}; set 4"
            )
        if (self.t_start, self.t_end, self.spacing) != (Sampling.t_start, Sampling.t_end, Sampling.spacing):
            raise ValueError(
                f"the sampler consistency has its own times, got `t_start`={self.t_start}, `t_end`={self.t_end}, "
                f"`spacing`={self.spacing!r}; leave them out"
            )

    @property
    def few(self) -> int | None:
        """Evaluations of a distilled prior; None for a solver."""
        return self.steps if self.sampler == "consistency" else None

    def build(self, denoiser: LatentDenoiser, weight: float = 1.0) -> Sampler:
        """The sampler for guidance of this weight."""
        if self.sampler == "consistency":
            return Consistency(denoiser.schedule, self.steps, clip=self.clip)
        if self.sampler in ("dpm++2m", "unipc"):
            multistep = DPMSolverPP2M if self.sampler == "dpm++2m" else UniPC
            time_grid(denoiser.schedule, self.steps, self.t_start, self.t_end, self.spacing)  # its errors come first
            order = recommended_order(max(self.steps, 2), weight, self.spacing)
            return multistep(
                denoiser.schedule, self.steps, self.t_start, self.t_end, self.spacing, self.clip, order=order
            )
        kind = {"ddpm": DDPM, "ddim": DDIM, "heun": Heun}[self.sampler]
        return kind(denoiser.schedule, self.steps, self.t_start, self.t_end, self.spacing, self.clip)


@dataclass(frozen=True)
class Weight:
    """A guidance weight in two stages; called with t (B,) it gives w(t) (B,).

    Attributes:
        early: at t >= `since`, where sampling begins.
        late: at t < `since`; None for the same.
        since: time in [0, 1].

    Example:
        >>> Weight(3.0, late=12.0, since=0.6)(torch.tensor([0.9, 0.1])).tolist()
        [3.0, 12.0]
    """

    early: float
    late: float | None = None
    since: float = 0.0

    @property
    def largest(self) -> float:
        return max(self.early, self.early if self.late is None else self.late)

    def __call__(self, t: Tensor) -> Tensor:
        early = torch.full_like(t, self.early)
        return early if self.late is None else torch.where(t < self.since, self.late, early)


@dataclass(frozen=True)
class RowWeights:
    """Guidance weights of rows that are sampled together; called with t (B,) it gives w(t) (B,).

    Attributes:
        weights: those that there are.
        rows: (B,) int64, which of them each row has.
    """

    weights: Sequence[Weight]
    rows: Tensor

    def __call__(self, t: Tensor) -> Tensor:
        return torch.stack([weight(t) for weight in self.weights])[self.rows, torch.arange(len(t), device=t.device)]


@dataclass(frozen=True)
class Guidance:
    """How formulas guide.

    A weight w of the log-probability is multiplied by `rise` once t < `late`. Before, it decides what a sample will be,
    and too much distorts everything else; after, there is little left but to put the formula right.

    Distilled priors want other weights, by the number of evaluations (`FEW_STEPS`), and have no use for `rise` and
    `late`: the first of several evaluations is not guided, all others alike.

    Args:
        single: w for a formula over one attribute; 1 is Bayes' rule. None for 1, or what suits a distilled prior.
        several: w for a formula over several, within the prior's support. None for 3, or what suits a distilled prior.
        beyond: w where the prior has hardly seen the combination and lcg extrapolates. None for 8; or, of a distilled
            prior, as `several`.
        rise: factor >= 0 of w at t < `late`; 1 for a constant weight.
        late: time in [0, 1].
        dependence: `joint` reads several attributes from the joint head, `independent` sums separate classifiers, the
            approximation that is usual elsewhere; `auto` is what the checkpoint's validation found better calibrated.
        extrapolate: whether to extrapolate, reading attributes one by one: `auto` where the combination is beyond the
            prior's support.
        attempts: draws per sample, at most, until the classifier finds the formula more likely than not.
        particles: 0 for plain guidance. N samples the conditional within the support by twisted sequential Monte Carlo
            with N particles per sample and weight 1 (or the formula's own weights), at N times the cost; with 50 steps
            the estimate of log P(formula) is about .01 too low, with 100 it is within its standard error.
        max_step: trust region of a guided step in units of sqrt(dimension); None for none.
    """

    single: float | None = None
    several: float | None = None
    beyond: float | None = None
    rise: float = 4.0
    late: float = 0.6
    dependence: Literal["auto", "joint", "independent"] = "auto"
    extrapolate: Extrapolate = "auto"
    attempts: int = 4
    particles: int = 0
    max_step: float | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("dependence", self.dependence, ("auto", *get_args(Dependence))),
            ("extrapolate", self.extrapolate, get_args(Extrapolate)),
        ):
            if value not in known:
                raise unknown_name(name, value, known, "guidance")
        for name, weight in (("single", self.single), ("several", self.several), ("beyond", self.beyond)):
            if weight is not None and not 0 <= weight < math.inf:
                raise ValueError(
                    f"`{name}` must be >= 0 and finite, got {weight}; to avoid something, negate it with ~"
                )
        if not self.rise >= 0 or not 0 <= self.late <= 1:
            raise ValueError(
                f"`rise` must be >= 0 and `late` in [0, 1], got {self.rise} and {self.late}; rise=1 keeps the weight"
            )
        if self.max_step is not None and not self.max_step > 0:
            raise ValueError(f"`max_step` must be > 0, got {self.max_step}; None is no bound")
        if self.attempts < 1:
            raise ValueError(f"`attempts` must be at least 1, got {self.attempts}; 1 accepts every sample")
        if self.particles < 0 or self.particles == 1:
            raise ValueError(f"`particles` must be 0 or at least 2, got {self.particles}; 32 is usual, 0 is none")

    def weight(self, formula: Formula, extrapolate: bool = False, few: int | None = None) -> Weight:
        """Of a formula as a whole; 1 for one that carries weights: then these alone count.

        Args:
            formula: what shall hold.
            extrapolate: whether beyond the prior's support.
            few: evaluations of a distilled prior (`Sampling.few`); None for a solver.
        """
        explicit = formula.is_weighted or (self.particles and not extrapolate)
        kind = 2 if extrapolate else int(len(formula.attributes) > 1)
        own = (self.single, self.several, self.beyond)[kind]
        usual = USUAL if few is None else FEW_STEPS[few]
        w = 1.0 if explicit else usual[kind] if own is None else own
        if few is not None:
            return Weight(w if few == 1 else 0.0, w, UNDECIDED)
        return Weight(w) if explicit else Weight(w, self.rise * w, self.late)


@dataclass(frozen=True)
class Editing:
    """How edits are made; see `lcg.editing.GuidedEditor`.

    Args:
        weight: guidance weight of the edits.
        keep_weight: weight of each attribute that is kept.
        strength: how far to go, from 0, the source, to 1, where only the edits and the kept labels count.
        source_mode: observation, tweedie or paper; tweedie takes half the time of observation, and latents that are
            standardised are near the N(0, I) for which both are the same.
        free: whether the source leaves the direction of each edit free.
        start: inversion, noising or noise.
        t_start: where the path starts; the start `noise` is always at 0.995.
        steps: denoiser evaluations, and as many for the inversion.
        max_step: trust region of a guided step; None for none.
        layers: weights of the guidance on the layers of latents such as W+; None for all alike.
        dependence: how several edits are read, independent or joint.
        corrections: Langevin steps after each step, for the starts that draw noise.
    """

    weight: float = 24.0
    keep_weight: float = 8.0
    strength: float = 0.9
    source_mode: SourceMode = "tweedie"
    free: bool = False
    start: Start = "inversion"
    t_start: float = 0.7
    steps: int = 50
    max_step: float | None = None
    layers: tuple[float, ...] | None = None
    dependence: Dependence = "independent"
    corrections: int = 0

    def __post_init__(self) -> None:
        if self.corrections < 0 or (self.corrections and self.start == "inversion"):
            raise ValueError(
                f"`corrections` must be >= 0, and 0 for the start 'inversion', whose noise they would replace, "
                f"got {self.corrections}; set start=noising"
            )

    def build(
        self, denoiser: LatentDenoiser, classifier: TimeConditionedClassifier, seeds: int | Sequence[int] = 0
    ) -> GuidedEditor:
        """The editor; `seeds` are for the starts that draw noise, one for all rows or one per source."""
        t_start = PURE_NOISE if self.start == "noise" else self.t_start
        sampler: Sampler = DDIM(denoiser.schedule, self.steps, t_start=t_start, clip=None)
        if self.corrections:
            corrector = Langevin(steps=self.corrections)
            sampler = PredictorCorrector(denoiser.schedule, self.steps, t_start=t_start, corrector=corrector)
        return GuidedEditor(
            denoiser,
            classifier,
            classifier.schema,
            sampler,
            self.weight,
            self.keep_weight,
            self.strength,
            self.source_mode,
            self.free,
            self.start,
            t_start,
            self.max_step,
            self.layers,
            self.dependence,
            seeds,
        )


@dataclass(frozen=True)
class Inverting:
    """How images become latents; see `lcg.editing.invert`. All but the first two are for descent.

    Args:
        how: by the generator's `encoder`; `optimise`, descent from the mean latent; `both`, descent from the encoder's
            answer; `auto`, the encoder where there is one and else descent.
        batch_size: images that are descended together.
        steps: of descent, at most.
        lr: the first step size, in standard deviations of a latent.
        tolerance: an image is done when its error, a fraction of the range of a pixel, is at most this.
        patience: or when its loss has not fallen by `gain` for so many steps.
        gain: a fraction of the loss.
        candidates: samples of the generator's own prior, the nearest of which is where descent starts.
        prior_weight: how much a likely latent is preferred to an exact one; 0 for not at all.
        noise: deviation of what is added to the latent at first, in standard deviations of a latent.
        seed: of the noise and of the candidates.
    """

    how: How = "auto"
    batch_size: int = 64
    steps: int = 500
    lr: float = 0.1
    tolerance: float = 1e-3
    patience: int = 100
    gain: float = 0.01
    candidates: int = 0
    prior_weight: float = 0.0
    noise: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise unknown_name("how", self.how, get_args(How), "inversion")
        if self.candidates < 0:
            raise ValueError(f"`candidates` must be >= 0, got {self.candidates}; 0 starts at the mean latent")
        check_numbers(
            self.steps,
            self.lr,
            self.tolerance,
            self.patience,
            self.gain,
            self.prior_weight,
            self.noise,
            self.batch_size,
        )

    def check(self, generator: Generator) -> None:
        """Raises NotImplementedError when the generator lacks what is asked of it, before any work."""
        kind = type(generator)
        if self.how in ("encoder", "both") and not _has_encoder(generator):
            raise NotImplementedError(
                f"{kind.__name__} has no encoder, which `how`={self.how!r} asks for; use how='optimise'"
            )
        if not self.encodes(generator) and self.candidates and kind.sample_latents is Generator.sample_latents:
            raise NotImplementedError(
                f"{kind.__name__} has no prior of its own, which `candidates`={self.candidates} asks for; use 0"
            )

    def encodes(self, generator: Generator) -> bool:
        """Whether the generator's encoder answers by itself, without descent."""
        return self.how in ("auto", "encoder") and _has_encoder(generator)

    def invert(self, generator: Generator, x: Tensor, statistics: Statistics) -> Inversion:
        """The latents of images x (B, C, H, W) in [-1, 1]. Raises as `lcg.editing.invert`."""
        return invert(generator, x, statistics=statistics, **asdict(self))


def _has_encoder(generator: Generator) -> bool:
    return type(generator).encode is not Generator.encode
