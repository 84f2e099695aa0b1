"""An uploaded file becomes pixels, or a sentence that says what to do.

The file comes from a stranger. Its bytes are counted before anything looks at them, and Pillow decodes only formats
that are named here, only the first picture of a file that has several, and only after the size in its header has been
found small enough: a decompression bomb is refused before it takes memory. What stands beside the pixels (profiles,
comments, compressed text) is left to Pillow's own bounds, and is dropped with the file. Colours and rotation follow the
rules of `lcg.data.framing`; the middle square is scaled to the generator's size.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lcg.app.refusal import Refused
from lcg.data.framing import UNREADABLE, Frame

MAX_BYTES = 8 * 2**20
MAX_PIXELS = 16_000_000
MAX_SIDE = 16_384
MIN_SIDE = 8
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
NAMED = "PNG, JPEG, WebP, BMP or GIF"


def read_upload(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pixels of an image file.

    Args:
        data: the bytes of the file.
        size: height and width wanted; the middle of the image is kept.

    Returns:
        (H, W, 3).

    Raises:
        Refused: the file is too large, no image of a format that is allowed, or damaged.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)) or not len(data):
        raise Refused(f"The file is empty; choose a {NAMED} image.")
    if len(data) > MAX_BYTES:
        raise Refused(
            f"The file has {len(data) / 2**20:.1f} MB, at most {MAX_BYTES // 2**20} MB are taken; save a smaller copy."
        )
    data = bytes(data)
    width, height = _size(data)
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise Refused(
            f"The image has {width} x {height} pixels, at most {MAX_PIXELS // 10**6} million are taken; "
            "save a smaller copy."
        )
    if min(width, height) < MIN_SIDE:
        raise Refused(f"The image has {width} x {height} pixels; choose one of at least {MIN_SIDE} x {MIN_SIDE}.")
    try:
        return Frame(size, "crop").pixels(data)
    except (*UNREADABLE, MemoryError) as error:
        raise Refused("The image is damaged or cut short; save it again, for example as PNG.") from error


def _size(data: bytes) -> tuple[int, int]:
    """Width and height that the header names, of which no pixel is decoded."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            return image.size
    except UnidentifiedImageError as error:
        raise Refused(f"This is no {NAMED} image that can be read; choose another file or save it as PNG.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused("The image has far too many pixels; save a smaller copy.") from error
    except UNREADABLE as error:
        raise Refused("The image is damaged; save it again, for example as PNG.") from error
