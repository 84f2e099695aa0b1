"""The latent store: raw latents with their labels on disk, in shards that are mapped into memory.

    DIR/manifest.json             what there is (`manifest`, `manifest.schema.json`)
    DIR/manifest.json.sha256      its checksum, of a finished store
    DIR/shard-00000.safetensors   "latents" (n, *latent_shape), "labels" (n, A) with NaN for missing, "index" (n,)
    DIR/statistics.safetensors    of a whitened store, and of latents of very many elements (`statistics_file`)

`index` is the number of a sample in its source: it increases strictly, names the sample in every message, and decides
on which side of the train/validation split the sample falls, however much the store grows.

`shards` are written and checked one by one, `gather` reads rows of many, `reader` and `writer` are the two ends of a
store. `verify` tells all that is wrong with one, `remote` fetches one from elsewhere.
"""

from lcg.data.store.reader import LatentStore
from lcg.data.store.writer import LatentStoreWriter

__all__ = ["LatentStore", "LatentStoreWriter"]
