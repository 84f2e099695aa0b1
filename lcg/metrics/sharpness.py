"""Ghosts: samples that are near no real one.

A double exposure of two people satisfies an attribute classifier and lies between real images in feature space, where
neither accuracy nor Frechet distance sees it. But its latent is far from every real latent,

    d(z) = min_i |z - z_i|,      ghost:  d(z) > c,      c = the distance that 99 % of held-out real latents stay within.

This is the precision of Kynkaanniemi et al. 2019 (arXiv:1904.06991, section 2) with one radius for all real latents,
which held-out ones calibrate to one false alarm in a hundred. It is one-sided: a copy of a real image is as sharp as
can be.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

PAIRS = 2**24
"""Distances computed at once: 128 MiB of float64."""


@dataclass(frozen=True, eq=False)
class NearestReal:
    """Tells samples that are near a real one from ghosts.

    Args:
        real_latents: (M, *latent) of real images, also of those whose combination of attributes the prior never saw.
        threshold: the largest distance that counts as near, in the latents' unit.

    Raises:
        ValueError: no latents, latents that are not finite, or a threshold that is not positive and finite.
    """

    real_latents: Tensor
    threshold: float

    def __post_init__(self) -> None:
        _check_real(self.real_latents, "real_latents")
        if not 0 < self.threshold < float("inf"):
            raise ValueError(
                f"`threshold` must be positive and finite, got {self.threshold}; `NearestReal.calibrate` finds one "
                "from held-out latents, which must not be among the reference"
            )

    @classmethod
    def calibrate(
        cls,
        reference: Float[Tensor, "m *latent"],
        held_out: Float[Tensor, "k *latent"],
        quantile: float = 0.99,
    ) -> "NearestReal":
        """The threshold that a share of held-out real latents meets.

        Args:
            reference: (M, *latent) real latents to be near to.
            held_out: (K, *latent) other real latents, drawn in the same way.
            quantile: the share, in (0, 1]; the smallest threshold that at least this share meets is taken.

        Returns:
            The calibrated test.

        Raises:
            ValueError: a quantile out of range, latents that are missing, not finite or of different shapes, or
                held-out latents that are among the reference.
        """
        if not 0 < quantile <= 1:
            raise ValueError(f"`quantile` must be in (0, 1], got {quantile}")
        _check_real(held_out, "held_out")
        _check_real(reference, "reference")
        distance = nearest_distance(held_out, reference)
        return cls(reference, float(distance.kthvalue(math.ceil(quantile * len(distance))).values))

    def distance(self, z: Float[Tensor, "batch *latent"]) -> Float[Tensor, " batch"]:
        """Distance of each latent (B, *latent) to the nearest real one, (B,); see `nearest_distance`."""
        return nearest_distance(z, self.real_latents)

    def near(self, z: Float[Tensor, "batch *latent"]) -> Bool[Tensor, " batch"]:
        """Whether each latent (B, *latent) is no further from a real one than the threshold; one with NaN is not."""
        return self.distance(z) <= self.threshold


def nearest_distance(z: Float[Tensor, "batch *latent"], real: Float[Tensor, "m *latent"]) -> Float[Tensor, " batch"]:
    """min_i |z - z_i|, in chunks of bounded memory.

    Args:
        z: (B, *latent).
        real: (M, *latent) on the same device.

    Returns:
        (B,) float64, not finite for a latent that is not finite.

    Raises:
        ValueError: latents of different shapes.
    """
    if z.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"`z` must be latents of shape {tuple(real.shape[1:])}, as the real ones are, got {tuple(z.shape[1:])}"
        )
    real = real.detach().flatten(1).double()
    squares = real.square().sum(1)
    distances = []
    for part in z.detach().flatten(1).double().split(max(1, PAIRS // len(real))):
        # |z - z_i|^2 less |z|^2, as a matrix product: exact enough to find the nearest, whose distance is then exact.
        nearest = torch.addmm(squares, part, real.T, alpha=-2).argmin(dim=1)
        distances.append((part - real[nearest]).square().sum(1).sqrt())
    return torch.cat(distances)


def _check_real(z: Tensor, name: str) -> None:
    if z.ndim < 2 or not len(z):
        raise ValueError(f"`{name}` must be at least one latent, (M, *latent), got shape {tuple(z.shape)}")
    if not bool(z.isfinite().all()):
        raise ValueError(f"`{name}` must be finite, got NaN or infinity")
