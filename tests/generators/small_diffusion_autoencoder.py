"""A small diffusion autoencoder with random weights: 16x16 images, 8-d latents, a few milliseconds a decode."""

from __future__ import annotations

import torch

from lcg.generators.diffusion_autoencoder import Architecture, DiffusionAutoencoder

SMALL = Architecture(
    image_size=16,
    latent_dim=8,
    patch=4,
    channels=8,
    multipliers=[1, 2],
    encoder_channels=8,
    encoder_multipliers=[1, 2],
    embed=16,
    map_channels=4,
)


class SmallDiffusionAutoencoder(DiffusionAutoencoder):
    """The same weights for the same seed; the layers that start at zero are drawn too, so that z_sem and x_T matter.

    The weights are small, as those of a trained network act: larger ones make a path of few steps chaotic.

    Args:
        image_size: height and width, a multiple of 8.
        latent_dim: of z_sem.
        steps: of the path.
        iterations: for each step of the way back.
        seed: of the weights.
    """

    def __init__(
        self, image_size: int = 16, latent_dim: int = 8, steps: int = 5, iterations: int = 4, seed: int = 0
    ) -> None:
        sizes = {**vars(SMALL), "image_size": image_size, "latent_dim": latent_dim}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(Architecture(**sizes), steps=steps, iterations=iterations, spread=1.0, code_std=1.0)
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=0.4 * parameter[0].numel() ** -0.5)
        self.eval().requires_grad_(False)
