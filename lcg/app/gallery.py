"""The gallery: latents with labels that can be looked at, edited and compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcg.data.store import LatentStore
from lcg.nets.heads import predict_labels
from lcg.pipeline import Pipeline
from lcg.schema import Schema

MOST = 2000
"""Rows of a gallery; a larger store is sampled."""
SAMPLED = 512
"""Rows of a gallery that is made of samples."""


@dataclass(frozen=True)
class Gallery:
    """Rows.

    Attributes:
        z_0: (N, *latent) standardised.
        labels: (N, A), NaN where unknown.
        about: where they are from, in a sentence.
        known: whether the labels are known; else they are what the classifier reads.
    """

    z_0: Tensor
    labels: Tensor
    about: str
    known: bool = True

    def __len__(self) -> int:
        return len(self.z_0)

    def ranges(self, schema: Schema) -> dict[str, tuple[float, float]]:
        """Least and greatest label of every continuous attribute of which any is known."""
        found = {}
        for attribute in schema.of_kind("continuous"):
            known = self.labels[:, schema.index(attribute.name)]
            known = known[~known.isnan()]
            if len(known):
                found[attribute.name] = (float(known.min()), float(known.max()))
        return found


def of_store(store: LatentStore, pipeline: Pipeline, seed: int = 0) -> Gallery:
    """The rows of a store, or `MOST` of them drawn by a seed.

    Raises:
        ValueError: its latents are not those of the pipeline's generator.
    """
    if store.latent_shape != tuple(pipeline.denoiser.latent_shape):
        raise ValueError(
            f"{store.path} has latents of shape {store.latent_shape}, the model's have "
            f"{tuple(pipeline.denoiser.latent_shape)}; give a store that the same generator encoded"
        )
    weights = store.provenance.get("generator", {}).get("weights_sha256")
    own = pipeline.generator.latents_sha256()
    if isinstance(weights, str) and own and weights != own:
        raise ValueError(
            f"{store.path} was encoded by a generator with weights {weights[:12]}, the model's has {own[:12]}; "
            "give a store that the same generator encoded"
        )
    rows = np.arange(len(store))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(len(store), MOST, replace=False))
    z_0 = pipeline.statistics.standardise(store.latents(rows).to(pipeline.device))
    labels = columns(store.labels(rows), store.schema, pipeline.schema)
    part = f"{len(rows)} of {len(store)}" if len(rows) < len(store) else f"all {len(rows)}"
    return Gallery(z_0, labels, f"{part} images of {store.path.name}, with their labels")


def of_prior(pipeline: Pipeline) -> Gallery:
    """Samples of the prior, with the labels that the classifier reads."""
    z_0 = pipeline.sample(range(SAMPLED))
    t = torch.full((len(z_0),), pipeline.sampling.t_end, device=z_0.device)
    with torch.no_grad():
        labels = predict_labels(pipeline.schema, pipeline.classifier(z_0, t)).cpu()
    return Gallery(
        z_0, labels, f"{len(z_0)} samples of the model, with labels as its classifier reads them", known=False
    )


def columns(labels: Tensor, found: Schema, wanted: Schema) -> Tensor:
    """Labels in the columns of another schema; NaN for an attribute that is not there, or is another."""
    result = torch.full((len(labels), len(wanted)), torch.nan)
    for column, attribute in enumerate(wanted):
        if attribute.name in found:
            own = found[attribute.name]
            if (own.kind, own.values) == (attribute.kind, attribute.values):
                result[:, column] = labels[:, found.index(attribute.name)]
    return result
