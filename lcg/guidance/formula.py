"""Formulas over attributes: what an image should be, as an immutable syntax tree.

    glasses & ~beard & (hair=blond | hair=red) & age>0.6 & smile^2.0

Atoms speak of one attribute: a binary one holds (`glasses`), a categorical one is among some values (`hair=blond`,
`hair in {blond, red}`; of an ordinal one also `size>=large`), a continuous one is above or below a threshold
(`age>0.6`). Atoms are combined with `~`, `&`
and `|`, in text and in Python. A conjunct of the whole formula may carry a weight w >= 0, written `conjunct^w` in text
and `conjunct ** w` in Python: guidance then climbs w * log P(conjunct), as in the paper's product of classifiers (Shi
et al. 2023, arXiv:2304.12536); without weights it climbs log P(formula), which is exact (`lcg.guidance.probability`).
A weight of 1 is a weight like any other: `smile^1.0 & hat` means what it says, and no default takes its place.

Truth on label rows is Kleene's three-valued logic: a missing label makes an atom unknown, and unknown never satisfies.
"""

import json
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lcg.schema import Attribute

Verdict = tuple[Tensor, Tensor]
"""Kleene truth of a batch of rows: (certainly true, certainly false); a row that is neither is unknown."""


class Formula(ABC):
    """A formula; build it with `lcg.guidance.parse` or with `&`, `|`, `~` and `**` from other formulas.

    Formulas are equal when they are written the same way; `a & b` and `b & a` mean the same but are not equal.

    Example:
        >>> hat, smile = (Has(Attribute(name), column) for column, name in enumerate(("hat", "smile")))
        >>> hat & ~smile | smile & ~hat
        Formula('(hat & ~smile) | (smile & ~hat)')
        >>> (hat & ~smile).holds(torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, torch.nan]]))
        tensor([ True, False, False])
        >>> str(hat**2.0 & smile)
        'hat^2.0 & smile'
    """

    @abstractmethod
    def atoms(self) -> Iterator["Atom"]:
        """The atoms from left to right, as often as they occur."""

    @abstractmethod
    def verdict(self, labels: Float[Tensor, "n attributes"]) -> Verdict:
        """Kleene truth of every row."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes used, in order of first use."""
        return tuple(dict.fromkeys(atom.name for atom in self.atoms()))

    @property
    def conjuncts(self) -> tuple[tuple["Formula", float], ...]:
        """The conjuncts of the whole formula, each with its weight, which is 1 where none is written."""
        return ((self, 1.0),)

    @property
    def is_weighted(self) -> bool:
        """Whether a conjunct carries a weight, be it 1: the formula is then guided by its own weights alone."""
        return False

    def __repr__(self) -> str:
        return f"Formula({str(self)!r})"

    def holds(self, labels: Float[Tensor, "n attributes"]) -> Bool[Tensor, " n"]:
        """Which rows certainly satisfy the formula; weights play no part.

        Args:
            labels: (N, A) in the columns of the schema that the formula was parsed with, NaN where unknown.

        Returns:
            (N,), False where the labels that are known do not decide: neither `glasses` nor `~glasses` holds for a row
            without a label for glasses, but `glasses | smile` holds as soon as one of them is known to.

        Raises:
            ValueError: a column is missing.
        """
        for atom in self.atoms():
            if atom.column >= labels.shape[1]:
                raise ValueError(
                    f"`labels` must have a column {atom.column} for {atom.name!r}, got {labels.shape[1]} columns; "
                    "parse the formula with the schema of the labels"
                )
        return self.verdict(labels)[0]

    def __and__(self, other: "Formula") -> "Formula":
        return And((self, other)) if isinstance(other, Formula) else NotImplemented

    def __or__(self, other: "Formula") -> "Formula":
        return Or((self, other)) if isinstance(other, Formula) else NotImplemented

    def __invert__(self) -> "Formula":
        return Not(self)

    def __pow__(self, weight: float) -> "Formula":
        """The formula as a conjunct of this weight."""
        return Weighted(self, float(weight))


@dataclass(frozen=True, repr=False)
class Atom(Formula):
    """A statement about one attribute: that its value lies in a certain set.

    Probability needs only this about an atom: its attribute's values fall into finitely many cells between which atoms
    can tell, and the atom is true in some of them (`cells`).
    """

    attribute: Attribute = field(hash=False)  # compared, but not hashed: it holds a dictionary
    column: int

    @property
    def name(self) -> str:
        """The attribute's name."""
        return self.attribute.name

    def atoms(self) -> Iterator["Atom"]:
        yield self

    def verdict(self, labels: Float[Tensor, "n attributes"]) -> Verdict:
        y = labels[:, self.column]
        true, known = self.contains(y), ~y.isnan()
        return known & true, known & ~true

    @abstractmethod
    def contains(self, y: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether known labels satisfy the atom."""

    @abstractmethod
    def cells(self, thresholds: tuple[float, ...]) -> frozenset[int]:
        """The cells of the attribute in which the atom is true.

        Binary: 0 and 1. Categorical: the values' indices. Continuous: the sorted `thresholds` of all atoms on the
        attribute cut the line into intervals 0, 1, ..., len(thresholds).
        """


@dataclass(frozen=True, repr=False)
class Has(Atom):
    """A binary attribute is 1: `glasses`."""

    def __str__(self) -> str:
        return self.name

    def contains(self, y: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return y > 0.5

    def cells(self, thresholds: tuple[float, ...]) -> frozenset[int]:
        return frozenset({1})


@dataclass(frozen=True, repr=False)
class OneOf(Atom):
    """A categorical attribute has one of some values: `hair=blond`, `hair in {blond, red}`, `size>=large`.

    Args:
        attribute: the attribute.
        column: its column of labels.
        indices: of the values, at least one; kept in ascending order, each once.

    Raises:
        ValueError: no index, or one that is not of a value.
    """

    indices: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", tuple(sorted(set(self.indices))))
        count = len(self.attribute.values)
        if not self.indices or self.indices[0] < 0 or self.indices[-1] >= count:
            raise ValueError(
                f"`indices` of {self.name!r} must be at least one of 0 to {count - 1}, got {list(self.indices)}; "
                "use attribute.value_index(name)"
            )

    def __str__(self) -> str:
        words = [_word(self.attribute.values[i]) for i in self.indices]
        if len(words) == 1:
            return f"{self.name}={words[0]}"
        first, last, top = self.indices[0], self.indices[-1], len(self.attribute.values) - 1
        if self.attribute.ordered and last - first + 1 == len(words) and (first == 0) != (last == top):
            return f"{self.name}<={words[-1]}" if first == 0 else f"{self.name}>={words[0]}"
        return f"{self.name} in {{{', '.join(words)}}}"

    def contains(self, y: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return torch.isin(y, torch.tensor(self.indices, dtype=y.dtype, device=y.device))

    def cells(self, thresholds: tuple[float, ...]) -> frozenset[int]:
        return frozenset(self.indices)


@dataclass(frozen=True, repr=False)
class Beyond(Atom):
    """A continuous attribute lies above or below a threshold, in the attribute's own unit: `age>0.6`, `age<0.3`.

    Args:
        attribute: the attribute.
        column: its column of labels.
        threshold: finite.
        above: whether it lies above.

    Raises:
        ValueError: the threshold is not finite.
    """

    threshold: float
    above: bool

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise ValueError(
                f"`threshold` of {self.name!r} must be finite, got {self.threshold}; leave out what always holds"
            )
        object.__setattr__(self, "threshold", float(self.threshold) + 0.0)  # -0.0 is 0.0, and is written so

    def __str__(self) -> str:
        return f"{self.name}{'>' if self.above else '<'}{self.threshold!r}"

    def contains(self, y: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return y > self.threshold if self.above else y < self.threshold

    def cells(self, thresholds: tuple[float, ...]) -> frozenset[int]:
        first_above = bisect_right(thresholds, self.threshold)
        return frozenset(range(first_above, len(thresholds) + 1) if self.above else range(first_above))


@dataclass(frozen=True, repr=False)
class Near(Atom):
    """A continuous attribute is at a value, the target of an edit: `age=0.7`, in the attribute's own unit.

    That it equals a number has probability 0, so no formula can hold it; an edit climbs its density instead.

    Args:
        attribute: the attribute.
        column: its column of labels.
        value: finite.
        tolerance: how far off a label may be to count as there.

    Raises:
        ValueError: the value is not finite.
    """

    value: float
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"`value` of {self.name!r} must be finite, got {self.value}")
        object.__setattr__(self, "value", float(self.value) + 0.0)

    def __str__(self) -> str:
        return f"{self.name}={self.value!r}"

    def contains(self, y: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return (y - self.value).abs() <= self.tolerance

    def cells(self, thresholds: tuple[float, ...]) -> frozenset[int]:
        raise ValueError(
            f"{str(self)!r} is a target for edits: that a continuous attribute equals a number has probability 0; "
            f"in a formula write a range, such as {self.name}>{self.value - self.tolerance:g} & "
            f"{self.name}<{self.value + self.tolerance:g}"
        )


@dataclass(frozen=True, repr=False)
class Not(Formula):
    """The operand does not hold."""

    operand: Formula

    def __post_init__(self) -> None:
        _refuse_weights("~", self.operand)

    def __str__(self) -> str:
        return f"~{_bracketed(self.operand)}"

    def atoms(self) -> Iterator[Atom]:
        yield from self.operand.atoms()

    def verdict(self, labels: Float[Tensor, "n attributes"]) -> Verdict:
        true, false = self.operand.verdict(labels)
        return false, true


@dataclass(frozen=True, repr=False)
class _Several(Formula):
    """Two or more operands under one operator; operands of the same operator are taken in: a & (b & c) is a & b & c."""

    operands: tuple[Formula, ...]

    def __post_init__(self) -> None:
        if len(self.operands) < 2:
            raise ValueError(f"`operands` of {type(self).__name__} must be at least two, got {len(self.operands)}")
        flat = (part for f in self.operands for part in (f.operands if isinstance(f, type(self)) else (f,)))
        object.__setattr__(self, "operands", tuple(flat))

    def atoms(self) -> Iterator[Atom]:
        for operand in self.operands:
            yield from operand.atoms()


@dataclass(frozen=True, repr=False)
class And(_Several):
    """Every operand holds; operands may be weighted when this is the whole formula."""

    def __str__(self) -> str:
        return " & ".join(_bracketed(operand) for operand in self.operands)

    @property
    def conjuncts(self) -> tuple[tuple[Formula, float], ...]:
        return tuple(pair for operand in self.operands for pair in operand.conjuncts)

    @property
    def is_weighted(self) -> bool:
        return any(operand.is_weighted for operand in self.operands)

    def verdict(self, labels: Float[Tensor, "n attributes"]) -> Verdict:
        true, false = zip(*(operand.verdict(labels) for operand in self.operands), strict=True)
        return torch.stack(true).all(dim=0), torch.stack(false).any(dim=0)


@dataclass(frozen=True, repr=False)
class Or(_Several):
    """At least one operand holds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_weights("|", *self.operands)

    def __str__(self) -> str:
        return " | ".join(_bracketed(operand) for operand in self.operands)

    def verdict(self, labels: Float[Tensor, "n attributes"]) -> Verdict:
        true, false = zip(*(operand.verdict(labels) for operand in self.operands), strict=True)
        return torch.stack(true).any(dim=0), torch.stack(false).all(dim=0)


@dataclass(frozen=True, repr=False)
class Weighted(Formula):
    """A conjunct of the whole formula with a weight w >= 0: guidance climbs w * log P(operand)."""

    operand: Formula
    weight: float

    def __post_init__(self) -> None:
        _refuse_weights("^", self.operand)
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(
                f"the weight of {str(self.operand)!r} must be finite and >= 0, got {self.weight}; "
                "to avoid something, negate it with ~"
            )
        object.__setattr__(self, "weight", float(self.weight) + 0.0)

    def __str__(self) -> str:
        return f"{_bracketed(self.operand)}^{self.weight!r}"

    def atoms(self) -> Iterator[Atom]:
        yield from self.operand.atoms()

    @property
    def conjuncts(self) -> tuple[tuple[Formula, float], ...]:
        return ((self.operand, self.weight),)

    @property
    def is_weighted(self) -> bool:
        return True

    def verdict(self, labels: Float[Tensor, "n attributes"]) -> Verdict:
        return self.operand.verdict(labels)


def _word(value: str) -> str:
    """A value as the language writes it: bare if that is one word in any reading, else quoted as in JSON."""
    return value if value.isidentifier() else json.dumps(value, ensure_ascii=False)


def _bracketed(formula: Formula) -> str:
    return f"({formula})" if isinstance(formula, _Several) else str(formula)


def _refuse_weights(operator: str, *operands: Formula) -> None:
    """A weight has a meaning only for a conjunct of the whole formula: w * log P is no longer a probability."""
    for operand in operands:
        if operand.is_weighted:
            raise ValueError(
                f"`{operator}` cannot be applied to the weighted {str(operand)!r}; "
                "weights belong to the conjuncts of the whole formula, such as (a | b)^2.0 & c"
            )
