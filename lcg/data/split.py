"""The train/validation split: a property of each sample, by a hash of its index,

    validation  iff  h(index) < fraction,      h(i): output i of SplitMix64 seeded with 0, scaled to [0, 1).

So a sample stays on its side when the store grows, when it is encoded again by another generator, and when the seed of
a run changes; and the validation samples of a smaller fraction are among those of a larger one. SplitMix64 (Steele, Lea
& Flood 2014, "Fast splittable pseudorandom number generators") mixes a counter, so that output i needs no other.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor


def in_validation(index: np.ndarray | Tensor, fraction: float) -> np.ndarray:
    """Which samples are validation samples.

    Args:
        index: (N,) int64, the samples' numbers in their source.
        fraction: expected fraction of validation samples, in [0, 1).

    Returns:
        (N,) bool.

    Raises:
        ValueError: the fraction is out of range.
    """
    if not 0.0 <= fraction < 1.0:
        raise ValueError(f"`val_fraction` must be in [0, 1), got {fraction}")
    h = (np.asarray(index).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    h = h ^ (h >> np.uint64(31))
    uniform: np.ndarray = (h >> np.uint64(11)) * 2.0**-53  # 53 bits are exact in a double
    return uniform < fraction
