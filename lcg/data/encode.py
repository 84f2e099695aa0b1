"""The encode job: images to latents, once, so that everything after it works on latents,

    source (images x, labels y)  ->  z = generator.encode(x)  ->  latent store.

The job may be killed and started again at any moment: it goes on after the last stored shard.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lcg import __version__
from lcg.data.images import provenance_of
from lcg.data.source import ImageSource
from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.generators.base import Generator, pixels_to_x


def encode(
    source: ImageSource,
    generator: Generator,
    out: str | os.PathLike[str],
    *,
    batch_size: int = 256,
    shard_size: int = 4096,
    dtype: str = "float32",
    progress: bool = True,
) -> LatentStore:
    """Encodes every image of `source` into the latent store `out`, or finishes one that was begun.

    Args:
        source: labelled images; its number of a sample becomes the sample's `index`.
        generator: encodes on the device where its weights are.
        out: folder of the store.
        batch_size: images encoded together.
        shard_size: samples stored together; a killed job repeats fewer than this many.
        dtype: how latents are stored, "float32" or "float16".
        progress: show samples done, rate and time left.

    Returns:
        The finished store.

    Raises:
        ValueError: images have another shape than the generator's, `out` was begun with other settings or is longer
            than the source, a size is not positive, or a latent is not finite (named by sample).
        TypeError: the images are not uint8.
        OSError: `out` cannot be written; raised before any image is made.
    """
    for name, value in (("batch_size", batch_size), ("shard_size", shard_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be >= 1, got {value}")
    if tuple(source.image_shape) != tuple(generator.image_shape):
        raise ValueError(
            f"the images are {tuple(source.image_shape)} (C, H, W) and the generator takes "
            f"{tuple(generator.image_shape)}; resize the images or choose another generator"
        )
    total = len(source)
    writer = LatentStoreWriter(out, generator.latent_shape, source.schema, _provenance(source, generator), dtype)
    if writer.count > total:
        raise ValueError(
            f"the store at {out} has {writer.count} samples, the source only {total}; choose another folder"
        )
    if writer.next_index != writer.count:
        raise ValueError(f"the store at {out} skips samples, so it was not written by encode; choose another folder")

    generator.eval()
    with tqdm(total=total, initial=writer.count, unit="image", desc="encode", disable=not progress) as bar:
        while writer.count < total:
            start, stop = writer.count, min(writer.count + shard_size, total)
            latents, labels = [], []
            for begin in range(start, stop, batch_size):
                end = min(begin + batch_size, stop)
                z, y = _encode_batch(source, generator, begin, end)
                latents.append(z)
                labels.append(y)
                bar.update(end - begin)
            writer.append(np.concatenate(latents), np.concatenate(labels), np.arange(start, stop))
    return writer.finish()


@torch.no_grad()
def _encode_batch(source: ImageSource, generator: Generator, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = source.chunk(start, stop)
    channels, height, width = source.image_shape
    if images.shape != (stop - start, height, width, channels):
        raise ValueError(
            f"samples {start} to {stop} of the source must be {(stop - start, height, width, channels)} pixels, "
            f"got {images.shape}; correct its `chunk`"
        )
    x = pixels_to_x(torch.from_numpy(np.ascontiguousarray(images)).to(generator.device))
    return generator.encode(x).float().cpu().numpy(), np.asarray(labels, dtype=np.float32)


def _provenance(source: ImageSource, generator: Generator) -> dict[str, Any]:
    return {**provenance_of(source=source), "generator": generator.identity(), "lcg": __version__}


def encode_job(
    source: ImageSource,
    generator: Generator,
    out: str,
    batch_size: int = 256,
    shard_size: int = 4096,
    dtype: str = "float32",
    progress: bool = True,
) -> None:
    """Encodes labelled images into a latent store, once. Run again, it goes on where it was stopped.

    Args:
        source: labelled images, such as lcg.data.avatars.AvatarSource or lcg.data.images.ImageFolder.
        generator: the frozen generator whose encoder is used, such as lcg.generators.autoencoder.AvatarAutoencoder.
        out: folder of the store.
        batch_size: images encoded together.
        shard_size: samples stored together.
        dtype: float32 or float16.
        progress: show samples done, rate and time left.
    """
    store = encode(source, generator, out, batch_size=batch_size, shard_size=shard_size, dtype=dtype, progress=progress)
    print(f"{len(store)} latents of shape {store.latent_shape} in {out}")
