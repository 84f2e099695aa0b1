"""The manifest of a latent store: everything about it but the numbers, in one JSON file.

    {format, version, latent_shape, dtype, count, schema, statistics, shards: [{file, count, sha256}], provenance}

A store may come from a stranger, so nothing in here is trusted: types, ranges, names of files and shapes are checked
before anything is opened, and only plain JSON is read. `manifest.schema.json` beside this module describes it for
others. `statistics` is null until the store is finished.

Version 1 is what every lcg reads, and what is written wherever it suffices. Version 2 adds latents in bfloat16, and
statistics in a file of their own, {file, sha256, whitened}, for a whitening and for latents of very many elements.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lcg.data.statistics import Statistics, check_whitening
from lcg.schema import Schema

NAME = "manifest.json"
SEAL = "manifest.json.sha256"  # of a finished store; as `sha256sum -c` takes it
FORMAT = "lcg-latents"
VERSION = 2
DTYPES = ("float32", "float16", "bfloat16")
MAX_BYTES = 16 * 2**20  # of a manifest; an honest one has kilobytes
MAX_INLINE = 2**16  # elements of a latent whose statistics stand in the manifest itself
MAX_ELEMENTS = 2**28  # of one latent; 1 GiB

SHARD_NAME = re.compile(r"shard-[0-9]{5,9}\.safetensors", re.ASCII)  # by construction no separator and no dots in front
KEYS = {"format", "version", "latent_shape", "dtype", "count", "schema", "statistics", "shards", "provenance"}


@dataclass(frozen=True)
class Shard:
    """One file of rows.

    Args:
        file: its name beside the manifest, `shard-00000.safetensors`.
        count: how many rows it holds.
        sha256: of the file's bytes, 64 hexadecimal digits.
    """

    file: str
    count: int
    sha256: str

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not SHARD_NAME.fullmatch(self.file):
            raise ValueError(f"`file` of a shard must be like 'shard-00000.safetensors', got {self.file!r}")
        if not _positive_int(self.count):
            raise ValueError(f"`count` of {self.file} must be a positive integer, got {self.count!r}")
        if not isinstance(self.sha256, str) or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"`sha256` of {self.file} must be 64 hexadecimal digits, got {self.sha256!r}")

    def to_dict(self) -> dict[str, Any]:
        return {"file": self.file, "count": self.count, "sha256": self.sha256}


@dataclass(frozen=True)
class StatisticsFile:
    """Statistics that stand in a file of their own beside the manifest.

    Args:
        sha256: of the file's bytes, 64 hexadecimal digits.
        whitened: whether a whitening is among them.
    """

    sha256: str
    whitened: bool

    file: ClassVar[str] = "statistics.safetensors"

    def __post_init__(self) -> None:
        if not isinstance(self.sha256, str) or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"`sha256` of {self.file} must be 64 hexadecimal digits, got {self.sha256!r}")
        if not isinstance(self.whitened, bool):
            raise ValueError(f"`whitened` of {self.file} must be true or false, got {self.whitened!r}")

    def to_dict(self) -> dict[str, Any]:
        return {"file": self.file, "sha256": self.sha256, "whitened": self.whitened}


@dataclass(frozen=True)
class Manifest:
    """What a store holds and where it comes from.

    Args:
        latent_shape: shape of one latent.
        dtype: how latents are stored, "float32", "float16" or "bfloat16"; reading always gives float32.
        schema: the columns of the labels.
        provenance: JSON primitives; what made the latents.
        shards: the files, in row order.
        statistics: of all rows, or the file that has them; None while the store is still being written.

    Raises:
        ValueError: a field is out of range, or two fields disagree.
    """

    latent_shape: tuple[int, ...]
    dtype: str
    schema: Schema
    provenance: Mapping[str, Any]
    shards: tuple[Shard, ...] = ()
    statistics: Statistics | StatisticsFile | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        shape = self.latent_shape
        if not (isinstance(shape, tuple) and 1 <= len(shape) <= 8 and all(map(_positive_int, shape))):
            raise ValueError(f"`latent_shape` must be 1 to 8 positive integers, got {shape!r}")
        if math.prod(shape) > MAX_ELEMENTS:
            raise ValueError(f"`latent_shape` must have at most {MAX_ELEMENTS} elements, got {list(shape)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if len({shard.file for shard in self.shards}) != len(self.shards):
            raise ValueError("`shards` must be distinct files, got one twice")
        if isinstance(self.statistics, Statistics) and self.statistics.latent_shape != shape:
            raise ValueError(f"`statistics` must have shape {list(shape)}, got {list(self.statistics.latent_shape)}")
        if self.whitened:
            check_whitening(shape)
        if self.statistics is not None and not self.shards:
            raise ValueError("`shards` must not be empty when there are `statistics`")

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(shard.count for shard in self.shards)

    @property
    def version(self) -> int:
        """The lowest that can say what is said here."""
        return 2 if self.dtype == "bfloat16" or isinstance(self.statistics, StatisticsFile) else 1

    @property
    def whitened(self) -> bool:
        """Whether the statistics have a whitening."""
        return isinstance(self.statistics, StatisticsFile) and self.statistics.whitened

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the list of shards, hence of every stored byte: one name for exactly this data.

        Where latents are whitened it is another one, as they are then other latents to a network.
        """
        entries = [shard.to_dict() for shard in self.shards]
        return hashlib.sha256(_canonical([*entries, "whitened"] if self.whitened else entries).encode()).hexdigest()

    def to_json(self) -> str:
        """The text of manifest.json; `from_json` is the inverse."""
        entries = {
            "format": FORMAT,
            "version": self.version,
            "latent_shape": list(self.latent_shape),
            "dtype": self.dtype,
            "count": self.count,
            "schema": self.schema.to_dict(),
            "statistics": None if self.statistics is None else self.statistics.to_dict(),
            "shards": [shard.to_dict() for shard in self.shards],
            "provenance": dict(self.provenance),
        }
        lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in entries.items())
        return f"{{\n{lines}\n}}\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """The inverse of `to_json`, trusting nothing.

        Raises:
            ValueError: the text is not a manifest of a version that this package reads; the message says what is wrong.
        """
        entries = _plain_json(text)
        if not isinstance(entries, dict) or entries.get("format") != FORMAT:
            raise ValueError(f"`format` must be {FORMAT!r}; this is not a latent store")
        version = entries.get("version")
        if not isinstance(version, int) or not _positive_int(version):
            raise ValueError(f"`version` must be a positive integer, got {version!r}")
        if version > VERSION:
            raise ValueError(f"`version` is {version}, this lcg reads up to {VERSION}; upgrade lcg")
        if set(entries) != KEYS:
            missing, extra = sorted(KEYS - set(entries)), sorted(set(entries) - KEYS)
            raise ValueError(f"fields must be exactly {sorted(KEYS)}; missing: {missing}, not known: {extra[:8]}")
        if not isinstance(entries["latent_shape"], list):
            raise ValueError(f"`latent_shape` must be a list, got {type(entries['latent_shape']).__name__}")
        if not isinstance(entries["shards"], list):
            raise ValueError(f"`shards` must be a list, got {type(entries['shards']).__name__}")
        if not isinstance(entries["provenance"], dict):
            raise ValueError(f"`provenance` must be an object, got {type(entries['provenance']).__name__}")
        manifest = cls(
            latent_shape=tuple(entries["latent_shape"]),
            dtype=entries["dtype"],
            schema=_schema(entries["schema"]),
            provenance=entries["provenance"],
            shards=tuple(_shard(entry) for entry in entries["shards"]),
            statistics=None if entries["statistics"] is None else _statistics(entries["statistics"]),
        )
        if version < manifest.version:
            raise ValueError(f"`version` must be {manifest.version} for what this manifest says, got {version}")
        if type(entries["count"]) is not int or entries["count"] != manifest.count:
            raise ValueError(f"`count` must be the shards' sum {manifest.count}, got {entries['count']!r}")
        return manifest

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest in `folder`.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged or none of ours; the message names the file.
        """
        path = folder / NAME
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path}: a manifest has at most {MAX_BYTES} bytes, this has {path.stat().st_size}")
        return cls.from_bytes(path.read_bytes(), str(path))

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Manifest:
        """The manifest in a file's bytes; `name` is the file's, for messages."""
        try:
            return cls.from_json(data.decode())
        except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            raise ValueError(f"{name}: {error}") from error


def plain(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`value` as JSON gives it back (tuples as lists), so that it compares equal to what was read from a file.

    Raises:
        TypeError: it holds something that JSON cannot.
        ValueError: it holds NaN or infinity.
    """
    try:
        result: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except TypeError as error:
        raise TypeError(f"`{name}` must hold JSON primitives only: {error}") from error
    return result


def difference(old: object, new: object, name: str) -> str | None:
    """The first place at which two JSON values differ, `name.key.key: old, now new`; None when they are equal."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            found = difference(old.get(key), new.get(key), f"{name}.{key}")
            if found is not None:
                return found
        return None
    return None if old == new else f"`{name}` was {old!r}, now it is {new!r}"


def _plain_json(text: str) -> object:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply to be a manifest") from error


def _shard(entry: object) -> Shard:
    if not isinstance(entry, dict) or set(entry) != {"file", "count", "sha256"}:
        raise ValueError("each of `shards` must have exactly file, count and sha256")
    return Shard(**entry)


def _statistics(entries: object) -> Statistics | StatisticsFile:
    if isinstance(entries, dict) and "file" in entries:
        if set(entries) != {"file", "sha256", "whitened"} or entries["file"] != StatisticsFile.file:
            raise ValueError(f"`statistics` in a file must be exactly file ({StatisticsFile.file}), sha256, whitened")
        return StatisticsFile(entries["sha256"], entries["whitened"])
    return Statistics.from_dict(entries)


def _schema(entries: object) -> Schema:
    """A schema from a stranger: `Schema` checks meaning, this checks the types that it takes for granted."""
    expected: dict[str, type] = {"name": str, "kind": str, "values": list, "detail_of": list, "applies_if": dict}
    expected |= {"ordered": bool, "group": str}
    if not isinstance(entries, list):
        raise ValueError(f"`schema` must be a list of attributes, got {type(entries).__name__}")
    for entry in entries:
        if not isinstance(entry, dict) or "name" not in entry or not set(entry) <= set(expected):
            raise ValueError(f"each attribute of `schema` must have a name, and of fields only {', '.join(expected)}")
        for key, value in entry.items():
            if not isinstance(value, expected[key]):
                raise ValueError(f"`schema`: {key!r} must be a {expected[key].__name__}, got {type(value).__name__}")
        if not all(isinstance(name, str) for key in ("values", "detail_of") for name in entry.get(key, ())):
            raise ValueError(f"`schema`: `values` and `detail_of` of {entry['name']!r} must be lists of names")
        if not all(isinstance(value, bool) for value in entry.get("applies_if", {}).values()):
            raise ValueError(f"`schema`: `applies_if` of {entry['name']!r} must map names to true or false")
    return Schema.from_dict(entries)


def _positive_int(value: object) -> bool:
    return type(value) is int and value > 0  # `isinstance` would let True through


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
