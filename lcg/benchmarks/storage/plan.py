"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """A store of normal random vectors in float16 with two attributes.

    Args:
        rows: how many.
        elements: of a latent.
        shard: rows of a shard.
    """

    rows: int
    elements: int
    shard: int = 4096

    @property
    def megabytes(self) -> float:
        """Of latents."""
        return self.rows * self.elements * 2e-6


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Args:
        read: the store that is read at random and from end to end by all candidates.
        large: the store that is built, finished and gone through once.
        batch: rows of a batch.
        warm: batches of a measurement from the cache.
        cold: batches of a measurement from the disk.
        rounds: measurements of each candidate.
    """

    read: Size
    large: Size
    batch: int = 1024
    warm: int = 200
    cold: int = 20
    rounds: int = 5


def full() -> Plan:
    """The sizes of the README."""
    return Plan(Size(1_000_000, 512), Size(10_000_000, 64))


def quick() -> Plan:
    """The same in small."""
    return Plan(Size(50_000, 512), Size(200_000, 64), warm=50, cold=10, rounds=2)
