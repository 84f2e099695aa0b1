"""Mean and spread of raw latents, and the standardisation that they define:

    z_0 = (z - mean) / std,        z = mean + std z_0,         element by element,

or, where a store is whitened, with the covariance C of all elements (ZCA, Kessy, Lewin & Strimmer 2018, "Optimal
whitening and decorrelation", section 2)

    z_0 = W (z - mean),            z = mean + W^-1 z_0,        W = U (L + r I)^-1/2 U^T,  C = U L U^T,  r = 1e-6 max L:

of all maps that give unit covariance the symmetric one, W = W^T, moves latents least. r bounds the condition number of
W by 1000, so that float32 can follow; a direction that never varies is standardised to 0, as a constant element is.

The diffusion prior, the classifiers and every weight of guidance live in standardised latents; generators live in raw
ones. This is the only bridge. The moments are merged chunk by chunk in float64 (Chan, Golub & LeVeque 1983, "Algorithms
for computing the sample variance", equation 2.1), in one pass and without the cancellation of E[z^2] - E[z]^2:

    mean <- mean + d n_b / n,    M2 <- M2 + M2_b + d^2 n_a n_b / n,    d = mean_b - mean,  n = n_a + n_b;

for products of two elements d^2 becomes d d^T. Merging in a fixed order gives the same bits whoever did the parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Below this fraction of its mean, the spread of an element is the rounding of float32, not information.
CONSTANT = 1e-6

RIDGE = 1e-6
"""r of whitening, as a fraction of the largest eigenvalue of the covariance."""

MAX_WHITENED = 4096
"""Elements of a latent that can be whitened: the matrices take 128 MiB of float64 there, their roots a minute."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sums of squared deviations of some rows; what statistics are merged from.

    Args:
        count: of rows, >= 1.
        mean: (*latent_shape), float64.
        m2: (*latent_shape), float64; sum of (z - mean)^2.
        products: (D, D), float64, D the elements of a latent; sum of (z - mean)(z - mean)^T. Only whitening needs them.
    """

    count: int
    mean: np.ndarray
    m2: np.ndarray
    products: np.ndarray | None = None

    @classmethod
    def of(cls, rows: np.ndarray, products: bool = False) -> Moments:
        """Of rows (n, *latent_shape), n >= 1.

        Args:
            rows: of any real type.
            products: those of every two elements too.

        Raises:
            ValueError: there is no row, or a latent is too large for products.
        """
        if len(rows) == 0:
            raise ValueError("statistics need at least one latent, got none; append latents first")
        if products:
            check_whitening(rows.shape[1:])
        rows = np.asarray(rows, dtype=np.float64)
        mean = rows.mean(axis=0)
        rows = rows - mean
        flat = rows.reshape(len(rows), -1)
        return cls(len(rows), mean, np.square(rows).sum(axis=0), flat.T @ flat if products else None)

    def merge(self, other: Moments) -> Moments:
        """Of the rows of both; products only where both have them."""
        total = self.count + other.count
        delta = other.mean - self.mean
        weight = self.count * other.count / total
        products = None
        if self.products is not None and other.products is not None:
            flat = delta.reshape(-1)
            products = self.products + other.products + np.outer(flat, flat) * weight
        mean = self.mean + delta * (other.count / total)
        return Moments(total, mean, self.m2 + other.m2 + np.square(delta) * weight, products)


@dataclass(frozen=True, eq=False)
class Whitening:
    """W and its inverse.

    Args:
        matrix: W (D, D), float32, symmetric; D the elements of a latent.
        inverse: of it, the same.

    Raises:
        ValueError: they are not square, of one size, finite and inverse to each other.
    """

    matrix: Tensor
    inverse: Tensor

    def __post_init__(self) -> None:
        shape = self.matrix.shape
        if len(shape) != 2 or shape[0] != shape[1] or self.inverse.shape != shape:
            shapes = f"{tuple(shape)} and {tuple(self.inverse.shape)}"
            raise ValueError(f"`matrix` and `inverse` of a whitening must be square and of one size, got {shapes}")
        if not (torch.isfinite(self.matrix).all() and torch.isfinite(self.inverse).all()):
            raise ValueError("`matrix` and `inverse` of a whitening must be finite; encode the store again")
        # Freivalds' check: one vector, as a product of the matrices would take a minute at 4096 elements.
        probe = torch.ones(shape[0], dtype=torch.float64)
        again = self.matrix.double() @ (self.inverse.double() @ probe)
        if not (again - probe).abs().max() < 0.05:
            raise ValueError("`matrix` and `inverse` of a whitening must be inverse to each other; encode again")

    @classmethod
    def of(cls, moments: Moments) -> Whitening:
        """From moments with products.

        Raises:
            ValueError: the moments have no products.
        """
        if moments.products is None:
            raise ValueError("whitening needs products of elements; take moments with `products=True`")
        values, vectors = np.linalg.eigh(moments.products / moments.count)
        largest = values[-1]
        # Rows that never vary at all have no scale to take a fraction of.
        roots = np.sqrt(np.maximum(values, 0.0) + RIDGE * largest) if largest > 0 else np.ones_like(values)
        return cls(_float32((vectors / roots) @ vectors.T), _float32((vectors * roots) @ vectors.T))


@dataclass(frozen=True, eq=False)
class Statistics:
    """Element-wise mean and standard deviation of the raw latents of a store, and their whitening if there is one.

    Args:
        mean: (*latent_shape), float32.
        std: (*latent_shape), float32, positive; 1 for an element that never varies, so that it is standardised to 0.
        whitening: replaces division by std.

    Raises:
        ValueError: shapes differ, a value is not finite, or a standard deviation is not positive.
    """

    mean: Tensor
    std: Tensor
    whitening: Whitening | None = None

    def __post_init__(self) -> None:
        if self.mean.shape != self.std.shape:
            shapes = f"{tuple(self.mean.shape)} and {tuple(self.std.shape)}"
            raise ValueError(f"`mean` and `std` must have one shape, got {shapes}")
        if not (torch.isfinite(self.mean).all() and torch.isfinite(self.std).all()):
            raise ValueError("`mean` and `std` must be finite; encode the store again")
        if not (self.std > 0).all():
            raise ValueError(f"`std` must be positive, got {self.std.min().item()}; use 1 for a constant element")
        if self.whitening is not None and len(self.whitening.matrix) != self.mean.numel():
            elements = f"{self.mean.numel()} elements, got {len(self.whitening.matrix)}"
            raise ValueError(f"`whitening` must be of latents of {elements}; encode the store again")

    @classmethod
    def of(cls, chunks: Iterable[np.ndarray], whiten: bool = False) -> Statistics:
        """Statistics of all rows of all chunks, each (n, *latent_shape), in one pass.

        Raises:
            ValueError: there is no row, or a latent is too large to be whitened.
        """
        parts = (Moments.of(chunk, products=whiten) for chunk in chunks if len(chunk))
        first = next(parts, None)
        if first is None:
            raise ValueError("statistics need at least one latent, got none; append latents first")
        return cls.from_moments(reduce(Moments.merge, parts, first), whiten)

    @classmethod
    def from_moments(cls, moments: Moments, whiten: bool = False) -> Statistics:
        """Statistics of the rows that the moments are of.

        Raises:
            ValueError: whitening is asked for and the moments have no products.
        """
        std = np.sqrt(moments.m2 / moments.count)
        std = np.where(std <= CONSTANT * np.abs(moments.mean), 1.0, std)
        # A spread below float32's smallest number would round to 0 in the cast.
        std = np.where(std < np.finfo(np.float32).tiny, 1.0, std)
        return cls(_float32(moments.mean), _float32(std), Whitening.of(moments) if whiten else None)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent, without the batch."""
        return tuple(self.mean.shape)

    def standardise(self, z: Tensor) -> Tensor:
        """Raw latents z (B, *latent_shape) to z_0, same shape, type and device."""
        if self.whitening is not None:
            return ((z - self.mean.to(z)).flatten(1) @ self.whitening.matrix.to(z)).view(z.shape)
        return (z - self.mean.to(z)) / self.std.to(z)

    def restore(self, z_0: Tensor) -> Tensor:
        """Standardised latents z_0 (B, *latent_shape) to raw z, same shape, type and device; inverts `standardise`."""
        if self.whitening is not None:
            return self.mean.to(z_0) + (z_0.flatten(1) @ self.whitening.inverse.to(z_0)).view(z_0.shape)
        return self.mean.to(z_0) + self.std.to(z_0) * z_0

    def to_dict(self) -> dict[str, Any]:
        """Mean and std as JSON primitives, exact: float32 survives the way through decimal float64.

        `from_dict` is the inverse; a whitening has a file of its own.
        """
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_dict(cls, entries: object) -> Statistics:
        """Raises ValueError for anything but {"mean": nested lists of numbers, "std": the same shape}."""
        if not isinstance(entries, Mapping) or set(entries) != {"mean", "std"}:
            raise ValueError(f"statistics must be {{'mean': ..., 'std': ...}}, got {_brief(entries)}")
        try:
            _only_numbers(entries["mean"], entries["std"])  # numpy would read texts and truths as numbers
            mean, std = (_float32(np.array(entries[name], dtype=np.float64)) for name in ("mean", "std"))
            return cls(mean, std)
        except (TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"statistics must be nested lists of numbers: {error}") from error


def check_whitening(latent_shape: tuple[int, ...]) -> None:
    """Raises ValueError when latents of this shape have too many elements to be whitened."""
    elements = math.prod(latent_shape)
    if elements > MAX_WHITENED:
        raise ValueError(
            f"whitening takes latents of at most {MAX_WHITENED} elements, these {list(latent_shape)} have {elements}; "
            "leave it off, the element-wise standardisation has no bound"
        )


def _float32(values: np.ndarray) -> Tensor:
    with np.errstate(over="ignore"):  # an overflow becomes inf, which the constructor refuses by name
        return torch.from_numpy(np.array(values, dtype=np.float32))


def _only_numbers(*values: object) -> None:
    for value in values:
        if isinstance(value, list):
            _only_numbers(*value)
        elif type(value) not in (int, float):
            raise TypeError(f"got {_brief(value)}")


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
