"""StyleGAN2 and StyleGAN3 as generators, whose latent is the w of their mapping network, or one w for each layer.

    w = mapping(z),  z ~ N(0, I),          x = clamp(synthesis(w), -1, 1)

In W all layers take the same w (w_dim,); in W+ each takes its own (latents, w_dim), which reconstructs given images far
better and leaves the manifold that the network knows (Abdal et al. 2019, arXiv:1904.03189). Images are a function of
the latent: noise is the stored constant, or none.

Synthesis knows no bounds, and lcg's images end at -1 and 1. So a pixel that is saturated has no gradient. Guidance and
descent are led by the others; an image of which no pixel is left has a latent far beyond any that mapping gives.

Written from the papers (Karras et al. 2019, 2020, 2021: arXiv:1812.04948, 1912.04958, 2106.12423); weights come from
the official files by `lcg convert-stylegan`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lcg.generators.base import Generator
from lcg.generators.stylegan import stylegan2, stylegan3
from lcg.generators.stylegan.files import read
from lcg.generators.stylegan.layers import MappingNetwork

Space = Literal["w", "w+"]
Noise = Literal["const", "none"]
Synthesis = stylegan2.Synthesis | stylegan3.Synthesis
SYNTHESES: dict[str, type[Synthesis]] = {
    "StyleGAN2": stylegan2.Synthesis,
    "StyleGAN3": stylegan3.Synthesis,
}
"""Which synthesis network belongs to which class of generators."""


class StyleGAN(Generator):
    """What both have in common; use `StyleGAN2` or `StyleGAN3`.

    Args:
        weights: .safetensors file that `lcg convert-stylegan` has written.
        space: "w" for latents (w_dim,), "w+" for latents (latents, w_dim).
        truncation: psi, how far samples of the prior lie from the mean w, as a share; 1 is the prior itself, less gives
            less variety and fewer failures.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, or an option is out of range.
    """

    kind: ClassVar[str]
    mapping: MappingNetwork
    synthesis: Synthesis

    def __init__(self, weights: str, space: Space = "w", truncation: float = 1.0) -> None:
        super().__init__()
        if space not in ("w", "w+"):
            raise ValueError(f"`space` must be 'w' or 'w+', got {space!r}")
        if not 0 <= truncation <= 1:
            raise ValueError(f"`truncation` must be in [0, 1], got {truncation}; 1 is none, 0.7 is usual for faces")
        self.space, self.truncation = space, truncation
        state, self.architecture, self.provenance = read(weights, self.kind)
        try:
            self.mapping, self.synthesis = networks(self.kind, self.architecture)
            self.load_state_dict(state)
        except (KeyError, TypeError, ValueError, IndexError, ArithmeticError, RuntimeError) as error:
            raise ValueError(
                f"{weights} does not hold a {self.kind} ({error}); convert the official file again"
            ) from error
        w_dim, size = len(self.mapping.w_mean), self.synthesis.size
        self.latent_shape = (w_dim,) if space == "w" else (self.synthesis.latents, w_dim)
        self.image_shape = (3, size, size)
        self.eval().requires_grad_(False)

    def decode(self, z: Tensor) -> Tensor:
        if tuple(z.shape[1:]) != self.latent_shape:
            raise ValueError(f"`z` must be latents of shape {self.latent_shape}, got {tuple(z.shape[1:])}")
        return self.synthesise(self.broadcast(z) if self.space == "w" else z).clamp(-1, 1)

    def synthesise(self, w: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, of w (B, latents, w_dim)."""
        x: Tensor = self.synthesis(w)
        return x

    def broadcast(self, w: Tensor) -> Tensor:
        """W to W+: one w (B, w_dim) for all layers, (B, latents, w_dim)."""
        return w[:, None].expand(-1, self.synthesis.latents, -1)

    @torch.no_grad()
    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """w of n standard normal z, drawn towards the mean by `truncation`; in W+ the same for all layers."""
        mean, device = self.mapping.w_mean, torch.device("cpu") if generator is None else generator.device
        z = torch.randn(n, self.mapping.z_dim, generator=generator, device=device).to(mean)
        w = self.mapping.truncated(z, self.truncation)
        return w if self.space == "w" else self.broadcast(w).contiguous()

    def identity(self) -> dict[str, Any]:
        """As the contract says, with the architecture, which says what the weights are used for."""
        return {**super().identity(), "architecture": self.architecture}


class StyleGAN2(StyleGAN):
    """StyleGAN2, and StyleGAN2-ADA, which is the same network: noise in each layer, skips or residual blocks.

    Args:
        weights: .safetensors file that `lcg convert-stylegan` has written.
        space: "w" for latents (w_dim,), "w+" for latents (latents, w_dim).
        truncation: psi, how far samples of the prior lie from the mean w, as a share.
        noise: "const" for the stored noise, "none" for images without, which are smoother in hair and skin.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, or an option is out of range.
    """

    kind = "StyleGAN2"

    def __init__(self, weights: str, space: Space = "w", truncation: float = 1.0, noise: Noise = "const") -> None:
        if noise not in ("const", "none"):
            raise ValueError(f"`noise` must be 'const' or 'none', got {noise!r}; random noise would change each image")
        super().__init__(weights, space, truncation)
        self.noise = noise

    def synthesise(self, w: Tensor) -> Tensor:
        x: Tensor = self.synthesis(w, self.noise == "const")
        return x

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "noise": self.noise}


class StyleGAN3(StyleGAN):
    """StyleGAN3-t and -r: images whose details move with what they belong to.

    Args:
        weights: .safetensors file that `lcg convert-stylegan` has written.
        space: "w" for latents (w_dim,), "w+" for latents (latents, w_dim).
        truncation: psi, how far samples of the prior lie from the mean w, as a share.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, or an option is out of range.
    """

    kind = "StyleGAN3"


def networks(kind: str, architecture: dict[str, Any]) -> tuple[MappingNetwork, Synthesis]:
    """Mapping and synthesis, of which no weight has a value yet.

    Args:
        kind: StyleGAN2 or StyleGAN3.
        architecture: arguments of both, as {"mapping": {...}, "synthesis": {...}}.
    """
    return MappingNetwork(**architecture["mapping"]), SYNTHESES[kind](**architecture["synthesis"])
