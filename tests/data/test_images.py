"""Image folders with attribute tables: kinds read off the cells, labels where known, every mistake named by line."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcg.data.avatars import AvatarSource
from lcg.data.images import SKETCH, Fingerprinted, ImageFolder, provenance_of
from lcg.schema import Attribute, Schema

TABLE = "file, smile,hair,age,celeba\na.png,1,blond,0.25,-1\nsub/b.png,,red,,1\nc.png,0,,1e-3,1\n"


def make(path: Path, table: str = TABLE, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> tuple[Path, Path]:
    (path / "images" / "sub").mkdir(parents=True)
    for i, name in enumerate(("a.png", "sub/b.png", "c.png")):
        Image.new("RGB", size, (i, 10, 20)).convert(mode).save(path / "images" / name)
    (path / "table.csv").write_text(table)
    return path / "images", path / "table.csv"


def test_kinds_and_labels_are_read_off_the_cells(tmp_path: Path) -> None:
    source = ImageFolder(*make(tmp_path))
    assert source.schema == Schema(
        (
            Attribute("smile"),
            Attribute("hair", "categorical", ("blond", "red")),
            Attribute("age", "continuous"),
            Attribute("celeba"),
        )
    )
    images, labels = source.chunk(0, 3)
    nan = math.nan
    expected = np.array([[1, 0, 0.25, 0], [nan, 1, nan, 1], [0, nan, 1e-3, 1]], np.float32)
    assert np.array_equal(labels, expected, equal_nan=True) and labels.dtype == np.float32
    assert len(source) == 3 and source.image_shape == (3, 4, 6)
    assert images.shape == (3, 4, 6, 3) and images.dtype == np.uint8
    assert np.array_equal(images[:, 0, 0], [[0, 10, 20], [1, 10, 20], [2, 10, 20]])


def test_a_chunk_is_a_part_of_the_whole(tmp_path: Path) -> None:
    source = ImageFolder(*make(tmp_path))
    for whole, part in zip(source.chunk(0, 3), source.chunk(1, 3), strict=True):
        assert np.array_equal(whole[1:], part, equal_nan=True)


def test_a_schema_chooses_columns_and_order_of_values(tmp_path: Path) -> None:
    schema = Schema((Attribute("hair", "categorical", ("red", "black", "blond")), Attribute("smile")))
    source = ImageFolder(*make(tmp_path), schema)
    expected = np.array([[2, 1], [0, np.nan], [np.nan, 0]], np.float32)
    assert source.schema == schema and np.array_equal(source.chunk(0, 3)[1], expected, equal_nan=True)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    assert ImageFolder(*make(tmp_path, mode=mode)).chunk(0, 3)[0].shape == (3, 4, 6, 3)


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    root, table = make(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    for name in ("a.png", "sub/b.png", "c.png"):
        Image.new("RGB", (6, 4)).save(root / name, exif=exif)
    assert ImageFolder(root, table).image_shape == (3, 6, 4)


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    root, table = make(tmp_path)
    table.write_bytes(b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode())
    assert len(ImageFolder(root, table)) == 3


def test_a_parquet_table_says_the_same(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root, table = make(tmp_path)
    columns = {"file": ["a.png", "sub/b.png", "c.png"], "smile": [1, None, 0], "hair": ["blond", "red", None]}
    parquet.write_table(arrow.table(columns), tmp_path / "table.parquet")
    source = ImageFolder(root, tmp_path / "table.parquet")
    assert source.schema == Schema((Attribute("smile"), Attribute("hair", "categorical", ("blond", "red"))))
    assert np.array_equal(source.labels, ImageFolder(root, table).labels[:, :2], equal_nan=True)


def test_identity_is_that_of_the_table(tmp_path: Path) -> None:
    root, table = make(tmp_path)
    before = ImageFolder(root, table).identity()
    assert before == ImageFolder(root, table).identity()
    table.write_text(TABLE.replace("0.25", "0.75"))
    assert before != ImageFolder(root, table).identity()


def test_all_labels_are_those_of_the_chunks(tmp_path: Path) -> None:
    source = ImageFolder(*make(tmp_path))
    assert np.array_equal(source.labels, source.chunk(0, 3)[1], equal_nan=True)


def test_fingerprints_are_those_of_the_contents(tmp_path: Path) -> None:
    root, table = make(tmp_path)
    found = ImageFolder(root, table).fingerprints()
    contents = [(root / name).read_bytes() for name in ("a.png", "sub/b.png", "c.png")]
    assert found["files"] == 3 == len(found["smallest"])
    assert found["smallest"] == sorted(hashlib.sha256(content).hexdigest()[:16] for content in contents)
    assert found["sha256"] == hashlib.sha256(b"".join(hashlib.sha256(c).digest() for c in contents)).hexdigest()

    (root / "c.png").rename(root / "d.png")  # another name, the same image
    table.write_text(TABLE.replace("c.png", "d.png"))
    assert ImageFolder(root, table).fingerprints() == found
    Image.new("RGB", (6, 4), (9, 9, 9)).save(root / "d.png")
    source = ImageFolder(root, table)
    assert source.fingerprints()["sha256"] != found["sha256"]
    assert len(set(source.fingerprints()["smallest"]) & set(found["smallest"])) == 2
    (root / "d.png").unlink()
    assert source.fingerprints()["files"] == 3  # they are made once


def test_of_many_files_the_smallest_fingerprints_are_kept(tmp_path: Path) -> None:
    images, rows = tmp_path / "images", ["file,odd"]
    images.mkdir()
    for i in range(SKETCH + 40):
        name = f"{i}.png"
        Image.new("RGB", (1, 1), (i % 256, i // 256, 0)).save(images / name)
        rows.append(f"{name},{i % 2}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    found = ImageFolder(images, tmp_path / "table.csv").fingerprints()
    every = sorted(hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in images.iterdir())
    assert found["files"] == SKETCH + 40 and found["smallest"] == every[:SKETCH]


def test_provenance_keeps_fingerprints_of_what_has_them(tmp_path: Path) -> None:
    folder, avatars = ImageFolder(*make(tmp_path)), AvatarSource("uniform", 4, "provenance")
    assert isinstance(folder, Fingerprinted) and not isinstance(avatars, Fingerprinted)
    assert provenance_of(source=avatars) == {"source": avatars.identity()}
    assert provenance_of(train=folder, val=avatars) == {
        "train": folder.identity(),
        "val": avatars.identity(),
        "fingerprints": {"train": folder.fingerprints()},
    }


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "one of them `file`"),
        ("name,smile\na.png,1\n", "one of them `file`"),
        ("file,smile\n", "has no rows"),
        ("file\na.png\n", "a column per attribute"),
        ("file,smile,smile\na.png,1,1\n", "must be distinct"),
        ("file,smile\na.png\n", "line 2: expected 2 cells, got 1"),
        ("file,smile\na.png,1\n\nc.png,1\n", "line 3: expected 2 cells, got 0"),
        ("file,smile\na.png,1\na.png,0\n", "line 3: 'a.png' is on line 2 already"),
        ("file,smile\n../table.csv,1\n", r"line 2: `file` must be a path below .*got '\.\./table\.csv'"),
        ("file,smile\n/etc/passwd,1\n", "must be a path below"),
        ("file,smile\n,1\n", "must be a path below"),
        ("file,remark\na.png,nice\n", "'remark' has one text only"),
        ("file,big nose\na.png,1\n", "must be an identifier such as 'long_hair', got 'big nose'"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolder(*make(tmp_path, table))


@pytest.mark.parametrize(
    ("attribute", "cell", "message"),
    [
        (Attribute("x"), "2", "line 2: 'x' must be 0 or 1, or empty when it is not known; got '2'"),
        (Attribute("x", "categorical", ("red", "blond")), "Red", "one of red, blond"),
        (Attribute("x", "continuous"), "inf", "a finite number"),
        (Attribute("x", "continuous"), "old", "a finite number"),
        (Attribute("y"), "1", "has no column 'y'; it has: file, x"),
    ],
)
def test_cells_that_are_no_labels_are_refused(tmp_path: Path, attribute: Attribute, cell: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolder(*make(tmp_path, f"file,x\na.png,{cell}\n"), Schema((attribute,)))


def test_missing_files_are_named(tmp_path: Path) -> None:
    root, table = make(tmp_path)
    with pytest.raises(FileNotFoundError, match="`root` must be a folder"):
        ImageFolder(tmp_path / "nowhere", table)
    with pytest.raises(FileNotFoundError, match="no table at"):
        ImageFolder(root, tmp_path / "none.csv")
    (root / "c.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"line 4: no image at .*c\.png"):
        ImageFolder(root, table)


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    root, table = make(tmp_path)
    Image.new("RGB", (5, 4)).save(root / "c.png")
    source = ImageFolder(root, table)
    with pytest.raises(ValueError, match=r"c\.png: it is 4 x 5 \(height x width\), expected 4 x 6"):
        source.chunk(0, 3)


@pytest.mark.parametrize("data", [b"", b"text", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, data: bytes) -> None:
    root, table = make(tmp_path)
    (root / "sub" / "b.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"cannot read 1 of 3 images .*b\.png: "):
        ImageFolder(root, table).chunk(1, 2)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    root, table = make(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(root / "c.png")
    (root / "c.png").write_bytes((root / "c.png").read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"cannot read 1 of 3 images .*c\.png: "):
        ImageFolder(root, table).chunk(2, 3)
