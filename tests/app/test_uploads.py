"""Uploads become pixels or one sentence; nothing is decoded before it is found small enough."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lcg.app.refusal import Refused
from lcg.app.uploads import FORMATS, MAX_BYTES, read_upload

SIZE = (64, 64)


def picture(height: int = 64, width: int = 64) -> np.ndarray:
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    return ramp.astype(np.uint8)


def saved(image: Image.Image | np.ndarray, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG of any size that its header claims, 8 bits of grey."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_that_is_named_is_read(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    pixels = read_upload(saved(picture(), format, **options), SIZE)
    assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - picture()).mean() < (8 if format in ("JPEG", "GIF") else 1e-9)


@pytest.mark.parametrize("format", ["TIFF", "PPM", "ICO", "TGA", "PDF", "EPS"])
def test_other_formats_are_refused(format: str) -> None:
    with pytest.raises(Refused, match="This is no PNG, JPEG, WebP, BMP or GIF image that can be read; choose another"):
        read_upload(saved(picture(), format), SIZE)


def test_the_middle_is_kept_at_the_size_of_the_generator() -> None:
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, 64:128] = picture()
    assert np.array_equal(read_upload(saved(wide), SIZE), picture())
    assert read_upload(saved(picture(300, 200)), SIZE).shape == (64, 64, 3)


def test_the_camera_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.rot90(picture()).copy())
    assert np.array_equal(read_upload(saved(turned, "PNG", exif=exif), SIZE), picture())


def test_what_is_transparent_lies_on_white() -> None:
    clear = np.zeros((64, 64, 4), np.uint8)
    assert (read_upload(saved(clear), SIZE) == 255).all()


def test_the_first_picture_of_several_is_taken() -> None:
    frames = [Image.fromarray(np.full((64, 64, 3), value, np.uint8)) for value in (40, 200)]
    for format in ("GIF", "WEBP", "PNG"):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:], duration=100)
        assert abs(float(read_upload(data, SIZE).mean()) - 40) < 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "The file is empty; choose a PNG"),
        ("text", "The file is empty; choose a PNG"),
        (b"hello, this is no image", "This is no PNG, JPEG"),
        (b"\x89PNG\r\n\x1a\n", "damaged|no PNG"),
        (saved(picture())[:200], "damaged or cut short; save it again|damaged; save"),
        (saved(picture(), "JPEG")[:400], "The image is damaged"),
        (saved(picture(4, 100)), "100 x 4 pixels; choose one of at least 8 x 8"),
        (b"\0" * (MAX_BYTES + 1), "The file has 8.0 MB, at most 8 MB are taken"),
        (png(5000, 5000, b""), "5000 x 5000 pixels, at most 16 million are taken; save a smaller copy"),
        (png(100_000, 10, b""), "100000 x 10 pixels, at most 16 million"),
        (png(100_000, 100_000, b""), "far too many pixels; save a smaller copy"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_sentence(data: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message) as caught:
        read_upload(data, SIZE)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_bomb_takes_no_memory() -> None:
    squeezed = zlib.compress(b"\0" * 20_001 * 2000, 9)  # of what would be 20,000 x 20,000
    tracemalloc.start()
    with pytest.raises(Refused):
        read_upload(png(20_000, 20_000, squeezed), SIZE)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_compressed_text_beside_the_pixels_is_bounded() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 50_000_000, zip=True)
    data = saved(picture(), "PNG", pnginfo=info)
    assert len(data) < 100_000
    tracemalloc.start()
    with pytest.raises(Refused, match="damaged"):
        read_upload(data, SIZE)
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()
