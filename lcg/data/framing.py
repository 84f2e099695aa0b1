"""From the bytes of an image file to pixels of one size, by rules that are the same for every format.

    colours    three channels of 8 bits. Grey becomes three equal channels; what is transparent lies on white; 16 bits
               become 8 by v / 257, rounded; CMYK is converted without a profile, and profiles of colour are ignored.
               Numbers of 32 bits have no agreed range and are refused.
    upright    EXIF says how the camera was held, and the image is turned so.
    exact      the image has the wanted size, and any other is refused.
    crop       scaled until it covers the wanted size, the middle is kept.
    pad        scaled until it fits into the wanted size, the rest is black.
    stretch    scaled to the wanted size, whatever becomes of its proportions.

Scaling is Pillow's Lanczos filter, widened when an image shrinks, so that nothing aliases.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lcg.data.alignment import cut

Fit = Literal["exact", "crop", "pad", "stretch"]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""What Pillow raises for files that are broken, cut short, or too large to be meant well."""
ORIENTED = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})
"""Where PNG and JPEG keep how the camera was held."""
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""
END_OF_JPEG = b"\xff\xd9"


@dataclass(frozen=True)
class Frame:
    """What is taken of an image.

    Args:
        size: height and width of what comes out; None for those of the image.
        fit: how it is brought to that size.
        box: taken of the upright image before that; None for all of it.
        source: height and width that the upright image must have; None for any.
    """

    size: tuple[int, int] | None = None
    fit: Fit = "exact"
    box: Box | None = None
    source: tuple[int, int] | None = None

    def pixels(self, data: bytes, square: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
        """The pixels (H, W, 3) of an image file.

        Args:
            data: the bytes of the file.
            square: (4,) the part that is taken instead, see `lcg.data.alignment`; needs a square `size`.

        Raises:
            ValueError: they are no image that can be read, or one of a size that is refused.
        """
        image = decoded(data)
        if self.source is not None:
            _expect(image, self.source)
        if square is not None and self.size is not None:
            return cut(image, square, self.size[0])
        if self.box is not None:
            image = image.crop(self.box)
        return np.asarray(image if self.size is None else fitted(image, self.size, self.fit))

    def suspects(self, data: bytes) -> bool:
        """Whether a short look finds that `pixels` may refuse; False says that it will hardly.

        What is looked at: the header, the checksums of a PNG, the end of a JPEG. Other formats are always suspected.
        """
        expected = self.source or (self.size if self.fit == "exact" and self.box is None else None)
        try:
            with Image.open(BytesIO(data)) as image:
                height, width = image.height, image.width
                if image.format == "PNG" and not ORIENTED & image.info.keys():
                    image.verify()
                elif image.format == "JPEG" and END_OF_JPEG in data:
                    if "exif" in image.info and image.getexif().get(0x0112) in SIDEWAYS:
                        height, width = width, height
                else:
                    return True
        except UNREADABLE:
            return True
        return expected is not None and (height, width) != expected


def decoded(data: bytes) -> Image.Image:
    """An image file as an upright RGB image.

    Raises:
        ValueError: it cannot be read; the message says why, in the words of Pillow.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            plain = image.format in ("PNG", "JPEG") and not ORIENTED & image.info.keys()
            return rgb(image if plain else ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise ValueError("it is no image of a format that Pillow knows") from error
    except UNREADABLE as error:
        raise ValueError(str(error) or type(error).__name__) from error


def rgb(image: Image.Image) -> Image.Image:
    """The colours of an image in three channels of 8 bits, see the module.

    Raises:
        ValueError: they are numbers of 32 bits, or cannot be converted.
    """
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.float32) / 257).round().astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are numbers of 32 bits, whose range nobody knows; save it with 8 or 16 bits")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def fitted(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    """An image at another size, see the module.

    Args:
        image: RGB.
        size: wanted height and width.
        fit: how.

    Raises:
        ValueError: it has another size, and `fit` is exact.
    """
    height, width = size
    if fit == "exact":
        _expect(image, size)
    if image.size == (width, height):
        return image
    if fit == "stretch":
        return image.resize((width, height), Image.Resampling.LANCZOS)
    ratios = image.width / width, image.height / height
    if fit == "crop":
        taken = min(ratios) * width, min(ratios) * height
        left, top = (image.width - taken[0]) // 2, (image.height - taken[1]) // 2  # whole pixels: nothing is blurred
        box = left, top, min(left + taken[0], image.width), min(top + taken[1], image.height)
        return image.resize((width, height), Image.Resampling.LANCZOS, box)
    inner = max(1, round(image.width / max(ratios))), max(1, round(image.height / max(ratios)))
    canvas = Image.new("RGB", (width, height))
    canvas.paste(image.resize(inner, Image.Resampling.LANCZOS), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


def _expect(image: Image.Image, size: tuple[int, int]) -> None:
    if (image.height, image.width) != size:
        raise ValueError(f"it is {image.height} x {image.width} (height x width), expected {size[0]} x {size[1]}")
