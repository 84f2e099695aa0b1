"""Classifiers of clean latents, a perceptron for each attribute and nothing shared between them.

    h_{l+1} = leaky_relu(W_l h_l + b_l),      h_0 = z_0,      output = W_L h_L + b_L

What competing methods follow: LACE (Nie, Vahdat & Anandkumar 2021, arXiv:2110.10873) with hidden layers of 384, 256 and
128 units and a slope of 0.2, GradCtrl (Chen et al. 2022) with one of 16 units. They know no noise: a noised latent is
something that they have never seen, which is why lcg has classifiers of its own (`lcg.nets.classifier`).

All perceptrons have equal shapes and are evaluated together, W_l: (A, inputs, outputs). Heads differ in their number of
outputs: the last layer has as many as the largest of them needs, and what an attribute does not need is never read.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lcg.nets.heads import HeadOutputs
from lcg.schema import Schema


class LatentClassifier(nn.Module):
    """One perceptron per attribute of a schema, on clean latents.

    Args:
        latent_shape: shape of one standardised latent.
        schema: one perceptron per attribute; what its outputs mean is said in `lcg.nets.heads`.
        hidden: units of the hidden layers, in order; none for linear classifiers.
        slope: of the leaky rectifier below zero.

    Raises:
        ValueError: a schema without attributes, or a hidden layer without units.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        schema: Schema,
        hidden: Sequence[int] = (384, 256, 128),
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        if not len(schema):
            raise ValueError(
                "`schema` must have at least one attribute, got none; label the store by `lcg label store`, or import "
                "its latents with a table"
            )
        if any(units < 1 for units in hidden):
            raise ValueError(f"`hidden` must be at least 1 unit per layer, got {list(hidden)}; leave the layer out")
        self.config: dict[str, Any] = {
            "latent_shape": list(latent_shape),
            "schema": schema.to_dict(),
            "hidden": list(hidden),
            "slope": slope,
        }
        self.latent_shape, self.schema, self.slope = tuple(latent_shape), schema, slope
        widest = max(attribute.outputs for attribute in schema)
        sizes = (math.prod(latent_shape), *hidden, widest)
        self.layers = nn.ModuleList(ParallelLinear(len(schema), *pair) for pair in pairwise(sizes))

    def forward(self, z_0: Float[Tensor, "batch *latent"]) -> HeadOutputs:
        """Outputs by attribute. Raises ValueError when the latents have another shape than the network."""
        if tuple(z_0.shape[1:]) != self.latent_shape:
            raise ValueError(
                f"the classifier was trained on latents of shape {self.latent_shape}, got {tuple(z_0.shape[1:])}; "
                "use the classifier that was fitted on this store"
            )
        h = z_0.flatten(1).expand(len(self.schema), -1, -1)
        for depth, layer in enumerate(self.layers):
            h = layer(functional.leaky_relu(h, self.slope, inplace=True) if depth else h)
        return {
            attribute.name: own[:, 0] if attribute.kind == "binary" else own[:, : attribute.outputs]
            for attribute, own in zip(self.schema, h, strict=True)
        }

    def restricted(self, names: Iterable[str]) -> "LatentClassifier":
        """This classifier for some of its attributes, in the schema's order; it copies their weights.

        Raises:
            ValueError: an unknown attribute.
        """
        rows = sorted({self.schema.index(name) for name in names})
        kept = Schema(tuple(replace(self.schema.attributes[row], detail_of=(), applies_if={}) for row in rows))
        with torch.device("meta"):  # draws no weights that nobody needs
            part = LatentClassifier(self.latent_shape, kept, self.config["hidden"], self.slope)
        state, wanted = self.state_dict(), part.state_dict()  # the last layer may need fewer outputs
        own = {name: state[name][rows][..., : like.shape[-1]].contiguous() for name, like in wanted.items()}
        part.load_state_dict(own, assign=True)
        return part.requires_grad_(next(self.parameters()).requires_grad).train(self.training)


class ParallelLinear(nn.Module):
    """Several linear layers side by side, each with its own input: y_a = x_a W_a + b_a.

    Args:
        count: of layers.
        inputs: of each.
        outputs: of each.
    """

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)  # as torch.nn.Linear
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "count batch inputs"]) -> Float[Tensor, "count batch outputs"]:
        return torch.baddbmm(self.bias, x, self.weight)
