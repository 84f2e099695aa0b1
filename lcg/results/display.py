"""How results show themselves in a notebook: small pieces of HTML that need nothing but themselves.

Images are data URIs with a text for those who cannot see them, all text is escaped, colours are those of the page it
stands on, light or dark. Small images are enlarged by the browser, without smoothing, so that a pixel of the generator
stays a square of its own; large ones are shown at a size that a page can hold.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHOWN = 48
"""Images in one display, at most."""
LARGEST = 256
"""Pixels of an image's longer side in a display; larger ones are brought to it."""
QUIET = "opacity:.65"
CODE = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"
BAR = "#4c78a8"  # legible on white and on black


def block(title: str, *parts: str) -> str:
    """A display: a line of its own, then parts, all of them HTML."""
    head = f'<div style="margin:0 0 6px">{title}</div>'
    return f'<div style="font-size:13px;line-height:1.45;margin:4px 0 8px;max-width:100%">{head}{"".join(parts)}</div>'


def strong(text: str) -> str:
    """What a display is of."""
    return f"<strong>{html.escape(text)}</strong>"


def code(text: str) -> str:
    """A formula, an edit, a name."""
    return f'<code style="{CODE};font-size:12px;background:none;color:inherit">{html.escape(text)}</code>'


def quiet(text: str) -> str:
    """What is said beside."""
    return f'<span style="{QUIET}">{html.escape(text)}</span>'


def note(text: str) -> str:
    """A line that should not be overlooked."""
    style = "margin:6px 0;padding:2px 8px;border-left:3px solid #c98500;max-width:72ch"
    return f'<div style="{style}">{html.escape(text)}</div>'


def bar(share: float) -> str:
    """A share of one as a bar, with its number."""
    width = round(100 * min(max(share, 0.0), 1.0))
    return (
        '<span style="display:inline-block;width:72px;height:8px;margin-right:6px;border-radius:2px;'
        f'background:linear-gradient(90deg,{BAR} {width}%,rgba(128,128,128,.25) {width}%)"></span>'
        f'<span style="font-variant-numeric:tabular-nums">{share:.2f}</span>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are HTML; the head is text."""
    cell = "text-align:left;vertical-align:middle;padding:2px 12px 2px 0;background:none;border:none"
    line = "border-bottom:1px solid rgba(128,128,128,.3)"
    titles = "".join(f'<th scope="col" style="{cell};{line};{QUIET}">{html.escape(title)}</th>' for title in head)
    body = "".join(
        "<tr style='background:none'>" + "".join(f'<td style="{cell}">{entry}</td>' for entry in row) + "</tr>"
        for row in rows
    )
    return (
        '<table style="border-collapse:collapse;margin:4px 0;font-size:13px">'
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    )


def grid(pictures: Iterable[str]) -> str:
    """Pictures in reading order, as many in a line as there is room for."""
    return f'<div style="display:flex;flex-wrap:wrap;gap:6px 4px">{"".join(pictures)}</div>'


def picture(image: NDArray[np.uint8], alt: str, caption: str = "", width: int = 96) -> str:
    """An image (H, W, 3) uint8 with its text, at a width in pixels of the page, and what stands under it."""
    crisp = "image-rendering:pixelated;" if image.shape[1] < 2 * width else ""
    style = f"{crisp}width:{width}px;height:auto;display:block;margin:0"
    under = f'<figcaption style="{QUIET};font-size:11px;text-align:center">{html.escape(caption)}</figcaption>'
    return (
        f'<figure style="margin:0;width:{width}px"><img src="{data_uri(image)}" alt="{html.escape(alt)}" '
        f'style="{style}">{under if caption else ""}</figure>'
    )


def data_uri(image: NDArray[np.uint8]) -> str:
    """An image (H, W, 3) uint8 as an address that holds it."""
    mime, data = encoded(image)
    return f"data:image/{mime};base64,{base64.b64encode(data).decode()}"


def encoded(image: NDArray[np.uint8]) -> tuple[str, bytes]:
    """Bytes of an image (H, W, 3) uint8 and what they are: png, or jpeg of a large one brought to `LARGEST`."""
    from PIL import Image

    drawn, file = Image.fromarray(image), io.BytesIO()
    if max(drawn.size) <= LARGEST // 2:
        drawn.save(file, "PNG", optimize=True)
        return "png", file.getvalue()
    drawn.thumbnail((LARGEST, LARGEST))
    drawn.save(file, "JPEG", quality=90)
    return "jpeg", file.getvalue()


def png(image: NDArray[np.uint8], side: int = 128) -> bytes:
    """An image (H, W, 3) uint8 as PNG; a small one enlarged by a whole factor, towards `side` pixels."""
    from PIL import Image

    factor, file = max(1, side // max(image.shape[:2])), io.BytesIO()
    Image.fromarray(image.repeat(factor, 0).repeat(factor, 1)).save(file, "PNG", optimize=True)
    return file.getvalue()
