"""`model.json`: what an exported model is, in JSON primitives, and what may be in one that a stranger wrote.

What both networks share stands once: the shape of a latent, the schedule and the schema are no part of the networks'
own `config`. The field `checksum` is that of all others, so that a damaged file is told from one of another format;
`model.schema.json` beside this module is the same in JSON Schema, for other programs.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lcg.models.names import EXPORTED
from lcg.schema import Schema

FORMAT = "lcg-model"
VERSION = 1
MAX_BYTES = 16 * 2**20  # an honest one has kilobytes
DTYPES = ("float32", "float16", "bfloat16")
MAX_DIMENSIONS = 8

PRIOR_FILE, CLASSIFIER_FILE, STATISTICS_FILE = "prior.safetensors", "classifier.safetensors", "statistics.safetensors"
FILES = {PRIOR_FILE: dict, CLASSIFIER_FILE: dict, STATISTICS_FILE: dict}
NETWORK = {"config": dict, "training": dict}
FILE = {"bytes": int, "sha256": str}
FIELDS = {
    "format": str,
    "version": int,
    "latent_shape": list,
    "schedule": str,
    "schema": list,
    "dtype": str,
    "files": dict,
    "prior": dict,
    "classifier": dict,
    "distilled": bool,
    "calibration": dict,
    "store": str,
    "generator": dict,
    "provenance": dict,
    "made_with": dict,
    "checksum": str,
}
ATTRIBUTE = {"name": str, "kind": str, "values": list, "detail_of": list, "applies_if": dict}
REFINED = {"ordered": bool, "group": str}
"""What an attribute says only where it is ordinal, or of a group."""


@dataclass(frozen=True)
class Network:
    """One network.

    Args:
        config: its constructor's arguments, without those that both networks share.
        training: see `lcg.checkpoint.LoadedNetwork`.
    """

    config: Mapping[str, Any]
    training: Mapping[str, Any]


@dataclass(frozen=True)
class File:
    """A file beside the description.

    Args:
        bytes: how many it has.
        sha256: of them, 64 hexadecimal digits.
    """

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if self.bytes < 1:
            raise ValueError(f"`bytes` must be positive, got {self.bytes}")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"`sha256` must be 64 hexadecimal digits, got {self.sha256[:80]!r}")


@dataclass(frozen=True)
class Description:
    """What an exported model is.

    Args:
        latent_shape: of one latent.
        schedule: of the noise, by name.
        schema: the attributes that the classifiers know.
        dtype: of the networks' matrices in their files, "float32", "float16" or "bfloat16"; all else is float32.
        files: the three others of the folder, by name.
        prior: the denoiser.
        classifier: the classifiers.
        distilled: see `lcg.checkpoint.LoadedNetwork`, as `calibration` and `provenance`.
        calibration: the record of the classifiers' temperature.
        store: fingerprint of the latent store that both were trained on.
        generator: identity of the generator that encoded the store, of which at least `weights_sha256` where known.
        provenance: of the store, but for the generator.
        made_with: versions.

    Raises:
        ValueError: the latent's shape is none, `dtype` or the reading of the calibration is unknown.
    """

    latent_shape: tuple[int, ...]
    schedule: str
    schema: Schema
    dtype: str
    files: Mapping[str, File]
    prior: Network
    classifier: Network
    distilled: bool
    calibration: Mapping[str, Any]
    store: str
    generator: Mapping[str, Any]
    provenance: Mapping[str, Any]
    made_with: Mapping[str, Any]

    def __post_init__(self) -> None:
        shape = self.latent_shape
        if not (1 <= len(shape) <= MAX_DIMENSIONS and all(type(size) is int and size > 0 for size in shape)):
            raise ValueError(
                f"`latent_shape` must be 1 to {MAX_DIMENSIONS} positive integers, got {_brief(list(shape))}"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {_brief(self.dtype)}")
        if not isinstance(self.generator.get("weights_sha256", ""), str):
            raise ValueError("`weights_sha256` of `generator` must be a text")
        if self.calibration.get("dependence", "independent") not in ("joint", "independent"):
            raise ValueError("`dependence` of `calibration` must be joint or independent")

    def network_config(self, kind: str) -> dict[str, Any]:
        """All arguments of a network's constructor, as a checkpoint has them: of a `denoiser` or a `classifier`."""
        shared: dict[str, Any] = {"latent_shape": list(self.latent_shape), "schedule": self.schedule}
        if kind == "denoiser":
            return {**shared, **self.prior.config}
        return {**shared, "schema": self.schema.to_dict(), **self.classifier.config}

    def to_json(self) -> str:
        """The text of the file. Raises ValueError where it would be larger than `from_json` takes."""
        entries = {"format": FORMAT, "version": VERSION, **asdict(self), "schema": self.schema.to_dict()}
        entries["checksum"] = checksum(entries)
        text = json.dumps(entries, indent=2, allow_nan=False) + "\n"
        if len(text.encode()) > MAX_BYTES:
            raise ValueError(f"{EXPORTED} may have {MAX_BYTES} bytes, this would have {len(text.encode())}")
        return text

    @classmethod
    def from_json(cls, text: str) -> Description:
        """The inverse of `to_json`, trusting nothing.

        Raises:
            ValueError: the text is no description of a version that this package reads; the message says what is wrong.
        """
        entries = _parse(text)
        if not isinstance(entries, dict) or entries.get("format") != FORMAT:
            raise ValueError(f"`format` must be {FORMAT!r}; this is no exported model")
        version: Any = entries.get("version")
        if type(version) is int and version > VERSION:
            raise ValueError(f"`version` is {_brief(version)}, this lcg reads up to {VERSION}; upgrade lcg")
        _check(entries, FIELDS, "the description")
        if version < 1:
            raise ValueError(f"`version` must be at least 1, got {_brief(version)}")
        for name in ("prior", "classifier"):
            _check(entries[name], NETWORK, f"`{name}`")
        _check(entries["files"], FILES, "`files`")
        for name, entry in entries["files"].items():
            _check(entry, FILE, f"`{name}`")
        if entries["checksum"] != checksum(entries):
            raise ValueError("`checksum` is not that of what it says; it was changed or damaged after it was written")
        try:
            return cls(
                **{
                    **{name: entries[name] for name in FIELDS if name not in ("format", "version", "checksum")},
                    "latent_shape": tuple(entries["latent_shape"]),
                    "schema": _schema(entries["schema"]),
                    "files": {name: File(**entry) for name, entry in entries["files"].items()},
                    "prior": Network(**entries["prior"]),
                    "classifier": Network(**entries["classifier"]),
                }
            )
        except TypeError as error:  # such as a value of the calibration that cannot be compared
            raise ValueError(f"a value of another type than expected: {error}") from error

    @classmethod
    def read(cls, folder: Path) -> Description:
        """The description in a folder.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged or none of ours; the message names the file.
        """
        path = folder / EXPORTED
        if not path.is_file():
            raise FileNotFoundError(f"no exported model at {folder}; `lcg export --out {folder}` makes one")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"{path}: a description has at most {MAX_BYTES} bytes, this has more")
        try:
            return cls.from_json(data.decode())
        except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            raise ValueError(f"{path}: {error}; export or copy the model again") from error


def checksum(entries: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical form of all fields but `checksum`."""
    others = {name: value for name, value in entries.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(others, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _parse(text: str) -> Any:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    def finite(number: str) -> float:
        if math.isinf(value := float(number)):  # which JSON could not have written
            raise ValueError("a number is too large")
        return value

    try:
        return json.loads(text, parse_constant=refuse, parse_float=finite)
    except RecursionError as error:
        raise ValueError("nested too deeply to be a description") from error


def _check(entries: Mapping[str, Any], fields: Mapping[str, type], what: str) -> None:
    """Raises ValueError unless the entries are exactly these fields, of these types."""
    if set(entries) != set(fields):
        missing, extra = sorted(set(fields) - set(entries)), sorted(set(entries) - set(fields))
        raise ValueError(f"{what} must have exactly its fields; missing: {missing}, not known: {_brief(extra)}")
    for name, expected in fields.items():
        if type(entries[name]) is not expected:  # `isinstance` would let True through as a number
            raise ValueError(f"`{name}` must be a {expected.__name__}, got {type(entries[name]).__name__}")


def _schema(entries: list[Any]) -> Schema:
    """`Schema` checks meaning, this checks the types that it takes for granted."""
    for entry in entries:
        if not isinstance(entry, dict):
            raise ValueError(f"each attribute of `schema` must be an object, got {type(entry).__name__}")
        _check(
            entry, ATTRIBUTE | {name: REFINED[name] for name in REFINED if name in entry}, "each attribute of `schema`"
        )
        if not all(isinstance(name, str) for name in (*entry["values"], *entry["detail_of"])):
            raise ValueError("`values` and `detail_of` of an attribute must be lists of names")
        if not all(isinstance(value, bool) for value in entry["applies_if"].values()):
            raise ValueError("`applies_if` of an attribute must map names to true or false")
    if not entries:
        raise ValueError("`schema` must have at least one attribute")
    return Schema.from_dict(entries)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
