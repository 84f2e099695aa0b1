"""The header of a safetensors file, read without believing it: eight bytes of length, then JSON, then the numbers.

The format is https://github.com/huggingface/safetensors#format. Nothing but the header is read, and no more of it than
an honest file has; what it says of each array is for the caller to compare with what is expected.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_header(path: Path, longest: int) -> tuple[dict[str, Any], int]:
    """What a file says it holds.

    Args:
        path: the file.
        longest: bytes that the header may have.

    Returns:
        The entries by the names of the arrays, whatever they may be, and the byte at which the arrays begin.

    Raises:
        ValueError: the file has no such header.
    """
    size = path.stat().st_size
    with open(path, "rb", buffering=0) as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, longest):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        try:
            header = json.loads(file.read(length).decode())
        except RecursionError as error:
            raise ValueError("a header nested too deeply") from error
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    header.pop("__metadata__", None)
    return header, 8 + length
