"""What a checkpoint says about the network in it, and reading that network back without Lightning.

Beside Lightning's own state a checkpoint of lcg carries one entry `lcg` of JSON primitives and tensors: which network,
its constructor's arguments, and the statistics and fingerprint of the store that it was trained on. `load_network`
rebuilds the network from it, or from an exported model (`lcg.models`), which holds the same. Checkpoints are read with
`weights_only=True`: opening one from a stranger runs no code.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import torch
from torch import Tensor, nn

from lcg import __version__
from lcg.data.atomic import write_atomic
from lcg.data.statistics import Statistics, Whitening
from lcg.generators.base import latents_sha256_of
from lcg.models.names import is_exported
from lcg.schema import Schema
from lcg.sealed import sealed

if TYPE_CHECKING:
    from lcg.data.datamodule import LatentDataModule
    from lcg.nets.classifier import TimeConditionedClassifier
    from lcg.nets.denoiser import LatentDenoiser

LABELS_KEPT = 20_000
"""Label rows that go with a classifier, to tell which combinations its store has."""

Kind = Literal[
    "denoiser", "classifier", "latent_classifier", "continuous_flow", "potential_flow", "conditional_denoiser"
]
Network = TypeVar("Network", bound=nn.Module)
CLASS = {
    "denoiser": "lcg.nets.denoiser.LatentDenoiser",
    "classifier": "lcg.nets.classifier.TimeConditionedClassifier",
    "latent_classifier": "lcg.nets.latent_classifier.LatentClassifier",
    "continuous_flow": "lcg.nets.continuous_flow.ContinuousFlow",
    "potential_flow": "lcg.nets.potential_flow.PotentialFlow",
    "conditional_denoiser": "lcg.nets.conditional.ConditionalDenoiser",
}
"""The networks that a checkpoint may hold, and no others: what a file names is never imported."""
COMMAND = {
    "denoiser": "lcg fit --config configs/prior/avatars.yaml",
    "classifier": "lcg fit --config configs/classifier/avatars.yaml",
    # Of one kind, but with two configs; messages put the whole between backticks.
    "latent_classifier": (
        "lcg fit --config configs/baseline/lace.yaml` or `lcg fit --config configs/baseline/gradctrl.yaml"
    ),
    "continuous_flow": "lcg fit --config configs/baseline/styleflow.yaml",
    "potential_flow": "lcg fit --config configs/baseline/potential_flow.yaml",
    "conditional_denoiser": "lcg fit --config configs/baseline/conditional.yaml",
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
        **statistics_tensors(data.statistics),
        "store": data.store.fingerprint,
        "generator": latents_sha256_of(data.store.provenance.get("generator", {})),
        "provenance": dict(data.store.provenance),
    }
    if kind == "classifier":
        checkpoint["lcg"]["labels"] = data.labels(sampled_rows(len(data.store), LABELS_KEPT))


def statistics_tensors(statistics: Statistics) -> dict[str, Tensor]:
    """Everything in statistics, by name; `statistics_of` is the inverse."""
    tensors = {"mean": statistics.mean, "std": statistics.std}
    if statistics.whitening is not None:
        tensors |= {
            "whitening_matrix": statistics.whitening.matrix,
            "whitening_inverse": statistics.whitening.inverse,
        }
    return tensors


def statistics_of(tensors: Mapping[str, Tensor]) -> Statistics:
    """Statistics from `statistics_tensors`, among which there may be others.

    Raises:
        KeyError, ValueError: one is missing, or they are no statistics.
    """
    whitening = None
    if "whitening_matrix" in tensors:
        whitening = Whitening(tensors["whitening_matrix"], tensors["whitening_inverse"])
    return Statistics(tensors["mean"], tensors["std"], whitening)


def sampled_rows(total: int, count: int) -> Tensor:
    """At most `count` of `total` rows, drawn without replacement and always the same ones, in their order."""
    if total <= count:
        return torch.arange(total)
    return torch.randperm(total, generator=torch.Generator().manual_seed(0))[:count].sort().values


@dataclass(frozen=True)
class LoadedNetwork(Generic[Network]):
    """A network in evaluation mode, frozen, and what it was trained on.

    Attributes:
        network: of the kind that was asked for.
        statistics: how its latents are standardised.
        store: fingerprint of the store it was trained on.
        generator: whose latents the store has (`Generator.latents_sha256`); empty when it is not known.
        config: its constructor's arguments.
        path: where it came from.
        calibration: of a classifier whose fit has ended, what its validation data say: `dependence`, how formulas are
            best read, and figures (`lcg.modules.calibration.calibrate_checkpoint`); else empty.
        labels: (N, A) of a time-conditioned classifier's store, or a sample of them; (0, 0) for other networks.
        distilled: whether a denoiser's eps_hat is that of a consistency function, as `lcg.modules.distilled` makes
            them, and not of the posterior mean.
        provenance: of the store, in JSON primitives; empty when the file does not say.
        training: how it was trained, in JSON primitives: `steps`, `epochs` and `options`, those of its module; exported
            models add `figures` of its validation and the step `figures_at` which they were measured.
    """

    network: Network
    statistics: Statistics
    store: str
    generator: str
    config: dict[str, Any]
    path: Path
    calibration: dict[str, Any] = field(default_factory=dict)
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    distilled: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def latents(self) -> str:
        """Fingerprint of the store that the latents are from: not its own, where only labels were added to another."""
        relabelled = self.provenance.get("relabelled")
        return str(relabelled.get("store", self.store)) if isinstance(relabelled, Mapping) else self.store


@overload
def load_network(
    path: str | PathLike[str], kind: Literal["denoiser"], device: torch.device | str = "cpu"
) -> LoadedNetwork[LatentDenoiser]: ...


@overload
def load_network(
    path: str | PathLike[str], kind: Literal["classifier"], device: torch.device | str = "cpu"
) -> LoadedNetwork[TimeConditionedClassifier]: ...


@overload
def load_network(path: str | PathLike[str], kind: Kind, device: torch.device | str = "cpu") -> LoadedNetwork[Any]: ...


def load_network(path: str | PathLike[str], kind: Kind, device: torch.device | str = "cpu") -> LoadedNetwork[Any]:
    """Reads a network from a checkpoint of `lcg fit`, or from the folder that `lcg export` wrote.

    Args:
        path: the .ckpt file, or the folder of an exported model.
        kind: which network is expected.
        device: where it goes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint of lcg, is damaged, or holds another kind of network.
    """
    path = Path(path)
    if is_exported(path):
        from lcg.models.folder import read_network  # which needs this module

        exported = read_network(path, kind)
        exported.network.to(device)
        return exported
    if not path.is_file():
        raise FileNotFoundError(
            f"no {kind} at {path}; make one with `{COMMAND[kind]}` or give its path{_instead(path)}"
        )
    entry: dict[str, Any] = {}
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        entry = checkpoint["lcg"]
        found, config = entry["kind"], dict(entry["config"])
        if found == kind:
            network = build(kind, config)
            prefix = f"{kind}."
            state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
            network.load_state_dict(state)
            statistics = statistics_of(entry)
            calibration = dict(entry.get("calibration", {}))
            labels = entry["labels"] if kind == "classifier" else torch.zeros(0, 0)
            distilled = bool(entry.get("consistency", False))
            provenance = dict(entry.get("provenance", {}))
            training = training_of(checkpoint)
    except (*UNREADABLE, OSError) as error:
        raise ValueError(
            f"{path} is not a readable {kind} checkpoint of lcg ({_reason(error)}{_other_version(entry)}); "
            f"fit it again with `{COMMAND[kind]}`{_instead(path)}"
        ) from error
    if found != kind:
        raise ValueError(f"{path} holds a {found}, expected a {kind}; give the checkpoint of `{COMMAND[kind]}`")
    network = network.to(device).eval().requires_grad_(False)
    return LoadedNetwork(
        network,
        statistics,
        entry["store"],
        entry["generator"],
        config,
        path,
        calibration,
        labels,
        distilled,
        provenance,
        training,
    )


def _instead(path: Path) -> str:
    """What somebody may have meant who names a path where no checkpoint is; nothing if there is no telling."""
    if path.suffix == ".safetensors" and is_exported(path.parent):
        return f"; the model that it is part of is the folder {path.parent}"
    if path.is_dir():
        inside = ", ".join(sorted(file.name for file in path.glob("*.ckpt")))
        return f"; this is a folder, in which there is {inside or 'no checkpoint'}"
    if path.is_file():
        return ""
    return '; the model of --model avatars, in Python lcg.load("avatars"), needs no training'


def _reason(error: Exception) -> str:
    """Why a file cannot be read as a checkpoint, in a few words."""
    told = str(error).partition("\n")[0]
    if isinstance(error, KeyError) and error.args == ("lcg",):
        return "another program made it, or an early version of lcg"
    if isinstance(error, pickle.UnpicklingError):
        return "it is another kind of file, or holds more than tensors and plain values"
    if (
        isinstance(error, EOFError)
        or (isinstance(error, OSError) and error.filename is None)
        or told.startswith("PytorchStreamReader")
    ):
        return "it is cut off or damaged"
    return f"{type(error).__name__}: {told}"


def _other_version(entry: object) -> str:
    """Which lcg made the entry `lcg` of a checkpoint, if another one than this."""
    made = entry.get("version", __version__) if isinstance(entry, dict) else __version__
    return "" if made == __version__ else f"; lcg {made} made it, this is {__version__}"


def training_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """How the network in a checkpoint of Lightning was trained; see `LoadedNetwork`."""
    options = checkpoint.get("hyper_parameters") or {}
    counts = {"steps": checkpoint.get("global_step", 0), "epochs": checkpoint.get("epoch", 0)}
    return {**counts, "options": {name: value for name, value in options.items() if not name.startswith("_")}}


def load_networks(
    prior: str | PathLike[str],
    classifier: str | PathLike[str],
    device: torch.device | str = "cpu",
    distilled: bool = False,
) -> tuple[LoadedNetwork[LatentDenoiser], LoadedNetwork[TimeConditionedClassifier]]:
    """Loads a prior and classifiers and checks that they fit together.

    Args:
        prior: checkpoint of the prior, or an exported model.
        classifier: checkpoint of the classifiers, or an exported model.
        device: where they go.
        distilled: whether a distilled prior will do, whose eps_hat is not that of the posterior mean.

    Raises:
        FileNotFoundError: a checkpoint is missing.
        ValueError: they were trained on different latents, or on latents standardised differently, or under different
            schedules; or the prior is a distilled one and must not be.
    """
    p, c = load_network(prior, "denoiser", device), load_network(classifier, "classifier", device)
    if p.distilled and not distilled:
        raise ValueError(
            f"{p.path} is a distilled prior, which can only generate, with the sampler consistency; editing, "
            "likelihoods and verification need the prior it was distilled from: give that"
        )
    if p.latents != c.latents:
        raise ValueError(
            f"{p.path} and {c.path} were trained on different stores ({p.store[:12]} and {c.store[:12]}); "
            "fit both on one store"
        )
    if not same_statistics(p.statistics, c.statistics):
        raise ValueError(
            f"{p.path} and {c.path} were trained on latents standardised differently; "
            "fit both with one `data.statistics_from`, or without"
        )
    if p.config["schedule"] != c.config["schedule"]:
        raise ValueError(
            f"the prior's schedule is {p.config['schedule']!r}, the classifier's {c.config['schedule']!r}; "
            "fit both under one schedule"
        )
    return p, c


def same_statistics(one: Statistics, other: Statistics) -> bool:
    """Whether both standardise alike, but for rounding."""
    a, b = statistics_tensors(one), statistics_tensors(other)
    return a.keys() == b.keys() and all(
        a[name].shape == b[name].shape and torch.allclose(a[name], b[name], rtol=1e-5, atol=1e-6) for name in a
    )


def amend_checkpoint(path: str | PathLike[str], tensors: Mapping[str, Tensor], **entries: Any) -> None:
    """Replaces tensors of a checkpoint's `state_dict` and adds to its entry `lcg`; all else stays as it is.

    Args:
        path: the .ckpt file; readers see the old file or the new one, nothing between.
        tensors: by their names in `state_dict`; they take the precision of those that they replace.
        entries: of `lcg`, JSON primitives or tensors.

    Raises:
        ValueError: `state_dict` has no tensor of that name, or one of another shape.
    """
    path = Path(path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state = checkpoint["state_dict"]
    for name, tensor in tensors.items():
        if name not in state or state[name].shape != tensor.shape:
            found = f"one of shape {tuple(state[name].shape)}" if name in state else "none"
            raise ValueError(
                f"`tensors`: {path} should have a tensor {name!r} of shape {tuple(tensor.shape)}, got {found}; "
                "it is not a checkpoint of this network"
            )
        state[name] = tensor.detach().to(state[name])
    checkpoint["lcg"] = {**checkpoint["lcg"], **entries}
    write_atomic(path, sealed(checkpoint))


def build(kind: Kind, config: dict[str, Any]) -> nn.Module:
    """The network with the given constructor's arguments, untrained."""
    arguments = {**config, "latent_shape": tuple(config["latent_shape"])}
    if "schema" in arguments:
        arguments["schema"] = Schema.from_dict(arguments["schema"])
    if kind == "classifier":
        arguments.pop("schedule")  # the classifier itself does not need it; it is kept to be compared with the prior's
    module, _, name = CLASS[kind].rpartition(".")
    network: nn.Module = getattr(import_module(module), name)(**arguments)
    return network
