"""Safetensors files of an exported model: written with their checksum, and read only when they are what they should be.

A file is compared with what is expected of it in its header alone (https://github.com/huggingface/safetensors#format:
eight bytes of length, then JSON), then its SHA-256 is computed, and only then are tensors made. So a file of a stranger
takes at most as much memory as it has bytes, and twice that when its matrices are in half precision.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lcg.data import safetensors_header

MAX_HEADER = 2**24  # bytes; a hundred for each tensor are usual
MAX_DIMENSIONS = 8
CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
ITEMSIZE = {"F32": 4, "F16": 2, "BF16": 2}

Shapes = Mapping[str, tuple[int, ...]]
Header = Mapping[str, tuple[str, tuple[int, ...]]]
"""Type, in safetensors' words, and shape of each tensor in a file."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    """Writes a file through to the disk.

    Returns:
        Its bytes and its SHA-256.
    """
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return len(data), hashlib.sha256(data).hexdigest()


def packed(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """The tensors with matrices in another precision; vectors stay as they are.

    Raises:
        ValueError: a matrix does not fit into that precision, or a tensor is not finite.
    """
    result = {
        name: tensor.to(getattr(torch, dtype)) if tensor.ndim >= 2 else tensor for name, tensor in tensors.items()
    }
    for name, tensor in result.items():
        if not torch.isfinite(tensor).all():
            if torch.isfinite(tensors[name]).all():
                raise ValueError(f"`dtype` {dtype} cannot hold the values of {name}; use bfloat16 or float32")
            raise ValueError(f"the weights {name} must be finite, got NaN or infinity; fit the network again")
    return result


def read_header(path: Path) -> Header:
    """The type and the shape of every tensor in a file, of which no more than the header is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: its header is no header, or does not say where the file ends.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the exported model lacks {path}; copy the whole folder again")
    header, begin = safetensors_header.read_header(path, MAX_HEADER)
    found = {name: _entry(entry) for name, entry in header.items()}
    size, end = path.stat().st_size, begin + sum(ITEMSIZE[code] * math.prod(shape) for code, shape in found.values())
    if end != size:
        raise ValueError(f"a header of tensors that end at byte {end} in a file of {size}")
    return found


def _entry(entry: object) -> tuple[str, tuple[int, ...]]:
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("shape"), list)
        or entry.get("dtype") not in (*ITEMSIZE,)
    ):
        raise ValueError(f"a tensor must have a shape and a type, one of {', '.join(ITEMSIZE)}")
    shape = tuple(entry["shape"])
    if len(shape) > MAX_DIMENSIONS or not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise ValueError(f"a shape must be at most {MAX_DIMENSIONS} whole numbers")
    return entry["dtype"], shape


def check_header(found: Header, weights: Shapes, others: Shapes, dtype: str) -> None:
    """Raises ValueError unless a header has these tensors, and no others.

    Args:
        found: the header.
        weights: shapes by name of what `packed` has packed.
        others: those of the rest, in float32.
        dtype: what the matrices among the weights are in.
    """
    expected = {**weights, **others}
    if set(found) != set(expected):
        missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        raise ValueError(f"other tensors than its description asks for: missing {missing[:3]}, not known {extra[:3]}")
    for name, shape in expected.items():
        code = CODES[dtype if name in weights and len(shape) >= 2 else "float32"]
        if found[name] != (code, shape):
            raise ValueError(
                f"the tensor {name} should be {code} {list(shape)}, got {found[name][0]} {list(found[name][1])}"
            )


def read_tensors(path: Path, size: int, sha256: str) -> dict[str, Tensor]:
    """The tensors of a file, in float32, once its bytes are found to be what they should be.

    Raises:
        ValueError: the file has another size or checksum, or is no safetensors file.
    """
    if path.stat().st_size != size:
        raise ValueError(f"{path.stat().st_size} bytes, its description says {size}")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise ValueError(f"bytes of SHA-256 {digest.hexdigest()[:12]}, its description says {sha256[:12]}")
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
