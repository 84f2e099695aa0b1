"""The image of a work's state: refined, as a preview, and by other methods.

What an editor knows of a source, above all its inversion, is kept by the source's content, and forgotten when others
have come since. A refined image is what `Pipeline.session` gives, bit by bit. A preview takes fewer steps and asks for
all edits at once, without what each alone would bring.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from lcg.app.answers import Belief, Edited, Image, Rival
from lcg.app.gallery import Gallery
from lcg.app.reading import asking, beliefs_of, outputs_of
from lcg.app.recent import Recent
from lcg.app.refusal import Refused, in_words, problem_of
from lcg.app.rivals import METHODS, Method
from lcg.app.turns import HURRIED, USUAL, Turns
from lcg.app.work import Work
from lcg.baselines.latent_arithmetic import Directional
from lcg.editing import Editor, EditRequest, GuidedEditor
from lcg.pipeline import Pipeline

PREVIEW_STEPS = 20
"""Evaluations of a preview, and as many for its inversion."""
EDITORS, IMAGES, BELIEFS = 128, 32, 256
"""Sources, reconstructions and readings that are remembered, for all users together."""
SMALL = 16_000_000
"""Weights of prior and classifiers below which a single latent keeps one thread busy at most."""


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
        self._hurried = replace(pipeline, editing=replace(pipeline.editing, steps=PREVIEW_STEPS))
        self._editors: Recent[tuple[bytes, bool], GuidedEditor] = Recent(EDITORS)
        self._reconstructed: Recent[tuple[bytes, bytes], Image] = Recent(IMAGES)
        self._believed: Recent[bytes, dict[str, Belief]] = Recent(BELIEFS)
        self._rivals: Recent[str, Editor] = Recent(len(METHODS))
        self._learning = Lock()
        weights = sum(w.numel() for net in (pipeline.denoiser, pipeline.classifier) for w in net.parameters())
        self._threads = 1 if weights < SMALL else torch.get_num_threads()

    def beliefs(self, z_0: Tensor) -> dict[str, Belief]:
        """What the classifier believes about a latent (1, *latent)."""
        schema = self.pipeline.schema
        return self._believed.get(
            bytes_of(z_0), lambda: self.turns.do(lambda: beliefs_of(schema, outputs_of(self.pipeline, z_0)), HURRIED)
        )

    def edit(self, work: Work) -> Edited:
        """See `Studio.edit`."""
        self._check(work)
        arrived = time.monotonic()
        for single in work.apart() if len(work.standing) > 1 else ():  # a turn for each, so that others go between
            self.turns.do(partial(self._edited, single), USUAL, arrived)
        return self.turns.do(lambda: self._shown(work, self._edited(work), preview=False), USUAL, arrived)

    def preview(self, work: Work) -> Edited:
        """See `Studio.preview`."""
        self._check(work)
        return self.turns.do(lambda: self._shown(work, self._previewed(work), preview=True), HURRIED)

    def compare(self, work: Work) -> tuple[Rival, ...]:
        """See `Studio.compare`."""
        first = Rival("lcg", "guided by classifiers, everything else asked to stay", self.edit(work))
        return first, *(self._rival(work, method) for method in METHODS)

    def _edited(self, work: Work) -> Tensor:
        with in_words(), threads(self._threads):
            return work.result(self._editor(work))

    def _previewed(self, work: Work) -> Tensor:
        """All edits at once: what each alone would bring is left to the refined image."""
        if not work.edits:
            return work.z_0
        with in_words(), threads(self._threads):
            request = EditRequest(work.edits, work.labels, work.strength)
            return self._editor(work, hurried=True).edit(work.z_0, request).z_0.detach()

    def _editor(self, work: Work, hurried: bool = False) -> GuidedEditor:
        """One for each source, as an editor remembers what it has computed of its sources."""
        return self._editors.get(
            (bytes_of(work.z_0), hurried), partial((self._hurried if hurried else self.pipeline).editor, range(1))
        )

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


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Has torch use so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bytes_of(tensor: Tensor | None) -> bytes:
    """A tensor's content, by which it is known again."""
    return b"" if tensor is None else tensor.cpu().numpy().tobytes()
