"""What a benchmark asks for, and its names in `results.csv`.

unconditional                       samples of the prior
reconstruction                      encode and decode: the ceiling of everything else
generate/glasses & ~beard           samples that satisfy a formula
edit/+beard +glasses -hat           a sequence of edits; each step is a task of its own in the results:
                                    edit/+beard, edit/+beard+glasses, edit/+beard+glasses-hat
tradeoff/+beard +glasses -hat       all of these edits at once, at every strength of a method: success against
                                    preservation
"""

from __future__ import annotations

from dataclasses import dataclass

from lcg.guidance import Formula, parse, parse_edit
from lcg.schema import Schema


@dataclass(frozen=True)
class Unconditional:
    """Samples of the prior."""

    name = "unconditional"


@dataclass(frozen=True)
class Reconstruction:
    """Encode and decode."""

    name = "reconstruction"


@dataclass(frozen=True)
class Generate:
    """Samples that satisfy a formula."""

    formula: Formula

    @property
    def name(self) -> str:
        return f"generate/{self.formula}"


@dataclass(frozen=True)
class Edit:
    """A sequence of edits on sources that have none of them yet."""

    words: tuple[str, ...]
    edits: tuple[Formula, ...]

    @property
    def name(self) -> str:
        return f"edit/{''.join(self.words)}"

    def steps(self) -> tuple[Edit, ...]:
        """The first edit, the first two, ..., all of them."""
        return tuple(Edit(self.words[:k], self.edits[:k]) for k in range(1, len(self.words) + 1))


@dataclass(frozen=True)
class Tradeoff:
    """Edits at every strength that a method has."""

    edit: Edit

    @property
    def name(self) -> str:
        return f"tradeoff/{''.join(self.edit.words)}"


Task = Unconditional | Reconstruction | Generate | Edit | Tradeoff


def parse_task(text: str, schema: Schema) -> Task:
    """Reads a task.

    Raises:
        ValueError: it is none of the five kinds, or its formula or edits cannot be read.
    """
    kind, _, what = text.partition("/")
    if text == "unconditional":
        return Unconditional()
    if text == "reconstruction":
        return Reconstruction()
    if kind == "generate" and what.strip():
        return Generate(parse(what, schema))
    if kind in ("edit", "tradeoff") and what.split():
        words = tuple(word if word[0] in "+-" or "=" in word else f"+{word}" for word in what.split())
        edit = Edit(words, tuple(parse_edit(word, schema) for word in words))
        return edit if kind == "edit" else Tradeoff(edit)
    raise ValueError(
        f"`tasks` has {text!r}; expected unconditional, reconstruction, generate/FORMULA, edit/EDIT EDIT ... or "
        "tradeoff/EDIT EDIT ..., such as 'edit/+beard +glasses'"
    )
