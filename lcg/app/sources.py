"""Where an edit begins: a row of the gallery, a seed, a sample, an upload."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lcg.app.answers import Generated, Image, Source
from lcg.app.drawing import MAX_SEED
from lcg.app.gallery import Gallery
from lcg.app.refusal import Refused, in_words, shortened, whole_number
from lcg.app.turns import Turns
from lcg.app.uploads import read_upload
from lcg.pipeline import Pipeline

MAX_ROWS = 256
"""Rows of the gallery that are shown at once."""
POOR_ERROR = 0.06
"""Root-mean-square, as a share of the range: avatars have .004, scaled and compressed ones .02, photographs .4."""
POOR = "The reconstruction is poor: the model has not seen images like this, and will edit what it makes of it."


class Sources:
    """Makes sources; its methods are those of `Studio`.

    Args:
        pipeline: of the model.
        gallery: rows.
        turns: in which everything is computed.
    """

    def __init__(self, pipeline: Pipeline, gallery: Gallery, turns: Turns) -> None:
        self.pipeline, self.gallery, self.turns = pipeline, gallery, turns

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every image."""
        _, height, width = self.pipeline.generator.image_shape
        return height, width

    def gallery_images(self, rows: Sequence[int]) -> Image:
        """Images (N, H, W, 3) of rows of the gallery. Raises Refused for a row that is not there."""
        if len(rows) > MAX_ROWS:
            raise Refused(f"At most {MAX_ROWS} images are shown at once.")
        places = [self._row(row) for row in rows]
        if not places:
            return np.zeros((0, *self.size, 3), np.uint8)
        return self.turns.do(lambda: self.pipeline.decode(self.gallery.z_0[places]))

    def from_gallery(self, row: int) -> Source:
        """A row of the gallery, with its labels. Raises Refused for a row that is not there."""
        place = self._row(row)
        labels = self.gallery.labels[[place]] if self.gallery.known else None
        return self.at(f"gallery {place}", self.gallery.z_0[[place]], labels)

    def from_seed(self, seed: int) -> Source:
        """A sample of the prior. Raises Refused for a seed that is out of range."""
        number = whole_number("The seed", seed, 0, MAX_SEED)
        z_0 = self.turns.do(lambda: self.pipeline.sample([number]))
        return self.at(f"seed {number}", z_0)

    def from_generated(self, shown: Generated, number: int) -> Source:
        """Image `number`, counted from 0, of samples. Raises Refused when there is none."""
        place = whole_number("The number of the image", number, 0, len(shown) - 1)
        what = f"seed {shown.seeds[place]}"
        title = what if shown.formula is None else f"{shortened(shown.formula, 60)}, {what}"
        return Source(title, shown.images[place], shown.images[place], shown.z_0[[place]].clone())

    def from_upload(self, data: bytes) -> Source:
        """An image file, with its reconstruction beside it. Raises Refused for a bad file."""
        return self.turns.do(lambda: self._uploaded(data))  # in turn, so that many at once do not fill the memory

    def _uploaded(self, data: bytes) -> Source:
        image, pipeline = read_upload(data, self.size), self.pipeline
        with in_words():
            z_0 = pipeline.encode(image[None])
            code = pipeline.code(image[None], z_0)
            made = pipeline.decode(z_0, code=code)[0]
        error = float(np.sqrt((((image.astype(np.float32) - made) / 255) ** 2).mean()))
        return Source("your image", image, made, z_0, code, None, error, POOR if error > POOR_ERROR else None)

    def at(self, title: str, z_0: Tensor, labels: Tensor | None = None, code: Tensor | None = None) -> Source:
        """A source by its latent."""
        image = self.turns.do(lambda: self.pipeline.decode(z_0, code=code))[0]
        return Source(title, image, image, z_0, code, labels)

    def _row(self, row: int) -> int:
        return whole_number("The row of the gallery", row, 0, len(self.gallery) - 1)
