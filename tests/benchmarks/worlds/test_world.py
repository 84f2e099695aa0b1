"""Real avatars for a benchmark: true labels, no image twice, and nothing that anything was trained on."""

import json

import numpy as np
import pytest

from lcg.benchmarks.worlds.avatars import AvatarWorld
from lcg.benchmarks.worlds.world import World
from lcg.data.avatars import SCHEMA, AvatarSource, labels_of, render
from lcg.guidance import parse, parse_edit


def test_images_and_labels_follow_from_the_parts() -> None:
    real = AvatarWorld().real("uniform", 20, "a")
    assert len(real) == 20 and real.images.shape == (20, 64, 64, 3)
    assert np.array_equal(real.images, render(real.parts))
    assert np.array_equal(real.labels.numpy(), labels_of(real.parts), equal_nan=True)


def test_splits_and_seeds_share_nothing_and_repeat_themselves() -> None:
    parts = AvatarWorld().real("uniform", 50, "a").parts
    assert np.array_equal(parts, AvatarWorld().real("uniform", 50, "a").parts)
    assert np.array_equal(parts[:20], AvatarWorld().real("uniform", 20, "a").parts)
    trained_on = AvatarSource("uniform", 50, "generator").parts
    for other in (
        AvatarWorld().real("uniform", 50, "b").parts,
        AvatarWorld(1).real("uniform", 50, "a").parts,
        trained_on,
    ):
        assert (parts == other).all(axis=1).mean() < 0.1


@pytest.mark.parametrize("text", ["glasses & smile & hat", "beard & long_hair", "~hat & hair_color=red"])
def test_a_formula_holds_for_every_image_that_was_asked_for(text: str) -> None:
    formula = parse(text, SCHEMA)
    real = AvatarWorld().real("uniform", 30, "a", formula)
    assert len(real) == 30 and formula.holds(real.labels).all()


def test_the_other_attributes_are_those_of_the_distribution() -> None:
    labels = AvatarWorld().real("uniform", 600, "a", parse("hat", SCHEMA)).labels
    assert (labels[:, SCHEMA.index("glasses")].mean() - 0.5).abs() < 0.1


def test_what_never_occurs_is_refused_after_a_million_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    totals: list[int] = []

    class Few(AvatarSource):  # a million draws take a while: the same few, counted
        def __init__(self, distribution: str, count: int, split: str, seed: int = 0) -> None:
            totals.append(count)
            super().__init__(distribution, min(count, 2048), split, seed)

    monkeypatch.setattr("lcg.benchmarks.worlds.avatars.AvatarSource", Few)
    with pytest.raises(ValueError, match=r"'beard & long_hair' holds for 0 of \d+ biased avatars, 300 needed"):
        AvatarWorld().real("biased", 300, "a", parse("beard & long_hair", SCHEMA))
    assert totals[-1] > 1_000_000 >= totals[-2]


def test_an_edit_may_show_where_it_could_be_drawn() -> None:
    world = AvatarWorld()
    sources = world.real("uniform", 6, "a", parse("~glasses & ~beard & ~hat", SCHEMA))
    one, two = (
        world.regions(sources, tuple(parse_edit(word, SCHEMA) for word in words))
        for words in (["+glasses"], ["+glasses", "+beard"])
    )
    assert one.shape == (6, 64, 64) and one.dtype == np.bool_
    assert (one <= two).all() and (one.sum((1, 2)) < two.sum((1, 2))).all() and one.any((1, 2)).all()
    assert one.mean() < 0.3


def test_a_formula_that_holds_for_nobody_is_refused() -> None:
    AvatarWorld().check_exists(parse("beard & long_hair", SCHEMA))
    with pytest.raises(ValueError, match="'hat & long_hair' holds for no avatar, so there is nothing to compare with"):
        AvatarWorld().check_exists(parse("hat & long_hair", SCHEMA))


def test_another_seed_is_another_world_and_every_split_is_named() -> None:
    world = AvatarWorld()
    assert json.loads(json.dumps(world.identity())) == AvatarWorld().identity() != AvatarWorld(1).identity()
    (source,) = world.sources()
    assert source["source"]["name"] == "avatars" and source["source"]["split"] == "bench-*"
    assert world.available("biased", "sources-0") is None


def test_a_world_need_not_know_where_an_edit_may_show() -> None:
    class Plain(AvatarWorld):
        regions = World.regions

    world = Plain()
    assert world.regions(world.real("uniform", 2, "a"), (parse_edit("+glasses", SCHEMA),)) is None
