"""CelebA and CelebAMask-HQ, as they are distributed.

    ROOT/img_align_celeba/000001.jpg        ROOT/CelebA-HQ-img/0.jpg
    ROOT/list_attr_celeba.txt               ROOT/CelebAMask-HQ-attribute-anno.txt
    ROOT/list_eval_partition.txt            ROOT/CelebA-HQ-to-CelebA-mapping.txt

The lists of CelebA may lie in `Anno` and `Eval`, the images in `Img`, and the tables may be those of Kaggle
(`list_attr_celeba.csv` with a column `image_id`). The 40 attributes are binary and named in lower case, as formulas
read best, `smiling & eyeglasses & ~wearing_hat`; `5_o_Clock_Shadow`, which is no identifier, is `five_o_clock_shadow`.

Parts are CelebA's own: train 162 770, val 19 867, test 19 962 images. Those of CelebAMask-HQ follow from the image of
CelebA that each was made of. References: Liu et al. 2015, arXiv:1411.7766; Lee et al. 2020, arXiv:1907.11922.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from lcg.data.framing import Box, Frame
from lcg.data.imagefiles import ImageFiles
from lcg.data.labelled import named, sha256_of_table
from lcg.data.lists import ListTable, open_any, spelled
from lcg.data.reading import Reading
from lcg.data.tables import Block, Table
from lcg.schema import Schema

Split = Literal["train", "val", "test", "all"]
PARTS = ("train", "val", "test")
"""As the partition counts them."""
ALIGNED = (218, 178)
"""Height and width of the aligned images."""
BOXES: dict[str, Box | None] = {"centre": (15, 35, 163, 183), "face": (25, 57, 153, 185), "none": None}
"""Crops of aligned images: the 148 x 148 pixels in the middle, and 128 x 128 around row 121 and column 89."""
PLACES = ("", "Anno", "Eval", "Img", "celeba")


class CelebA(ImageFiles):
    """CelebA's aligned images, 178 x 218.

    Args:
        root: the folder with the lists and the images.
        split: train, val, test, or all of them.
        crop: what is taken of an image: centre, the 148 x 148 pixels in the middle, as most work on 64 x 64 has it;
            face, 128 x 128 around row 121 and column 89, as DDIM and Diffusion Autoencoders have it; or none.
        schema: the attributes to read, by their names in lower case; all 40 when None.
        reading: `size` the crop is scaled to, and how files are read.
        images: the folder of the images in `root`.

    Raises:
        FileNotFoundError: a list or an image is missing.
        ValueError: a list is damaged, or an image is not 178 x 218.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: Split = "train",
        crop: Literal["centre", "face", "none"] = "centre",
        schema: Schema | None = None,
        reading: Reading = Reading(),  # noqa: B008 (frozen)
        images: str = "img_align_celeba",
    ) -> None:
        if crop not in BOXES:
            raise ValueError(f"`crop` must be one of {', '.join(BOXES)}, got {crop!r}")
        folder = Path(root)
        part = _part(split)
        table, place = _renamed(_list(folder, "list_attr_celeba")), _folder(folder, images)
        wanted = None if part is None else {name for name, p in _partition(folder) if p == part}
        rows = named(table, place, schema, chosen=None if wanted is None else wanted.__contains__)
        origin = {"table_sha256": sha256_of_table(table.path, "" if part is None else split), "crop": crop}
        frame = Frame(box=BOXES[crop], source=ALIGNED)
        super().__init__(place, rows.files, rows.labels, rows.schema, origin, reading, frame, rows.place)


class CelebAMaskHQ(ImageFiles):
    """The 30 000 images of CelebA-HQ with attributes, 1024 x 1024, as CelebAMask-HQ has them.

    Args:
        root: the folder with the lists and `CelebA-HQ-img`.
        split: train, val or test, by the partition of CelebA; or all of them, for which no partition is needed.
        schema: the attributes to read, by their names in lower case; all 40 when None.
        reading: size and fit of the images, and how they are read.
        partition: path of CelebA's list_eval_partition.txt; in `root` when None.

    Raises:
        FileNotFoundError: a list or an image is missing.
        ValueError: a list is damaged.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: Split = "all",
        schema: Schema | None = None,
        reading: Reading = Reading(),  # noqa: B008 (frozen)
        partition: str | None = None,
    ) -> None:
        part, folder = _part(split), Path(root)
        table, place = open_any(folder / "CelebAMask-HQ-attribute-anno.txt"), _folder(folder, "CelebA-HQ-img")
        wanted: set[str] | None = None
        if part is not None:
            sources = {name for name, p in _partition(folder, partition) if p == part}
            wanted = {name for name, source in _mapping(folder) if source in sources}
        rows = named(table, place, schema, chosen=None if wanted is None else wanted.__contains__)
        origin = {"table_sha256": sha256_of_table(table.path, "" if part is None else split)}
        super().__init__(place, rows.files, rows.labels, rows.schema, origin, reading, place=rows.place)


class Renamed(Table):
    """A table as Kaggle has it, with the columns of CelebA's list and their names here."""

    def __init__(self, table: Table) -> None:
        self.path, self.unit, self._table = table.path, table.unit, table
        self._names = {name: "file" if name == "image_id" else spelled(name) for name in table.names}
        self.names = tuple(self._names.values())
        self._check_names()

    def blocks(self, columns: Collection[str] | None = None) -> Iterator[Block]:
        chosen = {name for name, here in self._names.items() if columns is None or here in columns}
        for block in self._table.blocks(chosen):
            yield Block(block.lines, {self._names[name]: cells for name, cells in block.columns.items()})


def _renamed(path: Path) -> Table:
    table = open_any(path)
    return table if path.suffix == ".txt" else Renamed(table)


def _list(root: Path, name: str) -> Path:
    """Where a list of CelebA lies."""
    candidates = [root / place / f"{name}{suffix}" for suffix in (".txt", ".csv") for place in PLACES]
    path = next(filter(Path.is_file, candidates), None)
    if path is None:
        raise FileNotFoundError(f"no {name}.txt below {root}; give the folder of CelebA's lists as `root`")
    return path


def _folder(root: Path, name: str) -> Path:
    """Where the images lie; archives unpacked into a folder of their own name have it twice."""
    candidates = [root / place / twice for place in PLACES for twice in (Path(name, name), Path(name))]
    folder = next(filter(Path.is_dir, candidates), None)
    if folder is None:
        raise FileNotFoundError(f"no folder {name} below {root}; unpack the archive of the images there")
    return folder


def _part(split: str) -> str | None:
    """The number of a part in the partition, None for all images. Raises ValueError for a part that there is not."""
    if split not in (*PARTS, "all"):
        raise ValueError(f"`split` must be one of {', '.join(PARTS)}, all; got {split!r}")
    return None if split == "all" else str(PARTS.index(split))


def _partition(root: Path, path: str | None = None) -> Iterator[tuple[str, str]]:
    """Each image of CelebA and its part."""
    file = _list(root, "list_eval_partition") if path is None else Path(path)
    table = ListTable(file, ("partition",)) if file.suffix == ".txt" else Renamed(open_any(file))
    for block in table.blocks({"file", "partition"}):
        yield from zip(block.columns["file"], block.columns["partition"], strict=True)


def _mapping(root: Path) -> Iterator[tuple[str, str]]:
    """Each image of CelebAMask-HQ and the image of CelebA that it was made of."""
    path = root / "CelebA-HQ-to-CelebA-mapping.txt"
    if not path.is_file():
        raise FileNotFoundError(f"no list at {path}; put it there, or take all images with `split` all")
    for block in ListTable(path, ("orig_idx", "orig_file")).blocks():
        for number, source in zip(block.columns["file"], block.columns["orig_file"], strict=True):
            yield f"{number}.jpg", source
