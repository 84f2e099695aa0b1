"""Plain English as a page shows it: the formula, what became of every word, and which choices were made."""

from __future__ import annotations

from lcg.app.answers import Description, Phrase
from lcg.app.refusal import problem_of
from lcg.guidance.phrases import read
from lcg.schema import Schema

MAX_TEXT = 500
"""Characters of a description."""


def describe(text: str, schema: Schema) -> Description:
    """Reads a description. Never raises."""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        return Description("", None, problem=f"A description has at most {MAX_TEXT} characters; say it in fewer words.")
    if not text.strip():
        return Description(text, None, problem="Describe a face, such as: a smiling person with glasses and no beard.")
    try:
        reading = read(text, schema, strict=False)
    except ValueError as error:
        return Description(text, None, problem=problem_of(error))
    notes = [f"{part.text!r} is not understood, and is left out." for part in reading.not_understood]
    for choice in reading.ambiguities:
        if choice.even:
            others = f"; it could also be {' or '.join(choice.alternatives)}" if choice.alternatives else ""
            notes.append(f"{choice.text!r} is read as {choice.chosen}{others}.")
    phrases = tuple(Phrase(part.text, part.start, part.end, part.became) for part in reading.parts)
    return Description(text, str(reading.formula), phrases, tuple(notes))
