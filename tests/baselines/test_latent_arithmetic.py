"""Latent arithmetic: exact on linear worlds, an involution under negation, and honest about what it cannot do."""

import math

import pytest
import torch
from torch import Tensor

from lcg.baselines import LatentArithmetic
from lcg.editing import EditRequest, edit_sequence
from lcg.guidance import Formula, parse, parse_edit
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("hat"),
        Attribute("hair", "categorical", ("blond", "red", "black"), applies_if={"hat": False}),
        Attribute("age", "continuous"),
    )
)
NAN = float("nan")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def world(n: int = 400) -> tuple[Tensor, Tensor]:
    """Latents (n, 5) and labels of a world in which every attribute occurs."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.rand(n, 4, generator=generator)
    labels[:, :2] = (labels[:, :2] < 0.4).float()
    labels[:, 2] = torch.randint(3, (n,), generator=generator).float()
    labels[labels[:, 1] == 1, 2] = NAN
    return normal(n, 5), labels


@pytest.fixture
def arithmetic() -> LatentArithmetic:
    return LatentArithmetic.fit(*world(), SCHEMA)


def formula(text: str) -> Formula:
    return parse(text, SCHEMA)


# --- directions ---


def test_a_direction_is_a_difference_of_means(arithmetic: LatentArithmetic) -> None:
    z, labels = world()
    for text, true, false in (
        ("glasses", labels[:, 0] == 1, labels[:, 0] == 0),
        ("hair=red", labels[:, 2] == 1, (labels[:, 2] == 0) | (labels[:, 2] == 2)),
        ("hair in {blond, black}", (labels[:, 2] == 0) | (labels[:, 2] == 2), labels[:, 2] == 1),
        ("age>0.6", labels[:, 3] > 0.6, labels[:, 3] <= 0.6),
    ):
        expected = z[true].mean(0) - z[false].mean(0)
        torch.testing.assert_close(arithmetic.direction(formula(text)), expected, rtol=1e-12, atol=1e-13)


def test_missing_labels_take_no_part() -> None:
    z, labels = world()
    with_missing = labels.clone()
    with_missing[::3, 0] = NAN
    known = torch.arange(len(z)) % 3 != 0
    found = LatentArithmetic.fit(z, with_missing, SCHEMA).direction(formula("glasses"))
    torch.testing.assert_close(
        found, LatentArithmetic.fit(z[known], labels[known], SCHEMA).direction(formula("glasses"))
    )


def test_two_clusters_are_exchanged_by_a_full_step() -> None:
    """Where an attribute only shifts the latent, one step takes each point to its counterpart exactly."""
    shift, without = normal(5, seed=2), normal(50, 5, seed=3)
    labels = torch.zeros(100, 4)
    labels[50:, 0] = 1
    arithmetic = LatentArithmetic.fit(torch.cat((without, without + shift)), labels, SCHEMA)
    torch.testing.assert_close(arithmetic.move(without, [formula("glasses")]), without + shift)
    torch.testing.assert_close(arithmetic.move(without + shift, [formula("~glasses")]), without)


def test_negation_turns_around_and_double_negation_back(arithmetic: LatentArithmetic) -> None:
    d = arithmetic.direction(formula("glasses"))
    assert torch.equal(arithmetic.direction(formula("~glasses")), -d)
    assert torch.equal(arithmetic.direction(formula("~~glasses")), d)
    complement = arithmetic.direction(formula("hair in {blond, black}"))
    torch.testing.assert_close(complement, arithmetic.direction(formula("~hair=red")), rtol=1e-12, atol=1e-13)


# --- moves ---


def test_moves_add_up(arithmetic: LatentArithmetic) -> None:
    z = normal(6, 5, seed=4)
    a, b = formula("glasses"), formula("~hair=red")
    moved = arithmetic.move(z, [a, b], step=0.7)
    torch.testing.assert_close(moved, z + 0.7 * arithmetic.direction(a) + 0.7 * arithmetic.direction(b))
    torch.testing.assert_close(arithmetic.move(arithmetic.move(z, [a], step=0.7), [b], step=0.7), moved)
    torch.testing.assert_close(arithmetic.move(moved, [~a, ~b], step=0.7), z)


def test_no_step_and_no_literals_are_no_move(arithmetic: LatentArithmetic) -> None:
    z = normal(6, 5, seed=4)
    assert torch.equal(arithmetic.move(z, [formula("glasses")], step=0.0), z)
    assert torch.equal(arithmetic.move(z, []), z)


def test_the_constructors_step_is_the_default() -> None:
    z = normal(6, 5, seed=4)
    half, whole = (LatentArithmetic(*world(), SCHEMA, step=step) for step in (0.5, 1.0))
    a = formula("glasses")
    assert torch.equal(half.move(z, [a]), whole.move(z, [a], step=0.5))


def test_precision_and_shape_of_the_latents_are_kept() -> None:
    z, labels = world()
    z = 1e3 + z.float().view(len(z), 5, 1).expand(-1, -1, 2)
    arithmetic = LatentArithmetic.fit(z, labels, SCHEMA)
    assert arithmetic.move(z[:3], [formula("glasses")]).dtype == torch.float32
    true, false = z[labels[:, 0] == 1].double(), z[labels[:, 0] == 0].double()
    torch.testing.assert_close(arithmetic.direction(formula("glasses")), true.mean(0) - false.mean(0))


# --- as an editor and as a sampler ---


def test_an_edit_is_a_move(arithmetic: LatentArithmetic) -> None:
    z = normal(6, 5, seed=4)
    request = EditRequest((parse_edit("+glasses", SCHEMA), parse_edit("-hat", SCHEMA)))
    result = arithmetic.edit(z, request)
    assert result.request is request
    assert torch.equal(result.z_0, arithmetic.move(z, request.edits))


def test_a_sequence_does_not_drift(arithmetic: LatentArithmetic) -> None:
    """Every step starts from the source, and an edit that is taken back leaves nothing of itself."""
    z = normal(6, 5, seed=4)
    edits = [parse_edit(text, SCHEMA) for text in ("+glasses", "hair=red", "-glasses")]
    results = edit_sequence(arithmetic, z, edits)
    assert torch.equal(results[1].z_0, arithmetic.move(z, edits[:2]))
    assert torch.equal(results[2].z_0, arithmetic.move(z, edits[1:]))


def test_generation_moves_unconditional_samples(arithmetic: LatentArithmetic) -> None:
    z = normal(6, 5, seed=4)
    moved = arithmetic.generate(formula("glasses & ~hat & hair=red"), z)
    assert torch.equal(moved, arithmetic.move(z, [formula("glasses"), formula("~hat"), formula("hair=red")]))
    assert torch.equal(arithmetic.generate(formula("glasses"), z), arithmetic.move(z, [formula("glasses")]))


def test_weights_multiply_the_step(arithmetic: LatentArithmetic) -> None:
    z = normal(6, 5, seed=4)
    a, b = (arithmetic.direction(formula(text)) for text in ("glasses", "hat"))
    torch.testing.assert_close(arithmetic.generate(formula("glasses^2.5 & ~hat"), z), z + 2.5 * a - b)
    torch.testing.assert_close(arithmetic.generate(formula("glasses^0.5"), z), z + 0.5 * a)


@pytest.mark.parametrize("text", ["glasses | hat", "~(glasses & hat)", "hair=red & (glasses | hat)"])
def test_other_formulas_are_refused(arithmetic: LatentArithmetic, text: str) -> None:
    with pytest.raises(ValueError, match=r"directions for literals only, such as .*hair=blond, got '.*'; use lcg"):
        arithmetic.generate(formula(text), normal(6, 5))


# --- tuning ---


def test_tuning_finds_the_best_step_and_of_equals_the_smallest() -> None:
    assert LatentArithmetic.tune([2.0, 0.5, 1.0, 1.5], lambda step: -abs(step - 1.6)) == 1.5
    assert LatentArithmetic.tune([2.0, 0.5, 1.0], lambda step: min(step, 1.0)) == 1.0
    assert LatentArithmetic.tune([3.0], lambda step: -math.inf) == 3.0


def test_tuning_without_a_score_is_refused() -> None:
    with pytest.raises(ValueError, match="`steps` must hold at least one candidate, got none"):
        LatentArithmetic.tune([], lambda step: step)
    with pytest.raises(ValueError, match=r"the `score` of step 0\.5 is NaN"):
        LatentArithmetic.tune([1.0, 0.5], lambda step: NAN)


# --- refusals ---


def test_a_literal_without_both_sides_has_no_direction() -> None:
    z, labels = world()
    labels[:, 0] = 0
    labels[:, 1] = 1
    arithmetic = LatentArithmetic.fit(z, labels, SCHEMA)
    with pytest.raises(ValueError, match="no labelled latent for which 'glasses' holds, so it has no direction"):
        arithmetic.direction(formula("glasses"))
    with pytest.raises(ValueError, match="no labelled latent for which 'hat' does not hold"):
        arithmetic.move(z, [formula("~hat")])


def test_literals_of_another_schema_are_refused(arithmetic: LatentArithmetic) -> None:
    longer = Schema((*SCHEMA.attributes, Attribute("smile")))
    for schema, text in ((longer, "smile"), (Schema(SCHEMA.attributes[1:]), "hat")):
        with pytest.raises(
            ValueError, match=f"'{text}' was parsed with another schema; parse it with that of the labels"
        ):
            arithmetic.direction(parse(text, schema))
    assert arithmetic.direction(parse("hat", longer)).shape == (5,)


def test_latents_and_labels_that_do_not_fit_are_refused(arithmetic: LatentArithmetic) -> None:
    z, labels = world()
    with pytest.raises(ValueError, match=r"a row per latent and a column per attribute, got \(400, 5\) and \(399, 4\)"):
        LatentArithmetic.fit(z, labels[1:], SCHEMA)
    with pytest.raises(ValueError, match=r"`labels` \(N, 4\).*got \(400, 5\) and \(400, 3\)"):
        LatentArithmetic.fit(z, labels[:, 1:], SCHEMA)
    with pytest.raises(ValueError, match=r"`z_0` must be \(N, \*latent\).*got \(400,\)"):
        LatentArithmetic.fit(z[:, 0], labels, SCHEMA)
    z[3, 2] = NAN
    with pytest.raises(ValueError, match=r"`z_0` must be finite.*check the latent store"):
        LatentArithmetic.fit(z, labels, SCHEMA)
    with pytest.raises(
        ValueError, match=r"`z_0` must be latents of shape \(5,\), as those of the directions, got \(4,\)"
    ):
        arithmetic.move(normal(6, 4), [formula("glasses")])


@pytest.mark.parametrize("step", [-1.0, NAN, math.inf])
def test_a_step_that_leads_nowhere_is_refused(arithmetic: LatentArithmetic, step: float) -> None:
    with pytest.raises(ValueError, match=r"`step` must be finite and >= 0, got .*negate the literal"):
        LatentArithmetic(*world(), SCHEMA, step=step)
    with pytest.raises(ValueError, match="`step` must be finite and >= 0"):
        arithmetic.move(normal(6, 5), [formula("glasses")], step=step)
