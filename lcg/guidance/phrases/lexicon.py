"""What phrases mean over a schema: its names and values, shipped synonyms and opposites, and the user's own phrases.

A phrase is a tuple of stems. Its meanings are ranked: the user's own come first, then the schema's names, synonyms,
opposites, and last the values said without the noun they belong to ("round" for `glasses_style=round`).
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lcg.guidance.formula import And, Formula, Has, Not, OneOf
from lcg.guidance.logic import parse
from lcg.guidance.phrases.words import COPULAS, KIND_WORDS, NOT, OPPOSITES, SYNONYMS, WITH, stem, stems
from lcg.schema import Attribute, Schema, unknown_name

Phrase = tuple[str, ...]
GROUPS = tuple(tuple(stems(member) for member in group) for group in SYNONYMS)
Scale = tuple[Attribute, int]
"""A continuous or ordinal attribute and its label column."""
OWN, NAMED, SYNONYM, OPPOSITE, BARE = range(5)
LEADING = {stem(word) for word in (*WITH, *COPULAS)}
KINDS = {stem(word) for word in KIND_WORDS}


@dataclass(frozen=True)
class Meaning:
    """What a phrase may mean; of several meanings the least rank counts, and of equal ranks the schema's first."""

    formula: Formula
    rank: int


def negate(formula: Formula) -> Formula:
    """The contrary; two negations cancel, so that "no beard" is `No_Beard` and not `~~No_Beard`."""
    return formula.operand if isinstance(formula, Not) else Not(formula)


@dataclass
class Lexicon:
    """The phrases of a schema.

    Args:
        schema: the attributes.
        synonyms: the user's phrases, each with the formula that it stands for.

    Raises:
        ValueError: a phrase without a word, or what it stands for is no formula over the schema or has weights.

    Attributes:
        meanings: of every phrase, best first.
        scales: the continuous attributes by the phrases that name them, as (attribute, label column).
        ordinals: the ordinal ones, likewise.
        nouns: what categorical attributes are said of, as hair is of `hair_color`.
        beginnings: of all phrases with a meaning.
        longest: the number of words of the longest phrase.
    """

    schema: Schema
    synonyms: Mapping[str, str] = field(default_factory=dict)
    meanings: dict[Phrase, list[Meaning]] = field(default_factory=dict, init=False)
    scales: dict[Phrase, Scale] = field(default_factory=dict, init=False)
    ordinals: dict[Phrase, Scale] = field(default_factory=dict, init=False)
    nouns: dict[Phrase, Attribute] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for phrase, text in self.synonyms.items():
            self.own(phrase, text)
        for column, attribute in enumerate(self.schema):
            if attribute.kind == "continuous":
                self.scales.setdefault(stems(attribute.name), (attribute, column))
            elif attribute.kind == "binary":
                self.binary(attribute, column)
            else:
                self.categorical(attribute, column)
        for group in GROUPS:
            self.share(group)
        for one, other in OPPOSITES:
            for a, b in ((stems(one), stems(other)), (stems(other), stems(one))):
                self.oppose(a, b)
        for group in GROUPS:  # what an opposite means, its synonyms mean
            self.share(group)
        for found in self.meanings.values():
            found.sort(key=lambda meaning: meaning.rank)
        self.beginnings = {phrase[:length] for phrase in self.meanings for length in range(1, len(phrase) + 1)}
        self.longest = max((len(phrase) for phrase in (*self.meanings, *self.scales)), default=1)

    def find(self, phrase: Phrase) -> list[Meaning]:
        """The meanings of a phrase, best first; "beardless" and "unsmiling" deny what they are made of."""
        if found := self.meanings.get(phrase):
            return found
        if len(phrase) != 1:
            return []
        word = phrase[0]
        inner = word[:-4] if word.endswith("less") else word[2:] if word.startswith("un") else ""
        found = [m for m in self.meanings.get((stem(inner),), []) if m.rank < BARE]
        return [Meaning(negate(m.formula), m.rank) for m in found]

    def unknown(self, word: str) -> ValueError:
        """The error for a word that means nothing here, with the nearest that do."""
        shipped = [member for group in SYNONYMS for member in group if stems(member) in self.meanings]
        values = [value for attribute in self.schema for value in attribute.values]
        near = difflib.get_close_matches(word.casefold(), [*shipped, *values, *self.synonyms], n=2, cutoff=0.7)
        known = dict.fromkeys([*near, *self.schema.names])
        return unknown_name("word", word.casefold(), known, "the vocabulary")

    # --- how the phrases come about ---

    def add(self, phrase: Phrase, formula: Formula, rank: int) -> None:
        found = self.meanings.setdefault(phrase, []) if phrase else []
        if all(meaning.formula != formula for meaning in found):
            found.append(Meaning(formula, rank))

    def own(self, phrase: str, text: str) -> None:
        if not any(word.isalnum() for word in stems(phrase)):
            raise ValueError(f"`synonyms`: expected phrases of words, got {phrase!r} (for {text!r}); write a word")
        try:
            formula = parse(text, self.schema)
        except ValueError as error:
            raise ValueError(f"`synonyms`: {phrase!r} must stand for a formula; {error}") from error
        if formula.is_weighted:
            raise ValueError(f"`synonyms`: {phrase!r} stands for {text!r}, which has weights; leave them out")
        self.add(stems(phrase), formula, OWN)

    def binary(self, attribute: Attribute, column: int) -> None:
        words, formula = list(stems(attribute.name)), Has(attribute, column)
        while len(words) > 1 and words[0] in LEADING:
            words.pop(0)
        if len(words) > 1 and words[0] in (*NOT, "without"):
            self.add(tuple(words[1:]), Not(formula), NAMED)
        else:
            self.add(tuple(words), formula, NAMED)
        if attribute.group is not None:
            self.add(stems(attribute.member), formula, NAMED)

    def categorical(self, attribute: Attribute, column: int) -> None:
        name = stems(attribute.name)
        if attribute.ordered:
            self.ordinals.setdefault(name, (attribute, column))
        nouns = list(dict.fromkeys([name, tuple(word for word in name if word not in KINDS)]))
        nouns += [member for group in GROUPS if nouns[-1] in group for member in group if member not in nouns]
        for noun in nouns:
            self.nouns.setdefault(noun, attribute)
        spoken: dict[Phrase, set[int]] = {}
        for index, value in enumerate(attribute.values):
            words = stems(value)
            for phrase in {words, _without_number(words)} - {()}:
                spoken.setdefault(phrase, set()).add(index)
        for words, indices in spoken.items():
            formula = self.where_defined(OneOf(attribute, column, tuple(indices)))
            for noun in filter(None, nouns):
                rest = words[len(noun) :] if words[: len(noun)] == noun else words
                for phrase in (words + noun, noun + words, rest + noun):
                    self.add(phrase, formula, NAMED)
            if any(word.isalpha() for word in words):
                self.add(words, formula, BARE)
                self.add(words[1:] + words[:1], formula, BARE)

    def where_defined(self, atom: OneOf) -> Formula:
        """A red hat is a hat, and red: the colour of a hat that is not there would never be labelled."""
        whole: list[Formula] = [
            Has(self.schema[name], self.schema.index(name))
            for name, wanted in atom.attribute.applies_if.items()
            if wanted
        ]
        return And((*whole, atom)) if whole else atom

    def value_at(self, attribute: Attribute, words: Phrase) -> tuple[int, int] | None:
        """The value that the words begin with and how many words it has; the longest one wins."""
        spoken = ((len(phrase), index) for index, value in enumerate(attribute.values) if (phrase := stems(value)))
        found = [(index, length) for length, index in spoken if stems(attribute.values[index]) == words[:length]]
        return max(found, key=lambda pair: pair[1], default=None)

    def share(self, group: Iterable[Phrase]) -> None:
        members = list(group)
        known = [(m.formula, m.rank) for p in members for m in self.meanings.get(p, []) if NAMED <= m.rank < BARE]
        for phrase in members:
            if not self.strong(phrase):
                for formula, rank in known:
                    self.add(phrase, formula, max(rank, SYNONYM))

    def oppose(self, phrase: Phrase, contrary: Phrase) -> None:
        if not self.strong(phrase):
            for meaning in [m for m in self.meanings.get(contrary, []) if m.rank in (NAMED, SYNONYM)]:
                self.add(phrase, negate(meaning.formula), OPPOSITE)

    def strong(self, phrase: Phrase) -> bool:
        return any(m.rank < OPPOSITE for m in self.meanings.get(phrase, []))


def _without_number(words: Phrase) -> Phrase:
    while len(words) > 1 and words[-1].isdigit():
        words = words[:-1]
    return words


def endings(words: Phrase) -> Iterator[Phrase]:
    """The endings of a phrase, the longest first, without the phrase itself."""
    return (words[start:] for start in range(1, len(words)))
