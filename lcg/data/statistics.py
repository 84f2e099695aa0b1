"""Mean and standard deviation of raw latents, and the standardisation that they define:

    z_0 = (z - mean) / std,        z = mean + std z_0,         element by element.

The diffusion prior, the classifiers and every weight of guidance live in standardised latents; generators live in raw
ones. This is the only bridge. The moments are merged chunk by chunk in float64 (Chan, Golub & LeVeque 1983, "Algorithms
for computing the sample variance", equation 2.1), in one pass and without the cancellation of E[z^2] - E[z]^2:

    mean <- mean + d n_b / n,    M2 <- M2 + M2_b + d^2 n_a n_b / n,    d = mean_b - mean,  n = n_a + n_b.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Below this fraction of its mean, the spread of an element is the rounding of float32, not information.
CONSTANT = 1e-6


@dataclass(frozen=True, eq=False)
class Statistics:
    """Element-wise mean and standard deviation of the raw latents of a store.

    Args:
        mean: (*latent_shape), float32.
        std: (*latent_shape), float32, positive; 1 for an element that never varies, so that it is standardised to 0.

    Raises:
        ValueError: shapes differ, a value is not finite, or a standard deviation is not positive.
    """

    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        if self.mean.shape != self.std.shape:
            shapes = f"{tuple(self.mean.shape)} and {tuple(self.std.shape)}"
            raise ValueError(f"`mean` and `std` must have one shape, got {shapes}")
        if not (torch.isfinite(self.mean).all() and torch.isfinite(self.std).all()):
            raise ValueError("`mean` and `std` must be finite; encode the store again")
        if not (self.std > 0).all():
            raise ValueError(f"`std` must be positive, got {self.std.min().item()}; use 1 for a constant element")

    @classmethod
    def of(cls, chunks: Iterable[np.ndarray]) -> Statistics:
        """Statistics of all rows of all chunks, each (n, *latent_shape), in one pass.

        Raises:
            ValueError: there is no row.
        """
        count, mean, m2 = 0, np.zeros(()), np.zeros(())
        for chunk in chunks:
            if len(chunk) == 0:
                continue
            rows = np.asarray(chunk, dtype=np.float64)
            chunk_mean = rows.mean(axis=0)
            chunk_m2 = np.square(rows - chunk_mean).sum(axis=0)
            total = count + len(rows)
            delta = chunk_mean - mean
            mean = mean + delta * (len(rows) / total)
            m2 = m2 + chunk_m2 + np.square(delta) * (count * len(rows) / total)
            count = total
        if count == 0:
            raise ValueError("statistics need at least one latent, got none; append latents first")
        std = np.sqrt(m2 / count)
        std = np.where(std <= CONSTANT * np.abs(mean), 1.0, std)
        # A spread below float32's smallest number would round to 0 in the cast.
        std = np.where(std < np.finfo(np.float32).tiny, 1.0, std)
        return cls(_float32(mean), _float32(std))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return tuple(self.mean.shape)

    def standardise(self, z: Tensor) -> Tensor:
        """Raw latents z (B, *latent_shape) to z_0, same shape, type and device."""
        return (z - self.mean.to(z)) / self.std.to(z)

    def restore(self, z_0: Tensor) -> Tensor:
        """Standardised latents z_0 (B, *latent_shape) to raw z, same shape, type and device; inverts `standardise`."""
        return self.mean.to(z_0) + self.std.to(z_0) * z_0

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives, exact: float32 survives the way through decimal float64. `from_dict` is the inverse."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Statistics:
        """Raises ValueError for anything but {"mean": nested lists of numbers, "std": the same shape}."""
        if not isinstance(entries, Mapping) or set(entries) != {"mean", "std"}:
            raise ValueError(f"statistics must be {{'mean': ..., 'std': ...}}, got {_brief(entries)}")
        try:
            return cls(*(_float32(np.array(entries[name], dtype=np.float64)) for name in ("mean", "std")))
        except (TypeError, OverflowError) as error:
            raise ValueError(f"statistics must be nested lists of numbers: {error}") from error


def _float32(values: np.ndarray) -> Tensor:
    with np.errstate(over="ignore"):  # an overflow becomes inf, which the constructor refuses by name
        return torch.from_numpy(np.array(values, dtype=np.float32))


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
