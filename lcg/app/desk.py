"""The editor's desk: a source and the work on it, and what becomes of both when something is asked.

    desk, answer = answered(studio, desk, {"do": "ask", "asked": {"glasses": True}, "weights": {}, "strength": 0.9})

A desk is a value that belongs to one user, None before there is a source. A request is JSON from a browser, which may
hold anything; an answer is JSON for it (`lcg/app/edit.js`). What cannot be done leaves the desk as it is, and the
answer says why in `error`.
"""

from __future__ import annotations

import base64
import binascii
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lcg.app.answers import Asked, Frame, Source
from lcg.app.changes import changes
from lcg.app.refusal import Refused
from lcg.app.shown import Answer, asked_of, data_uri, edited_picture, picture, shown, strength_of, texts, weights_of
from lcg.app.studio import Studio
from lcg.app.work import Work

Request = Mapping[str, Any]

THUMBNAILS = 24
"""Images of the gallery that are offered at once."""

FAILED = "Something failed on the server; your work is as it was."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Desk:
    """What a user has before them.

    Attributes:
        source: what is edited.
        work: the session on it.
    """

    source: Source
    work: Work


def answered(studio: Studio, desk: Desk | None, request: Request) -> tuple[Desk | None, Answer]:
    """The desk after a request, and what the browser is told.

    Args:
        studio: everything that is computed.
        desk: before the request, None if no source has been chosen.
        request: JSON with a verb `do` and what it needs. Never raises, whatever it holds.
    """
    ticket = request.get("ticket") if isinstance(request, Mapping) else None
    try:
        if not isinstance(request, Mapping) or not isinstance(request.get("do"), str):
            raise Refused("The page asked for nothing that the server knows; reload it.")
        desk, answer = _done(studio, desk, request)
    except (ValueError, TypeError, OverflowError) as error:
        answer = {"error": _sentence(error)}
    except Exception:
        logger.exception("a request of the editor failed: %s", str(request)[:200])
        answer = {"error": FAILED}
    return desk, {**answer, "ticket": ticket}


def opened(studio: Studio, source: Source) -> tuple[Desk, Answer]:
    """A desk with new work on a source, and what the browser is told."""
    desk = Desk(source, studio.work(source))
    return desk, shown(studio, desk.source, desk.work)


def _done(studio: Studio, desk: Desk | None, request: Request) -> tuple[Desk | None, Answer]:
    verb = request["do"]
    if verb == "gallery":
        return desk, {"gallery": _gallery(studio, _whole(request, "page"))}
    if verb in SOURCES:
        return SOURCES[verb](studio, request)
    if desk is None:
        raise Refused("Choose a source first.")
    if verb in CHANGES:
        desk = replace(desk, work=CHANGES[verb](studio, desk.work, request))
        return desk, shown(studio, desk.source, desk.work)
    if verb not in LOOKS:
        raise Refused("The page asked for nothing that the server knows; reload it.")
    return desk, LOOKS[verb](studio, desk, request)


# --- sources ----------------------------------------------------------------------------------------------------------


def _gallery(studio: Studio, page: int) -> list[Answer]:
    count = len(studio.gallery)
    rows = [(page * THUMBNAILS + k) % count for k in range(min(THUMBNAILS, count))]
    images = studio.gallery_images(rows)
    return [
        {"number": row, **picture(studio, image, f"image {row} of the gallery")}
        for row, image in zip(rows, images, strict=True)
    ]


def _open(studio: Studio, request: Request) -> tuple[Desk, Answer]:
    """An uploaded file: a session, or an image."""
    try:
        data = base64.b64decode(request.get("data", ""), validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise Refused("the file arrived damaged; send it again") from error
    if data.lstrip()[:1] != b"{":
        return opened(studio, studio.from_upload(data))
    desk = Desk(*studio.replay(data.decode("utf-8", errors="replace")))
    return desk, shown(studio, desk.source, desk.work)


SOURCES: dict[str, Callable[[Studio, Request], tuple[Desk, Answer]]] = {
    "pick": lambda studio, request: opened(studio, studio.from_gallery(_whole(request, "number"))),
    "sample": lambda studio, request: opened(studio, studio.from_seed(_whole(request, "seed"))),
    "open": _open,
}


# --- what changes the work --------------------------------------------------------------------------------------------


def wished(studio: Studio, work: Work, request: Request) -> Work:
    """The work with what all controls together ask for.

    Args:
        studio: which knows the controls.
        work: before.
        request: `asked` by attribute (`lcg.app.answers.Asked`), `weights` by attribute, `strength`.

    Raises:
        Refused: something that no control of this model asks for.
    """
    asked, weights = request.get("asked"), request.get("weights")
    if not isinstance(asked, Mapping) or not isinstance(weights, Mapping):
        raise Refused("the page asked for something that the server cannot read; reload it")
    for name in (*asked, *weights):
        studio.schema.index(name)
    standing, pushed = asked_of(studio, work), weights_of(studio, work)
    for control in studio.controls:
        want = _value(asked.get(control.name))
        weight = _fraction(weights, control.name, 1.0)
        if want != standing.get(control.name) or (want is not None and weight != pushed.get(control.name, 1.0)):
            work = work.ask(control.name, studio.edit_text(control.name, want), weight)
    strength = _fraction(request, "strength", studio.strength)
    if strength > 1:
        raise Refused("The strength must be from 0, the source, to 1.")
    return (
        work if strength == strength_of(studio, work) else work.going(None if strength == studio.strength else strength)
    )


def back(work: Work, count: int) -> Work:
    """The work with its first `count` steps only."""
    if not 0 <= count <= len(work.steps):
        raise Refused("There is no such step to go back to.")
    return work.first(count)


CHANGES: dict[str, Callable[[Studio, Work, Request], Work]] = {
    "ask": wished,
    "undo": lambda studio, work, request: work.undone(),
    "redo": lambda studio, work, request: work.redone(),
    "reset": lambda studio, work, request: work.reset(),
    "back": lambda studio, work, request: back(work, _whole(request, "steps")),
}


# --- what only looks --------------------------------------------------------------------------------------------------


def _preview(studio: Studio, desk: Desk, request: Request) -> Answer:
    work = wished(studio, desk.work, request)
    return {"preview": edited_picture(studio, work, studio.preview(work))}


def _compared(studio: Studio, desk: Desk, request: Request) -> Answer:
    cards: list[Answer] = []
    for rival in studio.compare(desk.work):
        card: Answer = {"title": rival.name, "about": rival.about, "note": rival.problem}
        if rival.edited is not None:
            found = changes(studio, desk.source, desk.work, rival.edited)
            alt = f"edited by {rival.name}: {texts(desk.work)}"
            card |= picture(studio, rival.edited.image, alt) | {"note": found.summary}
        cards.append(card)
    return {"baselines": cards}


def _strengths(studio: Studio, desk: Desk, request: Request) -> Answer:
    alt = f"edited image: {texts(desk.work)}, strength"
    return {"strengths": [_card(studio, frame, alt) for frame in studio.strengths(desk.work)]}


def _card(studio: Studio, frame: Frame, alt: str) -> Answer:
    return {"title": frame.title, **picture(studio, frame.image, f"{alt} {frame.title}")}


def _frame(studio: Studio, desk: Desk, request: Request) -> Answer:
    """The image after the first steps: a strip is asked for image by image, so that it keeps nobody waiting."""
    work = back(desk.work, _whole(request, "steps"))
    return {"frame": picture(studio, studio.edit(work).image, f"edited image: {texts(work)}")}


def _strip(studio: Studio, desk: Desk, request: Request) -> Answer:
    return {"file": {"name": "lcg-strip.png", "href": data_uri(studio.strip_png(studio.strip(desk.work)))}}


LOOKS: dict[str, Callable[[Studio, Desk, Request], Answer]] = {
    "preview": _preview,
    "compare": _compared,
    "strengths": _strengths,
    "frame": _frame,
    "strip": _strip,
    "file": lambda studio, desk, request: {"file": {"name": "lcg-session.json", "text": studio.save(desk.work)}},
}


# --- what a browser has sent ------------------------------------------------------------------------------------------


def _sentence(error: Exception) -> str:
    text = str(error).strip() or "this cannot be done"
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def _whole(request: Request, name: str) -> int:
    value = request.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"`{name}` must be a whole number, got {str(value)[:40]!r}")
    return value


def _fraction(numbers: Mapping[str, Any], name: str, default: float) -> float:
    value = numbers.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise Refused(f"`{name}` must be a number of at least 0, got {str(value)[:40]!r}")
    return float(value)


def _value(value: Any) -> Asked:
    """JSON has lists where `Asked` has tuples."""
    return tuple(value) if isinstance(value, list) else value
