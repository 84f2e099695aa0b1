"""The image of a work's state: refined, as a preview, and by other methods.

What an editor knows of a source, above all its inversion, is kept by the source's content, and forgotten when others
have come since. A refined image is what `Pipeline.session` gives: bit by bit, or, where others waited at the same time,
but for rounding (`lcg.app.together`). A preview takes fewer steps and asks for all edits at once, without what each
alone would bring.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from threading import Lock

import numpy as np
from torch import Tensor

from lcg.app.answers import Belief, Edited, Image, Rival
from lcg.app.gallery import Gallery
from lcg.app.reading import asking, beliefs_of, outputs_of
from lcg.app.recent import Recent
from lcg.app.refusal import Refused, in_words, problem_of
from lcg.app.rivals import METHODS, Method
from lcg.app.together import Together
from lcg.app.turns import HURRIED, USUAL, Turns
from lcg.app.work import Work
from lcg.baselines.latent_arithmetic import Directional
from lcg.editing import Editor, EditRequest
from lcg.pipeline import Pipeline

PREVIEW_STEPS = 20
"""Evaluations of a preview, and as many for its inversion."""
IMAGES, BELIEFS = 32, 256
"""Reconstructions and readings that are remembered, for all users together."""


class Editing:
    """Edits.

    Args:
        pipeline: of the model.
        gallery: what other methods learn from.
        turns: in which everything is computed.

    Raises:
        ValueError: the model's prior is a distilled one, which cannot edit.
    """

    def __init__(self, pipeline: Pipeline, gallery: Gallery, turns: Turns) -> None:
        pipeline.editor()  # refuses what cannot edit
        self.pipeline, self.gallery, self.turns = pipeline, gallery, turns
        hurried = replace(pipeline, editing=replace(pipeline.editing, steps=PREVIEW_STEPS))
        self._refined = Together(partial(pipeline.editor, range(1)), turns, USUAL)
        self._hurried = Together(partial(hurried.editor, range(1)), turns, HURRIED)
        self._reconstructed: Recent[tuple[bytes, bytes], Image] = Recent(IMAGES)
        self._believed: Recent[bytes, dict[str, Belief]] = Recent(BELIEFS)
        self._rivals: Recent[str, Editor] = Recent(len(METHODS))
        self._learning = Lock()

    def beliefs(self, z_0: Tensor) -> dict[str, Belief]:
        """What the classifier believes about a latent (1, *latent)."""
        schema = self.pipeline.schema
        return self._believed.get(
            bytes_of(z_0), lambda: self.turns.do(lambda: beliefs_of(schema, outputs_of(self.pipeline, z_0)), HURRIED)
        )

    def edit(self, work: Work) -> Edited:
        """See `Studio.edit`."""
        self._check(work)
        z_0 = self._edited(work)
        return self.turns.do(lambda: self._shown(work, z_0, preview=False), HURRIED)

    def preview(self, work: Work) -> Edited:
        """See `Studio.preview`."""
        self._check(work)
        z_0 = self._previewed(work)
        return self.turns.do(lambda: self._shown(work, z_0, preview=True), HURRIED)

    def compare(self, work: Work) -> tuple[Rival, ...]:
        """See `Studio.compare`."""
        first = Rival("lcg", "guided by classifiers, everything else asked to stay", self.edit(work))
        return first, *(self._rival(work, method) for method in METHODS)

    def _edited(self, work: Work) -> Tensor:
        with in_words():
            return work.result(self._refined)

    def _previewed(self, work: Work) -> Tensor:
        """All edits at once: what each alone would bring is left to the refined image."""
        if not work.edits:
            return work.z_0
        with in_words():
            return self._hurried.edit(work.z_0, EditRequest(work.edits, work.labels, work.strength)).z_0.detach()

    def _shown(self, work: Work, z_0: Tensor, preview: bool) -> Edited:
        if not bool(z_0.isfinite().all()):
            raise Refused("With these weights the edit leaves all that can be shown; lower them.")
        image = self.pipeline.decode(z_0, code=work.code)[0]
        source = self._reconstructed.get((bytes_of(work.z_0), bytes_of(work.code)), partial(self._reconstruction, work))
        outputs = outputs_of(self.pipeline, z_0)
        return Edited(
            image,
            preview,
            beliefs_of(self.pipeline.schema, outputs),
            tuple(asking(self.pipeline.schema, step, outputs) for step in work.standing),
            float((z_0 - work.z_0).square().mean().sqrt()),
            float(np.abs(image.astype(np.float32) - source).mean()) / 255,
            z_0,
        )

    def _reconstruction(self, work: Work) -> Image:
        return self.pipeline.decode(work.z_0, code=work.code)[0]

    def _check(self, work: Work) -> None:
        if work.schema != self.pipeline.schema or work.z_0.shape != (1, *self.pipeline.denoiser.latent_shape):
            raise Refused("This is work on another model's image; open an image of this model.")

    def _rival(self, work: Work, method: Method) -> Rival:
        editor = self._rivals.get(method.name, partial(method.make, self.pipeline, self.gallery))

        def answer() -> Edited:
            z_0 = work.z_0
            if work.edits:
                z_0 = editor.edit(z_0, EditRequest(work.edits, work.labels, self._as_far(work, method))).z_0.detach()
            return self._shown(work, z_0, preview=False)

        try:
            if isinstance(editor, Directional) and work.edits:
                with self._learning:  # seconds, for which nobody else shall wait
                    editor.direction(*work.edits)
            return Rival(method.name, method.about, self.turns.do(answer))
        except (ValueError, TypeError) as error:
            return Rival(method.name, method.about, None, problem_of(error))

    def _as_far(self, work: Work, method: Method) -> float | None:
        """A method's strength that goes as far of its default as the work's of lcg's."""
        if method.unit is None or work.strength is None:
            return work.strength if method.unit is None else method.unit
        return method.unit * work.strength / self.pipeline.editing.strength


def bytes_of(tensor: Tensor | None) -> bytes:
    """A tensor's content, by which it is known again."""
    return b"" if tensor is None else tensor.cpu().numpy().tobytes()
