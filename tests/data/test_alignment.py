"""Alignment by landmarks: the identity and quarter turns are exact, and any turned face comes back upright."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lcg.data.alignment import FIVE, cut, read_squares, square_of
from lcg.data.images import ImageFolder
from lcg.data.reading import Reading

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
# Eyes 16 pixels apart, a mouth 16 below: half a side is 2 * 16, and the centre 1.6 below the eyes, at (31.5, 31.5).
UPRIGHT = np.array([[23.5, 29.9], [39.5, 29.9], [31.5, 38.0], [25.5, 45.9], [37.5, 45.9]])


def turned(points: NDArray[np.float64], quarters: int) -> NDArray[np.float64]:
    """Where points of an image of 64 x 64 are after np.rot90(image, quarters)."""
    for _ in range(quarters):
        points = np.stack([points[:, 1], 63 - points[:, 0]], 1)
    return points


def test_known_landmarks_give_the_identity() -> None:
    square = square_of(UPRIGHT)
    assert np.abs(square - [31.5, 31.5, 32, 0]).max() < 1e-9
    assert np.array_equal(cut(Image.fromarray(NOISE), square, 64), NOISE)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_undone_exactly(quarters: int) -> None:
    image = Image.fromarray(np.ascontiguousarray(np.rot90(NOISE, quarters)))
    assert np.array_equal(cut(image, square_of(turned(UPRIGHT, quarters)), 64), NOISE)


def test_half_the_size_is_the_mean_of_pixels() -> None:
    expected = NOISE.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(cut(Image.fromarray(NOISE), square_of(UPRIGHT), 32) - expected).max() <= 0.5 + 1e-9


def test_the_recipe_is_that_of_ffhq() -> None:
    """The corners that its own code computes, written out once more with its operations."""
    rng = np.random.default_rng(1)
    points = rng.normal(0, 100, (68, 2)) + np.array([500, 400])
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    to_mouth = (points[48] + points[54]) / 2 - (left + right) / 2
    x = (right - left) - np.flipud(to_mouth) * [-1, 1]
    x *= max(np.hypot(*(right - left)) * 2.0, np.hypot(*to_mouth) * 1.8) / np.hypot(*x)
    square = square_of(points)
    assert np.abs(square[:2] - ((left + right) / 2 + to_mouth * 0.1)).max() < 1e-9
    assert np.abs(square[2:] - x).max() < 1e-9


def test_a_similarity_of_the_landmarks_is_that_of_the_square() -> None:
    angle, scale, shift = 0.7, 2.5, np.array([100.0, 40.0])
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    square, moved = square_of(UPRIGHT), square_of(UPRIGHT @ matrix.T + shift)
    assert np.abs(moved[:2] - (matrix @ square[:2] + shift)).max() < 1e-9
    assert np.abs(moved[2:] - matrix @ square[2:]).max() < 1e-9


def test_a_tilted_face_comes_back_upright() -> None:
    """A smooth image is turned by any angle with its landmarks, and aligned: it is the image again, up to sampling."""
    y, x = np.mgrid[:128, :128] / 128
    smooth = np.stack([127 + 100 * np.sin(4 * x + y), 127 + 100 * np.cos(5 * y), 255 * x * y], -1).astype(np.uint8)
    face, angle = UPRIGHT + 32, 0.4
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    tilted = Image.fromarray(smooth).rotate(-np.degrees(angle), Image.Resampling.BICUBIC)  # about (63.5, 63.5)
    found = cut(tilted, square_of((face - 63.5) @ matrix.T + 63.5), 64)
    assert np.abs(found[8:-8, 8:-8].astype(int) - smooth[40:88, 40:88]).max() <= 4


def test_beyond_the_edge_the_image_is_mirrored() -> None:
    square = square_of(UPRIGHT - [10, 0])  # ten columns to the left of the image
    out = cut(Image.fromarray(NOISE), square, 64)
    assert np.array_equal(out[:, 10:], NOISE[:, :-10]) and np.array_equal(out[:, :10], NOISE[:, 9::-1])
    constant = Image.new("RGB", (64, 64), (3, 2, 1))
    assert (cut(constant, square_of(UPRIGHT * 2.7 - 60), 32) == (3, 2, 1)).all()


def test_landmarks_of_another_image_are_refused() -> None:
    for points in (UPRIGHT + 500, UPRIGHT * 20):
        with pytest.raises(ValueError, match=r"its landmarks ask for a square of .* pixels at .*image is 64 x 64"):
            cut(Image.fromarray(NOISE), square_of(points), 64)
    with pytest.raises(ValueError, match="`landmarks` must be 5 or 68 points, got 7"):
        square_of(np.zeros((7, 2)))


def folder(path: Path, landmarks: str) -> tuple[Path, Path]:
    for name, quarters in (("a.png", 0), ("b.png", 1), ("c.png", 2)):
        Image.fromarray(np.ascontiguousarray(np.rot90(NOISE, quarters))).save(path / name)
    (path / "table.csv").write_text("file,odd\na.png,0\nb.png,1\nc.png,0\n")
    (path / "landmarks.csv").write_text(landmarks)
    return path, path / "table.csv"


def rows(names: str = "abc") -> str:
    lines = [f"file,{','.join(FIVE)}"]
    for quarters, name in enumerate(names):
        lines.append(f"{name}.png," + ",".join(map(str, turned(UPRIGHT, quarters).ravel())))
    return "\n".join(lines)


def test_a_folder_is_aligned_by_a_table(tmp_path: Path) -> None:
    root, table = folder(tmp_path, rows())
    source = ImageFolder(root, table, reading=Reading(64, landmarks=str(tmp_path / "landmarks.csv")))
    assert all(np.array_equal(image, NOISE) for image in source.chunk(0, 3)[0])
    assert source.identity() != ImageFolder(root, table).identity() and source.fingerprints()["files"] == 3


def test_celebas_list_and_68_points_are_read(tmp_path: Path) -> None:
    head = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    (tmp_path / "list.txt").write_text(f"1\n{head}\n000001.jpg 69 109 106 113 77 142 73 152 108 154\n")
    (square,) = read_squares(tmp_path / "list.txt", ["000001.jpg"], tmp_path)
    assert (
        np.abs(square - square_of(np.array([[69, 109], [106, 113], [77, 142], [73, 152], [108, 154.0]]))).max() < 1e-9
    )
    points = np.random.default_rng(0).normal(size=(68, 2))
    names = ",".join(f"{axis}_{i}" for axis in "xy" for i in range(68))  # as OpenFace orders them
    (tmp_path / "p.csv").write_text(f"file,{names}\nb,{','.join(map(str, points.T.ravel()))}\n")
    assert np.abs(read_squares(tmp_path / "p.csv", ["a", "b"], tmp_path)[1] - square_of(points)).max() < 1e-9


def test_an_image_without_landmarks_is_refused_or_skipped(tmp_path: Path) -> None:
    root, table = folder(tmp_path, rows("ab") + "\nc.png" + "," * 10)
    how = {"size": 64, "landmarks": str(tmp_path / "landmarks.csv")}
    with pytest.raises(ValueError, match=r"cannot read 1 of 3 images .*: c\.png: there are no landmarks of it"):
        ImageFolder(root, table, reading=Reading(**how)).fingerprints()
    source = ImageFolder(root, table, reading=Reading(**how, broken="skip"))
    assert source.files == ["a.png", "b.png"] and (source.chunk(0, 2)[0] == NOISE).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,x\na.png,1\n", "landmarks need the columns `file` and lefteye_x"),
        (rows("xyz"), r"has landmarks of no image below .*, such as a\.png"),
        (rows().replace("23.5", "left"), "line 2: 'lefteye_x' must be a number of pixels, got 'left'"),
    ],
)
def test_a_wrong_table_of_landmarks_is_refused(tmp_path: Path, text: str, message: str) -> None:
    root, table = folder(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        ImageFolder(root, table, reading=Reading(64, landmarks=str(tmp_path / "landmarks.csv")))
