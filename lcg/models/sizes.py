"""The shapes of a stranger's network, found without taking its memory.

A `config` may ask for a network of any size. But every size of a network is the length of some tensor of its weights:
none can be more than the numbers in the file, nor can there be more blocks than tensors. What passes that is built on
torch's meta device, which takes no memory, and its shapes are those that the file must have.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any, get_args

import torch

from lcg.checkpoint import CLASS, Kind, build
from lcg.models.tensors import Header
from lcg.nets.denoiser import ScheduleName
from lcg.schema import Schema

SHARED = ("latent_shape", "schedule", "schema")
"""Arguments that the description of an exported model has once for all of its networks."""


def network_shapes(kind: Kind, config: Mapping[str, Any], found: Header) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's weights, by their names in the file.

    Args:
        kind: which network.
        config: arguments of its constructor, of which those in `SHARED` have been checked.
        found: header of the file of its weights.

    Raises:
        ValueError: the constructor has no such argument, or it cannot be that of these weights.
    """
    check_arguments(kind, config, found)
    with torch.device("meta"):
        network = build(kind, dict(config))
    return {f"{kind}.{name}": tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def check_arguments(kind: Kind, config: Mapping[str, Any], found: Header) -> None:
    """Raises ValueError for an argument that is unknown, of another type, or of more than the file holds."""
    if config["schedule"] not in get_args(ScheduleName):
        raise ValueError(
            f"`schedule` must be one of {', '.join(get_args(ScheduleName))}, got {config['schedule'][:80]!r}"
        )
    numbers = sum(math.prod(shape) for _, shape in found.values())
    module, _, name = CLASS[kind].rpartition(".")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters
    for argument, value in config.items():
        if argument not in SHARED:
            if argument not in parameters:
                raise ValueError(f"{name} has no argument {argument[:80]!r}; a newer lcg may have")
            _check_argument(argument, value, parameters[argument].annotation, numbers)
    attributes = Schema.from_dict(config.get("schema", ()))
    outputs = 1 + sum(attribute.outputs for attribute in attributes)
    nets = len(attributes) if config.get("trunk") == "separate" else 1
    for what, size, most in (
        ("latent_shape", math.prod(config["latent_shape"]), numbers),
        ("components", config.get("components", 1) * outputs, numbers),
        ("depth", config.get("depth", 1) * nets, len(found)),
    ):
        if size > most:
            raise ValueError(f"`{what}` asks for more than the {numbers} numbers in {len(found)} tensors of the file")


def _check_argument(name: str, value: object, annotation: Any, numbers: int) -> None:
    if annotation is int:
        if type(value) is not int or not 1 <= value <= numbers:
            raise ValueError(
                f"`{name}` must be a whole number from 1 to the {numbers} numbers of the file, got {value!r:.80}"
            )
    elif annotation is float:
        if type(value) not in (int, float):
            raise ValueError(f"`{name}` must be a number, got {value!r:.80}")
    elif value not in get_args(annotation):
        raise ValueError(f"`{name}` must be one of {', '.join(get_args(annotation))}, got {value!r:.80}")
