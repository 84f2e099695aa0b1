"""`lcg encode`: images to latents, by any number of ranks that share the shards among them.

A piece of work is a shard (`lcg.data.encode`), so the number of ranks, and how often they were stopped, changes no bit
of the store (on one kind of device and with one number of threads).
"""

from __future__ import annotations

import os
from functools import partial

from lcg.data.encode import Encoding, encode
from lcg.data.source import ImageSource
from lcg.data.store import LatentStore
from lcg.data.tally import Tally
from lcg.generators.base import Generator
from lcg.modules.pieces import Crew, Piece, Ranks


def encode_many(
    source: ImageSource,
    generator: Generator,
    out: str | os.PathLike[str],
    *,
    batch_size: int = 256,
    shard_size: int = 4096,
    dtype: str = "float32",
    whiten: bool = False,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    progress: bool = True,
) -> LatentStore | None:
    """As `lcg.data.encode.encode`, by many processes, each with the generator on its own device.

    Args:
        source: labelled images, the same in every process.
        generator: the frozen generator; moved to the device of this process.
        out: folder of the store.
        batch_size: images encoded together, by each process.
        shard_size: samples stored together; what one process does at a time.
        dtype: how latents are stored.
        whiten: whether the store's statistics whiten latents rather than standardise element by element.
        ranks: how many processes share the work.
        progress: show samples done, rate and time left, of all processes together.

    Returns:
        The finished store; None in the processes that do not report.

    Raises:
        ValueError: as `encode`, or a launcher has started other processes than `ranks` says.
        TypeError: as `encode`.
        OSError: as `encode`.
        RuntimeError: another job has written the store in the meantime.
    """
    crew = Crew(ranks)
    generator = generator.to(ranks.device)
    if ranks.count == 1:
        return encode(
            source,
            generator,
            out,
            batch_size=batch_size,
            shard_size=shard_size,
            dtype=dtype,
            whiten=whiten,
            progress=progress,
        )
    encoding = Encoding(source, generator, out, batch_size, shard_size, dtype, whiten)
    writer = encoding.begin() if crew.leads else None
    begun = 0 if writer is None else writer.count
    with Tally(encoding.parts, begun, shown=progress and writer is not None) as tally:

        def piece(number: int) -> Piece:
            part = encoding.parts[number]
            return Piece("shard", part.path, partial(encoding.make, part, partial(tally.advance, part)))

        crew.run("encode", [piece(number) for number in range(len(encoding.parts))], shown=False)
    return None if writer is None else encoding.finish(writer)


def encode_job(
    source: ImageSource,
    generator: Generator,
    out: str,
    batch_size: int = 256,
    shard_size: int = 4096,
    dtype: str = "float32",
    whiten: bool = False,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen; the defaults are the help)
    progress: bool = True,
) -> None:
    """Encodes labelled images into a latent store: lcg encode --config configs/data/avatars.yaml.

    Of images of your own: --source lcg.data.images.ImageFolder --source.root FOLDER --source.table TABLE.csv, with a
    generator that has an encoder. Run again, it goes on where it was stopped.

    Args:
        source: labelled images, such as lcg.data.avatars.AvatarSource or lcg.data.images.ImageFolder.
        generator: the frozen generator whose encoder is used, such as lcg.generators.autoencoder.AvatarAutoencoder.
        out: folder of the store.
        batch_size: images encoded together.
        shard_size: samples stored together; what one rank does at a time.
        dtype: float32, float16 or bfloat16.
        whiten: standardise with the whole covariance of the latents rather than element by element.
        ranks: how many processes share the shards.
        progress: show samples done, rate and time left.
    """
    store = encode_many(
        source,
        generator,
        out,
        batch_size=batch_size,
        shard_size=shard_size,
        dtype=dtype,
        whiten=whiten,
        ranks=ranks,
        progress=progress,
    )
    if store is not None:
        print(f"{len(store)} latents of shape {store.latent_shape} in {out}")
