"""Generator, prior and classifiers together: what generates and edits images.

    pipeline = lcg.load()                                   # what `make demo` trained
    images = pipeline.generate("glasses & smile & hat & ~beard", n=16).images
    strip = pipeline.edit(images[:4], "+glasses", "-hat")

The pipeline knows which latents belong to which statistics, refuses networks that do not fit together, and draws every
sample from its own seed, so that a sample does not depend on the batch it was made in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg.checkpoint import LoadedNetwork, load_network
from lcg.data.statistics import Statistics
from lcg.diffusion import DDIM, DPMSolverPP2M, Randomness, Sampler, generators, randn
from lcg.editing import EditResult, GuidedEditor, edit_sequence
from lcg.editing.guided import Start
from lcg.generators.base import Generator, pixels_to_x, weights_sha256, x_to_pixels
from lcg.guidance import ClassifierTerm, Formula, FormulaReadout, GuidedDenoiser, SourceMode, parse, parse_edit
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.schema import Schema

SamplerName = Literal["ddim", "dpm++2m"]

PRIOR = "runs/demo/prior/prior.ckpt"
CLASSIFIER = "runs/demo/classifier/classifier.ckpt"


PURE_NOISE = 0.995
"""The time at which pure noise stands for a noised latent."""


@dataclass(frozen=True)
class Sampling:
    """How latents are sampled.

    Args:
        sampler: `ddim` (deterministic, invertible) or `dpm++2m` (second order).
        steps: denoiser evaluations.
        t_start: where sampling from noise begins.
        clip: bound on z_0_hat in standard deviations; None for none.
    """

    sampler: SamplerName = "dpm++2m"
    steps: int = 50
    t_start: float = PURE_NOISE
    clip: float | None = 5.0

    def __post_init__(self) -> None:
        if self.sampler not in get_args(SamplerName):
            raise ValueError(f"`sampler` must be one of {', '.join(get_args(SamplerName))}, got {self.sampler!r}")

    def build(self, denoiser: LatentDenoiser) -> Sampler:
        kind = DDIM if self.sampler == "ddim" else DPMSolverPP2M
        return kind(denoiser.schedule, self.steps, t_start=self.t_start, clip=self.clip)


@dataclass(frozen=True)
class Guidance:
    """How strongly a formula guides.

    Args:
        single: weight for a formula over one attribute.
        several: weight for a formula over several; conjunctions need more, single attributes suffer from too much.
        max_step: trust region of a guided step in units of sqrt(dimension); None for none.
    """

    single: float = 2.0
    several: float = 8.0
    max_step: float | None = None

    def weight(self, formula: Formula) -> float:
        """1 for a formula that carries weights (other than 1): then these alone count."""
        if formula.is_weighted:
            return 1.0
        return self.single if len(formula.attributes) == 1 else self.several


@dataclass(frozen=True)
class Editing:
    """How edits are made; see `lcg.editing.GuidedEditor`.

    Args:
        weight: guidance weight of the edits.
        keep_weight: weight of each attribute that is kept.
        tau: standard deviation of the source about the edited latent; None for no source term.
        source_mode: observation, tweedie or paper.
        start: inversion, noising or noise.
        t_start: where the path starts; the start `noise` is always at 0.995.
        steps: denoiser evaluations, and as many for the inversion.
        max_step: trust region of a guided step; None for none.
    """

    weight: float = 24.0
    keep_weight: float = 8.0
    tau: float | None = 4.0
    source_mode: SourceMode = "observation"
    start: Start = "inversion"
    t_start: float = 0.7
    steps: int = 50
    max_step: float | None = None

    def build(
        self, denoiser: LatentDenoiser, classifier: TimeConditionedClassifier, randomness: Randomness = None
    ) -> GuidedEditor:
        t_start = PURE_NOISE if self.start == "noise" else self.t_start
        return GuidedEditor(
            denoiser,
            classifier,
            classifier.schema,
            DDIM(denoiser.schedule, self.steps, t_start=t_start, clip=None),
            self.weight,
            self.keep_weight,
            self.tau,
            self.source_mode,
            self.start,
            t_start,
            self.max_step,
            randomness,
        )


@dataclass(frozen=True)
class Samples:
    """Generated latents and images.

    Attributes:
        z_0: (N, *latent) standardised.
        images: (N, H, W, C) uint8.
        seeds: the seed of each.
        formula: what they were guided by, or None.
    """

    z_0: Tensor
    images: NDArray[np.uint8]
    seeds: tuple[int, ...]
    formula: Formula | None


@dataclass(frozen=True)
class Pipeline:
    """Generator, prior and classifier that fit together; make one with `load`.

    Attributes:
        generator: frozen, maps raw latents to images.
        denoiser: the prior's.
        classifier: of noised latents.
        statistics: standardise raw latents.
        store: fingerprint of the store that the networks were trained on.
    """

    generator: Generator
    denoiser: LatentDenoiser
    classifier: TimeConditionedClassifier
    statistics: Statistics
    store: str
    sampling: Sampling = field(default_factory=Sampling)
    guidance: Guidance = field(default_factory=Guidance)
    editing: Editing = field(default_factory=Editing)

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

    def encode(self, images: NDArray[np.uint8], batch_size: int = 256) -> Tensor:
        """Standardised latents of images (N, H, W, C) uint8.

        Raises:
            TypeError: the images are not uint8.
            ValueError: they have another size than the generator's.
        """
        channels, height, width = self.generator.image_shape
        if images.shape[1:] != (height, width, channels):
            raise ValueError(
                f"the images must be {height}x{width} with {channels} channels, got {images.shape[1:]}; resize them"
            )
        x = torch.from_numpy(np.ascontiguousarray(images))
        with torch.no_grad():
            z = [self.generator.encode(pixels_to_x(part).to(self.device)) for part in x.split(batch_size)]
        return self.statistics.standardise(torch.cat(z))

    # --- generation ---

    def sample(self, seeds: Sequence[int], formula: Formula | None = None, batch_size: int = 512) -> Tensor:
        """Latents of the prior, guided by a formula when there is one.

        Args:
            seeds: one per sample.
            formula: what shall hold.
            batch_size: rows sampled together.

        Returns:
            (N, *latent) standardised.
        """
        sampler = self.sampling.build(self.denoiser)
        denoiser = self.denoiser if formula is None else self.guided(formula)
        parts = []
        for start in range(0, len(seeds), batch_size):
            rows = generators(seeds[start : start + batch_size])
            noise = randn((len(rows), *self.denoiser.latent_shape), rows, device=self.device)
            parts.append(sampler.sample(denoiser, noise, rows))
        return torch.cat(parts)

    def guided(self, formula: Formula) -> GuidedDenoiser:
        """The prior's denoiser with the formula's guidance."""
        term = ClassifierTerm(self.classifier, [(FormulaReadout(formula), 1.0)])
        weight = self.guidance.weight(formula)
        return GuidedDenoiser(self.denoiser, [term], self.denoiser.schedule, weight, self.guidance.max_step)

    def generate(self, formula: str | None = None, n: int = 16, seed: int = 0) -> Samples:
        """Images that satisfy a formula.

        Args:
            formula: such as `glasses & smile & ~beard`; None for samples of the prior.
            n: how many.
            seed: the first; sample i has seed + i.

        Raises:
            ValueError: the formula cannot be read or can never hold, or n is not positive.
        """
        if n < 1:
            raise ValueError(f"`n` must be at least 1, got {n}")
        parsed = None if formula is None else parse(formula, self.schema)
        seeds = tuple(range(seed, seed + n))
        z_0 = self.sample(seeds, parsed)
        return Samples(z_0, self.decode(z_0), seeds, parsed)

    # --- editing ---

    def editor(self, randomness: Randomness = None) -> GuidedEditor:
        """lcg's editor with this pipeline's networks; `randomness` is for the starts that draw noise."""
        return self.editing.build(self.denoiser, self.classifier, randomness)

    def edit(self, images: NDArray[np.uint8], *edits: str) -> list[NDArray[np.uint8]]:
        """Edits images one attribute after another.

        Args:
            images: (N, H, W, C) uint8.
            edits: such as `+glasses`, `-hat`, `hair_color=red`.

        Returns:
            The reconstructions, then the images after each edit, each (N, H, W, C).
        """
        z_0 = self.encode(images)
        results = self.edit_latents(z_0, edits)
        return [self.decode(z_0), *(self.decode(result.z_0) for result in results)]

    def edit_latents(self, z_0: Tensor, edits: Sequence[str], labels: Tensor | None = None) -> list[EditResult]:
        """Edits standardised latents (N, *latent), one attribute after another; one result per edit."""
        editor = self.editor(generators(range(len(z_0))))  # row by row, should the start draw noise
        return edit_sequence(editor, z_0, [parse_edit(edit, self.schema) for edit in edits], labels)


def load(
    prior: str | PathLike[str] = PRIOR,
    classifier: str | PathLike[str] = CLASSIFIER,
    generator: Generator | None = None,
    device: torch.device | str = "cpu",
    **settings: Any,
) -> Pipeline:
    """Loads networks and checks that they fit together.

    Args:
        prior: checkpoint of the prior.
        classifier: checkpoint of the classifiers.
        generator: the frozen generator, put into evaluation mode; None for the embedded one.
        device: where everything goes.
        settings: `sampling`, `guidance`, `editing` of the pipeline.

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
    return Pipeline(generator, p.network, c.network, p.statistics, p.store, **settings)


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
