"""What a user is told instead of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lcg.guidance import FormulaError


class Refused(ValueError):
    """Something that was asked for and cannot be had.

    `str(error)` is one or two sentences for the person at the page: what is wrong, and what to do about it. Everything
    that comes from outside (formulas, edits, uploads, session files, numbers) ends in an answer or in this.
    """


@contextmanager
def in_words() -> Iterator[None]:
    """What goes wrong inside becomes `Refused`, where errors are about what was asked for and say so in a sentence."""
    try:
        yield
    except Refused:
        raise
    except (ValueError, TypeError, NotImplementedError) as error:
        raise Refused(problem_of(error)) from error


def problem_of(error: Exception) -> str:
    """The error in one line; of a formula without the picture of where it is."""
    text = error.problem if isinstance(error, FormulaError) else str(error)
    return shortened(" ".join(text.split()) or "this cannot be done")


def shortened(text: str, most: int = 400) -> str:
    """The text, cut in the middle where it is longer than `most` characters."""
    half = most // 2
    return text if len(text) <= most else f"{text[: half - 2]} … {text[2 - half :]}"


def whole_number(name: str, value: object, least: int, most: int) -> int:
    """A whole number from outside, be it written as 3.0. Raises Refused when it is none, or out of range."""
    number = int(value) if isinstance(value, (int, float)) and value == value and abs(value) < 2**53 else None
    if number is None or number != value or isinstance(value, bool) or not least <= number <= most:
        raise Refused(f"{name} must be a whole number from {least} to {most}, got {shortened(repr(value), 60)}.")
    return number
