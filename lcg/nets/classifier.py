"""The time-conditioned classifier: attributes of z_0 from the noised latent z_t.

Trained with cross-entropy on z_t at t ~ U(0, 1), its optimum is the exact noisy posterior

    p_phi(y | z_t, t) = E[p(y | z_0) | z_t],

whose gradient is what Bayes' rule adds to the prior's score (Dhariwal & Nichol 2021, arXiv:2105.05233, section 4). All
attributes share one trunk; each has a head, and beside them `components` heads model the attributes jointly (see
`lcg.nets.heads`). After training a temperature per noise level, fitted on validation data, divides every output,

    u -> u / T(t),      log T linear between evenly spaced levels of t

(Guo et al. 2017, arXiv:1706.04599, section 4.2): it is 1 until then.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lcg.nets.blocks import SkipPerceptron
from lcg.nets.heads import JointOutputs, Outputs, between_levels, split_outputs, tempered
from lcg.schema import Attribute, Schema

LEVELS = 6
"""Noise levels t = 0, .2, ..., 1 at which the temperature is fitted."""


class TimeConditionedClassifier(nn.Module):
    """All attributes of a schema from (z_t, t).

    Args:
        latent_shape: shape of one standardised latent.
        schema: one head per attribute.
        width: hidden width.
        depth: residual blocks.
        dropout: in training.
        components: of the joint head; 1 takes attributes to be independent given z_t.

    Raises:
        ValueError: components < 1.
    """

    log_temperature: Tensor

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        schema: Schema,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        components: int = 1,
    ) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(
                f"`components` must be at least 1, got {components}; 1 is independent attributes, 16 joint"
            )
        self.config: dict[str, Any] = {
            "latent_shape": list(latent_shape),
            "schema": schema.to_dict(),
            "width": width,
            "depth": depth,
            "dropout": dropout,
            "components": components,
        }
        self.latent_shape, self.schema, self.components = tuple(latent_shape), schema, components
        self.register_buffer("log_temperature", torch.zeros(LEVELS))
        self.outputs = sum(attribute.outputs for attribute in schema)
        mixture = components * (self.outputs + 1) if components > 1 else 0
        self.net = SkipPerceptron(math.prod(latent_shape), self.outputs + mixture, width, depth, dropout=dropout)
        nn.init.zeros_(self.net.output.weight)
        nn.init.zeros_(self.net.output.bias)
        if components > 1:
            nn.init.normal_(self.net.output.bias[self.outputs + components :])  # equal components would stay equal

    def forward(self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]) -> Outputs:
        """Outputs at z_t, tempered. Raises ValueError when the latents have another shape than the network."""
        if tuple(z_t.shape[1:]) != self.latent_shape:
            raise ValueError(
                f"the classifier was trained on latents of shape {self.latent_shape}, got {tuple(z_t.shape[1:])}; "
                "use the classifier that was fitted on this store"
            )
        flat = self.net(z_t.flatten(1), t)
        single = split_outputs(self.schema, flat[:, : self.outputs])
        outputs: Outputs = single
        if self.components > 1:
            weights, heads = flat[:, self.outputs :].tensor_split([self.components], dim=1)
            joint = split_outputs(self.schema, heads.unflatten(1, (self.components, self.outputs)))
            outputs = JointOutputs(weights, joint, single)
        # Where all times are one, so is the temperature.
        log_temperature = between_levels(self.log_temperature, t[:1] if t.stride(0) == 0 else t)
        return tempered(self.schema, outputs, log_temperature)

    def restricted(self, names: Iterable[str]) -> "TimeConditionedClassifier":
        """This classifier for some of its attributes: the same trunk, and of the last layer only what they need.

        With many attributes and components the last layer is half of the work, and guidance by a formula needs little
        of it. The result shares the trunk's weights and copies those of the heads.

        Raises:
            ValueError: an unknown attribute.
        """
        wanted = set(names)
        for name in wanted:
            self.schema.index(name)
        kept: list[Attribute] = []
        columns: list[int] = []
        start = 0
        for attribute in self.schema:
            if attribute.name in wanted:
                kept.append(replace(attribute, detail_of=(), applies_if={}))
                columns.extend(range(start, start + attribute.outputs))
            start += attribute.outputs
        width, depth = self.config["width"], self.config["depth"]
        part = TimeConditionedClassifier(
            self.latent_shape, Schema(tuple(kept)), width, depth, self.config["dropout"], self.components
        )
        rows = [*columns]
        if self.components > 1:
            heads = self.outputs + self.components
            rows += range(self.outputs, heads)
            rows += [heads + k * self.outputs + column for k in range(self.components) for column in columns]
        last = self.net.output
        part.to(last.weight).requires_grad_(last.weight.requires_grad)
        for name in ("time", "input", "blocks", "norm"):
            setattr(part.net, name, getattr(self.net, name))
        part.net.output.weight.data, part.net.output.bias.data = last.weight.data[rows], last.bias.data[rows]
        part.log_temperature.copy_(self.log_temperature)
        return part.train(self.training)
