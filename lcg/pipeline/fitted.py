"""A generator, a prior and classifiers that fit together, and the settings that they are used with.

What a `Pipeline` is before it does anything: which latents belong to which statistics, images of latents and latents of
images, and the refusal of networks and settings that do not suit each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg.data.statistics import Statistics
from lcg.editing import Inversion
from lcg.generators.base import Generator
from lcg.guidance import Dependence, Support
from lcg.imaging import Imaging
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.pipeline.given import Images, as_pixels
from lcg.results.samples import Sample, Samples
from lcg.schema import Schema
from lcg.settings import Editing, Guidance, Inverting, Sampling


@dataclass(frozen=True)
class Fitted:
    """Generator, prior and classifier that fit together.

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

    def encode(self, images: Images, batch_size: int = 256, inversion: Inverting | None = None) -> Tensor:
        """Standardised latents of images.

        Args:
            images: one or several, as `as_pixels` takes them.
            batch_size: images that are encoded together.
            inversion: how; None for the pipeline's own setting, by default the encoder where there is one.

        Returns:
            (N, *latent).

        Raises:
            TypeError, ValueError, FileNotFoundError: as `as_pixels`.
            NotImplementedError: the generator lacks what `inversion` asks for.

        Example:
            >>> from lcg.data.avatars import AvatarSource
            >>> z_0 = pipeline.encode(AvatarSource("uniform", count=2, split="test").chunk(0, 2)[0])
            >>> tuple(z_0.shape), pipeline.decode(z_0).shape
            ((2, 64), (2, 64, 64, 3))
        """
        return self._imaging(inversion).encode(self._pixels(images), batch_size)

    def invert(self, images: Images, inversion: Inverting | None = None) -> Inversion:
        """Raw latents of images, and how well they reproduce them; else as `encode`."""
        return self._imaging(inversion).invert(self._pixels(images))

    def code(self, images: NDArray[np.uint8], z_0: Tensor) -> Tensor | None:
        """What standardised latents (N, *latent) leave out of their images, for `decode`; None if nothing.

        Raises:
            TypeError, ValueError: as `encode`.
        """
        return self._imaging().code(images, z_0)

    def _imaging(self, inversion: Inverting | None = None) -> Imaging:
        return Imaging(self.generator, self.statistics, inversion or self.inversion, self.device)

    def _pixels(self, images: Images) -> NDArray[np.uint8]:
        return as_pixels(images, self.generator.image_shape)

    def _sources(self, images: Images) -> tuple[NDArray[np.uint8], Tensor, Tensor | None]:
        """Images as pixels and as latents, and what these leave out; of samples their own latents, which are exact."""
        pixels = self._pixels(images)
        known = self._known(images)
        if known is not None:
            return pixels, known.to(self.device), None
        z_0 = self.encode(pixels)
        return pixels, z_0, self.code(pixels, z_0)

    def _known(self, images: object) -> Tensor | None:
        """The latents (N, *latent) of samples, or a list of them, that were drawn of these networks' latents."""
        if isinstance(images, Samples):
            return images.z_0 if images.pipeline.statistics is self.statistics else None
        if isinstance(images, Sample):
            return self._known(images.samples[images.index : images.index + 1])
        if isinstance(images, (list, tuple)):
            every = [self._known(image) for image in images]
            known = [z_0 for z_0 in every if z_0 is not None]
            return torch.cat(known) if len(known) == len(every) else None
        return None
