"""The weights of a StyleGAN as one safetensors file, with the architecture in its metadata.

As `lcg.weights` has it, but nothing is rounded: what the official networks compute in float32 is kept in float32.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from lcg.weights import load_weights

KINDS = ("StyleGAN2", "StyleGAN3")


def write(
    path: str | PathLike[str],
    kind: str,
    architecture: dict[str, Any],
    state: Mapping[str, Tensor],
    provenance: dict[str, Any],
) -> None:
    """Writes a network; the file appears whole or not at all.

    Args:
        path: the .safetensors file.
        kind: StyleGAN2 or StyleGAN3.
        architecture: arguments of its networks, in JSON primitives.
        state: its parameters and buffers.
        provenance: where it comes from, in JSON primitives.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"config": json.dumps({"network": kind, **architecture}), "provenance": json.dumps(provenance)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary, metadata=metadata)
    temporary.replace(path)


def read(path: str | PathLike[str], kind: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """State, architecture and provenance from a file. Raises FileNotFoundError or ValueError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}; make them of an official file with `lcg convert-stylegan`")
    if Path(path).suffix == ".pkl":
        raise ValueError(f"{path} is a pickle, which can execute code; convert it first with `lcg convert-stylegan`")
    state, config, provenance = load_weights(path)
    if config.get("network") != kind:
        holds = config.get("network", "no StyleGAN")
        advice = f"use lcg.generators.stylegan.{holds}" if holds in KINDS else "give what `lcg convert-stylegan` wrote"
        raise ValueError(f"{path} holds {holds}, not {kind}; {advice}")
    return state, {key: value for key, value in config.items() if key != "network"}, provenance
