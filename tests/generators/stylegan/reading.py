"""Reads pickles in this process, for what is not about isolation."""

from __future__ import annotations

import torch

from lcg.generators.stylegan import unpickle
from lcg.generators.stylegan.isolation import Found


def found_in(content: bytes, network: str = "G_ema") -> Found:
    """As `read_isolated`, in this process."""
    tensors: dict[str, torch.Tensor] = {}
    module = unpickle.network_of(unpickle.unpickled(content), network)
    about = dict(unpickle.described(module, "", tensors, unpickle.DEPTH))
    return Found(tensors, about, True)
