"""The latent store: raw latents with their labels on disk, in shards that are mapped into memory.

    DIR/manifest.json             what there is (`manifest`)
    DIR/shard-00000.safetensors   "latents" (n, *latent_shape), "labels" (n, A) with NaN for missing, "index" (n,)

`index` is the number of a sample in its source: it increases strictly, names the sample in every message, and decides
on which side of the train/validation split the sample falls, however much the store grows.

`shards` are read by mapping them into memory, the `reader` gathers rows from them, the `writer` adds to them.
"""

from lcg.data.store.reader import LatentStore
from lcg.data.store.writer import LatentStoreWriter

__all__ = ["LatentStore", "LatentStoreWriter"]
