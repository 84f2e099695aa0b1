"""The editor's requests and answers, on the model that ships: no page, no browser."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

pytest.importorskip("gradio", reason="needs gradio: pip install -e '.[app]'")

from lcg.app.changes import changes, percent
from lcg.app.desk import FAILED, Desk, answered, back, opened, wished
from lcg.app.edit_tab import edit_tab, text
from lcg.app.refusal import Refused
from lcg.app.studio import Studio


@pytest.fixture(scope="module")
def studio() -> Studio:
    return quick(Studio.open("avatars"))


def quick(studio: Studio) -> Studio:
    """The same model in few steps: what is tested here is not how well it edits."""
    editing = replace(studio.pipeline.editing, steps=8)
    return Studio(replace(studio.pipeline, editing=editing), studio.gallery, studio.name)


@pytest.fixture(scope="module")
def desk(studio: Studio) -> Desk:
    return opened(studio, studio.from_seed(3))[0]


def ask(studio: Studio, desk: Desk | None, do: str, **more: Any) -> tuple[Any, dict[str, Any]]:
    """The answer after a journey as JSON, as a browser gets it."""
    desk, answer = answered(studio, desk, json.loads(json.dumps({"do": do, "ticket": 1, **more})))
    return desk, json.loads(json.dumps(answer, allow_nan=False))


def wish(studio: Studio, desk: Desk, asked: dict[str, Any], do: str = "ask", **more: Any) -> tuple[Any, dict[str, Any]]:
    return ask(studio, desk, do, **{"asked": asked, "weights": {}, "strength": studio.strength, **more})


def pixels(picture: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(PIL.Image.open(BytesIO(base64.b64decode(picture["src"].partition(",")[2]))))


def png(size: tuple[int, int] = (64, 64)) -> str:
    data = BytesIO()
    PIL.Image.new("RGB", size, "#c08060").save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def test_what_the_controls_ask_is_what_the_session_asks_and_back(studio: Studio, desk: Desk) -> None:
    asked = {"smile": False, "hair_color": "red", "glasses": True}
    desk, answer = wish(studio, desk, asked, weights={"glasses": 1.5}, strength=0.7)
    assert {(step.text, step.weight) for step in desk.work.steps} == {
        ("-smile", 1),
        ("hair_color=red", 1),
        ("+glasses", 1.5),
    }
    assert desk.work.strength == 0.7
    shown = answer["session"]
    assert shown["asked"] == asked and shown["strength"] == 0.7
    assert shown["weights"] == {"smile": 1, "hair_color": 1, "glasses": 1.5}
    again = wished(studio, desk.work, shown)
    assert again.state == desk.work.state  # what is shown and sent back asks for no change


def test_as_it_is_takes_a_step_out_and_the_source_comes_back_to_the_bit(studio: Studio, desk: Desk) -> None:
    edited, answer = wish(studio, desk, {"glasses": True})
    assert not np.array_equal(pixels(answer["session"]["image"]), desk.source.reconstruction)
    _, answer = wish(studio, edited, {})
    np.testing.assert_array_equal(pixels(answer["session"]["image"]), desk.source.reconstruction)


def test_the_image_is_the_studios_and_named_for_who_cannot_see_it(studio: Studio, desk: Desk) -> None:
    desk, answer = wish(studio, desk, {"smile": True, "hat": False})
    picture = answer["session"]["image"]
    np.testing.assert_array_equal(pixels(picture), studio.edit(desk.work).image)
    assert picture["alt"] == "edited image: +smile, -hat"
    assert answer["session"]["source"]["original"]["alt"] == "original image: seed 3"
    assert answer["ticket"] == 1


def test_a_preview_changes_nothing_that_lasts(studio: Studio, desk: Desk) -> None:
    after, answer = wish(studio, desk, {"glasses": True}, do="preview")
    assert after is desk and not desk.work.steps
    asked = desk.work.ask("glasses", "+glasses")
    np.testing.assert_array_equal(pixels(answer["preview"]), studio.preview(asked).image)


def test_undo_redo_and_reset(studio: Studio, desk: Desk) -> None:
    one, _ = wish(studio, desk, {"glasses": True})
    two, told = wish(studio, one, {"glasses": True, "smile": True})
    undone, answer = ask(studio, two, "undo")
    assert undone.work.state == one.work.state and answer["session"]["redo"]
    redone, answer = ask(studio, undone, "redo")
    assert redone.work.state == two.work.state and answer["session"]["image"] == told["session"]["image"]
    reset, answer = ask(studio, two, "reset")
    assert not reset.work.steps and answer["session"]["undo"]
    assert ask(studio, reset, "undo")[0].work.state == two.work.state


def test_going_back_is_one_change(studio: Studio, desk: Desk) -> None:
    for asked in ({"glasses": True}, {"glasses": True, "smile": True}, {"glasses": True, "smile": True, "hat": False}):
        desk, _ = wish(studio, desk, asked)
    early, answer = ask(studio, desk, "back", steps=1)
    assert [step["text"] for step in answer["session"]["steps"]] == ["+glasses"]
    assert early.work.undone().state == desk.work.state
    with pytest.raises(Refused, match="no such step"):
        back(desk.work, 4)


def test_a_strip_is_answered_image_by_image(studio: Studio, desk: Desk) -> None:
    desk, _ = wish(studio, desk, {"glasses": True, "smile": True})
    _, answer = ask(studio, desk, "frame", steps=1)
    np.testing.assert_array_equal(pixels(answer["frame"]), studio.strip(desk.work)[1].image)


def test_a_saved_session_replays_to_the_bit(studio: Studio, desk: Desk) -> None:
    desk, made = wish(studio, desk, {"glasses": True, "long_hair": True}, weights={"glasses": 1.4}, strength=0.8)
    _, answer = ask(studio, desk, "file")
    assert answer["file"]["name"] == "lcg-session.json"
    data = base64.b64encode(answer["file"]["text"].encode()).decode()
    replayed, again = ask(quick(studio), None, "open", name="lcg-session.json", data=data)
    for name in ("image", "asked", "weights", "strength", "steps", "undo"):
        assert again["session"][name] == made["session"][name], name
    assert torch.equal(studio.edit(replayed.work).z_0, studio.edit(desk.work).z_0)


def test_an_uploaded_image_is_opened(studio: Studio) -> None:
    desk, answer = ask(studio, None, "open", name="a.png", data=png())
    source = answer["session"]["source"]
    assert desk.source.title == source["name"] == "your image"
    assert source["original"]["src"] != source["reconstruction"]["src"]
    np.testing.assert_array_equal(pixels(source["original"]), desk.source.image)


def test_a_poor_reconstruction_is_said_so(studio: Studio) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = BytesIO()
    PIL.Image.fromarray(noise).save(data, "PNG")
    _, answer = ask(studio, None, "open", name="noise.png", data=base64.b64encode(data.getvalue()).decode())
    assert "poor" in answer["session"]["source"]["warning"]


def test_gallery_and_seed_are_sources(studio: Studio) -> None:
    _, answer = ask(studio, None, "gallery", page=2)
    numbers = [image["number"] for image in answer["gallery"]]
    assert numbers == list(range(48, 72))
    desk, answer = ask(studio, None, "pick", number=50)
    np.testing.assert_array_equal(pixels(answer["session"]["image"]), studio.from_gallery(50).image)
    assert ask(studio, desk, "sample", seed=3)[0].source.title == "seed 3"


def test_baselines_and_strengths_are_told_apart(studio: Studio, desk: Desk) -> None:
    desk, shown = wish(studio, desk, {"glasses": True})
    _, answer = ask(studio, desk, "compare")
    titles = [card["title"] for card in answer["baselines"]]
    assert titles[0] == "lcg" and "arithmetic" in titles
    assert answer["baselines"][0]["src"] == shown["session"]["image"]["src"]
    assert answer["baselines"][1]["alt"] == f"edited by {titles[1]}: +glasses"
    _, answer = ask(studio, desk, "strengths")
    assert [card["title"] for card in answer["strengths"]] == ["0", "0.25", "0.5", "0.75", "1"]
    np.testing.assert_array_equal(pixels(answer["strengths"][0]), desk.source.reconstruction)


def test_a_strip_is_saved_as_a_picture(studio: Studio, desk: Desk) -> None:
    desk, _ = wish(studio, desk, {"glasses": True})
    _, answer = ask(studio, desk, "strip")
    assert answer["file"]["name"] == "lcg-strip.png"
    assert pixels({"src": answer["file"]["href"]}).shape[1] >= 2 * 64


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"do": "ask", "asked": {}, "weights": {}}, "Choose a source first."),
        ({"do": "nonsense"}, "Choose a source first."),
        ({"do": ["ask"]}, "nothing that the server knows"),
        ("undo", "nothing that the server knows"),
        (None, "nothing that the server knows"),
        ({"do": "pick", "number": 10**9}, "from 0 to 999"),
        ({"do": "pick", "number": "../../etc/passwd"}, "must be a whole number"),
        ({"do": "sample", "seed": -1}, "The seed must be a whole number from 0"),
        ({"do": "open", "data": "!"}, "arrived damaged"),
        ({"do": "open", "data": base64.b64encode(b"GIF89a?").decode()}, "image"),
        ({"do": "open", "data": base64.b64encode(b'{"format": "lcg.edit_session"}').decode()}, "version"),
        ({"do": "open", "data": base64.b64encode(b'{"form').decode()}, "JSON"),
    ],
)
def test_without_a_source_a_bad_request_is_a_sentence(studio: Studio, request_: Any, said: str) -> None:
    desk, answer = answered(studio, None, request_)
    assert desk is None and said in answer["error"] and "\n" not in answer["error"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"do": "nonsense"}, "nothing that the server knows"),
        ({"do": "ask", "asked": [], "weights": {}}, "cannot read"),
        ({"do": "ask", "asked": {"glases": True}, "weights": {}}, "did you mean 'glasses'"),
        ({"do": "ask", "asked": {"glasses": "perhaps"}, "weights": {}}, "got 'perhaps'"),
        ({"do": "ask", "asked": {"hair_color": "purple"}, "weights": {}}, "purple"),
        ({"do": "ask", "asked": {"glasses": {"a": [1]}}, "weights": {}}, "choose yes, no"),
        ({"do": "ask", "asked": {}, "weights": {"glasses": -1}}, "at least 0"),
        ({"do": "ask", "asked": {}, "weights": {}, "strength": 2}, "The strength must be from 0"),
        ({"do": "ask", "asked": {}, "weights": {}, "strength": "1e999"}, "must be a number"),
        ({"do": "back", "steps": 7}, "no such step"),
        ({"do": "back", "steps": True}, "whole number"),
        ({"do": "pick", "number": 2.5}, "whole number"),
    ],
)
def test_a_bad_request_leaves_the_desk_as_it_is(studio: Studio, desk: Desk, request_: Any, said: str) -> None:
    after, answer = answered(studio, desk, request_)
    assert after is desk and said in answer["error"] and "\n" not in answer["error"]


def test_what_fails_on_the_server_is_logged_and_not_shown(
    studio: Studio, desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(studio, "edit", fail)
    after, answer = answered(studio, desk, {"do": "undo"})
    assert after is desk and answer["error"] == FAILED and "a secret path" in caplog.text


# --- what changed, in words -------------------------------------------------------------------------------------------


def test_no_edit_changes_nothing(studio: Studio, desk: Desk) -> None:
    found = changes(studio, desk.source, desk.work, studio.edit(desk.work))
    assert (found.asked, found.followed, found.moved) == ([], [], [])
    assert found.summary == "Nothing is asked for yet."


def test_what_moved_unasked_is_told_from_what_came_with_the_edit(studio: Studio, desk: Desk) -> None:
    source, edited = desk.source, studio.edit(desk.work)
    work = desk.work.ask("glasses", "+glasses")
    beliefs = dict(edited.beliefs)
    beliefs["smile"] = replace(beliefs["smile"], asked=not beliefs["smile"].asked, value="turned", probability=0.8)
    style = beliefs["glasses_style"]
    beliefs["glasses_style"] = replace(style, asked="another", value="another", applies=True, probability=0.6)
    found = changes(studio, source, work, replace(edited, beliefs=beliefs, asked=()))
    assert len(found.moved) == 1 and found.moved[0].startswith("smile: ") and "turned (80 %)" in found.moved[0]
    assert len(found.followed) == 1 and "another (60 %)" in found.followed[0]


def test_a_failed_edit_is_called_so(studio: Studio, desk: Desk) -> None:
    work = desk.work.ask("glasses", "+glasses")
    edited = studio.edit(work)
    (asking,) = edited.asked
    done = changes(studio, desk.source, work, edited)
    assert done.summary.startswith("Done as asked") and done.asked[0].startswith("+glasses: yes")
    failed = changes(studio, desk.source, work, replace(edited, asked=(replace(asking, probability=0.1),)))
    assert failed.summary.startswith("The edit did not come true") and failed.asked == ["+glasses: no, 10 %"]


def test_certainty_is_never_claimed() -> None:
    assert [percent(p) for p in (0, 1e-9, 0.5, 1 - 1e-9, 1)] == ["0 %", "1 %", "50 %", "99 %", "100 %"]


# --- the tab ----------------------------------------------------------------------------------------------------------


def test_the_tab_is_made_with_a_control_for_every_attribute(studio: Studio) -> None:
    import gradio as gr

    with gr.Blocks():
        tab = edit_tab(studio)
    schema = tab.view.props["schema"]
    assert [control["name"] for control in schema] == list(studio.schema.names)
    hair = next(control for control in schema if control["name"] == "hair_color")
    assert hair["applies_if"] == {"hat": False} and hair["parents"] == ["hat"] and "hat" in hair["when"]


def test_the_templates_hold_nothing_that_gradio_would_evaluate() -> None:
    for name in ("edit.html", "edit.css", "explore.html", "explore.css"):
        assert not {"{{", "${", "`", "\\"} & {part for part in ("{{", "${", "`", "\\") if part in text(name)}, name
