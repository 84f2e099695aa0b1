"""Generator, prior and classifiers together: what generates and edits images.

    pipeline = lcg.load("avatars")
    samples = pipeline.generate("glasses & smile & hat & ~beard", n=16)
    edits = pipeline.edit(samples[:4], "+glasses", "-hat")
    session = pipeline.session(samples[:4]).add("+glasses").add("smile").undo()

The pipeline knows which latents belong to which statistics, refuses networks that do not fit together, and draws every
sample from its own seed, so that a sample does not depend on the batch it was made in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg.checkpoint import load_networks
from lcg.editing import EditSession
from lcg.generators.base import Generator
from lcg.guidance import Formula, parse
from lcg.guidance.phrases import Reading, read
from lcg.models.names import find_model
from lcg.nets.execution import Execution
from lcg.nets.heads import independent
from lcg.pipeline.given import Images
from lcg.pipeline.loading import check_types, find_device, fitting_generator
from lcg.pipeline.sessions import Editable
from lcg.results.beliefs import Beliefs
from lcg.results.display import block, code, strong, table
from lcg.results.edited import Edits
from lcg.results.samples import Samples
from lcg.settings import Editing, Guidance, Inverting, Sampling

PRIOR = "runs/demo/prior/prior.ckpt"
"""The prior that `make demo` trains."""
CLASSIFIER = "runs/demo/classifier/classifier.ckpt"
"""The classifiers that `make demo` trains."""


@dataclass(frozen=True, repr=False)
class Pipeline(Editable):
    """Generator, prior and classifier that fit together; make one with `lcg.load`.

    Its attributes are those of `lcg.pipeline.fitted.Fitted`: `generator`, `denoiser`, `classifier`, `statistics`, and
    the settings `sampling`, `guidance`, `editing` and `inversion`; for others use `dataclasses.replace`.
    """

    def generate(self, formula: str | Formula | Reading | None = None, n: int = 16, seed: int = 0) -> Samples:
        """Images that satisfy a formula.

        Args:
            formula: such as `glasses & smile & ~beard`, or a reading of English, see `read`; None for samples of the
                prior.
            n: how many.
            seed: the first; sample i has seed + i.

        Raises:
            ValueError: the formula cannot be read, can never hold or always does, or n is not positive.

        Example:
            >>> samples = pipeline.generate("glasses & ~beard", n=3)
            >>> samples
            Samples(3 images of 64x64 for glasses & ~beard, seeds 0 to 2; the classifier agrees with 3 of 3)
            >>> samples.images.shape, samples.seeds
            ((3, 64, 64, 3), (0, 1, 2))
            >>> print(samples.plan)
            within the prior's support (... labelled latents satisfy it; ...): sampled as a conditional, ...
            >>> bool((samples.probabilities > 0.5).all())
            True
        """
        seeds = _seeds(n, seed)
        draw = self.draw(seeds, None if formula is None else self._formula(formula))
        return Samples(draw, self.decode(draw.z_0), seeds, self)

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

        Example:
            >>> rows = pipeline.sweep(["hat", "glasses & smile"], weights=[0, 3], n=2)
            >>> [(formula, len(weights), weights[1].images.shape) for formula, weights in rows.items()]
            [('hat', 2, (2, 64, 64, 3)), ('glasses & smile', 2, (2, 64, 64, 3))]
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
        own = [self]
        if weights is not None:
            settings = [replace(self.guidance, single=w, several=w, beyond=w) for w in map(float, weights)]
            own = [replace(self, guidance=guidance) for guidance in settings]
        seeds, asked = _seeds(n, seed), {text: parse(text, self.schema) for text in formulas}
        for formula in asked.values():
            self.term(formula)  # refuses before anything is sampled
        plans = [one.plan(formula) for formula in asked.values() for one in own]
        drawn = zip(self.draw_each(plans, seeds), own * len(asked), strict=True)
        samples = [Samples(draw, self.decode(draw.z_0), seeds, one) for draw, one in drawn]
        return {text: samples[k * len(own) : (k + 1) * len(own)] for k, text in enumerate(asked)}

    def read(self, text: str, synonyms: Mapping[str, str] | None = None, strict: bool = True) -> Reading:
        """What a description in English means, for `generate`, with what became of every word.

        Args:
            text: such as `a smiling person with glasses and no beard`.
            synonyms: phrases of your own and the formulas they stand for.
            strict: whether words that are not understood are refused; else the reading lists them.

        Raises:
            ValueError: a word is not understood, or the text says nothing about an attribute or contradicts itself.

        Example:
            >>> pipeline.read("a smiling person with glasses and no beard")
            Reading('a smiling person with glasses and no beard' is read as smile & glasses & ~beard)
            >>> pipeline.generate(pipeline.read("somebody with a hat"), n=1).formula
            Formula('hat')
        """
        return read(text, self.schema, synonyms, strict)

    def attributes(self, images: Images) -> Beliefs:
        """What the classifier reads in images, every attribute by its name.

        Args:
            images: one or several, as `as_pixels` takes them.

        Raises:
            TypeError, ValueError, FileNotFoundError: as `as_pixels`.

        Example:
            >>> read = pipeline.attributes(pipeline.generate("hat & smile", n=2))
            >>> (read["hat"] > 0.5).tolist(), read["hair_color"].shape
            ([True, True], (2, 5))
            >>> read.likely(0)["smile"]
            'smile'
        """
        pixels, z_0, _ = self._sources(images)
        t = torch.full((len(z_0),), self.sampling.t_end, dtype=z_0.dtype, device=z_0.device)
        with torch.no_grad():
            return Beliefs.of(self.schema, independent(self.classifier(z_0, t)), pixels)

    def _formula(self, formula: str | Formula | Reading) -> Formula:
        if isinstance(formula, Reading):
            return formula.formula
        if isinstance(formula, Formula):
            return formula
        if not isinstance(formula, str):
            raise TypeError(f"`formula` must be text such as 'glasses & ~beard', got {type(formula).__name__}")
        return parse(formula, self.schema)

    # --- editing ---

    def edit(self, images: Images, *edits: str, strength: float | Tensor | None = None) -> Edits:
        """Edits images one attribute after another.

        Args:
            images: one or several, as `as_pixels` takes them; samples are edited without a detour through the encoder.
            edits: such as `+glasses`, `-hat`, `hair_color=red`, or `age=0.7` of a continuous attribute.
            strength: how far to go, from 0, the source, to 1; one number or one per image, None for that of `editing`.

        Returns:
            The reconstructions, then the images after each edit, each (N, H, W, C); and more about them.

        Raises:
            TypeError, ValueError, FileNotFoundError: as `as_pixels`.
            ValueError: an edit cannot be read, the strength is out of range, or the prior is a distilled one.

        Example:
            >>> samples = pipeline.generate("glasses & ~beard & ~smile", n=2)
            >>> edits = pipeline.edit(samples, "+smile", "-glasses")
            >>> edits
            Edits(2 images of 64x64: +smile (took in 2 of 2), -glasses (took in 2 of 2))
            >>> reconstruction, smiling, without_glasses = edits
            >>> edits.strip(scale=1).size
            (196, 159)
        """
        self.editor()  # refuses before work
        pixels, z_0, code = self._sources(images)
        latents = [z_0, *(result.z_0 for result in self.edit_latents(z_0, edits, strength=strength))]
        strength = self.editing.strength if strength is None else strength
        return self._edits(latents, edits, strength, code, pixels)

    def frames(self, session: EditSession) -> Edits:
        """The sources of a session and what each of its steps made of them, decoded.

        Example:
            >>> session = pipeline.session(pipeline.generate("glasses & ~smile", n=1)).add("+smile").add("+hat")
            >>> pipeline.frames(session).steps
            ('+smile', '+hat')
        """
        steps = [step.text for step in session.steps]
        strength = self.editing.strength if session.strength is None else session.strength
        return self._edits(session.frames(), steps, strength, session.code, None)

    def _edits(
        self,
        latents: Sequence[Tensor],
        steps: Sequence[str],
        strength: float | Tensor,
        code: Tensor | None,
        sources: NDArray[np.uint8] | None,
    ) -> Edits:
        frames = tuple(self.decode(z_0, code=code) for z_0 in latents)
        strength = strength if isinstance(strength, Tensor) else float(strength)
        return Edits(frames, tuple(latents), tuple(steps), sources, strength, self, code)

    # --- how it shows itself ---

    def __repr__(self) -> str:
        kind = "distilled prior" if self.distilled else "prior"
        return (
            f"Pipeline({self._made_by}; {kind} and classifiers of {len(self.schema)} attributes over latents of "
            f"{self._latent}, on {self.device})"
        )

    @property
    def _made_by(self) -> str:
        _, height, width = self.generator.image_shape
        return f"{type(self.generator).__name__}, {width}x{height}"

    @property
    def _latent(self) -> str:
        return " x ".join(map(str, self.denoiser.latent_shape))

    def _repr_html_(self) -> str:
        counts = [sum(p.numel() for p in net.parameters()) for net in (self.denoiser, self.classifier)]
        sizes = [f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} k" for count in counts]
        prior = "distilled prior" if self.distilled else "prior"
        rows = [
            ("generator", escape(f"{self._made_by}, latents of {self._latent}")),
            (prior, escape(f"{sizes[0]} parameters")),
            ("classifiers", escape(f"{sizes[1]} parameters, {len(self.schema)} attributes")),
            ("sampling", escape(f"{self.sampling.sampler}, {self.sampling.steps} steps, on {self.device}")),
        ]
        names = " ".join(code(name) for name in self.schema.names)
        return block(strong("Pipeline"), table(("", ""), rows), f'<div style="max-width:72ch">{names}</div>')


@overload
def load(
    prior: str | PathLike[str] = ...,
    *,
    generator: Generator | None = ...,
    device: torch.device | str = ...,
    execution: Execution | None = ...,
    sampling: Sampling = ...,
    guidance: Guidance = ...,
    editing: Editing = ...,
    inversion: Inverting = ...,
) -> Pipeline: ...
@overload
def load(
    prior: str | PathLike[str],
    classifier: str | PathLike[str] | None,
    generator: Generator | None = ...,
    device: torch.device | str = ...,
    execution: Execution | None = ...,
    *,
    sampling: Sampling = ...,
    guidance: Guidance = ...,
    editing: Editing = ...,
    inversion: Inverting = ...,
) -> Pipeline: ...
def load(
    prior: str | PathLike[str] = PRIOR,
    classifier: str | PathLike[str] | None = None,
    generator: Generator | None = None,
    device: torch.device | str = "cpu",
    execution: Execution | None = None,
    **settings: Any,
) -> Pipeline:
    """Loads networks and checks that they fit together.

        lcg.load("avatars")                       # the model that comes with lcg
        lcg.load()                                # what `make demo` trained
        lcg.load("mine")                          # an exported model, by name or folder
        lcg.load("prior.ckpt", "classifier.ckpt")

    Args:
        prior: checkpoint of the prior; or an exported model, its name where it comes without `classifier`.
        classifier: checkpoint of the classifiers, or an exported model; None for those of the model in the place of
            `prior`, or those of the demo.
        generator: the frozen generator, put into evaluation mode; None for the embedded one.
        device: where everything goes: cpu, cuda, or auto, which is cuda where there is one.
        execution: by which kernels and in which precision prior and classifier run; None for the fastest, in float32.
        settings: `sampling`, `guidance`, `editing`, `inversion` of the pipeline.

    Raises:
        TypeError: an argument is something else than the above.
        FileNotFoundError: a checkpoint or a model is missing.
        ValueError: a file is damaged; the networks were trained on different latents or under different schedules, the
            generator is not that of the latents, or the prior is a distilled one and the settings do not suit it; the
            device is not there.

    Example:
        >>> import lcg
        >>> pipeline = lcg.load("avatars", editing=lcg.Editing(strength=0.5))
        >>> pipeline
        Pipeline(AvatarAutoencoder, 64x64; prior and classifiers of 17 attributes over latents of 64, on cpu)
    """
    check_types(prior, classifier, generator, execution, settings)
    place = find_device(device)
    if classifier is None:
        if Path(prior).is_file() or Path(prior).suffix == ".ckpt":
            classifier = CLASSIFIER
        else:
            prior = classifier = find_model(prior)
    p, c = load_networks(prior, classifier, place, distilled=True)
    generator = fitting_generator(generator, p)
    generator = generator.to(place).eval().requires_grad_(False)
    if execution is not None:
        p.network.execution = c.network.execution = execution
    labels, calibrated = c.labels, c.calibration.get("dependence", "independent")
    return Pipeline(generator, p.network, c.network, p.statistics, c.store, labels, calibrated, p.distilled, **settings)


def _seeds(n: int, first: int) -> tuple[int, ...]:
    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}")
    return tuple(range(first, first + n))
