"""The time-conditioned classifier: attributes of z_0 from the noised latent z_t.

Trained with cross-entropy on z_t at t ~ U(0, 1), its optimum is the exact noisy posterior

    p_phi(y | z_t, t) = E[p(y | z_0) | z_t],

whose gradient is what Bayes' rule adds to the prior's score (Dhariwal & Nichol 2021, arXiv:2105.05233, section 4). All
attributes share one trunk, or have one each, as in the paper and with its peers; each has a head, and beside them
`components` heads model the attributes jointly (see `lcg.nets.heads`). After training a temperature per noise level,
fitted on validation data, divides every output,

    u -> u / T(t),      log T linear between evenly spaced levels of t

(Guo et al. 2017, arXiv:1706.04599, section 4.2): it is 1 until then. Of an ordinal attribute the network gives location
and log-scale, and a temperature widens the scale (`lcg.nets.cumulative`).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lcg.nets.blocks import Door, SkipPerceptron
from lcg.nets.cumulative import CumulativeLink, network_outputs
from lcg.nets.execution import Execution
from lcg.nets.heads import JointOutputs, Outputs, between_levels, split_outputs
from lcg.nets.prepared import AtOneTime, Prepared
from lcg.schema import Attribute, Schema

Trunk = Literal["shared", "separate"]

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
        time_features: dimension of the time's embedding; guidance does not get slower with it (see `prepare`).
        trunk: `shared` by all attributes, or `separate`: a network of this width and depth for each, without a joint
            head. Guidance evaluates them side by side, at as many times the price.

    Raises:
        ValueError: a schema without attributes, components < 1, an unknown trunk, or a joint head without a shared one.

    Attributes:
        execution: how the network is run once its weights are frozen; may be set at any time.
    """

    log_temperature: Tensor
    divided: Tensor  # which outputs of the network a temperature divides, (outputs,) bool
    widened: Tensor  # how often its logarithm is added to them, (outputs,): 2 to a log-variance, 1 to a log-scale

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        schema: Schema,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        components: int = 1,
        time_features: int = 64,
        trunk: Trunk = "shared",
    ) -> None:
        super().__init__()
        if not len(schema):
            raise ValueError(
                "`schema` must have at least one attribute, got none; label the store by `lcg label store`, or import "
                "its latents with a table"
            )
        if components < 1:
            raise ValueError(
                f"`components` must be at least 1, got {components}; 1 is independent attributes, 16 joint"
            )
        if trunk not in get_args(Trunk) or (trunk == "separate" and components > 1):
            raise ValueError(
                f"`trunk` must be one of {', '.join(get_args(Trunk))}, and shared with components={components} > 1, "
                f"got {trunk!r}"
            )
        self.config: dict[str, Any] = {
            "latent_shape": list(latent_shape),
            "schema": schema.to_dict(),
            "width": width,
            "depth": depth,
            "dropout": dropout,
            "components": components,
            "time_features": time_features,
            "trunk": trunk,
        }
        self.latent_shape, self.schema, self.components = tuple(latent_shape), schema, components
        self.register_buffer("log_temperature", torch.zeros(LEVELS))
        self._parts: dict[tuple[object, ...], TimeConditionedClassifier] = {}
        ordinal = [attribute for attribute in schema if attribute.ordered]
        self.link = CumulativeLink(ordinal) if ordinal else None
        self.outputs = sum(map(network_outputs, schema))
        mixture = components * (self.outputs + 1) if components > 1 else 0
        effects = [effect for attribute in schema for effect in _tempering(attribute)]
        divided, widened = [divided for divided, _ in effects], [widened for _, widened in effects]
        if components > 1:
            divided = divided + [True] * components + divided * components
            widened = widened + [0.0] * components + widened * components
        self.register_buffer("divided", torch.tensor(divided), persistent=False)
        self.register_buffer("widened", torch.tensor(widened), persistent=False)
        size = math.prod(latent_shape)
        outputs = [self.outputs + mixture] if trunk == "shared" else [network_outputs(a) for a in schema]
        nets = [SkipPerceptron(size, count, width, depth, time_features, dropout) for count in outputs]
        for net in nets:
            nn.init.zeros_(net.output.weight)
            nn.init.zeros_(net.output.bias)
        if components > 1:
            nn.init.normal_(nets[0].output.bias[self.outputs + components :])  # equal components would stay equal
        if trunk == "shared":
            self.net = nets[0]
        else:
            self.nets = nn.ModuleList(nets)
        self.door, self.execution, self._prepared = Door(), Execution(), Prepared(nets)

    def forward(self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]) -> Outputs:
        """Outputs at z_t, tempered. Raises ValueError when the latents have another shape than the network."""
        self._check_shape(z_t)
        z_t = z_t.flatten(1)
        flat = torch.cat([net(z_t, t) for net in self._prepared.nets], dim=1)
        # Where all times are one, so is the temperature.
        return self._read(flat, *self._cooling(between_levels(self.log_temperature, t[:1] if t.stride(0) == 0 else t)))

    def prepare(self, times: Float[Tensor, " steps"]) -> list[Callable[[Tensor], Outputs]]:
        """The outputs at z_t at each of these times, as functions of z_t: the same up to rounding, and fast."""
        nets = self._prepared.at(times, self.execution)
        log_temperature = between_levels(self.log_temperature, times).detach()
        cooling = [self._cooling(log_temperature[i : i + 1]) for i in range(len(nets))]
        return [partial(self._outputs, *both) for both in zip(nets, cooling, strict=True)]

    def _outputs(self, net: AtOneTime, cooling: tuple[Tensor, Tensor], z_t: Tensor) -> Outputs:
        self._check_shape(z_t)
        flat = net(self.door(z_t.flatten(1)))
        if flat.ndim == 3:  # side by side, with as many outputs as the widest
            flat = torch.cat([own[:, : network_outputs(a)] for a, own in zip(self.schema, flat, strict=True)], dim=1)
        return self._read(flat, *cooling)

    def _check_shape(self, z_t: Tensor) -> None:
        if tuple(z_t.shape[1:]) != self.latent_shape:
            raise ValueError(
                f"the classifier was trained on latents of shape {self.latent_shape}, got {tuple(z_t.shape[1:])}; "
                "use the classifier that was fitted on this store"
            )

    def _cooling(self, log_temperature: Tensor) -> tuple[Tensor, Tensor]:
        """What tempering multiplies the network's outputs by and adds to them, each (times, outputs).

        See `lcg.nets.heads.tempered`, which does the same to outputs by attribute.
        """
        log_T = log_temperature[:, None]
        return torch.where(self.divided, torch.exp(-log_T), 1.0), self.widened * log_T

    def _read(self, flat: Tensor, factor: Tensor, offset: Tensor) -> Outputs:
        """The network's outputs by attribute, tempered."""
        flat = torch.addcmul(offset, flat, factor)
        single = split_outputs(self.schema, flat[:, : self.outputs], self.link)
        outputs: Outputs = single
        if self.components > 1:
            weights, heads = flat[:, self.outputs :].tensor_split([self.components], dim=1)
            joint = split_outputs(self.schema, heads.unflatten(1, (self.components, self.outputs)), self.link)
            outputs = JointOutputs(weights.log_softmax(1), joint, single)
        return outputs

    def restricted(self, names: Iterable[str], joint: bool = True) -> "TimeConditionedClassifier":
        """This classifier for some of its attributes: the same trunk, and of the last layer only what they need.

        With many attributes and components the last layer is half of the work, and guidance by a formula needs little
        of it. The result shares the trunk's weights and copies those of the heads. While the weights stay as they are,
        the same is asked for again and again, and found.

        Args:
            names: of the attributes.
            joint: whether the joint head is wanted, too.

        Raises:
            ValueError: an unknown attribute.
        """
        wanted = {name: self.schema.index(name) for name in names}
        weights = tuple((p.data_ptr(), p._version) for p in (*self.parameters(), *self.buffers()))
        key = tuple(sorted(wanted)), joint, weights
        if not self._prepared.frozen:
            part = self._restricted(set(wanted), joint)
            part.execution = self.execution
            return part
        if key not in self._parts:
            kept = {old: part for old, part in self._parts.items() if old[2] == weights}
            self._parts = {**kept, key: self._restricted(set(wanted), joint)}
        part = self._parts[key]
        part.execution = self.execution
        return part

    def _restricted(self, wanted: set[str], joint: bool) -> "TimeConditionedClassifier":
        kept: list[Attribute] = []
        columns: list[int] = []
        start = 0
        for attribute in self.schema:
            if attribute.name in wanted:
                kept.append(replace(attribute, detail_of=(), applies_if={}))
                columns.extend(range(start, start + network_outputs(attribute)))
            start += network_outputs(attribute)
        size = {name: self.config[name] for name in ("width", "depth", "dropout", "time_features", "trunk")}
        components = self.components if joint else 1
        part = TimeConditionedClassifier(self.latent_shape, Schema(tuple(kept)), components=components, **size)
        first = next(self.parameters())
        part.to(first).requires_grad_(first.requires_grad)
        part.log_temperature.copy_(self.log_temperature)
        if part.link is not None and self.link is not None:
            part.link.cuts.data = self.link.rows(list(part.link.counts))
        if self.config["trunk"] == "separate":
            for k, attribute in enumerate(kept):
                part.nets[k] = self.nets[self.schema.index(attribute.name)]
            part._prepared = Prepared([self._prepared.nets[self.schema.index(attribute.name)] for attribute in kept])
            return part.train(self.training)
        rows = [*columns]
        if part.components > 1:
            heads = self.outputs + self.components
            rows += range(self.outputs, heads)
            rows += [heads + k * self.outputs + column for k in range(self.components) for column in columns]
        last = self.net.output
        for name in ("time", "input", "blocks", "norm"):
            setattr(part.net, name, getattr(self.net, name))
        part.net.output.weight.data, part.net.output.bias.data = last.weight.data[rows], last.bias.data[rows]
        return part.train(self.training)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_parts": {}}


def _tempering(attribute: Attribute) -> list[tuple[bool, float]]:
    """Of each output of the network, whether a temperature divides it, and how often its logarithm is added."""
    if attribute.ordered:
        return [(False, 0.0), (False, 1.0)]
    return [(False, 0.0), (False, 2.0)] if attribute.kind == "continuous" else [(True, 0.0)] * attribute.outputs
