"""From pieces to one formula: what binds more and what binds less in an English description.

    text        := sentence (('but' | ';' | '.') sentence)*             least binding: and
    sentence    := description ('or' description)*                      "a man with a hat or a woman with glasses"
    description := series (('with' | 'who' | 'without' | ...) series)*  and
    series      := chain ((',' | 'and' | 'or' | 'nor') chain)*          `and` binds more than `or`
    chain       := unary unary*                                         "smiling bearded": and
    unary       := phrase | '(' text ')' | ('not' | 'without') unary ((',' | 'or' | 'nor') unary)*
                 | 'neither' unary ('nor' unary)* | 'either' series 'or' chain | 'both' unary ('and' unary)*

A comma takes the next connective of its list, as in "a, b or c"; behind a connective it begins another list: "a or b,
c" is (a or b) and c. A negation reaches over the `or` behind it and not over `and`: "no hat or beard" is neither, while
"no hat and a beard" is a beard. Whatever English leaves open is noted with the reading that was not chosen. What was
not understood is no part of the formula.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from lcg.guidance.formula import Formula
from lcg.guidance.phrases.lexicon import negate
from lcg.guidance.phrases.lists import apart, every, listed, or_first, possible, resolve, some
from lcg.guidance.phrases.pieces import Piece

MAX_DEPTH = 16  # of nested brackets and negations
STARTS = ("item", "unknown", "(", "either", "both", "neither")
NEGATIONS = ("not", "without")
BOUNDARIES = ("with", "without")
Fail = Callable[[str, Piece | None], NoReturn]


@dataclass(frozen=True)
class Choice:
    """A place where English leaves the structure open.

    Args:
        first: the number of its first word.
        last: the number of the word after it.
        chosen: the formula that was chosen.
        alternatives: the formulas that were not.
    """

    first: int
    last: int
    chosen: Formula
    alternatives: tuple[Formula, ...]


class Grammar:
    """Recursive descent over pieces; `whole()` is the formula, or None if nothing was understood.

    Args:
        pieces: of the text; articles, copulas and people join nothing and are left out.
        fail: raises for a piece, or for the end, with what is wrong there.
    """

    def __init__(self, pieces: Sequence[Piece], fail: Fail) -> None:
        self.pieces = [piece for piece in pieces if piece.kind not in ("skip", "person")]
        self.fail = fail
        self.introduced = {p.last for p in pieces if p.kind == "skip"}  # words behind an article
        self.position = self.depth = 0
        self.crossed = False
        self.choices: list[Choice] = []

    def whole(self) -> Formula | None:
        formula = self.text()
        if self.position < len(self.pieces):
            self.fail(f"expected something before {self.kind()!r}", self.pieces[self.position])
        return formula

    # --- pieces ---

    def kind(self, ahead: int = 0) -> str:
        i = self.position + ahead
        return self.pieces[i].kind if i < len(self.pieces) else "end"

    def take(self, *kinds: str) -> bool:
        if self.kind() in kinds:
            self.position += 1
            return True
        return False

    def choose(self, first: int, chosen: Formula | None, *others: Formula | None) -> Formula | None:
        """Notes what was chosen for the pieces since `first`."""
        different = tuple(dict.fromkeys(o for o in others if o is not None and o != chosen and possible(o)))
        if chosen is not None and different:
            words = self.pieces[first].first, self.pieces[self.position - 1].last
            self.choices.append(Choice(*words, chosen, different))
        return chosen

    # --- rules ---

    def text(self) -> Formula | None:
        parts: list[Formula | None] = []
        expected = True  # that something follows
        while True:
            while self.take("stop"):
                pass
            if not expected and self.kind() in ("end", ")"):
                return every(parts)
            parts.append(self.sentence())
            while self.kind() == "comma" and self.kind(1) in ("but", "stop", "end"):
                self.position += 1
            expected = self.take("but")
            if not expected and self.kind() != "stop":
                return every(parts)

    def sentence(self) -> Formula | None:
        outer, self.crossed = self.crossed, False
        parts = [self.description()]
        while self.take("or else"):
            self.crossed = False
            parts.append(self.description())
        self.crossed = outer
        return some(parts)

    def description(self) -> Formula | None:
        parts = [self.series()]
        while self.kind() in (*BOUNDARIES, "not"):
            self.crossed = True
            parts.append(self.series())
        return every(parts)

    def series(self) -> Formula | None:
        first = self.position
        while self.take("comma"):  # "a person, smiling"
            first = self.position
        self.crossed |= self.kind() in BOUNDARIES
        chains = [self.chain()]
        joints: list[str] = []
        loose = None  # the negation that an `and` may or may not be under
        while self.kind() in ("comma", "and", "or", "or else", "nor"):
            if self.kind() == "or else" and self.crossed:
                break
            if self.kind() == "comma" and self.kind(1) in ("but", "stop", "end", ")", *BOUNDARIES):
                self.position += self.kind(1) in BOUNDARIES
                break
            joint = self.kind()
            self.position += 1
            if joint == "comma" and self.kind() in ("and", "or", "or else", "nor"):
                joint = self.kind()
                self.position += 1
            negated = joint == "nor"
            if joint == "and" and self.pieces[first].kind in NEGATIONS and self.plain() and not joints:
                loose = self.position
            chain = self.chain()
            chains.append(negate(chain) if negated and chain is not None else chain)
            joints.append("or" if joint == "or else" else "and" if negated else joint)
        chosen = resolve(chains, joints)
        others = [apart(chains, joints), listed(chains, joints)] if {"comma", "or"} <= set(joints) else []
        if "and" in joints and "or" in joints:
            others.append(or_first(chains, joints))
        if "or" in joints and (together := self.shared_front(first, chains, joints)) is not None:
            others.append(together)
        if loose is not None and chains[1] is not None:
            others.append(resolve([chains[0], negate(chains[1]), *chains[2:]], joints))
        return self.choose(first, chosen, *others)

    def plain(self) -> bool:
        """Whether the next piece is a phrase that no article or "with" introduces."""
        return self.kind() == "item" and self.pieces[self.position].first not in self.introduced

    def shared_front(self, first: int, chains: Sequence[Formula | None], joints: Sequence[str]) -> Formula | None:
        """The other reading of "smiling man or woman": smiling, and a man or a woman."""
        words = self.pieces[first : self.position]
        kinds = [p.kind for p in words]
        if kinds[:2] != ["item", "item"] or joints[0] != "or":
            return None
        end = next(i for i, kind in enumerate(kinds) if kind in ("or", "or else"))
        back = every([p.formula for p in words[1:end]]) if set(kinds[:end]) == {"item"} else None
        return every([words[0].formula, resolve([back, *chains[1:]], joints)]) if back is not None else None

    def chain(self) -> Formula | None:
        first = self.position
        parts = [self.unary()]
        denied = self.pieces[first].kind in NEGATIONS and parts[0] is not None
        while self.kind() in STARTS:
            parts.append(self.unary())
        chosen = every(parts)
        if denied and len(parts) > 1:
            together = every([negate(parts[0]) if parts[0] is not None else None, *parts[1:]])
            return self.choose(first, chosen, negate(together) if together is not None else None)
        return chosen

    def unary(self) -> Formula | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"brackets and negations are nested deeper than {MAX_DEPTH}", self.here())
        while self.take("with"):
            pass
        piece = self.here()
        if piece is None or not self.take(*STARTS, *NEGATIONS):
            self.fail(f"expected a description, got {'the end' if piece is None else 'this'}", piece)
        rule = {"not": self.negation, "without": self.negation, "(": self.bracket, "neither": self.neither}
        rule |= {"either": self.either, "both": self.both}
        formula = rule[piece.kind]() if piece.kind in rule else piece.formula
        self.depth -= 1
        return formula

    def here(self) -> Piece | None:
        return self.pieces[self.position] if self.position < len(self.pieces) else None

    def bracket(self) -> Formula | None:
        opening = self.pieces[self.position - 1]
        formula = self.text()
        if not self.take(")"):
            self.fail("a bracket that is not closed; write `)` behind what belongs together", opening)
        return formula

    def negation(self) -> Formula | None:
        first = self.position - 1
        denied, end = [self.unary()], self.position
        tried, choices = list(denied), len(self.choices)
        first_joint, connected = self.kind(), False
        while self.kind() in ("comma", "or", "nor"):
            joint = self.kind()
            self.position += 1
            if joint == "comma" and self.kind() in ("or", "nor"):
                joint = self.kind()
                self.position += 1
            if self.kind() not in STARTS or (joint == "comma" and connected):
                break
            tried.append(self.unary())
            if joint != "comma":
                denied, end, choices, connected = list(tried), self.position, len(self.choices), True
        self.position = end
        del self.choices[choices:]
        several = some(denied)
        chosen = negate(several) if several is not None else None
        kept = negate(denied[0]) if denied[0] is not None else None
        if len(denied) == 1:
            return chosen
        other = every([kept, some(denied[1:])]) if first_joint == "comma" else some([kept, *denied[1:]])
        return self.choose(first, chosen, other)

    def neither(self) -> Formula | None:
        opening = self.pieces[self.position - 1]
        parts = [self.unary()]
        while self.kind() in ("nor", "or") or (self.kind() == "comma" and self.kind(1) in (*STARTS, "nor", "or")):
            self.take("comma")
            self.take("nor", "or")
            parts.append(self.unary())
        if len(parts) == 1:
            self.fail("`neither` without its `nor`; write neither A nor B", opening)
        return every([negate(part) for part in parts if part is not None])

    def either(self) -> Formula | None:
        opening, seen = self.pieces[self.position - 1], False
        groups = [[self.chain()]]
        while True:
            joint = self.kind()
            if joint == "comma" and self.kind(1) in ("or", "or else"):
                self.position += 1
            elif not seen and joint in ("and", *BOUNDARIES):
                self.position += joint == "and"
                groups[-1].append(self.chain())
            elif joint == "comma" and not seen and self.kind(1) in (*STARTS, *NEGATIONS):
                self.position += 1
                groups.append([self.chain()])
            elif joint in ("or", "or else"):
                self.position += 1
                seen = True
                groups.append([self.chain()])
            else:
                break
        if not seen:
            self.fail("`either` without its `or`; write either A or B", opening)
        return some([every(group) for group in groups])

    def both(self) -> Formula | None:
        opening = self.pieces[self.position - 1]
        parts = [self.unary()]
        while self.take("and"):
            parts.append(self.unary())
        if len(parts) == 1:
            self.fail("`both` without its `and`; write both A and B", opening)
        return every(parts)
