"""What is computed once of real images: their latents, features, regions; kept from run to run and for all benchmarks.

An entry is a safetensors file whose name is a hash of what it holds and of all that it depends on: the images (by the
world that draws them, see `World.identity`), the weights of generator and judge, the statistics of the latents, and the
version of lcg. Whatever changes has another name; nothing is ever out of date.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lcg.data.atomic import write_atomic

IN_MEMORY = 2**28
"""Bytes of entries that a process keeps at hand."""

Tensors = dict[str, Tensor]


class Cache:
    """Tensors by what they are.

    Args:
        folder: where they lie; several jobs may share it.
        always: what all of them depend on, in JSON primitives.
    """

    def __init__(self, folder: Path, always: Mapping[str, Any]) -> None:
        self.folder, self.always = folder, dict(always)
        self._at_hand: OrderedDict[Path, Tensors] = OrderedDict()

    def path(self, *what: Any) -> Path:
        """Where an entry lies; `what` in JSON primitives."""
        key = hashlib.sha256(json.dumps([self.always, what], sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / f"{key}.safetensors"

    def get(self, make: Callable[[], Tensors], *what: Any) -> Tensors:
        """An entry; `make` is called when there is none yet. The tensors are shared: do not change them."""
        path = self.path(*what)
        if path not in self._at_hand:
            self._at_hand[path] = self._read(path) or self._made(path, make)
            while len(self._at_hand) > 1 and self._bytes() > IN_MEMORY:
                self._at_hand.popitem(last=False)
        self._at_hand.move_to_end(path)
        return self._at_hand[path]

    def _bytes(self) -> int:
        return sum(tensor.nbytes for entry in self._at_hand.values() for tensor in entry.values())

    @staticmethod
    def _read(path: Path) -> Tensors | None:
        try:
            return load(path.read_bytes())
        except (FileNotFoundError, SafetensorError):  # a damaged file is made again
            return None

    @staticmethod
    def _made(path: Path, make: Callable[[], Tensors]) -> Tensors:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(tensors), shared=True)
        return tensors
