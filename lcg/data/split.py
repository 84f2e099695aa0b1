"""The train/validation/test split: a property of each sample, by a hash of its index,

    validation  iff  h(index) < val_fraction,        test  iff  h(index) >= 1 - test_fraction,

    h(i): output i of SplitMix64 seeded with 0, scaled to [0, 1).

So a sample stays on its side when the store grows, when it is encoded again by another generator, and when the seed of
a run changes; the validation samples of a smaller fraction are among those of a larger one; and neither held-out side
moves when the other's fraction changes. SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
generators") mixes a counter, so that output i needs no other.

What else is chosen sample by sample (which keep their labels, say) takes another stream of the same hash, one that
begins elsewhere on the generator's cycle of 2^64 outputs and hence says nothing about the split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

TRAIN, VALIDATION, TEST = 0, 1, 2


def uniform(index: np.ndarray | Tensor, stream: str = "") -> np.ndarray:
    """A number for each sample that looks drawn from U[0, 1) and is always the same.

    Args:
        index: (N,) int64, the samples' numbers in their source.
        stream: the name of what is chosen by it; streams are independent of each other. "" is the split's.

    Returns:
        (N,) float64 in [0, 1), 53 bits.
    """
    seed = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little") if stream else 0
    h = (np.asarray(index).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)  # 2^64
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    h = h ^ (h >> np.uint64(31))
    values: np.ndarray = (h >> np.uint64(11)) * 2.0**-53  # 53 bits are exact in a double
    return values


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
    return side_of(index, fraction) == VALIDATION


def side_of(index: np.ndarray | Tensor, val_fraction: float, test_fraction: float = 0.0) -> np.ndarray:
    """On which side of the split each sample is.

    Args:
        index: (N,) int64, the samples' numbers in their source.
        val_fraction: expected fraction of validation samples, in [0, 1).
        test_fraction: expected fraction of test samples, in [0, 1).

    Returns:
        (N,) uint8, TRAIN, VALIDATION or TEST.

    Raises:
        ValueError: a fraction is out of range, or they leave nothing to train on.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0.0 <= fraction < 1.0:
            raise ValueError(f"`{name}` must be in [0, 1), got {fraction}; 0.05 holds out one sample in twenty")
    if val_fraction + test_fraction >= 1:
        raise ValueError(
            f"`val_fraction` + `test_fraction` must be below 1, got {val_fraction} + {test_fraction}; "
            "lower one, so that samples are left to train on"
        )
    h = uniform(index)
    return np.where(h < val_fraction, VALIDATION, np.where(h >= 1 - test_fraction, TEST, TRAIN)).astype(np.uint8)


def keeps_labels(index: np.ndarray | Tensor, fraction: float | Mapping[str, float], names: Sequence[str]) -> np.ndarray:
    """Which samples keep which labels when only a fraction shall; those of a smaller fraction are among a larger one's.

    Args:
        index: (N,) int64, the samples' numbers in their source.
        fraction: one number, by which a sample keeps all labels or none; or numbers by attribute, each of which chooses
            samples by a stream of its own. An attribute that is not named keeps all labels.
        names: the attributes.

    Returns:
        (N, A) bool.
    """
    if not isinstance(fraction, Mapping):
        return np.tile((uniform(index, "labels") < fraction)[:, None], len(names))
    kept = np.ones((len(index), len(names)), bool)
    for column, name in enumerate(names):
        if name in fraction:
            kept[:, column] = uniform(index, f"labels of {name}") < fraction[name]
    return kept


def check_label_fraction(fraction: float | Mapping[str, float]) -> None:
    """Raises ValueError unless every fraction is in [0, 1]."""
    for name, value in fraction.items() if isinstance(fraction, Mapping) else (("", fraction),):
        if not 0 <= value <= 1:
            of = f" of {name!r}" if name else ""
            raise ValueError(f"`label_fraction`{of} must be in [0, 1], got {value}; 1 keeps all labels")
