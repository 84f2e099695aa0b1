"""The report in a browser: nothing is missing, nothing is loaded, nothing runs out of a phone's screen.

Skipped where there is no playwright (the extra `dev`) or no chromium.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lcg.benchmarks.report.job import report_job

pytestmark = pytest.mark.slow
DESKTOP, PHONE = 1280, 360


@pytest.fixture(scope="module")
def url(made_up: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = made_up(tmp_path_factory.mktemp("browser"))
    report_job(str(folder))
    return (folder.parent / "report.html").as_uri()


@pytest.fixture(params=[(DESKTOP, "light"), (PHONE, "light"), (PHONE, "dark")], ids=lambda p: f"{p[0]}-{p[1]}")
def page(request: pytest.FixtureRequest, browser: Any, url: str) -> Iterator[Any]:
    """The page, with what it asks for and complains of as `page.requested` and `page.complaints`."""
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.requested, page.complaints = [], []
    page.on("request", lambda sent: page.requested.append(sent.url))
    page.on("console", lambda said: page.complaints.append(said.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(url)
    yield page
    page.close()


def test_every_image_loads_nothing_leaves_the_page_and_nothing_is_complained_of(page: Any, url: str) -> None:
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) == 8 and min(widths) > 0
    assert page.requested[0] == url and all(one.startswith("data:") for one in page.requested[1:])
    assert page.complaints == []


def test_the_check_of_requests_sees_one(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('<img src="http://localhost:1/missing.png">')
    page = browser.new_page()
    requested: list[str] = []
    page.on("request", lambda sent: requested.append(sent.url))
    page.goto((tmp_path / "page.html").as_uri())
    page.close()
    assert any(one.startswith("http:") for one in requested)


OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_nothing_runs_out_of_the_page_folded_or_not(page: Any) -> None:
    assert page.evaluate(OVERFLOW) == 0
    for summary in page.query_selector_all("summary"):
        summary.click()
    assert page.evaluate("[...document.querySelectorAll('details')].every(details => details.open)")
    assert page.evaluate(OVERFLOW) == 0
    beyond = page.evaluate(
        """[...document.querySelectorAll('p, h1, h2, h3, h4, li, dd, summary, figcaption, pre, svg, .scroll')]
        .filter(element => element.getBoundingClientRect().width > 0)
        .filter(element => !element.closest('.sheet'))
        .filter(element => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1
                           || element.getBoundingClientRect().left < -1)
        .map(element => element.outerHTML.slice(0, 120))"""
    )
    assert beyond == []


def test_details_unfold_into_commands(page: Any) -> None:
    details = page.locator("details.again").first
    assert not details.locator("code").is_visible()
    details.locator("summary").click()
    assert details.locator("code").is_visible()
    assert details.locator("code").inner_text().startswith("lcg bench --config runs/demo/bench/config.yaml --tasks")


def test_text_is_large_enough_to_read(page: Any) -> None:
    small = page.evaluate(
        """[...document.querySelectorAll('p, li, td, th, dd, code, summary, figcaption, caption')]
        .filter(element => element.getBoundingClientRect().width > 0)
        .map(element => parseFloat(getComputedStyle(element).fontSize)).filter(size => size < 10)"""
    )
    assert small == []


def test_labels_of_charts_do_not_overlap(page: Any) -> None:
    overlapping = page.evaluate(
        """[...document.querySelectorAll('svg.plot')].flatMap(svg => {
          const texts = [...svg.querySelectorAll('text')];
          const boxes = texts.map(text => text.getBoundingClientRect());
          return boxes.flatMap((a, i) => boxes.slice(i + 1).map((b, j) => [i, i + 1 + j])
            .filter(([_, k]) => { const b = boxes[k]; return Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5
              && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4; })
            .map(([i, k]) => `${svg.getAttribute('aria-label')}: ${texts[i].textContent} | ${texts[k].textContent}`));
        })"""
    )
    assert overlapping == []


def test_heat_maps_fit_a_phone(page: Any) -> None:
    hidden = page.eval_on_selector_all(".maps .scroll", "boxes => boxes.map(box => box.scrollWidth - box.clientWidth)")
    assert len(hidden) == 10 and max(hidden) <= 24  # at most a column


def test_print_unfolds_everything(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(url)
    hidden = "[...document.querySelectorAll('details > pre')].filter(e => !e.checkVisibility()).length"
    assert page.evaluate(hidden) > 3
    page.emulate_media(media="print")
    assert page.evaluate(hidden) == 0
    page.close()


@pytest.mark.parametrize("width", [1200, PHONE])
def test_a_crowd_fits_the_page_and_its_sheets_stand_pixel_for_pixel(
    browser: Any, made_up: Callable[[Path], Path], tmp_path: Path, width: int
) -> None:
    """The made-up benchmark with three baselines four times: 14 methods."""
    folder = made_up(tmp_path)
    several = ("arithmetic", "lace", "styleflow")
    for name in ("results.csv", "costs.csv"):
        with open(folder / name, newline="") as file:
            head, *rows = csv.reader(file)
        more = [[f"{row[0]}-{k}", *row[1:]] for k in range(3) for row in rows if row[0] in several]
        with open(folder / name, "w", newline="") as file:
            csv.writer(file).writerows([head, *rows, *more])
    report_job(str(folder))
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((folder.parent / "report.html").as_uri())
    assert page.evaluate(OVERFLOW) == 0
    assert page.evaluate("document.documentElement.scrollHeight") < (14_000 if width == 1200 else 22_000)
    shown = page.evaluate(
        """[...document.querySelectorAll('.formula.dense img')].filter(image => image.checkVisibility())
        .map(image => image.getBoundingClientRect().width / image.naturalWidth)"""
    )
    assert shown and set(shown) == {0.5}  # of pictures that show every pixel of the generator as two by two
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert page.evaluate(OVERFLOW) == 0
    page.close()
