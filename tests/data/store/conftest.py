"""Small stores with attributes of every kind, and hands to damage them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.schema import Attribute, Schema


class Stores:
    """What the tests of the latent store make and damage."""

    schema = Schema(
        (
            Attribute("beard"),
            Attribute("hair", "categorical", ("black", "blond", "red")),
            Attribute("age", "continuous"),
            Attribute(
                "beard_colour", "categorical", ("black", "grey"), detail_of=("beard",), applies_if={"beard": True}
            ),
        )
    )
    provenance = {"generator": {"class": "g", "weights_sha256": "00"}, "source": {"seed": 1}}  # noqa: RUF012

    def rows(self, n: int, shape: tuple[int, ...] = (4,), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Latents (n, *shape) and labels (n, 4) in float32."""
        rng = np.random.default_rng(seed)
        labels = np.stack([rng.integers(0, top, n) for top in (2, 3, 7, 2)], axis=1).astype(np.float32)
        labels[labels[:, 0] == 0, 3] = np.nan
        return rng.normal(2.0, 3.0, (n, *shape)).astype(np.float32), labels

    def writer(self, path: Path, shape: tuple[int, ...] = (4,), dtype: str = "float32") -> LatentStoreWriter:
        """A writer with the settings of all stores here."""
        return LatentStoreWriter(path, shape, self.schema, self.provenance, dtype)

    def write(
        self,
        path: Path,
        sizes: tuple[int, ...] = (5, 1, 7),
        shape: tuple[int, ...] = (4,),
        dtype: str = "float32",
        whiten: bool = False,
    ) -> tuple[LatentStore, np.ndarray, np.ndarray]:
        """A finished store with shards of these sizes, and its latents and labels."""
        latents, labels = self.rows(sum(sizes), shape)
        writer, start = self.writer(path, shape, dtype), 0
        for size in sizes:
            part = slice(start, start + size)
            writer.append(latents[part], labels[part], np.arange(start, start + size))
            start += size
        return writer.finish(whiten), latents, labels

    def edit_manifest(self, path: Path, **changes: object) -> None:
        """Replaces fields of a manifest."""
        entries = json.loads((path / "manifest.json").read_text())
        entries.update(changes)
        (path / "manifest.json").write_text(json.dumps(entries))

    def rewrite_header(self, path: Path, change: Callable[[dict[str, Any]], object]) -> None:
        """Changes the header of a safetensors file."""
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    def flip(self, path: Path, byte: int, bit: int = 0) -> None:
        """Flips one bit of a file."""
        data = bytearray(path.read_bytes())
        data[byte] ^= 1 << bit
        path.write_bytes(data)


@pytest.fixture
def stores() -> Stores:
    return Stores()
