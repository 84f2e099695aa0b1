"""Latents of the prior, guided by formulas: how a formula is sampled, drawn, drawn again, and how far to trust it.

Every sample is drawn from its own seed, so that it does not depend on the batch it was made in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from lcg.diffusion import Denoiser, Randomness, StaticSampling, generators, randn
from lcg.guidance import (
    ClassifierTerm,
    CompiledFormula,
    Dependence,
    EachRow,
    Formula,
    FormulaReadout,
    GuidedConsistency,
    GuidedDenoiser,
    Readout,
    Support,
    TwistedSMC,
    assess,
    without_weights,
)
from lcg.nets.heads import independent
from lcg.pipeline.fitted import Fitted
from lcg.results.samples import Draw, Plan
from lcg.settings import RowWeights, Sampling, Weight

Asked = TypeVar("Asked", bound=Hashable)

SEED_STRIDE = 2_654_435_769  # 2^32 / golden ratio: far from the seeds of neighbours; generators look at 32 bits only
WORTH_RECORDING = 3
"""Batches from which a GPU's graph pays: it is recorded in the time of about two."""

PROBES = 512
"""Samples of the prior on which the probability of formulas is estimated."""


@dataclass(frozen=True)
class Drawing(Fitted):
    """Networks that fit together, and the latents that are drawn with them."""

    @property
    def _probing(self) -> Sampling:
        """How the prior is sampled for its own sake: a distilled one knows one way, for others 20 steps will do."""
        return self.sampling if self.distilled else Sampling(steps=20, clip=self.sampling.clip)

    def _probes(self) -> Tensor:
        """Samples of the prior, the same ones always."""
        key = self.denoiser, self._probing
        if key not in self.probes:
            rng = torch.Generator().manual_seed(0)
            noise = randn((PROBES, *self.denoiser.latent_shape), rng, device=self.device)
            self.probes[key] = self._probing.build(self.denoiser).sample(self.denoiser, noise, rng)
        return self.probes[key]

    def log_probability(self, formula: Formula, z_0: Tensor) -> Tensor:
        """log P(formula | z_0) of clean latents (N,), each attribute by itself; weights play no part."""
        return self._read(CompiledFormula(without_weights(formula)), z_0)

    def _read(self, readout: Readout, z_0: Tensor) -> Tensor:
        """What a readout finds in clean latents (N,), each attribute by itself."""
        t = torch.full((len(z_0),), self.sampling.t_end, dtype=z_0.dtype, device=z_0.device)
        with torch.no_grad():
            return readout(independent(self.classifier(z_0, t)))

    def support(self, formula: Formula) -> Support:
        """The evidence on whether the prior has seen what the formula asks for.

        Example:
            >>> from lcg.guidance import parse
            >>> pipeline.support(parse("glasses & smile", pipeline.schema)).beyond
            False
            >>> pipeline.support(parse("beard & long_hair", pipeline.schema)).beyond
            True
        """
        key = str(formula), self.denoiser, self.classifier, self._probing, self.sampling.t_end
        if key not in self.supports:
            self.supports[key] = assess(formula, self.labels, self.log_probability(formula, self._probes()))
        return self.supports[key]

    def plan(self, formula: Formula) -> Plan:
        """How a formula will be sampled, by the settings of `guidance` and the evidence on its support."""
        settings, support = self.guidance, self.support(formula)
        extrapolate = settings.extrapolate == "always" or (settings.extrapolate == "auto" and support.beyond)
        dependence: Dependence = self.calibrated if settings.dependence == "auto" else settings.dependence
        if extrapolate:  # a joint distribution is known of what was seen only: attributes one by one go beyond it
            dependence = "independent"
        weight = settings.weight(formula, extrapolate, self.sampling.few)
        return Plan(formula, support, extrapolate, dependence, weight)

    def term(self, formula: Formula, dependence: Dependence = "joint") -> ClassifierTerm:
        """log P(formula | z_t) as a term. Raises ValueError for a formula that never or always holds."""
        readout = FormulaReadout(formula, dependence)
        return ClassifierTerm(self.classifier.restricted(formula.attributes), [(readout, 1.0)])

    def guided(self, plan: Plan) -> Denoiser:
        """The prior's denoiser with the formula's guidance."""
        return self._led(self.term(plan.formula, plan.dependence), plan.weight)

    def _led(self, term: ClassifierTerm, weight: Weight | RowWeights) -> Denoiser:
        """The prior's denoiser with a term's guidance, in the way that suits the prior."""
        if self.distilled:
            return GuidedConsistency(self.denoiser, term, self.denoiser.schedule, weight)
        return GuidedDenoiser(self.denoiser, [term], self.denoiser.schedule, weight, self.guidance.max_step)

    def sample(self, seeds: Sequence[int], formula: Formula | None = None, batch_size: int = 512) -> Tensor:
        """Latents (N, *latent) of the prior, guided by a formula when there is one; see `draw`."""
        return self.draw(seeds, formula, batch_size).z_0

    def draw(self, seeds: Sequence[int], formula: Formula | None = None, batch_size: int = 512) -> Draw:
        """Latents of the prior, guided by a formula when there is one, and how far to trust them.

        Args:
            seeds: one per sample.
            formula: what shall hold.
            batch_size: rows sampled together.

        Raises:
            ValueError: the formula never or always holds.
        """
        if formula is None:
            return Draw(self._sample(self.denoiser, seeds, 1.0, batch_size))
        self.term(formula)  # refuses before anything is sampled
        plan = self.plan(formula)
        if self.guidance.particles and not plan.extrapolate:
            return self._with_particles(plan, seeds)
        return self._verified([plan], seeds, batch_size)[0]

    def _sample(self, denoiser: Denoiser, seeds: Sequence[int], weight: float, batch_size: int) -> Tensor:
        sampler = self.sampling.build(self.denoiser, weight)
        parts = [seeds[start : start + batch_size] for start in range(0, len(seeds), batch_size)]
        sample: Callable[[Tensor, Randomness], Tensor] = partial(sampler.sample, denoiser)
        if self.device.type == "cuda" and sampler.draws is not None and len(parts) >= WORTH_RECORDING:
            sample = StaticSampling(sampler, denoiser).sample
        return torch.cat([self._from_noise(sample, part) for part in parts])

    def _from_noise(self, sample: Callable[[Tensor, Randomness], Tensor], seeds: Sequence[int]) -> Tensor:
        rows = generators(seeds)
        noise = randn((len(rows), *self.denoiser.latent_shape), rows, device=self.device)
        return sample(noise, rows)

    def _with_particles(self, plan: Plan, seeds: Sequence[int]) -> Draw:
        """Twisted sequential Monte Carlo: one system of particles per seed, one draw from each."""
        sampling = self.sampling
        smc = TwistedSMC(
            self.denoiser,
            [self.term(plan.formula, plan.dependence)],
            self.denoiser.schedule,
            particles=self.guidance.particles,
            steps=sampling.steps,
            weight=plan.weight.early,
            t_start=sampling.t_start,
            t_end=sampling.t_end,
            spacing=sampling.spacing,
        )
        result = smc.sample(len(seeds), self.denoiser.latent_shape, generators(seeds), device=self.device)
        ess = float(result.ess.mean())
        return Draw(result.z_0, plan, ess, result.log_p, result.stderr, (*plan.warnings, *result.warnings))

    def draw_each(self, plans: Sequence[Plan], seeds: Sequence[int], batch_size: int = 512) -> list[Draw]:
        """What `draw` gives for several plans, but for rounding, sampled together.

        A row has the formula and the weight of its plan, and what depends on the networks is evaluated once for all
        rows. The order of a multistep sampler depends on the weight, so that only plans of the same order share their
        batches.

        Args:
            plans: of this pipeline's `plan`, or of one with other weights; none of them with particles.
            seeds: one per sample, the same for every plan.
            batch_size: rows sampled together, of whatever plans.

        Returns:
            One draw of len(seeds) latents per plan.

        Raises:
            ValueError: a formula never or always holds.
        """
        orders: dict[int, list[int]] = {}
        for number, plan in enumerate(plans):
            sampler = self.sampling.build(self.denoiser, plan.weight.largest)
            orders.setdefault(getattr(sampler, "order", 1), []).append(number)
        draws: dict[int, Draw] = {}
        for numbers in orders.values():
            together = self._verified([plans[number] for number in numbers], seeds, batch_size)
            draws |= dict(zip(numbers, together, strict=True))
        return [draws[number] for number in range(len(plans))]

    def _verified(self, plans: Sequence[Plan], seeds: Sequence[int], batch_size: int) -> list[Draw]:
        """Guided samples; one that fails the formula is drawn again, at most `attempts` times in all.

        The first draw that the classifier finds more likely than not to satisfy the formula is taken, or else the most
        likely one. Attempt k of seed s is a function of (s, k) alone. Within the support this is rejection sampling,
        which takes guided samples nearer to the conditional: P(formula | z_0) is close to 0 or 1.
        """
        rows = [(number, seed) for number in range(len(plans)) for seed in seeds]
        drawn = [len(seeds)] * len(plans)
        z_0, log_p = self._tried(plans, rows, batch_size)
        for attempt in range(1, self.guidance.attempts):
            failed = (log_p < math.log(0.5)).nonzero()[:, 0]
            if not len(failed):
                break
            those = [rows[row] for row in failed.tolist()]
            again = [(number, (seed + attempt * SEED_STRIDE) % 2**32) for number, seed in those]
            redrawn, log_q = self._tried(plans, again, batch_size)
            better = log_q > log_p[failed]
            z_0[failed[better]], log_p[failed[better]] = redrawn[better], log_q[better]
            for number, _ in again:
                drawn[number] += 1
        parts = zip(plans, z_0.split(len(seeds)), log_p.split(len(seeds)), drawn, strict=True)
        return [self._told(*part) for part in parts]

    def _tried(self, plans: Sequence[Plan], rows: Sequence[tuple[int, int]], batch_size: int) -> tuple[Tensor, Tensor]:
        """Guided samples (B, *latent) of rows, and log P (B,) of what each row's own formula asks."""
        z_0 = self._guided_rows(plans, rows, batch_size)
        readouts, of_plan = _different([without_weights(plan.formula) for plan in plans], CompiledFormula)
        which = torch.tensor([of_plan[number] for number, _ in rows], device=self.device)
        parts = zip(which.split(batch_size), z_0.split(batch_size), strict=True)
        return z_0, torch.cat([self._read(EachRow(readouts, own), z) for own, z in parts])

    def _guided_rows(self, plans: Sequence[Plan], rows: Sequence[tuple[int, int]], batch_size: int) -> Tensor:
        """Guided samples (B, *latent) of rows, each with the number of its plan and its seed."""
        if len(plans) == 1:
            (plan,) = plans
            return self._sample(self.guided(plan), [seed for _, seed in rows], plan.weight.largest, batch_size)
        sampler = self.sampling.build(self.denoiser, plans[0].weight.largest)
        readouts, of_plan = _different([(plan.formula, plan.dependence) for plan in plans], _formula_readout)
        # For all plans, though a batch may have rows of some only: one classifier to prepare, not one for each batch.
        classifier = self.classifier.restricted(name for plan in plans for name in plan.formula.attributes)
        weights, parts = [plan.weight for plan in plans], []
        for start in range(0, len(rows), batch_size):
            numbers, seeds = zip(*rows[start : start + batch_size], strict=True)
            own = torch.tensor(numbers, device=self.device)
            which = torch.tensor([of_plan[number] for number in numbers], device=self.device)
            term, weight = ClassifierTerm(classifier, [(EachRow(readouts, which), 1.0)]), RowWeights(weights, own)
            parts.append(self._from_noise(partial(sampler.sample, self._led(term, weight)), seeds))
        return torch.cat(parts)

    def _told(self, plan: Plan, z_0: Tensor, log_p: Tensor, drawn: int) -> Draw:
        left, warnings = int((log_p < math.log(0.5)).sum()), plan.warnings
        if left:
            warnings += (
                f"{left} of {len(z_0)} samples fail the classifier after {self.guidance.attempts} attempts; "
                f"raise guidance.attempts or guidance.{'beyond' if plan.extrapolate else 'several'}",
            )
        return Draw(z_0, plan, math.nan, _log(plan.support.p), _relative(plan.support), warnings, drawn)


def _different(asked: Sequence[Asked], read: Callable[[Asked], Readout]) -> tuple[list[Readout], list[int]]:
    """A readout for each different thing that is asked, and the number of its readout for everything asked."""
    numbers = {what: number for number, what in enumerate(dict.fromkeys(asked))}
    return [read(what) for what in numbers], [numbers[what] for what in asked]


def _formula_readout(asked: tuple[Formula, Dependence]) -> FormulaReadout:
    return FormulaReadout(*asked)


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf if p == 0 else math.nan


def _relative(support: Support) -> float:
    """Standard error of log p, by the delta method."""
    return support.stderr / support.p if support.p > 0 else math.nan
