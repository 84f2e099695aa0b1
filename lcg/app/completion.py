"""What may stand at the caret of a formula that is being typed.

The grammar of `lcg.guidance.logic` needs one look to the left: after `&`, `|`, `~`, `(` or at the start stands an
attribute, after an attribute an operator of its kind, after `=` or within braces a value.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lcg.app.answers import Suggestion
from lcg.app.formulas import MAX_TEXT, applies_words
from lcg.schema import Attribute, Schema

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|\w+|>=|<=|[&|~^(){},=<>]')
WORD_BEFORE, WORD_AFTER = re.compile(r'(?:\w+|"[^"]*)$'), re.compile(r"\w*")
OPENS = {"&", "|", "~", "("}
RELATIONS = {"=", "<", ">", "<=", ">=", "in"}

ABOUT = {
    "&": "and: both hold",
    "|": "or: at least one holds",
    "~": "not: what follows does not hold",
    "(": "a part in brackets",
    ")": "ends the brackets",
    "^": "how much this part counts, such as ^2.0",
    "=": "is this value",
    "in": "is one of some values",
    ">": "is above",
    "<": "is below",
    ">=": "is this value or above",
    "<=": "is this value or below",
    ",": "another value",
    "}": "ends the values",
}


@dataclass(frozen=True)
class Choice:
    """Something that fits the grammar."""

    text: str
    about: str
    kind: Literal["attribute", "group", "value", "operator"]


def complete(text: str, caret: int, schema: Schema, limit: int = 12) -> tuple[Suggestion, ...]:
    """See `Studio.complete`."""
    if not isinstance(text, str) or len(text) > MAX_TEXT or not isinstance(caret, int):
        return ()
    caret = max(0, min(caret, len(text)))
    found = WORD_BEFORE.search(text[:caret])
    start = found.start() if found else caret
    end = caret + len(WORD_AFTER.match(text, caret)[0]) if found else caret  # type: ignore[index] # it matches always
    word = text[start:caret].strip('"')
    tokens = TOKEN.findall(text[:start])
    fitting = choices(tokens, schema)
    likely = ranked(word, fitting)
    suggestions = [Suggestion(c.text, c.about, c.kind, start, end) for c in likely if c.text != text[start:end]]
    if end == caret and word and (word[0].isdigit() or word in [c.text.strip('"') for c in fitting]):  # it is complete
        following = [c for c in choices([*tokens, text[start:end]], schema) if c.kind == "operator"]
        suggestions += [Suggestion(f" {c.text}", c.about, c.kind, caret, caret) for c in following]
    return tuple(suggestions[: max(0, limit)])


def choices(tokens: Sequence[str], schema: Schema) -> list[Choice]:
    """What may follow some tokens."""
    last, before = tokens[-1] if tokens else "&", tokens[-2] if len(tokens) > 1 else ""
    owner = _owner(tokens)
    if last in OPENS:
        negation = () if last == "~" else ("~",)
        return [*_names(schema), *(Choice(sign, ABOUT[sign], "operator") for sign in (*negation, "("))]
    if last in RELATIONS - {"in"} or (last in ("{", ",") and owner is not None):
        return _values(owner, schema)
    if owner is not None and _open_braces(tokens):
        return _operators(",", "}")
    if last == "in":
        return [Choice("{", "begins the values", "operator")]
    if before not in RELATIONS and (last in schema or last in schema.groups):
        return _after_name(last, tokens, schema)
    return [] if last == "^" else _connectives(tokens)


def ranked(word: str, found: Iterable[Choice]) -> list[Choice]:
    """Those that a beginning of a word may become: that begin so, that contain it, that look like it."""
    found = list(found)
    if not word:
        return found
    lower = word.lower()
    words = {c.text: c for c in found if c.kind != "operator"}
    begins = [c for text, c in words.items() if text.lower().strip('"').startswith(lower)]
    contains = [c for text, c in words.items() if lower in text.lower() and c not in begins]
    near = difflib.get_close_matches(word, words, n=3, cutoff=0.6) if not begins and len(word) < 100 else []
    return [*begins, *contains, *(words[text] for text in near if words[text] not in contains)]


def about(attribute: Attribute) -> str:
    """A line what an attribute is."""
    kinds = {
        "binary": "yes or no",
        "categorical": f"one of {', '.join(attribute.values[:6])}{', …' if len(attribute.values) > 6 else ''}",
        "continuous": "a number",
    }
    when = applies_words(attribute)
    return kinds[attribute.kind] + (f"; {when}" if when else "")


def _names(schema: Schema) -> list[Choice]:
    groups = [
        Choice(group, f"one of {', '.join(a.member for a in members)}", "group")
        for group, members in schema.groups.items()
    ]
    return [*(Choice(a.name, about(a), "attribute") for a in schema), *groups]


def _values(owner: str | None, schema: Schema) -> list[Choice]:
    if owner is None:
        return []
    if owner in schema.groups:
        return [Choice(a.member, f"has {a.member.replace('_', ' ')}", "value") for a in schema.groups[owner]]
    if owner not in schema:
        return []
    values = schema[owner].values
    return [
        Choice(v if v.isidentifier() else json.dumps(v, ensure_ascii=False), f"a value of {owner}", "value")
        for v in values
    ]


def _after_name(name: str, tokens: Sequence[str], schema: Schema) -> list[Choice]:
    if name in schema.groups:
        return _operators("=", "in")
    attribute = schema[name]
    if attribute.kind == "binary":
        return _connectives(tokens)
    if attribute.kind == "continuous":
        return _operators(">", "<")
    return _operators("=", "in", *((">=", "<=") if attribute.ordered else ()))


def _connectives(tokens: Sequence[str]) -> list[Choice]:
    open_brackets = tokens.count("(") > tokens.count(")")
    weighted = "^" in tokens[-2:]
    return _operators("&", "|", *((")",) if open_brackets else () if weighted else ("^",)))


def _operators(*signs: str) -> list[Choice]:
    return [Choice(sign, ABOUT[sign], "operator") for sign in signs]


def _open_braces(tokens: Sequence[str]) -> bool:
    return tokens.count("{") > tokens.count("}")


def _owner(tokens: Sequence[str]) -> str | None:
    """Whose values are being written: the name to the left of the last relation, if that is open."""
    for place in range(len(tokens) - 1, 0, -1):
        if tokens[place] in RELATIONS:
            return tokens[place - 1] if place == len(tokens) - 1 or _open_braces(tokens) else None
    return None
