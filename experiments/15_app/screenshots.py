"""Drives the app in Chromium and writes the pictures of the README, so that they show what there is.

    python experiments/15_app/screenshots.py            # experiments/15_app/{generate,edit,explore,phone}.png

The server is started here, on a free port, and ended. Of the same version, the pictures show the same: seeds are given.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

SCALE = 1.5
"""Pixels of a picture for a pixel of the page."""
LARGEST = 300_000
"""Bytes of a picture."""
WAIT = 60_000
HERE = Path(__file__).parent


@contextmanager
def served() -> Iterator[str]:
    """The address of a page of its own."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "lcg", "app", "--open", "false", "--port", "0", "--runs", runs]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            found = re.search(r"http://\S+", process.stdout.readline())
            if found is None:
                raise SystemExit("the server did not start; see above")
            yield found[0]
        finally:
            process.terminate()
            process.wait(30)


def generate(page: Any) -> None:
    """Samples of a formula that the training has seen, one of them begun to be refined by a word."""
    page.locator(".count-wanted").fill("10")
    page.locator("#formula").fill("glasses & hat & ~beard")
    page.locator("#generate button.primary").click()
    page.locator("#generate .gallery[aria-busy=false] li").nth(9).wait_for(timeout=WAIT)
    page.locator("#formula-says .verdict").wait_for(timeout=WAIT)


def phone(page: Any) -> None:
    """The same on a phone, scrolled to the images."""
    generate(page)
    page.evaluate("scrollTo(0, document.querySelector('#generate .bar').getBoundingClientRect().top + scrollY - 16)")


def edit(page: Any) -> None:
    """A sample with three edits, one after another, and the strip of them."""
    page.locator("#edit .seed").fill("36")
    page.locator("#edit [data-do=sample]").click()
    _settled(page, "the source, not edited", "no edit yet")
    edits: list[str] = []
    for attribute in ("glasses", "smile", "hat"):
        edits.append(f"+{attribute}")
        page.locator(f"#edit input[name=ask-{attribute}][value=true]").check(force=True)
        _settled(page, f"edited image: {', '.join(edits)}", "refined")
    page.wait_for_timeout(6000)  # the strip's images, which are asked for in a moment of rest


def explore(page: Any) -> None:
    """The gallery, coloured by an attribute, and one image of it."""
    page.locator("#explore svg.plot *").first.wait_for(state="attached", timeout=WAIT)
    page.locator("#explore .number").fill("17")
    page.locator("#explore .number").press("Enter")
    page.locator("#explore .picture").wait_for(timeout=WAIT)


def _settled(page: Any, alt: str, mark: str) -> None:
    page.locator(f'#edit .edited[alt="{alt}"]').wait_for(timeout=WAIT)
    page.locator("#edit .mark", has_text=mark).wait_for(timeout=WAIT)
    page.locator("#edit .desk:not(.busy)").wait_for(timeout=WAIT)


PICTURES: dict[str, tuple[str, int, int, Any]] = {
    "generate": ("generate", 1280, 860, generate),
    "edit": ("edit", 1280, 1080, edit),
    "explore": ("explore", 1280, 900, explore),
    "phone": ("generate", 390, 844, phone),
}
"""Name: the tab, the page's width and height, and what is done before the picture is taken."""


def written(screenshot: bytes, path: Path) -> None:
    """Writes a picture with as many colours as fit into its bytes."""
    picture = Image.open(BytesIO(screenshot)).convert("RGB")
    for colours in (256, 128, 64):
        packed = BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
        if packed.tell() <= LARGEST:
            break
    path.write_bytes(packed.getvalue())
    print(f"{path} ({packed.tell() / 1e3:.0f} KB, {picture.width} x {picture.height}, {colours} colours)")


def main() -> None:
    """Takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the pictures")
    parser.add_argument("--only", nargs="*", default=list(PICTURES), choices=list(PICTURES))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    chromium = next(
        (path for path in ("/usr/bin/chromium", shutil.which("chromium")) if path and Path(path).is_file()), None
    )
    with served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in options.only:
            tab, width, height, act = PICTURES[name]
            context = browser.new_context(
                viewport={"width": width, "height": height}, device_scale_factor=SCALE, reduced_motion="reduce"
            )
            page = context.new_page()
            page.goto(f"{url}#{tab}")
            page.locator(f"#tabs button[role=tab][data-tab-id={tab}][aria-selected=true]").wait_for(timeout=WAIT)
            act(page)
            page.evaluate("document.activeElement.blur()")
            page.mouse.move(0, 0)
            page.wait_for_timeout(800)
            written(page.screenshot(), options.out / f"{name}.png")
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
