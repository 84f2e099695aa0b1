"""What the editor's page is told of a source and the work on it, in JSON primitives."""

from __future__ import annotations

import base64
from typing import Any

from lcg.app.answers import Asked, Edited, Image, Source
from lcg.app.changes import changes
from lcg.app.studio import Studio
from lcg.app.work import Work

Answer = dict[str, Any]


def shown(studio: Studio, source: Source, work: Work) -> Answer:
    """Everything about a source and the work on it."""
    edited = studio.edit(work)
    found = changes(studio, source, work, edited)
    image = edited_picture(studio, work, edited)
    session = {
        "source": {
            "name": source.title,
            "warning": source.warning,
            "original": picture(studio, source.image, f"original image: {source.title}"),
            "reconstruction": picture(studio, source.reconstruction, f"reconstruction of the source: {source.title}"),
        },
        "image": image,
        "steps": [{"text": step.text, "weight": step.weight} for step in work.steps],
        "undo": work.can_undo,
        "redo": work.can_redo,
        "asked": asked_of(studio, work),
        "weights": weights_of(studio, work),
        "strength": strength_of(studio, work),
        "believed": {
            name: {
                "asked": belief.asked,
                "value": belief.value,
                "probability": belief.probability,
                "applies": belief.applies,
            }
            for name, belief in studio.beliefs(source).items()
        },
        "changes": {"summary": found.summary, "asked": found.asked, "followed": found.followed, "moved": found.moved},
        "said": f"{image['alt'].capitalize()}. {found.summary}",
    }
    return {"session": session}


def edited_picture(studio: Studio, work: Work, edited: Edited) -> Answer:
    """The image of a work's current state, named by what it was asked for."""
    asked = texts(work)
    alt = f"edited image: {asked}" if work.steps else "the source, not edited"
    return {**picture(studio, edited.image, alt), "caption": asked}


def picture(studio: Studio, image: Image, alt: str) -> Answer:
    """An image for a page, with what a screen reader says of it."""
    return {"src": data_uri(studio.png(image)), "alt": alt, "width": image.shape[1]}


def data_uri(png: bytes) -> str:
    """A PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def texts(work: Work) -> str:
    """The steps, as people write them."""
    return ", ".join(step.text for step in work.steps) or "no edit"


def asked_of(studio: Studio, work: Work) -> dict[str, Asked]:
    """What stands, by attribute, as the controls have it."""
    found: dict[str, Asked] = {}
    for control in studio.controls:
        text = work.asked(control.name)
        if text is not None:
            asked = (studio.check_edit(text).asked or {}).get(control.name)
            found[control.name] = asked[0] if isinstance(asked, tuple) and len(asked) == 1 else asked
    return found


def weights_of(studio: Studio, work: Work) -> dict[str, float]:
    """The weights of what stands, by attribute."""
    weights = {step.text: step.weight for step in work.steps}
    texts = {control.name: work.asked(control.name) for control in studio.controls}
    return {name: weights[text] for name, text in texts.items() if text is not None}


def strength_of(studio: Studio, work: Work) -> float:
    """How far the work goes, be it said or not."""
    return studio.strength if work.strength is None else work.strength
