"""Generator, prior and classifiers together: what generates and edits images.

    pipeline = lcg.load()                                   # what `make demo` trained
    images = pipeline.generate("glasses & smile & hat & ~beard", n=16).images
    strip = pipeline.edit(images[:4], "+glasses", "-hat")
    session = pipeline.session(images[:4]).add("+glasses").add("smile").undo()

The pipeline knows which latents belong to which statistics, refuses networks that do not fit together, and draws every
sample from its own seed, so that a sample does not depend on the batch it was made in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg.checkpoint import load_networks
from lcg.data.statistics import Statistics
from lcg.diffusion import Denoiser, Randomness, StaticSampling, generators, randn
from lcg.editing import EditResult, EditSession, GuidedEditor, Inversion, edit_sequence
from lcg.editing.session import MAX_CHARACTERS
from lcg.generators.base import Generator
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
    parse,
    parse_edit,
    without_weights,
)
from lcg.imaging import Imaging
from lcg.models.names import find_model
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.nets.execution import Execution
from lcg.nets.heads import independent
from lcg.samples import Draw, Plan, Samples
from lcg.schema import Schema
from lcg.settings import Editing, Guidance, Inverting, RowWeights, Sampling, Weight

Asked = TypeVar("Asked", bound=Hashable)

PRIOR = "runs/demo/prior/prior.ckpt"
CLASSIFIER = "runs/demo/classifier/classifier.ckpt"


SEED_STRIDE = 2_654_435_769  # 2^32 / golden ratio: far from the seeds of neighbours; generators look at 32 bits only
WORTH_RECORDING = 3
"""Batches from which a GPU's graph pays: it is recorded in the time of about two."""

PROBES = 512
"""Samples of the prior on which the probability of formulas is estimated."""


@dataclass(frozen=True)
class Pipeline:
    """Generator, prior and classifier that fit together; make one with `load`.

    Attributes:
        generator: frozen, maps raw latents to images.
        denoiser: the prior's.
        classifier: of noised latents.
        statistics: standardise raw latents.
        store: fingerprint of the store that the classifiers were trained on; the prior's has the same latents.
        labels: (N, A) of the store, or a sample of them.
        calibrated: the reading of several attributes that is better calibrated.
        distilled: whether the denoiser is a consistency function, for the sampler `consistency` and nothing else.
        probes: samples of the prior that pipelines with these networks and other settings share, by what they depend
            on.
        supports: of formulas, likewise.

    Raises:
        ValueError: a distilled prior and settings that ask for more, or an ordinary one and the sampler `consistency`.
    """

    generator: Generator
    denoiser: LatentDenoiser
    classifier: TimeConditionedClassifier
    statistics: Statistics
    store: str
    labels: Tensor
    calibrated: Dependence = "joint"
    distilled: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    guidance: Guidance = field(default_factory=Guidance)
    editing: Editing = field(default_factory=Editing)
    inversion: Inverting = field(default_factory=Inverting)
    probes: dict[tuple[LatentDenoiser, Sampling], Tensor] = field(default_factory=dict, repr=False, compare=False)
    supports: dict[tuple[Any, ...], Support] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        sampler = self.sampling.sampler
        if not self.distilled and sampler == "consistency":
            raise ValueError(
                "the sampler consistency needs a distilled prior, got an ordinary one; distil it with "
                "`lcg fit --config configs/prior/distilled.yaml`, or choose another sampler"
            )
        if self.distilled and sampler != "consistency":
            raise ValueError(
                f"a distilled prior generates with `sampling.sampler` consistency and nothing else, got {sampler!r}; "
                "set it, with 1 to 4 steps, or give the prior it was distilled from, as editing does"
            )
        if self.distilled and (self.guidance.particles or self.guidance.max_step is not None):
            raise ValueError(
                f"a distilled prior knows no particles and no trust region, got guidance.particles="
                f"{self.guidance.particles} and guidance.max_step={self.guidance.max_step}; "
                "leave them out, or give the prior it was distilled from"
            )

    @property
    def schema(self) -> Schema:
        return self.classifier.schema

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    # --- latents and images ---

    def decode(self, z_0: Tensor, batch_size: int = 256, code: Tensor | None = None) -> NDArray[np.uint8]:
        """Images (N, H, W, C) of standardised latents.

        Args:
            z_0: (N, *latent).
            batch_size: images that are decoded together.
            code: (N, *code) of the images that the latents are edits of, as `code` gives them; None where the generator
                has none, or the latents come from nowhere.

        Raises:
            ValueError: latents that are not finite, codes that are not one for each, or of a generator without codes.
        """
        return self._imaging().decode(z_0, code, batch_size)

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
        return self._imaging(inversion).encode(images, batch_size)

    def invert(self, images: NDArray[np.uint8], inversion: Inverting | None = None) -> Inversion:
        """Raw latents of images (N, H, W, C) uint8, and how well they reproduce them; else as `encode`."""
        return self._imaging(inversion).invert(images)

    def code(self, images: NDArray[np.uint8], z_0: Tensor) -> Tensor | None:
        """What standardised latents (N, *latent) leave out of their images, for `decode`; None if nothing.

        Raises:
            TypeError, ValueError: as `encode`.
        """
        return self._imaging().code(images, z_0)

    def _imaging(self, inversion: Inverting | None = None) -> Imaging:
        return Imaging(self.generator, self.statistics, inversion or self.inversion, self.device)

    # --- generation ---

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
        """The evidence on whether the prior has seen what the formula asks for."""
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

    def generate(self, formula: str | None = None, n: int = 16, seed: int = 0) -> Samples:
        """Images that satisfy a formula.

        Args:
            formula: such as `glasses & smile & ~beard`; None for samples of the prior.
            n: how many.
            seed: the first; sample i has seed + i.

        Raises:
            ValueError: the formula cannot be read, can never hold or always does, or n is not positive.
        """
        seeds = _seeds(n, seed)
        draw = self.draw(seeds, None if formula is None else parse(formula, self.schema))
        return Samples(draw, self.decode(draw.z_0), seeds)

    def sweep(
        self, formulas: Sequence[str], weights: Sequence[float] | None = None, n: int = 16, seed: int = 0
    ) -> dict[str, list[Samples]]:
        """Images of every formula at every guidance weight, sampled together: what `generate` makes, but for rounding.

            rows = pipeline.sweep(["hat", "glasses & ~beard"], weights=[0, 1, 4], n=8)
            rows["hat"][2].images                                  # (8, H, W, C), of weight 4

        Args:
            formulas: as that of `generate`.
            weights: w >= 0 of the log-probability, in the place of the `single`, `several` and `beyond` of `guidance`,
                whose `rise` still applies; None for these. A formula that carries weights keeps its own.
            n: images (n, H, W, C) of each formula at each weight.
            seed: the first; image i has seed + i whatever its formula and weight.

        Returns:
            By formula, samples for each weight in their order, or one where `weights` is None.

        Raises:
            ValueError: no formula or no weight, one that `generate` refuses, a negative weight, n is not positive, or
                `guidance` asks for particles, whose samples share nothing.
        """
        if not formulas or (weights is not None and not len(weights)):
            raise ValueError(
                f"`formulas` and `weights` must not be empty, got {len(formulas)} formulas and {weights}; "
                "name at least one of each, or leave `weights` out"
            )
        if self.guidance.particles:
            raise ValueError(
                f"a sweep must be without particles, got `guidance.particles`={self.guidance.particles}; "
                "use `generate` for each formula, or particles=0"
            )
        own = [self.guidance]
        if weights is not None:
            own = [replace(self.guidance, single=w, several=w, beyond=w) for w in weights]
        seeds, asked = _seeds(n, seed), {text: parse(text, self.schema) for text in formulas}
        for formula in asked.values():
            self.term(formula)  # refuses before anything is sampled
        plans = [replace(self, guidance=guidance).plan(formula) for formula in asked.values() for guidance in own]
        samples = [Samples(draw, self.decode(draw.z_0), seeds) for draw in self.draw_each(plans, seeds)]
        return {text: samples[k * len(own) : (k + 1) * len(own)] for k, text in enumerate(asked)}

    # --- editing ---

    def editor(self, seeds: int | Sequence[int] = 0) -> GuidedEditor:
        """lcg's editor with these networks; `seeds` are for the starts that draw noise, one or one per source.

        Raises:
            ValueError: the prior is a distilled one, or `editing` asks for what cannot be.
        """
        if self.distilled:
            raise ValueError(
                "editing inverts the prior's flow and needs its posterior mean, which a distilled prior does not know; "
                "load the prior it was distilled from"
            )
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
        self.editor()  # refuses before work
        z_0 = self.encode(images)
        code = self.code(images, z_0)
        results = self.edit_latents(z_0, edits, strength=strength)
        return [self.decode(z_0, code=code), *(self.decode(result.z_0, code=code) for result in results)]

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
        self,
        sources: NDArray[np.uint8] | Tensor,
        labels: Tensor | None = None,
        strength: float | None = None,
        code: Tensor | None = None,
    ) -> EditSession:
        """An editing session with this pipeline's editor, whose results are latents.

            images = pipeline.decode(session.result(), code=session.code)

        Args:
            sources: images (N, H, W, C) uint8, or standardised latents (N, *latent).
            labels: known labels (N, A), NaN where unknown; None when the classifier shall find them out.
            strength: how far to go, from 0, the source, to 1; None for that of `editing`.
            code: of latents, what they leave out of their images, if that is known; that of images is found.

        Raises:
            TypeError, ValueError: as `encode`, `editor` and `EditSession`; or latents of another shape than the
                prior's.
        """
        self.editor()  # refuses before work
        if isinstance(sources, Tensor):
            z_0, code = sources.to(self.device), None if code is None else code.to(self.device)
        else:
            z_0 = self.encode(sources)
            code = self.code(sources, z_0)
        labels = None if labels is None else labels.to(self.device)
        return self._own(EditSession(z_0, self.schema, labels, strength, code=code))

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
    classifier: str | PathLike[str] | None = None,
    generator: Generator | None = None,
    device: torch.device | str = "cpu",
    execution: Execution | None = None,
    **settings: Any,
) -> Pipeline:
    """Loads networks and checks that they fit together.

        lcg.load()                                # what `make demo` trained
        lcg.load("mine")                          # an exported model, by name or folder
        lcg.load("prior.ckpt", "classifier.ckpt")

    Args:
        prior: checkpoint of the prior; or an exported model, its name where it comes without `classifier`.
        classifier: checkpoint of the classifiers, or an exported model; None for those of the model in the place of
            `prior`, or those of the demo.
        generator: the frozen generator, put into evaluation mode; None for the embedded one.
        device: where everything goes.
        execution: by which kernels and in which precision prior and classifier run; None for the fastest, in float32.
        settings: `sampling`, `guidance`, `editing`, `inversion` of the pipeline.

    Raises:
        FileNotFoundError: a checkpoint or a model is missing.
        ValueError: a file is damaged; the networks were trained on different latents or under different schedules, the
            generator is not that of the latents, or the prior is a distilled one and the settings do not suit it.
    """
    if classifier is None:
        if Path(prior).is_file() or Path(prior).suffix == ".ckpt":
            classifier = CLASSIFIER
        else:
            prior = classifier = find_model(prior)
    p, c = load_networks(prior, classifier, device, distilled=True)
    encoder = p.provenance.get("generator", {}).get("class")
    origin = f" of class {encoder!r}" if encoder else ""  # a stranger may have named it
    if generator is None:
        from lcg.generators.autoencoder import AvatarAutoencoder

        generator = AvatarAutoencoder()
    shape = tuple(p.config["latent_shape"])
    if tuple(generator.latent_shape) != shape:
        raise ValueError(
            f"the networks were trained on latents of shape {shape}, the generator has "
            f"{tuple(generator.latent_shape)}; use the generator{origin} that encoded the store"
        )
    if p.generator and p.generator != generator.latents_sha256():
        raise ValueError(
            f"the store of {p.path} was encoded by a generator with weights {p.generator[:12]}, this one has "
            f"{generator.latents_sha256()[:12]}; use that generator{origin}, or encode and fit again"
        )
    generator = generator.to(device).eval().requires_grad_(False)
    if execution is not None:
        p.network.execution = c.network.execution = execution
    labels, calibrated = c.labels, c.calibration.get("dependence", "independent")
    return Pipeline(generator, p.network, c.network, p.statistics, c.store, labels, calibrated, p.distilled, **settings)


def _seeds(n: int, first: int) -> tuple[int, ...]:
    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}")
    return tuple(range(first, first + n))


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
