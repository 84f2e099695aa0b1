"""What one process measures; each function here is the whole work of one, see `lcg.benchmarks.encoding.job`."""

from __future__ import annotations

import csv
import shutil
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lcg.benchmarks.storage.measures import Record, watched
from lcg.data.avatars import AvatarSource
from lcg.data.encode import encode
from lcg.data.images import ImageFolder
from lcg.data.reading import Reading
from lcg.data.source import ImageSource
from lcg.generators.autoencoder import AvatarAutoencoder
from lcg.generators.base import Generator, pixels_to_x
from lcg.schema import Attribute, Schema

SIDE = 64
DISTINCT = 1024
"""Avatars that are drawn; longer data sets repeat them."""
KINDS: dict[str, dict[str, Any]] = {"png": {}, "jpg": {"quality": 95}}
"""Files, and how Pillow saves them."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Args:
        images: of the data set that the job encodes by the embedded encoder.
        slow: of the one that it encodes by the convolutional encoder.
        rounds: measurements of each candidate.
        batch: images encoded together.
        threads: of torch and of reading.
    """

    images: int = 100_000
    slow: int = 10_000
    rounds: int = 5
    batch: int = 256
    threads: int = Reading().threads


class Memory(ImageSource):
    """Images that lie in memory already, repeated."""

    schema, image_shape = Schema((Attribute("odd"),)), (3, SIDE, SIDE)

    def __init__(self, count: int, drawn: np.ndarray) -> None:
        self.count, self.drawn = count, np.concatenate([drawn, drawn])

    def __len__(self) -> int:
        return self.count

    def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        first, labels = start % (len(self.drawn) // 2), np.arange(start, stop, dtype=np.float32)[:, None] % 2
        return self.drawn[first : first + stop - start], labels

    def identity(self) -> dict[str, Any]:
        return {"class": "Memory"}


class Convolutions(Generator):
    """An encoder of five convolutions with random weights; 64 x 64 to 64 numbers, 17 million multiplications."""

    latent_shape, image_shape = (64,), (3, SIDE, SIDE)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 256, 256)
        layers = [layer for i, o in pairwise(widths) for layer in (nn.Conv2d(i, o, 3, 2, 1), nn.SiLU())]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 64))

    def encode(self, x: Tensor) -> Tensor:
        return self.net(x)

    def decode(self, z: Tensor) -> Tensor:
        raise NotImplementedError("this generator is for measuring the encode job, and has no decoder")


ENCODERS: dict[str, type[Generator]] = {"embedded": AvatarAutoencoder, "convolutional": Convolutions}


def draw(folder: Path, count: int, threads: int) -> Record:
    """Writes avatars as files of each kind, with tables, and as an array."""
    drawn, _ = AvatarSource("uniform", min(count, DISTINCT), "encoding").chunk(0, min(count, DISTINCT))
    np.save(folder / "images.npy", drawn)
    sizes = {}
    for kind, options in KINDS.items():
        (folder / kind).mkdir()
        for i in range(count):
            path = folder / kind / f"{i:06d}.{kind}"
            if i < len(drawn):
                Image.fromarray(drawn[i]).save(path, **options)
            else:
                shutil.copyfile(folder / kind / f"{i % len(drawn):06d}.{kind}", path)
        with open(folder / f"{kind}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("file", "odd"), *((f"{i:06d}.{kind}", i % 2) for i in range(count))])
        sizes[kind] = sum(path.stat().st_size for path in (folder / kind).iterdir()) / count / 1e3
    return {"kilobytes": sizes}


def bare(folder: Path, encoder: str, count: int, plan: Plan) -> Record:
    """The encoder alone, on a batch that is ready."""
    generator = ENCODERS[encoder]().eval()
    x = pixels_to_x(torch.from_numpy(np.load(folder / "images.npy")[: plan.batch])).contiguous()
    with torch.no_grad(), watched(plan.threads) as record:
        for _ in range(max(1, count // len(x))):
            generator.encode(x)
    return rated(record, max(1, count // len(x)) * len(x))


def job(folder: Path, encoder: str, place: str, count: int, plan: Plan) -> Record:
    """The encode job from memory or from files of a kind; growth is that of the whole job."""
    generator, source = ENCODERS[encoder]().eval(), source_of(folder, place, count, plan)
    with tempfile.TemporaryDirectory(dir=folder) as out, watched(plan.threads) as record:
        encode(source, generator, Path(out) / "store", batch_size=plan.batch, progress=False)
    return rated(record, count)


def reading(folder: Path, place: str, count: int, plan: Plan) -> Record:
    """Reading alone, in batches."""
    source = source_of(folder, place, count, plan)
    with watched(plan.threads) as record:
        for start in range(0, count, plan.batch):
            source.chunk(start, min(start + plan.batch, count))
    return rated(record, count)


def looking(folder: Path, place: str, count: int, plan: Plan) -> Record:
    """The look at all files that the job begins with: hashes, headers, checksums."""
    source = source_of(folder, place, count, plan)
    with watched(plan.threads) as record:
        if isinstance(source, ImageFolder):
            source.fingerprints()
    return rated(record, count)


def source_of(folder: Path, place: str, count: int, plan: Plan) -> ImageSource:
    """So many images from memory or from files of a kind."""
    if place == "memory":
        return Memory(count, np.load(folder / "images.npy"))
    table = folder / f"{place}-{count}.csv"
    with open(folder / f"{place}.csv") as file, open(table, "w") as part:
        part.writelines(line for _, line in zip(range(count + 1), file, strict=False))
    return ImageFolder(folder / place, table, reading=Reading(workers=plan.threads))


def rated(record: Record, images: int) -> Record:
    """With images a second, of the wall and of the processor."""
    return record | {"images": images / record["seconds"], "images_of_cpu": images / record["cpu"]}
