"""Ways of reading random rows of latents in float16 from disk, as float32 tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lcg.data.store import LatentStore

Gather = Callable[[np.ndarray], Tensor]
"""Rows (B,) to latents (B, D) in float32."""

NPY = "latents.npy"


def ours(folder: Path) -> Gather:
    """The latent store."""
    return LatentStore.open(folder).latents


def mapped_npy(folder: Path) -> Gather:
    """One .npy file with all latents, mapped into memory and indexed by numpy."""
    latents = np.load(folder / NPY, mmap_mode="r")
    return lambda rows: torch.from_numpy(latents[rows]).float()


def safetensors_slices(folder: Path) -> Gather:
    """The shards of the store, row by row through the slices of the safetensors package."""
    from safetensors import safe_open

    files = [safe_open(path, framework="pt") for path in sorted(folder.glob("shard-*.safetensors"))]
    slices = [file.get_slice("latents") for file in files]
    starts = np.cumsum([0, *(part.get_shape()[0] for part in slices)])

    def gather(rows: np.ndarray) -> Tensor:
        shards = np.searchsorted(starts, rows, side="right") - 1
        places = rows - starts[shards]
        parts = [slices[s][p : p + 1] for s, p in zip(shards.tolist(), places.tolist(), strict=True)]
        return torch.cat(parts).float()

    return gather


READERS: dict[str, Callable[[Path], Gather]] = {
    "lcg": ours,
    ".npy, mapped": mapped_npy,
    "safetensors slices": safetensors_slices,
}
