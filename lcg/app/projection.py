"""The gallery's latents in the plane, and how well an attribute is separated.

PCA takes the two directions in which standardised latents vary most: distances in the plane are shadows of those in
latent space. t-SNE (van der Maaten & Hinton 2008, "Visualizing data using t-SNE") keeps neighbours together and says
nothing about distances between groups.

Separation is a vote of the K nearest neighbours of each row in all of latent space, every value's votes divided by how
often it occurs: the mean over values of how often the vote is right, a, above chance 1/C, (a - 1/C) / (1 - 1/C). Of a
number it is the share of its variance that the neighbours' mean explains.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lcg.schema import Attribute

NEIGHBOURS = 10
LEAST = 5
"""Rows of a value, below which it has no say in how separated an attribute is."""

Rows = NDArray[np.float32]


def pca(z: Rows) -> tuple[Rows, float]:
    """Rows (N, D) in the plane (N, 2), each axis in [-1, 1], and the share of the variance that it shows."""
    centred = z - z.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2] * np.where(directions[:2].sum(1, keepdims=True) < 0, -1, 1)  # the same on any machine
    shares = singular**2 / max(float((singular**2).sum()), 1e-12)
    return scaled(_two(centred @ directions.T)), float(shares[:2].sum())


def tsne(z: Rows, seed: int = 0) -> Rows:
    """Rows (N, D) in the plane (N, 2) by t-SNE from the positions of PCA, each axis in [-1, 1]."""
    from sklearn.manifold import TSNE

    perplexity = max(1.0, min(30.0, (len(z) - 1) / 3))
    return scaled(TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(z).astype(np.float32))


def scaled(xy: Rows) -> Rows:
    """The rows with the middle of the plane at 0 and each axis within [-1, 1]."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    return ((xy - (low + high) / 2) / np.maximum((high - low) / 2, 1e-12)).astype(np.float32)


def neighbours(z: Rows, count: int = NEIGHBOURS) -> NDArray[np.int64]:
    """(N, count) the nearest other rows of each."""
    square = (z**2).sum(1)
    distances = square[:, None] + square - 2 * (z @ z.T)
    np.fill_diagonal(distances, np.inf)
    count = min(count, len(z) - 1)
    return np.argpartition(distances, count - 1, axis=1)[:, :count] if count > 0 else np.zeros((len(z), 0), np.int64)


def separation(attribute: Attribute, labels: Rows, near: NDArray[np.int64]) -> float:
    """How well an attribute is separated, 0 (mixed) to 1 (apart); NaN where too few rows tell.

    Args:
        attribute: of which.
        labels: (N,), NaN where unknown or where it does not apply.
        near: (N, K) from `neighbours`.
    """
    known = ~np.isnan(labels)
    if attribute.kind == "continuous":
        return _explained(labels, near)
    values = [v for v in np.unique(labels[known]) if (labels == v).sum() >= LEAST]
    if len(values) < 2 or near.shape[1] == 0:
        return float("nan")
    votes = np.stack([(labels[near] == v).sum(1) / (labels == v).sum() for v in values], axis=1)
    told = np.array(values)[votes.argmax(1)]
    heard = votes.sum(1) > 0  # some neighbours' labels are known
    heard_of = [heard & (labels == v) for v in values]
    right = np.mean([(told[rows] == v).mean() if rows.any() else 0.0 for v, rows in zip(values, heard_of, strict=True)])
    chance = 1 / len(values)
    return float(np.clip((right - chance) / (1 - chance), 0, 1))


def _explained(labels: Rows, near: NDArray[np.int64]) -> float:
    around = np.ma.masked_invalid(labels[near]).mean(axis=1).filled(np.nan)
    known = ~np.isnan(labels) & ~np.isnan(around)
    if known.sum() < LEAST or labels[known].var() == 0:
        return float("nan")
    return float(np.clip(1 - ((labels - around)[known] ** 2).mean() / labels[known].var(), 0, 1))


def _two(xy: Rows) -> Rows:
    """Two columns, of which the second is 0 where latents have one element only."""
    return xy if xy.shape[1] == 2 else np.concatenate([xy, np.zeros_like(xy)], axis=1)
