"""A memory of what was answered last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The answers that were used last, by what was asked; the oldest are forgotten.

    Args:
        most: answers that are kept.
    """

    def __init__(self, most: int) -> None:
        self.most, self._kept, self._lock = most, OrderedDict[K, V](), Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The answer for a key; `make` finds it where it is not known, perhaps twice when two ask at once."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return made
