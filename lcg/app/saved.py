"""Session files that are read back: a stranger's text, and only what this model can edit."""

from __future__ import annotations

import numpy as np
import torch

from lcg.app.refusal import Refused, in_words
from lcg.app.work import MAX_WEIGHT, Work
from lcg.data.store.checks import check_labels
from lcg.generators.base import StochasticGenerator
from lcg.pipeline import Pipeline

MAX_CHARACTERS = 4 * 2**20
"""Of a session file: one source with its code, and a long history."""
FARTHEST = 50.0
"""In standard deviations: an element of a latent that is farther out is of no image."""


def read_work(text: str, pipeline: Pipeline) -> Work:
    """The work in a session file.

    Raises:
        Refused: it is no session of one image of this model, or something in it is out of range.
    """
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
        raise Refused(f"A session file has at most {MAX_CHARACTERS // 2**20} million characters; this is none of ours.")
    schema = pipeline.schema
    with in_words():
        work = Work.from_json(text, schema, pipeline.device)
    if len(work.z_0) != 1:
        raise Refused(
            f"The session has {len(work.z_0)} images, here one is edited at a time; use `lcg edit --session`."
        )
    shape = tuple(pipeline.denoiser.latent_shape)
    if tuple(work.z_0.shape[1:]) != shape or work.z_0.dtype != torch.float32:
        raise Refused(
            f"The session is of latents {tuple(work.z_0.shape[1:])} in {str(work.z_0.dtype).removeprefix('torch.')}, "
            f"this model's are {shape} in float32; open it with the model it was made with."
        )
    if float(work.z_0.abs().max()) > FARTHEST:
        raise Refused("The session's latent is of no image of this model; it is damaged, or of another model.")
    if work.code is not None and not isinstance(pipeline.generator, StochasticGenerator):
        raise Refused("The session has a code beside its latent, which this model's generator does not know.")
    if work.labels is not None:
        with in_words():
            check_labels(work.labels.float().cpu().numpy(), schema, np.zeros(1, np.int64))
    for state in work.states:
        if state.strength is not None and state.strength > 1:
            raise Refused(f"A strength in the session is {state.strength:g}; it must be from 0, the source, to 1.")
        if any(step.weight > MAX_WEIGHT for step in state.steps):
            raise Refused(f"A weight in the session is above {MAX_WEIGHT:g}, the most that an edit can have.")
    return work
