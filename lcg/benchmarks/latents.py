"""How the generator's latents lay out the attributes: what any method that steers by them has to work with.

InfoMEC (Hsu et al. 2023, arXiv:2305.18378; see `lcg.metrics.disentanglement`) of real latents with known labels.
Modularity and compactness ask whether single coordinates stand for single attributes, explicitness whether an attribute
is read off linearly, by directions of any kind. The first two are near 0 for latents that nothing has aligned with
attributes, also where the third is near 1 and editing works.

Explicitness is measured on the rows that its probe is fitted to. The more coordinates there are for each row, the more
a probe explains of labels that have nothing to do with its latents: `explicitness_chance`, of the same labels shuffled.
It is about D (values - 1) / (2 N) nats per attribute of N known rows, and all of their entropy when D is near N / 2.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from lcg.benchmarks.figures import Figure
from lcg.metrics.disentanglement import explicitness, infomec
from lcg.schema import Schema

METHOD = "latents"
"""What these figures are of, in `results.csv`."""

ROWS = 2048
"""Latents that are measured: the nearest of each are sought, for every coordinate and attribute."""


def disentanglement_figures(z_0: Tensor, labels: Tensor, schema: Schema, seed: int = 0) -> Iterator[Figure]:
    """Modularity, explicitness and compactness of latents with respect to binary and categorical attributes.

    Args:
        z_0: (N, *latent) latents of real images; each number of one is a coordinate. Of more than `ROWS`, so many are
            drawn.
        labels: (N, A) true labels, NaN where unknown: such rows are left out for that attribute.
        schema: the columns. Continuous attributes are left out, and those that take a single value in the known rows.
        seed: of the rows drawn, the shuffling, and the noise that breaks ties between latents, >= 0.

    Yields:
        `modularity`, `compactness` (each left out where it is not defined: of one attribute, of one coordinate),
        `explicitness`, `explicitness_chance`, `explicitness/ATTR`, and `information/ATTR`, the share of an attribute's
        entropy that its most telling coordinate knows, estimated from neighbours.

    Raises:
        ValueError: labels that are not a row per latent and a column per attribute, no attribute to measure, or latents
            that are constant or not finite.
    """
    if labels.shape != (len(z_0), len(schema)):
        raise ValueError(
            f"`labels` must be ({len(z_0)}, {len(schema)}), a row per latent and a column per attribute, got "
            f"{tuple(labels.shape)}; take those of the same images"
        )
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(z_0))[:ROWS])
    z, y = z_0.flatten(1).cpu().double().numpy()[rows], labels.cpu().double().numpy()[rows]
    names = [a.name for a in schema.of_kind("binary", "categorical") if _varies(y[:, schema.index(a.name)])]
    if not names:
        raise ValueError(
            "`labels` must know a binary or categorical attribute with two values, each in two rows, got none; leave "
            "the task disentanglement out"
        )
    sources = y[:, [schema.index(name) for name in names]]
    found = infomec(z, sources, seed=seed)
    for metric, value in (("modularity", found.modularity), ("compactness", found.compactness)):
        if not np.isnan(value):
            yield Figure(metric, value, n=len(z))
    yield Figure("explicitness", found.explicitness, n=len(z))
    by_chance = explicitness(z, sources[rng.permutation(len(z))])
    yield Figure("explicitness_chance", float(by_chance.mean()), n=len(z))
    told = found.nmi[:, found.active].max(axis=1)
    for metric, shares in (("explicitness", found.explained), ("information", told)):
        for name, share, source in zip(names, shares, sources.T, strict=True):
            yield Figure(f"{metric}/{name}", float(share), n=int((~np.isnan(source)).sum()))


def _varies(values: np.ndarray) -> bool:
    """Whether two values occur twice each."""
    counts = np.unique(values[~np.isnan(values)], return_counts=True)[1]
    return int((counts > 1).sum()) >= 2
