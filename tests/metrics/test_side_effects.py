"""Side effects by hand and against `kept`, disentangled edit strength at its limits, identity by known angles."""

import math

import pytest
import torch
from torch import Tensor

from lcg.metrics import kept
from lcg.metrics.side_effects import (
    SideEffects,
    accuracy_gain,
    cosine_similarity,
    disentangled_edit_strength,
    identity_similarity,
    side_effects,
)
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("hat"),
        Attribute("smile"),
        Attribute("hair", "categorical", ("blond", "red"), applies_if={"hat": False}),
        Attribute("mouth", "categorical", ("open", "shut"), detail_of=("smile",)),
        Attribute("age", "continuous"),
    )
)
NAN = math.nan


def labels(n: int, seed: int) -> Tensor:
    """Random ones, hair where there is no hat."""
    y = torch.randint(2, (n, 5), generator=torch.Generator().manual_seed(seed)).float()
    y[y[:, 0] == 1, 2] = NAN
    return y


# --- the matrix ---


def test_shares_by_hand() -> None:
    before = torch.tensor([[0, 0, 0, 0, 0.5], [0, 0, 1, 1, 0.5], [1, 0, NAN, 1, 0.5], [0, 0, 1, NAN, 0.5]])
    after = torch.tensor([[0, 1, 1, 1, 0.9], [1, 1, NAN, 1, 0.5], [1, 1, NAN, 0, 0.5], [0, 1, 1, NAN, 0.5]])
    found = side_effects(SCHEMA, {"smile": (before, after), "age": (before, after), "hat": (before, after)})
    assert found.edited == ("smile", "age", "hat")
    assert found.attributes == ("hat", "smile", "hair", "mouth")
    expected = torch.tensor(
        [
            [0.25, NAN, 0.5, NAN],  # the mouth is a detail of the smile; hair is seen twice, and once another
            [0.25, 1.0, 0.5, 0.5],
            [NAN, 1.0, NAN, 0.5],  # hair depends on the hat
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(found.share, expected, rtol=0, atol=0, equal_nan=True)
    assert found.count.tolist() == [[4, 0, 2, 0], [4, 4, 2, 4], [0, 4, 0, 4]]


def test_a_missing_label_on_one_side_is_a_change_except_of_a_detail_that_does_not_apply() -> None:
    before, after = torch.tensor([[0, 0, 1, 1, 0.0]]), torch.tensor([[0, NAN, NAN, NAN, 0.0]])
    found = side_effects(SCHEMA, {"hat": (before, after), "age": (before, after)})
    torch.testing.assert_close(
        found.share, torch.tensor([[NAN, 1, NAN, 1], [0, 1, NAN, 1]]).double(), rtol=0, atol=0, equal_nan=True
    )
    assert found.count[1, 2] == 0


def test_a_row_is_zero_exactly_where_all_is_kept() -> None:
    before, after = labels(200, 0), labels(200, 1)
    after = torch.where(torch.rand(200, 1, generator=torch.Generator().manual_seed(2)) < 0.8, before, after)
    for name in ("hat", "smile", "age"):
        stayed = kept(SCHEMA, before, after, (name,), ("binary", "categorical"))
        assert stayed.any() and not stayed.all()
        for rows, changed in ((stayed, False), (~stayed, True)):
            share = side_effects(SCHEMA, {name: (before[rows], after[rows])}).share
            assert bool((share.nan_to_num(0) > 0).any()) is changed
        alone = (side_effects(SCHEMA, {name: pair}).share for pair in zip(before.split(1), after.split(1), strict=True))
        assert [bool((share > 0).any()) for share in alone] == (~stayed).tolist()


def test_sources_may_be_reordered_and_differ_between_edits() -> None:
    before, after = labels(50, 0), labels(50, 1)
    rows = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    found = side_effects(SCHEMA, {"hat": (before, after), "smile": (before[:7], after[:7])})
    again = side_effects(SCHEMA, {"hat": (before[rows], after[rows]), "smile": (before[:7], after[:7])})
    torch.testing.assert_close(found.share, again.share, rtol=0, atol=0, equal_nan=True)
    assert found.count[:, 3].tolist() == [50, 0]


def test_edits_that_do_not_fit_the_schema_are_refused() -> None:
    y = labels(4, 0)
    with pytest.raises(ValueError, match=r"`edits` must name at least one edited attribute, got none; edit something"):
        side_effects(SCHEMA, {})
    with pytest.raises(ValueError, match=r"unknown attribute 'smil'; did you mean 'smile'\?"):
        side_effects(SCHEMA, {"smil": (y, y)})
    for before, after in ((y, y[:3]), (y[:, :4], y[:, :4]), (y[0], y[0])):
        with pytest.raises(ValueError, match=r"`edits\['hat'\]` must be labels of sources and results, both \(N, 5\)"):
            side_effects(SCHEMA, {"hat": (before, after)})


# --- disentangled edit strength ---


def effects(*rows: list[float]) -> SideEffects:
    share = torch.tensor(rows, dtype=torch.float64)
    names = tuple("abcd"[: share.shape[1]])
    return SideEffects(names[: len(rows)], names, share, (~share.isnan()).long())


def test_gain_by_hand() -> None:
    before, after = torch.tensor([0.0, 0, 1, NAN]), torch.tensor([1.0, 1, 1, NAN])
    assert accuracy_gain(before, after, 1.0) == 0.5
    assert accuracy_gain(after, before, 1.0) == -0.5
    assert accuracy_gain(before, before, 1.0) == 0.0


def test_strength_is_gain_less_largest_or_mean_loss() -> None:
    matrix = effects([NAN, 0.1, 0.3], [0.0, NAN, 0.2])
    gains = {"b": 0.5, "a": 0.9}
    assert disentangled_edit_strength(matrix, gains) == pytest.approx({"a": 0.6, "b": 0.3})
    assert disentangled_edit_strength(matrix, gains, loss="mean") == pytest.approx({"a": 0.7, "b": 0.4})


def test_strength_at_its_limits() -> None:
    perfect, idle, wrecking = effects([NAN, 0.0]), effects([NAN, 0.0]), effects([NAN, 1.0])
    assert disentangled_edit_strength(perfect, {"a": 1.0}) == {"a": 1.0}
    assert disentangled_edit_strength(idle, {"a": 0.0}) == {"a": 0.0}
    assert disentangled_edit_strength(wrecking, {"a": 1.0}) == {"a": 0.0}
    assert disentangled_edit_strength(wrecking, {"a": -1.0}) == {"a": -2.0}
    assert disentangled_edit_strength(effects([NAN, NAN]), {"a": 0.4}) == {"a": 0.4}  # nothing else to break


def test_strength_from_labels() -> None:
    before = torch.tensor([[0.0, 0, 0, 0, 0]] * 4)
    after = before.clone()
    after[:3, 1], after[0, 0] = 1, 1
    found = side_effects(SCHEMA, {"smile": (before, after)})
    gains = {"smile": accuracy_gain(before[:, 1], after[:, 1], 1.0)}
    assert disentangled_edit_strength(found, gains) == {"smile": 0.75 - 0.25}


def test_what_is_no_gain_is_refused() -> None:
    y = torch.zeros(3)
    for before, after in ((y, y[:2]), (y[:0], y[:0]), (y[None], y[None])):
        with pytest.raises(ValueError, match=r"`before` and `after` must both be \(N,\) with N >= 1, the column of"):
            accuracy_gain(before, after, 1.0)
    with pytest.raises(ValueError, match=r"`wanted` must be the label that was asked for, got nan; leave out edits"):
        accuracy_gain(y, y, NAN)
    matrix = effects([NAN, 0.1])
    with pytest.raises(ValueError, match=r"unknown loss 'sum';? .*`disentangled_edit_strength` has: max, mean"):
        disentangled_edit_strength(matrix, {"a": 0.5}, loss="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`gains` must be of the edits of the matrix, a, got b"):
        disentangled_edit_strength(matrix, {"b": 0.5})
    with pytest.raises(ValueError, match=r"`gains` must be of the edits of the matrix, a, got none"):
        disentangled_edit_strength(matrix, {})
    for gain in (1.5, NAN):
        with pytest.raises(
            ValueError, match=rf"`gains\['a'\]` must be a difference of shares in \[-1, 1\], got {gain}"
        ):
            disentangled_edit_strength(matrix, {"a": gain})


# --- identity ---


def test_cosine_of_known_angles() -> None:
    angle = torch.linspace(0, torch.pi, 13, dtype=torch.float64)
    turned = torch.stack((angle.cos(), angle.sin()), dim=1)
    start = torch.tensor([[3.0, 0.0]], dtype=torch.float64).expand(13, 2)
    torch.testing.assert_close(cosine_similarity(start, 7 * turned), angle.cos(), rtol=0, atol=1e-15)


def test_cosine_equals_torch_and_does_not_depend_on_length() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(20, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(cosine_similarity(a, b), torch.cosine_similarity(a, b), rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(cosine_similarity(1e-200 * a, 1e200 * b), cosine_similarity(a, b), rtol=1e-13, atol=0)


def test_identity_is_one_of_the_same_image_and_does_not_depend_on_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(7, 3, 4, 4, generator=generator) * 2 - 1 for _ in range(2))

    def extract(images: Tensor) -> Tensor:
        return images.flatten(1)

    torch.testing.assert_close(identity_similarity(extract, x, x), torch.ones(7, dtype=torch.float64))
    torch.testing.assert_close(identity_similarity(extract, x, -x), -torch.ones(7, dtype=torch.float64))
    whole = identity_similarity(extract, x, y)
    torch.testing.assert_close(
        whole, torch.cosine_similarity(x.flatten(1), y.flatten(1)).double(), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(identity_similarity(extract, x, y, batch_size=2), whole, rtol=0, atol=1e-15)


def test_identity_takes_no_gradient() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4))
    assert not identity_similarity(net, torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4)).requires_grad


def test_what_has_no_direction_is_refused() -> None:
    a = torch.eye(3)
    with pytest.raises(
        ValueError, match=r"`before` and `after` must both be embeddings \(N, D\), .* \(3, 3\) and \(2, 3"
    ):
        cosine_similarity(a, a[:2])
    with pytest.raises(ValueError, match=r"`after` must be finite embeddings other than zero, got a row without a dir"):
        cosine_similarity(a, torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"`before` must be finite embeddings"):
        cosine_similarity(a / 0, a)


def test_images_and_extractors_that_do_not_fit_are_refused() -> None:
    x = torch.ones(2, 3, 4, 4)
    for after in (x[:1], x[0]):
        with pytest.raises(ValueError, match=r"`x_before` and `x_after` must be \(N, C, H, W\) of one shape, N >= 1"):
            identity_similarity(lambda y: y.flatten(1), x, after)
    with pytest.raises(ValueError, match=r"`x_before` and `x_after` must be \(N, C, H, W\) of one shape, N >= 1"):
        identity_similarity(lambda y: y.flatten(1), x[:0], x[:0])
    with pytest.raises(ValueError, match=r"`batch_size` must be >= 1, got 0"):
        identity_similarity(lambda y: y.flatten(1), x, x, batch_size=0)
    with pytest.raises(
        ValueError, match=r"`extract` must give embeddings \(2, D\), a row per image, got \(2, 3, 4, 4\)"
    ):
        identity_similarity(lambda y: y, x, x)
