"""Whatever comes from outside ends in an answer or in a sentence: never in another error, never late, never large.

Cases are drawn by seed: image files, session files, formulas, descriptions and states of the controls, made at random
or from good ones by mutation. A share of them runs always, 2,000 with `-m slow`.
"""

import io
import json
import random
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lcg.app.refusal import Refused
from lcg.app.studio import Studio
from lcg.settings import Editing, Sampling

SECONDS = 2.0  # of this process's time; the machine may be busy with others
GROWTH = 400 * 2**20  # bytes


@pytest.fixture(scope="module")
def studio() -> Studio:
    whole = Studio.open()
    pipeline = replace(whole.pipeline, editing=Editing(steps=6), sampling=Sampling(steps=6))
    return Studio(pipeline, whole.gallery, "quick")


# --- what comes from outside -----------------------------------------------------------------------------------------


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut out, put in, repeated or cut off."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        place = rng.randrange(len(found) + 1)
        kind = rng.randrange(6)
        if kind == 0 and place < len(found):
            found[place] = rng.choice((0, 255, rng.randrange(256)))
        elif kind == 1:
            del found[place : place + rng.choice((1, 4, 50))]
        elif kind == 2:
            found[place:place] = rng.randbytes(rng.choice((1, 4, 50)))
        elif kind == 3:
            found[place : place + 4] = rng.choice(
                (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\x40\0")
            )
        elif kind == 4:
            found[place:place] = found[place : place + 200]
        elif rng.random() < 0.3:
            del found[place:]
    return bytes(found)


def image_file(rng: random.Random) -> bytes:
    size = rng.choice((8, 64, 200)), rng.choice((9, 64, 120))
    mode = rng.choice(("RGB", "RGBA", "L", "P", "1", "LA", "I;16", "CMYK"))
    pixels = Image.fromarray(np.frombuffer(rng.randbytes(size[0] * size[1] * 3), np.uint8).reshape(*size, 3))
    format = rng.choice(("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"))
    file = io.BytesIO()
    try:
        image = pixels.convert("L").convert("I;16") if mode == "I;16" else pixels.convert(mode)
        image.save(file, format)
    except (OSError, ValueError):
        pixels.save(file, format)
    return file.getvalue()


JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 1e308, 0.5, "", "x", "+glasses", "age=1", [], {}, [[]], ["+hat", 1.0]),
    *(
        [["+hat", 1e300]],
        {"steps": [["-hat", 2]], "strength": 7.0},
        "A" * 400,
        "float64",
        [64],
        [1, 64],
        [2**40, 2**40],
    ),
)


def damaged(value: Any, rng: random.Random) -> Any:
    """A JSON value with something else somewhere in it."""
    if rng.random() < 0.25 or not isinstance(value, (dict, list)) or not value:
        return rng.choice(JUNK)
    if isinstance(value, dict):
        key = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: damaged(value[key], rng)}
    place = rng.randrange(len(value))
    return [*value[:place], damaged(value[place], rng), *value[place + (rng.random() < 0.7) :]]


def formula_of(studio: Studio, rng: random.Random) -> str:
    """Words of the language in any order, or in a good one; now and then something else."""
    names, values = studio.schema.names, [v for a in studio.schema for v in a.values]
    signs = (
        "&",
        "|",
        "~",
        "(",
        ")",
        "^2",
        "=",
        ">",
        "in",
        "{",
        "}",
        ",",
        "and",
        "'",
        '"',
        "\x00",
        "ß",
        "\u202e",
        "9e999",
    )
    if rng.random() < 0.5:
        words = [rng.choice((*signs, *signs, *names, *values)) for _ in range(rng.choice((1, 3, 8, 40)))]
        return rng.choice((" ", "", "  ")).join(words)

    def atom() -> str:
        attribute = rng.choice(tuple(studio.schema))
        value = rng.choice(attribute.values) if attribute.values else ""
        return f"{'~' * rng.randrange(3)}{attribute.name}{f'={value}' if value else ''}"

    def part(depth: int) -> str:
        if depth == 0 or rng.random() < 0.2:
            return atom()
        return f"({rng.choice((' & ', ' | ')).join(part(depth - 1) for _ in range(rng.choice((2, 3, 6))))})"

    text = part(rng.randrange(4))
    return text if rng.random() < 0.7 else mutated(text.encode(), rng).decode(errors="replace")


def anything(studio: Studio, rng: random.Random) -> Any:
    attribute = rng.choice(tuple(studio.schema))
    usual = (True, False, None, (), "", "red", 3, attribute.values, attribute.values[:1], (">", 0.5), (">=", "red"))
    strange = (float("nan"), [], ["red", 3], {"a": 1}, b"x", attribute.name, object(), ("=", "red"), 10**400)
    return rng.choice((*usual, *strange))


# --- cases -----------------------------------------------------------------------------------------------------------


def upload(studio: Studio, rng: random.Random) -> None:
    data = image_file(rng) if rng.random() < 0.9 else rng.randbytes(rng.randrange(300))
    source = studio.from_upload(mutated(data, rng))
    assert source.image.shape == source.reconstruction.shape == (64, 64, 3)


def session(studio: Studio, rng: random.Random) -> None:
    work = studio.work(studio.from_gallery(rng.randrange(len(studio.gallery))))
    text = studio.save(work.ask("glasses", "+glasses").ask("hat", "-hat", 2.0).going(0.5).undone())
    if rng.random() < 0.7:
        text = json.dumps(damaged(json.loads(text), rng))
    else:
        text = mutated(text.encode(), rng).decode(errors="replace")
    source, again = studio.replay(text)
    assert source.image.shape == (64, 64, 3)
    assert studio.preview(again).image.shape == studio.edit(again).image.shape == (64, 64, 3)


def formula(studio: Studio, rng: random.Random) -> None:
    text = formula_of(studio, rng)
    studio.complete(text, rng.randrange(-3, len(text) + 3))
    checked, edit = studio.check(text), studio.check_edit(text)
    for found in (checked, edit):
        assert found.ok or (0 <= found.start < found.end <= len(text) + 1 and "\n" not in str(found.problem))
    trust = studio.trust(text)
    if checked.asked:
        assert studio.check(studio.formula_text(checked.asked)).ok
    if trust is not None and trust.can_sample and rng.random() < 0.2:
        assert len(studio.generate(text, n=rng.choice((1, 2, 99)), seed=rng.choice((0, 2**32 - 1, -1)))) > 0


def description(studio: Studio, rng: random.Random) -> None:
    words = [w for a in studio.schema for w in (a.name.replace("_", " "), *a.values)]
    small = (
        "a",
        "person",
        "with",
        "and",
        "or",
        "no",
        "not",
        "without",
        "but",
        "neither",
        "nor",
        "(",
        ")",
        ",",
        "red",
        "hair",
        "ü",
        "\x00",
    )
    told = studio.describe(" ".join(rng.choice((*words, *small, *small)) for _ in range(rng.choice((1, 5, 12, 60)))))
    assert (told.formula is None) == (told.problem is not None)
    assert told.formula is None or studio.check(told.formula).ok


def controls(studio: Studio, rng: random.Random) -> None:
    names = (*studio.schema.names, "nobody", 3)
    asked = {rng.choice(names): anything(studio, rng) for _ in range(rng.randrange(6))}
    try:
        assert studio.check(studio.formula_text(asked)).ok
    finally:
        for name, value in asked.items():
            text = studio.edit_text(name, value)
            assert text is None or studio.check_edit(text).ok


CASES: tuple[Callable[[Studio, random.Random], None], ...] = (upload, session, formula, description, controls)


def survive(studio: Studio, seed: int) -> str:
    """What became of a case: `answered` or `refused`; anything else is raised."""
    rng = random.Random(seed)
    case, started = CASES[seed % len(CASES)], time.process_time()
    outcome = "answered"
    try:
        case(studio, rng)
    except Refused as error:
        outcome, told = "refused", str(error)
        assert told and "\n" not in told and len(told) <= 420 and "Traceback" not in told, told
    assert time.process_time() - started < SECONDS, f"{case.__name__} of seed {seed} takes too long"
    return outcome


def survive_all(studio: Studio, seeds: range) -> None:
    for seed in range(len(CASES)):
        survive(studio, seed)  # what is loaded once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = [survive(studio, seed) for seed in seeds]
    assert {"answered", "refused"} == set(outcomes)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < GROWTH


def test_a_hundred_strange_things_end_in_an_answer_or_a_sentence(studio: Studio) -> None:
    survive_all(studio, range(100))


@pytest.mark.slow
def test_two_thousand_strange_things_end_in_an_answer_or_a_sentence(studio: Studio) -> None:
    survive_all(studio, range(100, 2100))
