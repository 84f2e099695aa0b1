"""The contract of a generator: a frozen map from a latent with meaning to an image,

    x = decode(z),      z = encode(x) where there is an inverse,

with x in [-1, 1] and z raw, in whatever scale the generator was trained with. Standardisation belongs to the latent
store (`lcg.data.statistics`) and to nothing else. lcg never trains a generator through this contract.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


class Generator(nn.Module, ABC):
    """Base of all generators. A subclass sets the two shapes and implements `decode`, and `encode` where it has one.

    Attributes:
        latent_shape: shape of one latent without the batch, such as (64,) or (18, 512).
        image_shape: (C, H, W) of one image, C = 3, RGB.

    Example:
        >>> class Grey(Generator):  # its latent is the brightness of an image
        ...     latent_shape, image_shape = (1,), (3, 8, 8)
        ...     def decode(self, z):
        ...         return z.tanh()[:, :, None, None].expand(-1, 3, 8, 8)
        ...     def encode(self, x):
        ...         return x.mean((1, 2, 3))[:, None].atanh()
        ...
        >>> generator = Grey()
        >>> x_to_pixels(generator.decode(torch.zeros(1, 1)))[0, 0, 0].tolist()
        [128, 128, 128]
        >>> round(generator.encode(generator.decode(torch.tensor([[0.5]]))).item(), 4)
        0.5
    """

    latent_shape: tuple[int, ...]
    image_shape: tuple[int, int, int]

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Images of latents.

        Args:
            z: raw latents (B, *latent_shape).

        Returns:
            x (B, C, H, W) in [-1, 1].
        """

    def encode(self, x: Tensor) -> Tensor:
        """Latents of images; optional.

        Args:
            x: images (B, C, H, W) in [-1, 1].

        Returns:
            Raw latents (B, *latent_shape).

        Raises:
            NotImplementedError: this generator has no encoder.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no encoder, so images cannot become latents; "
            "use a generator that has one, or fill the store from `sample_latents` and labels of the decoded images"
        )

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Raw latents (n, *latent_shape) from the generator's own prior; optional.

        Raises:
            NotImplementedError: this generator has no prior of its own.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no prior of its own; encode images and fit one on their latents with `lcg fit`"
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are, and latents and images have to be."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    def latents_sha256(self) -> str:
        """Names whose latents `decode` takes: the weights, but for adapters that take those of another generator."""
        return weights_sha256(self)

    def identity(self) -> dict[str, Any]:
        """What this generator is, in JSON primitives: equal identities give equal latents for equal images."""
        return {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            "latent_shape": list(self.latent_shape),
            "image_shape": list(self.image_shape),
            "weights_sha256": weights_sha256(self),
        }


class StochasticGenerator(Generator):
    """A generator whose latent does not hold all of an image: the rest is in a code of the image's own,

        x = decode(z, stochastic_code(x, z)),      x' = decode(z', stochastic_code(x, z)) where z' is an edit of z.

    Without a code `decode` uses one that is always the same, so that it is a function of the latent alone.

    Attributes:
        code_shape: shape of one code without the batch, such as (3, 64, 64).
    """

    code_shape: tuple[int, ...]

    @abstractmethod
    def decode(self, z: Tensor, code: Tensor | None = None) -> Tensor:
        """Images of latents.

        Args:
            z: raw latents (B, *latent_shape).
            code: (B, *code_shape), what `stochastic_code` gave for the image that is edited; None for the fixed one.

        Returns:
            x (B, C, H, W) in [-1, 1].
        """

    @abstractmethod
    def stochastic_code(self, x: Tensor, z: Tensor) -> Tensor:
        """What the latents of images leave out.

        Args:
            x: images (B, C, H, W) in [-1, 1].
            z: their raw latents (B, *latent_shape).

        Returns:
            (B, *code_shape), with which `decode` gives x again, as nearly as the generator can.
        """


def latents_sha256_of(identity: Mapping[str, Any]) -> str:
    """`Generator.latents_sha256` as an identity tells it; empty where it does not."""
    return str(identity.get("latents_sha256", identity.get("weights_sha256", "")))


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of a module's parameters and buffers, on whatever device they are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def normal_latents(of: Generator, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Latents (n, *latent_shape) from N(0, I), the prior of most GANs, on the device of the weights."""
    device = "cpu" if generator is None else generator.device
    return torch.randn(n, *of.latent_shape, generator=generator, device=device).to(of.device)


def pixels_to_x(pixels: Tensor) -> Tensor:
    """uint8 pixels (B, H, W, C), as image files have them, to x (B, C, H, W) float32 in [-1, 1].

    Raises:
        ValueError: the pixels are not four-dimensional.
        TypeError: they are not uint8.
    """
    if pixels.dtype != torch.uint8:
        raise TypeError(f"`pixels` must be uint8 in [0, 255], got {pixels.dtype}; round and cast them first")
    if pixels.ndim != 4:
        raise ValueError(f"`pixels` must be (B, H, W, C), got shape {tuple(pixels.shape)}")
    return pixels.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0


def x_to_pixels(x: Tensor) -> Tensor:
    """x (B, C, H, W) in [-1, 1] to uint8 pixels (B, H, W, C), rounded; what lies outside is clamped.

    Raises:
        ValueError: x is not four-dimensional.
    """
    if x.ndim != 4:
        raise ValueError(f"`x` must be (B, C, H, W), got shape {tuple(x.shape)}")
    return ((x.detach().to(torch.float32) + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
