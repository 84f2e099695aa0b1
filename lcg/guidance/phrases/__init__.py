"""Plain English to a formula: "a smiling person with glasses and no beard" to `smile & glasses & ~beard`.

By rules and word lists (`words`), without a model and without a network: phrases become atoms of the schema (`lexicon`,
`pieces`), small words join them (`grammar`). The reading says what became of every word and where English left a
choice; nothing is dropped in silence, and the same text always reads the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import NoReturn

from lcg.guidance.formula import Formula
from lcg.guidance.logic import FormulaError
from lcg.guidance.phrases.grammar import Choice, Grammar
from lcg.guidance.phrases.lexicon import Lexicon
from lcg.guidance.phrases.pieces import Piece, Segmenter
from lcg.guidance.phrases.words import Word, split
from lcg.guidance.probability import CompiledFormula
from lcg.results.display import block, code, note, quiet, strong, table
from lcg.schema import Schema

__all__ = ["Ambiguity", "Part", "Reading", "read"]


@dataclass(frozen=True)
class Part:
    """What became of a stretch of the text.

    Args:
        text: the words as they stand in the text.
        start: where they begin, counted from 0.
        end: where they end.
        became: a formula for a phrase, else the role of the word, such as `and`, `not`, `skip`; None if not understood.
        understood: whether it was.
    """

    text: str
    start: int
    end: int
    became: str | None
    understood: bool


@dataclass(frozen=True)
class Ambiguity:
    """A choice that was made.

    Args:
        text: the words that can be read in more ways.
        start: where they begin, counted from 0.
        end: where they end.
        chosen: the formula that they were read as.
        alternatives: the formulas that they could have been read as; none where only a shared word was guessed, the
            "red" of "red hat or hair".
        even: whether nothing but order spoke for the choice; False where the schema's own names decided.
    """

    text: str
    start: int
    end: int
    chosen: str
    alternatives: tuple[str, ...]
    even: bool


@dataclass(frozen=True, repr=False)
class Reading:
    """A text as it was understood; `str(reading)` tells a person.

    Args:
        text: what was read.
        formula: what it means; `str(formula)` is its text, with brackets wherever precedence matters.
        parts: what became of every word, from left to right.
        ambiguities: the choices that were made, from left to right.
    """

    text: str
    formula: Formula
    parts: tuple[Part, ...]
    ambiguities: tuple[Ambiguity, ...]

    @property
    def not_understood(self) -> tuple[Part, ...]:
        """The words that carry meaning and are no part of the formula."""
        return tuple(part for part in self.parts if not part.understood)

    def __str__(self) -> str:
        lines = [f"{self.text!r} is read as", f"  {self.formula}"]
        lines += [f"not understood at column {p.start + 1}: {p.text!r}" for p in self.not_understood]
        for a in filter(lambda a: a.even, self.ambiguities):
            others = f", not as {' nor as '.join(a.alternatives)}" if a.alternatives else ""
            lines.append(f"{a.text!r} is read as {a.chosen}{others}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Reading({self.text!r} is read as {self.formula})"

    def _repr_html_(self) -> str:
        rows = [(escape(part.text), _told(part)) for part in self.parts]
        choices = [
            note(f"{a.text!r} is read as {a.chosen}, not as {' nor as '.join(a.alternatives)}")
            for a in self.ambiguities
            if a.even and a.alternatives
        ]
        return block(f"{strong('Reading')} {code(str(self.formula))}", table(("words", "became"), rows), *choices)


def _told(part: Part) -> str:
    return code(part.became) if part.understood and part.became else quiet("not understood")


def read(text: str, schema: Schema, synonyms: Mapping[str, str] | None = None, strict: bool = True) -> Reading:
    """Reads a description in English.

    Args:
        text: for example "a smiling person with round glasses or a hat but no beard"; brackets may group.
        schema: the attributes that it may speak of.
        synonyms: phrases of your own and the formulas they stand for, such as {"young": "age<0.3"}; they win over all
            others.
        strict: whether words that are not understood are refused; else the reading lists them.

    Returns:
        The reading.

    Raises:
        FormulaError: a ValueError with the column marked: a word that is not understood, a text that breaks off, or one
            that says nothing about the schema.
        ValueError: the description contradicts itself, or a synonym is no formula over the schema.

    Example:
        >>> from lcg.schema import Attribute
        >>> schema = Schema((Attribute("smile"), Attribute("glasses"), Attribute("age", "continuous")))
        >>> read("a young person with glasses, not smiling", schema, synonyms={"young": "age<0.3"})
        Reading('a young person with glasses, not smiling' is read as age<0.3 & glasses & ~smile)
    """
    words, lexicon = split(text), Lexicon(schema, synonyms or {})
    pieces = Segmenter(words, lexicon).pieces()

    def fail(problem: str, piece: Piece | None) -> NoReturn:
        raise FormulaError(problem, text, words[piece.first].start if piece else len(text.rstrip()))

    for piece in pieces:
        if strict and piece.kind == "unknown":
            said = text[words[piece.first].start : words[piece.last - 1].end]
            problem = f"{said!r} is not understood {piece.note}" if piece.note else str(lexicon.unknown(said))
            fail(f"{problem}; say it otherwise, or give a synonym such as {{{said!r}: 'FORMULA'}}", piece)
    if all(piece.kind not in ("item", "unknown") for piece in pieces):
        fail(f"the text says nothing about an attribute; the schema has: {', '.join(schema.names)}", None)
    grammar = Grammar(pieces, fail)
    formula = grammar.whole()
    if formula is None:
        fail(f"nothing of the text was understood; the schema has: {', '.join(schema.names)}", None)
    if not CompiledFormula(formula).satisfiable:
        raise ValueError(
            f"{text!r} is read as {formula}, which can never hold; take back a part that contradicts another"
        )
    parts = tuple(_part(text, words, piece) for piece in pieces)
    return Reading(text, formula, parts, _ambiguities(text, words, pieces, grammar.choices))


def _part(text: str, words: tuple[Word, ...], piece: Piece) -> Part:
    start, end = words[piece.first].start, words[piece.last - 1].end
    understood = piece.kind != "unknown"
    became = str(piece.formula) if piece.formula is not None else piece.kind if understood else None
    return Part(text[start:end], start, end, became, understood)


def _ambiguities(
    text: str, words: tuple[Word, ...], pieces: list[Piece], choices: list[Choice]
) -> tuple[Ambiguity, ...]:
    """Those of words and those of structure, in the order of the text."""
    found = [
        (p.first, p.last, p.formula, p.alternatives, p.doubtful)
        for p in pieces
        if (p.alternatives or p.shared) and p.formula is not None
    ]
    found += [(c.first, c.last, c.chosen, c.alternatives, True) for c in choices]
    return tuple(
        Ambiguity(
            text[words[first].start : words[last - 1].end],
            words[first].start,
            words[last - 1].end,
            str(chosen),
            tuple(str(other) for other in others),
            even,
        )
        for first, last, chosen, others, even in sorted(found, key=lambda entry: entry[:2])
    )
