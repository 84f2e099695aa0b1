"""Literals under a clean classifier: the sum of the heads' own likelihoods, and noise that belongs to a source."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lcg.baselines.clean import LogProbability, conjunction, log_probability, own_noise
from lcg.baselines.contract import Literal, literals
from lcg.diffusion import randn
from lcg.guidance import parse
from lcg.guidance.terms import gradient
from lcg.nets.heads import HeadOutputs, log_likelihood
from lcg.nets.latent_classifier import LatentClassifier
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("hat"),
        Attribute("hair", "categorical", ("blond", "red", "black"), detail_of=("hat",)),
        Attribute("age", "continuous"),
    )
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def classifier() -> LatentClassifier:
    torch.manual_seed(0)
    return LatentClassifier((5,), SCHEMA, (7,)).double().requires_grad_(False)


def wanted(text: str) -> tuple[Literal, ...]:
    return literals([parse(text, SCHEMA)], SCHEMA, "a test")


def under(classifier: LatentClassifier, text: str) -> LogProbability:
    return log_probability(classifier, wanted(text))


# --- the log-probability ---


def test_it_is_the_sum_of_the_heads_likelihoods(classifier: LatentClassifier) -> None:
    z = normal(6, 5)
    heads = classifier(z)
    labels = {"glasses": 0.0, "hat": 1.0, "hair": 2.0}
    expected = sum(log_likelihood(SCHEMA[name], heads[name], torch.full((6,), y)) for name, y in labels.items())
    mean, log_variance = heads["age"].unbind(1)
    expected = expected + torch.special.log_ndtr((mean - 0.6) / (0.5 * log_variance).exp())
    found = under(classifier, "~glasses & hat & hair=black & age>0.6")(z)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_for_binary_attributes_it_is_minus_the_cross_entropy(classifier: LatentClassifier) -> None:
    z = normal(6, 5)
    logits = torch.stack([classifier(z)[name] for name in ("glasses", "hat")], dim=1)
    target = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(6, 2)
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    torch.testing.assert_close(under(classifier, "glasses & ~hat")(z), -loss, rtol=1e-12, atol=1e-12)


def test_weights_multiply_and_literals_of_one_attribute_are_taken_together(classifier: LatentClassifier) -> None:
    z = normal(6, 5)
    a, b = under(classifier, "glasses")(z), under(classifier, "~hat")(z)
    torch.testing.assert_close(under(classifier, "glasses^2.5 & ~hat^0.5")(z), 2.5 * a + 0.5 * b)
    both = under(classifier, "hair in {blond, black} & ~hair=black")(z)
    torch.testing.assert_close(both, under(classifier, "hair=blond")(z))


def test_its_gradient_does_not_vanish_far_from_the_target() -> None:
    """grad log sigmoid(u) = sigmoid(-u) grad u, which is grad u where the attribute is out of the question."""

    def far(z: Tensor) -> HeadOutputs:
        return {"glasses": z.sum(1) - 300}

    log_p = log_probability(far, wanted("glasses"))
    torch.testing.assert_close(gradient(log_p, torch.zeros(2, 3)), torch.ones(2, 3))


def test_literals_are_written_as_one_formula() -> None:
    for text in ("glasses", "~hat", "glasses & ~hat & hair=blond", "glasses^2.0 & ~hat^0.5"):
        assert str(conjunction(wanted(text))) == text


def test_what_cannot_be_asked_is_refused(classifier: LatentClassifier) -> None:
    with pytest.raises(ValueError, match="one that can hold, got 'glasses & ~glasses', which contradicts itself"):
        under(classifier, "glasses & ~glasses")
    with pytest.raises(ValueError, match=r"one that can fail, got .*has no weight"):
        under(classifier, "glasses^0")
    with pytest.raises(ValueError, match="`wanted` must hold at least one literal, got none"):
        log_probability(classifier, ())


# --- noise ---


def test_a_source_has_its_own_noise_whatever_batch_it_is_in() -> None:
    z = normal(4, 2, 3)
    noise = randn(z.shape, own_noise(z))
    assert torch.equal(randn(z[1:3].shape, own_noise(z[1:3])), noise[1:3])
    assert torch.equal(randn(z.shape, own_noise(z.flip(0))), noise.flip(0))
    assert len({float(x) for x in noise[:, 0, 0]}) == 4


def test_another_seed_is_other_noise() -> None:
    z = normal(2, 3)
    one, other = (randn(z.shape, own_noise(z, seed)) for seed in (0, 1))
    assert not torch.isclose(one, other).any()
