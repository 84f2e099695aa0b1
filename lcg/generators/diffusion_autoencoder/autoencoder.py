"""Diffusion autoencoder: what an image means in one vector, and the rest of it in the noise that it comes from.

    z_sem = E(x),      x = decode(z_sem, x_T) by DDIM from x_T with the denoiser eps(x_t, t, z_sem),
    x_T = the same path backwards, from x                                               (the stochastic code)

(Preechakul et al. 2022, arXiv:2111.15640, equations 5 to 8). z_sem is what lcg edits; x_T keeps what z_sem leaves out,
so that a real image reconstructs. The path is the probability-flow ODE, deterministic both ways. Backwards it is solved
on the same times by a fixed point (`DDIM.invert`), where the paper takes an explicit step on a finer grid: thus the
round trip is tight with few steps. Without a code of its own an image is decoded from one that is always the same.

Two things are optional, and absent from the paper. `normalise` is batch normalisation without affine part of z_sem,
which gives every dimension mean 0 and variance 1 over the training images; in training, noise of standard deviation
`latent_noise` is added to it, which makes the latent space smooth.

A small U-Net has too few channels to carry the noise from its input to its output, as eps and v demand. It need not if
x_0 is thought to spread by s about what z_sem says: then, with D = alpha_t^2 s^2 + sigma_t^2 and F the U-Net's output,

    v_hat = alpha_t sigma_t (1 - s^2) x_t / D - F / sqrt(D)

has F ~ x_0 where there is more noise than s (Karras et al. 2022, arXiv:2206.00364, table 1). s = 1 is plain velocity.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from os import PathLike
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lcg.diffusion import (
    DDIM,
    CosineSchedule,
    Denoiser,
    LinearSchedule,
    Schedule,
    coefficients,
    eps_from_v,
    expand,
)
from lcg.generators.base import StochasticGenerator
from lcg.generators.diffusion_autoencoder.networks import Architecture, ConditionalUNet, SemanticEncoder
from lcg.weights import load_weights

Prediction = Literal["eps", "v"]
Chain = Literal["cosine", "linear"]

STEPS = 1000
"""Of the chain whose step the U-Net is told."""


def linear_chain() -> Tensor:
    """log alpha (1000,) of the DDPM chain whose beta rises from 1e-4 to 0.02, in float64."""
    return 0.5 * torch.log1p(-torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)).cumsum(0)


class DiffusionAutoencoder(StochasticGenerator):
    """Semantic encoder and conditional denoiser.

    Args:
        architecture: their sizes.
        steps: of the path between noise and image, one evaluation of the U-Net each.
        t_start: where the path begins, below 1.
        iterations: evaluations for each step of the way back; more are tighter, 1 is the explicit step.
        prediction: what the U-Net predicts, the noise or the velocity.
        chain: the noise schedule, and how the U-Net is told the time: `linear` is the chain of DDPM, as in the paper.
        normalise: batch normalisation of z_sem.
        latent_noise: standard deviation of the noise added to z_sem in training.
        spread: s in (0, 1], for the prediction v.
        code_std: of the fixed code; 0, the middle of all codes, leaves least noise where z_sem holds nearly everything.

    Raises:
        ValueError: a choice that there is not, iterations < 1, a spread out of range, or steps and times that no
            sampler can have.
    """

    code: Tensor

    def __init__(
        self,
        architecture: Architecture = Architecture(),  # noqa: B008 (never changed; the default is the help)
        steps: int = 10,
        t_start: float = 0.995,
        iterations: int = 4,
        prediction: Prediction = "v",
        chain: Chain = "cosine",
        normalise: bool = True,
        latent_noise: float = 0.3,
        spread: float = 0.2,
        code_std: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value, choices in (("prediction", prediction, Prediction), ("chain", chain, Chain)):
            if value not in get_args(choices):
                raise ValueError(f"`{name}` must be one of {', '.join(get_args(choices))}, got {value!r}")
        if iterations < 1:
            raise ValueError(f"`iterations` must be at least 1, got {iterations}; 1 is plain inversion, 4 are tighter")
        if not 0 < spread <= 1:
            raise ValueError(f"`spread` must be in (0, 1], got {spread}; 1 predicts the plain velocity")
        self.architecture, self.prediction, self.iterations = architecture, prediction, iterations
        self.latent_noise, self.spread = latent_noise, spread
        self.config: dict[str, Any] = {
            "architecture": asdict(architecture),
            "steps": steps,
            "t_start": t_start,
            "iterations": iterations,
            "prediction": prediction,
            "chain": chain,
            "normalise": normalise,
            "latent_noise": latent_noise,
            "spread": spread,
            "code_std": code_std,
        }
        self.latent_shape = (architecture.latent_dim,)
        self.code_shape = self.image_shape = (3, architecture.image_size, architecture.image_size)
        self.schedule: Schedule = CosineSchedule() if chain == "cosine" else LinearSchedule()
        self.sampler = DDIM(self.schedule, steps, t_start)
        noise = torch.randn(self.code_shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("code", code_std * noise)
        self.encoder, self.unet = SemanticEncoder(architecture), ConditionalUNet(architecture)
        self.normalise = (
            nn.BatchNorm1d(architecture.latent_dim, affine=False, momentum=0.01) if normalise else nn.Identity()
        )

    def encode(self, x: Tensor) -> Tensor:
        """z_sem of images in [-1, 1]. Raises ValueError for images of another shape."""
        self._check("x", x, self.image_shape)
        z: Tensor = self.normalise(self.encoder(x).to(x.dtype))  # under autocast too
        return z

    def decode(self, z: Tensor, code: Tensor | None = None) -> Tensor:
        """Images in [-1, 1]. Raises ValueError for latents or codes of another shape."""
        self._check("z", z, self.latent_shape)
        if code is None:
            code = self.code.expand(len(z), *self.code_shape)
        self._check("code", code, self.code_shape)
        if len(code) != len(z):
            raise ValueError(
                f"`code` must have a row for each of {len(z)} latents, got {len(code)}; give the sources' own"
            )
        sampler, x_T = self.sampler, code.to(z.dtype)
        # Not `sample`, which takes no gradient: guidance by images, and latents by descent, go through here.
        x = sampler.solve(sampler.path(self.denoiser(z), sampler.grid(x_T)), x_T, None, None)
        return x.clamp(-1, 1)

    @torch.no_grad()
    def stochastic_code(self, x: Tensor, z: Tensor) -> Tensor:
        """x_T of images. Raises ValueError for images or latents of another shape."""
        self._check("x", x, self.image_shape)
        self._check("z", z, self.latent_shape)
        return self.sampler.invert(self.denoiser(z), x.to(z.dtype), iterations=self.iterations)

    def denoiser(self, z: Tensor) -> Denoiser:
        """eps_hat of noised images (B, C, H, W) whose latents are z (B, latent).

        Where a gradient is asked for, an evaluation keeps its input alone and is made again on the way back, so that
        the memory of a path is that of one evaluation.
        """
        if torch.is_grad_enabled():
            return lambda x_t, t: checkpoint(self._eps_hat, x_t, t, z, use_reentrant=False, preserve_rng_state=False)
        return partial(self._eps_hat, z=z)

    def _eps_hat(self, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
        predicted = self.predict(x_t, t, z)
        return eps_from_v(self.schedule, x_t, t, predicted) if self.prediction == "v" else predicted

    def predict(self, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """eps or v (B, C, H, W) of noised images at times t (B,) in [0, 1]."""
        output: Tensor = self.unet(x_t, self.index(t).to(x_t.dtype), z)
        if self.prediction == "eps":
            return output
        alpha, sigma = coefficients(self.schedule, t, x_t)
        variance = expand(self.variance(t), x_t)
        return alpha * sigma * (1 - self.spread**2) / variance * x_t - output / variance.sqrt()

    def variance(self, t: Tensor) -> Tensor:
        """D (B,), by which the squared error of v is that of the U-Net's output; 1 where it predicts eps."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return torch.ones_like(alpha) if self.prediction == "eps" else (self.spread * alpha) ** 2 + sigma**2

    def index(self, t: Tensor) -> Tensor:
        """The step of the chain, between 0 and 1000, at which it has as much noise as the schedule at t (B,)."""
        if isinstance(self.schedule, CosineSchedule):
            return STEPS * t
        levels, asked = linear_chain().to(t.device), self.schedule.log_alpha(t)
        after = torch.searchsorted(-levels, -asked).clamp(1, STEPS - 1)
        before = after - 1
        return before + (asked - levels[before]) / (levels[after] - levels[before])

    def identity(self) -> dict[str, Any]:
        """As the contract says, with the constructor's arguments: images depend on the steps of their path."""
        return {**super().identity(), "config": self.config}

    def _check(self, name: str, given: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(given.shape[1:]) != shape:
            raise ValueError(
                f"`{name}` must be of shape (B, {', '.join(map(str, shape))}), got {tuple(given.shape)}; "
                "x and code are of the size of the images, z is what `encode` gives"
            )


class SavedDiffusionAutoencoder(DiffusionAutoencoder):
    """A diffusion autoencoder from its file, frozen.

    Args:
        weights: what `lcg fit --config configs/generator/diffusion_autoencoder.yaml` or
            `python -m lcg.generators.diffusion_autoencoder.official` wrote.
        steps: of the path, in the place of the file's.
        iterations: for each step of the way back, in the place of the file's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds other weights.
    """

    def __init__(self, weights: str | PathLike[str], steps: int | None = None, iterations: int | None = None) -> None:
        state, config, provenance = load_weights(weights)
        own = {"steps": steps, "iterations": iterations}
        try:
            architecture = Architecture(**config.pop("architecture"))
            super().__init__(architecture, **(config | {k: v for k, v in own.items() if v is not None}))
            self.load_state_dict(state)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{weights} does not hold a diffusion autoencoder ({error}); export it again") from error
        self.provenance = provenance
        self.eval().requires_grad_(False)
