"""Generator, prior and classifiers together: what generates and edits images.

    pipeline = lcg.load()                                   # what `make demo` trained
    images = pipeline.generate("glasses & smile & hat & ~beard", n=16).images
    strip = pipeline.edit(images[:4], "+glasses", "-hat")
    session = pipeline.session(images[:4]).add("+glasses").add("smile").undo()

The pipeline knows which latents belong to which statistics, refuses networks that do not fit together, and draws every
sample from its own seed, so that a sample does not depend on the batch it was made in.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg.checkpoint import LoadedNetwork, load_network
from lcg.data.statistics import Statistics
from lcg.diffusion import DPMSolverPP2M, Randomness, StaticSampling, generators, randn
from lcg.editing import EditResult, EditSession, GuidedEditor, Inversion, edit_sequence
from lcg.editing.session import MAX_CHARACTERS
from lcg.generators.base import Generator, pixels_to_x, weights_sha256, x_to_pixels
from lcg.guidance import (
    ClassifierTerm,
    CompiledFormula,
    Dependence,
    Formula,
    FormulaReadout,
    GuidedDenoiser,
    Support,
    TwistedSMC,
    assess,
    parse,
    parse_edit,
    without_weights,
)
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.nets.execution import Execution
from lcg.nets.heads import independent
from lcg.schema import Schema
from lcg.settings import Editing, Guidance, Inverting, RowWeights, Sampling, Weight

PRIOR = "runs/demo/prior/prior.ckpt"
CLASSIFIER = "runs/demo/classifier/classifier.ckpt"


SEED_STRIDE = 2_654_435_769  # 2^32 / golden ratio: far from the seeds of neighbours; generators look at 32 bits only
WORTH_RECORDING = 3
"""Batches from which a GPU's graph pays: it is recorded in the time of about two."""

PROBES = 512
"""Samples of the prior on which the probability of formulas is estimated."""


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


@dataclass(frozen=True)
class Pipeline:
    """Generator, prior and classifier that fit together; make one with `load`.

    Attributes:
        generator: frozen, maps raw latents to images.
        denoiser: the prior's.
        classifier: of noised latents.
        statistics: standardise raw latents.
        store: fingerprint of the store that the networks were trained on.
        labels: (N, A) of the store, or a sample of them.
        calibrated: the reading of several attributes that is better calibrated.
        probes: samples of the prior that pipelines with these networks and other settings share, by what they depend
            on.
        supports: of formulas, likewise.
    """

    generator: Generator
    denoiser: LatentDenoiser
    classifier: TimeConditionedClassifier
    statistics: Statistics
    store: str
    labels: Tensor
    calibrated: Dependence = "joint"
    sampling: Sampling = field(default_factory=Sampling)
    guidance: Guidance = field(default_factory=Guidance)
    editing: Editing = field(default_factory=Editing)
    inversion: Inverting = field(default_factory=Inverting)
    probes: dict[tuple[LatentDenoiser, float | None], Tensor] = field(default_factory=dict, repr=False, compare=False)
    supports: dict[tuple[Any, ...], Support] = field(default_factory=dict, repr=False, compare=False)

    @property
    def schema(self) -> Schema:
        return self.classifier.schema

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    # --- latents and images ---

    def decode(self, z_0: Tensor, batch_size: int = 256) -> NDArray[np.uint8]:
        """Images (N, H, W, C) of standardised latents. Raises ValueError for latents that are not finite."""
        finite = torch.isfinite(z_0).flatten(1).all(1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise ValueError(
                f"`z_0` must be finite, got NaN or infinity in row {row}; check the weights of the networks"
            )
        with torch.no_grad():
            parts = [self.generator.decode(self.statistics.restore(z)) for z in z_0.split(batch_size)]
        return np.concatenate([x_to_pixels(x).cpu().numpy() for x in parts])

    def encode(self, images: NDArray[np.uint8], batch_size: int = 256, inversion: Inverting | None = None) -> Tensor:
        """Standardised latents of images.

        Args:
            images: (N, H, W, C) uint8.
            batch_size: images that are encoded together.
            inversion: how; None for the pipeline's own setting, by default the encoder where there is one.

        Returns:
            (N, *latent).

        Raises:
            TypeError: the images are not uint8.
            ValueError: they have another size than the generator's.
            NotImplementedError: the generator lacks what `inversion` asks for.
        """
        how, x = inversion or self.inversion, self._pixels(images)
        if how.encodes(self.generator):
            # Not through `invert`, which would decode all of them for the sake of their errors.
            with contextlib.suppress(NotImplementedError), torch.no_grad():
                z = [self.generator.encode(pixels_to_x(part).to(self.device)) for part in x.split(batch_size)]
                return self.statistics.standardise(torch.cat(z))
        return self.statistics.standardise(self.invert(images, how).z)

    def invert(self, images: NDArray[np.uint8], inversion: Inverting | None = None) -> Inversion:
        """Raw latents of images (N, H, W, C) uint8, and how well they reproduce them; else as `encode`."""
        x = pixels_to_x(self._pixels(images)).to(self.device)
        return (inversion or self.inversion).invert(self.generator, x, self.statistics)

    def _pixels(self, images: NDArray[np.uint8]) -> Tensor:
        channels, height, width = self.generator.image_shape
        if images.shape[1:] != (height, width, channels):
            raise ValueError(
                f"the images must be {height}x{width} with {channels} channels, got {images.shape[1:]}; resize them"
            )
        return torch.from_numpy(np.ascontiguousarray(images))

    # --- generation ---

    def _probes(self) -> Tensor:
        """Samples of the prior, the same ones always."""
        key = self.denoiser, self.sampling.clip
        if key not in self.probes:
            sampler = DPMSolverPP2M(self.denoiser.schedule, 20, clip=self.sampling.clip)
            noise = randn((PROBES, *self.denoiser.latent_shape), torch.Generator().manual_seed(0), device=self.device)
            self.probes[key] = sampler.sample(self.denoiser, noise)
        return self.probes[key]

    def log_probability(self, formula: Formula, z_0: Tensor) -> Tensor:
        """log P(formula | z_0) of clean latents (N,), each attribute by itself; weights play no part."""
        t = torch.full((len(z_0),), self.sampling.t_end, dtype=z_0.dtype, device=z_0.device)
        with torch.no_grad():
            return CompiledFormula(without_weights(formula))(independent(self.classifier(z_0, t)))

    def support(self, formula: Formula) -> Support:
        """The evidence on whether the prior has seen what the formula asks for."""
        key = str(formula), self.denoiser, self.classifier, self.sampling.clip, self.sampling.t_end
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
        return Plan(formula, support, extrapolate, dependence, settings.weight(formula, extrapolate))

    def term(self, formula: Formula, dependence: Dependence = "joint") -> ClassifierTerm:
        """log P(formula | z_t) as a term. Raises ValueError for a formula that never or always holds."""
        readout = FormulaReadout(formula, dependence)
        return ClassifierTerm(self.classifier.restricted(formula.attributes), [(readout, 1.0)])

    def guided(self, plan: Plan, weight: Callable[[Tensor], Tensor] | None = None) -> GuidedDenoiser:
        """The prior's denoiser with the formula's guidance; `weight` where the rows do not all have the plan's own."""
        term, schedule = self.term(plan.formula, plan.dependence), self.denoiser.schedule
        return GuidedDenoiser(self.denoiser, [term], schedule, weight or plan.weight, self.guidance.max_step)

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

    def _sample(
        self, denoiser: LatentDenoiser | GuidedDenoiser, seeds: Sequence[int], weight: float, batch_size: int
    ) -> Tensor:
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
        """What `draw` gives for several plans of one formula, but for rounding, sampled together.

        A row has the weight of its plan. The order of a multistep sampler depends on the weight, so that only plans of
        the same order share their batches.

        Args:
            plans: of this pipeline's `plan`, or of one with other weights; none of them with particles.
            seeds: one per sample.
            batch_size: rows sampled together.

        Returns:
            One draw per plan.

        Raises:
            ValueError: the plans are of several formulas.
        """
        if len({(plan.formula, plan.dependence) for plan in plans}) != 1:
            raise ValueError(
                f"`plans` must be of one formula read in one way, got {len(plans)} that are not; draw each by itself"
            )
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
        z_0 = self._guided_rows(plans, rows, batch_size)
        log_p = self.log_probability(plans[0].formula, z_0)
        for attempt in range(1, self.guidance.attempts):
            failed = (log_p < math.log(0.5)).nonzero()[:, 0]
            if not len(failed):
                break
            those = [rows[row] for row in failed.tolist()]
            again = [(number, (seed + attempt * SEED_STRIDE) % 2**32) for number, seed in those]
            redrawn = self._guided_rows(plans, again, batch_size)
            log_q = self.log_probability(plans[0].formula, redrawn)
            better = log_q > log_p[failed]
            z_0[failed[better]], log_p[failed[better]] = redrawn[better], log_q[better]
            for number, _ in again:
                drawn[number] += 1
        parts = zip(plans, z_0.split(len(seeds)), log_p.split(len(seeds)), drawn, strict=True)
        return [self._told(*part) for part in parts]

    def _guided_rows(self, plans: Sequence[Plan], rows: Sequence[tuple[int, int]], batch_size: int) -> Tensor:
        """Guided samples (B, *latent) of rows, each with the number of its plan and its seed."""
        if len(plans) == 1:
            (plan,) = plans
            return self._sample(self.guided(plan), [seed for _, seed in rows], plan.weight.largest, batch_size)
        sampler, parts = self.sampling.build(self.denoiser, plans[0].weight.largest), []
        weights = [plan.weight for plan in plans]
        for start in range(0, len(rows), batch_size):
            numbers, seeds = zip(*rows[start : start + batch_size], strict=True)
            weight = RowWeights(weights, torch.tensor(numbers, device=self.device))
            parts.append(self._from_noise(partial(sampler.sample, self.guided(plans[0], weight)), seeds))
        return torch.cat(parts)

    def _told(self, plan: Plan, z_0: Tensor, log_p: Tensor, drawn: int) -> Draw:
        left, warnings = int((log_p < math.log(0.5)).sum()), plan.warnings
        if left:
            warnings += (
                f"{left} of {len(z_0)} samples fail the classifier after {self.guidance.attempts} attempts; "
                f"raise guidance.attempts or guidance.{'beyond' if plan.extrapolate else 'several'}",
            )
        return Draw(z_0, plan, math.nan, _log(plan.support.p), _relative(plan.support), warnings, drawn)

    def generate(self, formula: str | None = None, n: int = 16, seed: int = 0) -> Samples:
        """Images that satisfy a formula.

        Args:
            formula: such as `glasses & smile & ~beard`; None for samples of the prior.
            n: how many.
            seed: the first; sample i has seed + i.

        Raises:
            ValueError: the formula cannot be read, can never hold or always does, or n is not positive.
        """
        if n < 1:
            raise ValueError(f"`n` must be at least 1, got {n}")
        seeds = tuple(range(seed, seed + n))
        draw = self.draw(seeds, None if formula is None else parse(formula, self.schema))
        return Samples(draw, self.decode(draw.z_0), seeds)

    # --- editing ---

    def editor(self, seeds: int | Sequence[int] = 0) -> GuidedEditor:
        """lcg's editor with these networks; `seeds` are for the starts that draw noise, one or one per source."""
        return self.editing.build(self.denoiser, self.classifier, seeds)

    def edit(
        self, images: NDArray[np.uint8], *edits: str, strength: float | Tensor | None = None
    ) -> list[NDArray[np.uint8]]:
        """Edits images one attribute after another.

        Args:
            images: (N, H, W, C) uint8.
            edits: such as `+glasses`, `-hat`, `hair_color=red`, or `age=0.7` of a continuous attribute.
            strength: how far to go, from 0, the source, to 1; one number or one per image, None for that of `editing`.

        Returns:
            The reconstructions, then the images after each edit, each (N, H, W, C).
        """
        z_0 = self.encode(images)
        results = self.edit_latents(z_0, edits, strength=strength)
        return [self.decode(z_0), *(self.decode(result.z_0) for result in results)]

    def edit_latents(
        self,
        z_0: Tensor,
        edits: Sequence[str],
        labels: Tensor | None = None,
        strength: float | Tensor | None = None,
    ) -> list[EditResult]:
        """Edits standardised latents, one attribute after another.

        Args:
            z_0: (N, *latent).
            edits: as those of `edit`.
            labels: known labels (N, A), NaN where unknown; None when the classifier shall find them out.
            strength: as that of `edit`.

        Returns:
            One result per edit.
        """
        editor = self.editor(range(len(z_0)))  # row by row, should the start draw noise
        return edit_sequence(editor, z_0, [parse_edit(edit, self.schema) for edit in edits], labels, strength)

    def session(
        self, sources: NDArray[np.uint8] | Tensor, labels: Tensor | None = None, strength: float | None = None
    ) -> EditSession:
        """An editing session with this pipeline's editor, whose results are latents: `decode(session.result())`.

        Args:
            sources: images (N, H, W, C) uint8, or standardised latents (N, *latent).
            labels: known labels (N, A), NaN where unknown; None when the classifier shall find them out.
            strength: how far to go, from 0, the source, to 1; None for that of `editing`.

        Raises:
            TypeError, ValueError: as `encode` and `EditSession`; or latents of another shape than the prior's.
        """
        z_0 = sources.to(self.device) if isinstance(sources, Tensor) else self.encode(sources)
        labels = None if labels is None else labels.to(self.device)
        return self._own(EditSession(z_0, self.schema, labels, strength))

    def open_session(self, path: str | PathLike[str]) -> EditSession:
        """The session that a file holds (`EditSession.to_json`), with this pipeline's editor.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no session, or one of other attributes or latents than this pipeline's.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"no session at {file}; `lcg edit` leaves one as OUT/session.json")
        with file.open(encoding="utf-8", errors="replace") as opened:
            text = opened.read(MAX_CHARACTERS + 1)  # a stranger's file may be of any size
        try:
            return self._own(EditSession.from_json(text, self.schema, self.device))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def _own(self, session: EditSession) -> EditSession:
        """The session with this pipeline's editor; each source has its own seed, should the start draw noise."""
        shape, own = tuple(session.z_0.shape[1:]), tuple(self.denoiser.latent_shape)
        if shape != own:
            raise ValueError(
                f"the sources are latents of shape {shape}, the prior's have {own}; use the networks they belong to"
            )
        session.editor = self.editor(range(len(session.z_0)))
        return session


def load(
    prior: str | PathLike[str] = PRIOR,
    classifier: str | PathLike[str] = CLASSIFIER,
    generator: Generator | None = None,
    device: torch.device | str = "cpu",
    execution: Execution | None = None,
    **settings: Any,
) -> Pipeline:
    """Loads networks and checks that they fit together.

    Args:
        prior: checkpoint of the prior.
        classifier: checkpoint of the classifiers.
        generator: the frozen generator, put into evaluation mode; None for the embedded one.
        device: where everything goes.
        execution: by which kernels and in which precision prior and classifier run; None for the fastest, in float32.
        settings: `sampling`, `guidance`, `editing`, `inversion` of the pipeline.

    Raises:
        FileNotFoundError: a checkpoint is missing.
        ValueError: the networks were trained on different latents or under different schedules, or the generator's
            latents have another shape.
    """
    p, c = load_networks(prior, classifier, device)
    if generator is None:
        from lcg.generators.autoencoder import AvatarAutoencoder

        generator = AvatarAutoencoder()
    shape = tuple(p.config["latent_shape"])
    if tuple(generator.latent_shape) != shape:
        raise ValueError(
            f"the networks were trained on latents of shape {shape}, the generator has "
            f"{tuple(generator.latent_shape)}; use the generator that encoded the store"
        )
    if p.generator and p.generator != weights_sha256(generator):
        raise ValueError(
            f"the store of {p.path} was encoded by a generator with weights {p.generator[:12]}, this one has "
            f"{weights_sha256(generator)[:12]}; use that generator, or encode and fit again"
        )
    generator = generator.to(device).eval().requires_grad_(False)
    if execution is not None:
        p.network.execution = c.network.execution = execution
    labels, calibrated = c.labels, c.calibration.get("dependence", "independent")
    return Pipeline(generator, p.network, c.network, p.statistics, p.store, labels, calibrated, **settings)


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf if p == 0 else math.nan


def _relative(support: Support) -> float:
    """Standard error of log p, by the delta method."""
    return support.stderr / support.p if support.p > 0 else math.nan


def load_networks(
    prior: str | PathLike[str], classifier: str | PathLike[str], device: torch.device | str = "cpu"
) -> tuple[LoadedNetwork[LatentDenoiser], LoadedNetwork[TimeConditionedClassifier]]:
    """Loads a prior and classifiers and checks that they fit together.

    Raises:
        FileNotFoundError: a checkpoint is missing.
        ValueError: they were trained on different latents or under different schedules.
    """
    p, c = load_network(prior, "denoiser", device), load_network(classifier, "classifier", device)
    if p.store != c.store:
        raise ValueError(
            f"{p.path} and {c.path} were trained on different stores ({p.store[:12]} and {c.store[:12]}); "
            "fit both on one store"
        )
    if p.config["schedule"] != c.config["schedule"]:
        raise ValueError(
            f"the prior's schedule is {p.config['schedule']!r}, the classifier's {c.config['schedule']!r}; "
            "fit both under one schedule"
        )
    return p, c
