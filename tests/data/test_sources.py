"""All layouts keep one contract, and all that reads images takes every one of them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lcg.benchmarks.worlds.discipline import check_world
from lcg.benchmarks.worlds.folder import FolderWorld
from lcg.data.celeba import CelebA, CelebAMaskHQ
from lcg.data.ffhq import FFHQ
from lcg.data.imagefiles import ImageFiles
from lcg.data.imagefolder import HuggingFaceFolder
from lcg.data.imagemodule import ImageDataModule, load_images
from lcg.data.images import ImageFolder, provenance_of
from lcg.data.reading import Reading

SMALL = Reading(8, "crop")
COUNT = 40


def image(path: Path, i: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (i, 100, 200)).save(path)


def folder(root: Path) -> ImageFiles:
    for i in range(COUNT):
        image(root / f"{i}.png", i)
    (root / "t.csv").write_text("file,smiling\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(COUNT)))
    return ImageFolder(root, root / "t.csv", reading=SMALL)


def celeba(root: Path, split: str = "all") -> ImageFiles:
    rows = [f"{i:06d}.png {2 * (i % 2) - 1}" for i in range(COUNT)]
    for i in range(COUNT):
        image(root / "img_align_celeba" / f"{i:06d}.png", i, (178, 218))
    (root / "list_attr_celeba.txt").write_text(f"{COUNT}\nSmiling\n" + "\n".join(rows))
    (root / "list_eval_partition.txt").write_text("".join(f"{i:06d}.png {2 * (i >= 30)}\n" for i in range(COUNT)))
    return CelebA(root, split, reading=SMALL)


def celebamask(root: Path) -> ImageFiles:
    for i in range(COUNT):
        image(root / "CelebA-HQ-img" / f"{i}.png", i)
    rows = "".join(f"{i}.png  {2 * (i % 2) - 1}\n" for i in range(COUNT))
    (root / "CelebAMask-HQ-attribute-anno.txt").write_text(f"{COUNT}\nSmiling\n{rows}")
    return CelebAMaskHQ(root, reading=SMALL)


def ffhq(root: Path) -> ImageFiles:
    (root / "json").mkdir(parents=True)
    for i in range(COUNT):
        image(root / "thumbnails128x128" / "00000" / f"{i:05d}.png", i)
        (root / "json" / f"{i:05d}.json").write_text("[]")
    return FFHQ(root, "thumbnails128x128", reading=SMALL)


def metadata(root: Path) -> ImageFiles:
    for i in range(COUNT):
        image(root / "train" / f"{i}.png", i)
    rows = (json.dumps({"file_name": f"{i}.png", "smiling": bool(i % 2)}) for i in range(COUNT))
    (root / "train" / "metadata.jsonl").write_text("\n".join(rows))
    return HuggingFaceFolder(root, "train", reading=SMALL)


def classes(root: Path) -> ImageFiles:
    for i in range(COUNT):
        image(root / ("cat", "dog")[i >= 20] / f"{i:02d}.png", i)
    return HuggingFaceFolder(root, reading=SMALL)


@pytest.mark.parametrize("make", [folder, celeba, celebamask, ffhq, metadata, classes])
def test_every_layout_keeps_the_contract(tmp_path: Path, make: Callable[[Path], ImageFiles]) -> None:
    source = make(tmp_path / "a")
    images, labels = source.chunk(0, COUNT)
    assert len(source) == COUNT and source.image_shape == (3, 8, 8) and images.shape == (COUNT, 8, 8, 3)
    assert images.dtype == np.uint8 and labels.dtype == np.float32 and labels.shape == (COUNT, len(source.schema))
    assert (images == np.array([[[[i, 100, 200]]] for i in range(COUNT)])).all()  # constant, and in order
    for whole, part in zip((images, labels), source.chunk(7, 31), strict=True):
        assert np.array_equal(whole[7:31], part, equal_nan=True)
    assert json.loads(json.dumps(source.identity())) == source.identity() == make_again(source).identity()

    world = FolderWorld(source)
    real = world.real("uniform", 5, "sources-1")
    assert (real.images[:, 0, 0, 0] == real.origin[:, 0]).all() and world.identity()["count"] == COUNT
    assert np.array_equal(world.labels, labels, equal_nan=True)
    data = ImageDataModule(source, source, batch_size=8)
    data.setup()
    assert torch.equal(data.images(COUNT)[:, 0, 0, 0], torch.arange(COUNT) / 127.5 - 1)
    assert torch.equal(load_images(source, 7)[0], torch.from_numpy(images))

    stored = provenance_of(source=source)
    with pytest.raises(ValueError, match="The world's images are the same as those of the latent store"):
        check_world(world, stored)


def make_again(source: ImageFiles) -> ImageFiles:
    """A source of the same files, read by one thread: who reads is no part of what is read."""
    again = {
        ImageFolder: lambda: ImageFolder(source.root, source.root / "t.csv", reading=Reading(8, "crop", workers=1)),
        CelebA: lambda: CelebA(source.root.parent, "all", reading=Reading(8, "crop", workers=1)),
        CelebAMaskHQ: lambda: CelebAMaskHQ(source.root.parent, reading=Reading(8, "crop", workers=1)),
        FFHQ: lambda: FFHQ(source.root.parent, source.root.name, reading=Reading(8, "crop", workers=1)),
        HuggingFaceFolder: lambda: HuggingFaceFolder(source.root, reading=Reading(8, "crop", workers=1)),
    }
    return again[type(source)]()


def test_parts_of_a_data_set_are_told_apart(tmp_path: Path) -> None:
    train, test, both = (celeba(tmp_path / "a", split) for split in ("train", "test", "all"))
    assert check_world(FolderWorld(test), provenance_of(source=train)) == []
    with pytest.raises(ValueError, match=r"share files \(10 seen, about 100% of the smaller folder\) with those of"):
        check_world(FolderWorld(test), provenance_of(source=both))
