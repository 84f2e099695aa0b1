"""A user's work: an editing session as a value, in which every attribute is asked for once.

    work = work.ask("glasses", "+glasses").ask("hair_color", "hair_color=red").undone()

It is an `EditSession`, with its states, its undo and its file format. Every method here answers with a new work and
leaves the old one as it is, so that it can be handed between threads and kept in the state of a page.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import Self

from lcg.app.refusal import Refused, in_words
from lcg.editing import EditSession
from lcg.editing.session import MAX_STEPS, State, Step

MAX_WEIGHT = 100.0
"""Of a step; far beyond what is of use."""


class Work(EditSession):
    """A session that is never changed, only followed by another.

    Use the methods below, not those of `EditSession` that change it (`add`, `undo`, ...).
    """

    def ask(self, attribute: str, text: str | None, weight: float = 1.0) -> Self:
        """With one step for an attribute in the place of those it has; None asks for nothing any more.

        Args:
            attribute: its name.
            text: an edit of it, such as `+glasses`, as `Studio.edit_text` makes it.
            weight: of its guidance, 0 to `MAX_WEIGHT`; 1 is usual.

        Raises:
            Refused: the text is no edit of this attribute, or a number is out of range.
        """
        if attribute not in self.schema:
            with in_words():
                self.schema.index(attribute)
        steps = list(self.steps)
        places = [place for place, step in enumerate(steps) if self._attribute(step) == attribute]
        asked: list[Step] = []
        if text is not None:
            with in_words():
                asked = [Step(text, weight)]
                if self._attribute(asked[0]) != attribute:
                    raise Refused(f"{text!r} is no edit of {attribute}; write an edit such as +{attribute}.")
            if weight > MAX_WEIGHT:
                raise Refused(f"The weight of an edit is at most {MAX_WEIGHT:g}, got {weight:g}; 1 is usual.")
        first = places[0] if places else len(steps)
        kept = [[step for place, step in enumerate(part, start) if place not in places]
                for start, part in ((0, steps[:first]), (first, steps[first:]))]  # fmt: skip
        changed = (*kept[0], *asked, *kept[1])
        if len(changed) > MAX_STEPS:
            raise Refused(f"A session has at most {MAX_STEPS} steps; take some back first.")
        return self._followed(replace(self.state, steps=changed))

    def going(self, strength: float | None) -> Self:
        """With another strength, from 0, the source, to 1; None for the model's own. Raises Refused for another."""
        if strength is None:
            return self._followed(replace(self.state, strength=None))
        if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength <= 1:
            raise Refused("The strength must be a number from 0, the source, to 1.")
        return self._followed(replace(self.state, strength=float(strength)))

    def undone(self) -> Self:
        """At the state before the last change; itself when there is none (`can_undo`)."""
        return copy.copy(self).undo() if self.can_undo else self

    def redone(self) -> Self:
        """With the change made again that was undone last; itself when there is none (`can_redo`)."""
        return copy.copy(self).redo() if self.can_redo else self

    def reset(self) -> Self:
        """With no steps and the model's own strength, as a change that can be undone."""
        return self._followed(State())

    def first(self, count: int) -> Self:
        """With its first steps only."""
        return self._followed(replace(self.state, steps=self.steps[:count]))

    @property
    def states(self) -> tuple[State, ...]:
        """All states of the history."""
        return tuple(self._history)

    @property
    def standing(self) -> tuple[Step, ...]:
        """The steps that ask for something: of several on one attribute the last, unless its weight is 0."""
        last = {self._attribute(step): place for place, step in enumerate(self.steps)}
        return tuple(step for place, step in enumerate(self.steps) if place in last.values() and step.weight > 0)

    def asked(self, attribute: str) -> str | None:
        """The text of the step that stands for an attribute, or None."""
        texts: Sequence[str] = [step.text for step in self.steps if self._attribute(step) == attribute]
        return texts[-1] if texts else None

    def _attribute(self, step: Step) -> str:
        return self._literal(step.text).attributes[0]

    def _followed(self, state: State) -> Self:
        return copy.copy(self)._become(state)  # which makes a new list of states, and leaves that of the old alone
