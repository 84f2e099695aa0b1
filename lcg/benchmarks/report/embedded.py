"""Pictures as data URIs: byte for byte while they are few, smaller where a page would become too large to send.

Pictures of a generator are enlarged by pixels of 2 x 2, under a line of captions that is not. A page with many is sent
with the captions as they are and with every 2 x 2 once, which loses nothing, in a format made for pictures (AVIF, with
full colour), which loses less than can be seen. The page enlarges them again, pixel for pixel.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

LIMIT = 4_000_000
"""Bytes of all pictures of a page, as files, up to which they are left as they are."""
QUALITY = 85
"""Of 100: 37 to 42 dB on rendered faces, errors that only a difference of the two pictures shows."""


@dataclass(frozen=True)
class Layer:
    """A picture or a horizontal part of it: how it is embedded, and how large it is shown, in pixels."""

    uri: str
    width: int
    height: int


def embedded(files: Sequence[bytes]) -> list[tuple[Layer, ...]]:
    """Every PNG file as the layers that make it up, from top to bottom."""
    smaller = sum(map(len, files)) > LIMIT and features.check("avif")
    return [_small(file) if smaller else (_whole(file),) for file in files]


def _whole(file: bytes) -> Layer:
    with Image.open(io.BytesIO(file), formats=["PNG"]) as image:
        return Layer(_uri("png", file), *image.size)


def _small(file: bytes) -> tuple[Layer, ...]:
    with Image.open(io.BytesIO(file), formats=["PNG"]) as image:
        pixels = np.asarray(image.convert("RGB"))
    head = doubled_from(pixels)
    height, width = pixels.shape[:2]
    parts = []
    if head:
        parts.append(Layer(_uri("png", _saved(pixels[:head], "PNG", optimize=True)), width, head))
    if head < height:
        lossy = _saved(pixels[head::2, ::2], "AVIF", quality=QUALITY, subsampling="4:4:4", speed=7)
        parts.append(Layer(_uri("avif", lossy), width, height - head))
    return tuple(parts)


def doubled_from(pixels: NDArray[np.uint8]) -> int:
    """The first row from which on all pixels (H, W, 3) are squares of 2 x 2; H where there are none."""
    height, width = pixels.shape[:2]
    rows = height // 2
    if width % 2 or not rows:
        return height
    squares = pixels[height - 2 * rows :].reshape(rows, 2, width // 2, 2, -1)
    plain = (squares == squares[:, :1, :, :1]).all(axis=(1, 2, 3, 4))
    return height - 2 * (rows if plain.all() else int(plain[::-1].argmin()))


def _saved(pixels: NDArray[np.uint8], format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format, **options)
    return file.getvalue()


def _uri(format: str, file: bytes) -> str:
    return f"data:image/{format};base64,{base64.b64encode(file).decode()}"
