"""A generator of flat colours and a labeller of colours: all that the commands need, and known exactly."""

import os
import signal
import sys

import numpy as np
import torch

from lcg.generators.base import Generator
from lcg.labels.base import Labeller
from lcg.labels.pictures import DrawnPictures
from lcg.labels.storing import label_store
from lcg.schema import Attribute, Schema


class Flat(Generator):
    """x = tanh(z) in every pixel: the latent is the colour."""

    latent_shape = (3,)
    image_shape = (3, 8, 8)

    def __init__(self, prior: bool = True) -> None:
        super().__init__()
        self.prior = prior
        self.register_buffer("one", torch.ones(1))

    def decode(self, z):
        return torch.tanh(z)[:, :, None, None].expand(-1, -1, 8, 8)

    def identity(self):
        return {**super().identity(), "class": "Flat"}  # also where this file is the program

    def sample_latents(self, n, generator=None):
        return torch.randn(n, 3, generator=generator) if self.prior else super().sample_latents(n, generator)


class Red(Labeller):
    """`red`, and `shade` where it is; stops the process when it has looked at so many images."""

    schema = Schema((Attribute("red"), Attribute("shade", "categorical", ("dark", "light"), applies_if={"red": True})))

    def __init__(self, patience: int | None = None) -> None:
        self.patience = patience

    def label(self, images):
        if self.patience is not None:
            self.patience -= len(images)
            if self.patience < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        mean = images.mean((1, 2))
        red = mean[:, 0] > 127.5
        return np.stack([red, np.where(red, mean[:, 1] > 127.5, np.nan)], 1).astype(np.float32)

    def identity(self):
        return {"class": "Red", "weights_sha256": "a" * 64}


if __name__ == "__main__":  # FOLDER PATIENCE: labels draws until it is killed
    label_store(DrawnPictures(Flat(), 50, seed=3, batch_size=4), Red(int(sys.argv[2])), sys.argv[1], 16, progress=False)
