"""What an edit changed, in words: what was asked for, what came with it, and what moved unasked.

All of it is the classifier's reading of the source's latent and of the edited one, not the truth about the images.
"""

from __future__ import annotations

from dataclasses import dataclass

from lcg.app.answers import Belief, Control, Edited, Source
from lcg.app.studio import Studio
from lcg.app.work import Work

NOTICED = 0.1
"""Share of a number's range from which it counts as moved."""


@dataclass(frozen=True)
class Changes:
    """Sentences about an edit.

    Attributes:
        asked: a line for each step that stands, with how far the classifier believes it.
        followed: details of what was asked for that changed with it.
        moved: attributes that changed though nothing asked for it.
        summary: one sentence.
    """

    asked: list[str]
    followed: list[str]
    moved: list[str]
    summary: str


def changes(studio: Studio, source: Source, work: Work, edited: Edited) -> Changes:
    """Compares the classifier's reading before and after an edit."""
    before, after = studio.beliefs(source), edited.beliefs
    edits = [control.name for control in studio.controls if work.asked(control.name) is not None]
    freed = set(studio.schema.freed_by(edits))
    lines: dict[bool, list[str]] = {True: [], False: []}
    for control in studio.controls:
        old, new = before[control.name], after[control.name]
        if control.name not in edits and new.applies and _differ(control, old, new):
            was = old.value if old.applies else "none"
            lines[control.name in freed].append(f"{control.title}: {was} → {new.value} ({percent(new.probability)})")
    asked = [f"{one.text}: {_believed(one.probability)}" for one in edited.asked]
    failed = sum(one.probability < 0.5 for one in edited.asked)
    return Changes(asked, lines[True], lines[False], _summary(len(asked), failed, len(lines[False])))


def percent(probability: float) -> str:
    """Never 0 % or 100 % of what is not certain."""
    shown = min(max(round(100 * probability), 1), 99) if 0 < probability < 1 else round(100 * probability)
    return f"{shown} %"


def _differ(control: Control, old: Belief, new: Belief) -> bool:
    if old.applies != new.applies:
        return True
    if control.kind == "number":
        return abs(float(new.asked) - float(old.asked)) > NOTICED * (control.high - control.low)
    return old.asked != new.asked


def _believed(probability: float) -> str:
    verdict = "yes" if probability >= 0.9 else "probably" if probability >= 0.5 else "no"
    return f"{verdict}, {percent(probability)}"


def _summary(asked: int, failed: int, moved: int) -> str:
    if not asked:
        return "Nothing is asked for yet."
    which = "The edit" if asked == 1 else f"{failed} of {asked} edits"
    done = f"{which} did not come true" if failed else "Done as asked"
    if not moved:
        return f"{done}; nothing else moved."
    return f"{done}; {moved} {'attribute' if moved == 1 else 'attributes'} moved unasked."
