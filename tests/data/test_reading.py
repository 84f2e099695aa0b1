"""Reading files: in order whatever the threads, broken ones told all at once, skipped ones the same for everybody."""

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lcg.data.encode import Encoding, encode
from lcg.data.images import ImageFolder
from lcg.data.reading import Reading, in_order
from lcg.generators.base import Generator

COUNT = 40


class Red(Generator):
    """z is the first pixel's red, in [0, 255]."""

    latent_shape = (1,)
    image_shape = (3, 2, 3)

    def decode(self, z: Tensor) -> Tensor:
        return (z / 127.5 - 1)[:, :, None, None].expand(-1, *self.image_shape)

    def encode(self, x: Tensor) -> Tensor:
        return (x[:, 0, :1, 0] + 1) * 127.5


def folder(path: Path, broken: dict[str, bytes | None] | None = None) -> tuple[Path, Path]:
    """Image i is of colour (i, 0, 0), and its label is i; some are replaced by bytes, or by nothing."""
    root = path / "images"
    root.mkdir()
    for i in range(COUNT):
        Image.new("RGB", (3, 2), (i, 0, 0)).save(root / f"{i:02d}.png")
    for name, data in (broken or {}).items():
        (root / name).unlink()
        if data is not None:
            (root / name).write_bytes(data)
    (path / "t.csv").write_text("file,age\n" + "".join(f"{i:02d}.png,{i}.5\n" for i in range(COUNT)))
    return root, path / "t.csv"


def wide(path: Path) -> bytes:
    Image.new("RGB", (9, 2)).save(path / "wide.png")
    return (path / "wide.png").read_bytes()


def skipping(path: Path) -> ImageFolder:
    """A folder in which three files of 40 cannot be read, the first one among them."""
    where = folder(path, {"00.png": b"text", "07.png": None, "20.png": wide(path)})
    return ImageFolder(*where, reading=Reading(broken="skip", workers=3))


@pytest.mark.parametrize("workers", [1, 2, 7, 64])
def test_order_does_not_depend_on_the_threads(tmp_path: Path, workers: int) -> None:
    source = ImageFolder(*folder(tmp_path), reading=Reading(workers=workers))
    images, labels = source.chunk(3, COUNT)
    assert np.array_equal(images[:, 0, 0, 0], np.arange(3, COUNT))
    assert np.array_equal(labels[:, 0], np.arange(3, COUNT) + 0.5)
    assert np.array_equal(source.pixels([5, 1, 5])[:, 1, 2, 0], [5, 1, 5])
    assert list(in_order(lambda i: i * i, 301, workers)) == [i * i for i in range(301)]


def test_threads_are_as_many_as_cores() -> None:
    assert Reading().threads == len(os.sched_getaffinity(0)) and Reading(workers=5).threads == 5


def test_all_broken_files_are_told_before_any_work(tmp_path: Path) -> None:
    broken = {f"{i:02d}.png": b"text" for i in range(5, 15)} | {"30.png": wide(tmp_path)}
    source = ImageFolder(*folder(tmp_path, broken))
    with pytest.raises(
        ValueError, match=r"cannot read 11 of 40 images below .*: 05\.png: it is no image .*; and 3 more\."
    ):
        encode(source, Red(), tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists()
    with pytest.raises(
        ValueError, match=r"30\.png: it is 2 x 9 .* `reading\.fit`, or leave them out with `reading\.broken: sk"
    ):
        source.pixels([0, 30])


def test_missing_files_are_told_with_their_line(tmp_path: Path) -> None:
    where = folder(tmp_path, {"07.png": None, "09.png": None})
    with pytest.raises(
        FileNotFoundError, match=r"t\.csv, line 9: no image at .*07\.png \(and 1 more\); remove the line"
    ):
        ImageFolder(*where)


def test_skipped_files_leave_numbers_and_labels_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = skipping(tmp_path)
    left = np.delete(np.arange(COUNT), [0, 7, 20])
    images, labels = source.chunk(0, len(source))
    assert len(source) == 37 and source.files == [f"{i:02d}.png" for i in left]
    assert np.array_equal(images[:, 0, 0, 0], left) and np.array_equal(labels[:, 0], left + 0.5)
    store = encode(source, Red(), tmp_path / "store", batch_size=5, shard_size=8, progress=False)
    assert torch.allclose(store.latents()[:, 0], torch.from_numpy(left).float(), atol=1e-4)
    assert torch.equal(store.labels()[:, 0], torch.from_numpy(left) + 0.5)
    assert store.provenance["source"]["skipped"] == ["00.png", "07.png", "20.png"]
    assert source.fingerprints()["files"] == 37 == len(source.fingerprints()["smallest"])
    told = capsys.readouterr().err
    assert "3 of 40 images" in told and "07.png: there is no such file" in told


def test_what_is_skipped_is_decided_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second process takes the list that the first has written, and makes none; a mended file makes a new one."""
    first = skipping(tmp_path)
    (path,) = first.root.glob(".lcg-skipped-*.json")
    assert set(json.loads(path.read_bytes())["skipped"]) == set(first.skipped)
    told = json.loads(path.read_bytes())
    told["skipped"]["01.png"] = "somebody else could not read it"
    path.write_text(json.dumps(told))
    capsys.readouterr()
    second = ImageFolder(first.root, first.table, reading=Reading(broken="skip"))
    assert "01.png" in second.skipped and len(second) == 36 and capsys.readouterr().err == ""
    Image.new("RGB", (3, 2)).save(first.root / "00.png")
    assert list(ImageFolder(first.root, first.table, reading=Reading(broken="skip")).skipped) == ["07.png", "20.png"]


def test_of_two_processes_at_once_the_first_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, table = folder(tmp_path, {"07.png": b"text"})
    look = ImageFolder._look

    def slow(self: ImageFolder, i: int, thorough: bool = False) -> tuple[bytes, str]:
        if i == 0:
            monkeypatch.setattr(ImageFolder, "_look", look)  # another process begins later and is done before
            assert list(ImageFolder(root, table, reading=Reading(broken="skip")).skipped) == ["07.png"]
            return b"", "seen by this process only"
        return look(self, i, thorough)

    monkeypatch.setattr(ImageFolder, "_look", slow)
    assert list(ImageFolder(root, table, reading=Reading(broken="skip", workers=1)).skipped) == ["07.png"]


def test_processes_that_share_the_work_agree(tmp_path: Path) -> None:
    sources = [skipping(tmp_path)]
    sources.append(ImageFolder(sources[0].root, sources[0].table, reading=Reading(broken="skip", workers=1)))
    first, second = (Encoding(source, Red(), tmp_path / "store", 5, 8) for source in sources)
    writer = first.begin()
    for part in first.parts:
        (first, second)[part.number % 2].make(second.parts[part.number], lambda _: None)
    assert len(first.finish(writer)) == 37


def test_a_list_of_its_own_folder(tmp_path: Path) -> None:
    root, table = folder(tmp_path, {"07.png": None})
    (tmp_path / "notes").mkdir()
    ImageFolder(root, table, reading=Reading(broken="skip", notes=str(tmp_path / "notes")))
    (path,) = (tmp_path / "notes").iterdir()
    assert not list(root.glob(".lcg*"))
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"is no list of skipped images; remove it"):
        ImageFolder(root, table, reading=Reading(broken="skip", notes=str(tmp_path / "notes")))
    with pytest.raises(
        PermissionError, match=r"cannot be written to .*nowhere; give another folder as `reading\.notes`"
    ):
        ImageFolder(root, table, reading=Reading(broken="skip", notes=str(tmp_path / "nowhere")))


def test_too_many_broken_files_are_not_skipped(tmp_path: Path) -> None:
    where = folder(tmp_path, {f"{i:02d}.png": b"" for i in range(21)})
    with pytest.raises(ValueError, match="cannot read 21 of 40 images"):
        ImageFolder(*where, reading=Reading(broken="skip"))
    for i in range(COUNT):
        (where[0] / f"{i:02d}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot read 40 of 40 images"):
        ImageFolder(*where, reading=Reading(broken="skip"))


def test_sizes_of_all_kinds_meet_in_one(tmp_path: Path) -> None:
    where = folder(tmp_path, {"20.png": wide(tmp_path)})
    for fit in ("crop", "pad", "stretch"):
        source = ImageFolder(*where, reading=Reading((4, 6), fit))
        assert source.image_shape == (3, 4, 6) and source.chunk(19, 21)[0].shape == (2, 4, 6, 3)
        assert source.fingerprints()["files"] == COUNT and source.identity()["fit"] == fit
    assert math.isclose(ImageFolder(*where, reading=Reading(8, "crop")).chunk(9, 10)[0][..., 0].mean(), 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "`size` must be >= 1, got 0"),
        ({"workers": 0}, "`workers` must be >= 1, got 0; leave it out"),
        ({"fit": "cover", "size": 4}, "`fit` must be one of exact, crop, pad, stretch, got 'cover'"),
        ({"broken": "ignore"}, "`broken` must be one of refuse, skip, got 'ignore'"),
        ({"fit": "crop"}, "`fit` 'crop' needs `size`, such as 256"),
        ({"landmarks": "l.csv"}, "`landmarks` need `size`, the side of the square that they cut, got None"),
        ({"landmarks": "l.csv", "size": (4, 4)}, re.escape("got (4, 4)")),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reading(**options)
