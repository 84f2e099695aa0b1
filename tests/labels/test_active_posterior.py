"""The last layer's posterior against closed forms, and guidance's error against what guidance does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lcg.diffusion import CosineSchedule, diffuse
from lcg.labels.active_posterior import (
    Sight,
    binary_information,
    entropy,
    label_information,
    low_rank,
    posterior,
    stratified,
)
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("hat"), Attribute("hair", "categorical", ("a", "b", "c")), Attribute("age", "continuous")))
SCHEDULE = CosineSchedule()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def classifier(trunk: str = "shared", components: int = 1) -> TimeConditionedClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = TimeConditionedClassifier((5,), SCHEMA, 12, 1, components=components, trunk=trunk)  # type: ignore[arg-type]
        for parameter in net.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)
    return net.eval().requires_grad_(False)


def latents(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 5, generator=rng(seed))


@pytest.mark.parametrize(("trunk", "components"), [("shared", 1), ("shared", 4), ("separate", 1)])
def test_features_times_weights_are_the_logit(trunk: str, components: int) -> None:
    net, t = classifier(trunk, components), torch.full((7,), 0.4)
    sight = Sight(net, "hat", SCHEDULE)
    h, v, p = sight.at(latents(7), t)
    last = (sight._single.nets[0] if trunk == "separate" else sight._single.net).output
    logit = (h @ torch.cat([last.weight, last.bias[:, None]], 1).T)[:, 0]
    outputs = net(latents(7), t)
    single = outputs if isinstance(outputs, dict) else outputs.single
    torch.testing.assert_close(logit, single["hat"])
    torch.testing.assert_close(p[:, 1], torch.sigmoid(logit))
    torch.testing.assert_close(v, p[:, 0] * p[:, 1])


def test_the_posterior_of_a_continuous_attribute_is_bayesian_linear_regression() -> None:
    sight, z = Sight(classifier(), "age", SCHEDULE), latents(40)
    seen = sight.look(z, torch.zeros(1), rng())
    h, noise = seen.h[:, 0].double(), seen.p[:, 0, 1].double()
    prior = h.shape[1] * 2 / sight.weights.double().square().sum()
    expected = torch.linalg.inv(h.T @ torch.diag(1 / noise) @ h + prior * torch.eye(13, dtype=torch.float64))
    torch.testing.assert_close(posterior(sight, seen), expected)


def test_without_labels_the_posterior_is_the_prior_and_every_label_narrows_it() -> None:
    sight, z = Sight(classifier(), "hat", SCHEDULE), latents(30)
    seen = sight.look(z, stratified(4, rng()), rng())
    none, some, all_ = (posterior(sight, seen[torch.arange(n)]) for n in (0, 10, 30))
    torch.testing.assert_close(none, none[0, 0] * torch.eye(13, dtype=torch.float64))
    assert torch.linalg.eigvalsh(none - some).min() > -1e-12
    assert torch.linalg.eigvalsh(some - all_).min() > -1e-12


def test_binary_information_has_its_limits_and_agrees_with_sampling() -> None:
    mean = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64)
    small = torch.full_like(mean, 1e-4)
    p = torch.sigmoid(mean)
    torch.testing.assert_close(binary_information(mean, small), 0.5 * p * (1 - p) * small, rtol=1e-3, atol=0)
    assert float(binary_information(mean, 0 * small).abs().max()) < 1e-12
    large = float(binary_information(torch.zeros(1), torch.full((1,), 400.0)))
    assert 0.9 * math.log(2) < large < math.log(2)
    u = mean + 1.5 * torch.randn(400_000, 1, generator=rng(), dtype=torch.float64)
    q = torch.sigmoid(u)
    sampled = entropy(torch.stack([q.mean(0), 1 - q.mean(0)], -1)) - entropy(torch.stack([q, 1 - q], -1)).mean(0)
    torch.testing.assert_close(binary_information(mean, torch.full_like(mean, 2.25)), sampled, rtol=0, atol=2e-3)


def test_information_of_other_kinds() -> None:
    hair, age = SCHEMA["hair"], SCHEMA["age"]
    p, small = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([1e-4])
    trace = (p * (1 - p)).sum(1)
    torch.testing.assert_close(label_information(hair, p, small), 0.5 * small * trace, rtol=1e-3, atol=0)
    torch.testing.assert_close(label_information(hair, p, torch.tensor([1e9])), entropy(p))
    exact = 0.5 * torch.log(torch.tensor([1 + 3.0 / 0.5]))  # log of the ratio of standard deviations, before and after
    torch.testing.assert_close(label_information(age, torch.tensor([[7.0, 0.5]]), torch.tensor([3.0])), exact)


@pytest.mark.parametrize("name", ["hat", "hair", "age"])
def test_the_sensitivity_is_the_error_that_uncertain_weights_make_in_guidance(name: str) -> None:
    """Every weight is moved a little, and the squared change of sigma_t grad log p is measured."""
    net, z = classifier(), latents(4000)
    sight, band = Sight(net, name, SCHEDULE), (0.3, 0.30001)
    matrix = sight.sensitivity(latents(40_000, seed=5), band, rng(1))
    t = torch.full((len(z),), 0.3)
    z_t = diffuse(SCHEDULE, z, t, torch.randn(z.shape, generator=rng(2))).requires_grad_()
    size = {"hat": 1, "hair": 3, "age": 1}[name]
    wanted = torch.randint(max(2, size), (len(z),), generator=rng(3))

    def guidance(delta: Tensor) -> Tensor:
        h, _, p = sight.at(z_t, t)
        logit = (h @ delta.T) + net(z_t, t)[name].reshape(len(z), -1)[:, :size]
        if name == "age":  # the mean's weights alone; log p = -(y - m)^2 / (2 variance) for a y far away, so dm counts
            return torch.autograd.grad((logit[:, 0] / p[:, 1]).sum(), z_t)[0]
        full = torch.cat([torch.zeros_like(logit), logit], 1) if size == 1 else logit
        log_p = full.log_softmax(1).gather(1, wanted[:, None])
        return torch.autograd.grad(log_p.sum(), z_t)[0]

    at_rest, change, step = guidance(torch.zeros(size, 13)), 0.0, 1e-3
    for moved in torch.eye(size * 13).unflatten(1, (size, 13)):
        change += float((guidance(step * moved) - at_rest).square().sum(1).mean()) / step**2
    sigma = float(SCHEDULE.sigma(torch.tensor([0.3])))
    assert change * sigma**2 == pytest.approx(float(matrix.trace()), rel=0.1)
    root = low_rank(matrix, 1.0)
    torch.testing.assert_close(root @ root.T, matrix, rtol=1e-6, atol=1e-9)
