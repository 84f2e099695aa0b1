"""The studio: everything that the page does, without the page.

One object serves the whole process. It holds a model and its gallery, and knows no user: what belongs to somebody is a
value that it answers with (`lcg.app.answers`, `lcg.app.work.Work`) and gets back with the next question. All methods
may be called from many threads at once; what computes takes turns (`lcg.app.turns`), and what is remembered is bounded
and found by its content. What cannot be had ends in `Refused`, a ValueError whose text is for people.

    studio = Studio.open("avatars")
    shown = studio.generate("glasses & hat & ~beard", n=16)
    source = studio.from_generated(shown, 3)
    work = studio.work(source).ask("glasses", "-glasses")
    image = studio.edit(work).image
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from os import PathLike
from typing import Literal

import numpy as np
import PIL.Image
import torch
from typing_extensions import Self

from lcg.app.answers import (
    Asked,
    Belief,
    Check,
    Description,
    Edited,
    Frame,
    Generated,
    Image,
    Points,
    Rival,
    Source,
    Suggestion,
    Trust,
)
from lcg.app.completion import complete
from lcg.app.descriptions import describe
from lcg.app.drawing import MAX_SAMPLES, MAX_SEED, Drawing
from lcg.app.editing import Editing
from lcg.app.exploring import Explored
from lcg.app.formulas import check, controls_of, edit_text, formula_text, read_formula
from lcg.app.gallery import Gallery, of_prior, of_store
from lcg.app.refusal import Refused, in_words, whole_number
from lcg.app.saved import read_work
from lcg.app.sources import Sources
from lcg.app.turns import Turns
from lcg.app.work import Work
from lcg.data.store import LatentStore
from lcg.generators.base import Generator
from lcg.guidance import parse_edit
from lcg.models.description import Description as ModelDescription
from lcg.models.gallery import open_gallery
from lcg.models.names import find_model
from lcg.pictures import contact_sheet, strips
from lcg.pipeline import Pipeline, load
from lcg.schema import Schema

__all__ = ["MAX_SAMPLES", "MAX_SEED", "MAX_STRENGTHS", "Studio"]

MAX_STRENGTHS = 16


class Studio:
    """A model to play with; make one with `Studio.open`.

    Args:
        pipeline: generator, prior and classifiers.
        gallery: rows that can be looked at and edited.
        name: of the model.

    Attributes:
        controls: of every attribute, in the schema's order.
        strength: the model's own, of edits that say nothing else.

    Raises:
        ValueError: the model's prior is a distilled one, which cannot edit.
    """

    def __init__(self, pipeline: Pipeline, gallery: Gallery, name: str) -> None:
        self.pipeline, self.gallery, self.name = pipeline, gallery, name
        self.strength = pipeline.editing.strength
        self.controls = controls_of(pipeline.schema, gallery.ranges(pipeline.schema))
        self._turns = Turns()
        self._drawing = Drawing(pipeline, self._turns)
        self._sources = Sources(pipeline, gallery, self._turns)
        self._editing = Editing(pipeline, gallery, self._turns)
        self._explored = Explored(gallery, pipeline.schema)

    @classmethod
    def open(
        cls,
        model: str | PathLike[str] = "avatars",
        store: str | PathLike[str] | None = None,
        generator: Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Opens a model.

        Args:
            model: name or folder of an exported model.
            store: latent store whose rows are the gallery; None for the model's own gallery, or, where it has none,
                samples of its prior with the labels that its classifiers read.
            generator: the frozen generator; None for the embedded one.
            device: where everything goes.

        Raises:
            FileNotFoundError, ValueError: as `lcg.load` and `LatentStore`; or the store has other latents.
        """
        folder = find_model(model)
        pipeline = load(folder, generator=generator, device=device)
        own = open_gallery(folder, ModelDescription.read(folder)) if store is None else None
        rows = own if store is None else LatentStore.open(store)
        gallery = of_prior(pipeline) if rows is None else of_store(rows, pipeline)
        studio = cls(pipeline, gallery, folder.name)
        studio.warm()
        return studio

    def warm(self) -> None:
        """Does what the first answers would have to wait for: samples of the prior, and first calls of the networks."""
        self.trust(self.schema.names[0] if self.schema.of_kind("binary") else "")
        work = self.work(self.from_gallery(0))
        binary = self.schema.of_kind("binary")
        if binary:
            self.preview(work.ask(binary[0].name, f"+{binary[0].name}"))

    @property
    def schema(self) -> Schema:
        """The attributes."""
        return self.pipeline.schema

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""
        return self._sources.size

    # --- formulas ---

    def check(self, text: str) -> Check:
        """Reads the text of a formula while it is typed. Never raises."""
        return check(text, self.schema)

    def check_edit(self, text: str) -> Check:
        """Reads the text of an edit such as `+glasses`, `hair_color=red`. Never raises."""
        return check(text, self.schema, parse_edit)

    def complete(self, text: str, caret: int, limit: int = 12) -> tuple[Suggestion, ...]:
        """What may stand at the caret, the likeliest first. Never raises.

        Args:
            text: of a formula, be it unfinished.
            caret: characters before the caret.
            limit: of suggestions.
        """
        return complete(text, caret, self.schema, limit)

    def formula_text(self, asked: Mapping[str, Asked]) -> str:
        """The formula that a state of the controls asks for, canonical; empty for nothing.

        Args:
            asked: by attribute, see `Asked`; those that are not named ask for nothing.

        Raises:
            Refused: an unknown attribute or value, or something that its kind of control cannot ask.
        """
        return formula_text(asked, self.schema)

    def edit_text(self, attribute: str, asked: Asked) -> str | None:
        """The edit that one control asks for: `+glasses`, `-hat`, `hair_color=red`, `age=0.7`; None for nothing.

        Raises:
            Refused: as `formula_text`.
        """
        return edit_text(attribute, asked, self.schema)

    def describe(self, text: str) -> Description:
        """Reads a description in plain English: "a smiling person with glasses and no beard". Never raises."""
        return describe(text, self.schema)

    def trust(self, formula: str) -> Trust | None:
        """How far to trust samples of a formula; None for an empty text. Fast once it has been asked for before.

        Raises:
            Refused: the formula cannot be read, or is too large.
        """
        asked = read_formula(formula, self.schema)
        return None if asked is None else self._drawing.trust(asked)

    # --- generation ---

    def generate(self, formula: str | None = None, n: int = 16, seed: int = 0) -> Generated:
        """Images of a formula, or of the prior for None or an empty text.

        Args:
            formula: such as `glasses & ~beard`.
            n: 1 to `MAX_SAMPLES`.
            seed: the first, 0 to `MAX_SEED`; image i has seed + i.

        Raises:
            Refused: the formula cannot be read, never or always holds, or a number is out of range.
        """
        *_, whole = self.generating(formula, n, seed)
        return whole

    def generating(self, formula: str | None = None, n: int = 16, seed: int = 0) -> Iterator[Generated]:
        """The same part by part: each answer has some images more, the last is what `generate` gives.

        Raises:
            Refused: as `generate`, before the first answer.
        """
        return self._drawing.generating(read_formula(formula, self.schema), n, seed)

    # --- sources ---

    def gallery_images(self, rows: Sequence[int]) -> Image:
        """Images (N, H, W, 3) of rows of the gallery. Raises Refused for a row that is not there."""
        return self._sources.gallery_images(rows)

    def from_gallery(self, row: int) -> Source:
        """A row of the gallery, with its labels. Raises Refused for a row that is not there."""
        return self._sources.from_gallery(row)

    def from_seed(self, seed: int) -> Source:
        """A sample of the prior. Raises Refused for a seed that is out of range."""
        return self._sources.from_seed(seed)

    def from_generated(self, shown: Generated, number: int) -> Source:
        """Image `number`, counted from 0, of samples. Raises Refused when there is none."""
        return self._sources.from_generated(shown, number)

    def from_upload(self, data: bytes) -> Source:
        """An image file: framed, encoded, with its reconstruction beside it.

        Args:
            data: bytes of a PNG, JPEG, WebP, BMP or GIF file, at most 8 MB (`lcg.app.uploads`).

        Raises:
            Refused: the file is too large, no image, or damaged.
        """
        return self._sources.from_upload(data)

    def beliefs(self, source: Source) -> Mapping[str, Belief]:
        """What the classifier believes about every attribute of a source, by name: where controls begin."""
        return self._editing.beliefs(source.z_0)

    # --- editing ---

    def work(self, source: Source) -> Work:
        """New work on a source, with no steps."""
        return Work(source.z_0, self.schema, source.labels, code=source.code)

    def edit(self, work: Work) -> Edited:
        """The image of a work's current state, as good as the model makes it: that of `Pipeline.session`.

        It is so bit by bit; where others wait at the same time, but for rounding.

        Raises:
            Refused: it is work of another model, or asks for what cannot be edited.
        """
        return self._editing.edit(work)

    def preview(self, work: Work) -> Edited:
        """The same in few steps, while a control is dragged. Raises as `edit`."""
        return self._editing.preview(work)

    def compare(self, work: Work) -> tuple[Rival, ...]:
        """The current state by other methods too, lcg first; those that learn do so once, when first asked for.

        Raises:
            Refused: as `edit`.
        """
        return self._editing.compare(work)

    def strip(self, work: Work) -> tuple[Frame, ...]:
        """The source's reconstruction, then the image after each step. Raises as `edit`."""
        titles = ["source", *(step.text for step in work.steps)]
        return tuple(Frame(self.edit(work.first(count)).image, title) for count, title in enumerate(titles))

    def strengths(self, work: Work, strengths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)) -> tuple[Frame, ...]:
        """The current state at several strengths in [0, 1], 1 to 16 of them. Raises as `edit`."""
        if not 1 <= len(strengths) <= MAX_STRENGTHS:
            raise Refused(f"A strip has 1 to {MAX_STRENGTHS} strengths, got {len(strengths)}.")
        return tuple(Frame(self.edit(work.going(value)).image, f"{value:g}") for value in strengths)

    # --- what is taken home ---

    def png(self, image: Image, scale: int = 1) -> bytes:
        """The bytes of a PNG file of an image (H, W, 3), each pixel `scale` pixels wide, 1 to 16."""
        times = whole_number("The scale", scale, 1, 16)
        return _png(contact_sheet(image[None], columns=1, scale=times))

    def strip_png(self, frames: Sequence[Frame], scale: int = 2) -> bytes:
        """The bytes of a PNG file of a strip, side by side with their titles. Raises Refused where there is none."""
        times = whole_number("The scale", scale, 1, 16)
        if not frames:
            raise Refused("There is nothing to draw; make an edit first.")
        return _png(strips(np.stack([frame.image for frame in frames])[None], [frame.title for frame in frames], times))

    def save(self, work: Work) -> str:
        """The work as JSON text: a session file of lcg, with every state."""
        with in_words():
            return work.to_json()

    def replay(self, text: str) -> tuple[Source, Work]:
        """The source and the work of a session file, be it from `save` or `lcg edit`.

        Raises:
            Refused: it is no session, one of other latents or attributes, or of several images.
        """
        work = read_work(text, self.pipeline)
        return self._sources.at("saved session", work.z_0, work.labels, work.code), work

    # --- exploring ---

    def points(self, method: Literal["pca", "tsne"] = "pca", attribute: str | None = None) -> Points:
        """The gallery in the plane, coloured by an attribute.

        t-SNE is computed once, in the background; until then PCA is answered, with `ready` False: ask again.

        Raises:
            Refused: an unknown method or attribute.
        """
        if method not in ("pca", "tsne"):
            raise Refused("The plane is shown by pca or tsne.")
        if attribute is not None:
            with in_words():
                self.schema.index(attribute)
        return self._explored.points(method, attribute)


def _png(picture: PIL.Image.Image) -> bytes:
    data = BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()
