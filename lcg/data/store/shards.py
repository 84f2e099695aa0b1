"""A shard: one safetensors file of rows, mapped into memory.

    "latents" (n, *latent_shape), "labels" (n, A) with NaN for missing, "index" (n,)

Reading trusts nothing (no pickle, checked headers), and costs only the pages that are asked for: the arrays are mapped
at the offsets that the safetensors header gives (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lcg.data.store.manifest import Manifest, Shard

SAFETENSORS_TYPES = {"float32": "F32", "float16": "F16", "int64": "I64"}
MAX_HEADER = 2**20  # bytes of a shard's header; an honest one has a few hundred
ROWS_AT_ONCE = 65536  # read or checked together


@dataclass(frozen=True)
class MappedShard:
    """The three arrays of a shard, as views of its mapped file."""

    latents: np.ndarray
    labels: np.ndarray
    index: np.ndarray

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, shard: Shard) -> MappedShard:
        path = folder / shard.file
        if not path.is_file():
            raise FileNotFoundError(f"the latent store lacks its shard {path}; copy the whole folder again")
        shapes = {
            "latents": (manifest.dtype, (shard.count, *manifest.latent_shape)),
            "labels": ("float32", (shard.count, len(manifest.schema))),
            "index": ("int64", (shard.count,)),
        }
        try:
            offsets = _offsets(path, shapes)
        except ValueError as error:
            raise ValueError(f"{path} is not the shard that the manifest describes: {error}; copy it again") from error
        file = np.memmap(path, dtype=np.uint8, mode="r")

        def view(name: str) -> np.ndarray:
            dtype, shape = shapes[name]
            return np.ndarray(shape, np.dtype(dtype).newbyteorder("<"), buffer=file, offset=offsets[name])

        return cls(latents=view("latents"), labels=view("labels"), index=view("index"))


def _offsets(path: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, int]:
    """Where each array of a safetensors file begins, after checking that the header says exactly what is expected."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        try:
            header = json.loads(file.read(length).decode())
        except RecursionError as error:
            raise ValueError("a header nested too deeply") from error
    if not isinstance(header, dict) or set(header) - {"__metadata__"} != set(shapes):
        raise ValueError(f"its arrays must be {', '.join(shapes)}")
    offsets, used = {}, 0
    for name, (dtype, shape) in shapes.items():
        entry = header[name]
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        expected = {"dtype": SAFETENSORS_TYPES[dtype], "shape": list(shape)}
        if not isinstance(entry, dict) or {k: entry.get(k) for k in expected} != expected:
            raise ValueError(f"{name!r} must be {expected}")
        span = entry.get("data_offsets")
        if not (isinstance(span, list) and len(span) == 2 and all(type(offset) is int for offset in span)):
            raise ValueError(f"`data_offsets` of {name!r} must be two integers")
        if span[0] < 0 or span[1] - span[0] != nbytes or 8 + length + span[1] > size:
            raise ValueError(f"`data_offsets` of {name!r} must span {nbytes} bytes within the file, got {span}")
        offsets[name], used = 8 + length + span[0], used + nbytes
    if 8 + length + used != size:
        raise ValueError(f"the file must have {8 + length + used} bytes, got {size}")
    return offsets


def chunks(shards: Sequence[MappedShard]) -> Iterator[np.ndarray]:
    """All latents, some (n, *latent_shape) at a time."""
    for shard in shards:
        for start in range(0, len(shard.latents), ROWS_AT_ONCE):
            yield shard.latents[start : start + ROWS_AT_ONCE]


def sha256_of(path: Path) -> str:
    """Of the file's bytes, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
