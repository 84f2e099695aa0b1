"""The gallery of an exported model: held-out latents with their labels, to look at and to edit.

    FOLDER/gallery      a latent store (`lcg.data.store`), in float16

Its rows are of the validation split, so that neither prior nor classifiers were trained on them. A model without one is
whole, and readers that know nothing of galleries read a model that has one: `model.json` does not name it. The link
goes the other way. The gallery says in its provenance which store it is of, by the fingerprint that `model.json` has
too, and which generator encoded it; one of another model is refused. Rows are standardised by the model's statistics,
never by the gallery's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lcg.checkpoint import LoadedNetwork
from lcg.data.split import in_validation, uniform
from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.data.store.manifest import NAME
from lcg.models.description import Description

FOLDER = "gallery"
DTYPE = "float16"
STREAM = "gallery"
"""Of the hash that draws rows (`lcg.data.split`); independent of the one that holds them out."""


@dataclass(frozen=True)
class HeldOut:
    """Rows of a store that nothing was trained on.

    Attributes:
        store: which.
        rows: (N,) int64, ascending.
        fraction: expected fraction of validation samples, of the training that saw most.
    """

    store: LatentStore
    rows: np.ndarray
    fraction: float

    @classmethod
    def of(cls, store: LatentStore, count: int, *networks: LoadedNetwork[Any]) -> HeldOut:
        """Rows drawn by a hash of their samples' numbers, the same ones always.

        Args:
            store: that the networks were trained on.
            count: how many.
            networks: with the record of their training (`lcg.models.figures`).

        Raises:
            ValueError: a network does not say what it was trained on, or the store has fewer such rows.
        """
        fractions = []
        for network in networks:
            fraction = network.training.get("data", {}).get("val_fraction")
            if not isinstance(fraction, (int, float)):
                raise ValueError(
                    f"`gallery` needs rows that were held out, and the run folder of {network.path} does not say which "
                    "were; give a checkpoint in the folder that `lcg fit` made, or gallery 0"
                )
            fractions.append(float(fraction))
        index = store.index().numpy()
        held_out = np.flatnonzero(in_validation(index, min(fractions)))  # those of a smaller fraction are among others'
        if len(held_out) < count:
            raise ValueError(
                f"`gallery` must be at most the {len(held_out)} rows of {store.path} that were held out, got {count}; "
                "ask for fewer"
            )
        drawn = held_out[np.argsort(uniform(index[held_out], STREAM), kind="stable")[:count]]
        return cls(store, np.sort(drawn), min(fractions))

    def write(self, folder: Path) -> LatentStore:
        """Writes the rows as a gallery into an empty folder. Raises as `LatentStoreWriter`."""
        store, rows = self.store, self.rows
        told = {"of": store.fingerprint, "val_fraction": self.fraction}
        provenance = {name: value for name, value in store.provenance.items() if name != "fingerprints"}
        writer = LatentStoreWriter(folder, store.latent_shape, store.schema, {**provenance, FOLDER: told}, DTYPE)
        writer.append(store.latents(rows), store.labels(rows), store.index(rows))
        finished = writer.finish()
        (folder / ".lock").unlink(missing_ok=True)  # nobody writes here again
        return finished


def open_gallery(folder: Path, model: Description) -> LatentStore | None:
    """The gallery in the folder of an exported model, None where there is none.

    Raises:
        ValueError: it is damaged, or of another model.
    """
    path = folder / FOLDER
    if not (path / NAME).is_file():
        return None
    store = LatentStore.open(path)
    told, weights = store.provenance.get(FOLDER), store.provenance.get("generator", {})
    of = told.get("of") if isinstance(told, dict) else None
    encoded_by = weights.get("weights_sha256") if isinstance(weights, dict) else None
    own = model.generator.get("weights_sha256")
    for what, found, expected in (
        ("store", of, model.store),
        ("generator", encoded_by, own if own is not None else encoded_by),
        ("latents", list(store.latent_shape), list(model.latent_shape)),
    ):
        if found != expected:
            raise ValueError(
                f"{path} is no gallery of this model, it has another {what}; "
                "export the model again with `lcg export --gallery`, or remove that folder"
            )
    return store
