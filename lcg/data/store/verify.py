"""Reading all of a store, to tell what is wrong with it: every damaged file, not only the first.

Three things are looked at. The bytes are those that were written: SHA-256 of every shard, of a file of statistics and
of the manifest. Their meaning is what a writer takes: finite latents, labels that fit the schema, rising indices. And
the statistics are those of the latents. A checksum alone proves only that the bytes come from whoever wrote the
manifest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import torch

from lcg.data.statistics import Moments, Statistics
from lcg.data.store.checks import check_index, check_labels, check_latents
from lcg.data.store.manifest import NAME, SEAL, Manifest, Shard
from lcg.data.store.shards import ShardFile, sha256_of
from lcg.data.store.statistics_file import read_statistics

TOLERANCE = 1e-6
"""Of statistics, as a fraction of the spread: another order of summation may round float32 otherwise."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file.

    Attributes:
        file: which.
        what: sentence without its subject, which is the file.
    """

    file: Path
    what: str

    def __str__(self) -> str:
        return f"{self.file}{self.what}"


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        path: folder of the store.
        shards: how many were read.
        rows: how many they have.
        problems: in the order of the files; empty for a sound store.
    """

    path: Path
    shards: int
    rows: int
    problems: tuple[Problem, ...]

    @property
    def sound(self) -> bool:
        return not self.problems

    def raise_if_damaged(self) -> None:
        """Raises ValueError with all problems unless there are none."""
        if self.problems:
            raise ValueError("\n".join(map(str, self.problems)))


def inspect(folder: Path, progress: Callable[[int], None] | None = None) -> Report:
    """Reads a store; damage is reported, not raised.

    Args:
        folder: of the store.
        progress: is called with the number of rows that were read; they sum to those of the sound shards.

    Raises:
        FileNotFoundError: there is no store.
    """
    if not (folder / NAME).is_file():
        raise FileNotFoundError(f"no latent store at {folder} (it has no {NAME}); give the folder of another")
    try:
        manifest = Manifest.read(folder)
    except ValueError as error:
        return Report(folder, 0, 0, (_problem(folder / NAME, error),))
    problems, moments, last = _of_seal(folder), [], -1
    for shard in manifest.shards:
        try:
            found, last = _read(folder, manifest, shard, last, progress or _silent)
            moments.append(found)
        except (ValueError, OSError) as error:
            problems.append(_problem(folder / shard.file, error))
    if len(moments) == len(manifest.shards):
        problems += _of_statistics(folder, manifest, moments)
    return Report(folder, len(manifest.shards), manifest.count, tuple(problems))


def _read(
    folder: Path, manifest: Manifest, shard: Shard, last: int, progress: Callable[[int], None]
) -> tuple[Moments, int]:
    """Moments and last index of a shard; raises what is wrong with it."""
    file = ShardFile.open(folder, manifest, shard)
    found = sha256_of(file.path)
    if found != shard.sha256:
        raise ValueError(f"{file.path} is damaged: its SHA-256 is {found}, expected {shard.sha256}; copy it again")
    moments: list[Moments] = []
    for rows in file.chunks():
        index, latents = file.read("index", rows), file.read("latents", rows)
        check_index(index, last)
        check_latents(latents, index)
        check_labels(file.read("labels", rows), manifest.schema, index)
        moments.append(Moments.of(latents, products=manifest.whitened))
        last = int(index[-1])
        progress(len(index))
    return reduce(Moments.merge, moments), last


def _of_statistics(folder: Path, manifest: Manifest, moments: list[Moments]) -> list[Problem]:
    """What is wrong with the statistics of latents that are sound themselves."""
    try:
        found = read_statistics(folder, manifest)
    except (ValueError, OSError) as error:
        return [_problem(folder / "statistics.safetensors", error)]
    if found is None:
        return [Problem(folder / NAME, " is not finished: it has no statistics; run the command that wrote it again")]
    expected = Statistics.from_moments(reduce(Moments.merge, moments), manifest.whitened)
    scale = expected.std + expected.mean.abs()
    wrong = [name for name in ("mean", "std") if _far(getattr(found, name), getattr(expected, name), scale, TOLERANCE)]
    if found.whitening is not None and expected.whitening is not None:
        w = expected.whitening
        if _far(found.whitening.matrix, w.matrix, w.matrix.abs().max(), 1e3 * TOLERANCE):
            wrong.append("whitening")
        if _far(found.whitening.inverse, w.inverse, w.inverse.abs().max(), 1e3 * TOLERANCE):
            wrong.append("unwhitening")
    if not wrong:
        return []
    return [Problem(folder / NAME, f" is damaged: {' and '.join(wrong)} are not those of the latents; copy it again")]


def _far(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, tolerance: float) -> bool:
    return not bool(((a - b).abs() <= tolerance * scale).all())


def _of_seal(folder: Path) -> list[Problem]:
    """What is wrong with the manifest's own checksum, which older stores do not have."""
    if not (folder / SEAL).is_file():
        return []
    expected = (folder / SEAL).read_bytes()[:64].decode("ascii", "replace")
    found = sha256_of(folder / NAME)
    if found == expected:
        return []
    return [Problem(folder / NAME, f" is damaged: its SHA-256 is {found}, {SEAL} says {expected}; copy both again")]


def _problem(path: Path, error: Exception) -> Problem:
    """An error as a sentence about the file, which most messages begin with already."""
    text = str(error)
    return Problem(path, text.removeprefix(str(path)) if text.startswith(str(path)) else f": {text}")


def _silent(_: int) -> None: ...
