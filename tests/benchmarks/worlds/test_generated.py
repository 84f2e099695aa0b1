"""A generator as a world: its own images, drawn by split, labelled by somebody, with latents that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg.benchmarks.worlds.discipline import check_world
from lcg.benchmarks.worlds.generated import BATCH, GeneratedWorld
from lcg.generators.base import Generator, weights_sha256, x_to_pixels
from lcg.guidance import parse
from lcg.labels.base import Labeller
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("red"), Attribute("dark"), Attribute("doubtful")))


class Colours(Generator):
    """The latent's first three numbers are a colour, z ~ N(0, I)."""

    latent_shape, image_shape = (4,), (3, 2, 4)

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight))

    def decode(self, z: Tensor) -> Tensor:
        return torch.tanh(self.weight * z[:, :3, None, None]).expand(-1, -1, 2, 4)

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, 4, generator=generator)


class Unsampled(Generator):
    latent_shape, image_shape = (4,), (3, 2, 4)

    def decode(self, z: Tensor) -> Tensor:
        return z[:, :3, None, None].expand(-1, -1, 2, 4)


class Eye(Labeller):
    """Red: more red than grey; dark: all colours faint, one in eight; doubtful: red, but known of bright ones only."""

    schema = SCHEMA

    def label(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        colour = images[:, 0, 0].astype(int)
        red, dark = colour[:, 0] > 127, (colour < 128).all(1)
        return np.stack([red, dark, np.where(dark, np.nan, red)], axis=1).astype(np.float32)

    def identity(self) -> dict[str, Any]:
        return {"class": "Eye"}


@pytest.fixture(scope="module")
def world() -> GeneratedWorld:
    return GeneratedWorld(Colours(), Eye())


def test_images_are_those_of_their_latents_and_labels_those_of_the_images(world: GeneratedWorld) -> None:
    real = world.real("uniform", 100, "neighbours")
    assert len(real) == 100 and real.z is not None and real.z.shape == (100, 4)
    assert np.array_equal(real.images, x_to_pixels(Colours().decode(real.z)).numpy())
    np.testing.assert_array_equal(real.labels.numpy(), Eye().label(real.images))
    assert {tuple(row) for row in real.origin.tolist()} == {(i // BATCH, i % BATCH) for i in range(100)}


def test_a_split_repeats_itself_and_begins_alike_at_every_size(world: GeneratedWorld) -> None:
    formula = parse("red & ~dark", SCHEMA)
    many, few = (world.real(kind, n, "sources-1", formula) for kind, n in (("uniform", 70), ("biased", 9)))
    assert np.array_equal(many.images[:9], few.images) and torch.equal(many.labels[:9], few.labels)
    assert torch.equal(many.z[:9], few.z) and formula.holds(many.labels).all()
    again = GeneratedWorld(Colours(), Eye()).real("uniform", 70, "sources-1", formula)
    assert torch.equal(many.z, again.z)


def test_splits_seeds_and_batches_share_no_image(world: GeneratedWorld) -> None:
    sets = [world.real("uniform", 3 * BATCH, split).z for split in ("sources-0", "sources-1", "reference red")]
    sets.append(GeneratedWorld(Colours(), Eye(), seed=1).real("uniform", 3 * BATCH, "sources-0").z)
    assert len(torch.cat(sets).unique(dim=0)) == 12 * BATCH


def test_shares_are_those_of_the_images_that_the_labels_decide_on(world: GeneratedWorld) -> None:
    """Colours are independent and as often below as above grey: 1/2, 1/8, and of the bright ones that are red 4/7."""
    for text, share in (("red", 1 / 2), ("dark", 1 / 8), ("doubtful", 4 / 7), ("red & dark", 0.0)):
        found = world.share("uniform", parse(text, SCHEMA))
        assert abs(found - share) < 4 * (share * (1 - share) / 2048 + 1e-9) ** 0.5 + 1e-9
    with pytest.raises(ValueError, match="'red & dark' holds for no image"):
        world.check_exists(parse("red & dark", SCHEMA))


def test_what_never_holds_is_given_up(world: GeneratedWorld) -> None:
    impatient = GeneratedWorld(Colours(), Eye(), tries=10)
    with pytest.raises(
        ValueError, match=r"'red & dark' holds for 0 of 64 images .*'sources-0' needs 5; lower the size"
    ):
        impatient.real("uniform", 5, "sources-0", parse("red & dark", SCHEMA))
    with pytest.raises(ValueError, match="`tries` must be at least 1, got 0"):
        GeneratedWorld(Colours(), Eye(), tries=0)


def test_a_generator_without_a_prior_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"must have a prior of its own, but Unsampled samples no latents; give the benchmark"
    ):
        GeneratedWorld(Unsampled(), Eye())


def test_the_world_says_what_it_is(world: GeneratedWorld) -> None:
    assert world.identity() == GeneratedWorld(Colours(), Eye()).identity()
    others = (GeneratedWorld(Colours(), Eye(), seed=1), GeneratedWorld(Colours(2.0), Eye()))
    assert all(world.identity() != other.identity() for other in others)
    assert world.decoder == weights_sha256(Colours()) and world.schema == SCHEMA and world.image_shape == (3, 2, 4)
    assert "drawn by the generator itself, Colours" in world.notes[0] and "labelled by Eye" in world.notes[0]


def test_a_judge_that_labels_the_world_is_told(world: GeneratedWorld) -> None:
    (source,) = world.sources()
    assert source["labelled"] == [{"labeller": {"class": "Eye"}, "attributes": list(SCHEMA.names), "trained_on": {}}]


def test_a_store_of_sampled_latents_is_no_fault_and_one_of_the_worlds_own_is(world: GeneratedWorld) -> None:
    assert check_world(world, {"source": {"class": "Sampled", "seed": 0}}) == []
    (source,) = world.sources()
    taken = {"source": {**source["source"], "split": "bench-sources-0"}}
    with pytest.raises(ValueError, match="The world's images are the same as those of the latent store"):
        check_world(world, taken)
    assert check_world(GeneratedWorld(Colours(), Eye(), seed=1), taken) == []
