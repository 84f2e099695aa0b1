"""Pictures for results: a sheet of images, and strips in which every row tells one edit after another.

Images are enlarged by whole factors without smoothing, so that a pixel of the generator stays a square of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PAPER = (255, 255, 255)  # opaque, so that captions can be read on a dark page too
INK = (45, 48, 52)
FONT_SIZES = range(14, 8, -1)  # of captions in pixels: the largest with which every word fits its column
ROW_GAP = 6  # pixels between the rows of `strips`; within a row images are closer


def contact_sheet(images: NDArray[np.uint8], columns: int, scale: int = 2, gap: int = 2) -> Image.Image:
    """Images in reading order.

    Args:
        images: (N, H, W, 3) uint8, N >= 1.
        columns: images in a row; the last row may be shorter.
        scale: whole factor of enlargement.
        gap: pixels of the result between images.

    Returns:
        An RGB picture.

    Raises:
        TypeError: `images` is not uint8.
        ValueError: `images` has another shape or is empty, or `columns`, `scale` or `gap` is too small.

    Example:
        >>> contact_sheet(np.zeros((6, 64, 64, 3), np.uint8), columns=3).size
        (388, 258)
    """
    images = _checked("images", images, "(N, H, W, 3)", dimensions=4)
    _at_least("columns", columns, 1)
    _at_least("scale", scale, 1)
    _at_least("gap", gap, 0)
    height, width = (side * scale for side in images.shape[1:3])
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), PAPER)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet.paste(_enlarged(image, scale), (column * (width + gap), row * (height + gap)))
    return sheet


def strips(rows: NDArray[np.uint8], column_titles: Sequence[str], scale: int = 2) -> Image.Image:
    """Rows of images under the titles of their columns: the source, then the result of each edit.

    Args:
        rows: (R, S, H, W, 3) uint8: R sources, S steps of each.
        column_titles: S captions; a caption wider than its column is wrapped at spaces, then set smaller, then cut.
        scale: whole factor of enlargement.

    Returns:
        An RGB picture.

    Raises:
        TypeError: `rows` is not uint8.
        ValueError: `rows` has another shape or is empty, titles and columns differ in number, or `scale` is too small.

    Example:
        >>> strips(np.zeros((2, 3, 64, 64, 3), np.uint8), ["source", "+glasses", "+beard"]).width
        388
    """
    rows = _checked("rows", rows, "(R, S, H, W, 3)", dimensions=5)
    _at_least("scale", scale, 1)
    steps, height, width = rows.shape[1], rows.shape[2] * scale, rows.shape[3] * scale
    if len(column_titles) != steps:
        raise ValueError(
            f"`column_titles` must name the {steps} columns of `rows` {rows.shape}, got {len(column_titles)}: "
            f"{list(column_titles)}; the first column is the source"
        )
    gap = 2
    captions, font = _fitted(column_titles, width)
    line = sum(font.getmetrics())
    head = line * max(len(lines) for lines in captions) + 8 if any(title.strip() for title in column_titles) else 0
    size = (steps * (width + gap) - gap, head + len(rows) * (height + ROW_GAP) - ROW_GAP)
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    for column, lines in enumerate(captions):
        for i, text in enumerate(lines):
            baseline = head - 5 - line * (len(lines) - 1 - i)  # captions stand on the images, however many lines
            draw.text((column * (width + gap) + width / 2, baseline), text, INK, font, anchor="md")
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            picture.paste(_enlarged(image, scale), (column * (width + gap), head + row * (height + ROW_GAP)))
    return picture


def _enlarged(image: NDArray[np.uint8], scale: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.repeat(scale, axis=0).repeat(scale, axis=1)))


def _fitted(titles: Sequence[str], width: int) -> tuple[list[list[str]], ImageFont.FreeTypeFont]:
    """The lines of every title, and one font for all of them in which they are at most `width` pixels wide."""
    for size in FONT_SIZES:
        font = _font(size)
        captions = [_wrapped(title, font, width) for title in titles]
        if all(font.getlength(text) <= width for lines in captions for text in lines):
            break
    return [[_cut(text, font, width) for text in lines] for lines in captions], font


def _wrapped(title: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in title.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which travels with matplotlib: the same letters on every machine."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def _checked(name: str, images: NDArray[np.uint8], shape: str, dimensions: int) -> NDArray[np.uint8]:
    array = np.asarray(images)
    if array.dtype != np.uint8:
        raise TypeError(
            f"`{name}` must be uint8 in 0..255, got {array.dtype}; "
            f"for x in [-1, 1]: ((x + 1) * 127.5).round().clip(0, 255).astype(np.uint8)"
        )
    if array.ndim != dimensions or array.shape[-1] != 3 or array.size == 0:
        hint = "; move the channels to the last axis" if array.ndim == dimensions and array.shape[-3] == 3 else ""
        raise ValueError(f"`{name}` must be {shape} with at least one image, got {array.shape}{hint}")
    return array


def _at_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}")
