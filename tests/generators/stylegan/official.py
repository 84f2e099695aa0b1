"""Pickles in the very format of the official ones, of small networks with random weights, and what they compute.

`Persistent` pickles as the objects of NVIDIA's persistence decorator do: by a function of torch_utils.persistence that
is called with a dictionary of the class's source code, its name and the object's state. `image` is what such a network
computes, once more and by other means than the code under test: in float64, each row by itself, with weights that are
scaled for it, zeros that are really put in, and dense filters of two dimensions.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import signal
from torch import Tensor

SOURCE = "raise SystemExit('source code of the file was executed')"
Array = NDArray[np.float64]


class EasyDict(dict[str, Any]):
    """As dnnlib has it."""


EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise AssertionError("the official loader was called")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Persistent:
    """A module of the official code, with its state."""

    def __init__(
        self,
        class_name: str,
        parameters: dict[str, Tensor] | None = None,
        buffers: dict[str, Tensor] | None = None,
        modules: dict[str, Persistent] | None = None,
        arguments: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.class_name = class_name
        self.parameters = {name: torch.nn.Parameter(tensor) for name, tensor in (parameters or {}).items()}
        self.buffers, self.modules = buffers or {}, modules or {}
        self.arguments, self.settings = EasyDict(arguments or {}), settings

    def __reduce__(self) -> tuple[Any, ...]:
        state = {
            "training": False,
            "_parameters": OrderedDict(self.parameters),
            "_buffers": OrderedDict(self.buffers),
            "_non_persistent_buffers_set": set(),
            "_backward_hooks": OrderedDict(),
            "_modules": OrderedDict(self.modules),
            **self.settings,
            "_init_args": (),
            "_init_kwargs": self.arguments,
        }
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self.class_name, "state": state}
        return _reconstruct_persistent_obj, (meta,), None

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """All parameters and buffers, by name."""
        for name, tensor in {**self.parameters, **self.buffers}.items():
            yield prefix + name, tensor.detach()
        for name, module in self.modules.items():
            yield from module.tensors(f"{prefix}{name}.")

    def __getitem__(self, path: str) -> Persistent:
        module = self
        for name in path.split("."):
            module = module.modules[name]
        return module


def pickled(networks: Any, protocol: int = 4) -> bytes:
    """A file of such objects; the official modules exist for as long as this takes."""
    persistence, util = types.ModuleType("torch_utils.persistence"), types.ModuleType("dnnlib.util")
    persistence.__dict__["_reconstruct_persistent_obj"] = _reconstruct_persistent_obj
    util.__dict__["EasyDict"] = EasyDict
    theirs = {
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": persistence,
        "dnnlib": types.ModuleType("dnnlib"),
        "dnnlib.util": util,
    }
    sys.modules.update(theirs)
    try:
        return pickle.dumps(networks, protocol=protocol)
    finally:
        for name in theirs:
            del sys.modules[name]


def as_official(g_ema: Persistent) -> dict[str, Any]:
    """The dictionary that official files hold."""
    return {"G": None, "D": None, "G_ema": g_ema, "training_set_kwargs": EasyDict(path="x"), "augment_pipe": None}


class Draw:
    """Random numbers, and layers made of them."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)

    def linear(self, inputs: int, outputs: int, lr: float = 1.0, bias: float = 0.0, act: str = "linear") -> Persistent:
        gain = lr / np.sqrt(inputs)  # a scalar of NumPy, as officially
        weights = {"weight": self(outputs, inputs) / lr, "bias": bias + 0.1 * self(outputs) / lr}
        return Persistent(
            "FullyConnectedLayer", weights, weight_gain=gain, bias_gain=lr, activation=act, in_features=inputs
        )

    def mapping(self, z_dim: int, w_dim: int, layers: int) -> Persistent:
        parts = {f"fc{k}": self.linear(z_dim if k == 0 else w_dim, w_dim, 0.01, act="lrelu") for k in range(layers)}
        return Persistent("MappingNetwork", buffers={"w_avg": self(w_dim)}, modules=parts, z_dim=z_dim)


BINOMIAL = torch.tensor([1.0, 3, 3, 1]).outer(torch.tensor([1.0, 3, 3, 1])) / 64


def stylegan2(
    channels: tuple[int, ...] = (6, 6, 5, 4),
    w_dim: int = 7,
    architecture: str = "skip",
    clamp: float | None = None,
    noisy: bool = True,
    seed: int = 0,
) -> Persistent:
    draw, blocks = Draw(seed), {}

    def layer(inputs: int, outputs: int, size: int) -> Persistent:
        buffers = {"resample_filter": BINOMIAL}
        parameters = {"weight": draw(outputs, inputs, 3, 3), "bias": 0.1 * draw(outputs)}
        if noisy:
            parameters["noise_strength"], buffers["noise_const"] = 0.2 + 0.1 * draw(), draw(size, size)
        affine = {"affine": draw.linear(w_dim, inputs, bias=1)}
        padding = np.array([1, 1])
        return Persistent(
            "SynthesisLayer", parameters, buffers, affine, activation="lrelu", conv_clamp=clamp, padding=padding
        )

    for k, width in enumerate(channels):
        size, inputs = 4 * 2**k, channels[max(k - 1, 0)]
        parts = {} if k == 0 else {"conv0": layer(inputs, width, size)}
        parts["conv1"] = layer(width, width, size)
        if architecture == "skip" or k == len(channels) - 1:
            parts["torgb"] = Persistent(
                "ToRGBLayer",
                {"weight": draw(3, width, 1, 1), "bias": 0.1 * draw(3)},
                modules={"affine": draw.linear(w_dim, width, bias=1)},
                conv_clamp=clamp,
                weight_gain=1 / np.sqrt(width),
            )
        if architecture == "resnet" and k > 0:
            parts["skip"] = Persistent(
                "Conv2dLayer",
                {"weight": draw(width, inputs, 1, 1)},
                {"resample_filter": BINOMIAL},
                weight_gain=1 / np.sqrt(inputs),
                activation="linear",
            )
        constant = {"const": draw(width, 4, 4)} if k == 0 else {}
        blocks[f"b{size}"] = Persistent("SynthesisBlock", constant, {"resample_filter": BINOMIAL}, parts)
    synthesis = Persistent("SynthesisNetwork", modules=blocks, w_dim=w_dim)
    return Persistent("Generator", modules={"synthesis": synthesis, "mapping": draw.mapping(5, w_dim, 3)}, z_dim=5)


# --- what they compute -----------------------------------------------------------------------------------------------


def array(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().double().numpy())


def linear(layer: Persistent, x: Array) -> Array:
    weight, bias = (array(layer.parameters[name]) for name in ("weight", "bias"))
    y = x @ (weight * layer.settings["weight_gain"]).T + bias * layer.settings["bias_gain"]
    return np.where(y > 0, y, 0.2 * y) * np.sqrt(2) if layer.settings["activation"] == "lrelu" else y


def mapped(network: Persistent, z: Array) -> Array:
    """w (B, w_dim) of z (B, z_dim), not truncated."""
    x = z / np.sqrt((z**2).mean(1, keepdims=True) + 1e-8)
    for layer in network["mapping"].modules.values():
        x = linear(layer, x)
    return x


def zeros_between(x: Array, factor: int) -> Array:
    """(C, H, W) with factor - 1 zeros after each sample."""
    y = np.zeros((x.shape[0], x.shape[1] * factor, x.shape[2] * factor))
    y[:, ::factor, ::factor] = x
    return y


def filtered(x: Array, f: Array) -> Array:
    """(C, H, W), convolved with (K, K), where both overlap wholly."""
    return np.stack([signal.convolve2d(channel, f, mode="valid") for channel in x])


def enlarged(x: Array, more: int = 0) -> Array:
    """Twice as large, by zeros and the filter; `more` zeros beyond each edge."""
    padded = np.pad(zeros_between(x, 2), ((0, 0), (2 + more, 1 + more), (2 + more, 1 + more)))
    return filtered(padded, 4 * array(BINOMIAL))


def correlated(x: Array, weight: Array, padding: int) -> Array:
    return array(F.conv2d(torch.from_numpy(x)[None], torch.from_numpy(weight.copy()), padding=padding)[0])


def modulated(layer: Persistent, w: Array, demodulate: bool = True) -> Array:
    """The weights of a layer for one w (w_dim,)."""
    style = linear(layer["affine"], w[None])[0]
    weight = array(layer.parameters["weight"]) * style[None, :, None, None]
    return weight / np.sqrt((weight**2).sum((1, 2, 3), keepdims=True) + 1e-8) if demodulate else weight


def bounded(x: Array, bound: float | None) -> Array:
    return x if bound is None else np.clip(x, -bound, bound)


def styled(layer: Persistent, x: Array, w: Array, doubles: bool, gain: float, noisy: bool) -> Array:
    weight = modulated(layer, w)
    turned = weight[:, :, ::-1, ::-1]  # what doubles is a true convolution, the other a correlation
    x = correlated(enlarged(x, 1), turned, 0) if doubles else correlated(x, weight, 1)
    if noisy and "noise_const" in layer.buffers:
        x = x + array(layer.parameters["noise_strength"]) * array(layer.buffers["noise_const"])
    x = x + array(layer.parameters["bias"])[:, None, None]
    x = np.where(x > 0, x, 0.2 * x) * np.sqrt(2) * gain
    clamp = layer.settings["conv_clamp"]
    return bounded(x, None if clamp is None else clamp * gain)


def image2(network: Persistent, w: Array, noisy: bool = True) -> Array:
    """The image (3, H, W), not clamped, of one w of W+ (latents, w_dim), by StyleGAN2."""
    latent, x, image = 0, np.empty(0), None
    for block in network["synthesis"].modules.values():
        parts, before = block.modules, x
        gain = np.sqrt(0.5) if "skip" in parts else 1.0
        if "conv0" in parts:
            x = styled(parts["conv0"], x, w[latent], True, 1.0, noisy)
            latent += 1
        else:
            x = array(block.parameters["const"])
        x = styled(parts["conv1"], x, w[latent], False, gain, noisy)
        latent += 1
        if "skip" in parts:
            shortcut = array(parts["skip"].parameters["weight"]) * parts["skip"].settings["weight_gain"]
            x = x + gain * enlarged(correlated(before, shortcut, 0))
        if image is not None:
            image = enlarged(image)
        if "torgb" in parts:
            layer = parts["torgb"]
            weight = modulated(layer, w[latent], demodulate=False) * layer.settings["weight_gain"]
            colours = correlated(x, weight, 0) + array(layer.parameters["bias"])[:, None, None]
            colours = bounded(colours, layer.settings["conv_clamp"])
            image = colours if image is None else image + colours
    assert image is not None
    return image
