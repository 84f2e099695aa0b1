"""GradCtrl: the mask takes out exactly the salient channels, steps have the length they say, and lines are straight."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lcg.baselines.clean import log_probability
from lcg.baselines.gradctrl import GradCtrl, log_odds, salience, salient
from lcg.guidance.terms import gradient
from lcg.nets.latent_classifier import LatentClassifier

DIM = 8


@pytest.fixture
def fitted(wide) -> Callable[..., GradCtrl]:
    def fit(network: LatentClassifier, **options: Any) -> GradCtrl:
        return GradCtrl(wide.save(network), **options).fit(wide.training())

    return fit


def unit(*values: float) -> Tensor:
    direction = torch.zeros(DIM)
    direction[: len(values)] = torch.tensor(values)
    return direction / direction.norm()


# --- the direction ---


@pytest.mark.parametrize("text", ["glasses", "~hat", "hair=red", "~hair=blond"])
def test_log_odds_point_where_the_probability_does(text: str, wide) -> None:
    """grad p = p (1 - p) grad log-odds: one direction and one order of channels, which is all that the method uses."""
    network, z = wide.mlp().double(), wide.normal(5, DIM).double()
    (literal,) = wide.literals(text)
    ours = gradient(lambda z: log_odds(literal, network(z)), z)
    theirs = gradient(lambda z: log_probability(network, [literal])(z).exp(), z)
    p = log_probability(network, [literal])(z).detach().exp()
    torch.testing.assert_close((p * (1 - p))[:, None] * ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_certain_classifier_still_has_a_direction(fitted: Callable[..., GradCtrl], wide) -> None:
    """At a logit of 200 the probability is 1 in float32, and its gradient is 0; so it is at -200."""
    for offset in (200.0, -200.0):
        (direction,) = fitted(wide.linear(offset), masked=0.0).directions(wide.normal(3, DIM), wide.literals("glasses"))
        torch.testing.assert_close(direction, unit(2.0, 1.0).expand(3, -1))


def test_negation_turns_around(fitted: Callable[..., GradCtrl], wide) -> None:
    method, z = fitted(wide.mlp()), wide.normal(4, DIM)
    for text in ("glasses", "hair=red", "age>0.3"):
        for a, b in zip(
            method.directions(z, wide.literals(text)), method.directions(z, wide.literals(f"~{text}")), strict=True
        ):
            torch.testing.assert_close(a, -b)


# --- the mask ---


def test_salient_channels_are_those_with_the_largest_gradients(wide) -> None:
    grad = torch.tensor([[0.1, -5.0, 2.0, 0.0], [1.0, 0.0, -3.0, 2.0]])
    assert salient(grad, 0.5).tolist() == [[False, True, True, False], [False, False, True, True]]
    assert salient(grad, 0.25).tolist() == [[False, True, False, False], [False, False, True, False]]
    assert not salient(grad, 0.0).any()
    assert salient(wide.normal(3, 4, 5), 0.3).flatten(1).sum(1).tolist() == [6, 6, 6]


def test_the_mask_removes_exactly_the_salient_channels(fitted: Callable[..., GradCtrl], wide) -> None:
    network, z = wide.mlp(), wide.normal(6, DIM)
    method = fitted(network, masked=0.25)
    (direction,) = method.directions(z, wide.literals("glasses"))
    gone = gradient(lambda z: network(z)["hat"], z).abs().argsort(1, descending=True)[:, :2]  # 2 of 8 channels
    kept = torch.ones(6, DIM).scatter(1, gone, 0.0)
    raw = kept * gradient(lambda z: network(z)["glasses"], z)
    torch.testing.assert_close(direction, raw / raw.norm(dim=1, keepdim=True))
    assert ((direction == 0).sum(1) == 2).all()


def test_an_attribute_whose_channels_are_masked_does_not_move(fitted: Callable[..., GradCtrl], wide) -> None:
    """Hat needs the channels 1 and 2 and no others: with these masked its logit stays, without the mask it moves."""
    network, z = wide.linear(), wide.normal(6, DIM)
    masked, free = (wide.edit(fitted(network, masked=share), z, "+glasses") for share in (0.25, 0.0))
    assert torch.equal(network(masked)["hat"], network(z)["hat"])
    assert (network(free)["hat"] - network(z)["hat"]).min() > 1.0
    assert (network(masked)["glasses"] > network(z)["glasses"] + 1.0).all()


def test_edited_attributes_and_their_details_are_not_protected(fitted: Callable[..., GradCtrl], wide) -> None:
    def others(method: GradCtrl, *edits: str) -> list[str]:
        return [attribute.name for attribute in method.others(wide.literals(*edits))]

    method = fitted(wide.linear())
    assert others(method, "hair=red") == ["glasses", "hat"]
    assert others(method, "glasses") == ["hat"]
    assert others(method, "glasses", "~hat") == []
    method = fitted(wide.linear(), protected=["hair", "hat", "age"])
    assert others(method, "glasses") == ["hat", "hair", "age"]
    assert others(method, "~hat") == ["age"]  # what is under a hat is a detail of it


def test_salience_of_other_kinds(fitted: Callable[..., GradCtrl], wide) -> None:
    """Channels are ordered as by the probability of the most probable value; for an age, as by its mean."""
    network, z = wide.mlp().double(), wide.normal(5, DIM).double()
    ours = gradient(lambda z: salience(wide.schema["hair"], network(z)["hair"]), z)
    theirs = gradient(lambda z: network(z)["hair"].softmax(1).amax(1), z)
    p = network(z)["hair"].softmax(1).amax(1).detach()[:, None]
    torch.testing.assert_close(p * (1 - p) * ours, theirs, rtol=1e-9, atol=1e-12)
    mean = network(z)["age"][:, 0]
    assert torch.equal(salience(wide.schema["age"], network(z)["age"]), mean)


def test_where_the_mask_leaves_nothing_the_latent_stays(fitted: Callable[..., GradCtrl], wide) -> None:
    z = wide.normal(4, DIM)
    method = fitted(wide.linear(), masked=0.25, protected=["hair"])  # age and hair both need channel 3, and no other
    assert torch.equal(wide.edit(method, z, "age>0.5"), z)
    assert torch.equal(wide.edit(fitted(wide.linear(), masked=0.9), z, "+glasses"), z)


# --- the path ---


def test_with_a_linear_classifier_the_path_is_a_straight_line(fitted: Callable[..., GradCtrl], wide) -> None:
    z = wide.normal(5, DIM)
    for share, normal_vector in ((0.0, unit(2.0, 1.0)), (0.25, unit(1.0)), (0.125, unit(1.0))):
        method = fitted(wide.linear(), masked=share)
        for strength in (0.5, 1.0, 2.0):
            moved = wide.edit(method, z, "+glasses", strength=strength)
            torch.testing.assert_close(moved, z + 4 * strength * normal_vector, rtol=1e-5, atol=1e-5)


def test_steps_have_the_stated_length_and_the_path_bends(fitted: Callable[..., GradCtrl], wide) -> None:
    """k steps of a path that is k/9 as long are the first k steps of it."""
    network, z = wide.mlp(), wide.normal(5, DIM)
    path = [z] + [wide.edit(fitted(network, steps=k, length=k * 4 / 9), z, "+glasses") for k in range(1, 10)]
    torch.testing.assert_close(path[-1], wide.edit(fitted(network), z, "+glasses"))
    steps = torch.stack(path).diff(dim=0)
    torch.testing.assert_close(steps.norm(dim=2), torch.full((9, 5), 4 / 9), rtol=1e-5, atol=1e-5)
    assert (torch.cosine_similarity(steps[0], steps[-1], dim=1) < 0.999).any()


def test_several_edits_have_a_step_each(fitted: Callable[..., GradCtrl], wide) -> None:
    z = wide.normal(4, DIM)
    method = fitted(wide.linear(), masked=0.0)
    moved = wide.edit(method, z, "+glasses", "-hat")
    torch.testing.assert_close(moved, z + 4 * unit(2.0, 1.0) - 4 * unit(0.0, 3.0, 1.0))
    weighted = method.generate(wide.formula("glasses^0.5 & ~hat^2"), z)
    torch.testing.assert_close(weighted, z + 2 * unit(2.0, 1.0) - 8 * unit(0.0, 3.0, 1.0))


def test_latents_of_any_shape(wide) -> None:
    flat, shaped, given = wide.mlp(), LatentClassifier((2, 4), wide.schema, (16,)), wide.training()
    shaped.load_state_dict(flat.state_dict())
    z = wide.normal(3, DIM)
    expected = wide.edit(GradCtrl(wide.save(flat)).fit(given), z, "+glasses")
    method = GradCtrl(wide.save(shaped)).fit(replace(given, z_0=given.z_0.view(-1, 2, 4)))
    torch.testing.assert_close(wide.edit(method, z.view(3, 2, 4), "+glasses").view(3, DIM), expected)


# --- as an editor and as a sampler ---


@pytest.mark.parametrize("text", ["glasses", "~hat", "hair=red", "~hair=black", "age>0.6", "age<-0.6"])
def test_every_kind_of_edit_becomes_more_probable(fitted: Callable[..., GradCtrl], text: str, wide) -> None:
    network, z = wide.mlp(), wide.normal(20, DIM)
    log_p = log_probability(network, wide.literals(text))
    moved = fitted(network, masked=0.0).generate(wide.formula(text), z, strength=0.5)
    assert (log_p(moved) > log_p(z)).all()


def test_generation_edits_samples_of_the_prior(fitted: Callable[..., GradCtrl], wide) -> None:
    z, method = wide.normal(4, DIM), fitted(wide.mlp())
    edited = wide.edit(method, z, "+glasses", "-hat", strength=1.5)
    assert torch.equal(method.generate(wide.formula("glasses & ~hat"), z, strength=1.5), edited)


# --- refusals ---


def test_options_out_of_range_are_refused() -> None:
    for options, message in (
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"length": 0.0}, r"`length` must be positive and finite, got 0\.0"),
        ({"masked": 1.0}, r"`masked` must be in \[0, 1\), got 1\.0"),
        ({"masked": -0.1}, r"`masked` must be in \[0, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            GradCtrl(**options)


def test_what_it_cannot_do_is_refused(fitted: Callable[..., GradCtrl], wide) -> None:
    z, method = wide.normal(4, DIM), fitted(wide.linear())
    with pytest.raises(ValueError, match="the edits contradict each other: glasses & ~glasses; take one back"):
        wide.edit(method, z, "+glasses", "-glasses")
    with torch.inference_mode(), pytest.raises(RuntimeError, match="guidance needs gradients"):
        wide.edit(method, z, "+glasses")
    with pytest.raises(ValueError, match="unknown attribute 'glases'; did you mean 'glasses'"):
        fitted(wide.linear(), protected=["glases"])
