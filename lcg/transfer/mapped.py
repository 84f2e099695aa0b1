"""A generator that takes the latents of another: z_A goes through a learnt map and is decoded by B,

    decode(z_A) = decode_B(map(z_A)),        encode(x) = map^-1(encode_B(x)).

So prior and classifiers that know nothing but latents of A drive B as they are; only the map was learnt. To lcg it is a
generator of A's latents, and says so (`latents_sha256`), while its own identity is that of B and of the map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lcg.generators.base import Generator, weights_sha256
from lcg.transfer.maps import LatentMap


class MappedGenerator(Generator):
    """Draws with `generator` what latents of another generator mean.

    Args:
        generator: B, which draws, frozen.
        map: file of a map from the latents of A to those of B, as `lcg transfer` writes it.

    Raises:
        FileNotFoundError: there is no map.
        ValueError: the file holds none, or one to the latents of another generator than `generator`.
    """

    def __init__(self, generator: Generator, map: str) -> None:
        super().__init__()
        self.generator, self.map = generator, LatentMap.load(map)
        target = self.map.provenance.get("target", {}).get("weights_sha256", "")
        if self.map.target_shape != tuple(generator.latent_shape):
            raise ValueError(
                f"the map {map} leads to latents of shape {self.map.target_shape}, `generator` has "
                f"{tuple(generator.latent_shape)}; give the generator that it was fitted for, or fit one for this"
            )
        if target and target != weights_sha256(generator):
            raise ValueError(
                f"the map {map} leads to the latents of a generator with weights {target[:12]}, `generator` has "
                f"{weights_sha256(generator)[:12]}; give the generator that it was fitted for, or fit one for this"
            )
        self.latent_shape, self.image_shape = self.map.source_shape, generator.image_shape
        self.eval().requires_grad_(False)

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W) that B draws of latents of A."""
        return self.generator.decode(self.map(z))

    def encode(self, x: Tensor) -> Tensor:
        """Latents of A for images; raises as the `encode` of B."""
        return self.map.inverse(self.generator.encode(x))

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Latents of A for draws from the prior of B; raises as that of B."""
        return self.map.inverse(self.generator.sample_latents(n, generator))

    def latents_sha256(self) -> str:
        """Hash of the weights of A, whose latents these are; empty when the map was fitted without knowing them."""
        return str(self.map.provenance.get("source", {}).get("weights_sha256", ""))

    def identity(self) -> dict[str, Any]:
        return {
            **super().identity(),
            "generator": self.generator.identity(),
            "map": self.map.provenance,
            "latents_sha256": self.latents_sha256(),
        }
