"""Sheets and strips: every pixel where it belongs, captions that can be read, mistakes refused with advice."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lcg.pictures import INK, PAPER, contact_sheet, strips


def flat(*shape: int) -> NDArray[np.uint8]:
    """Images (*shape, 4, 6, 3), each of one grey value that counts up from 1."""
    values = np.arange(1, np.prod(shape) + 1, dtype=np.uint8).reshape(*shape, 1, 1, 1)
    return np.broadcast_to(values, (*shape, 4, 6, 3)).copy()


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*shape, 4, 6, 3), dtype=np.uint8)


def ink_columns(picture: Image.Image, head: int) -> NDArray[np.int64]:
    """Columns in which the caption has ink."""
    return np.flatnonzero((np.asarray(picture)[:head] < 128).all(-1).any(0))


def test_sheet_holds_every_image_in_reading_order_with_gaps_of_paper() -> None:
    sheet = np.asarray(contact_sheet(flat(5), columns=2, scale=3, gap=1))
    assert sheet.shape == (3 * 12 + 2, 2 * 18 + 1, 3)
    for i in range(5):
        row, column = divmod(i, 2)
        assert (sheet[row * 13 : row * 13 + 12, column * 19 : column * 19 + 18] == i + 1).all()
    assert (sheet[12] == PAPER).all() and (sheet[:, 18] == PAPER).all()
    assert (sheet[26:, 19:] == PAPER).all()  # the place of the sixth image


def test_enlargement_repeats_pixels_and_invents_none() -> None:
    image = noise(1)
    sheet = np.asarray(contact_sheet(image, columns=1, scale=3))
    assert np.array_equal(sheet[1::3, 1::3], image[0])
    assert np.array_equal(sheet, image[0].repeat(3, 0).repeat(3, 1))


def test_sheet_is_no_wider_than_its_images() -> None:
    assert contact_sheet(flat(2), columns=8, scale=1, gap=0).size == (12, 4)


def test_strips_hold_every_image_under_a_head() -> None:
    rows = noise(3, 2)
    picture = np.asarray(strips(rows, ["a", "b"], scale=2))
    head = picture.shape[0] - (3 * (8 + 6) - 6)
    assert head > 0 and picture.shape[1] == 2 * 12 + 2
    for r in range(3):
        for s in range(2):
            found = picture[head + r * 14 : head + r * 14 + 8, s * 14 : s * 14 + 12]
            assert np.array_equal(found, rows[r, s].repeat(2, 0).repeat(2, 1))


def test_each_caption_stands_in_the_middle_of_its_column() -> None:
    white = np.full((1, 3, 64, 64, 3), 255, np.uint8)
    for column in range(3):
        titles = ["", "", ""]
        titles[column] = "+glasses"
        picture = strips(white, titles)
        columns = ink_columns(picture, picture.height)
        centre = (columns[0] + columns[-1]) / 2
        assert abs(centre - (column * 130 + 64)) <= 2
        assert (np.asarray(picture) == INK).all(-1).any()  # full ink, no grey haze


@pytest.mark.parametrize("title", ["~(hair=blond | hair=red) & glasses & ~beard", "a" * 40, "very_long_attribute_name"])
def test_long_captions_stay_in_their_column(title: str) -> None:
    white = np.full((1, 2, 64, 64, 3), 255, np.uint8)
    picture = strips(white, [title, ""])
    columns = ink_columns(picture, picture.height)
    assert len(columns) and columns[-1] < 128


def test_captions_wrap_at_spaces_and_need_more_room_then() -> None:
    white = np.full((1, 1, 64, 64, 3), 255, np.uint8)
    assert strips(white, ["one two three four five six"]).height > strips(white, ["one"]).height
    assert strips(white, [""]).height == 128  # no caption, no room for one


def test_pictures_are_rgb_and_do_not_touch_their_input() -> None:
    rows = noise(2, 2)
    before = rows.copy()
    assert contact_sheet(rows[0], 2).mode == strips(rows, ["a", "b"]).mode == "RGB"
    assert np.array_equal(rows, before)


def test_floats_are_refused_with_the_conversion() -> None:
    with pytest.raises(TypeError, match=r"`images` must be uint8 .* got float32.*127\.5"):
        contact_sheet(np.zeros((1, 4, 4, 3), np.float32), 1)
    with pytest.raises(TypeError, match=r"`rows` must be uint8"):
        strips(np.zeros((1, 1, 4, 4, 3)), ["a"])


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`images` must be \(N, H, W, 3\).*got \(2, 3, 4, 6\); move the channels"):
        contact_sheet(np.zeros((2, 3, 4, 6), np.uint8), 1)
    with pytest.raises(ValueError, match=r"`images` must be .* at least one image, got \(0, 4, 4, 3\)"):
        contact_sheet(np.zeros((0, 4, 4, 3), np.uint8), 1)
    with pytest.raises(ValueError, match=r"`rows` must be \(R, S, H, W, 3\)"):
        strips(noise(2), ["a"])


def test_titles_must_match_columns() -> None:
    with pytest.raises(ValueError, match=r"`column_titles` must name the 3 columns .* got 2: \['a', 'b'\]"):
        strips(noise(1, 3), ["a", "b"])


@pytest.mark.parametrize(("name", "value"), [("columns", 0), ("scale", 0), ("scale", 1.5), ("gap", -1)])
def test_numbers_below_their_least_are_refused(name: str, value: float) -> None:
    arguments = {"columns": 2, "scale": 2, "gap": 2, name: value}
    with pytest.raises(ValueError, match=rf"`{name}` must be a whole number of at least \d, got {value}"):
        contact_sheet(noise(2), **arguments)
    if name == "scale":
        with pytest.raises(ValueError, match="`scale` must be"):
            strips(noise(1, 1), ["a"], scale=value)
