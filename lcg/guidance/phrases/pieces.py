"""From words to pieces: phrases become formulas, small words become what joins them, and the rest is not understood.

Left to right, the longest phrase wins. Where words are shared, they are shared out: "red or blond hair" is "red hair
or blond hair", "a red hat or scarf" a red hat or a red scarf, "long red hair" long hair and red hair.
"""

from dataclasses import dataclass, replace

from lcg.guidance.formula import And, Beyond, Formula, OneOf
from lcg.guidance.phrases import words as w
from lcg.guidance.phrases.lexicon import BARE, OWN, Lexicon, Meaning, Scale, endings, negate
from lcg.guidance.phrases.words import Word, stem, stems

ROLES = {
    **{stem(x): "skip" for x in (*w.ARTICLES, *w.COPULAS)},
    **{stem(x): "person" for x in w.PEOPLE},
    **{stem(x): "with" for x in w.WITH},
    **{stem(x): "and" for x in w.AND},
    **{stem(x): "or" for x in w.OR},
    **{stem(x): "but" for x in w.BUT},
    **{stem(x): "not" for x in w.NOT},
    **{stem(x): "without" for x in w.WITHOUT},
    **{x: x for x in ("either", "both", "neither", "nor", "(", ")")},
    **dict.fromkeys(w.STOP, "stop"),
    ",": "comma",
}
ARTICLES = {stem(x) for x in w.ARTICLES}
INSIDE = {stem(x) for x in w.INSIDE}
GENDERED = {stem(x) for x in w.GENDERED}
NOT = {stem(x) for x in w.NOT}
JOINTS = ("and", "or", "comma", "nor")
RELATIONS = [(stems(x), above) for xs, above in ((w.ABOVE, True), (w.BELOW, False)) for x in xs]

NUMBER = "as a number by itself; write what it bounds, such as age above 60"


@dataclass(frozen=True)
class Piece:
    """A stretch of words and what became of it.

    Args:
        kind: "item" for a formula, "unknown" for what was not understood, else the role of a small word.
        first: the number of its first word.
        last: the number of the word after it.
        formula: of an item.
        alternatives: what an item could have meant as well.
        doubtful: whether an alternative is as good as what was chosen.
        stems: of the phrase as it was looked up, with the words that it shares.
        note: why it was not understood.
        shared: whether it takes a word from the phrase before, as the "hair" of "red hat or hair" does.
    """

    kind: str
    first: int
    last: int
    formula: Formula | None = None
    alternatives: tuple[Formula, ...] = ()
    doubtful: bool = False
    stems: tuple[str, ...] = ()
    note: str = ""
    shared: bool = False


class Segmenter:
    """Cuts the words of one text into pieces; `pieces()` is the result."""

    def __init__(self, words: tuple[Word, ...], lexicon: Lexicon) -> None:
        self.words, self.lexicon = words, lexicon
        self.stems = tuple(word.stem for word in words)
        self.done: list[Piece] = []

    def pieces(self) -> list[Piece]:
        position = 0
        while position < len(self.words):
            self.done.append(self.piece(position))
            position = self.done[-1].last
        return self.done

    def piece(self, i: int) -> Piece:
        found = self.phrase(i)
        if found and found.stems in self.lexicon.meanings and self.lexicon.meanings[found.stems][0].rank == OWN:
            return found
        return (
            self.measured(i)
            or (self.perhaps_shared(found) if found and not self.bare(found) else None)
            or self.shared_noun(i)
            or self.shared_adjective(i)
            or (self.standing_alone(found) if found else None)
            or self.small(i)
            or self.unknown(i)
        )

    def unknown(self, i: int) -> Piece:
        """A word that means nothing here; a number or a noun without its value says what is missing."""
        note = NUMBER if self.number(i) is not None else ""
        if attribute := self.lexicon.nouns.get((self.stems[i],)):
            note = f"without a value; {attribute.name!r} is one of: {', '.join(attribute.values)}"
        return Piece("unknown", i, i + 1, note=note)

    # --- phrases ---

    def phrase(self, i: int) -> Piece | None:
        """The longest phrase that begins here; the user's phrases come before longer ones of the schema."""
        found = []
        for length in range(min(self.lexicon.longest, len(self.stems) - i), 0, -1):
            if meanings := self.lexicon.find(self.stems[i : i + length]):
                found.append(self.item(i, i + length, self.stems[i : i + length], meanings))
        own = [p for p in found if (known := self.lexicon.meanings.get(p.stems)) and known[0].rank == OWN]
        best = next(iter(own or found), None)
        loose = None if own else self.loose(i)
        return loose if loose and (best is None or self.bare(best) or len(loose.stems) > len(best.stems)) else best

    def loose(self, i: int) -> Piece | None:
        """A phrase with small words inside, "hair is red"; with a "not" among them it is denied."""
        taken, denied, j, best = [self.stems[i]], False, i + 1, None
        while j < len(self.stems) and len(taken) < self.lexicon.longest:
            if self.stems[j] in NOT and self.stems[j - 1] in INSIDE:
                denied = not denied
            elif self.stems[j] not in INSIDE or tuple([*taken, self.stems[j]]) in self.lexicon.meanings:
                taken.append(self.stems[j])
                meanings = self.lexicon.find(tuple(taken))
                if len(taken) > 1 and meanings and j + 1 - i > len(taken):
                    best = self.item(i, j + 1, tuple(taken), meanings, denied)
            j += 1
            if tuple(taken) not in self.lexicon.beginnings:
                break
        return best

    def item(self, i: int, j: int, phrase: tuple[str, ...], meanings: list[Meaning], denied: bool = False) -> Piece:
        """A phrase's meaning; of equally good ones that of the attribute spoken of last, else the schema's first."""
        best = [m.formula for m in meanings if m.rank == meanings[0].rank]
        before = next((p.formula.attributes for p in reversed(self.done) if p.formula), ())
        best.sort(key=lambda formula: formula.attributes[-1:] != before[-1:])
        formulas = [*best, *(m.formula for m in meanings if m.rank != meanings[0].rank)]
        chosen, *others = (deny(f) if denied else f for f in formulas)
        return Piece("item", i, j, chosen, tuple(others), len(best) > 1, phrase)

    def bare(self, piece: Piece) -> bool:
        return all(m.rank == BARE for m in self.lexicon.find(piece.stems))

    def standing_alone(self, piece: Piece) -> Piece:
        """A value without its noun; in front of another noun, "red car", it is nothing that is known."""
        after = self.stems[piece.last] if piece.last < len(self.stems) else "and"
        if after in ROLES or not after[:1].isalnum():
            return piece
        rest = self.words[piece.last].text
        why = f"as said of {rest!r}; if it stands by itself, put a comma or 'and' behind it"
        return replace(piece, kind="unknown", formula=None, alternatives=(), doubtful=False, note=why)

    def shared_noun(self, i: int) -> Piece | None:
        """The "red" of "red or blond hair", and the "long" of "long red hair"."""
        j = i + 1
        while j < len(self.stems) and j < i + 12:
            after = self.phrase(j)
            if after and len(after.stems) > 1 and after.first + len(after.stems) == after.last:
                for noun in endings(after.stems):
                    if meanings := self.lexicon.meanings.get((self.stems[i], *noun)):
                        return self.item(i, i + 1, (self.stems[i], *noun), meanings)
                return None
            joined = ROLES.get(self.stems[j]) in (*JOINTS, "either")
            if not joined and (j == i + 1 or ROLES.get(self.stems[j - 1]) not in JOINTS):
                return None
            j += 1
        return None

    def shared_adjective(self, i: int) -> Piece | None:
        """The "hair" of "a red hat or hair"."""
        if len(self.done) < 2 or self.done[-1].kind not in JOINTS or self.done[-2].kind != "item":
            return None
        before = self.done[-2].stems
        for length in range(len(before) - 1, 0, -1):
            phrase = (*before[:length], self.stems[i])
            if (meanings := self.lexicon.meanings.get(phrase)) and phrase != before:
                return replace(self.item(i, i + 1, phrase, meanings), doubtful=True, shared=True)
        return None

    def perhaps_shared(self, found: Piece) -> Piece:
        """The "beard" of "red hair or beard" means a beard, and might mean a red one."""
        shared = self.shared_adjective(found.first) if found.last == found.first + 1 else None
        if shared is None or shared.formula is None:
            return found
        return replace(found, alternatives=(shared.formula, *found.alternatives), doubtful=True)

    # --- numbers ---

    def measured(self, i: int) -> Piece | None:
        """A continuous attribute and a number: "age above 60", "older than 60"; an ordinal one: "older than young"."""
        if (comparative := w.COMPARATIVES.get(self.stems[i])) and self.at(i + 1, ("than",)):
            if ordinal := self.lexicon.ordinals.get(stems(comparative[0])):
                return self.compared(i, self.skip(i + 2, ("the", "an", "a")), ordinal, comparative[1])
            scale = self.lexicon.scales.get(stems(comparative[0]))
            return self.threshold(i, i + 2, scale, comparative[1]) if scale else None
        j, scale = self.scale(i)
        if scale is None:
            relation, j = self.relation(i)
            j, scale = self.scale(self.skip(j, ("the", "an", "a"))) if relation is not None else (j, None)
            return self.threshold(i, self.skip(j, ("of",)), scale, relation) if scale and relation is not None else None
        start, denied = j, False
        while j < len(self.stems) and (self.stems[j] in NOT or self.stems[j] in INSIDE):
            denied, j = denied ^ (self.stems[j] in NOT), j + 1
        if self.at(j, ("between",)):
            return self.between(i, j + 1, scale, denied)
        relation, j = self.relation(j)
        if relation is None:
            name = scale[0].name
            why = f"without a bound; {name!r} is a number: write {name} above 0.5, below 0.5 or between 0.4 and 0.6"
            return Piece("unknown", i, start, note=why)
        found = self.threshold(i, j, scale, relation)
        return replace(found, formula=negate(found.formula)) if denied and found.formula else found

    def compared(self, i: int, j: int, scale: Scale, above: bool) -> Piece:
        """An ordinal attribute and a value: "older than young"."""
        attribute, column = scale
        found = self.lexicon.value_at(attribute, self.stems[j:])
        if found is None:
            return Piece("unknown", i, j, note=f"without its value; write one of: {', '.join(attribute.values)}")
        index, length = found
        chosen = tuple(range(index + 1, len(attribute.values)) if above else range(index))
        if not chosen:
            side = "above" if above else "below"
            return Piece("unknown", i, j + length, note=f"as {attribute.name!r} has no value {side} that")
        return Piece("item", i, j + length, OneOf(attribute, column, chosen))

    def threshold(self, i: int, j: int, scale: Scale, above: bool) -> Piece:
        value = self.number(j)
        if value is None:
            return Piece("unknown", i, j, note="without its number; write one such as 0.5 or 60 behind it")
        return Piece("item", i, self.skip(j + 1, w.UNITS), self.beyond(scale, value, above))

    def between(self, i: int, j: int, scale: Scale, denied: bool) -> Piece:
        low, high = self.number(j), self.number(j + 2)
        if low is None or high is None or not self.at(j + 1, ("and",)):
            return Piece("unknown", i, j, note="without two numbers; write between 0.4 and 0.6")
        formula = And((self.beyond(scale, low, True), self.beyond(scale, high, False)))
        return Piece("item", i, self.skip(j + 3, w.UNITS), negate(formula) if denied else formula)

    def beyond(self, scale: Scale, value: float, above: bool) -> Formula:
        return Beyond(*scale, value, above)

    def scale(self, i: int) -> tuple[int, Scale | None]:
        for length in range(min(self.lexicon.longest, len(self.stems) - i), 0, -1):
            if scale := self.lexicon.scales.get(self.stems[i : i + length]):
                return i + length, scale
        return i, None

    def relation(self, i: int) -> tuple[bool | None, int]:
        for phrase, above in RELATIONS:
            if self.stems[i : i + len(phrase)] == phrase:
                return above, i + len(phrase)
        return None, i

    def number(self, i: int) -> float | None:
        try:
            value = float(self.words[i].text) if i < len(self.words) else None
        except ValueError:
            return None
        return value if value is not None and abs(value) < float("inf") else None

    def at(self, i: int, stems: tuple[str, ...]) -> bool:
        return i < len(self.stems) and self.stems[i] in stems

    def skip(self, i: int, stems: tuple[str, ...]) -> int:
        while self.at(i, tuple(stem(x) for x in stems)):
            i += 1
        return i

    # --- small words ---

    def small(self, i: int) -> Piece | None:
        role = ROLES.get(self.stems[i])
        if role == "or" and self.another_person(i + 1):
            role = "or else"
        if role == "either" and ROLES.get(self.stems[i + 1] if i + 1 < len(self.stems) else ".") in (
            *JOINTS,
            "stop",
            ")",
            "but",
        ):
            role = "skip"  # "no beard either"
        return Piece(role, i, i + 1) if role else None

    def another_person(self, i: int) -> bool:
        """Whether a person is named before the next joint, as in "a man with glasses or a woman with a hat"."""
        while i < len(self.stems) and ROLES.get(self.stems[i], "skip") in ("skip", "person"):
            if ROLES.get(self.stems[i]) == "person" or self.stems[i] in GENDERED:
                return True
            i += 1
        return False


def deny(formula: Formula) -> Formula:
    """What "a hat that is not red" says: a hat, and of another colour; "no red hat" would leave open whether a hat."""
    if isinstance(formula, And) and isinstance(formula.operands[-1], OneOf):
        return And((*formula.operands[:-1], negate(formula.operands[-1])))
    return negate(formula)
