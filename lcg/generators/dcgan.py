"""A generator of the kind of DCGAN: transposed convolutions from a flat latent with the prior N(0, I),

    h_1 = relu(bn(W_1^T z)),  4 x 4      h_{l+1} = relu(bn(W_{l+1}^T h_l)), twice the size     x = tanh(W_L^T h_{L-1}).

Radford, Metz and Chintala 2016, "Unsupervised representation learning with deep convolutional generative adversarial
networks", arXiv:1511.06434. The sizes of all layers are read off the weights, so that a file of weights is all that is
needed. Batch normalisation goes by its running statistics always: an image must not depend on those beside it.

There is no encoder. A store is filled with latents that are sampled, and with labels of the images that they decode to.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lcg.generators.base import Generator, normal_latents

WRITTEN_BY = "nn.Sequential(ConvTranspose2d, BatchNorm2d, ReLU, ..., ConvTranspose2d, Tanh) with kernels of 4 x 4"


class DCGAN(Generator):
    """Images of latents by a stack of transposed convolutions, frozen.

    Args:
        weights: state dictionary of the stack, as safetensors or as written by `torch.save`, from which nothing but
            tensors is loaded. Names end in `LAYER.weight`, LAYER counting the stack's modules, as in `main.0.weight`.
        key: where the dictionary lies in what the file holds, such as `netG_state_dict`; None where it is all of it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds more than tensors, or the weights of another network.
    """

    def __init__(self, weights: str, key: str | None = None) -> None:
        super().__init__()
        state = layers_of(read_state(weights, key), weights)
        self.stack = build_stack(state, weights)
        try:
            self.stack.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{weights} does not hold the weights of a {WRITTEN_BY}: {error}") from error
        with torch.no_grad():
            _, channels, height, width = self.stack.eval()(torch.zeros(1, len(state["0.weight"]), 1, 1)).shape
        if channels != 3:
            raise ValueError(
                f"{weights} must make images of 3 channels, RGB, got {channels}; use weights of such a one"
            )
        self.latent_shape, self.image_shape = (len(state["0.weight"]),), (3, height, width)
        self.requires_grad_(False).eval()

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, H, W) of latents (B, D). Raises ValueError for latents of another shape."""
        if tuple(z.shape[1:]) != self.latent_shape:
            raise ValueError(f"`z` must be latents of shape {self.latent_shape}, got {tuple(z.shape[1:])}")
        x: Tensor = self.stack(z[:, :, None, None])
        return x

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Raw latents (n, D) from N(0, I)."""
        return normal_latents(self, n, generator)

    def train(self, mode: bool = True) -> DCGAN:
        """Nothing but the flag: statistics of a batch would let its images depend on each other."""
        super().train(False)
        self.training = mode
        return self


def read_state(weights: str, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file by their names. Raises as `DCGAN`."""
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; give a file of safetensors, or one that torch.save wrote")
    if path.suffix == ".safetensors":
        try:
            found: Any = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or holds no safetensors ({error}); copy it again") from error
    else:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(
                f"{path} is damaged or holds more than tensors, which could execute code, so it is not loaded; where "
                "you trust it, load it yourself and save its state dictionary as safetensors"
            ) from error
    if key is not None:
        if not isinstance(found, Mapping) or key not in found:
            names = ", ".join(sorted(map(str, found))[:8]) if isinstance(found, Mapping) else type(found).__name__
            raise ValueError(f"`key` must name what {path} holds, which is {names}, got {key!r}")
        found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        held = ", ".join(sorted(map(str, found))[:8]) if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(f"{path} must hold tensors by name, got {held}; name the state dictionary in it by `key`")
    return dict(found)


def layers_of(state: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """The tensors by `LAYER.NAME`, whatever stood before. Raises ValueError where there are no such names."""
    named = {".".join(name.split(".")[-2:]): tensor for name, tensor in state.items()}
    if len(named) < len(state) or not all(name.split(".")[0].isdigit() for name in named) or "0.weight" not in named:
        raise ValueError(
            f"{file} must hold the weights of a {WRITTEN_BY}, named like main.0.weight, got "
            f"{', '.join(sorted(state)[:4])}; write an adapter of your own for another network"
        )
    return named


def build_stack(state: Mapping[str, Tensor], file: str) -> nn.Sequential:
    """The untrained stack that has weights of these shapes. Raises ValueError where there is none."""
    convolutions = [state[name] for name in sorted(state, key=lambda n: int(n.split(".")[0])) if state[name].ndim == 4]
    shapes = [tuple(weight.shape) for weight in convolutions]
    linked = all(a[1] == b[0] for a, b in pairwise(shapes))
    if len(shapes) < 2 or not linked or any(shape[2:] != (4, 4) for shape in shapes):
        raise ValueError(
            f"{file} must hold the weights of a {WRITTEN_BY}, got tensors of four dimensions {shapes}; write an "
            "adapter of your own for another network"
        )
    layers: list[nn.Module] = []
    for number, (inputs, outputs, *_) in enumerate(shapes):
        stride, padding = (1, 0) if number == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False), nn.BatchNorm2d(outputs)]
        layers += [nn.ReLU()]
    return nn.Sequential(*layers[:-2], nn.Tanh())
