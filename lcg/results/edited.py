"""What an edit made of images: every step of it, and how well each took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lcg.guidance import And, Formula, parse_edit
from lcg.guidance.formula import Beyond, Near
from lcg.results.display import SHOWN, bar, block, code, grid, picture, quiet, strong, table

if TYPE_CHECKING:
    from lcg.pipeline import Pipeline

TOOK = 0.5
"""The probability from which an edit is said to have taken."""


@dataclass(frozen=True, eq=False, repr=False)
class Edits(Sequence[NDArray[np.uint8]]):
    """Edited images: a sequence of arrays (N, H, W, C), the reconstructions and then the images after each edit.

    Attributes:
        frames: those arrays.
        latents: of each of them, (N, *latent) standardised.
        steps: the edits in the order in which they were asked for, one fewer than there are frames.
        sources: (N, H, W, C) the images that were given; None where latents were.
        strength: how far the edits went, from 0, the source, to 1; one number or one per image.
        pipeline: what edited them.
        code: (N, *code) what the latents leave out of the sources' images; None where they hold everything.

    Example:
        >>> edits = pipeline.edit(pipeline.generate("~hat & ~glasses", n=2), "+hat", "+glasses")
        >>> len(edits), edits.images.shape
        (3, (2, 64, 64, 3))
        >>> {step: bool((p > 0.5).all()) for step, p in edits.took.items()}
        {'+hat': True, '+glasses': True}
    """

    frames: tuple[NDArray[np.uint8], ...]
    latents: tuple[Tensor, ...]
    steps: tuple[str, ...]
    sources: NDArray[np.uint8] | None
    strength: float | Tensor
    pipeline: Pipeline
    code: Tensor | None = None

    # --- what there is ---

    @property
    def images(self) -> NDArray[np.uint8]:
        """(N, H, W, C) the images after the last edit."""
        return self.frames[-1]

    @property
    def z_0(self) -> Tensor:
        """(N, *latent) standardised, of `images`."""
        return self.latents[-1]

    @property
    def reconstruction(self) -> NDArray[np.uint8]:
        """(N, H, W, C) the sources as the generator makes them: what edits begin with."""
        return self.frames[0]

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """(frames, N, steps) what the classifier reads for each edit in each frame, from 0 to 1.

        A continuous attribute is read as there within the tolerance that a target has (`lcg.guidance.formula.Near`).
        """
        asked = [_statement(parse_edit(step, self.pipeline.schema)) for step in self.steps]
        read = [[self.pipeline.log_probability(edit, z_0) for edit in asked] for z_0 in self.latents]
        return np.stack([np.stack([log_p.exp().float().cpu().numpy() for log_p in row], -1) for row in read])

    @property
    def took(self) -> dict[str, NDArray[np.float32]]:
        """(N,) for each edit, what the classifier reads for it in the images after the last one, from 0 to 1."""
        return {step: self.probabilities[-1, :, k] for k, step in enumerate(self.steps)}

    # --- a sequence ---

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[NDArray[np.uint8], ...]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | tuple[NDArray[np.uint8], ...]:
        return self.frames[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.stack(self.frames).astype(self.images.dtype if dtype is None else dtype)

    # --- pictures and files ---

    def pil(self, index: int = 0) -> Image.Image:
        """One source after the last edit."""
        return Image.fromarray(self.images[index])

    def strip(self, scale: int = 2) -> Image.Image:
        """A row per source: as it was given, as the generator makes it if that differs, after each edit."""
        from lcg.pictures import strips

        titles, frames = self._columns
        return strips(np.stack(frames, axis=1), titles, scale)

    def save(self, folder: str | PathLike[str], overwrite: bool = False) -> Path:
        """Writes what `lcg edit` leaves: images, a strip, latents, the session, and what they were made with.

        Of strengths that differ between images no session is left, which knows one.

        Args:
            folder: where; a folder that holds something else is not touched.
            overwrite: whether results of an earlier run of lcg are replaced there.

        Returns:
            The folder.

        Raises:
            FileExistsError: the folder holds something already.
            OSError: it cannot be written.
        """
        from lcg.results.saving import save_edits

        return save_edits(self, folder, overwrite)

    @property
    def _columns(self) -> tuple[list[str], list[NDArray[np.uint8]]]:
        """Titles and images of the columns of a strip; the reconstruction only where it is not the source itself."""
        if self.sources is None or np.array_equal(self.sources, self.reconstruction):
            return ["source", *self.steps], list(self.frames)
        return ["source", "reconstruction", *self.steps], [self.sources, *self.frames]

    # --- how they show themselves ---

    def __str__(self) -> str:
        count, (height, width) = len(self.images), self.images.shape[1:3]
        edits = ", ".join(f"{step} ({_share(p)})" for step, p in self.took.items()) if self.steps else "no edits"
        return f"{count} {'image' if count == 1 else 'images'} of {width}x{height}: {edits}"

    def __repr__(self) -> str:
        return f"Edits({self})"

    def _repr_html_(self) -> str:
        (titles, frames), count = self._columns, len(self.images)
        shown = min(count, max(1, SHOWN // len(frames)))
        width = 128 if count == 1 and len(frames) <= 6 else 96
        rows = [
            grid(
                picture(frame[i], f"image {i}, {_after(title)}", title if i == 0 else "", width)
                for title, frame in zip(titles, frames, strict=True)
            )
            for i in range(shown)
        ]
        title = f"{strong(f'{count} edited ' + ('image' if count == 1 else 'images'))} {quiet(self._went)}"
        more = [quiet(f"and {count - shown} more, in .strip()")] if count > shown else []
        told = [
            (code(step), bar(float(self.probabilities[0, :, k].mean())), bar(float(p.mean())))
            for k, (step, p) in enumerate(self.took.items())
        ]
        said = table(("the classifier reads", "before", "after all"), told) if told else ""
        return block(title, '<div style="display:grid;gap:4px">' + "".join(rows) + "</div>", *more, said)

    @property
    def _went(self) -> str:
        return f"strength {self.strength:g}" if isinstance(self.strength, float) else "each with its own strength"


def _statement(edit: Formula) -> Formula:
    """What can hold or not where an edit is a target, which has a density only."""
    if not isinstance(edit, Near):
        return edit
    low, high = edit.value - edit.tolerance, edit.value + edit.tolerance
    return And(
        (Beyond(edit.attribute, edit.column, low, above=True), Beyond(edit.attribute, edit.column, high, above=False))
    )


def _share(p: NDArray[np.float32]) -> str:
    """How well an edit took: a probability, or of several images how many have it."""
    return f"{p[0]:.2f}" if len(p) == 1 else f"took in {int((p > TOOK).sum())} of {len(p)}"


def _after(title: str) -> str:
    return title if title in ("source", "reconstruction") else f"after {title}"
