"""What a checkpoint says about the network in it, and reading that network back without Lightning.

Beside Lightning's own state a checkpoint of lcg carries one entry `lcg` of JSON primitives and tensors: which network,
its constructor's arguments, and the statistics and fingerprint of the store that it was trained on. `load_network`
rebuilds the network from it. Checkpoints are read with `weights_only=True`: opening one from a stranger runs no code.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import torch
from torch import nn

from lcg import __version__
from lcg.data.statistics import Statistics
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.schema import Schema

if TYPE_CHECKING:
    from lcg.data.datamodule import LatentDataModule

Kind = Literal["denoiser", "classifier"]
Network = TypeVar("Network", bound=nn.Module)
COMMAND = {
    "denoiser": "lcg fit --config configs/prior/avatars.yaml",
    "classifier": "lcg fit --config configs/classifier/avatars.yaml",
}

UNREADABLE = (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, TypeError, ValueError, AttributeError)
"""What reading a file that is none of ours can end in: the archive, the entries, the arguments, the weights."""


def describe_network(checkpoint: dict[str, Any], kind: Kind, config: dict[str, Any], data: LatentDataModule) -> None:
    """Adds the entry `lcg` to a checkpoint that is being saved.

    Args:
        checkpoint: Lightning's dictionary.
        kind: which network.
        config: arguments of its constructor, in JSON primitives.
        data: what it was trained on.
    """
    checkpoint["lcg"] = {
        "version": __version__,
        "kind": kind,
        "config": config,
        "mean": data.statistics.mean,
        "std": data.statistics.std,
        "store": data.store.fingerprint,
        "generator": data.store.provenance.get("generator", {}).get("weights_sha256", ""),
    }


@dataclass(frozen=True)
class LoadedNetwork(Generic[Network]):
    """A network in evaluation mode, frozen, and what it was trained on.

    Attributes:
        network: the denoiser or the classifier.
        statistics: how its latents are standardised.
        store: fingerprint of the store it was trained on.
        generator: hash of the weights of the generator that encoded the store; empty when it is not known.
        config: its constructor's arguments.
        path: where it came from.
    """

    network: Network
    statistics: Statistics
    store: str
    generator: str
    config: dict[str, Any]
    path: Path


@overload
def load_network(
    path: str | PathLike[str], kind: Literal["denoiser"], device: torch.device | str = "cpu"
) -> LoadedNetwork[LatentDenoiser]: ...


@overload
def load_network(
    path: str | PathLike[str], kind: Literal["classifier"], device: torch.device | str = "cpu"
) -> LoadedNetwork[TimeConditionedClassifier]: ...


def load_network(path: str | PathLike[str], kind: Kind, device: torch.device | str = "cpu") -> LoadedNetwork[Any]:
    """Reads a network from a checkpoint of `lcg fit`.

    Args:
        path: the .ckpt file.
        kind: which network is expected.
        device: where it goes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint of lcg, is damaged, or holds another kind of network.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no {kind} at {path}; make one with `{COMMAND[kind]}` or give its path")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        entry = checkpoint["lcg"]
        found, config = entry["kind"], dict(entry["config"])
        if found == kind:
            network = build(kind, config)
            prefix = f"{kind}."
            state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
            network.load_state_dict(state)
            statistics = Statistics(entry["mean"], entry["std"])
    except UNREADABLE as error:
        raise ValueError(
            f"{path} is not a readable {kind} checkpoint of lcg "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}); fit it again with `{COMMAND[kind]}`"
        ) from error
    if found != kind:
        raise ValueError(f"{path} holds a {found}, expected a {kind}; give the checkpoint of `{COMMAND[kind]}`")
    network = network.to(device).eval().requires_grad_(False)
    return LoadedNetwork(network, statistics, entry["store"], entry["generator"], config, path)


def build(kind: Kind, config: dict[str, Any]) -> nn.Module:
    """The network with the given constructor's arguments, untrained."""
    arguments = {**config, "latent_shape": tuple(config["latent_shape"])}
    if kind == "denoiser":
        return LatentDenoiser(**arguments)
    arguments.pop("schedule")  # the classifier itself does not need it; it is kept to be compared with the prior's
    return TimeConditionedClassifier(**{**arguments, "schema": Schema.from_dict(arguments["schema"])})
