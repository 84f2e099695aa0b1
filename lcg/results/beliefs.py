"""What the classifiers read in images: every attribute by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lcg.results.display import bar, block, code, grid, picture, quiet, strong, table
from lcg.schema import Attribute, Schema

SHOWN = 8
"""Images whose attributes are shown, at most."""


@dataclass(frozen=True, eq=False, repr=False)
class Beliefs(Mapping[str, NDArray[np.float32]]):
    """By the name of an attribute, what is believed of it in each of N images.

    Of a binary attribute (N,) the probability that an image has it, of a categorical one (N, values) the probability of
    each value, of a continuous one (N,) its mean.

    Attributes:
        schema: the attributes.
        believed: what is believed, by name.
        images: (N, H, W, C) uint8, for the display.
    """

    schema: Schema
    believed: Mapping[str, NDArray[np.float32]]
    images: NDArray[np.uint8]

    @classmethod
    def of(cls, schema: Schema, outputs: Mapping[str, Tensor], images: NDArray[np.uint8]) -> Beliefs:
        """Probabilities of a classifier's independent outputs, see `lcg.guidance.log_probability`."""
        return cls(schema, {a.name: _probabilities(a, outputs[a.name]) for a in schema}, images)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name not in self.believed:
            self.schema.index(name)  # says which is nearest
        return self.believed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.believed)

    def __len__(self) -> int:
        return len(self.believed)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def likely(self, index: int = 0) -> dict[str, str]:
        """The likeliest value of every attribute that applies to one image, as formulas spell it."""
        has = {a.name: bool(self[a.name][index] > 0.5) for a in self.schema.of_kind("binary")}
        return {a.name: self._spelled(a, index) for a in self.schema if _applies(a, has)}

    def _spelled(self, attribute: Attribute, index: int) -> str:
        name, p = attribute.name, self[attribute.name][index]
        if attribute.kind == "binary":
            return name if p > 0.5 else f"~{name}"
        return f"{name}={attribute.values[int(p.argmax())]}" if attribute.kind == "categorical" else f"{name}={p:.3g}"

    def _certainty(self, attribute: Attribute, index: int) -> str:
        p = self[attribute.name][index]
        if attribute.kind == "continuous":
            return ""
        return bar(float(max(p, 1 - p) if attribute.kind == "binary" else p.max()))

    def __repr__(self) -> str:
        n = len(self.images)
        told = f"{n} images, by name: {', '.join(self)}" if n > 1 else ", ".join(self.likely().values())
        return f"Beliefs({told})"

    def _repr_html_(self) -> str:
        shown = range(min(len(self.images), SHOWN))
        parts = []
        for i in shown:
            rows = [(code(text), self._certainty(self.schema[name], i)) for name, text in self.likely(i).items()]
            half = -(-len(rows) // 2)
            head = "the classifier reads", "how surely"
            tables = [table(head, part) for part in (rows[:half], rows[half:]) if part]
            parts.append(grid([picture(self.images[i], f"image {i}", "", 96), *tables]))
        more = [quiet(f"and {len(self.images) - len(shown)} more")] if len(self.images) > len(shown) else []
        return block(strong("Attributes"), *parts, *more)


def _applies(attribute: Attribute, has: Mapping[str, bool]) -> bool:
    return all(has.get(name, wanted) == wanted for name, wanted in attribute.applies_if.items())


def _probabilities(attribute: Attribute, output: Tensor) -> NDArray[np.float32]:
    output = output.float()
    if attribute.kind == "binary":
        return output.sigmoid().cpu().numpy()
    return (output.softmax(-1) if attribute.kind == "categorical" else output[:, 0]).cpu().numpy()
