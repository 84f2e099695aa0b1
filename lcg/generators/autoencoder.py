"""The embedded generator: a small autoencoder over a principal-component basis of the images.

Aligned vector art is nearly linear: a few hundred principal components hold it to 50 dB. So the networks work on the k
coefficients c = B^T (x - mean), and one fixed matrix B (k, pixels) carries them to pixels,

    z = normalise(E(c / s)),      x_hat = clamp(mean + B (s * D(z)), -1, 1),

with E and D residual perceptrons. Errors are measured in units of s_k ~ std_k^detail, normalised so that c / s has mean
square 1: detail = 0 measures them in pixels, 1 gives every component the same say, and in between a thin frame of
glasses counts for more than its few pixels. `normalise` is batch normalisation without affine part: every latent
dimension has mean 0 and variance 1 over the training images. In training, noise of standard deviation `latent_noise` is
added to z before D, which makes the latent space smooth (a Gaussian channel of limited capacity) and the decoder
forgiving of a prior's small errors. Trained without labels.

This says nothing about photographs; adapters for other generators meet the same contract.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lcg.generators.base import Generator
from lcg.weights import load_weights

SHIPPED = Path(__file__).parent / "weights" / "avatars.safetensors"


class ResidualBlock(nn.Module):
    """h + W_2 silu(W_1 norm(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, last = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(last.weight)
        self.layers = nn.Sequential(nn.LayerNorm(width), first, nn.SiLU(), last)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.layers(h)


def perceptron(inputs: int, outputs: int, width: int, blocks: int) -> nn.Sequential:
    """A residual perceptron: linear, `blocks` residual blocks, linear."""
    return nn.Sequential(
        nn.Linear(inputs, width), *(ResidualBlock(width) for _ in range(blocks)), nn.SiLU(), nn.Linear(width, outputs)
    )


class PCAAutoencoder(Generator):
    """Encodes images to latents and decodes latents to images.

    Args:
        latent_dim: dimension D of the latent.
        components: principal components k of the basis.
        width: hidden width of encoder and decoder.
        blocks: residual blocks in each.
        latent_noise: standard deviation of the noise added to the latent in training.
        detail: how much more faint components count than their share of the pixels, in [0, 1].
        image_shape: (C, H, W).
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(
        self,
        latent_dim: int = 64,
        components: int = 192,
        width: int = 512,
        blocks: int = 2,
        latent_noise: float = 0.5,
        detail: float = 0.5,
        image_shape: tuple[int, int, int] = (3, 64, 64),
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "latent_dim": latent_dim,
            "components": components,
            "width": width,
            "blocks": blocks,
            "latent_noise": latent_noise,
            "detail": detail,
            "image_shape": list(image_shape),
        }
        channels, height, columns = image_shape
        self.latent_shape, self.image_shape = (latent_dim,), (channels, height, columns)
        self.latent_noise, self.detail = latent_noise, detail
        pixels = channels * height * columns
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("basis", torch.zeros(components, pixels))
        self.register_buffer("scale", torch.ones(components))
        self.encoder = perceptron(components, latent_dim, width, blocks)
        self.normalise = nn.BatchNorm1d(latent_dim, affine=False, momentum=0.01)
        self.decoder = perceptron(latent_dim, components, width, blocks)

    @torch.no_grad()
    def fit_basis(self, x: Float[Tensor, "batch channels height width"], seed: int = 0) -> None:
        """Sets mean, basis and scale from images in [-1, 1], by randomised singular value decomposition.

        Raises:
            ValueError: fewer images than components.
        """
        flat, components = x.flatten(1), self.basis.shape[0]
        if min(flat.shape) < components:
            raise ValueError(
                f"`x` must be at least {components} images of as many pixels for {components} components, "
                f"got {len(flat)} of {flat.shape[1]}; give more images or lower `components`"
            )
        self.mean.copy_(flat.mean(0))
        with torch.random.fork_rng(
            devices=[x.device] if x.is_cuda else []
        ):  # svd_lowrank draws from the global generator
            torch.manual_seed(seed)
            _, _, v = torch.svd_lowrank(flat - self.mean, q=components + 16, niter=2)
        self.basis.copy_(v.T[:components])
        std = ((flat - self.mean) @ self.basis.T).square().mean(0).sqrt()
        scale = std.clamp(min=1e-6 * float(std.max())) ** self.detail
        self.scale.copy_(scale * (std / scale).square().mean().sqrt())

    def coefficients(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch components"]:
        """c / s."""
        return (x.flatten(1) - self.mean) @ self.basis.T / self.scale

    def pixels(self, c: Float[Tensor, "batch components"]) -> Float[Tensor, "batch channels height width"]:
        """mean + B (s c), not clamped."""
        return (self.mean + (c * self.scale) @ self.basis).unflatten(1, self.image_shape)

    def encode(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch latent"]:
        """Latents of images in [-1, 1]. Raises ValueError for images of another shape."""
        if tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(f"`x` must be images of shape {self.image_shape}, got {tuple(x.shape[1:])}; resize them")
        return self.normalise(self.encoder(self.coefficients(x)))

    def decode(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channels height width"]:
        """Images in [-1, 1] of latents. Raises ValueError for latents of another shape."""
        if tuple(z.shape[1:]) != self.latent_shape:
            raise ValueError(f"`z` must be latents of shape {self.latent_shape}, got {tuple(z.shape[1:])}")
        return self.pixels(self.decoder(z)).clamp(-1, 1)


class AvatarAutoencoder(PCAAutoencoder):
    """The embedded generator: a `PCAAutoencoder` with the weights that ship with the package, frozen.

    It was trained without labels on uniform avatars, so it has seen every combination of attributes, also those that
    the biased training set of prior and classifiers leaves out: a generator that never saw a pair cannot decode it.

    Args:
        weights: another file exported by `lcg fit --config configs/generator/avatars.yaml`; None for the shipped one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds other weights.
    """

    def __init__(self, weights: str | None = None) -> None:
        state, config, self.provenance = load_weights(SHIPPED if weights is None else weights)
        try:
            super().__init__(**{**config, "image_shape": tuple(config["image_shape"])})
            self.load_state_dict(state)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{weights or SHIPPED} does not hold an autoencoder ({error}); export it again") from error
        self.eval().requires_grad_(False)
