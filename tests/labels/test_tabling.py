"""Labels into tables of image files, which `ImageFolder` reads."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcg.data.images import ImageFolder, provenance_of
from lcg.data.labelled import labelled_beside
from lcg.labels.storing import labelled
from lcg.labels.tabling import UnlabelledFolder, label_files, labels_aside, spelled, write_table
from lcg.schema import Attribute, Schema
from tests.labels.world import Red

SCHEMA = Schema(
    (Attribute("red"), Attribute("hair", "categorical", ("blond, dyed", "black")), Attribute("age", "continuous"))
)
LABELS = np.array([[1, 0, 0.1], [0, np.nan, 1e-7], [np.nan, 1, 40]], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for i in range(10):
        file = path / ("deep" if i % 2 else ".") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        flat = np.broadcast_to(generator.integers(0, 256, 3).astype(np.uint8), (8, 8, 3))
        Image.fromarray(np.ascontiguousarray(flat)).save(file)
    (path / "notes.txt").write_text("no image")
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "deep/t.csv"])
def test_a_table_reads_back_as_it_was_written(folder, tmp_path, name) -> None:
    files = ["0.png", "deep/1.png", "2.png"]
    write_table(str(tmp_path / name), files, SCHEMA, LABELS, labelled([], Red()))
    found = ImageFolder(folder, tmp_path / name, SCHEMA)
    assert found.files == files
    np.testing.assert_array_equal(found.labels, LABELS)


def test_a_table_that_was_labelled_says_by_whom_wherever_it_goes(folder, tmp_path) -> None:
    table = tmp_path / "t.csv"
    write_table(str(table), ["0.png"], SCHEMA, LABELS[:1], labelled([], Red()))
    assert ImageFolder(folder, table, Schema(SCHEMA.attributes[1:])).labelled == []  # Red gave none of these
    write_table(str(table), ["0.png"], Red.schema, np.zeros((1, 2), np.float32), labelled([], Red()))
    (entry,) = provenance_of(source=ImageFolder(folder, table, Red.schema))["labelled"]
    assert entry == {"labeller": Red().identity(), "attributes": list(Red.schema.names), "trained_on": {}}
    labelled_beside(table).write_text('{"Red": 1}')
    with pytest.raises(ValueError, match=r"must say which labellers the labels of t\.csv are from"):
        ImageFolder(folder, table, Red.schema)


def test_labels_are_spelled_as_tables_have_them() -> None:
    assert [spelled(a, np.float32(1)) for a in SCHEMA] == ["1", "black", "1.0"]
    assert spelled(SCHEMA["age"], np.float32(0.1)) == "0.1" and spelled(SCHEMA["age"], np.float32(np.nan)) == ""


def test_all_images_below_a_folder_are_found(folder) -> None:
    source = UnlabelledFolder(str(folder))
    assert source.files == ["0.png", "2.png", "4.png", "6.png", "8.png", *(f"deep/{i}.png" for i in (1, 3, 5, 7, 9))]
    assert source.schema.names == () and source.chunk(0, 2)[1].shape == (2, 0)
    before = source.identity()
    (folder / "9.png").write_bytes((folder / "0.png").read_bytes())
    assert UnlabelledFolder(str(folder)).identity() != before


class Tired(Red):
    """Stops after so many images."""

    def label(self, images):
        if (self.patience or 0) < len(images):
            raise KeyboardInterrupt
        self.patience = (self.patience or 0) - len(images)
        return Red().label(images)


def test_what_was_stopped_goes_on(folder, tmp_path) -> None:
    source, out = UnlabelledFolder(str(folder)), str(tmp_path / "t.csv")
    with pytest.raises(KeyboardInterrupt):
        label_files(source, Tired(7), out, batch_size=3, progress=False)
    with open(labels_aside(out), "ab") as file:
        file.write(b"\0\0\0")  # of a row that was not written whole
    labels = label_files(source, Tired(4), out, batch_size=3, progress=False)  # six are there already
    np.testing.assert_array_equal(labels, Red().label(source.chunk(0, 10)[0]))
    write_table(out, source.files, Red.schema, labels, [])
    assert not labels_aside(out).exists()


def test_labels_of_others_are_not_gone_on_with(folder, tmp_path) -> None:
    class Blue(Red):
        def label(self, images):
            return 0 * super().label(images)

        def identity(self):
            return {"class": "Blue"}

    source, out = UnlabelledFolder(str(folder)), str(tmp_path / "t.csv")
    label_files(source, Red(), out, progress=False)
    assert np.nanmax(label_files(source, Blue(), out, progress=False)) == 0


def test_no_images_are_refused(folder, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty has no images \(files that end in .png, "):
        UnlabelledFolder(str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match=r"`root` must be a folder of images, got .*none, which is none"):
        UnlabelledFolder(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="`batch_size` must be >= 1, got 0"):
        label_files(UnlabelledFolder(str(folder)), Red(), str(tmp_path / "t.csv"), 0)


def test_parquet_without_pyarrow_is_refused(tmp_path, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"t.parquet needs pyarrow: pip install 'lcg\[parquet\]', or name it .csv"):
        write_table(str(tmp_path / "t.parquet"), ["a"], SCHEMA, LABELS[:1], [])
