"""What the results of a method or metric depend on: its class, its options, and the files that they name."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any


def options_of(thing: object) -> dict[str, Any]:
    """The class and the options of something that keeps its options under their names, in JSON primitives.

    Of an option that is the path of a file, such as a checkpoint, its bytes count.
    """
    options = {k: v for k, v in vars(thing).items() if not k.startswith("_") and _is_plain(v)}
    files = {k: Path(v) for k, v in options.items() if isinstance(v, str) and Path(v).is_file()}
    digests = {f"{k}_sha256": sha256(path, path.stat().st_mtime_ns) for k, path in files.items()}
    return {"class": f"{type(thing).__module__}.{type(thing).__qualname__}", **options, **digests}


@cache
def sha256(path: Path, changed: int) -> str:
    """Of a file's bytes; `changed` tells one version of it from the next."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
