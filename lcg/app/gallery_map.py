"""The Explore tab's questions and their answers, without the page: the gallery as a map.

    chosen, answer = answered(studio, chosen, {"do": "map", "method": "pca", "attribute": "glasses"})

A request is JSON from a browser, which may hold anything; an answer is JSON for it (`lcg/app/explore.js`). What belongs
to a user is the number of the image that they have chosen.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

from lcg.app.desk import FAILED, Request
from lcg.app.formulas import read_formula
from lcg.app.refusal import Refused
from lcg.app.shown import Answer, picture
from lcg.app.studio import Studio
from lcg.guidance import without_weights
from lcg.schema import Attribute

logger = logging.getLogger(__name__)


def answered(studio: Studio, chosen: int | None, request: Request) -> tuple[int | None, Answer]:
    """The number of the chosen image after a request, and what the browser is told.

    Args:
        studio: everything that is computed.
        chosen: before the request, None for none.
        request: JSON with a verb `do` and what it needs. Never raises, whatever it holds.
    """
    ticket = request.get("ticket") if isinstance(request, Mapping) else None
    try:
        question = QUESTIONS.get(str(request.get("do"))) if isinstance(request, Mapping) else None
        if question is None:
            raise Refused("The page asked for nothing that the server knows; reload it.")
        answer = question(studio, request)
        chosen = answer["chosen"]["number"] if "chosen" in answer else chosen
    except Refused as refused:
        answer = {"error": str(refused)}
    except Exception:
        logger.exception("a question of the map failed: %s", str(request)[:200])
        answer = {"error": FAILED}
    return chosen, {**answer, "ticket": ticket}


def _map(studio: Studio, request: Request) -> Answer:
    """Where the points are and what colours them; of a number also the range of its colours."""
    name, method = request.get("attribute"), request.get("method", "pca")
    points = studio.points(method, name if name is None else str(name))
    colours = [None if math.isnan(c) else float(c) for c in points.colours.tolist()]
    known = [colour for colour in colours if colour is not None]
    return {
        "map": {
            "xy": [round(float(place), 4) for place in points.xy.ravel()],
            "colours": colours if points.attribute else [0] * len(points.xy),
            "values": list(points.values),
            "attribute": points.attribute,
            "title": next((c.title for c in studio.controls if c.name == name), "all images"),
            "low": min(known, default=0.0),
            "high": max(known, default=1.0),
            "about": points.about,
            "verdict": points.verdict,
            "ready": points.ready,
        }
    }


def _filter(studio: Studio, request: Request) -> Answer:
    """The rows whose labels satisfy a formula, None for an empty one, and a sentence about them."""
    text = request.get("text")
    try:
        formula = read_formula(text if isinstance(text, str) else "", studio.schema)
    except Refused as refused:
        return {"found": {"rows": None, "text": str(refused), "problem": True}}
    if formula is None:
        return {"found": {"rows": None, "text": "", "problem": False}}
    rows = without_weights(formula).holds(studio.gallery.labels).nonzero()[:, 0].tolist()
    few = "1 image satisfies" if len(rows) == 1 else f"{len(rows)} images satisfy"
    return {"found": {"rows": rows, "text": f"{few} {formula}, of {len(studio.gallery)}.", "problem": False}}


def _choose(studio: Studio, request: Request) -> Answer:
    """An image with its labels in words."""
    number = request.get("number")
    source = studio.from_gallery(number)  # type: ignore[arg-type] # refuses what is no row of the gallery
    row = studio.gallery.labels[number].tolist()
    titles = [control.title for control in studio.controls]
    labels = [
        [title, in_words(attribute, label)]
        for title, attribute, label in zip(titles, studio.schema, row, strict=True)
        if not math.isnan(label)
    ]
    return {
        "chosen": {
            "number": number,
            "labels": labels,
            **picture(studio, source.image, f"image {number} of the gallery"),
        }
    }


def _image(studio: Studio, request: Request) -> Answer:
    number = request.get("number")
    (image,) = studio.gallery_images([number])  # type: ignore[list-item] # refuses what is no row of the gallery
    return {"image": {"number": number, **picture(studio, image, f"image {number} of the gallery")}}


QUESTIONS: dict[str, Callable[[Studio, Request], Answer]] = {
    "map": _map,
    "filter": _filter,
    "choose": _choose,
    "image": _image,
}


def in_words(attribute: Attribute, label: float) -> str:
    """A known label for people: yes, no, the name of a value, or a number."""
    if attribute.kind == "continuous":
        return f"{label:.2f}"
    return attribute.values[int(label)] if attribute.values else "yes" if label else "no"
