"""Lists of formulas joined by commas, `and` and `or`, under each of the precedences that English leaves open."""

from collections.abc import Sequence
from itertools import pairwise

from lcg.guidance.formula import And, Formula, Or
from lcg.guidance.probability import CompiledFormula


def possible(formula: Formula) -> bool:
    """Whether the formula can hold at all."""
    return CompiledFormula(formula).satisfiable


def every(parts: Sequence[Formula | None]) -> Formula | None:
    """Their conjunction; what was not understood (None) is left out."""
    known = [part for part in parts if part is not None]
    return And(tuple(known)) if len(known) > 1 else known[0] if known else None


def some(parts: Sequence[Formula | None]) -> Formula | None:
    """Their disjunction; what was not understood (None) is left out."""
    known = [part for part in parts if part is not None]
    return Or(tuple(known)) if len(known) > 1 else known[0] if known else None


def listed(chains: Sequence[Formula | None], joints: Sequence[str]) -> Formula | None:
    """A list whose commas take the next connective to their right, or else mean `and`; `and` binds more than `or`."""
    groups, connective = [[chains[-1]]], "and"
    for chain, joint in zip(reversed(chains[:-1]), reversed(joints), strict=True):
        connective = connective if joint == "comma" else joint
        if connective == "or":
            groups.append([])
        groups[-1].append(chain)
    return some([every(group[::-1]) for group in groups[::-1]])


def resolve(chains: Sequence[Formula | None], joints: Sequence[str]) -> Formula | None:
    """A list in which a comma behind a connective begins another list: "a or b, c" is (a | b) & c."""
    parts, start, connected = [], 0, False
    for i, joint in enumerate(joints):
        if joint == "comma" and connected:
            parts.append(listed(chains[start : i + 1], joints[start:i]))
            start, connected = i + 1, False
        connected |= joint != "comma"
    return every([*parts, listed(chains[start:], joints[start:])])


def apart(chains: Sequence[Formula | None], joints: Sequence[str]) -> Formula | None:
    """The list if its commas bound least of all and meant `and`."""
    cuts = [0, *(i + 1 for i, joint in enumerate(joints) if joint == "comma"), len(chains)]
    return every([listed(chains[a:b], joints[a : b - 1]) for a, b in pairwise(cuts)])


def or_first(chains: Sequence[Formula | None], joints: Sequence[str]) -> Formula | None:
    """The list as it would be if `or` bound more than `and`."""
    groups = [[chains[0]]]
    for chain, joint in zip(chains[1:], joints, strict=True):
        if joint == "or":
            groups[-1].append(chain)
        else:
            groups.append([chain])
    return every([some(group) for group in groups])
