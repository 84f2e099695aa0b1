"""A user's own images as a world: parts that share nothing, splits that do not depend on each other, clear refusals."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lcg.benchmarks.worlds.folder import PERCENT, FolderWorld, purpose_of, start_of
from lcg.data.images import ImageFolder
from lcg.data.source import ImageSource
from lcg.guidance import parse
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("odd"), Attribute("third"), Attribute("size", "continuous")))


class Numbers(ImageSource):
    """Image i spells i in its first pixel; odd is known but for every fifth, third is known everywhere."""

    schema, image_shape = SCHEMA, (3, 2, 4)

    def __init__(self, count: int) -> None:
        self.count, self.read = count, 0

    def __len__(self) -> int:
        return self.count

    def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        self.read += stop - start
        i = np.arange(start, stop)
        images = np.zeros((len(i), 2, 4, 3), np.uint8)
        images[:, 0, 0] = np.stack((i % 256, i // 256, 0 * i), axis=1)
        labels = np.stack((np.where(i % 5 == 0, np.nan, i % 2), i % 3 == 0, i), axis=1)
        return images, labels.astype(np.float32)

    def identity(self) -> dict[str, Any]:
        return {"class": "Numbers", "count": self.count}


def numbers(world: FolderWorld, count: int, split: str, formula: str | None = None) -> list[int]:
    """Which images a split draws, read off their pixels."""
    real = world.real("uniform", count, split, None if formula is None else parse(formula, SCHEMA))
    drawn = (real.images[:, 0, 0].astype(int) @ [1, 256, 0]).tolist()
    assert drawn == real.origin[:, 0].tolist() == real.labels[:, 2].int().tolist()
    return drawn


@pytest.fixture(scope="module")
def world() -> FolderWorld:
    return FolderWorld(Numbers(1000))


def test_an_image_is_drawn_once_and_each_split_repeats_itself(world: FolderWorld) -> None:
    whole = numbers(world, 1000, "scale")
    assert sorted(whole) == list(range(1000)) and whole != sorted(whole)
    for split, count in (("scale", 40), ("sources-1", 30), ("neighbours", 250)):
        drawn = numbers(world, count, split)
        assert len(set(drawn)) == count
        assert drawn == numbers(FolderWorld(Numbers(1000)), count, split)
        assert drawn[:7] == numbers(world, 7, split)  # the first of a split, however many are drawn
    assert numbers(world, 40, "sources-0") != numbers(FolderWorld(Numbers(1000), seed=1), 40, "sources-0")


def test_both_distributions_are_the_images_own(world: FolderWorld) -> None:
    one, other = (world.real(kind, 20, "reference") for kind in ("biased", "uniform"))
    assert np.array_equal(one.origin, other.origin)


def test_purposes_share_no_image_and_use_all(world: FolderWorld) -> None:
    drawn = {purpose: set(numbers(world, 10 * percent, purpose)) for purpose, percent in PERCENT.items()}
    assert sum(PERCENT.values()) == 100 and set().union(*drawn.values()) == set(range(1000))
    assert not any(one & other for one, other in combinations(drawn.values(), 2))


def test_a_purpose_is_a_word_of_the_splits_name() -> None:
    for split, purpose in {
        "sources-0": "sources",
        "biased-reference": "reference",
        "biased-floor-12": "floor",
        "floor glasses & hat": "floor",
        "reference floor & ~neighbours": "reference",  # attributes may be called anything
        "held-out": "held-out",
        "tuning": "tuning",
        "reconstruction-0": None,
        "outsources-1": None,
        "scale": None,
    }.items():
        assert purpose_of(split) == purpose


def test_numbered_splits_spread_over_their_part(world: FolderWorld) -> None:
    assert [start_of(f"sources-{k}") for k in range(8)] == [0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]
    assert start_of("held-out") == start_of("floor age>0-5") == 0 <= start_of("sources-123456789012345678901") < 1
    for splits in (2, 4, 8):
        drawn = [set(numbers(world, 150 // splits, f"sources-{k}")) for k in range(splits)]
        assert not any(one & other for one, other in combinations(drawn, 2))
    every = [set(numbers(world, 150, f"sources-{k}")) for k in range(3)]
    assert every[0] == every[1] == every[2]  # there are no others


def test_formulas_hold_and_unknown_labels_satisfy_nothing(world: FolderWorld) -> None:
    odd, even = (
        numbers(world, world.available("biased", "reference", parse(text, SCHEMA)), "reference", text)
        for text in ("odd", "~odd")
    )
    assert all(i % 2 == 1 and i % 5 for i in odd) and all(i % 2 == 0 and i % 5 for i in even)
    part = numbers(world, 200, "reference")
    assert sorted(odd + even) == sorted(i for i in part if i % 5) and len(odd) + len(even) < len(part)
    both = numbers(world, 10, "floor-1 odd & third", "odd & third")
    assert all(i % 2 == 1 and i % 3 == 0 for i in both)


def test_shares_are_among_the_images_whose_labels_decide(world: FolderWorld) -> None:
    assert world.share("uniform", parse("odd", SCHEMA)) == world.share("biased", parse("~odd", SCHEMA)) == 0.5
    assert world.share("uniform", parse("third", SCHEMA)) == 334 / 1000
    world.check_exists(parse("odd & third", SCHEMA))
    with pytest.raises(ValueError, match=r"'size<0\.0' holds for no image, so there is nothing to compare with"):
        world.check_exists(parse("size<0", SCHEMA))


def test_shares_of_what_nobody_labelled_are_zero() -> None:
    class Unlabelled(Numbers):
        def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            images, labels = super().chunk(start, stop)
            return images, np.full_like(labels, np.nan)

    assert FolderWorld(Unlabelled(9)).share("uniform", parse("odd | ~odd", SCHEMA)) == 0


def test_only_what_is_drawn_is_read() -> None:
    source = Numbers(600)
    world = FolderWorld(source)
    assert world.labels.shape == (600, 3) and source.read == 600  # this source gives labels with images only
    world.real("uniform", 12, "sources-0", parse("odd", SCHEMA))
    assert source.read == 612


@pytest.mark.parametrize(
    ("count", "split", "formula", "message"),
    [
        (201, "reference", None, "'reference' needs 201 images, and there are 200: the world has 1000 images, of which "
         "200 are kept for reference; lower sizes.references to 200 at most, or give the world more images"),
        (90, "floor-0 odd", "odd", "'floor-0 odd' needs 90 images for which 'odd' holds, and there are "
         r"\d\d: .*sizes.references"),
        (999, "held-out", None, "150 are kept for held-out; lower sizes.neighbours"),
        (999, "sources-1", None, "lower sizes.sources to 150"),
        (1001, "scale", None, "there are 1000: the world has 1000 images; lower its size to 1000 at most"),
        (5, "tuning", "size<0", "'size<0.0' holds, and there are 0: .* ask for a combination that more of them have"),
    ],
)  # fmt: skip
def test_too_few_images_are_refused(
    world: FolderWorld, count: int, split: str, formula: str | None, message: str
) -> None:
    asked = None if formula is None else parse(formula, SCHEMA)
    with pytest.raises(ValueError, match=message):
        world.real("uniform", count, split, asked)
    world.real("uniform", world.available("uniform", split, asked), split, asked)  # so many there are


def test_nothing_is_known_of_where_edits_show(world: FolderWorld) -> None:
    assert world.regions(world.real("uniform", 3, "sources-0"), (parse("odd", SCHEMA),)) is None


def test_identity_is_that_of_images_and_seed(tmp_path: Path) -> None:
    assert FolderWorld(Numbers(9)).identity() == FolderWorld(Numbers(9)).identity()
    assert FolderWorld(Numbers(9)).identity() != FolderWorld(Numbers(9), 1).identity()
    for i in range(3):
        Image.new("RGB", (4, 2), (i, 0, 0)).save(tmp_path / f"{i}.png")
    table = tmp_path / "table.csv"
    table.write_text("file,odd\n0.png,0\n1.png,1\n2.png,\n")
    world = FolderWorld(ImageFolder(tmp_path, table))
    identity = world.identity()
    assert json.loads(json.dumps(identity)) == identity == FolderWorld(ImageFolder(tmp_path, table)).identity()
    assert np.array_equal(world.labels.numpy(), world.source.chunk(0, 3)[1], equal_nan=True)
    (stated,) = world.sources()
    assert stated["source"] == identity["source"] and stated["fingerprints"]["source"]["files"] == 3
    Image.new("RGB", (4, 2), (77, 0, 0)).save(tmp_path / "2.png")  # another image under the old name
    assert FolderWorld(ImageFolder(tmp_path, table)).identity() != identity
