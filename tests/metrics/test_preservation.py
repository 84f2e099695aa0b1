"""What an edit must not change: labels that it does not set free, and pixels outside its region."""

import math

import pytest
import torch
from torch import Tensor

from lcg.data.avatars import SCHEMA as AVATARS
from lcg.metrics import edit_success, kept, l1_outside
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("hat"),
        Attribute("smile"),
        Attribute("hair", "categorical", ("blond", "red"), applies_if={"hat": False}),
        Attribute("mouth", "categorical", ("open", "shut"), detail_of=("smile",)),
        Attribute("eyes", "categorical", ("round", "closed")),
        Attribute("age", "continuous"),
    )
)
NAN = math.nan
FINE = ("binary", "categorical")


def one_kept(before: list[float], after: list[float], edited: tuple[str, ...] = (), kinds: tuple = FINE) -> bool:
    return bool(kept(SCHEMA, torch.tensor([before]), torch.tensor([after]), edited, kinds)[0])


SOURCE = [0.0, 0.0, 1.0, 0.0, 1.0, 0.5]


def test_nothing_changed() -> None:
    assert one_kept(SOURCE, SOURCE)
    assert one_kept([NAN] * 6, [NAN] * 6)


def test_what_the_edit_names_and_its_details_are_free() -> None:
    smiling = [0.0, 1.0, 1.0, 1.0, 1.0, 0.5]
    assert one_kept(SOURCE, smiling, ("smile",))
    assert not one_kept(SOURCE, smiling)
    assert not one_kept(SOURCE, smiling, ("hat",))
    assert one_kept(SOURCE, [1.0, 0.0, NAN, 0.0, 1.0, 0.5], ("hat",))


def test_every_other_attribute_counts_by_its_kind() -> None:
    winking = [0.0, 0.0, 1.0, 0.0, 0.0, 0.5]
    assert not one_kept(SOURCE, winking)
    assert one_kept(SOURCE, winking, kinds=("binary",))
    assert one_kept(SOURCE, [1.0, 0.0, NAN, 0.0, 1.0, 0.5], kinds=("categorical",))
    assert one_kept(SOURCE, [0.0, 0.0, 1.0, 0.0, 1.0, 0.9])  # degrees are not judged
    assert one_kept(SOURCE, [1.0, 1.0, 0.0, 1.0, 0.0, 0.9], kinds=())


def test_a_detail_counts_where_it_applies_on_both_sides() -> None:
    hatted = [1.0, 0.0, NAN, 0.0, 1.0, 0.5]
    assert one_kept(SOURCE, hatted, kinds=("categorical",)) and one_kept(hatted, SOURCE, kinds=("categorical",))
    assert not one_kept(SOURCE, hatted)  # the hat itself was not asked for
    assert not one_kept(SOURCE, [0.0, 0.0, 0.0, 0.0, 1.0, 0.5])


def test_a_label_that_is_missing_on_one_side_disagrees() -> None:
    assert not one_kept(SOURCE, [0.0, NAN, 1.0, 0.0, 1.0, 0.5])
    assert not one_kept([0.0, 0.0, 1.0, 0.0, NAN, 0.5], SOURCE)


def test_rows_are_independent() -> None:
    before = torch.tensor([SOURCE] * 3)
    after = before.clone()
    after[1, 4] = 0
    assert kept(SCHEMA, before, after, ("smile",), FINE).tolist() == [True, False, True]


def test_in_the_avatar_world_putting_on_glasses_frees_their_style_only() -> None:
    before = torch.zeros(1, len(AVATARS))
    before[0, AVATARS.index("glasses_style")] = NAN
    for attribute in AVATARS.of_kind("binary", "categorical"):
        after = before.clone()
        after[0, AVATARS.index("glasses")], after[0, AVATARS.index("glasses_style")] = 1, 2
        after[0, AVATARS.index(attribute.name)] = 1
        free = attribute.name in ("glasses", "glasses_style")
        assert bool(kept(AVATARS, before, after, ("glasses",), FINE)[0]) == free, attribute.name


def test_wrong_labels_names_and_kinds_are_refused() -> None:
    labels = torch.tensor([SOURCE] * 2)
    with pytest.raises(ValueError, match=r"`after` must be \(2, 6\).*got \(1, 6\)"):
        kept(SCHEMA, labels, labels[:1], ())
    with pytest.raises(ValueError, match=r"`before` must be \(2, 6\).*got \(2, 5\)"):
        kept(SCHEMA, labels[:, :5], labels, ())
    with pytest.raises(ValueError, match="unknown attribute 'hut'; did you mean 'hat'"):
        kept(SCHEMA, labels, labels, ("hut",))
    with pytest.raises(
        ValueError, match=r"unknown kind 'continuous'.*what can be kept exactly has: binary, categorical"
    ):
        kept(SCHEMA, labels, labels, (), ("continuous",))


# --- pixels ---


def images() -> tuple[Tensor, Tensor]:
    return torch.rand(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).unbind()


def test_a_change_from_black_to_white_is_one() -> None:
    black = -torch.ones(2, 3, 4, 4)
    nowhere = torch.zeros(2, 4, 4, dtype=torch.bool)
    assert l1_outside(black, -black, nowhere).tolist() == [1.0, 1.0]


def test_only_pixels_outside_count() -> None:
    before, after = images()
    region = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    found = l1_outside(before, after, region)
    for row in range(3):
        expected = ((after[row] - before[row]).abs() / 2)[:, ~region[row]].double().mean()
        assert float(found[row]) == pytest.approx(float(expected), rel=1e-6)
    inside = torch.where(region[:, None], 0.7, after)
    assert torch.equal(l1_outside(before, inside, region), found)
    assert found.dtype == torch.float64


def test_nothing_lies_outside_the_whole_image() -> None:
    before, after = images()
    assert l1_outside(before, after, torch.ones(3, 4, 4, dtype=torch.bool)).tolist() == [0.0] * 3


def test_wrong_images_and_regions_are_refused() -> None:
    before, after = images()
    region = torch.zeros(3, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"of one shape, got \(3, 3, 4, 4\) and \(2, 3, 4, 4\)"):
        l1_outside(before, after[:2], region)
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\)"):
        l1_outside(before[0], after[0], region)
    with pytest.raises(ValueError, match=r"`region` must be \(3, 4, 4\), a map per image, got \(4, 4\)"):
        l1_outside(before, after, region[0])
    with pytest.raises(TypeError, match=r"`region` must be bool, got torch\.float32"):
        l1_outside(before, after, region.float())


# --- both ---


def test_success_needs_all_three() -> None:
    yes, no = torch.tensor([True]), torch.tensor([False])
    small, large = torch.tensor([0.03]), torch.tensor([0.031])
    assert edit_success(yes, yes, small.double()).item()
    assert not edit_success(no, yes, small).item()
    assert not edit_success(yes, no, small).item()
    assert not edit_success(yes, yes, large).item()
    assert edit_success(yes, yes, large, bound=0.04).item()
    assert not edit_success(yes, yes, torch.tensor([NAN])).item()


def test_what_cannot_be_a_success_or_a_failure_is_refused() -> None:
    yes, l1 = torch.tensor([True, True]), torch.zeros(2)
    with pytest.raises(TypeError, match=r"`kept` must be bool, got torch\.float32"):
        edit_success(yes, l1, l1)
    with pytest.raises(TypeError, match=r"`present` must be bool"):
        edit_success(l1, yes, l1)
    with pytest.raises(ValueError, match=r"must have one shape \(N,\), got \(2,\), \(1,\), \(2,\)"):
        edit_success(yes, yes[:1], l1)
    with pytest.raises(ValueError, match=r"`bound` must be in \[0, 1\], got 3"):
        edit_success(yes, yes, l1, bound=3)
