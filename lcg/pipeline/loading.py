"""What `lcg.load` is given: checked before anything is read, with what to do where it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from lcg.checkpoint import LoadedNetwork
from lcg.generators.base import Generator
from lcg.nets.denoiser import LatentDenoiser
from lcg.nets.execution import Execution
from lcg.schema import unknown_name
from lcg.settings import Editing, Guidance, Inverting, Sampling

SETTINGS: Mapping[str, type] = {
    "sampling": Sampling,
    "guidance": Guidance,
    "editing": Editing,
    "inversion": Inverting,
}
"""Those of a pipeline, by name."""


def fitting_generator(generator: Generator | None, prior: LoadedNetwork[LatentDenoiser]) -> Generator:
    """The generator, the embedded one where there is none. Raises ValueError unless its latents are the prior's."""
    encoder = prior.provenance.get("generator", {}).get("class")
    origin = f" of class {encoder!r}" if encoder else ""  # a stranger may have named it
    if generator is None:
        from lcg.generators.autoencoder import AvatarAutoencoder

        generator = AvatarAutoencoder()
    shape = tuple(prior.config["latent_shape"])
    if tuple(generator.latent_shape) != shape:
        raise ValueError(
            f"the networks were trained on latents of shape {shape}, the generator has "
            f"{tuple(generator.latent_shape)}; use the generator{origin} that encoded the store"
        )
    if prior.generator and prior.generator != generator.latents_sha256():
        raise ValueError(
            f"the store of {prior.path} was encoded by a generator with weights {prior.generator[:12]}, this one has "
            f"{generator.latents_sha256()[:12]}; use that generator{origin}, or encode and fit again"
        )
    return generator


def check_types(
    prior: object,
    classifier: object = None,
    generator: object = None,
    execution: object = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Raises TypeError for what `lcg.load` takes for none of its arguments."""
    for name, value in (("prior", prior), ("classifier", classifier)):
        if not isinstance(value, (str, PathLike)) and not (value is None and name == "classifier"):
            raise TypeError(
                f"`{name}` must be the name or the folder of a model, or a checkpoint, got {_kind(value)}; "
                "such as lcg.load('avatars')"
            )
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"`generator` must be an lcg.Generator, got {_kind(generator)}; make one of its class")
    if execution is not None and not isinstance(execution, Execution):
        raise TypeError(f"`execution` must be an Execution, got {_kind(execution)}; such as Execution()")
    for name, value in (settings or {}).items():
        if name not in SETTINGS:
            raise TypeError(str(unknown_name("setting", name, SETTINGS, "a pipeline")))
        kind = SETTINGS[name].__name__
        if not isinstance(value, SETTINGS[name]):
            raise TypeError(f"`{name}` must be an lcg.{kind}, got {_kind(value)}; such as lcg.{kind}()")


def find_device(device: torch.device | str) -> torch.device:
    """A device that is there. Raises ValueError, or TypeError for what names none."""
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"`device` must be 'auto', 'cpu' or 'cuda', got {_kind(device)}")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"`device` must be 'auto', 'cpu' or 'cuda', got {device!r}") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"`device` is {str(place)!r}, but no CUDA device was found; use device='cpu' or 'auto'")
    return place


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
