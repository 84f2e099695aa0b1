"""A peer: the right-hand side of LACE's ordinary differential equation, beside lcg's for the same energies.

    dz/dt = -beta(t)/2 grad_z sum_i log p(y_i | f_i(g(z))),      beta(t) = 0.1 + 19.9 t

(Nie, Vahdat & Anandkumar 2021, arXiv:2110.10873, equation 7.) g is StyleGAN's mapping network, z normalised to mean
square 1 and then eight layers that scale their weights at each call, and f_i a perceptron per attribute,
D-384-256-128-1, LeakyReLU 0.2.

In the public code (github.com/NVlabs/LACE, FFHQ/sampling.py: read, not copied) the list of logits is made by
f_i(g(z)) for each i, so that the mapping network is evaluated, and differentiated, once per attribute; the energies
are summed and differentiated together. lcg evaluates the same mapping once, with weights that were scaled beforehand,
and all perceptrons as one batched product.
LACE's perceptrons are convolutions of one pixel there, with two logits each; here they are linear layers with one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcg.guidance.terms import gradient
from lcg.nets.latent_classifier import LatentClassifier, ParallelLinear
from lcg.schema import Attribute, Schema

SEED, LAYERS, SLOPE, RATE = 0, 8, 0.2, 0.01
BETA_MIN, BETA_MAX = 0.1, 20.0


class Mapping(nn.Module):
    """g: z -> w, both (B, D)."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(EqualLinear(latent) for _ in range(LAYERS)))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8))


class EqualLinear(nn.Module):
    """sqrt(2) leaky_relu((s W) x + r b), scaled at each call, with learning rate r = 0.01 and s = r / sqrt(D)."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(latent, latent) / RATE)
        self.bias = nn.Parameter(torch.zeros(latent))
        self.scale = RATE / math.sqrt(latent)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.linear(x, self.weight * self.scale) + self.bias * RATE
        return math.sqrt(2) * functional.leaky_relu(out, SLOPE)


class FrozenMapping(nn.Module):
    """The same g with its weights scaled once, as they do not change."""

    def __init__(self, mapping: Mapping) -> None:
        super().__init__()
        layers = list(cast("Iterable[EqualLinear]", mapping.layers))
        self.weights = nn.ParameterList(_fixed(layer.weight * layer.scale) for layer in layers)
        self.biases = nn.ParameterList(_fixed(layer.bias * RATE) for layer in layers)

    def forward(self, z: Tensor) -> Tensor:
        w = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            w = math.sqrt(2) * functional.leaky_relu_(functional.linear(w, weight, bias), SLOPE)
        return w


def _fixed(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach(), requires_grad=False)


@dataclass(frozen=True)
class Energies:
    """The same energies twice: as LACE has them, and frozen with perceptrons side by side.

    Attributes:
        mapping: g.
        frozen: g.
        apart: f_i, one by one.
        batched: all f_i.
        signs: +1 where an attribute shall hold, else -1, (K,).
    """

    mapping: Mapping
    frozen: FrozenMapping
    apart: nn.ModuleList
    batched: LatentClassifier
    signs: Tensor

    def noise(self, batch: int) -> Tensor:
        """(batch, D), always the same."""
        z = torch.randn(batch, self.batched.latent_shape[0], generator=torch.Generator().manual_seed(SEED))
        return z.to(self.signs)


def energies(
    latent: int = 512,
    attributes: int = 8,
    hidden: tuple[int, ...] = (384, 256, 128),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Energies:
    """Networks of LACE's sizes, always with the same weights."""
    schema = Schema(tuple(Attribute(f"a{i}") for i in range(attributes)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        mapping, batched = Mapping(latent), LatentClassifier((latent,), schema, hidden, SLOPE)
        apart = nn.ModuleList(_perceptron(batched, i) for i in range(attributes))
    for module in (mapping, batched, apart):
        module.eval().requires_grad_(False).to(device=device, dtype=dtype)
    signs = torch.tensor([1.0, -1.0]).repeat(attributes)[:attributes]
    return Energies(mapping, FrozenMapping(mapping), apart, batched, signs.to(device=device, dtype=dtype))


def peer_velocity(nets: Energies, z: Tensor, t: float) -> Tensor:
    """dz/dt (B, D) as in LACE's code."""
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        terms = []
        for sign, perceptron in zip(nets.signs, nets.apart, strict=True):
            logits = perceptron(nets.mapping(z))
            terms.append(functional.logsigmoid(sign * logits[:, 0]))
        energy = torch.stack(terms).sum(dim=0)
        (slope,) = torch.autograd.grad(energy.sum(), [z])
    return -0.5 * beta(t) * slope


def our_velocity(nets: Energies, z: Tensor, t: float) -> Tensor:
    """dz/dt (B, D) with one mapping and batched perceptrons."""

    def energy(z: Tensor) -> Tensor:
        logits = torch.stack(tuple(nets.batched(nets.frozen(z)).values()), dim=1)
        return functional.logsigmoid(nets.signs * logits).sum(dim=1)

    return -0.5 * beta(t) * gradient(energy, z)


def lace_runs(nets: Energies, batch: int) -> dict[str, Callable[[], Tensor]]:
    """What is to be timed."""
    z = nets.noise(batch)
    return {"LACE": lambda: peer_velocity(nets, z, 0.5), "lcg": lambda: our_velocity(nets, z, 0.5)}


def beta(t: float) -> float:
    """Linear, 0.1 at t = 0 and 20 at t = 1."""
    return BETA_MIN + t * (BETA_MAX - BETA_MIN)


def _perceptron(batched: LatentClassifier, attribute: int) -> nn.Sequential:
    """f_i by itself, with the weights it has in the batch."""
    modules: list[nn.Module] = []
    for layer in cast("Iterable[ParallelLinear]", batched.layers):
        weight = layer.weight[attribute].detach().T
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data.copy_(weight)
        linear.bias.data.copy_(layer.bias[attribute, 0].detach())
        modules += [linear, nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*modules[:-1])
