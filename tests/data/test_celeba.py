"""CelebA and CelebAMask-HQ in small: names, labels, parts, crops and the lists' mistakes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcg.data.celeba import CelebA, CelebAMaskHQ
from lcg.data.images import ImageFolder, provenance_of
from lcg.data.reading import Reading
from lcg.schema import Attribute, Schema

NAMES = ("five_o_clock_shadow", "smiling", "wearing_hat")
ATTRIBUTES = """4
5_o_Clock_Shadow Smiling Wearing_Hat
000001.png -1  1 -1
000002.png  1 -1 -1
000003.png -1 -1  1
000004.png  1  1  1
"""
PARTITION = "000001.png 0\n000002.png 1\n000003.png 2\n000004.png 0\n"
KAGGLE = "image_id,5_o_Clock_Shadow,Smiling,Wearing_Hat\n" + "".join(
    ",".join(line.split()) + "\n" for line in ATTRIBUTES.splitlines()[2:]
)


def pattern(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (218, 178, 3), np.uint8)


def celeba(root: Path, attributes: str = ATTRIBUTES, images: str = "img_align_celeba") -> Path:
    """PNG rather than JPEG, so that pixels can be compared."""
    (root / images).mkdir(parents=True)
    for i in range(1, 5):
        Image.fromarray(pattern(i)).save(root / images / f"00000{i}.png", compress_level=1)
    (root / "list_attr_celeba.txt").write_text(attributes)
    (root / "list_eval_partition.txt").write_text(PARTITION)
    return root


def test_labels_names_and_parts(tmp_path: Path) -> None:
    celeba(tmp_path)
    source = CelebA(tmp_path)
    assert source.schema == Schema(tuple(map(Attribute, NAMES))) and source.files == ["000001.png", "000004.png"]
    assert np.array_equal(source.labels, [[0, 1, 0], [1, 1, 1]])
    parts = {split: CelebA(tmp_path, split) for split in ("val", "test", "all")}
    assert parts["val"].files == ["000002.png"] and parts["test"].files == ["000003.png"]
    assert np.array_equal(parts["all"].labels, [[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 1, 1]])
    assert len({part.identity()["table_sha256"] for part in (source, *parts.values())}) == 4  # other images each
    chosen = CelebA(tmp_path, schema=Schema((Attribute("wearing_hat"),)))
    assert np.array_equal(chosen.labels, [[0], [1]])


def test_crops_are_those_of_the_field(tmp_path: Path) -> None:
    celeba(tmp_path)
    for crop, (top, left, side) in {"centre": (35, 15, 148), "face": (121 - 64, 89 - 64, 128)}.items():
        source = CelebA(tmp_path, crop=crop)
        expected = pattern(1)[top : top + side, left : left + side]
        assert np.array_equal(source.chunk(0, 1)[0][0], expected) and source.image_shape == (3, side, side)
        small = CelebA(tmp_path, crop=crop, reading=Reading(64, "crop"))
        resized = Image.fromarray(expected).resize((64, 64), Image.Resampling.LANCZOS)
        assert np.array_equal(small.chunk(0, 1)[0][0], resized) and small.identity() != source.identity()
    assert np.array_equal(CelebA(tmp_path, crop="none").chunk(0, 1)[0][0], pattern(1))
    assert CelebA(tmp_path).fingerprints()["files"] == 2


def test_folders_and_tables_of_other_archives(tmp_path: Path) -> None:
    expected = CelebA(celeba(tmp_path / "a"), "val")
    for name in ("list_attr_celeba", "list_eval_partition"):  # as the archives have it
        folder = tmp_path / "a" / ("Anno" if "attr" in name else "Eval")
        folder.mkdir()
        (tmp_path / "a" / f"{name}.txt").rename(folder / f"{name}.txt")
    assert CelebA(tmp_path / "a", "val").identity() == expected.identity()
    root = celeba(tmp_path / "k", images="img_align_celeba/img_align_celeba")  # as Kaggle has it
    for name, text in (("list_attr_celeba", KAGGLE), ("list_eval_partition", "image_id,partition\n000002.png,1\n")):
        (root / f"{name}.txt").unlink()
        (root / f"{name}.csv").write_text(text)
    source = CelebA(root, "val")
    assert source.schema == expected.schema and np.array_equal(source.labels, expected.labels)
    assert source.files == expected.files


def test_the_list_format_is_a_table_of_any_folder(tmp_path: Path) -> None:
    root = celeba(tmp_path)
    source = ImageFolder(root / "img_align_celeba", root / "list_attr_celeba.txt")
    assert np.array_equal(source.labels, CelebA(root, "all").labels) and source.schema.names == NAMES


def test_images_of_another_size_are_none_of_celeba(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(celeba(tmp_path) / "img_align_celeba" / "000004.png")
    source = CelebA(tmp_path, reading=Reading(64, "crop"))
    with pytest.raises(ValueError, match=r"000004\.png: it is 64 x 64 \(height x width\), expected 218 x 178"):
        provenance_of(source=source)
    with pytest.raises(ValueError, match=r"cannot read 1 of 2 images"):
        source.chunk(0, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ATTRIBUTES.replace("4\n", "5\n", 1), "the first line promises 5 images, got 4; is it whole"),
        (ATTRIBUTES[2:], "begin with a line of the count"),
        ("", "begin with a line of the count"),
        (ATTRIBUTES.replace("1 -1 -1\n", "1 -1\n"), "line 4: expected 4 cells, got 3"),
        (ATTRIBUTES.replace("1 -1 -1\n", "1 -1 2\n"), "'wearing_hat' has|must be 0 or 1|kind"),
        (ATTRIBUTES.replace("Smiling", "Wearing_Hat"), "column names must be distinct"),
        (ATTRIBUTES.replace("000002.png", "000001.png"), r"line 4: '000001\.png' is on line 3 already"),
    ],
)
def test_damaged_lists_are_refused(tmp_path: Path, text: str, message: str) -> None:
    schema = Schema(tuple(map(Attribute, NAMES)))
    with pytest.raises(ValueError, match=message):
        CelebA(celeba(tmp_path, text), "all", schema=None if "2\n" not in text else schema)


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (celeba(tmp_path) / "list_attr_celeba.txt").write_bytes(b"4\nA\n\xff\xfe 1\n")
    with pytest.raises(ValueError, match=r"list_attr_celeba\.txt cannot be read: .*save it as UTF-8"):
        CelebA(tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no list_attr_celeba\.txt below .*give the folder"):
        CelebA(tmp_path)
    root = celeba(tmp_path / "c")
    with pytest.raises(ValueError, match="`split` must be one of train, val, test, all; got 'valid'"):
        CelebA(root, "valid")
    with pytest.raises(ValueError, match="`crop` must be one of centre, face, none, got 'middle'"):
        CelebA(root, crop="middle")
    with pytest.raises(FileNotFoundError, match=r"no folder faces below .*unpack the archive"):
        CelebA(root, images="faces")
    (root / "list_eval_partition.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no list_eval_partition\.txt below"):
        CelebA(root)
    with pytest.raises(FileNotFoundError, match=r"no list at .*attribute-anno\.txt; give the path"):
        CelebAMaskHQ(root)
    (root / "list_eval_partition.txt").write_text("000002.png 1\n")
    with pytest.raises(ValueError, match=r"no images are named below .*is this the right folder, and the right part"):
        CelebA(root, "train")


def test_celebamask_hq_takes_its_parts_from_celeba(tmp_path: Path) -> None:
    (tmp_path / "CelebA-HQ-img").mkdir()
    for i in range(3):
        Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / "CelebA-HQ-img" / f"{i}.jpg")
    rows = "".join(f"{i}.jpg  {a} {b}\n" for i, (a, b) in enumerate(((-1, 1), (1, 1), (1, -1))))
    (tmp_path / "CelebAMask-HQ-attribute-anno.txt").write_text(f"3\n5_o_Clock_Shadow Smiling\n{rows}")
    source = CelebAMaskHQ(tmp_path, reading=Reading(16, "crop"))
    assert np.array_equal(source.labels, [[0, 1], [1, 1], [1, 0]]) and source.image_shape == (3, 16, 16)
    assert np.abs(source.chunk(0, 3)[0][:, 0, 0, 0].astype(int) - [0, 1, 2]).max() <= 1
    with pytest.raises(FileNotFoundError, match=r"no list_eval_partition\.txt below"):
        CelebAMaskHQ(tmp_path, "val")
    (tmp_path / "celeba.txt").write_text(PARTITION)
    with pytest.raises(FileNotFoundError, match=r"no list at .*mapping\.txt; put it there, or take all"):
        CelebAMaskHQ(tmp_path, "val", partition=str(tmp_path / "celeba.txt"))
    mapping = "idx    orig_idx    orig_file\n0   2   000003.png\n1   1   000002.png\n2   0   000001.png\n"
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text(mapping)
    part = CelebAMaskHQ(tmp_path, "val", partition=str(tmp_path / "celeba.txt"))
    assert part.files == ["1.jpg"] and np.array_equal(part.labels, [[1, 1]])
