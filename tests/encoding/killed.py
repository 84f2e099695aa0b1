"""A program for tests: encodes in processes that are killed at random moments, goes on, and compares the bytes.

    python killed.py FOLDER SEED TIMES RANKS

It is forked and not started anew for each of them, as importing torch takes longer than the encoding here. The ranks
share parts as `lcg.modules.pieces` has it: the first says which are missing, each does every RANKS-th, the first waits
for the others. Killed are all of them, or only one: then the others may still be at work when the next job begins.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lcg.data.encode import Encoding, encode
from lcg.data.source import ImageSource
from lcg.generators.base import Generator
from lcg.schema import Attribute, Schema

SIZES = {"batch_size": 3, "shard_size": 8}


class Noise(ImageSource):
    """Images of noise, a little slow."""

    schema = Schema((Attribute("bright"),))
    image_shape = (3, 4, 4)

    def __init__(self, count: int = 100, seconds: float = 0.001) -> None:
        self.count, self.seconds = count, seconds

    def __len__(self) -> int:
        return self.count

    def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(self.seconds * (stop - start))
        images = np.stack([np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8) for i in range(start, stop)])
        return images, (images.mean(axis=(1, 2, 3)) > 128).astype(np.float32)[:, None]

    def identity(self) -> dict[str, Any]:
        return {"class": "Noise"}


class Projection(Generator):
    """z = x P for a fixed P."""

    latent_shape = (5,)
    image_shape = (3, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.randn(48, 5, generator=torch.Generator().manual_seed(0)))

    def decode(self, z: Tensor) -> Tensor:
        return (z @ self.matrix.T).view(-1, *self.image_shape).clamp(-1, 1)

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix


def job(out: Path, ranks: int) -> None:
    """The whole encoding, by this process and RANKS - 1 others."""
    if ranks == 1:
        encode(Noise(), Projection(), out, **SIZES, progress=False)
        return
    encoding = Encoding(Noise(), Projection(), out, **SIZES)
    writer = encoding.begin()
    missing = [part for part in encoding.parts if not part.path.is_file()]

    def share(rank: int) -> None:
        for part in missing[rank::ranks]:
            encoding.make(part, lambda images: None)

    others = [forked(lambda rank=rank: share(rank)) for rank in range(1, ranks)]
    share(0)
    if any(os.waitpid(pid, 0)[1] for pid in others):
        os._exit(1)  # as a launcher ends all when one is lost
    encoding.finish(writer)


def forked(work: Callable[[], object]) -> int:
    """Another process that does the work; its id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def in_group(work: Callable[[], object]) -> int:
    """The same at the head of a group of its own."""

    def lead() -> None:
        os.setpgid(0, 0)
        work()

    pid = forked(lead)
    with suppress(OSError):  # whoever of the two comes first
        os.setpgid(pid, pid)
    return pid


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def main(folder: Path, seed: int, times: int, ranks: int) -> None:
    tqdm.set_lock(threading.RLock())  # its own would be shared, and kept by whoever is killed with it
    draw = random.Random(seed)
    started = time.perf_counter()
    assert os.waitpid(in_group(lambda: job(folder / "whole", ranks)), 0)[1] == 0
    seconds, expected = time.perf_counter() - started, content(folder / "whole")
    equal = interrupted = 0
    for number in range(times):
        out = folder / str(number)
        pid = in_group(lambda out=out: job(out, ranks))
        time.sleep(draw.uniform(0, seconds))
        alone = ranks > 1 and draw.random() < 0.5
        (os.kill if alone else os.killpg)(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        interrupted += not (out / "manifest.json.sha256").is_file()
        again = os.waitpid(in_group(lambda out=out: job(out, draw.choice((1, ranks)))), 0)[1]
        deadline = time.monotonic() + 30
        while alone and time.monotonic() < deadline:  # what was left of the first is refused, or has ended
            try:
                os.killpg(pid, 0)
                time.sleep(0.01)
            except ProcessLookupError:
                break
        if again or alone:  # the two may have been in each other's way: then one of them says so
            assert os.waitpid(in_group(lambda out=out: job(out, 1)), 0)[1] == 0
        equal += content(out) == expected
    print(json.dumps({"equal": equal, "interrupted": interrupted, "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
