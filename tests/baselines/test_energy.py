"""Energy guidance: Langevin with its closed-form moments, discretisation error included, and the best of its states."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lcg.baselines.clean import log_probability, own_noise
from lcg.baselines.energy import EnergyGuidance
from lcg.diffusion import generators, randn
from lcg.nets.latent_classifier import LatentClassifier

DIM = 4


@pytest.fixture
def fitted(small) -> Callable[..., EnergyGuidance]:
    def fit(network: LatentClassifier, **options: Any) -> EnergyGuidance:
        return EnergyGuidance(small.save(network), **options).fit(small.training())

    return fit


# --- the chain ---


@pytest.mark.parametrize("h", [0.05, 0.5, 1.0])
def test_with_a_gaussian_energy_mean_and_variance_are_the_closed_form(h: float) -> None:
    """log p = -q (z - c)^2 / 2 gives E the precision l = 1 + weight q, the mean weight q c / l, and variance 1 / l.

    Langevin leaves the mean as it is and makes the variance 1 / (l (1 - h l / 4)).
    """
    q, c, weight, n = torch.tensor([0.0, 0.2, 0.5]), torch.tensor([1.0, -2.0, 3.0]), 5.0, 8000
    method = EnergyGuidance(weight=weight, step_size=h, best=False)

    def log_p(z: Tensor) -> Tensor:
        return -0.5 * (q * (z - c).square()).sum(1)

    steps = torch.full((n, 1), round(12 / h))
    z = method.langevin(log_p, torch.zeros(n, 3), steps, torch.Generator().manual_seed(0))
    precision = 1 + weight * q
    mean, variance = weight * q * c / precision, 1 / (precision * (1 - h * precision / 4))
    assert ((z.mean(0) - mean) / (variance / n).sqrt()).abs().max() < 4.5
    torch.testing.assert_close(z.var(0), variance, rtol=0.07, atol=0.0)
    if h == 1.0:  # the error of discretisation is seen: without it the test would fail
        assert (z.var(0) / (1 / precision)).min() > 1.25


@pytest.mark.parametrize("best", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_chains_of_any_length_run_together_as_written(best: bool, own: bool) -> None:
    """One chain after another with the numbers that its row draws; and none is evaluated when it has ended."""
    method, lengths, z, asked = EnergyGuidance(best=best), [0, 3, 1, 7], torch.linspace(-2, 2, 8).view(4, 2), []
    target = torch.tensor([1.0, -0.5])

    def log_p(z: Tensor) -> Tensor:
        asked.append(len(z))
        return -(z - target).square().sum(1)

    def rng() -> Any:
        return generators(range(4)) if own else torch.Generator().manual_seed(0)

    source = rng()
    noise = [randn((4, 2), source) for _ in range(8)]
    h, expected = method.step_size, []
    for row, length in enumerate(lengths):
        visited = [z[row]]
        for k in range(length):
            x = visited[-1]
            visited.append(x - h / 2 * (x + 2 * method.weight * (x - target)) + math.sqrt(h) * noise[k][row])
        expected.append(max(visited, key=lambda x: -float((x - target).square().sum())) if best else visited[-1])
    found = method.langevin(log_p, z, torch.tensor(lengths).float()[:, None], rng())
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-6)
    assert asked == [4, 3, 2, 2, 1, 1, 1, 1]


def test_far_from_the_target_the_posterior_is_the_prior_shifted(fitted: Callable[..., EnergyGuidance], small) -> None:
    """A logit far below 0 has log p = a.z + b: the energy is that of N(weight a, I)."""
    method = fitted(small.linear(-200.0), best=False, weight=2.0)
    z = method.generate(small.formula("glasses"), torch.zeros(5000, DIM), torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), torch.tensor([4.0, 2.0, 0.0, 0.0]), rtol=0.02, atol=0.07)
    torch.testing.assert_close(z.var(0), torch.full((DIM,), 1 / (1 - 0.05 / 4)), rtol=0.08, atol=0.0)


def test_one_step_is_the_update_of_the_module(fitted: Callable[..., EnergyGuidance], small) -> None:
    network, z = small.mlp().requires_grad_(False), small.normal(5, DIM)
    log_p = log_probability(network, small.literals("glasses & hair=red"))
    leaf = z.clone().requires_grad_()
    energy = -5 * log_p(leaf) + 0.5 * leaf.square().sum(1)
    (slope,) = torch.autograd.grad(energy.sum(), leaf)
    moved = small.edit(fitted(network, steps=1, best=False), z, "+glasses", "hair=red")
    torch.testing.assert_close(moved, z - 0.025 * slope + math.sqrt(0.05) * randn(z.shape, own_noise(z)))


def test_what_the_prior_forgets_of_the_source(fitted: Callable[..., EnergyGuidance], small) -> None:
    """Without a classifier two chains with the same noise approach each other by 1 - h / 2 at every step."""
    method = fitted(small.mlp(), weight=0.0, best=False, steps=30)
    z, other = small.normal(5, DIM), small.normal(5, DIM, seed=1)
    ends = [method.move(start, [small.formula("glasses")], randomness=generators(range(5))) for start in (z, other)]
    torch.testing.assert_close(ends[0] - ends[1], 0.975**30 * (z - other), rtol=1e-4, atol=1e-5)


def test_the_best_state_is_the_best_of_all_that_were_visited(fitted: Callable[..., EnergyGuidance], small) -> None:
    """The states after 0, 1, ..., k steps are the last ones of chains of that length, with the same noise."""
    network, z = small.mlp().requires_grad_(False), small.normal(5, DIM)
    log_p = log_probability(network, small.literals("glasses"))
    last = fitted(network, best=False, steps=20)
    visited = torch.stack([small.edit(last, z, "+glasses", strength=k / 20) for k in range(21)])
    values = torch.stack([log_p(state) for state in visited])
    expected = visited[values.argmax(0), torch.arange(5)]
    assert torch.equal(small.edit(fitted(network, steps=20), z, "+glasses"), expected)
    assert (values.argmax(0) < 20).any()  # the last state is not always the best, or nothing would be tested


# --- as an editor and as a sampler ---


@pytest.mark.parametrize("text", ["glasses", "~hat", "hair=red", "~hair=black", "age>0.6"])
def test_every_kind_of_edit_comes_to_hold(fitted: Callable[..., EnergyGuidance], text: str, small) -> None:
    network, z = small.mlp().requires_grad_(False), small.normal(20, DIM)
    network.layers[-1].weight.mul_(5)  # or the prior outweighs what it says
    log_p = log_probability(network, small.literals(text))
    moved = small.edit(fitted(network), z, text)
    assert (log_p(moved) >= log_p(z)).all()
    assert (log_p(moved) > math.log(0.5)).all()


def test_generation_starts_from_noise_of_its_own(fitted: Callable[..., EnergyGuidance], small) -> None:
    method, formula = fitted(small.mlp(), steps=20), small.formula("glasses & ~hat")
    a, b = (method.generate(formula, z, generators(range(4))) for z in (torch.zeros(4, DIM), torch.ones(4, DIM)))
    assert torch.equal(a, b)
    still = method.generate(formula, torch.ones(4, DIM), generators(range(4)), strength=0.0)
    assert torch.equal(still, randn((4, DIM), generators(range(4))))


def test_the_seed_is_of_the_noise_of_edits(fitted: Callable[..., EnergyGuidance], small) -> None:
    z = small.normal(3, DIM)
    a, b, c = (small.edit(fitted(small.mlp(), steps=20, seed=seed), z, "+glasses") for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.isclose(a, c).any()


# --- refusals ---


def test_options_out_of_range_are_refused() -> None:
    for options, message in (
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"weight": -1.0}, r"`weight` must be finite and >= 0, got -1\.0"),
        ({"step_size": 0.0}, r"`step_size` must be in \(0, 4\), got 0\.0"),
        ({"step_size": 4.0}, r"`step_size` must be in \(0, 4\), got 4\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            EnergyGuidance(**options)


def test_what_it_cannot_do_is_refused(fitted: Callable[..., EnergyGuidance], small) -> None:
    z, method = small.normal(4, DIM), fitted(small.linear())
    with pytest.raises(ValueError, match="'glasses & ~glasses', which contradicts itself"):
        small.edit(method, z, "+glasses", "-glasses")
    with torch.inference_mode(), pytest.raises(RuntimeError, match="guidance needs gradients"):
        small.edit(method, z, "+glasses")
