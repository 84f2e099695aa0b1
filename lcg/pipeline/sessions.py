"""Editing with a pipeline's networks: latents one edit after another, and sessions that can be undone and saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from torch import Tensor

from lcg.editing import EditResult, EditSession, GuidedEditor, edit_sequence
from lcg.editing.session import MAX_CHARACTERS
from lcg.guidance import parse_edit
from lcg.pipeline.drawing import Drawing
from lcg.pipeline.given import Images


@dataclass(frozen=True)
class Editable(Drawing):
    """Networks that draw, and edit what is given."""

    def editor(self, seeds: int | Sequence[int] = 0) -> GuidedEditor:
        """lcg's editor with these networks; `seeds` are for the starts that draw noise, one or one per source.

        Raises:
            ValueError: the prior is a distilled one, or `editing` asks for what cannot be.
        """
        if self.distilled:
            raise ValueError(
                "editing inverts the prior's flow and needs its posterior mean, which a distilled prior does not know; "
                "load the prior it was distilled from"
            )
        return self.editing.build(self.denoiser, self.classifier, seeds)

    def edit_latents(
        self,
        z_0: Tensor,
        edits: Sequence[str],
        labels: Tensor | None = None,
        strength: float | Tensor | None = None,
    ) -> list[EditResult]:
        """Edits standardised latents, one attribute after another.

        Args:
            z_0: (N, *latent).
            edits: as those of `edit`.
            labels: known labels (N, A), NaN where unknown; None when the classifier shall find them out.
            strength: as that of `edit`.

        Returns:
            One result per edit.

        Example:
            >>> z_0 = pipeline.sample(range(2))
            >>> [tuple(result.z_0.shape) for result in pipeline.edit_latents(z_0, ["+smile"], strength=0.3)]
            [(2, 64)]
        """
        editor = self.editor(range(len(z_0)))  # row by row, should the start draw noise
        return edit_sequence(editor, z_0, [parse_edit(edit, self.schema) for edit in edits], labels, strength)

    def session(
        self,
        sources: Images | Tensor,
        labels: Tensor | None = None,
        strength: float | None = None,
        code: Tensor | None = None,
    ) -> EditSession:
        """An editing session with this pipeline's editor, whose results are latents.

            images = pipeline.decode(session.result(), code=session.code)

        Args:
            sources: images, as `as_pixels` takes them, or standardised latents (N, *latent).
            labels: known labels (N, A), NaN where unknown; None when the classifier shall find them out.
            strength: how far to go, from 0, the source, to 1; None for that of `editing`.
            code: of latents, what they leave out of their images, if that is known; that of images is found.

        Raises:
            TypeError, ValueError: as `encode`, `editor` and `EditSession`; or latents of another shape than the
                prior's.

        Example:
            >>> session = pipeline.session(pipeline.generate("~smile", n=2)).add("+smile").add("+hat", weight=0.5)
            >>> session
            EditSession(2 sources: +smile, +hat x0.5)
            >>> session.undo()
            EditSession(2 sources: +smile)
            >>> pipeline.decode(session.result()).shape
            (2, 64, 64, 3)
        """
        self.editor()  # refuses before work
        if isinstance(sources, Tensor):
            z_0, code = sources.to(self.device), None if code is None else code.to(self.device)
        else:
            _, z_0, code = self._sources(sources)
        labels = None if labels is None else labels.to(self.device)
        return self._own(EditSession(z_0, self.schema, labels, strength, code=code))

    def open_session(self, path: str | PathLike[str]) -> EditSession:
        """The session that a file holds (`EditSession.to_json`), with this pipeline's editor.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no session, or one of other attributes or latents than this pipeline's.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"no session at {file}; `lcg edit` leaves one as OUT/session.json")
        with file.open(encoding="utf-8", errors="replace") as opened:
            text = opened.read(MAX_CHARACTERS + 1)  # a stranger's file may be of any size
        try:
            return self._own(EditSession.from_json(text, self.schema, self.device))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def _own(self, session: EditSession) -> EditSession:
        """The session with this pipeline's editor; each source has its own seed, should the start draw noise."""
        shape, own = tuple(session.z_0.shape[1:]), tuple(self.denoiser.latent_shape)
        if shape != own:
            raise ValueError(
                f"the sources are latents of shape {shape}, the prior's have {own}; use the networks they belong to"
            )
        session.editor = self.editor(range(len(session.z_0)))
        return session
