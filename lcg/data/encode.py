"""Encoding: images to latents, once, so that everything after it works on latents,

    source (images x, labels y)  ->  z = generator.encode(x)  ->  latent store.

The work is divided into parts, each a shard of fixed rows, which any process may make in any order. A part is done when
a small file beside its shard says so (`.shard-00003.json`: hash and moments), written after it. When all are done, one
process adds all shards to the manifest in one write and removes these files. So the job may be killed and started
again at any moment, and the store has the same bytes in the end as if it had not been (with equal batches, on one kind
of device and with one number of threads). `encode` does it in this process; `lcg.encoding` divides it among many.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcg import __version__
from lcg.data.atomic import write_atomic
from lcg.data.images import provenance_of
from lcg.data.source import ImageSource
from lcg.data.statistics import Moments, Statistics
from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.data.store.manifest import NAME, Manifest, Shard
from lcg.data.store.shards import moments_of, sha256_of, write_shard
from lcg.data.tally import Part, Tally
from lcg.generators.base import Generator, pixels_to_x

CACHED = 1 << 18
"""Numbers in float32 that the processor's cache holds easily, a mebibyte."""


class Encoding:
    """A source that becomes a store, in parts.

    Args:
        source: labelled images; its number of a sample becomes the sample's `index`. `chunk` is called in a thread,
            never twice at once.
        generator: encodes on the device where its weights are.
        out: folder of the store.
        batch_size: images encoded together.
        shard_size: samples stored together; a killed job repeats fewer than this many in each process.
        dtype: how latents are stored.
        whiten: whether the store's statistics whiten latents rather than standardise element by element.

    Raises:
        ValueError: images have another shape than the generator's, or a size is not positive.
    """

    def __init__(
        self,
        source: ImageSource,
        generator: Generator,
        out: str | os.PathLike[str],
        batch_size: int = 256,
        shard_size: int = 4096,
        dtype: str = "float32",
        whiten: bool = False,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("shard_size", shard_size)):
            if value < 1:
                raise ValueError(f"`{name}` must be >= 1, got {value}")
        if tuple(source.image_shape) != tuple(generator.image_shape):
            raise ValueError(
                f"the images are {tuple(source.image_shape)} (C, H, W) and the generator takes "
                f"{tuple(generator.image_shape)}; resize the images, as `reading.size` and `reading.fit` of the source "
                "do, or choose another generator"
            )
        self.source, self.generator, self.out = source, generator.eval(), Path(out)
        self.batch_size, self.shard_size, self.dtype, self.whiten = batch_size, shard_size, dtype, whiten

    # --- before ---

    def begin(self) -> LatentStoreWriter:
        """Makes the store, or finds it as it was left; called by one process, before the others look at `parts`.

        Raises:
            ValueError: the folder was begun with other settings, or is longer than the source.
            OSError: the folder holds something else, or cannot be written.
        """
        provenance = {
            **provenance_of(source=self.source),
            "generator": self.generator.identity(),
            "lcg": __version__,
        }
        shape, schema = self.generator.latent_shape, self.source.schema
        writer = LatentStoreWriter(self.out, shape, schema, provenance, self.dtype)
        if writer.count > len(self.source):
            raise ValueError(
                f"the store at {self.out} has {writer.count} samples, the source only {len(self.source)}; "
                "choose another folder"
            )
        if writer.next_index != writer.count:
            raise ValueError(
                f"the store at {self.out} skips samples, so it was not written by encode; choose another folder"
            )
        done = {part.path for part in self.parts if self._told(part) is not None}
        for path in (*self.out.glob(".shard-*.json"), *self.out.glob("..shard-*.json.*.tmp")):
            if path not in done:  # of other settings, or of a process that was killed
                path.unlink(missing_ok=True)
        return writer

    @cached_property
    def parts(self) -> list[Part]:
        """What the manifest does not list yet, in shards of `shard_size`; the same in every process."""
        total = len(self.source)
        return [
            Part(number, range(start, min(start + self.shard_size, total)), self.out / f".shard-{number:05d}.json")
            for number, start in enumerate(range(self._start.count, total, self.shard_size), len(self._start.shards))
        ]

    @cached_property
    def _start(self) -> Manifest:
        """The manifest that the parts come after."""
        if (self.out / NAME).is_file():
            return Manifest.read(self.out)
        return Manifest(tuple(self.generator.latent_shape), self.dtype, self.source.schema, {})

    @cached_property
    def _settings(self) -> str:
        """Names what latents depend on, so that a part that was made of something else is not taken for done."""
        told = [
            self.source.identity(),
            self.generator.identity(),
            self.dtype,
            self.source.schema.to_dict(),
            __version__,
        ]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    # --- the work ---

    def make(self, part: Part, advance: Callable[[int], object]) -> None:
        """Encodes a part and stores it.

        Args:
            part: one of `parts`.
            advance: is told how many images were encoded, batch by batch.

        Raises:
            ValueError: a latent is not finite (named by sample), or the source breaks its word.
            TypeError: the images are not uint8.
            RuntimeError: another process has finished the store in the meantime.
        """
        latents, labels = [], []
        for z, y in self._encoded(part.rows):
            latents.append(z)
            labels.append(y)
            advance(len(z))
        self._refuse_company()
        arrays = np.concatenate(latents), np.concatenate(labels), np.asarray(part.rows)
        shard = write_shard(self.out, part.number, self._start, *arrays, after=part.rows.start - 1)
        moments = moments_of(self.out, self._start, shard)
        told = {
            "settings": self._settings,
            "rows": [part.rows.start, part.rows.stop],
            "sha256": shard.sha256,
            "mean": moments.mean.tolist(),
            "m2": moments.m2.tolist(),
        }
        write_atomic(part.path, json.dumps(told).encode(), shared=True)

    def _encoded(self, rows: range) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Latents (n, *latent_shape) and labels (n, A) of the rows, batch by batch; the next one is made meanwhile."""
        batches = [range(start, min(start + self.batch_size, rows.stop)) for start in rows[:: self.batch_size]]
        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(self._images, batches[0])
            for following in (*batches[1:], None):
                pixels, labels = waiting.result()
                if following is not None:
                    waiting = ahead.submit(self._images, following)
                x = self._x(pixels)
                with torch.no_grad():
                    z = self.generator.encode(x)
                if z.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
                    z = z.clone()  # the next batch takes the place of x
                yield z.float().cpu().numpy(), labels

    def _x(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images x (n, C, H, W) on the generator's device, of pixels (n, H, W, C)."""
        device = self.generator.device
        if device.type == "cpu" and pixels.dtype == torch.uint8:
            return planes(pixels, self._place[: len(pixels)])
        return pixels_to_x(pixels.to(device))

    @cached_property
    def _place(self) -> torch.Tensor:
        """Where a batch of x lies; memory is asked for once."""
        return torch.empty(self.batch_size, *self.source.image_shape)

    def _images(self, rows: range) -> tuple[torch.Tensor, np.ndarray]:
        images, labels = self.source.chunk(rows.start, rows.stop)
        channels, height, width = self.source.image_shape
        if images.shape != (len(rows), height, width, channels):
            raise ValueError(
                f"samples {rows.start} to {rows.stop} of the source must be {(len(rows), height, width, channels)} "
                f"pixels, got {images.shape}; correct its `chunk`"
            )
        return torch.from_numpy(np.ascontiguousarray(images)), np.asarray(labels, dtype=np.float32)

    def _refuse_company(self) -> None:
        if Manifest.read(self.out).count != self._start.count:
            raise RuntimeError(
                f"another process has finished shards of the latent store at {self.out}; run the command again if "
                "samples are missing"
            )

    # --- after ---

    def finish(self, writer: LatentStoreWriter) -> LatentStore:
        """Adds all parts to the manifest; called by the process that has begun, when all are done.

        Raises:
            ValueError: a shard is not the one that was written.
            RuntimeError: another process writes the same store.
        """
        told = [(part, self._adopted(part)) for part in self.parts]
        if not told:
            return writer.finish(self.whiten)
        shards = [*self._start.shards, *(shard for _, (shard, _) in told)]
        if self.whiten:  # products of elements would make the small files large: they are taken from the shards again
            moments = [moments_of(self.out, self._start, shard, products=True) for shard in shards]
        else:
            before = [moments_of(self.out, self._start, shard) for shard in self._start.shards]
            moments = [*before, *(moments for _, (_, moments) in told)]
        store = writer.adopt(shards, Statistics.from_moments(reduce(Moments.merge, moments), self.whiten))
        for part in self.parts:
            part.path.unlink(missing_ok=True)
        return store

    def _adopted(self, part: Part) -> tuple[Shard, Moments]:
        """The manifest's entry of a part, and its moments, after a look at what is there."""
        told, file = self._told(part), f"shard-{part.number:05d}.safetensors"
        if told is None:
            raise RuntimeError(f"another process works on the latent store at {self.out}; run the command again")
        if not (self.out / file).is_file() or sha256_of(self.out / file) != told["sha256"]:
            part.path.unlink(missing_ok=True)
            raise ValueError(
                f"{self.out / file} is not what was written there; run the command again, it makes this shard anew"
            )
        mean, m2 = (np.array(told[name], dtype=np.float64) for name in ("mean", "m2"))
        return Shard(file, len(part.rows), told["sha256"]), Moments(len(part.rows), mean, m2)

    def _told(self, part: Part) -> dict[str, Any] | None:
        """What the small file of a part says; None where it is missing or speaks of something else."""
        try:
            told = json.loads(part.path.read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(told, dict):
            return None
        same = told.get("settings") == self._settings and told.get("rows") == [part.rows.start, part.rows.stop]
        return told if same and (self.out / f"shard-{part.number:05d}.safetensors").is_file() else None


def planes(pixels: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """`pixels_to_x`, to the bit, with the colours one after the other in memory, as encoders like them.

    A few images at a time stay in the processor's cache through all steps.

    Args:
        pixels: (B, H, W, C) uint8.
        out: (B, C, H, W) float32, is filled.
    """
    few = max(1, CACHED // pixels[0].numel())
    for start in range(0, len(pixels), few):
        part = pixels[start : start + few].permute(0, 3, 1, 2).contiguous()
        out[start : start + few].copy_(part).div_(127.5).sub_(1.0)
    return out


def encode(
    source: ImageSource,
    generator: Generator,
    out: str | os.PathLike[str],
    *,
    batch_size: int = 256,
    shard_size: int = 4096,
    dtype: str = "float32",
    whiten: bool = False,
    progress: bool = True,
) -> LatentStore:
    """Encodes every image of `source` into the latent store `out`, or finishes one that was begun.

    Args:
        source: labelled images; its number of a sample becomes the sample's `index`.
        generator: encodes on the device where its weights are.
        out: folder of the store.
        batch_size: images encoded together.
        shard_size: samples stored together; a killed job repeats fewer than this many.
        dtype: how latents are stored.
        whiten: whether the store's statistics whiten latents rather than standardise element by element.
        progress: show samples done, rate and time left.

    Returns:
        The finished store.

    Raises:
        ValueError: images have another shape than the generator's, `out` was begun with other settings or is longer
            than the source, a size is not positive, or a latent is not finite (named by sample).
        TypeError: the images are not uint8.
        OSError: `out` cannot be written; raised before any image is made.
        RuntimeError: another process writes the same store.
    """
    encoding = Encoding(source, generator, out, batch_size, shard_size, dtype, whiten)
    writer = encoding.begin()
    with Tally(encoding.parts, writer.count, progress) as tally:
        for part in encoding.parts:
            if not part.path.is_file():
                encoding.make(part, partial(tally.advance, part))
    return encoding.finish(writer)
