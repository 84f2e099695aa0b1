"""The Generate tab's questions and their answers, without the page.

A request is JSON from a browser, which may hold anything; an answer is JSON for it (`lcg/app/generate.js`). None of the
functions raises: what cannot be had is said in `problem`, what should not have happened is in the server's log.

    answer = answered(read, studio, {"text": "glasses & ", "caret": 10})
    for shown, answer in images(studio, {"formula": "glasses & ~beard", "n": 12, "seed": 0}): ...
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lcg import __version__
from lcg.app.answers import Asked, Check, Control, Generated, Image
from lcg.app.formulas import MAX_TEXT
from lcg.app.refusal import Refused
from lcg.app.studio import Studio

Request = Mapping[str, Any]
Answer = dict[str, Any]

SATISFIES = 0.5
"""The probability from which an image counts as one that satisfies the formula."""
FAILED = "Something went wrong; the server's log says what."

logger = logging.getLogger(__name__)


def answered(question: Callable[[Studio, Request], Answer], studio: Studio, request: Any) -> Answer:
    """The answer to a question, or the problem with it."""
    try:
        if not isinstance(request, Mapping):
            raise Refused("the page asked for nothing that the server knows; reload it")
        return question(studio, request)
    except Refused as refused:
        return {"problem": str(refused)}
    except Exception:
        logger.exception("a question of the page failed: %s", str(request)[:200])
        return {"problem": FAILED}


# --- while a formula is typed -----------------------------------------------------------------------------------------


def read(studio: Studio, request: Request) -> Answer:
    """What the text of a formula says, what is wrong with it, and what may stand at the caret."""
    text, caret = _text(request), request.get("caret")
    check = studio.check(text)
    place = caret if isinstance(caret, int) and 0 <= caret <= len(text) else len(text)
    return {
        "ok": check.ok,
        "canonical": check.canonical,
        "problem": check.problem if check.nearest is None else _short(check.problem),
        "start": check.start,
        "end": check.end,
        "nearest": check.nearest,
        "asked": _state(check),
        "suggestions": [
            {"text": one.text, "about": one.about, "kind": one.kind, "start": one.start, "end": one.end}
            for one in studio.complete(text, place)
        ],
    }


def _short(problem: str | None) -> str | None:
    """A problem without the list of all names, where the nearest one is offered."""
    said, asks, _ = (problem or "").partition("? the ")
    return said + asks[:1] or None


def _state(check: Check) -> dict[str, Asked] | None:
    """The controls in which a formula can be shown; None where none of their states says it, or it has an error."""
    if check.ok and check.canonical is None:
        return {}
    if check.asked is None:
        return None
    return {n: v[0] if isinstance(v, tuple) and len(v) == 1 else v for n, v in check.asked.items()}


def trust(studio: Studio, request: Request) -> Answer:
    """How far samples of a formula can be trusted."""
    found = studio.trust(_text(request))
    if found is None:
        return {"verdict": "", "evidence": "Nothing is asked for: samples of the prior.", "can_sample": True}
    return {"verdict": found.verdict, "evidence": found.evidence, "can_sample": found.can_sample}


def describe(studio: Studio, request: Request) -> Answer:
    """What a description in English means."""
    found = studio.describe(_text(request))
    return {"formula": found.formula, "problem": found.problem, "notes": list(found.notes)}


def write(studio: Studio, request: Request) -> Answer:
    """The formula that the controls ask for."""
    asked = request.get("asked")
    if not isinstance(asked, Mapping):
        raise Refused("the page asked for something that the server cannot read; reload it")
    return {"text": studio.formula_text({str(name): _asked(value) for name, value in asked.items()})}


def _asked(value: Any) -> Asked:
    """What a control asks for, JSON having no tuples; what it is not, the studio refuses."""
    return tuple(value) if isinstance(value, list) else value


# --- images -----------------------------------------------------------------------------------------------------------


def images(studio: Studio, request: Any) -> Iterator[tuple[Generated | None, Answer]]:
    """Samples, some more with every part, and what the browser is told of them; None in their place for a problem."""
    ticket = request.get("ticket") if isinstance(request, Mapping) else None
    try:
        if not isinstance(request, Mapping):
            raise Refused("the page asked for nothing that the server knows; reload it")
        for shown in studio.generating(_text(request, "formula"), _whole(request, "n"), _whole(request, "seed")):
            yield shown, {**_shown(studio, shown), "ticket": ticket}
    except Refused as refused:
        yield None, {"problem": str(refused), "done": True, "ticket": ticket}
    except Exception:
        logger.exception("images could not be made: %s", str(request)[:200])
        yield None, {"problem": FAILED, "done": True, "ticket": ticket}


def _shown(studio: Studio, shown: Generated) -> Answer:
    done = len(shown) >= shown.wanted
    probabilities = shown.probabilities or (None,) * len(shown)
    entries = [
        _image(studio, *each) for each in zip(shown.images, shown.seeds, probabilities, strict=True)
    ]  # fmt: skip
    answer: Answer = {"images": entries, "wanted": shown.wanted, "done": done}
    if done:
        answer |= {**_summary(shown), "notes": list(shown.warnings), "record": _record(studio, shown)}
    return answer


def _image(studio: Studio, image: Image, seed: int, probability: float | None) -> Answer:
    told: Answer = {"src": data_uri(studio.png(image)), "height": image.shape[0], "width": image.shape[1]}
    told["caption"] = f"seed {seed}"
    if probability is not None:
        told["probability"] = percent(probability)
        told["fails"] = None if probability >= SATISFIES else "fails the formula"
    return told


def _summary(shown: Generated) -> Answer:
    """What came of it, in two parts, the first of which matters more."""
    if not shown.probabilities:
        return {"summary": f"{len(shown)} draws of the prior; nothing was asked for."}
    fit = sum(p >= SATISFIES for p in shown.probabilities)
    mean = percent(sum(shown.probabilities) / len(shown))
    return {
        "satisfied": f"{fit} of {len(shown)} satisfy the formula",
        "summary": f" as the classifier reads it; mean probability {mean}.",
    }


def _record(studio: Studio, shown: Generated) -> Answer:
    """What it takes to make the same images again."""
    options = f"--num {len(shown)} --seed {shown.seeds[0]}" if shown.seeds else ""
    formula = "" if shown.formula is None else f" --formula '{shown.formula}'"
    return {
        "lcg": __version__,
        "model": studio.name,
        "formula": shown.formula,
        "seeds": list(shown.seeds),
        "probabilities": list(shown.probabilities),
        "warnings": list(shown.warnings),
        "command": f"lcg generate --model {studio.name}{formula} {options}".strip(),
    }


def data_uri(png: bytes) -> str:
    """An image within a message, so that nothing lies on the server's disk."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def percent(p: float) -> str:
    """A probability for people; 0 and 1 are never claimed."""
    return "< 1 %" if p < 0.01 else "> 99 %" if p > 0.99 else f"{100 * p:.0f} %"


# --- the page's beginning ---------------------------------------------------------------------------------------------


def examples(studio: Studio) -> list[str]:
    """A few formulas to begin with, of the model's own attributes."""
    toggles = [control.name for control in studio.controls if control.kind == "toggle" and not control.detail]
    choices = [control for control in studio.controls if control.kind == "choice" and len(control.values) >= 4]
    some = toggles + [control.name for control in studio.controls if control.kind == "toggle" and control.detail]
    texts = [" & ~".join(some[:2]), " & ".join(toggles[:3]), " & ".join(some[3:5])]
    texts += [f"{c.name} in {{{c.values[2]}, {c.values[3]}}}" for c in sorted(choices, key=lambda c: len(c.values))[:1]]
    return [text for text in dict.fromkeys(texts) if text and studio.check(text).ok]


def described(control: Control) -> Answer:
    """A control, as the page makes it."""
    return {
        "name": control.name,
        "title": control.title,
        "kind": control.kind,
        "values": list(control.values),
        "ordered": control.ordered,
        "low": control.low,
        "high": control.high,
        "detail": control.detail,
        "about": control.applies_if,
    }


# --- what a browser has sent ------------------------------------------------------------------------------------------


def _text(request: Request, name: str = "text") -> str:
    text = request.get(name, "")
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise Refused(f"a text may have {MAX_TEXT} characters; shorten it")
    return text


def _whole(request: Request, name: str) -> int:
    value = request.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        what = {"n": "the number of images", "seed": "the seed"}[name]
        raise Refused(f"{what} must be a whole number; change it")
    return value
