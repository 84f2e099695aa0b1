"""Released weights: one safetensors file that says what is in it.

Matrices are stored in float16, vectors in float32; the header's metadata holds the constructor's arguments and the
provenance as JSON. Safe to load from strangers: no code is run.
"""

from __future__ import annotations

import json
import os
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def save_weights(
    path: str | PathLike[str], module: nn.Module, config: dict[str, Any], provenance: dict[str, Any]
) -> None:
    """Writes a module's parameters and buffers; the file appears whole or not at all.

    Args:
        path: the .safetensors file.
        module: whose state is saved.
        config: the arguments that build it, in JSON primitives.
        provenance: what it was trained on and with, in JSON primitives.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)

    def packed(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().cpu().contiguous()
        return tensor.half() if tensor.ndim >= 2 and tensor.dtype == torch.float32 else tensor

    state = {name: packed(tensor) for name, tensor in module.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(state, temporary, metadata={"config": json.dumps(config), "provenance": json.dumps(provenance)})
    temporary.replace(path)


def load_weights(path: str | PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Reads what `save_weights` wrote.

    Returns:
        State (float32), config, provenance.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or was not written by lcg.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; give the path of a .safetensors file that `lcg fit` exported")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        config, provenance = json.loads(metadata["config"]), json.loads(metadata["provenance"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a weights file of lcg or is damaged ({error}); export it again") from error
    return {n: t.float() if t.dtype == torch.float16 else t for n, t in state.items()}, config, provenance
