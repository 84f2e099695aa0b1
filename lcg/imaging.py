"""Between images and standardised latents: a generator, the statistics of its latents, and how images are inverted.

A generator whose latent does not hold all of an image (`StochasticGenerator`) gives images a code beside it. An edit is
decoded with the code of its source, so that it keeps the details of which the latent says nothing; what has no source
is decoded with the generator's own fixed code, and is a function of its latent alone.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg.data.statistics import Statistics
from lcg.editing import Inversion
from lcg.editing.inversion import pixel_distance
from lcg.generators.base import Generator, StochasticGenerator, pixels_to_x, x_to_pixels
from lcg.settings import Inverting


@dataclass(frozen=True)
class Imaging:
    """Decodes and encodes.

    Args:
        generator: frozen, maps raw latents to images.
        statistics: standardise raw latents.
        inversion: how images become latents.
        device: where latents and images go.
    """

    generator: Generator
    statistics: Statistics
    inversion: Inverting
    device: torch.device

    def decode(self, z_0: Tensor, code: Tensor | None = None, batch_size: int = 256) -> NDArray[np.uint8]:
        """Images (N, H, W, C) of standardised latents, with the codes (N, *code) of their sources where there are any.

        Raises:
            ValueError: latents of another shape or not finite, codes that are not one for each, or of a generator
                without codes.
        """
        shape = tuple(self.generator.latent_shape)
        if tuple(z_0.shape[1:]) != shape:
            raise ValueError(
                f"`z_0` must be latents of shape {('N', *shape)} for this generator, got {tuple(z_0.shape)}"
            )
        finite = torch.isfinite(z_0).flatten(1).all(1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise ValueError(
                f"`z_0` must be finite, got NaN or infinity in row {row}; check the weights of the networks"
            )
        parts, generator = z_0.split(batch_size), self.generator
        with torch.no_grad():
            if code is None:
                images = [generator.decode(self.statistics.restore(z)) for z in parts]
            elif not isinstance(generator, StochasticGenerator):
                raise ValueError(
                    f"`code` must be None for {type(generator).__name__}, whose latents hold all of an "
                    "image; leave it out"
                )
            elif len(code) != len(z_0):
                raise ValueError(
                    f"`code` must have a row for each of {len(z_0)} latents, got {len(code)}; give the sources' own"
                )
            else:
                codes = code.to(z_0.device).split(batch_size)
                images = [
                    generator.decode(self.statistics.restore(z), own) for z, own in zip(parts, codes, strict=True)
                ]
        return np.concatenate([x_to_pixels(x).cpu().numpy() for x in images])

    def encode(self, images: NDArray[np.uint8], batch_size: int = 256) -> Tensor:
        """Standardised latents (N, *latent) of images (N, H, W, C).

        Raises:
            TypeError: the images are not uint8.
            ValueError: they have another size than the generator's.
            NotImplementedError: the generator lacks what `inversion` asks for.
        """
        x = self._pixels(images)
        if self.inversion.encodes(self.generator):
            # Not through `invert`, which would decode all of them for the sake of their errors.
            with contextlib.suppress(NotImplementedError), torch.no_grad():
                z = [self.generator.encode(pixels_to_x(part).to(self.device)) for part in x.split(batch_size)]
                return self.statistics.standardise(torch.cat(z))
        return self.statistics.standardise(self._inverted(x).z)

    def invert(self, images: NDArray[np.uint8]) -> Inversion:
        """Raw latents and codes of images, and how well they reproduce them; else as `encode`."""
        inverted = self._inverted(self._pixels(images))
        code = self.code(images, self.statistics.standardise(inverted.z))
        if code is None:
            return inverted
        x = pixels_to_x(torch.from_numpy(images)).to(self.device)
        with torch.no_grad():
            x_hat = self.generator.decode(inverted.z, code)  # type: ignore[call-arg] # it has codes, or there were none
        return replace(inverted, code=code, error=pixel_distance(x_hat, x).sqrt())

    def code(self, images: NDArray[np.uint8], z_0: Tensor, batch_size: int = 256) -> Tensor | None:
        """What standardised latents (N, *latent) leave out of their images (N, H, W, C); None if they hold everything.

        Raises:
            TypeError, ValueError: as `encode`.
        """
        generator = self.generator
        if not isinstance(generator, StochasticGenerator):
            return None
        parts = zip(self._pixels(images).split(batch_size), z_0.to(self.device).split(batch_size), strict=True)
        with torch.no_grad():
            codes = [
                generator.stochastic_code(pixels_to_x(x).to(self.device), self.statistics.restore(z)) for x, z in parts
            ]
        return torch.cat(codes)

    def _inverted(self, pixels: Tensor) -> Inversion:
        return self.inversion.invert(self.generator, pixels_to_x(pixels).to(self.device), self.statistics)

    def _pixels(self, images: NDArray[np.uint8]) -> Tensor:
        channels, height, width = self.generator.image_shape
        if images.shape[1:] != (height, width, channels):
            raise ValueError(
                f"the images must be {height}x{width} with {channels} channels, got {images.shape[1:]}; resize them"
            )
        return torch.from_numpy(
            np.require(images, requirements=["C", "W"])
        )  # torch warns of arrays it may not write to
