"""Cells: the combinations of values that some attributes take, and what share of an epoch each gets.

A cell is written as a formula would write it, one atom per attribute: `hat`, `~hat`, `hair=red`; and `hat=?` where the
label is missing, which is a value like any other here. Cells of several attributes join atoms: `~hat & hair=red`.

Shares are `natural`, those of the store; `equal`, the same for every cell that occurs; or numbers by cell. A key that
names only some of the attributes stands for all cells that agree with it, which divide its share as the store does:

    stratify: [hat, hair]        shares: {hat: 0.5, ~hat: 0.5}

makes half of every batch wear hats, and gives the hair of either half its natural shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from lcg.schema import Attribute, Schema, unknown_name

Shares = Literal["natural", "equal"] | dict[str, float]
MAX_CELLS = 2**32


class Cells:
    """The cells of the joint of some attributes, numbered.

    Args:
        schema: of the labels.
        names: the attributes, binary or categorical.

    Raises:
        ValueError: a name is unknown, occurs twice or is of a continuous attribute, or there are too many cells.
    """

    def __init__(self, schema: Schema, names: Sequence[str]) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"`stratify` must name distinct attributes, got {list(names)}; name each once")
        self.columns = [schema.index(name) for name in names]
        self.atoms = [atoms_of(schema[name]) for name in names]
        self.sizes = tuple(len(atoms) for atoms in self.atoms)
        if math.prod(self.sizes) > MAX_CELLS:
            raise ValueError(
                f"`stratify` by {', '.join(names)} makes {math.prod(self.sizes)} cells, at most {MAX_CELLS} are "
                "possible; name fewer attributes"
            )

    def of(self, labels: Tensor) -> np.ndarray:
        """The cell of each row of labels (n, A): (n,) uint32."""
        values = labels[:, self.columns].numpy()
        codes = [
            np.where(np.isnan(value), size - 1, value).astype(np.int64)
            for value, size in zip(values.T, self.sizes, strict=True)
        ]
        return np.ravel_multi_index(codes, self.sizes).astype(np.uint32)

    def name(self, cell: int) -> str:
        """A cell as its shares would name it."""
        values = np.unravel_index(cell, self.sizes)
        return " & ".join(atoms[int(value)] for atoms, value in zip(self.atoms, values, strict=True))

    def shares(self, shares: Shares, cells: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The share of each occupied cell, up to a common factor.

        Args:
            shares: `natural`, `equal` or by key, see the module.
            cells: (C,) the cells that occur.
            counts: (C,) how many rows each has.

        Returns:
            (C,) float64.

        Raises:
            ValueError: a key is no cell or none that occurs, a cell has no key or two, or all shares are zero.
        """
        if shares == "natural":
            return counts.astype(np.float64)
        if shares == "equal":
            return np.ones(len(cells))
        values, out, keys = np.stack(np.unravel_index(cells, self.sizes)), np.zeros(len(cells)), [""] * len(cells)
        for key, share in shares.items():
            here = self._matching(key, values)
            if share > 0 and not here.any():
                raise ValueError(f"`shares`: no training sample is {key!r}, which should have {share}; leave it out")
            for position in np.flatnonzero(here).tolist():
                if keys[position]:
                    raise ValueError(
                        f"`shares`: the cell {self.name(cells[position])!r} is meant by {keys[position]!r} and by "
                        f"{key!r}; name every cell once"
                    )
                keys[position] = key
            out[here] = share * counts[here] / max(1, counts[here].sum())
        if "" in keys:
            position = keys.index("")
            raise ValueError(
                f"`shares` say nothing of the cell {self.name(cells[position])!r}, which has {counts[position]} "
                "training samples; name it, with 0 to leave it out"
            )
        return out

    def _matching(self, key: str, values: np.ndarray) -> np.ndarray:
        """Which of the cells, given as values (attributes, C), agree with the key."""
        number = {_squeezed(atom): (k, v) for k, atoms in enumerate(self.atoms) for v, atom in enumerate(atoms)}
        here = np.ones(values.shape[1], bool)
        for atom in key.split("&"):
            if _squeezed(atom) not in number:
                raise unknown_name("cell in `shares`:", atom.strip(), sum(self.atoms, ()), "`stratify`")
            attribute, value = number[_squeezed(atom)]
            here &= values[attribute] == value
        return here


def atoms_of(attribute: Attribute) -> tuple[str, ...]:
    """The values of an attribute in label order, as formulas write them, and the missing one.

    Raises:
        ValueError: the attribute is continuous.
    """
    name = attribute.name
    if attribute.kind == "continuous":
        raise ValueError(
            f"`stratify`: {name!r} is continuous and has no cells; name binary or categorical attributes, or add one "
            f"to the store's labels that says in which range {name!r} lies"
        )
    values = (f"~{name}", name) if attribute.kind == "binary" else tuple(f"{name}={v}" for v in attribute.values)
    return (*values, f"{name}=?")


def _squeezed(atom: str) -> str:
    return "".join(atom.split())


def check_shares(shares: Shares, stratify: Sequence[str]) -> None:
    """Raises ValueError for shares that no store could meet: a wrong word, a negative number, nothing but zeros."""
    if isinstance(shares, Mapping):
        if any(not 0 <= share < math.inf for share in shares.values()) or not any(shares.values()):
            raise ValueError(f"`shares` must be >= 0 and not all 0, got {shares}; they are scaled to sum to 1")
    elif shares not in ("natural", "equal"):
        raise ValueError(f"`shares` must be 'natural', 'equal' or numbers by cell, got {shares!r}; choose one")
    if shares != "natural" and not stratify:
        raise ValueError(f"`shares` {shares!r} need `stratify`; name the attributes whose cells they are of")
