"""The Edit and Explore tabs in a browser, over the model that ships."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

pytest.importorskip("gradio", reason="needs gradio: pip install -e '.[app]'")

from lcg.app.edit_tab import text

pytestmark = pytest.mark.slow

OpenPage = Callable[..., Any]
WAIT = 60_000
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SERIOUS = ("serious", "critical")


def edited(page: Any) -> Any:
    return page.locator("#edit .edited")


def settled(page: Any, alt: str) -> str:
    """The image's data once it shows the refined answer that its text names."""
    page.locator(f'#edit .edited[alt="{alt}"]').wait_for(timeout=WAIT)
    page.locator("#edit .mark:not([data-mark=preview])").wait_for(timeout=WAIT)
    page.locator("#edit .desk:not(.busy)").wait_for(timeout=WAIT)
    return str(edited(page).get_attribute("src"))


def ask(page: Any, name: str, value: str) -> None:
    page.locator(f"#edit input[name=ask-{name}][value={value}]").check(force=True)


@pytest.fixture
def editor(open_page: OpenPage) -> Callable[..., Any]:
    """Opens the Edit tab with a sample as the source."""

    def opened(**more: Any) -> Any:
        page = open_page(tab="edit", **more)
        page.locator("#edit .seed").fill("3")
        page.locator("#edit [data-do=sample]").click()
        settled(page, "the source, not edited")
        return page

    return opened


def picture(size: tuple[int, int] = (90, 70)) -> bytes:
    data = BytesIO()
    PIL.Image.fromarray(np.linspace(0, 255, size[0] * size[1] * 3).astype(np.uint8).reshape(*size, 3)).save(data, "PNG")
    return data.getvalue()


def test_an_upload_is_edited_beside_its_original(open_page: OpenPage) -> None:
    page = open_page(tab="edit")
    page.locator("#edit .file").set_input_files({"name": "me.png", "mimeType": "image/png", "buffer": picture()})
    before = settled(page, "the source, not edited")
    assert page.locator("#edit .source-name").inner_text() == "your image"
    assert page.locator("#edit .original").is_visible() and "poor" in page.locator("#edit .warning").inner_text()
    ask(page, "glasses", "true")
    assert settled(page, "edited image: +glasses") != before
    assert page.complaints == []


def test_undo_redo_reset_by_button_and_by_key(editor: Callable[..., Any]) -> None:
    page = editor()
    source = settled(page, "the source, not edited")
    ask(page, "glasses", "true")
    one = settled(page, "edited image: +glasses")
    ask(page, "long_hair", "true")
    two = settled(page, "edited image: +glasses, +long_hair")
    page.locator("#edit [data-do=undo]").click()
    assert settled(page, "edited image: +glasses") == one
    assert page.locator("#edit input[name=ask-long_hair][value=undefined]").is_checked()
    page.keyboard.press("Control+z")
    assert settled(page, "the source, not edited") == source
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("Control+Shift+z")
    assert settled(page, "edited image: +glasses, +long_hair") == two
    page.locator("#edit [data-do=reset]").click()
    assert settled(page, "the source, not edited") == source
    assert page.locator("#edit [data-do=redo]").is_disabled() and page.locator("#edit [data-do=undo]").is_enabled()
    page.locator("#edit .source > summary").click()
    page.locator("#edit .seed").focus()
    page.keyboard.press("Control+z")  # belongs to the field
    page.wait_for_timeout(500)
    assert edited(page).get_attribute("src") == source
    assert page.complaints == []


def test_the_strip_goes_back(editor: Callable[..., Any]) -> None:
    page = editor()
    for name, alt in (("glasses", "+glasses"), ("smile", "+glasses, +smile")):
        ask(page, name, "true")
        settled(page, f"edited image: {alt}")
    steps = page.locator("#edit .step")
    assert steps.all_inner_texts() == ["source", "+glasses", "+smile"]
    assert page.locator("#edit .step[aria-current=step]").inner_text() == "+smile"
    one = steps.nth(1).locator("img").get_attribute("src")
    steps.nth(1).click()
    assert settled(page, "edited image: +glasses") == one


def test_a_dragged_slider_previews_and_refines_when_let_go(editor: Callable[..., Any]) -> None:
    page = editor()
    ask(page, "glasses", "true")
    settled(page, "edited image: +glasses")
    page.evaluate(
        """() => { window.marks = []; new MutationObserver(() => window.marks.push(
            document.querySelector('#edit .mark').dataset.mark)).observe(
            document.querySelector('#edit .mark'), {attributes: true, characterData: true, childList: true}) }"""
    )
    box = page.locator("#edit-strength").bounding_box()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    for place in np.linspace(0.9, 0.3, 25):
        page.mouse.move(box["x"] + place * box["width"], box["y"] + box["height"] / 2)
        page.wait_for_timeout(20)
    page.locator("#edit .mark[data-mark=preview]").wait_for(timeout=WAIT)
    preview = edited(page).get_attribute("src")
    page.mouse.up()
    page.locator("#edit .mark[data-mark=refined]").wait_for(timeout=WAIT)
    refined = settled(page, "edited image: +glasses")
    assert refined != preview
    page.wait_for_timeout(1500)
    assert edited(page).get_attribute("src") == refined  # nothing stale comes after it
    marks = page.evaluate("window.marks")
    assert "preview" in marks and marks[-1] == "refined"
    assert float(page.locator("output[for=edit-strength]").inner_text()) == pytest.approx(0.3, abs=0.05)
    assert page.complaints == []


def test_quick_clicks_end_in_what_was_asked_last(editor: Callable[..., Any]) -> None:
    page = editor()
    for value in ("true", "false", "true", "undefined", "true"):
        ask(page, "beard", value)
        ask(page, "hat", value)
    settled(page, "edited image: +beard, +hat")
    page.wait_for_timeout(1000)
    assert edited(page).get_attribute("alt") == "edited image: +beard, +hat"


def test_a_saved_session_replays_to_the_same_picture(
    editor: Callable[..., Any], open_page: OpenPage, tmp_path: Path
) -> None:
    page = editor()
    ask(page, "glasses", "true")
    settled(page, "edited image: +glasses")
    ask(page, "smile", "false")
    made = settled(page, "edited image: +glasses, -smile")
    for what, name in (("file", "session.json"), ("image", "image.png"), ("strip", "strip.png")):
        with page.expect_download(timeout=WAIT) as download:
            page.locator(f"#edit .bar [data-do={what}]").click()
        download.value.save_as(tmp_path / name)
    assert json.loads((tmp_path / "session.json").read_text())["format"] == "lcg.edit_session"
    assert (tmp_path / "image.png").read_bytes() == base64.b64decode(made.partition(",")[2])
    assert PIL.Image.open(tmp_path / "strip.png").width >= 3 * 64
    other = open_page(tab="edit")
    other.locator("#edit .file").set_input_files(tmp_path / "session.json")
    assert settled(other, "edited image: +glasses, -smile") == made
    assert other.locator("#edit input[name=ask-smile][value=false]").is_checked()
    other.locator("#edit [data-do=undo]").click()
    settled(other, "edited image: +glasses")
    assert page.complaints == [] and other.complaints == []


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("broken.png", picture()[:60], "image"),
        ("text.png", b"no image at all", "image"),
        ("session.json", b'{"format": "lcg.edit_session", "version": 99}', "version"),
        ("huge.png", b"\x89PNG" + bytes(7 * 2**20), "at most 6"),
        ("empty.png", b"", ""),
    ],
)
def test_a_malformed_file_is_refused_in_place(editor: Callable[..., Any], name: str, data: bytes, said: str) -> None:
    page = editor()
    source = settled(page, "the source, not edited")
    page.locator("#edit .source > summary").click()
    page.locator("#edit .file").set_input_files({"name": name, "mimeType": "image/png", "buffer": data})
    problem = page.locator("#edit .error:not([hidden])")
    problem.wait_for(timeout=WAIT)
    text = problem.inner_text()
    assert said in text and "Traceback" not in text and "\n" not in text
    assert edited(page).get_attribute("src") == source
    ask(page, "glasses", "true")
    settled(page, "edited image: +glasses")
    assert not page.locator("#edit .error").is_visible() and page.complaints == []


def test_baselines_stand_side_by_side(editor: Callable[..., Any]) -> None:
    page = editor()
    ask(page, "glasses", "true")
    made = settled(page, "edited image: +glasses")
    page.locator("#edit .more[data-do=compare] summary").click()
    cards = page.locator("#edit .baselines figure")
    cards.first.wait_for(timeout=WAIT)
    assert cards.locator("strong").first.inner_text() == "lcg" and cards.count() >= 3
    assert cards.locator("img").first.get_attribute("src") == made
    assert all("edited by" in one.get_attribute("alt") for one in cards.locator("img").all())
    page.locator("#edit .more[data-do=strengths] summary").click()
    page.locator("#edit .strengths figure").nth(4).wait_for(timeout=WAIT)
    assert page.complaints == []


def test_a_point_of_the_map_is_opened_in_the_editor(open_page: OpenPage) -> None:
    page = open_page(tab="explore")
    page.locator("#explore .point").first.wait_for(state="attached", timeout=WAIT)
    assert page.locator("#explore .point:not(.legend .point)").count() >= 500
    page.locator("#explore .filter").fill("glasses & ~hat")
    page.locator("#explore .found:not(:empty)").wait_for(timeout=WAIT)
    assert "images satisfy" in page.locator("#explore .found").inner_text()
    mark = page.locator("#explore .plot .point.hit").first.bounding_box()
    page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    page.locator("#explore .tip:not([hidden])").wait_for(timeout=WAIT)
    page.mouse.click(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    page.locator("#explore .edit:enabled").wait_for(timeout=WAIT)
    assert "glasses\nyes" in page.locator("#explore .labels").inner_text()
    number = page.locator("#explore .number").input_value()
    page.locator("#explore .edit").click()
    settled(page, "the source, not edited")
    assert page.locator("#edit .source-name").inner_text() == f"gallery {number}"
    assert page.locator("#edit").is_visible() and not page.locator("#explore").is_visible()
    assert page.complaints == []


def test_the_map_and_the_editor_work_by_keyboard_alone(open_page: OpenPage) -> None:
    page = open_page(tab="explore")
    page.locator("#explore .plot .point").first.wait_for(state="attached", timeout=WAIT)
    page.locator("#explore .filter").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.classList.contains('plot')")
    page.keyboard.press("ArrowRight")
    page.locator("#explore .edit:enabled").wait_for(timeout=WAIT)
    first = page.locator("#explore .number").input_value()
    page.keyboard.press("ArrowRight")
    page.locator(f"#explore .said:has-text('Image'):not(:has-text('Image {first}:'))").wait_for(
        state="attached", timeout=WAIT
    )
    page.keyboard.press("Enter")
    settled(page, "the source, not edited")
    page.locator("#edit input[name=ask-glasses]:checked").focus()
    page.keyboard.press("ArrowRight")
    settled(page, "edited image: +glasses")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "ask-beard"
    page.locator("#edit-strength").focus()
    page.keyboard.press("ArrowLeft")
    settled(page, "edited image: +glasses")
    assert page.locator("output[for=edit-strength]").inner_text() == "0.89"
    page.locator("#edit .status", has_text="+glasses").wait_for(state="attached", timeout=WAIT)
    assert page.complaints == []


def test_a_wrong_formula_is_told_in_place(open_page: OpenPage) -> None:
    page = open_page(tab="explore")
    page.locator("#explore .plot .point").first.wait_for(state="attached", timeout=WAIT)
    page.locator("#explore .filter").fill("glases")
    page.locator("#explore .found.wrong").wait_for(timeout=WAIT)
    assert "glasses" in page.locator("#explore .found").inner_text()
    assert page.locator("#explore .filter").get_attribute("aria-invalid") == "true"


def test_details_that_do_not_apply_cannot_be_asked_for(editor: Callable[..., Any]) -> None:
    page = editor()
    ask(page, "hat", "false")
    settled(page, "edited image: -hat")
    page.locator("#edit .group summary", has_text="Details of hat").click()
    hat, hair = page.locator("#ask-hat_color"), page.locator("#ask-hair_color")
    assert hat.is_disabled() and hair.is_enabled()
    hair.select_option("red")
    settled(page, "edited image: -hat, hair_color=red")
    ask(page, "hat", "true")
    settled(page, "edited image: +hat")
    assert hat.is_enabled() and hair.is_disabled()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_no_violation_and_nothing_runs_out_of_the_page(editor: Callable[..., Any], width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra dev").Axe()
    page = editor(width=width, scheme=scheme)
    ask(page, "glasses", "true")
    settled(page, "edited image: +glasses")
    page.evaluate("document.querySelectorAll('#edit details').forEach(one => { one.open = true })")
    page.locator("#edit .strengths figure").nth(4).wait_for(timeout=WAIT)
    for tab in ("edit", "explore"):
        if tab == "explore":
            page.locator("#tabs button[role=tab][data-tab-id=explore]").click()
            page.locator("#explore .plot .point").first.wait_for(state="attached", timeout=WAIT)
        found = axe.run(page, context=f"#{tab}").response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in SERIOUS] == []
        assert page.evaluate(OVERFLOW) == 0
        inside = page.locator(f"#{tab}").bounding_box()
        widest = page.evaluate(
            "root => Math.max(...[...document.querySelectorAll(root + ' *')].filter(one => one.checkVisibility() && "
            "!one.closest('.strip, .plot, .status, .said')).map(one => one.getBoundingClientRect().right))",
            f"#{tab}",
        )
        assert widest <= inside["x"] + inside["width"] + 1
    assert page.complaints == []


def test_nothing_is_asked_of_another_server(editor: Callable[..., Any], server: Any) -> None:
    page = editor()
    ask(page, "glasses", "true")
    settled(page, "edited image: +glasses")
    assert all(url.startswith((server.url, "data:", "blob:")) for url in page.requested)


def test_two_users_do_not_see_each_others_work(editor: Callable[..., Any], open_page: OpenPage) -> None:
    mine, theirs = editor(), open_page(tab="edit")
    ask(mine, "glasses", "true")
    settled(mine, "edited image: +glasses")
    theirs.locator("#edit .thumb").nth(2).click()
    source = settled(theirs, "the source, not edited")
    mine.locator("#edit [data-do=undo]").click()
    settled(mine, "the source, not edited")
    assert edited(theirs).get_attribute("src") == source != edited(mine).get_attribute("src")
    assert theirs.locator("#edit [data-do=undo]").is_disabled()


def test_numbers_and_ordered_values_have_sliders(browser: Any) -> None:
    common = {"ordered": False, "values": [], "range": [0, 1], "when": "", "applies_if": {}, "parents": []}
    schema = [
        {**common, "name": "age", "title": "age", "kind": "number", "range": [10, 60]},
        {
            **common,
            "name": "size",
            "title": "size",
            "kind": "choice",
            "ordered": True,
            "values": ["small", "mid", "big"],
        },
    ]
    believed = {
        "age": {"asked": 20.0, "value": "20", "probability": 1, "applies": True},
        "size": {"asked": "mid", "value": "mid", "probability": 0.9, "applies": True},
    }
    page = browser.new_page()
    page.set_content("<div id=root></div>")
    page.evaluate(
        f"""([schema, believed]) => {{ {text("elements.js", "controls.js")}
        window.calls = []
        window.form = controls(document.querySelector('#root'), schema, (settled) => calls.push(settled))
        form.show({{asked: {{}}, weights: {{}}, believed}}) }}""",
        [schema, believed],
    )
    assert page.locator("#ask-age").input_value() == "20" and page.locator("#ask-size").input_value() == "1"
    page.locator("#ask-size").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#ask-age").fill("40")
    assert page.evaluate("form.read()") == {"asked": {"age": 40, "size": "big"}, "weights": {}}
    assert page.evaluate("calls.at(-1)") is True and page.locator("output[for=ask-size]").inner_text() == "big"
    page.get_by_role("button", name="age: as it is").click()
    assert page.evaluate("form.read()") == {"asked": {"size": "big"}, "weights": {}}
    page.close()
