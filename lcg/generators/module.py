"""Any network as a generator: what a Python class or a function makes, named by class_path,

    generator:
      class_path: lcg.generators.module.ModuleGenerator
      init_args:
        network: {class_path: my_package.make_decoder, init_args: {width: 64}}
        latent_shape: [128]
        weights: decoder.safetensors

x = decode(z) and z = encode(x) are methods of the network by name. A function must say what it returns,
`def make_decoder(width: int) -> nn.Module`. What does more than this is a subclass of `Generator` of a dozen lines.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lcg.generators.base import Generator, normal_latents


class ModuleGenerator(Generator):
    """Decodes, and encodes where it can, by the methods of a network, frozen.

    Args:
        network: the network; its latents come first among the arguments of its methods.
        latent_shape: of one latent without the batch, such as [128].
        decode: the method that gives images (B, 3, H, W) of latents.
        encode: the one that gives latents of images; None where there is none.
        black: what a black pixel is to the network, -1 or 0; white is 1. Images of lcg are in [-1, 1].
        weights: state dictionary of the network, as safetensors; None where the network brings its own.
        normal: whether the generator's own prior is N(0, I), as that of most GANs; without it there is none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a method is missing or fails, images are not RGB, the encoder gives other latents, or the weights
            are damaged or of another network.
    """

    def __init__(
        self,
        network: nn.Module,
        latent_shape: list[int],
        decode: str = "forward",
        encode: str | None = None,
        black: Literal[-1, 0] = -1,
        weights: str | None = None,
        normal: bool = False,
    ) -> None:
        super().__init__()
        if black not in (-1, 0):
            raise ValueError(f"`black` must be -1 or 0, got {black!r}; write an adapter of your own for another range")
        if not latent_shape or min(latent_shape) < 1:
            raise ValueError(f"`latent_shape` must be of positive sizes, such as [128], got {latent_shape}")
        for role, method in (("decode", decode), ("encode", encode)):
            if method is not None and not callable(getattr(network, method, None)):
                raise ValueError(f"`{role}` must name a method of {type(network).__name__}, got {method!r}")
        if weights is not None:
            load_into(network, weights)
        self.network, self.methods, self.black = network, {"decode": decode, "encode": encode}, black
        self.normal = normal
        self.requires_grad_(False).eval()
        self.latent_shape, self.image_shape = tuple(latent_shape), (3, 0, 0)
        self._try()

    def decode(self, z: Tensor) -> Tensor:
        x = self._method("decode")(z)
        return 2 * x - 1 if self.black == 0 else x

    def encode(self, x: Tensor) -> Tensor:
        if self.methods["encode"] is None:
            return super().encode(x)
        return self._method("encode")((x + 1) / 2 if self.black == 0 else x)

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return normal_latents(self, n, generator) if self.normal else super().sample_latents(n, generator)

    def identity(self) -> dict[str, Any]:
        """As the contract says, with the network's class, the methods that are called and what is black to them."""
        kind = type(self.network)
        told = {"network": f"{kind.__module__}.{kind.__qualname__}", "methods": self.methods, "black": self.black}
        return {**super().identity(), **told}

    def _method(self, role: str) -> Callable[[Tensor], Tensor]:
        name = self.methods[role]
        return self.network if name == "forward" else getattr(self.network, str(name))

    @torch.no_grad()
    def _try(self) -> None:
        """Sets `image_shape` to what two latents give; raises ValueError where they give no images."""
        name = type(self.network).__name__
        try:
            x = self.decode(torch.zeros(2, *self.latent_shape, device=self.device))
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"{name} must decode latents (2, {', '.join(map(str, self.latent_shape))}), but fails ({error}); check "
                "`latent_shape` and `decode`"
            ) from error
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[:2] != (2, 3):
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{name} must decode 2 latents to RGB images (2, 3, H, W), got {got}; wrap it")
        self.image_shape = (3, x.shape[2], x.shape[3])
        if self.methods["encode"] is not None:
            z = self.encode(x)
            if not isinstance(z, Tensor) or tuple(z.shape[1:]) != self.latent_shape:
                got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
                raise ValueError(
                    f"{name} must encode 2 images to latents {(2, *self.latent_shape)}, got {got}; wrap it"
                )


def load_into(network: nn.Module, weights: str) -> None:
    """Loads a state dictionary. Raises FileNotFoundError, or ValueError where it is damaged or of another network."""
    if not Path(weights).is_file():
        raise FileNotFoundError(f"no weights at {weights}; give a state dictionary as safetensors")
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{weights} is damaged or does not hold the weights of {type(network).__name__} ({error}); save its "
            "state_dict() with safetensors.torch.save_file"
        ) from error
