"""A shard: one safetensors file of rows.

    "latents" (n, *latent_shape), "labels" (n, A) with NaN for missing, "index" (n,)

Nothing in it is trusted: there is no pickle, and its header must say exactly what the manifest says
(https://github.com/huggingface/safetensors#format). The arrays are then read in place, at the header's offsets.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from lcg.data.atomic import write_atomic
from lcg.data.safetensors_header import read_header
from lcg.data.statistics import Moments
from lcg.data.store.checks import check_index, check_labels, check_latents
from lcg.data.store.manifest import Manifest, Shard

SAFETENSORS_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
STORED = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "int64": "<i8"}
"""How numpy sees them; it has no bfloat16, whose bits travel as integers."""

MAX_HEADER = 2**20  # bytes of a shard's header; an honest one has a few hundred
ROWS_AT_ONCE = 65536  # read or checked together, at most
ELEMENTS_AT_ONCE = 2**22  # of latents: 32 MiB in float64


class Array(NamedTuple):
    """One array of a file: its type, its shape, and the byte at which it begins."""

    dtype: str
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(STORED[self.dtype]).itemsize


@dataclass(frozen=True)
class ShardFile:
    """A shard whose header was checked. It holds no file open and no memory.

    Attributes:
        path: the file.
        arrays: where its three arrays are.
    """

    path: Path
    arrays: Mapping[str, Array]

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, shard: Shard) -> ShardFile:
        """Raises FileNotFoundError when it is missing, ValueError when it is not what the manifest says."""
        path = folder / shard.file
        if not path.is_file():  # follows links; a device or a pipe is none
            raise FileNotFoundError(f"the latent store lacks its shard {path}; copy the whole folder again")
        try:
            return cls(path, located(path, arrays_of(manifest, shard.count)))
        except ValueError as error:
            raise ValueError(f"{path} is not the shard that the manifest describes: {error}; copy it again") from error

    def __len__(self) -> int:
        return self.arrays["index"].shape[0]

    def read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Consecutive rows of an array; latents in bfloat16 as float32, all else as it is stored."""
        array = self.arrays[name]
        start, stop, _ = rows.indices(len(self))
        size = array.nbytes // len(self)
        with open(self.path, "rb", buffering=0) as file:
            file.seek(array.offset + start * size)
            read_fully(file, data := memoryview(bytearray((stop - start) * size)))
        values = decoded(data, array.dtype, (stop - start, *array.shape[1:]))
        return (values.float() if array.dtype == "bfloat16" else values).numpy()

    def chunks(self) -> Iterator[slice]:
        """Rows that are read or checked together, in order."""
        step = rows_at_once(self.arrays["latents"].shape[1:])
        for start in range(0, len(self), step):
            yield slice(start, min(start + step, len(self)))


def arrays_of(manifest: Manifest, count: int) -> dict[str, Array]:
    """What must be in a shard of so many rows."""
    return {
        "latents": Array(manifest.dtype, (count, *manifest.latent_shape)),
        "labels": Array("float32", (count, len(manifest.schema))),
        "index": Array("int64", (count,)),
    }


def write_shard(
    folder: Path,
    number: int,
    manifest: Manifest,
    latents: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    index: Tensor | np.ndarray,
    after: int,
) -> Shard:
    """Checks, casts and writes one shard; it is there whole or not at all. The manifest has to list it afterwards.

    Args:
        folder: of the store.
        number: of the shard, from 0.
        manifest: says what rows must be.
        latents: raw (n, *latent_shape), finite, n >= 1.
        labels: (n, A), NaN where missing.
        index: (n,) integers, strictly increasing.
        after: all of them are larger than this.

    Returns:
        Its entry for the manifest.

    Raises:
        ValueError: a shape is wrong, a latent is not finite (in the stored type), a label does not fit the schema, or
            the indices do not increase; the message names the sample.
        OSError: it cannot be written; nothing is left behind.
    """
    arrays = _checked(manifest, _array(latents), _array(labels), _array(index), after)
    data = safetensors.torch.save(arrays)
    shard = Shard(f"shard-{number:05d}.safetensors", len(arrays["index"]), hashlib.sha256(data).hexdigest())
    write_atomic(folder / shard.file, data, shared=True)
    return shard


def _checked(
    manifest: Manifest, latents: np.ndarray, labels: np.ndarray, index: np.ndarray, after: int
) -> dict[str, Tensor]:
    """The arrays of a shard in the types in which they are stored."""
    if latents.ndim == 0 or len(latents) == 0 or latents.shape[1:] != manifest.latent_shape:
        expected = ", ".join(["n >= 1", *map(str, manifest.latent_shape)])
        raise ValueError(f"`latents` must have shape ({expected}), got {latents.shape}; check the encoder's output")
    if labels.shape != (len(latents), len(manifest.schema)):
        raise ValueError(
            f"`labels` must have shape {(len(latents), len(manifest.schema))}, one column for each of "
            f"{', '.join(manifest.schema.names)}; got {labels.shape}"
        )
    if index.shape != (len(latents),) or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(f"`index` must be {len(latents)} integers, got {index.dtype} {index.shape}")
    index = np.ascontiguousarray(index, dtype=np.int64)
    labels = np.ascontiguousarray(labels, dtype=np.float32)
    stored = rounded(latents, manifest.dtype)
    check_index(index, after)
    check_latents(stored.float().numpy() if manifest.dtype == "bfloat16" else stored.numpy(), index, manifest.dtype)
    check_labels(labels, manifest.schema, index)
    return {"latents": stored, "labels": torch.from_numpy(labels), "index": torch.from_numpy(index)}


def rounded(latents: np.ndarray, dtype: str) -> Tensor:
    """To the nearest number of the type, to even between two; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        if dtype == "bfloat16":
            return torch.from_numpy(np.ascontiguousarray(latents, dtype=np.float32)).bfloat16()
        return torch.from_numpy(np.ascontiguousarray(latents, dtype=dtype))


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # numpy knows no bfloat16
    return np.asarray(values)


def moments_of(folder: Path, manifest: Manifest, shard: Shard, products: bool = False) -> Moments:
    """Moments of the latents as they are stored; merged over shards in row order they give the store's statistics."""
    file = ShardFile.open(folder, manifest, shard)
    return reduce(Moments.merge, (Moments.of(file.read("latents", rows), products) for rows in file.chunks()))


def rows_at_once(latent_shape: Sequence[int]) -> int:
    """How many rows are read or checked together, so that memory stays the same for latents of every size."""
    return max(1, min(ROWS_AT_ONCE, ELEMENTS_AT_ONCE // math.prod(latent_shape)))


def located(path: Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays with the offsets that a safetensors file gives them.

    Raises:
        ValueError: the header does not say exactly what is expected, or the file does not hold exactly these arrays.
    """
    size = path.stat().st_size
    header, begin = read_header(path, MAX_HEADER)
    if set(header) != set(arrays):
        raise ValueError(f"its arrays must be {', '.join(arrays)}")
    spans, found = [], {}
    for name, array in arrays.items():
        entry = header[name]
        expected = {"dtype": SAFETENSORS_TYPES[array.dtype], "shape": list(array.shape)}
        if not isinstance(entry, dict) or {k: entry.get(k) for k in expected} != expected:
            raise ValueError(f"{name!r} must be {expected}")
        span = entry.get("data_offsets")
        if not (isinstance(span, list) and len(span) == 2 and all(type(offset) is int for offset in span)):
            raise ValueError(f"`data_offsets` of {name!r} must be two integers")
        if span[0] < 0 or span[1] - span[0] != array.nbytes or begin + span[1] > size:
            raise ValueError(f"`data_offsets` of {name!r} must span {array.nbytes} bytes within the file, got {span}")
        spans.append(span)
        found[name] = array._replace(offset=begin + span[0])
    spans.sort()
    if [0, *(stop for _, stop in spans)] != [*(start for start, _ in spans), size - begin]:
        total = begin + sum(array.nbytes for array in arrays.values())
        raise ValueError(f"the file must have {total} bytes, one array after the other, got {size}")
    return found


def decoded(data: bytearray | memoryview, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """Bytes of a file as a tensor that shares their memory."""
    values = torch.from_numpy(np.frombuffer(data, STORED[dtype]).reshape(shape))
    return values.view(torch.bfloat16) if dtype == "bfloat16" else values


def read_fully(file: io.FileIO, into: memoryview) -> None:
    """Reads as many bytes of an open file as there is room for.

    Raises:
        ValueError: it ends before; somebody has shortened it since it was opened.
    """
    done = 0
    while done < len(into):
        got = file.readinto(into[done:])
        if not got:
            raise ValueError(f"{file.name!s} ended {len(into) - done} bytes too early; copy the latent store again")
        done += got


def sha256_of(path: Path) -> str:
    """Of the file's bytes, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
