"""Relative representations: latents as their cosines with anchors, a space that generators share.

    r_k(z) = cos(z - c, a_k - c),        a_k = encode(x_k),  c = mean of the anchors,  k = 1..K

(Moschella et al. 2023, "Relative representations enable zero-shot latent space communication", arXiv:2209.15430,
equation 2). The images x_k are the same for every generator, its latents a_k of them are its own. Where one space is
a rotated, shifted and scaled image of another, both have the same r; spaces of separate trainings come near to that. So
prior and classifiers trained on r through one generator drive every other that has seen the anchors, without a pair.

The way back solves A d = r for the direction d, A the anchors' directions (K, D), by regularised least squares, and
gives it the mean norm of the anchors, as cosines forget the norm (Maiorca et al. 2024, arXiv:2406.15057):

    z = c + mean_k |a_k - c| d / |d|,        d = (A^T A + lambda s^2 I)^-1 A^T r,   s the largest singular value of A.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcg.data.source import ImageSource
from lcg.generators.base import Generator, pixels_to_x, weights_sha256
from lcg.transfer.solvers import regularised


class RelativeRepresentation(nn.Module):
    """Cosines with anchors, and the way back.

    Args:
        anchors: raw latents (K, *latent_shape), finite, K >= 2.
        strength: lambda >= 0 of the way back.

    Raises:
        ValueError: there is no second anchor, one is not finite or all are alike, or `strength` is negative.
    """

    centre: Tensor
    directions: Tensor
    solution: Tensor
    norm: Tensor

    def __init__(self, anchors: Tensor, strength: float = 1e-4) -> None:
        super().__init__()
        if strength < 0:
            raise ValueError(f"`strength` must be >= 0, got {strength}; 0 is the pseudo-inverse")
        if len(anchors) < 2 or not bool(torch.isfinite(anchors).all()):
            raise ValueError(f"`anchors` must be at least two finite latents, got {len(anchors)}; give more or others")
        self.latent_shape = tuple(anchors.shape[1:])
        flat = anchors.detach().flatten(1)
        centred = flat - flat.mean(0)
        norms = centred.norm(dim=1)
        if not bool((norms > 0).all()):
            raise ValueError("`anchors` must not lie at their own mean, where cosines are undefined; give other images")
        directions = (centred / norms[:, None]).double()
        self.register_buffer("centre", flat.mean(0))
        self.register_buffer("directions", directions.to(flat))
        self.register_buffer("solution", regularised(directions, strength).to(flat))
        self.register_buffer("norm", norms.mean())

    def forward(self, z: Tensor) -> Tensor:
        """r (B, K) in [-1, 1] of raw latents z (B, *latent_shape)."""
        return functional.normalize(z.flatten(1) - self.centre, dim=1) @ self.directions.T

    def inverse(self, r: Tensor) -> Tensor:
        """Raw latents (B, *latent_shape) of the mean norm with these cosines r (B, K), as nearly as can be."""
        direction = functional.normalize(r @ self.solution.T, dim=1)
        return (self.centre + self.norm * direction).unflatten(1, self.latent_shape)


class RelativeGenerator(Generator):
    """A generator whose latents are its own ones' cosines with anchors: of one kind for all generators.

    Encode a store with one, fit prior and classifiers on it, and load them with another: of the same anchors.

    Args:
        generator: what draws, with an encoder; frozen.
        anchors: images whose first `count` are the anchors.
        count: K; at least as many as the generator's latent has elements, or something of every latent is lost.
        strength: lambda of the way back.

    Raises:
        ValueError: there are fewer images than `count`, of another size, or their latents are no anchors.
        NotImplementedError: the generator has no encoder.
    """

    def __init__(self, generator: Generator, anchors: ImageSource, count: int = 256, strength: float = 1e-4) -> None:
        super().__init__()
        if not 2 <= count <= len(anchors):
            raise ValueError(f"`count` must be 2 to {len(anchors)}, the images in `anchors`, got {count}; change it")
        if tuple(anchors.image_shape) != tuple(generator.image_shape):
            raise ValueError(
                f"`anchors` must be images of shape {tuple(generator.image_shape)}, as the generator's, got "
                f"{tuple(anchors.image_shape)}; resize them"
            )
        self.generator, self.image_shape, self.latent_shape = generator, generator.image_shape, (count,)
        images, _ = anchors.chunk(0, count)
        with torch.no_grad():
            z = torch.cat([generator.encode(pixels_to_x(part)) for part in torch.from_numpy(images).split(256)])
        self.relative = RelativeRepresentation(z, strength)
        self.anchors = {
            "source": anchors.identity(),
            "count": count,
            "sha256": hashlib.sha256(images.tobytes()).hexdigest(),
        }
        self.eval().requires_grad_(False)

    def decode(self, z: Tensor) -> Tensor:
        """Images of cosines with the anchors."""
        return self.generator.decode(self.relative.inverse(z))

    def encode(self, x: Tensor) -> Tensor:
        """Cosines with the anchors."""
        return self.relative(self.generator.encode(x))

    def latents_sha256(self) -> str:
        """Hash of the anchors' images: generators of the same anchors have latents of one kind."""
        return hashlib.sha256(json.dumps(self.anchors, sort_keys=True).encode()).hexdigest()

    def identity(self) -> dict[str, Any]:
        own = {**super().identity(), "generator": self.generator.identity(), "anchors": self.anchors}
        return {**own, "latents_sha256": self.latents_sha256(), "drawn_by_sha256": weights_sha256(self.generator)}
