"""A generator under trial: what it is tried on, and what it returned, kept so that each check adds little.

Latents are the generator's own where it samples them, or those of given images, or else standard normal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lcg.generators.base import Generator, weights_sha256

TOLERANCE = 1e-3
"""The largest difference that counts as none, in x, whose range is 2, or in standard deviations of latents."""


class Wrong(Exception):
    """A fault: its figure, and how to mend it."""

    def __init__(self, figure: str, advice: str) -> None:
        super().__init__(figure)
        self.figure, self.advice = figure, advice


class Doubtful(Wrong):
    """No fault, but worth a warning."""


class Absent(Exception):
    """Nothing to check, and why."""


@dataclass
class Trial:
    """A generator and what it is tried on; what it returns is kept, so each check adds little.

    Args:
        generator: under trial, frozen.
        build: makes it again; None where only this one exists.
        read: gives images (B, C, H, W) in [-1, 1] of the shape (C, H, W) for encode; None for its own.
        rows: how many latents.
        seed: of the random numbers.
    """

    generator: Generator
    build: Callable[[], Generator] | None = None
    read: Callable[[tuple[int, int, int]], Tensor] | None = None
    rows: int = 16
    seed: int = 0
    weights: str = field(init=False)

    def __post_init__(self) -> None:
        self.weights = weights_sha256(self.generator)

    def draw(self, *shape: int, seed: int = 0) -> Tensor:
        """Standard normal numbers on the generator's device, the same on each."""
        random = torch.Generator().manual_seed(self.seed + seed)
        return torch.randn(*shape, generator=random).to(self.generator.device)

    @cached_property
    def z(self) -> Tensor:
        """Latents: the generator's own where it samples them, or of images, or else standard normal."""
        shape = (self.rows, *self.generator.latent_shape)
        for own in (self._sampled, self._encoded):
            try:
                z = own()
            except Exception:  # it has a check of its own
                continue
            if isinstance(z, Tensor) and z.shape == shape and z.dtype == torch.float32 and bool(z.isfinite().all()):
                return z.detach().to(self.generator.device)
        return self.draw(*shape)

    def _sampled(self) -> Tensor:
        return self.generator.sample_latents(self.rows, torch.Generator().manual_seed(self.seed))

    def _encoded(self) -> Tensor | None:
        if self.images is None:
            return None
        repeated = self.images.repeat(-(-self.rows // len(self.images)), 1, 1, 1)
        return self.encode(repeated[: self.rows])

    @cached_property
    def images(self) -> Tensor | None:
        """Images that were given."""
        return None if self.read is None else self.read(self.generator.image_shape).to(self.generator.device)

    @cached_property
    def scale(self) -> float:
        """Standard deviation of the latents, all elements together; 1 where they do not vary."""
        return float(self.z.std()) or 1.0

    @cached_property
    def wide(self) -> Tensor:
        """The latents, thrice as far from their mean, where guidance may carry them, their mean and zero."""
        mean = self.z.mean(0, keepdim=True)
        return torch.cat([self.z, mean + 3 * (self.z - mean), mean, torch.zeros_like(mean)])

    @cached_property
    def x(self) -> Tensor:
        """Images of the latents."""
        return self.decode(self.z)

    @cached_property
    def x_wide(self) -> Tensor:
        """Images of all latents that are tried."""
        return self.decode(self.wide).float()

    @cached_property
    def source(self) -> Tensor:
        """Images that are encoded: those that were given, or the generator's own."""
        return self.x.clamp(-1, 1) if self.images is None else self.images

    @cached_property
    def encoded(self) -> Tensor:
        """Latents of `source`."""
        return self.encode(self.source)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """As everything but guidance calls it: without a gradient."""
        return self.generator.decode(z)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Raises Absent where there is no encoder."""
        try:
            return self.generator.encode(x)
        except NotImplementedError as error:
            raise Absent("it has no encoder") from error

    def sample(self, seed: int) -> Tensor:
        """Raises Absent where the generator has no prior of its own."""
        try:
            return self.generator.sample_latents(self.rows, torch.Generator().manual_seed(seed))
        except NotImplementedError as error:
            raise Absent("it has no prior of its own") from error


def expect(tensor: Any, shape: tuple[int, ...], call: str, advice: str) -> None:
    """Raises Wrong where this is no tensor of that shape."""
    if not isinstance(tensor, Tensor):
        raise Wrong(f"{call} returns {type(tensor).__name__}", f"Return a torch.Tensor {shape} from it.")
    if tensor.shape != shape:
        raise Wrong(f"{call} returns {tuple(tensor.shape)}, not {shape}", advice)


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference; infinite where there is a NaN."""
    difference = (a.double() - b.double()).abs().max()
    return float(difference) if bool(difference.isfinite()) else float("inf")
