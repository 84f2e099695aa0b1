"""A description in English in the place of a formula: shown as it was understood, then agreed to.

On a terminal the reading is asked about. Without one nobody can be asked: a reading without a doubtful choice goes on
once it is printed, one with such a choice is refused unless it was agreed to beforehand.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import yaml

from lcg.guidance.phrases import Ambiguity, Reading, read
from lcg.schema import Schema

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""What launchers number processes by."""


def formula_of(text: str, schema: Schema, synonyms: str | None = None, yes: bool = False) -> str:
    """The formula that a description means, once it is agreed to.

    Args:
        text: the description.
        schema: the attributes that it may speak of.
        synonyms: a YAML file, see `read_synonyms`; None for none.
        yes: agrees to whatever is understood.

    Raises:
        FileNotFoundError: there is no such file of synonyms.
        ValueError: the text cannot be read, the reading was declined, or it has a choice that nobody is there to make.
    """
    reading = read(text, schema, None if synonyms is None else read_synonyms(synonyms))
    first = all(os.environ.get(name, "0") == "0" for name in RANKS)
    if first:
        print(shown(reading), flush=True)
    doubtful = [choice for choice in reading.ambiguities if choice.even]
    if yes:
        return str(reading.formula)
    if not sys.stdin.isatty():
        if doubtful:
            raise ValueError(
                f"the text can be read in more ways than one, and there is no terminal to ask on: {told(doubtful[0])}; "
                f"say it otherwise, agree with --yes true, or give --formula {str(reading.formula)!r}"
            )
    elif first and not confirmed():
        raise ValueError(f"declined; say it otherwise, or change --formula {str(reading.formula)!r}")
    return str(reading.formula)


def shown(reading: Reading) -> str:
    """The formula, what became of every word, and every choice that was made."""
    lines = [f"{reading.text!r} is read as", "", f"    {reading.formula}", ""]
    width = max(len(part.text) for part in reading.parts)
    lines += [f"    {part.text:<{width}}  {part.became or '?'}" for part in reading.parts]
    if reading.ambiguities:
        lines += ["", *(told(choice) for choice in reading.ambiguities)]
    return "\n".join(lines)


def told(choice: Ambiguity) -> str:
    """A choice in words."""
    others = f", not as {' nor as '.join(choice.alternatives)}" if choice.alternatives else ""
    return f"{choice.text!r} is read as {choice.chosen}{others}"


def confirmed() -> bool:
    """Asks on the terminal; the end of input declines."""
    try:
        return input("\nGenerate that? [Y/n] ").strip().casefold() in ("", "y", "yes")
    except EOFError:
        return False


def read_synonyms(path: str) -> dict[str, str]:
    """Phrases and the formulas they stand for, from a YAML mapping such as `young: age<0.3`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML, or no mapping of text to text.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no synonyms at {file}; write a YAML file with lines such as `young: age<0.3`")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file} is no YAML that can be read ({error}); write lines such as `young: age<0.3`"
        ) from error
    entries = found.items() if isinstance(found, dict) else [(found, None)]
    for phrase, formula in entries:
        if not (isinstance(phrase, str) and isinstance(formula, str)):
            raise ValueError(
                f"{file} must map phrases to formulas, got {phrase!r}: {formula!r}; "
                "write lines such as `young: age<0.3`, in quotes where YAML would read something else"
            )
    return dict(entries)
