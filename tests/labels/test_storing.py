"""Labels into stores: latents, labels, provenance; killed jobs; replaced columns."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.generators.base import x_to_pixels
from lcg.labels.pictures import DrawnPictures, StorePictures, some_rows
from lcg.labels.storing import joined, label_store
from lcg.schema import Attribute, Schema
from tests.labels.world import Flat, Red

OLD = Schema((Attribute("hat"), Attribute("red", detail_of=("hat",)), Attribute("size", "continuous")))


def draws(num: int = 50, seed: int = 3) -> DrawnPictures:
    return DrawnPictures(Flat(), num, seed, batch_size=4)


def as_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def old_store(path: Path, generator: Flat | None = None) -> LatentStore:
    """Ten latents whose known `red` is wrong throughout."""
    told = {"source": {"name": "some"}, **({} if generator is None else {"generator": generator.identity()})}
    writer = LatentStoreWriter(path, (3,), OLD, told, "float16")
    z = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    writer.append(z, torch.stack([torch.ones(10), (z[:, 0] < 0).float(), torch.arange(10.0)], 1), np.arange(5, 15))
    return writer.finish()


# --- draws ---


def test_labels_are_those_of_the_images_of_the_latents(tmp_path) -> None:
    store = label_store(draws(), Red(), tmp_path / "s", 16, progress=False)
    z, y = store.latents(), store.labels()
    assert len(store) == 50 and store.schema == Red.schema and store.index().tolist() == list(range(50))
    np.testing.assert_array_equal(y.numpy(), Red().label(x_to_pixels(Flat().decode(z)).numpy()))
    assert 0.2 < y[:, 0].mean() < 0.8 and y[:, 1].isnan().sum() == (y[:, 0] == 0).sum()
    assert store.provenance["labelled"] == [
        {"labeller": Red().identity(), "attributes": ["red", "shade"], "trained_on": {}}
    ]
    assert store.provenance["generator"] == Flat().identity()
    store.verify()


def test_a_draw_depends_on_seed_and_row_alone(tmp_path) -> None:
    few, many = draws(5).latents(np.arange(5)), draws(50).latents(np.array([4, 2]))
    torch.testing.assert_close(many, few[[4, 2]], rtol=0, atol=0)
    other = draws(50, seed=4).latents(np.arange(50))
    assert len(set(other[:, 0].tolist()) & set(draws(50).latents(np.arange(50))[:, 0].tolist())) == 0


def test_what_was_killed_goes_on_and_gives_the_same_bytes(tmp_path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    label_store(draws(), Red(), whole, 16, progress=False)
    command = [sys.executable, str(Path(__file__).with_name("world.py")), str(broken), "40"]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    with pytest.raises(ValueError, match="is not finished: it has 32 latents"):
        LatentStore.open(broken)
    label_store(draws(), Red(18), broken, 16, progress=False)  # the last 18 alone are looked at
    assert as_bytes(broken) == as_bytes(whole)


def test_a_store_of_draws_may_grow(tmp_path) -> None:
    label_store(draws(20), Red(), tmp_path / "s", 16, progress=False)
    grown = label_store(draws(50), Red(), tmp_path / "s", 16, progress=False)
    np.testing.assert_array_equal(grown.latents(), draws(50).latents(np.arange(50)))
    with pytest.raises(ValueError, match="has 50 samples already, 20 are asked for"):
        label_store(draws(20), Red(), tmp_path / "s", 16, progress=False)


# --- stores ---


def test_columns_are_added_and_replaced(tmp_path) -> None:
    old = old_store(tmp_path / "old", Flat())
    store = label_store(StorePictures(old, Flat(), 4), Red(), tmp_path / "new", 4, progress=False)
    assert store.schema.names == ("hat", "red", "size", "shade")
    assert store.schema["red"].detail_of == ("hat",)  # what the store knew of it
    torch.testing.assert_close(store.latents(), old.latents(), rtol=0, atol=0)
    assert store.index().tolist() == old.index().tolist() and store.manifest.dtype == "float16"
    y = store.labels().numpy()
    np.testing.assert_array_equal(y[:, [0, 2]], old.labels().numpy()[:, [0, 2]])
    np.testing.assert_array_equal(y[:, 1], (store.latents()[:, 0] > 0).float())
    assert store.provenance["source"] == {"name": "some"}
    assert store.provenance["relabelled"] == {"store": old.fingerprint}


def test_only_what_is_kept_is_kept(tmp_path) -> None:
    pictures = StorePictures(old_store(tmp_path / "old"), Flat(), 4)
    store = label_store(pictures, Red(), tmp_path / "new", keep=["hat"], progress=False)
    assert store.schema.names == ("hat", "red", "shade")
    assert store.provenance["generator"] == Flat().identity()  # nobody had said


def test_the_last_labeller_of_an_attribute_is_told(tmp_path) -> None:
    class Shade(Red):
        schema = Schema((Attribute("red"),))

        def label(self, images):
            return super().label(images)[:, :1]

        def identity(self):
            return {"class": "Shade"}

    first = label_store(draws(), Red(), tmp_path / "a", progress=False)
    second = label_store(StorePictures(first, Flat()), Shade(), tmp_path / "b", progress=False)
    told = [(entry["labeller"]["class"], entry["attributes"]) for entry in second.provenance["labelled"]]
    assert told == [("Red", ["shade"]), ("Shade", ["red"])]


def test_an_attribute_that_means_something_else_takes_the_place() -> None:
    old = Schema((Attribute("age", "continuous"), Attribute("hat")))
    new = Schema((Attribute("age", "categorical", ("young", "old"), ordered=True),))
    assert joined(old, new).attributes == (new["age"], old["hat"])


def test_some_rows_are_evenly_spaced() -> None:
    assert some_rows(5, 10).tolist() == [0, 1, 2, 3, 4] and some_rows(101, 3).tolist() == [0, 50, 100]


class Short(Red):
    def label(self, images):
        return super().label(images)[:, :1]


class Other(Flat):
    def __init__(self) -> None:
        super().__init__()
        self.one += 1


class Wide(Flat):
    latent_shape = (4,)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda p: DrawnPictures(Flat(prior=False), 3),
            "has no prior of its own.*or label the latents of a store with",
        ),
        (lambda p: DrawnPictures(Flat(), 0), "`num` must be >= 1, got 0"),
        (lambda p: DrawnPictures(Flat(), 3, seed=-1), "`seed` must be >= 0, got -1"),
        (lambda p: DrawnPictures(Flat(), 3, batch_size=0), "`batch_size` must be >= 1, got 0"),
        (lambda p: label_store(draws(), Red(), p / "s", 0), "`shard_size` must be >= 1, got 0"),
        (
            lambda p: label_store(draws(), Short(), p / "s", progress=False),
            r"Short.label must return \(4, 2\) for 4 images, a column for each of red, shade; got \(4, 1\)",
        ),
        (lambda p: label_store(draws(), Red(), p / "s", keep=["hat"]), "unknown attribute 'hat'"),
        (lambda p: StorePictures(old_store(p / "o", Flat()), Other()), "this generator has .* would be other ones"),
        (lambda p: StorePictures(old_store(p / "o"), Wide()), r"latents have shape \(3,\), the generator takes \(4,\)"),
    ],
)
def test_what_cannot_be_labelled_is_refused(tmp_path, act, message) -> None:
    with pytest.raises(ValueError, match=message):
        act(tmp_path)
