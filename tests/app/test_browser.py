"""The page's frame, its Generate and its Benchmarks tab in a browser, over the model that ships."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.slow

OpenPage = Callable[..., Any]
WAIT = 60_000
TABS = ("generate", "edit", "explore", "benchmarks")
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SERIOUS = ("serious", "critical")


def generated(page: Any, count: int) -> list[str]:
    """Waits for so many images; what they are."""
    page.locator("#generate .gallery[aria-busy=false] li").nth(count - 1).wait_for(timeout=WAIT)
    sources: list[str] = page.eval_on_selector_all("#generate .gallery img", "all => all.map(one => one.src)")
    assert len(sources) == count
    return sources


def ask_for(page: Any, formula: str, count: int = 2, seed: int = 0) -> list[str]:
    page.locator(".count-wanted").fill(str(count))
    page.locator("#generate .seed").fill(str(seed))
    page.locator("#formula").fill(formula)
    page.locator("#generate button.primary").click()
    return generated(page, count)


def test_a_formula_becomes_images_with_seeds_probabilities_and_trust(open_page: OpenPage) -> None:
    page = open_page()
    assert page.locator(".empty").is_visible()
    ask_for(page, "glasses & ~beard", count=3, seed=7)
    assert page.locator("#generate figcaption").all_inner_texts()[0].split()[:2] == ["seed", "7"]
    assert "satisfy the formula" in page.locator("#generate .status").inner_text()
    page.locator("#formula-says .verdict").wait_for(timeout=WAIT)
    assert "%" in page.locator("#formula-says .evidence").inner_text()
    assert not page.locator(".empty").is_visible() and page.complaints == []


def test_another_seed_draws_others_and_the_same_seed_the_same(open_page: OpenPage) -> None:
    page = open_page()
    first = ask_for(page, "glasses")
    page.locator("#generate .another").click()
    page.wait_for_function("first => document.querySelector('#generate .gallery img')?.src !== first", arg=first[0])
    assert set(generated(page, 2)).isdisjoint(first)
    assert ask_for(page, "glasses") == first


def test_an_error_is_shown_in_its_place_and_mended(open_page: OpenPage) -> None:
    page = open_page()
    box, says = page.locator("#formula"), page.locator("#formula-says")
    box.fill("glasses & baerd & hat")
    says.locator("mark").wait_for()
    assert says.locator("mark").inner_text() == "baerd" and "column 11" in says.inner_text()
    assert box.get_attribute("aria-invalid") == "true" and box.get_attribute("aria-describedby") == "formula-says"
    says.get_by_role("button", name="Write beard").click()
    page.wait_for_function("document.querySelector('#formula').getAttribute('aria-invalid') === 'false'")
    assert box.input_value() == "glasses & beard & hat"


def test_what_cannot_be_generated_is_told_in_a_sentence(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#formula").fill("glasses & ~glasses")
    page.locator("#generate button.primary").click()
    page.locator("#generate .problem").wait_for(timeout=WAIT)
    text = page.locator("#generate .problem").inner_text()
    assert text and "Traceback" not in text and page.locator("#generate .gallery li").count() == 0
    assert page.locator("#generate button.primary").is_enabled()


def test_completion_by_keyboard(open_page: OpenPage) -> None:
    page = open_page()
    box, options = page.locator("#formula"), page.locator("#formula-list [role=option]")
    box.press_sequentially("gla")
    options.first.wait_for()
    assert box.get_attribute("aria-expanded") == "true" and options.first.inner_text().startswith("glasses")
    box.press("ArrowDown")
    active = box.get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    box.press("Enter")
    assert box.input_value() == "glasses" and box.get_attribute("aria-expanded") == "false"
    box.press_sequentially(" & be")
    options.first.wait_for()
    box.press("Escape")
    assert box.get_attribute("aria-expanded") == "false" and box.input_value() == "glasses & be"
    box.press("ArrowDown")
    options.first.wait_for()
    box.press("ArrowUp")
    last = box.get_attribute("aria-activedescendant")
    assert page.locator(f"#{last}").get_attribute("aria-selected") == "true"
    assert page.evaluate("document.activeElement.id") == "formula" and page.complaints == []


def test_controls_write_the_formula_and_show_it(open_page: OpenPage) -> None:
    page = open_page()
    box = page.locator("#formula")

    def reads(text: str) -> None:
        page.wait_for_function("text => document.querySelector('#formula').value === text", arg=text)

    page.get_by_role("radio", name="glasses: yes", exact=True).check(force=True)
    reads("glasses")
    page.get_by_role("radio", name="beard: no", exact=True).check(force=True)
    reads("glasses & ~beard")
    page.locator(".finer summary").click()
    page.locator("#wish-hair_color").select_option(label="red")
    reads("glasses & ~beard & hair_color=red")
    box.fill("hat & hair_color in {blond, red}")
    page.wait_for_function("document.querySelector('input[name=wish-hat][value=yes]').checked")
    assert page.locator("input[name=wish-glasses][value=any]").is_checked()
    assert page.locator("#wish-hair_color option:checked").inner_text() == "blond or red"
    box.fill("hat | glasses")
    page.locator(".stale").wait_for()
    page.get_by_role("button", name="Clear all").click()
    reads("")
    assert page.locator("input[name=wish-hat][value=any]").is_checked() and page.complaints == []


def test_plain_english_shows_the_formula_that_it_is_read_as(open_page: OpenPage) -> None:
    page = open_page()
    page.locator(".english summary").click()
    page.locator("#english").fill("a smiling person with glasses and no beard")
    page.locator("#english-says .reading").wait_for()
    said = page.locator("#english-says .reading").inner_text()
    page.get_by_role("button", name="Use as formula").click()
    assert page.locator("#formula").input_value() == said and "glasses" in said and "~beard" in said
    page.locator("#english").fill("quarterly revenue")
    page.locator("#english-says .wrong").wait_for()
    assert page.locator(".use").is_disabled()


def test_seeds_and_sheet_are_taken_home(open_page: OpenPage) -> None:
    page = open_page()
    ask_for(page, "glasses", count=3, seed=4)
    with page.expect_download() as record:
        page.get_by_role("button", name="Seeds (JSON)").click()
    told = json.loads(record.value.path().read_text())
    assert told["formula"] == "glasses" and told["seeds"] == [4, 5, 6] and told["model"] == "avatars"
    with page.expect_download() as sheet:
        page.get_by_role("button", name="Sheet (PNG)").click()
    assert sheet.value.path().read_bytes().startswith(b"\x89PNG")


def test_a_sample_is_handed_to_the_editor(open_page: OpenPage) -> None:
    page = open_page()
    shown = ask_for(page, "glasses & hat", count=2)
    page.get_by_role("button", name="Edit this one: seed 1").click()
    page.locator("#tabs button[role=tab][data-tab-id=edit][aria-selected=true]").wait_for(timeout=WAIT)
    page.locator("#edit .original[src]").wait_for(state="attached", timeout=WAIT)
    assert page.locator("#edit .original").get_attribute("src") == shown[1]
    assert page.evaluate("location.hash") == "#edit"  # so that the address opens the same tab again


def test_a_report_is_shown_in_a_frame_in_which_nothing_runs(open_page: OpenPage) -> None:
    page = open_page("benchmarks")
    link = page.locator(".reports a")
    assert "A small benchmark" in link.inner_text() and "lcg, arithmetic" in link.inner_text()
    link.click()
    heading = page.frame_locator("iframe[name=report]").locator("h1")
    heading.wait_for()
    assert heading.inner_text() == "A small benchmark" and link.get_attribute("aria-current") == "true"
    assert page.locator("iframe[name=report]").get_attribute("sandbox") == ""


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_has_an_address(open_page: OpenPage, tab: str) -> None:
    page = open_page(tab, width=360)
    other = next(name for name in TABS if name != tab)
    page.locator(f"#tabs button[role=tab][data-tab-id={other}]").click()
    assert page.url.endswith(f"#{other}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_tab_fits_can_be_heard_and_asks_nobody_else(open_page: OpenPage, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(width=width, height=800, scheme=scheme)
    ask_for(page, "glasses & ~beard")
    page.locator(".finer summary").click()
    page.locator(".english summary").click()
    found = []
    for tab in TABS:
        page.locator(f"#tabs button[role=tab][data-tab-id={tab}]").click()
        page.wait_for_timeout(500)
        assert page.evaluate(OVERFLOW) == 0, tab
        violations = axe.run(page).response["violations"]
        found += [(tab, one["id"], one["nodes"][0]["html"][:200]) for one in violations if one["impact"] in SERIOUS]
    assert found == []
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    origin = page.url.partition("#")[0]
    assert [url for url in page.requested if not url.startswith((origin, "data:", "blob:", "about:"))] == []
    assert page.complaints == []


def test_the_check_of_accessibility_finds_something_where_there_is_something(browser: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = browser.new_page()
    page.set_content("<html lang=en><title>x</title><main><h1>x</h1><input type=text></main>")
    assert any(one["impact"] in SERIOUS for one in axe.run(page).response["violations"])
    page.close()


def test_focus_is_seen(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#formula").focus()
    unseen = []
    for _ in range(20):
        page.keyboard.press("Tab")
        style = page.evaluate(
            """() => { const at = document.activeElement, style = getComputedStyle(at.closest('.segments') ?? at);
            return [at.outerHTML.slice(0, 80), style.outlineStyle, parseFloat(style.outlineWidth), at.tagName] }"""
        )
        if style[3] == "BODY":  # through all of the page
            break
        if style[1] == "none" or style[2] < 2:
            unseen.append(style)
    assert unseen == []


def test_motion_is_reduced_for_those_who_ask(open_page: OpenPage) -> None:
    page = open_page(reduced_motion="reduce")
    longest = page.evaluate(
        """Math.max(...[...document.querySelectorAll('*')]
        .map(one => parseFloat(getComputedStyle(one).transitionDuration)))"""
    )
    assert longest <= 0.001


def test_two_users_do_not_see_each_other(open_page: OpenPage) -> None:
    first, second = open_page(), open_page()
    of_first, of_second = ask_for(first, "glasses & hat", seed=1), ask_for(second, "beard", seed=2)
    assert set(of_first).isdisjoint(of_second)
    assert generated(first, 2) == of_first
    for page, own in ((first, of_first), (second, of_second)):
        page.get_by_role("button", name="Edit this one").first.click()
        page.locator("#edit .original[src]").wait_for(state="attached", timeout=WAIT)
        assert page.locator("#edit .original").get_attribute("src") == own[0]
    third = open_page()
    assert third.locator("#generate .gallery li").count() == 0
    assert third.locator("#edit .original[src]").count() == 0
