"""Generators that draw the same in coordinates of their own: latents of one are affine images of the other's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcg.generators.base import Generator
from lcg.schema import Attribute, Schema

PIXELS = 3 * 4 * 2


class Linear(Generator):
    """x = tanh-free linear picture of z: decode(z) = B Q^-1 (z - shift), encode its inverse.

    Args:
        change: (D, D) Q, coordinates of this generator from those of the world.
        shift: (D,).
    """

    image_shape = (3, 4, 2)

    def __init__(self, change: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.latent_shape = (len(shift),)
        basis = torch.linalg.qr(torch.randn(PIXELS, len(shift), generator=rng(99), dtype=torch.float64))[0]
        self.register_buffer("basis", (0.05 * basis).float())
        self.register_buffer("change", change.float())
        self.register_buffer("shift", shift.float())

    def decode(self, z: Tensor) -> Tensor:
        world = (z - self.shift) @ torch.linalg.inv(self.change)
        return (world @ self.basis.T).unflatten(1, self.image_shape)

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ torch.linalg.pinv(self.basis).T @ self.change + self.shift


class Noise:
    """Images of noise whose label is whether the first pixel is bright."""

    schema = Schema((Attribute("bright"), Attribute("which", "categorical", ("a", "b"))))
    image_shape = (3, 4, 2)

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        images = np.random.default_rng(0).integers(64, 192, (self.count, 4, 2, 3), dtype=np.uint8)[start:stop]
        bright = (images[:, 0, 0, 0] > 127).astype(np.float32)
        return images, np.stack([bright, bright], 1)

    def identity(self) -> dict[str, Any]:
        return {"noise": 0}


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotation(size: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=rng(seed), dtype=torch.float64))[0]


def stretched(size: int, seed: int = 0) -> Tensor:
    """An invertible matrix that is no rotation, with condition number 4."""
    scales = torch.linspace(0.5, 2, size, dtype=torch.float64)
    return rotation(size, seed) @ scales.diag() @ rotation(size, seed + 1)
