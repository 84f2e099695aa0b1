"""The networks that every loop runs: a prior and K separate classifiers of noised latents, with fixed random weights.

    small    latent 128, prior of 6 x 512         big    latent 512, prior of 10 x 2048

and K = 8 binary attributes with a classifier of 3 x 512 each, all of them lcg's own modules. Big is the size of the
latent prior of Diffusion Autoencoders (Preechakul et al. 2022, arXiv:2111.15640, table 6). Weights are drawn in float32
whatever the precision, so that a float64 copy is the same network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcg.diffusion import Schedule
from lcg.nets.classifier import TimeConditionedClassifier, Trunk
from lcg.nets.denoiser import LatentDenoiser
from lcg.schema import Attribute, Schema

SEED = 0
WIDE_TIME = 512
"""Dimension of the time features in peers that have four times as many as channels; lcg's default is 64."""


@dataclass(frozen=True)
class Shape:
    """Sizes.

    Attributes:
        name: in tables.
        latent: numbers in a latent.
        width: of the prior.
        depth: residual blocks of the prior, two square layers each.
        classifier_width: of each classifier.
        classifier_depth: residual blocks of each classifier.
        attributes: K.
        time_features: of all networks.
    """

    name: str
    latent: int
    width: int
    depth: int
    classifier_width: int = 512
    classifier_depth: int = 1
    attributes: int = 8
    time_features: int = 64


SMALL = Shape("small", latent=128, width=512, depth=3)
BIG = Shape("big", latent=512, width=2048, depth=5)


@dataclass(frozen=True)
class Nets:
    """What is sampled: log p(z_t) + weight sum_i log p(y_i | z_t).

    Attributes:
        shape: of the networks.
        prior: predicts eps, as peers' networks do.
        classifiers: one attribute each.
        labels: y, (K,) bool.
        weight: of guidance.
    """

    shape: Shape
    prior: LatentDenoiser
    classifiers: tuple[TimeConditionedClassifier, ...]
    labels: tuple[bool, ...]
    weight: float = 2.0

    @property
    def schedule(self) -> Schedule:
        """The prior's."""
        return self.prior.schedule

    @property
    def like(self) -> Tensor:
        """A tensor of the networks' precision, in their place."""
        return next(self.prior.parameters()).detach()

    def noise(self, batch: int) -> Tensor:
        """The (batch, latent) from which sampling starts, always the same."""
        z = torch.randn(batch, self.shape.latent, generator=torch.Generator().manual_seed(SEED))
        return z.to(self.like)


def side_by_side(nets: Nets) -> TimeConditionedClassifier:
    """The same classifiers as one, with a trunk for each attribute."""
    return _merged(nets, "separate")


def on_one_trunk(nets: Nets) -> TimeConditionedClassifier:
    """Another classifier of the same attributes: all share the first one's trunk, and each has its logit."""
    return _merged(nets, "shared")


def _merged(nets: Nets, trunk: Trunk) -> TimeConditionedClassifier:
    shape, schema = nets.shape, Schema(tuple(classifier.schema.attributes[0] for classifier in nets.classifiers))
    merged = TimeConditionedClassifier(
        (shape.latent,),
        schema,
        shape.classifier_width,
        shape.classifier_depth,
        time_features=shape.time_features,
        trunk=trunk,
    )
    merged.to(nets.like).eval().requires_grad_(False)
    states = [classifier.net.state_dict() for classifier in nets.classifiers]
    if trunk == "separate":
        for net, state in zip(merged.nets, states, strict=True):
            net.load_state_dict(state)
    else:
        last = {name: torch.cat([state[name] for state in states]) for name in ("output.weight", "output.bias")}
        merged.net.load_state_dict(states[0] | last)
    return merged


def build(shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Nets:
    """The networks of a shape, always with the same weights."""
    latent_shape = (shape.latent,)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        prior = LatentDenoiser(
            latent_shape, shape.width, shape.depth, prediction="eps", time_features=shape.time_features
        )
        classifiers = tuple(
            TimeConditionedClassifier(
                latent_shape,
                Schema((Attribute(f"a{i}"),)),
                shape.classifier_width,
                shape.classifier_depth,
                time_features=shape.time_features,
            )
            for i in range(shape.attributes)
        )
        for net in (prior.net, *(classifier.net for classifier in classifiers)):
            net.output.reset_parameters()  # a new network ends in zeros, which would guide nowhere
    for module in (prior, *classifiers):
        module.eval().requires_grad_(False).to(device=device, dtype=dtype)
    return Nets(shape, prior, classifiers, tuple(i % 2 == 0 for i in range(shape.attributes)))
