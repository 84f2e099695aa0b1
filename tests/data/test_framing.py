"""Colours, orientation and size of images: constants stay constant, and what needs no scaling is not touched."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lcg.data.framing import Frame, decoded, fitted

NOISE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def test_a_file_without_loss_is_read_to_the_bit() -> None:
    for kind in ("PNG", "BMP", "TIFF"):
        assert np.array_equal(Frame().pixels(saved(Image.fromarray(NOISE), kind)), NOISE)


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("L", (4, 3), 77), (77, 77, 77)),
        (Image.new("1", (4, 3), 1), (255, 255, 255)),
        (Image.new("P", (4, 3), 0), (0, 0, 0)),
        (Image.new("RGBA", (4, 3), (10, 20, 30, 255)), (10, 20, 30)),
        (Image.new("RGBA", (4, 3), (10, 20, 30, 0)), (255, 255, 255)),
        (Image.new("LA", (4, 3), (0, 51)), (204, 204, 204)),
        (Image.fromarray(np.full((3, 4), 65535, np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((3, 4), 257 * 9 + 128, np.uint16)), (9, 9, 9)),
        (Image.fromarray(np.full((3, 4), 257 * 9 + 129, np.uint16)), (10, 10, 10)),
    ],
)
def test_colours_become_three_channels_of_eight_bits(image: Image.Image, colour: tuple[int, int, int]) -> None:
    assert (Frame().pixels(saved(image)) == colour).all()


def test_cmyk_and_an_invisible_colour_of_a_palette_are_converted() -> None:
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(Frame().pixels(saved(ink, "JPEG", quality=95)).astype(int) - (255, 0, 0)).max() <= 2
    clear = Image.new("RGB", (4, 3), (1, 2, 3))
    assert (Frame().pixels(saved(clear, transparency=(1, 2, 3))) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_all_orientations_are_turned_upright(kind: str) -> None:
    halves = np.zeros((16, 32, 3), np.uint8)
    halves[:, :16] = 255
    turned = {3: np.rot90(halves, 2), 6: np.rot90(halves, -1), 8: np.rot90(halves), 2: halves[:, ::-1]}
    for orientation, expected in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = Frame().pixels(saved(Image.fromarray(halves), kind, exif=exif))
        assert pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected).max() < 10


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("size", [(12, 16), (3, 4), (5, 5), (40, 20), (1, 1)])
def test_a_constant_image_stays_constant(fit: Any, size: tuple[int, int]) -> None:
    out = np.asarray(fitted(Image.new("RGB", (16, 12), (9, 200, 90)), size, fit))
    assert out.shape == (*size, 3)
    if fit == "pad":  # or black, around it
        inside = (out == (9, 200, 90)).all(-1)
        assert inside.any() and (out[~inside] == 0).all()
    else:
        assert (out == (9, 200, 90)).all()


def test_an_image_of_the_size_is_not_touched() -> None:
    for fit in ("exact", "crop", "stretch", "pad"):
        assert np.array_equal(np.asarray(fitted(Image.fromarray(NOISE), (12, 16), fit)), NOISE)


def test_a_crop_without_scaling_is_the_middle_to_the_bit() -> None:
    assert np.array_equal(np.asarray(fitted(Image.fromarray(NOISE), (12, 11), "crop")), NOISE[:, 2:13])
    assert np.array_equal(np.asarray(fitted(Image.fromarray(NOISE), (7, 16), "crop")), NOISE[2:9])


def test_padding_without_scaling_keeps_every_pixel() -> None:
    out = np.asarray(fitted(Image.fromarray(NOISE), (20, 16), "pad"))
    assert np.array_equal(out[4:16], NOISE) and not out[:4].any() and not out[16:].any()


def test_proportions_are_kept_by_crop_and_pad_and_not_by_stretch() -> None:
    """A white square of 1/4 of the height in the middle of a wide image."""
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[24:40, 56:72] = 255
    sides = {}
    for fit in ("crop", "pad", "stretch"):
        inside = np.asarray(fitted(Image.fromarray(wide), (32, 32), fit))[..., 0] > 127
        sides[fit] = (int(inside.any(1).sum()), int(inside.any(0).sum()))
    assert sides == {"crop": (8, 8), "pad": (4, 4), "stretch": (8, 4)}


def test_shrinking_does_not_alias() -> None:
    """Stripes finer than a pixel become grey; nearest neighbours would keep them."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    out = np.asarray(fitted(Image.fromarray(stripes), (8, 8), "crop")).astype(int)
    assert np.abs(out[:, 1:-1] - 127).max() <= 4


def test_a_box_is_taken_before_the_size() -> None:
    data = saved(Image.fromarray(NOISE))
    assert np.array_equal(Frame(box=(3, 2, 9, 8), source=(12, 16)).pixels(data), NOISE[2:8, 3:9])
    with pytest.raises(ValueError, match=r"it is 12 x 16 \(height x width\), expected 16 x 12"):
        Frame(box=(3, 2, 9, 8), source=(16, 12)).pixels(data)
    with pytest.raises(ValueError, match=r"it is 12 x 16 \(height x width\), expected 4 x 4"):
        Frame(size=(4, 4)).pixels(data)


def test_what_has_no_agreed_range_is_refused() -> None:
    for image in (Image.fromarray(np.ones((3, 4), np.float32)), Image.fromarray(np.ones((3, 4), np.int32))):
        with pytest.raises(ValueError, match="numbers of 32 bits"):
            decoded(saved(image, "TIFF"))


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.new("1", (3000, 1000)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(ValueError, match="could be decompression bomb DOS attack"):
        decoded(data)
    assert Frame().suspects(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_short_look_suspects_what_is_broken(kind: str) -> None:
    data, frame = saved(Image.fromarray(np.repeat(np.repeat(NOISE, 4, 0), 4, 1)), kind), Frame(size=(48, 64))
    assert frame.pixels(data).shape == (48, 64, 3)
    assert not frame.suspects(data) or kind in ("WEBP", "TIFF")
    for broken in (data[: len(data) // 2], b"", b"text"):
        assert frame.suspects(broken)
        with pytest.raises(ValueError, match=r"no image of a format|truncated|broken|read|decod"):
            frame.pixels(broken)
    if kind == "PNG":  # a checksum is wrong
        assert frame.suspects(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    assert Frame(size=(64, 48)).suspects(data)


def test_a_short_look_knows_how_the_camera_was_held() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(NOISE), "JPEG", exif=exif)
    assert not Frame(size=(16, 12)).suspects(data) and Frame(size=(12, 16)).suspects(data)
