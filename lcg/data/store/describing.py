"""What is in a store, in JSON primitives and in words."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lcg.data.split import TEST, TRAIN, VALIDATION, side_of
from lcg.data.statistics import Statistics
from lcg.data.store.manifest import NAME, Manifest
from lcg.data.store.reader import HOW_TO_MAKE_ONE, LatentStore
from lcg.data.store.remote import fetch, is_remote
from lcg.data.store.shards import ROWS_AT_ONCE
from lcg.schema import Attribute

SIDES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


def describe_store(
    path: str | os.PathLike[str], val_fraction: float = 0.05, test_fraction: float = 0.0
) -> dict[str, Any]:
    """What is in a store, also in one that is not finished: then without labels and statistics.

    Args:
        path: folder of the store.
        val_fraction: of the split that is told.
        test_fraction: of the split that is told.

    Returns:
        JSON primitives.

    Raises:
        FileNotFoundError: there is no store.
        ValueError: it is damaged, or a fraction is out of range.
    """
    folder = fetch(os.fspath(path)) if is_remote(path) else Path(path)
    if not (folder / NAME).is_file():
        raise FileNotFoundError(f"no latent store at {folder} (it has no {NAME}); {HOW_TO_MAKE_ONE}")
    manifest = Manifest.read(folder)
    told: dict[str, Any] = {
        "path": os.fspath(path),
        "finished": manifest.statistics is not None,
        "count": manifest.count,
        "latent_shape": list(manifest.latent_shape),
        "dtype": manifest.dtype,
        "shards": len(manifest.shards),
        "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        "fingerprint": manifest.fingerprint,
        "schema": manifest.schema.to_dict(),
        "provenance": dict(manifest.provenance),
    }
    if not told["finished"]:
        return told | {"parts": len(list(folder.glob(".shard-*.json")))}
    store = LatentStore.open(folder)
    return told | {
        "split": _split(store, val_fraction, test_fraction),
        "labels": _labels(store),
        "statistics": _statistics(store.statistics),
    }


def _slices(store: LatentStore) -> Iterator[slice]:
    for start in range(0, len(store), ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)


def _split(store: LatentStore, val_fraction: float, test_fraction: float) -> dict[str, Any]:
    counts = np.zeros(3, np.int64)
    for rows in _slices(store):
        counts += np.bincount(side_of(store.index(rows), val_fraction, test_fraction), minlength=3)
    sides = {name: int(counts[side]) for name, side in SIDES.items()}
    return {"val_fraction": val_fraction, "test_fraction": test_fraction, **sides}


class _Column:
    """Counts the labels of an attribute: how many samples have each value, or the range of a continuous attribute."""

    def __init__(self, attribute: Attribute) -> None:
        names = ("0", "1") if attribute.kind == "binary" else attribute.values
        self.counts = dict.fromkeys(names, 0)
        self.known = self.missing = 0
        self.low, self.high, self.total = np.inf, -np.inf, 0.0

    def see(self, labels: np.ndarray) -> None:
        known = labels[~np.isnan(labels)]
        self.known, self.missing = self.known + len(known), self.missing + len(labels) - len(known)
        if self.counts:
            found = np.bincount(known.astype(np.int64), minlength=len(self.counts)).tolist()
            self.counts = {name: n + more for (name, n), more in zip(self.counts.items(), found, strict=True)}
        elif len(known):
            self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))
            self.total += float(known.sum(dtype=np.float64))

    def told(self) -> dict[str, Any]:
        if self.counts:
            return {"counts": self.counts, "missing": self.missing}
        if not self.known:
            return {"missing": self.missing}
        return {"min": self.low, "mean": self.total / self.known, "max": self.high, "missing": self.missing}


def _labels(store: LatentStore) -> dict[str, Any]:
    columns = {attribute.name: _Column(attribute) for attribute in store.schema}
    for rows in _slices(store):
        labels = store.labels(rows).numpy()
        for column, values in zip(columns.values(), labels.T, strict=True):
            column.see(values)
    return {name: column.told() for name, column in columns.items()}


def _statistics(statistics: Statistics) -> dict[str, Any]:
    mean, std = statistics.mean.double(), statistics.std.double()
    return {
        "mean": [float(mean.min()), float(mean.max())],
        "std": [float(std.min()), float(std.max())],
        "whitened": statistics.whitening is not None,
    }


def in_words(told: Mapping[str, Any]) -> str:
    """What `describe_store` tells, for people."""
    shape = ", ".join(map(str, told["latent_shape"]))
    rows = [
        ("latents", f"{told['count']:,} of shape ({shape}), {told['dtype']}"),
        ("size", f"{told['bytes'] / 1e6:,.1f} MB in {told['shards']} shards"),
        ("fingerprint", told["fingerprint"]),
        ("made of", _made_of(told["provenance"])),
    ]
    if not told["finished"]:
        parts = f", and {told['parts']} shards wait for the others" if told["parts"] else ""
        rows.append(("state", f"not finished{parts}; run the command that wrote it again, it goes on from there"))
    else:
        split, statistics = told["split"], told["statistics"]
        sides = ", ".join(f"{split[name]:,} {name}" for name in SIDES if split[name])
        how = "whitened" if statistics["whitened"] else "element by element"
        (low, high), (least, most) = statistics["mean"], statistics["std"]
        rows += [
            ("split", f"{sides} (val_fraction {split['val_fraction']}, test_fraction {split['test_fraction']})"),
            ("statistics", f"means {low:.3g} to {high:.3g}, deviations {least:.3g} to {most:.3g}; standardised {how}"),
        ]
    lines = [told["path"], *(f"  {name:<13}{value}" for name, value in rows)]
    if told["finished"]:
        lines += ["", *(_attribute(entry, told["labels"][entry["name"]], told["count"]) for entry in told["schema"])]
        lines += [] if told["schema"] else ["  no attributes: a prior can be trained on it, classifiers cannot"]
    return "\n".join(lines)


def _attribute(entry: Mapping[str, Any], labels: Mapping[str, Any], count: int) -> str:
    if "counts" in labels:
        known = max(count - labels["missing"], 1)
        values = ", ".join(f"{name} {number / known:.1%}" for name, number in labels["counts"].items())
    elif "mean" in labels:
        values = f"{labels['min']:.4g} to {labels['max']:.4g}, mean {labels['mean']:.4g}"
    else:
        values = "no label"
    missing = f"; {labels['missing']:,} missing" if labels["missing"] else ""
    kind = "ordinal" if entry.get("ordered") else entry["kind"]
    line = f"  {entry['name']:<19} {kind:<12} {values}{missing}"
    return textwrap.fill(line, 120, subsequent_indent=35 * " ", break_long_words=False)


def _made_of(provenance: Mapping[str, Any]) -> str:
    """The source and the generator as far as they are told; the rest stands in the manifest."""
    told = []
    for name in ("source", "generator"):
        entry = provenance.get(name)
        if isinstance(entry, dict):
            what = entry.get("class", entry.get("name", "unknown"))
            weights = f" {str(entry['weights_sha256'])[:12]}" if "weights_sha256" in entry else ""
            told.append(f"{name} {what}{weights}")
    told += [f"{name}ed from another store" for name in ("split",) if name in provenance]
    told += ["merged from others"] if "merge" in provenance else []
    told += ["imported"] if "import" in provenance else []
    return "; ".join(told) or "not told"
