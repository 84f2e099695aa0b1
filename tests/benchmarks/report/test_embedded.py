"""Embedded pictures: byte for byte while they are few; smaller, and the same to the eye, where they are many."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image, features

from lcg.benchmarks.report import embedded
from lcg.benchmarks.report.embedded import Layer, doubled_from
from lcg.pictures import contact_sheet, strips


def images(n: int) -> np.ndarray:
    """Smooth pictures (n, 32, 32, 3), as a generator makes them."""
    x, y = np.meshgrid(np.linspace(0, 3, 32), np.linspace(0, 3, 32))
    waves = [[np.sin(x * (i + 1) / n + c) + np.cos(y + c) for c in range(3)] for i in range(n)]
    return ((np.array(waves).transpose(0, 2, 3, 1) + 2) * 63).astype(np.uint8)


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def opened(layer: Layer) -> np.ndarray:
    data = base64.b64decode(layer.uri.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_a_few_pictures_are_embedded_byte_for_byte() -> None:
    file = png(contact_sheet(images(4), 2))
    ((layer,),) = embedded.embedded([file])
    assert layer.uri == f"data:image/png;base64,{base64.b64encode(file).decode()}"
    assert (layer.width, layer.height) == (130, 130)


@pytest.mark.parametrize("rows, head", [(8, 0), (9, 1), (12, 4)])
def test_where_squares_of_two_begin(rows: int, head: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (rows, 8, 3), dtype=np.uint8)
    pixels[head:] = pixels[head::2, ::2].repeat(2, 0).repeat(2, 1)
    assert doubled_from(pixels) == head


def test_pictures_that_are_not_enlarged_have_no_squares() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    assert doubled_from(pixels) == 6 and doubled_from(pixels[:, :7]) == 6 and doubled_from(pixels[:1]) == 1


@pytest.mark.skipif(not features.check("avif"), reason="needs a Pillow with AVIF")
def test_many_pictures_are_smaller_keep_their_size_and_look_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LIMIT", 0)
    faces = images(6)
    sheet, strip = contact_sheet(faces, 3), strips(faces.reshape(2, 3, 32, 32, 3), ["source", "+a", "+b"])
    (whole,), (head, body) = embedded.embedded([png(sheet), png(strip)])
    assert (whole.width, whole.height) == sheet.size
    assert (head.width, body.width, head.height + body.height) == (strip.width, strip.width, strip.height)
    assert (opened(head) == np.asarray(strip)[: head.height]).all()
    for layer, pixels in ((whole, np.asarray(sheet)), (body, np.asarray(strip)[head.height :])):
        error = opened(layer) - pixels[::2, ::2].astype(int)
        assert layer.uri.startswith("data:image/avif;base64,")
        assert 10 * np.log10(255**2 / (error**2).mean()) > 36


@pytest.mark.skipif(not features.check("avif"), reason="needs a Pillow with AVIF")
def test_a_picture_without_squares_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LIMIT", 0)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    ((layer,),) = embedded.embedded([png(Image.fromarray(pixels))])
    assert (opened(layer) == pixels).all()
