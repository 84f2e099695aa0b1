"""Statistics in a file of their own, for what is too much for JSON: a whitening, and latents of very many elements.

The arrays are "mean" and "std" (*latent_shape) and, where whitened, "whitening" and "unwhitening" (D, D), all float32,
in a safetensors file.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import safetensors.torch

from lcg.data.atomic import write_atomic
from lcg.data.statistics import Statistics, Whitening
from lcg.data.store.manifest import MAX_INLINE, Manifest, StatisticsFile
from lcg.data.store.shards import Array, decoded, located


def write_statistics(folder: Path, statistics: Statistics) -> Statistics | StatisticsFile:
    """The manifest's entry for the statistics, after writing their file if they are not to stand in the entry."""
    if statistics.whitening is None and statistics.mean.numel() <= MAX_INLINE:
        return statistics
    arrays = {"mean": statistics.mean, "std": statistics.std}
    if statistics.whitening is not None:
        arrays |= {"whitening": statistics.whitening.matrix, "unwhitening": statistics.whitening.inverse}
    data = safetensors.torch.save({name: array.contiguous() for name, array in arrays.items()})
    write_atomic(folder / StatisticsFile.file, data, shared=True)
    return StatisticsFile(hashlib.sha256(data).hexdigest(), statistics.whitening is not None)


def read_statistics(folder: Path, manifest: Manifest) -> Statistics | None:
    """The statistics of a store, wherever they stand.

    Raises:
        FileNotFoundError: their file is missing.
        ValueError: the file is not what the manifest says; it is small, so that its checksum is always looked at.
    """
    entry = manifest.statistics
    if not isinstance(entry, StatisticsFile):
        return entry
    path = folder / entry.file
    if not path.is_file():
        raise FileNotFoundError(f"the latent store lacks its statistics {path}; copy the whole folder again")
    try:
        located(path, arrays := statistics_arrays(manifest))  # its size is now known to be what it should be
        data = bytearray(path.read_bytes())
        found = hashlib.sha256(data).hexdigest()
        if found != entry.sha256:
            raise ValueError(f"its SHA-256 is {found}, expected {entry.sha256}")
        mean, std, *whitening = (
            decoded(data[array.offset : array.offset + array.nbytes], array.dtype, array.shape)
            for array in located(path, arrays).values()
        )
        return Statistics(mean, std, Whitening(*whitening) if whitening else None)
    except ValueError as error:
        raise ValueError(f"{path} is not the statistics that the manifest describes: {error}; copy it again") from error


def statistics_arrays(manifest: Manifest) -> dict[str, Array]:
    """What must be in the file."""
    elements = math.prod(manifest.latent_shape)
    names = {"mean": manifest.latent_shape, "std": manifest.latent_shape}
    if manifest.whitened:
        names |= {"whitening": (elements, elements), "unwhitening": (elements, elements)}
    return {name: Array("float32", shape) for name, shape in names.items()}
