"""The embedded world: pictures are what DiceBear draws, labels are true, combinations are left out as declared."""

import json
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from lcg.data import avatars
from lcg.data.avatars import (
    BACKGROUND,
    BLOCK,
    COLUMN,
    LONG,
    PARTS,
    SCHEMA,
    SHORT,
    AvatarSource,
    Parts,
    draw_parts,
    edited_region,
    labels_of,
    rasterise,
    render,
    style_definition,
    variants,
)

BINARY = tuple(a.name for a in SCHEMA.of_kind("binary"))


def draw(distribution: str, count: int, seed: int = 0) -> Parts:
    return draw_parts(distribution, count, np.random.default_rng(seed))


def binary(parts: Parts) -> Mapping[str, np.ndarray]:
    labels = labels_of(parts)
    return {name: labels[:, SCHEMA.index(name)] == 1 for name in BINARY}


def names(row: np.ndarray) -> dict[str, str]:
    return {part: PARTS[part][number] for part, number in zip(PARTS, row, strict=True)}


# --- pictures ---


def test_composed_images_are_what_is_drawn_directly() -> None:
    """To rounding, but for single pixels where a layer is clipped at the edge of another."""
    from dicebear import Style

    parts = draw("uniform", 40)
    parts[: len(PARTS["top"]), COLUMN["top"]] = np.arange(len(PARTS["top"]))  # every top at least once
    style = Style(style_definition())
    direct = np.stack([rasterise(style, names(row), BACKGROUND) for row in parts])
    assert (direct[..., 3] == 255).all()
    difference = np.abs(render(parts).astype(int) - direct[..., :3])
    assert difference.mean() < 0.15
    assert (difference.max(axis=-1) <= 3).mean() > 0.999
    assert (difference.mean(axis=(1, 2, 3)) < 0.5).all()  # and no avatar is another


def test_images_are_independent_of_their_batch() -> None:
    parts = draw("biased", 300)  # more than are composed at once
    images = render(parts)
    assert images.shape == (300, 64, 64, 3) and images.dtype == np.uint8
    assert np.array_equal(render(parts[[7]])[0], images[7])
    assert np.array_equal(render(parts[250:]), images[250:])


def test_every_part_is_seen() -> None:
    """Changing any one part where it shows changes the picture; where it does not, it changes nothing."""
    for row in draw("uniform", 4):
        row = row.copy()
        row[COLUMN["beard_style"]] = 2
        for part, values in PARTS.items():
            looks = np.repeat(row[None], len(values), axis=0)
            looks[:, COLUMN[part]] = np.arange(len(values))
            distinct = len(np.unique(render(looks).reshape(len(values), -1), axis=0))
            hat = PARTS["top"][row[COLUMN["top"]]] in avatars.HATS
            hidden = part == ("hair_color" if hat else "hat_color")
            assert distinct == (1 if hidden else len(values)), part


def test_another_style_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avatars, "STYLE_SHA256", "0" * 64)
    with pytest.raises(
        RuntimeError, match=r"has sha256 1acbfab4b4b2, expected 000000000000 .*pip install dicebear-styles"
    ):
        style_definition()


# --- labels ---


def test_labels_are_true_by_construction() -> None:
    parts = draw("uniform", 500)
    for row, label in zip(parts, labels_of(parts), strict=True):
        part, y = names(row), dict(zip(SCHEMA.names, label, strict=True))
        assert y["glasses"] == (part["glasses_style"] != "none")
        assert y["beard"] == (part["beard_style"] != "none")
        assert y["smile"] == (part["mouth"] in ("smile", "twinkle"))
        assert y["hat"] == ("hat" in part["top"].lower())
        assert y["long_hair"] == (part["top"] in LONG)
        assert y["dark_skin"] == (part["skin_color"] in ("brown", "tan"))
        applies = {
            "hair_color": not y["hat"],
            "hat_color": y["hat"],
            "beard_style": y["beard"],
            "beard_color": y["beard"],
            "glasses_style": y["glasses"],
        }
        for attribute in SCHEMA.of_kind("categorical"):
            if applies.get(attribute.name, True):
                assert attribute.values[int(y[attribute.name])] == part[attribute.name]
            else:
                assert np.isnan(y[attribute.name])


# --- distributions ---


def test_held_out_combinations_never_occur_in_the_biased_world() -> None:
    for distribution, expected in (("biased", False), ("uniform", True)):
        is_ = binary(draw(distribution, 20_000))
        assert (is_["glasses"] & is_["smile"] & is_["hat"]).any() == expected
        assert (is_["beard"] & is_["long_hair"]).any() == expected
        assert not (is_["hat"] & is_["long_hair"]).any()


def rate(hits: np.ndarray, given: np.ndarray | None = None) -> tuple[float, float]:
    hits = hits if given is None else hits[given]
    return float(hits.mean()), 5 / (2 * len(hits) ** 0.5)  # five standard errors at most


@pytest.mark.parametrize(
    ("distribution", "probabilities"),
    [
        (
            "uniform",
            {
                "hat": (1 / 3, lambda _: True),
                "long_hair": (1 / 3, lambda _: True),
                "glasses": (0.5, lambda _: True),
                "beard": (0.5, lambda is_: is_["hat"] & is_["glasses"]),
                "smile": (0.5, lambda is_: is_["long_hair"] & is_["beard"]),
                "dark_skin": (0.5, lambda is_: is_["smile"] & is_["hat"]),
            },
        ),
        (
            "biased",
            {
                "hat": (0.35, lambda _: True),
                "long_hair": (0.35, lambda _: True),
                "smile": (0.45, lambda is_: is_["beard"]),
                "beard": (0.65, lambda is_: is_["hat"]),
                "glasses": (0.50, lambda is_: ~is_["smile"]),
                "dark_skin": (0.4, lambda is_: is_["beard"]),
            },
        ),
        (
            "biased",
            {
                "beard": (0.30, lambda is_: ~is_["hat"] & ~is_["long_hair"]),
                "glasses": (0.15, lambda is_: is_["smile"] & ~is_["hat"]),
            },
        ),
    ],
)
def test_probabilities_are_those_that_are_declared(
    distribution: str, probabilities: dict[str, tuple[float, Callable]]
) -> None:
    is_ = binary(draw(distribution, 40_000))
    for name, (expected, given) in probabilities.items():
        found, error = rate(is_[name], np.broadcast_to(given(is_), 40_000))
        assert found == pytest.approx(expected, abs=error), name


def test_styles_and_colours_are_even() -> None:
    parts = draw("biased", 40_000)
    labels = labels_of(parts)
    for attribute in SCHEMA.of_kind("categorical"):
        if attribute.name in ("top", "skin_color", "mouth"):  # even only given what they are details of
            continue
        y = labels[:, SCHEMA.index(attribute.name)]
        counts = np.bincount(y[~np.isnan(y)].astype(int), minlength=len(attribute.values))
        share, n = 1 / len(attribute.values), counts.sum()
        assert np.abs(counts / n - share).max() < 5 * (share * (1 - share) / n) ** 0.5, attribute.name


# --- a numbered set ---


def test_an_avatar_depends_on_its_number_only() -> None:
    few, many = AvatarSource(count=100), AvatarSource(count=BLOCK + 50)
    assert len(few) == 100 and len(many) == BLOCK + 50
    assert np.array_equal(few.parts, many.parts[:100])
    images, labels = many.chunk(40, 60)
    assert np.array_equal(images, few.chunk(0, 100)[0][40:60])
    np.testing.assert_array_equal(labels, labels_of(few.parts)[40:60])
    assert len(many.chunk(BLOCK + 40, BLOCK + 60)[0]) == 10


def test_splits_seeds_and_blocks_share_no_random_numbers() -> None:
    """Rows of equal number coincide no more often than chance has it: one in some ten million."""
    train = AvatarSource("uniform", 2 * BLOCK)
    others = [
        AvatarSource("uniform", BLOCK, split="test").parts,
        AvatarSource("uniform", BLOCK, seed=1).parts,
        train.parts[BLOCK:],
    ]
    for other in others:
        same = (other == train.parts[:BLOCK]).all(axis=1)
        assert same.sum() == 0
        for column in range(len(PARTS)):  # nor is one column a copy, as with a stream that is shared in part
            assert (other[:, column] == train.parts[:BLOCK, column]).mean() < 0.7


def test_its_identity_is_json_and_tells_sets_apart() -> None:
    identities = [
        AvatarSource(*arguments).identity()
        for arguments in (("biased", 5), ("uniform", 5), ("biased", 5, "test"), ("biased", 5, "train", 1))
    ]
    assert len({json.dumps(identity) for identity in identities}) == 4
    assert AvatarSource("biased", 7).identity() == identities[0]  # a source that only grew longer


# --- edits ---


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("attribute", BINARY)
def test_variants_differ_by_the_attribute_only(attribute: str, value: bool) -> None:
    count = {
        ("glasses", True): 3,
        ("glasses", False): 1,
        ("beard", True): 3 * 5,
        ("beard", False): 1,
        ("smile", True): 2,
        ("smile", False): 4,
        ("hat", True): 4 * 5,
        ("dark_skin", True): 2,
        ("dark_skin", False): 2,
    }
    may_change = {
        "glasses": {"glasses_style"},
        "beard": {"beard_style", "beard_color"},
        "smile": {"mouth"},
        "hat": {"top", "hair_color", "hat_color"},
        "long_hair": {"top", "hair_color", "hat_color"},
        "dark_skin": {"skin_color"},
    }[attribute]
    for source in draw("uniform", 5):
        before, rows = source.copy(), variants(source, attribute, value)
        assert np.array_equal(source, before)
        assert len(rows) == len(np.unique(rows, axis=0)) == count.get((attribute, value), 5 * 5)
        changed = (rows != source).any(axis=0)
        assert {part for part, c in zip(PARTS, changed, strict=True) if c} <= may_change
        is_, was = binary(rows), binary(source[None])
        assert (is_[attribute] == value).all()
        for other in set(BINARY) - {attribute}:
            if {attribute, other} == {"hat", "long_hair"}:  # one head carries one top
                assert not is_[other].any()
            else:
                assert (is_[other] == was[other]).all()


def test_taking_off_a_hat_or_cutting_hair_gives_every_short_top() -> None:
    source = draw("uniform", 1)[0]
    for attribute, tops in (("hat", SHORT), ("long_hair", SHORT)):
        rows = variants(source, attribute, False)
        assert {PARTS["top"][i] for i in rows[:, COLUMN["top"]]} == set(tops)
    assert {PARTS["top"][i] for i in variants(source, "long_hair", True)[:, COLUMN["top"]]} == set(LONG)


def test_an_edit_changes_nothing_outside_its_region() -> None:
    for source in draw("uniform", 4):
        image = render(source[None])[0].astype(int)
        for edits in ({"glasses": True}, {"hat": False}, {"beard": True, "smile": False}, {"long_hair": True}):
            region = edited_region(source, edits, margin=0)
            rows = source[None]
            for attribute, value in edits.items():  # one edit after the other, every variant of each
                rows = np.concatenate([variants(row, attribute, value) for row in rows])
            difference = np.abs(render(rows).astype(int) - image).max(axis=-1)
            assert difference[:, ~region].max(initial=0) <= 16  # a threshold of 8 per edit
            assert region.shape == (64, 64) and not region.all()


def test_the_region_of_glasses_is_about_the_eyes_and_that_of_hats_above() -> None:
    source = draw("uniform", 1)[0]
    source[[COLUMN["glasses_style"], COLUMN["top"]]] = 0, PARTS["top"].index("theCaesar")
    glasses, hat = (np.argwhere(edited_region(source, {name: True}))[:, 0] for name in ("glasses", "hat"))
    assert hat.mean() < glasses.mean() < 40 and hat.min() < 10 < 20 < glasses.min()


def test_regions_add_up_and_grow_with_the_margin() -> None:
    source = draw("uniform", 2)[1]
    both = edited_region(source, {"glasses": True, "smile": True})
    assert np.array_equal(both, edited_region(source, {"glasses": True}) | edited_region(source, {"smile": True}))
    tight, wide = (edited_region(source, {"smile": True}, margin=margin) for margin in (0, 2))
    assert wide[tight].all() and wide.sum() > tight.sum()
    distance = np.abs(np.argwhere(wide)[:, None] - np.argwhere(tight)[None]).sum(-1).min(1)
    assert distance.max() == 2
    assert not edited_region(source, {}).any()


# --- refusals ---


def test_parts_that_do_not_exist_are_refused() -> None:
    parts = draw("uniform", 5)
    parts[3, COLUMN["mouth"]] = 6
    for function in (render, labels_of):
        with pytest.raises(ValueError, match=r"`parts` row 3: mouth must be in 0\.\.5, got 6; see PARTS\['mouth'\]"):
            function(parts)
    parts[3, COLUMN["mouth"]] = -1
    with pytest.raises(ValueError, match=r"row 3: mouth .* got -1"):
        render(parts)
    for wrong in (parts[0], parts[:, :10]):
        with pytest.raises(ValueError, match=r"`parts` must have shape \(N, 11\), got"):
            labels_of(wrong)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown distribution 'unifrom'; did you mean 'uniform'"):
        draw("unifrom", 3)
    with pytest.raises(ValueError, match="`count` must be at least 1, got 0"):
        draw("uniform", 0)
    with pytest.raises(ValueError, match="`count` must be at least 1, got -1"):
        AvatarSource(count=-1)
    with pytest.raises(ValueError, match="unknown binary attribute 'glases'; did you mean 'glasses'"):
        variants(draw("uniform", 1)[0], "glases", True)
    with pytest.raises(ValueError, match="unknown binary attribute 'hair_color'"):
        edited_region(draw("uniform", 1)[0], {"hair_color": True})
