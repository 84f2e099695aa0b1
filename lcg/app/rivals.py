"""Methods beside lcg's own that need no training of networks, fitted to the gallery when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from lcg.app.gallery import Gallery
from lcg.baselines.contract import Baseline, Training
from lcg.baselines.interfacegan import InterFaceGAN
from lcg.baselines.latent_arithmetic import LatentArithmetic
from lcg.editing import Editor
from lcg.pipeline import Pipeline


class Method(NamedTuple):
    """A method of editing.

    Attributes:
        name: as in benchmarks.
        about: a line what it does.
        make: the editor, fitted.
        unit: its strength where lcg's is at its default; 1 is the authors' default of a baseline.
    """

    name: str
    about: str
    make: Callable[[Pipeline, Gallery], Editor]
    unit: float | None = None


def without_keeping(pipeline: Pipeline, gallery: Gallery) -> Editor:
    """lcg's editor, which asks for the edits and near the source for nothing else."""
    return replace(pipeline, editing=replace(pipeline.editing, keep_weight=0.0)).editor(range(1))


def fitted(baseline: Callable[[], Baseline]) -> Callable[[Pipeline, Gallery], Editor]:
    """A baseline that learns from the gallery's latents and labels."""

    def make(pipeline: Pipeline, gallery: Gallery) -> Editor:
        return baseline().fit(
            Training(
                gallery.z_0.cpu(),
                gallery.labels,
                pipeline.schema,
                pipeline.generator,
                pipeline.statistics,
                pipeline.denoiser,
                pipeline.denoiser.schedule,
                pipeline.classifier,
            )
        )

    return make


METHODS = (
    Method("lcg without keeping", "guidance towards the edits alone, nothing asked to stay", without_keeping),
    Method(
        "arithmetic",
        "adds the difference of means of images with and without it",
        fitted(LatentArithmetic),
        1.0,
    ),
    Method("probe", "moves along the normal of a linear probe", fitted(lambda: LatentArithmetic("probe")), 1.0),
    Method(
        "interfacegan",
        "moves along the normal of a separating hyperplane, conditioned on the other attributes",
        fitted(lambda: InterFaceGAN(share=0.1)),
        1.0,
    ),
)
