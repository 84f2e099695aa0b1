"""What one process measures; each function here is the whole work of one, see `lcg.benchmarks.storage.job`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcg.benchmarks.storage.plan import Size
from lcg.benchmarks.storage.readers import NPY, READERS
from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.schema import Attribute, Schema

RUN = 4096
"""Rows that are asked for together from end to end."""

Record = dict[str, Any]


def build(folder: Path, size: Size, npy: bool) -> Record:
    """Makes a store of random latents, and the .npy file of the same latents."""
    schema = Schema((Attribute("hat"), Attribute("age", "continuous")))
    with watched() as record:
        writer = LatentStoreWriter(folder, (size.elements,), schema, {}, dtype="float16")
        drawing = 0.0
        while writer.count < size.rows:
            started = time.perf_counter()
            index = np.arange(writer.count, min(writer.count + size.shard, size.rows))
            rng = np.random.default_rng((size.elements, writer.count))
            latents = rng.standard_normal((len(index), size.elements), dtype=np.float32)
            labels = np.stack([rng.integers(0, 2, len(index)), rng.random(len(index))], axis=1)
            drawing += time.perf_counter() - started
            writer.append(latents, labels, index)
    record["seconds"] -= drawing  # of making random numbers up
    record["rows"] = size.rows / record["seconds"]
    with watched() as finishing:
        store = writer.finish()
    record |= {
        "statistics": finishing | {"rows": size.rows / finishing["seconds"]},
        "shards": len(store.manifest.shards),
    }
    if npy:
        out = np.lib.format.open_memmap(folder / NPY, "w+", np.float16, (size.rows, size.elements))
        for start in range(0, size.rows, RUN):
            out[start : start + RUN] = store.latents(slice(start, start + RUN)).half().numpy()
        out.flush()
    return record


def random_batches(folder: Path, name: str, batch: int, count: int, cold: bool, seed: int) -> Record:
    """Rows a second of a reader in random batches; the sum tells that all readers give the same."""
    gather, rng = READERS[name](folder), np.random.default_rng(seed)
    rows = len(LatentStore.open(folder))
    batches = [rng.integers(0, rows, batch) for _ in range(count)]
    if cold:
        forget(folder)
    else:
        remember(folder)
    read, total = disk_bytes(), 0.0
    with watched() as record:
        for chosen in batches:
            total += float(gather(chosen)[:, 0].sum())
    return record | {
        "rows": batch * count / record["seconds"],
        "rows_of_cpu": batch * count / record["cpu"],
        "from_disk": (disk_bytes() - read) / 1e6,
        "sum": total,
    }


def from_end_to_end(folder: Path, name: str, cold: bool) -> Record:
    """Megabytes of files a second: of the store in order, as tensors, and of its files as bytes alone."""
    files = sorted(folder.glob("shard-*.safetensors"))
    store = LatentStore.open(folder)
    if cold:
        forget(folder)
    else:
        remember(folder)
    with watched() as record:
        if name == "lcg":
            for start in range(0, len(store), RUN):
                store.latents(slice(start, start + RUN))
        else:
            buffer = memoryview(bytearray(2**20))
            for path in files:
                with open(path, "rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass
    return record | {"megabytes": sum(path.stat().st_size for path in files) / 1e6 / record["seconds"]}


def epoch(folder: Path, batch: int) -> Record:
    """Opens a store and goes through it once in random batches, latents and labels."""
    with watched() as opening:
        store = LatentStore.open(folder)
    order = np.random.default_rng(0).permutation(len(store))
    remember(folder)
    with watched() as record:
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            store.latents(rows)
            store.labels(rows)
    files = len(os.listdir("/proc/self/fd"))
    return record | {"rows": len(order) / record["seconds"], "open": opening["seconds"], "open_files": files}


@contextmanager
def watched(threads: int = 1) -> Iterator[Record]:
    """Seconds of the wall and of the processor, and by how many megabytes the process grew at most, maps included."""
    torch.set_num_threads(threads)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before, record = _status("VmRSS"), Record()
    wall, cpu = time.perf_counter(), time.process_time()
    yield record
    record |= {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    record["growth"] = (_status("VmHWM") - before) / 1e3


def forget(folder: Path) -> None:
    """Asks the system to drop the files from its cache; nothing of other processes is touched."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remember(folder: Path) -> None:
    """Reads all files."""
    buffer = memoryview(bytearray(2**22))
    for path in folder.iterdir():
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def disk_bytes() -> int:
    """That this process has had fetched from the disk so far."""
    return int(_fields("/proc/self/io")["read_bytes"])


def _status(name: str) -> int:
    return int(_fields("/proc/self/status")[name].removesuffix("kB"))


def _fields(path: str) -> dict[str, str]:
    return dict(line.replace(" ", "").replace("\t", "").split(":", 1) for line in Path(path).read_text().splitlines())
