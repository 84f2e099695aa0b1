"""The gallery explored: computed once for all users, t-SNE in the background."""

from __future__ import annotations

import math
import threading
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lcg.app.answers import Points
from lcg.app.gallery import Gallery
from lcg.app.projection import Rows, neighbours, pca, separation, tsne
from lcg.schema import Attribute, Schema

Method = Literal["pca", "tsne"]


class Explored:
    """What is known about a gallery's layout.

    Args:
        gallery: whose.
        schema: of its labels.
    """

    def __init__(self, gallery: Gallery, schema: Schema) -> None:
        self.schema = schema
        self.z: Rows = gallery.z_0.flatten(1).cpu().numpy().astype(np.float32)
        self.labels: Rows = gallery.labels.numpy()
        self._lock, self._tsne, self._started = threading.Lock(), dict[Literal["xy"], Rows](), False
        self._apart: dict[str, float] = {}

    @cached_property
    def flat(self) -> tuple[Rows, float]:
        """Positions by PCA, and the share of the variance that they show."""
        return pca(self.z)

    @cached_property
    def near(self) -> NDArray[np.int64]:
        """The nearest neighbours of each row."""
        return neighbours(self.z)

    def points(self, method: Method, attribute: str | None) -> Points:
        """See `Studio.points`; the arguments are known to be good."""
        xy, share = self.flat
        found = self._by_tsne() if method == "tsne" else None
        about = f"The two directions in which latents vary most; they show {share:.0%} of the variance."
        if found is not None:
            xy, about = found, "Neighbours in latent space stay neighbours here; distances between groups mean nothing."
        shown: Method = "pca" if found is None else "tsne"
        ready = shown == method
        if attribute is None:
            return Points(shown, xy, about, ready)
        coloured, column = self.schema[attribute], self.schema.index(attribute)
        values = ("no", "yes") if coloured.kind == "binary" else coloured.values
        apart = self._separation(coloured, column)
        told = verdict(coloured, apart)
        return Points(shown, xy, about, ready, attribute, values, self.labels[:, column].copy(), apart, told)

    def _separation(self, attribute: Attribute, column: int) -> float:
        if attribute.name not in self._apart:
            self._apart[attribute.name] = separation(attribute, self.labels[:, column], self.near)
        return self._apart[attribute.name]

    def _by_tsne(self) -> Rows | None:
        """Positions by t-SNE; None while they are being computed."""
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._compute, name="lcg-tsne", daemon=True).start()
        return self._tsne.get("xy")

    def _compute(self) -> None:
        self._tsne["xy"] = tsne(self.z)


def verdict(attribute: Attribute, apart: float) -> str:
    """How separated an attribute is, as a sentence."""
    name = attribute.name.replace("_", " ")
    if math.isnan(apart):
        return f"Too few images tell how well {name} is separated."
    how = "well apart" if apart > 0.8 else "partly apart" if apart > 0.4 else "hardly apart"
    return f"The values of {name} are {how} in latent space: neighbours tell them {apart:.0%} better than chance."
