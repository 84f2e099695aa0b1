"""The layout of Hugging Face: metadata in three formats, in the part's folder or above, or folders of classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcg.data.imagefolder import HuggingFaceFolder
from lcg.data.images import provenance_of
from lcg.schema import Attribute, Schema

ROWS = [
    {"file_name": "a.png", "smile": True, "hair": "blond", "age": 20},
    {"file_name": "sub/b.png", "smile": False, "hair": None, "age": 30.5},
    {"file_name": "c.png", "hair": "red", "age": 40.0},
]
SCHEMA = Schema(
    (Attribute("smile"), Attribute("hair", "categorical", ("blond", "red")), Attribute("age", "continuous"))
)
LABELS = np.array([[1, 0, 20], [0, np.nan, 30.5], [np.nan, 1, 40]], np.float32)


def images(root: Path, names: tuple[str, ...]) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (i, 0, 0)).save(root / name)
    return root


def write(folder: Path, kind: str, prefix: str = "") -> None:
    rows = [{**row, "file_name": prefix + str(row["file_name"])} for row in ROWS]
    path = folder / f"metadata.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
        return
    if kind == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(
            arrow.Table.from_pylist(
                rows,
                arrow.schema(
                    [
                        ("file_name", arrow.string()),
                        ("smile", arrow.bool_()),
                        ("hair", arrow.string()),
                        ("age", arrow.float64()),
                    ]
                ),
            ),
            path,
        )
        return
    cells = [[str("" if row.get(key) is None else row[key]) for key in ("file_name", *SCHEMA.names)] for row in rows]
    path.write_text("\n".join(",".join(line) for line in [["file_name", *SCHEMA.names], *cells]))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_say_the_same_in_all_formats(tmp_path: Path, kind: str) -> None:
    write(images(tmp_path / "train", ("a.png", "sub/b.png", "c.png")), kind)
    source = HuggingFaceFolder(tmp_path, "train")
    assert source.schema == SCHEMA and np.array_equal(source.labels, LABELS, equal_nan=True)
    assert np.array_equal(source.chunk(0, 3)[0][:, 1, 2, 0], [0, 1, 2])
    assert HuggingFaceFolder(tmp_path / "train").identity() == source.identity()


def test_metadata_above_the_parts_are_divided(tmp_path: Path) -> None:
    write(images(tmp_path, ("train/a.png", "train/sub/b.png", "train/c.png", "test/a.png")), "csv", "train/")
    with open(tmp_path / "metadata.csv", "a") as file:
        file.write("\ntest/a.png,1,red,50\n")
    train, test = HuggingFaceFolder(tmp_path, "train"), HuggingFaceFolder(tmp_path, "test")
    assert np.array_equal(train.labels, LABELS, equal_nan=True) and np.array_equal(test.labels, [[1, 1, 50]])
    assert np.array_equal(test.chunk(0, 1)[0][0, 0, 0], [3, 0, 0]) and len(HuggingFaceFolder(tmp_path)) == 4
    assert train.identity()["table_sha256"] != test.identity()["table_sha256"]


def test_folders_are_classes(tmp_path: Path) -> None:
    images(tmp_path / "train", ("cat/1.png", "dog/1.png", "cat/2.png", "dog/deep/3.png"))
    (tmp_path / "train" / "cat" / "readme.txt").write_text("no image")
    source = HuggingFaceFolder(tmp_path, "train")
    assert source.schema == Schema((Attribute("label", "categorical", ("cat", "dog")),))
    assert source.files == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/deep/3.png"]
    assert np.array_equal(source.labels[:, 0], [0, 0, 1, 1])
    assert np.array_equal(source.chunk(0, 4)[0][:, 0, 0, 0], [0, 2, 1, 3])
    other = HuggingFaceFolder(tmp_path, "train", Schema((Attribute("animal", "categorical", ("dog", "cat")),)))
    assert np.array_equal(other.labels[:, 0], [1, 1, 0, 0])
    before = source.identity()
    Image.new("RGB", (3, 2)).save(tmp_path / "train" / "cat" / "4.png")
    assert HuggingFaceFolder(tmp_path, "train").identity() != before
    assert provenance_of(source=source)["fingerprints"]["source"]["files"] == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is no JSON"),
        ("[1]", r"line 1 must be a JSON object, got '\[1\]'"),
        (
            '{"file_name": "a.png", "boxes": [1]}',
            "line 1: 'boxes' must be a number, a text, a boolean, a list of texts or null",
        ),
        ('{"file": "a.png"}', "one of them `file_name`"),
        ('{"file_name": "../a.png", "x": 1}', "line 1: `file_name` must be a path below"),
    ],
)
def test_wrong_metadata_are_refused(tmp_path: Path, line: str, message: str) -> None:
    (images(tmp_path, ("a.png",)) / "metadata.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        HuggingFaceFolder(tmp_path)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`root` must be a folder of images"):
        HuggingFaceFolder(tmp_path, "train")
    with pytest.raises(ValueError, match=r"has neither metadata \(metadata\.csv, .*\) nor two folders of classes"):
        HuggingFaceFolder(images(tmp_path, ("one/a.png",)))
    images(tmp_path, ("two/a.png",))
    with pytest.raises(ValueError, match="`schema` of folders of classes must be one categorical attribute"):
        HuggingFaceFolder(tmp_path, schema=Schema((Attribute("one"),)))
    with pytest.raises(ValueError, match="unknown value of 'label' 'two'"):
        HuggingFaceFolder(tmp_path, schema=Schema((Attribute("label", "categorical", ("one", "tow")),)))
