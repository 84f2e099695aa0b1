"""Prior and classifiers of one generator through another that draws the same: the images come out the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lcg
from lcg.data.avatars import AvatarSource
from lcg.encoding.job import encode_many
from lcg.generators.autoencoder import AvatarAutoencoder
from lcg.generators.base import Generator, weights_sha256
from lcg.settings import Sampling
from lcg.transfer import MappedGenerator
from lcg.transfer.job import transfer_job
from tests.transfer.worlds import stretched


class Elsewhere(Generator):
    """The embedded generator in other coordinates."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = AvatarAutoencoder()
        self.latent_shape, self.image_shape = self.generator.latent_shape, self.generator.image_shape
        self.register_buffer("change", stretched(64).float())

    def decode(self, z: Tensor) -> Tensor:
        return self.generator.decode(torch.linalg.solve(self.change.T, (z + 1).T).T)

    def encode(self, x: Tensor) -> Tensor:
        return self.generator.encode(x) @ self.change - 1


def test_prior_and_classifiers_drive_a_generator_that_they_have_never_seen(demo: Any, tmp_path: Path) -> None:
    b, source = Elsewhere(), AvatarSource("biased", 600, "train")
    encode_many(source, b, tmp_path / "b", progress=False)
    transfer_job(demo.store, str(tmp_path / "b"), str(tmp_path / "t"))
    mapped = MappedGenerator(b, str(tmp_path / "t" / "map.safetensors"))
    native = lcg.load(demo.prior, demo.classifier, sampling=Sampling(steps=4))
    assert mapped.latents_sha256() == weights_sha256(native.generator)
    transferred = lcg.load(demo.prior, demo.classifier, mapped, sampling=Sampling(steps=4))
    ours, theirs = (pipeline.generate("hat & ~glasses", n=4) for pipeline in (transferred, native))
    assert np.abs(ours.images.astype(int) - theirs.images.astype(int)).max() <= 2
    after = [pipeline.edit(theirs.images, "+beard")[-1].astype(int) for pipeline in (transferred, native)]
    assert np.abs(after[0] - after[1]).mean() < 0.5
