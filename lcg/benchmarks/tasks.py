"""What a benchmark asks for, and its names in `results.csv`.

unconditional                       samples of the prior
reconstruction                      encode and decode: the ceiling of everything else
calibration                         how honest the classifiers are, by noise level
disentanglement                     how the attributes lie in the latents
generate/glasses & ~beard           samples that satisfy a formula
scale/glasses & ~beard              the same at every strength of a method
edit/+beard +glasses -hat           a sequence of edits; each step is a task of its own in the results:
                                    edit/+beard, edit/+beard+glasses, edit/+beard+glasses-hat
synthetic/+beard +glasses -hat      the same on sources that are samples of the prior
tradeoff/+beard +glasses -hat       all of these edits at once, at every strength of a method: success against
                                    preservation

`{1}`, `{2}`, ... stand for the attributes that a world's configuration names, so that one benchmark can be run on any.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lcg.guidance import Formula, parse, parse_edit
from lcg.schema import Schema

Alone = Literal["unconditional", "reconstruction", "calibration", "disentanglement"]
ALONE: tuple[Alone, ...] = ("unconditional", "reconstruction", "calibration", "disentanglement")


@dataclass(frozen=True)
class Single:
    """A task without a formula."""

    name: Alone


@dataclass(frozen=True)
class Generate:
    """Samples that satisfy a formula."""

    formula: Formula

    @property
    def name(self) -> str:
        return f"generate/{self.formula}"


@dataclass(frozen=True)
class Scale:
    """Samples that satisfy a formula, at every strength that a method has."""

    generate: Generate

    @property
    def formula(self) -> Formula:
        return self.generate.formula

    @property
    def name(self) -> str:
        return f"scale/{self.formula}"


@dataclass(frozen=True)
class Edit:
    """A sequence of edits on sources that have none of them yet."""

    words: tuple[str, ...]
    edits: tuple[Formula, ...]
    synthetic: bool = False

    @property
    def name(self) -> str:
        return f"{'synthetic' if self.synthetic else 'edit'}/{''.join(self.words)}"

    @property
    def edit(self) -> Edit:
        """Itself: an edit and a trade-off are asked alike what is edited."""
        return self

    def steps(self) -> tuple[Edit, ...]:
        """The first edit, the first two, ..., all of them."""
        return tuple(replace(self, words=self.words[:k], edits=self.edits[:k]) for k in range(1, len(self.words) + 1))


@dataclass(frozen=True)
class Tradeoff:
    """Edits at every strength that a method has."""

    edit: Edit

    @property
    def name(self) -> str:
        return f"tradeoff/{''.join(self.edit.words)}"


Task = Single | Generate | Scale | Edit | Tradeoff


def fill(text: str, attributes: Sequence[str]) -> str:
    """A task with its places filled in.

    Args:
        text: such as `generate/{1} & ~{2}`.
        attributes: what `{1}`, `{2}`, ... stand for.

    Raises:
        ValueError: there is no such attribute.
    """

    def named(place: re.Match[str]) -> str:
        number = int(place[1])
        if not 1 <= number <= len(attributes):
            raise ValueError(
                f"`tasks` has {text!r}, but `attributes` names {len(attributes)}; name at least {max(number, 1)}, "
                "as configs/world/avatars.yaml does"
            )
        return attributes[number - 1]

    return re.sub(r"\{(\d+)\}", named, text)


def parse_task(text: str, schema: Schema) -> Task:
    """Reads a task.

    Raises:
        ValueError: it is none of the kinds, or its formula or edits cannot be read.
    """
    kind, _, what = text.partition("/")
    for name in ALONE:
        if text == name:
            return Single(name)
    if kind in ("generate", "scale") and what.strip():
        generate = Generate(parse(what, schema))
        return generate if kind == "generate" else Scale(generate)
    if kind in ("edit", "synthetic", "tradeoff") and what.split():
        words = tuple(word if word[0] in "+-" or "=" in word else f"+{word}" for word in what.split())
        edit = Edit(words, tuple(parse_edit(word, schema) for word in words), kind == "synthetic")
        return Tradeoff(edit) if kind == "tradeoff" else edit
    raise ValueError(
        f"`tasks` has {text!r}; expected {', '.join(ALONE)}, generate/FORMULA, scale/FORMULA, edit/EDIT EDIT ..., "
        "synthetic/EDIT EDIT ... or tradeoff/EDIT EDIT ..., such as 'edit/+beard +glasses'"
    )
