"""The Generate tab's questions, asked of the shipped model without a page."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from lcg.app import draft
from lcg.app.studio import Studio


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio.open("avatars")


def asked(question: Any, studio: Studio, **request: Any) -> draft.Answer:
    answer = draft.answered(question, studio, request)
    json.dumps(answer, allow_nan=False)
    return answer


def test_a_formula_is_read_with_the_state_of_the_controls(studio: Studio) -> None:
    answer = asked(draft.read, studio, text="glasses&~beard & hair_color in {red, blond}", caret=0)
    assert answer["ok"] and answer["problem"] is None
    assert answer["asked"]["glasses"] is True and answer["asked"]["beard"] is False
    assert set(answer["asked"]["hair_color"]) == {"red", "blond"}


def test_controls_and_formula_are_in_step(studio: Studio) -> None:
    for wish in (
        {"glasses": True, "beard": False},
        {"hair_color": "red"},
        {"hair_color": ["blond", "red"], "hat": False},
    ):
        text = asked(draft.write, studio, asked=wish)["text"]
        read = asked(draft.read, studio, text=text, caret=0)
        found = {name: value for name, value in read["asked"].items() if value is not None}
        assert json.loads(json.dumps(found)) == wish


def test_no_wish_is_no_formula(studio: Studio) -> None:
    assert asked(draft.write, studio, asked={"glasses": None})["text"] == ""
    answer = asked(draft.read, studio, text="  ", caret=2)
    assert answer["ok"] and answer["canonical"] is None and answer["asked"] == {}


def test_what_controls_cannot_show_is_told(studio: Studio) -> None:
    assert asked(draft.read, studio, text="glasses | beard", caret=0)["asked"] is None


def test_an_error_has_its_place(studio: Studio) -> None:
    answer = asked(draft.read, studio, text="glasses & baerd", caret=15)
    assert not answer["ok"] and (answer["start"], answer["end"]) == (10, 15) and answer["nearest"] == "beard"


def test_completions_replace_what_was_begun(studio: Studio) -> None:
    first = asked(draft.read, studio, text="glasses & be", caret=12)["suggestions"][0]
    assert (first["text"], first["start"], first["end"], first["kind"]) == ("beard", 10, 12, "attribute")


def test_trust_has_a_verdict_and_the_numbers(studio: Studio) -> None:
    answer = asked(draft.trust, studio, text="glasses & ~beard")
    assert answer["can_sample"] and "%" in answer["evidence"] and answer["verdict"].endswith(".")
    assert not asked(draft.trust, studio, text="glasses & ~glasses")["can_sample"]


def test_english_becomes_a_formula_or_a_problem(studio: Studio) -> None:
    assert asked(draft.describe, studio, text="a smiling person with glasses")["formula"] is not None
    answer = asked(draft.describe, studio, text="quarterly revenue")
    assert answer["formula"] is None and answer["problem"]


def test_images_come_with_seeds_probabilities_and_a_record(studio: Studio) -> None:
    *_, (shown, answer) = draft.images(studio, {"ticket": 7, "formula": "glasses & ~beard", "n": 3, "seed": 5})
    json.dumps(answer, allow_nan=False)
    assert shown is not None and len(shown) == 3 and answer["ticket"] == 7 and answer["done"]
    assert [image["caption"] for image in answer["images"]] == ["seed 5", "seed 6", "seed 7"]
    assert all(
        image["src"].startswith("data:image/png;base64,") and "%" in image["probability"] for image in answer["images"]
    )
    record = answer["record"]
    assert record["seeds"] == [5, 6, 7] and record["formula"] == "glasses & ~beard" and record["model"] == "avatars"
    assert record["command"] == "lcg generate --model avatars --formula 'glasses & ~beard' --num 3 --seed 5"
    assert "satisfy the formula" in answer["satisfied"]


def test_without_a_formula_the_prior_is_drawn_from(studio: Studio) -> None:
    *_, (shown, answer) = draft.images(studio, {"formula": "", "n": 2, "seed": 0})
    assert shown is not None and shown.formula is None and "nothing was asked for" in answer["summary"]
    assert "probability" not in answer["images"][0] and "--formula" not in answer["record"]["command"]


def test_images_that_fail_are_marked_in_words(studio: Studio) -> None:
    *_, (shown, _) = draft.images(studio, {"formula": "glasses", "n": 1, "seed": 0})
    assert shown is not None
    image = shown.images[0]
    assert draft._image(studio, image, 0, 0.49)["fails"] == "fails the formula"
    assert draft._image(studio, image, 0, 0.5)["fails"] is None


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"formula": "glases", "n": 1, "seed": 0}, "glasses"),
        ({"formula": "glasses & ~glasses", "n": 1, "seed": 0}, "."),
        ({"formula": "glasses", "n": 0, "seed": 0}, "1"),
        ({"formula": "glasses", "n": 10**6, "seed": 0}, "64"),
        ({"formula": "glasses", "n": 1.5, "seed": 0}, "the number of images must be a whole number"),
        ({"formula": "glasses", "n": True, "seed": 0}, "the number of images must be a whole number"),
        ({"formula": "glasses", "n": 1, "seed": None}, "the seed must be a whole number"),
        ({"formula": "glasses", "n": 1, "seed": -1}, ""),
        ({"formula": ["glasses"], "n": 1, "seed": 0}, "a text may have 2000 characters"),
        ({"formula": "(" * 3000, "n": 1, "seed": 0}, "a text may have 2000 characters"),
        (None, "reload it"),
        ([], "reload it"),
        ({}, "whole number"),
    ],
)
def test_a_request_that_cannot_be_met_ends_in_a_sentence(studio: Studio, request_: Any, problem: str) -> None:
    ((shown, answer),) = draft.images(studio, request_)
    assert shown is None and answer["done"] and problem in answer["problem"]
    assert "Traceback" not in answer["problem"] and "\n" not in answer["problem"]


@pytest.mark.parametrize("question", [draft.read, draft.trust, draft.describe, draft.write])
@pytest.mark.parametrize(
    "request_",
    [None, [], "x", {}, {"text": 1}, {"text": None}, {"text": "\0\ud800 & é", "caret": "x"}, {"text": "x" * 3000}],
)
def test_no_question_raises(studio: Studio, question: Any, request_: Any) -> None:
    assert isinstance(draft.answered(question, studio, request_), dict)


@pytest.mark.parametrize(
    "wish",
    [{"no": True}, {"glasses": "red"}, {"hair_color": True}, {"hair_color": [[]]}, {"hair_color": {"a": 1}}, 7, None],
)
def test_a_wish_that_no_control_has_is_refused_in_a_sentence(studio: Studio, wish: Any) -> None:
    answer = draft.answered(draft.write, studio, {"asked": wish})
    assert answer["problem"] and answer["problem"] != draft.FAILED


def test_what_should_not_happen_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    def broken(studio: Studio, request: Any) -> draft.Answer:
        raise ZeroDivisionError("secret")

    with caplog.at_level(logging.ERROR):
        assert draft.answered(broken, None, {}) == {"problem": draft.FAILED}  # type: ignore[arg-type]
        ((_, answer),) = draft.images(None, {"n": 1, "seed": 0})  # type: ignore[arg-type]
    assert answer["problem"] == draft.FAILED and "secret" in caplog.text


def test_probabilities_are_never_certain() -> None:
    assert [draft.percent(p) for p in (0.0, 0.004, 0.01, 0.504, 0.99, 0.995, 1.0)] == [
        "< 1 %",
        "< 1 %",
        "1 %",
        "50 %",
        "99 %",
        "> 99 %",
        "> 99 %",
    ]


def test_examples_are_formulas_of_the_model(studio: Studio) -> None:
    examples = draft.examples(studio)
    assert len(examples) == 4 and all(studio.check(example).canonical for example in examples)
