"""Energy guidance: Langevin with its closed-form moments, discretisation error included, and the best of its states."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lcg.baselines.clean import log_probability, own_noise
from lcg.baselines.contract import Training, literals
from lcg.baselines.energy import EnergyGuidance
from lcg.data.statistics import Statistics
from lcg.diffusion import CosineSchedule, GaussianDenoiser, generators, randn
from lcg.editing.contract import EditRequest
from lcg.generators.base import Generator
from lcg.guidance import Formula, parse, parse_edit
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.latent_classifier import LatentClassifier
from lcg.schema import Attribute, Schema

SCHEDULE, DIM = CosineSchedule(), 4

SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("hat"),
        Attribute("hair", "categorical", ("blond", "red", "black"), detail_of=("hat",)),
        Attribute("age", "continuous"),
    )
)


class Identity(Generator):
    """Latents are what is seen."""

    latent_shape, image_shape = (DIM,), (1, 1, DIM)

    def decode(self, z: Tensor) -> Tensor:
        return z.view(-1, 1, 1, DIM).tanh()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def formula(text: str) -> Formula:
    return parse(text, SCHEMA)


def request(*edits: str, strength: float | Tensor | None = None) -> EditRequest:
    return EditRequest(tuple(parse_edit(edit, SCHEMA) for edit in edits), strength=strength)


def training(denoiser: GaussianDenoiser | None = None, store: str = "") -> Training:
    return Training(
        normal(20, DIM),
        torch.full((20, len(SCHEMA)), torch.nan),
        SCHEMA,
        Identity(),
        Statistics(torch.zeros(DIM), torch.ones(DIM)),
        denoiser or GaussianDenoiser(torch.zeros(DIM), torch.eye(DIM), SCHEDULE),
        SCHEDULE,
        TimeConditionedClassifier((DIM,), SCHEMA, width=8, depth=1),
        store,
    )


def saved(network: LatentClassifier, folder: Path) -> Path:
    """A checkpoint of a classifier of clean latents, as `lcg fit` writes it."""
    entry = {
        "kind": "latent_classifier",
        "config": network.config,
        "mean": torch.zeros(DIM),
        "std": torch.ones(DIM),
        "store": "a" * 64,
        "generator": "",
    }
    state = {f"latent_classifier.{name}": value for name, value in network.state_dict().items()}
    torch.save({"lcg": entry, "state_dict": state}, folder / "clean.ckpt")
    return folder / "clean.ckpt"


def linear(offset: float = 0.0) -> LatentClassifier:
    """Linear: glasses off 2 z_0 + z_1, hat off 3 z_1 + z_2, hair's red off z_3, the mean of age z_3."""
    network = LatentClassifier((DIM,), SCHEMA, ())
    (layer,) = network.layers
    layer.weight.data.zero_()
    layer.bias.data.zero_()
    layer.weight.data[0, :2, 0] = torch.tensor([2.0, 1.0])
    layer.weight.data[1, 1:3, 0] = torch.tensor([3.0, 1.0])
    layer.weight.data[2, 3, 1] = 1.0
    layer.weight.data[3, 3, 0] = 1.0
    layer.bias.data[0, 0, 0] = offset
    return network


def mlp() -> LatentClassifier:
    torch.manual_seed(0)
    return LatentClassifier((DIM,), SCHEMA, (16,))


@pytest.fixture
def fitted(tmp_path: Path) -> Callable[..., EnergyGuidance]:
    def fit(network: LatentClassifier, **options: Any) -> EnergyGuidance:
        return EnergyGuidance(saved(network, tmp_path), **options).fit(training())

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


def test_far_from_the_target_the_posterior_is_the_prior_shifted(fitted: Callable[..., EnergyGuidance]) -> None:
    """A logit far below 0 has log p = a.z + b: the energy is that of N(weight a, I)."""
    method = fitted(linear(-200.0), best=False, weight=2.0)
    z = method.generate(formula("glasses"), torch.zeros(5000, DIM), torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), torch.tensor([4.0, 2.0, 0.0, 0.0]), rtol=0.02, atol=0.07)
    torch.testing.assert_close(z.var(0), torch.full((DIM,), 1 / (1 - 0.05 / 4)), rtol=0.08, atol=0.0)


def test_one_step_is_the_update_of_the_module(fitted: Callable[..., EnergyGuidance]) -> None:
    network, z = mlp().requires_grad_(False), normal(5, DIM)
    log_p = log_probability(network, literals([formula("glasses & hair=red")], SCHEMA, "a test"))
    leaf = z.clone().requires_grad_()
    energy = -5 * log_p(leaf) + 0.5 * leaf.square().sum(1)
    (slope,) = torch.autograd.grad(energy.sum(), leaf)
    moved = fitted(network, steps=1, best=False).edit(z, request("+glasses", "hair=red")).z_0
    torch.testing.assert_close(moved, z - 0.025 * slope + math.sqrt(0.05) * randn(z.shape, own_noise(z)))


def test_what_the_prior_forgets_of_the_source(fitted: Callable[..., EnergyGuidance]) -> None:
    """Without a classifier two chains with the same noise approach each other by 1 - h / 2 at every step."""
    method, z, other = fitted(mlp(), weight=0.0, best=False, steps=30), normal(5, DIM), normal(5, DIM, seed=1)
    ends = [method.run(start, [formula("glasses")], randomness=generators(range(5))) for start in (z, other)]
    torch.testing.assert_close(ends[0] - ends[1], 0.975**30 * (z - other), rtol=1e-4, atol=1e-5)


def test_the_best_state_is_the_best_of_all_that_were_visited(fitted: Callable[..., EnergyGuidance]) -> None:
    """The states after 0, 1, ..., k steps are the last ones of chains of that length, with the same noise."""
    network, z = mlp().requires_grad_(False), normal(5, DIM)
    log_p = log_probability(network, literals([formula("glasses")], SCHEMA, "a test"))
    last = fitted(network, best=False, steps=20)
    visited = torch.stack([last.edit(z, request("+glasses", strength=k / 20)).z_0 for k in range(21)])
    values = torch.stack([log_p(state) for state in visited])
    expected = visited[values.argmax(0), torch.arange(5)]
    assert torch.equal(fitted(network, steps=20).edit(z, request("+glasses")).z_0, expected)
    assert (values.argmax(0) < 20).any()  # the last state is not always the best, or nothing would be tested


# --- as an editor and as a sampler ---


@pytest.mark.parametrize("best", [True, False])
def test_no_strength_is_the_source(fitted: Callable[..., EnergyGuidance], best: bool) -> None:
    z = normal(4, DIM)
    assert torch.equal(fitted(mlp(), best=best).edit(z, request("+glasses", "hair=red", strength=0.0)).z_0, z)


def test_rows_are_independent_and_have_their_own_strength(fitted: Callable[..., EnergyGuidance]) -> None:
    z, method = normal(3, DIM), fitted(mlp(), steps=20)
    strength = torch.tensor([0.5, 1.0, 2.0])
    with torch.no_grad():
        together = method.edit(z, request("+glasses", "age>0.6", strength=strength)).z_0
    for i, each in enumerate((0.5, 1.0, 2.0)):
        alone = method.edit(z[i : i + 1], request("+glasses", "age>0.6", strength=each)).z_0
        torch.testing.assert_close(together[i : i + 1], alone)
    assert torch.equal(method.edit(z, request("+glasses")).z_0, method.edit(z, request("+glasses", strength=1.0)).z_0)
    other = fitted(mlp(), steps=20, seed=1)
    assert not torch.equal(other.edit(z, request("+glasses")).z_0, method.edit(z, request("+glasses")).z_0)
    assert method.edit(z[:0], request("+glasses")).z_0.shape == (0, DIM)


@pytest.mark.parametrize("text", ["glasses", "~hat", "hair=red", "~hair=black", "age>0.6"])
def test_every_kind_of_edit_comes_to_hold(fitted: Callable[..., EnergyGuidance], text: str) -> None:
    network, z = mlp().requires_grad_(False), normal(20, DIM)
    network.layers[-1].weight.mul_(5)  # or the prior outweighs what it says
    log_p = log_probability(network, literals([formula(text)], SCHEMA, "a test"))
    moved = fitted(network).edit(z, request(text)).z_0
    assert (log_p(moved) >= log_p(z)).all()
    assert (log_p(moved) > math.log(0.5)).all()


def test_generation_starts_from_noise_of_its_own(fitted: Callable[..., EnergyGuidance]) -> None:
    method = fitted(mlp(), steps=20)
    whole = method.generate(formula("glasses & ~hat"), torch.zeros(4, DIM), generators(range(4)))
    assert torch.equal(method.generate(formula("glasses & ~hat"), torch.ones(4, DIM), generators(range(4))), whole)
    some = method.generate(formula("glasses & ~hat"), torch.zeros(2, DIM), generators([2, 3]))
    torch.testing.assert_close(some, whole[2:])
    still = method.generate(formula("glasses"), torch.ones(4, DIM), generators(range(4)), strength=0.0)
    assert torch.equal(still, randn((4, DIM), generators(range(4))))
    assert method.can_generate(formula("glasses & ~hat & hair=red"))
    assert not method.can_generate(formula("glasses | hat"))


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


def test_what_it_cannot_do_is_refused(fitted: Callable[..., EnergyGuidance], tmp_path: Path) -> None:
    z, method = normal(4, DIM), fitted(linear())
    with pytest.raises(RuntimeError, match=r"energy has no classifier yet; call `fit\(training\)` first"):
        EnergyGuidance().edit(z, request("+glasses"))
    with pytest.raises(ValueError, match=r"energy knows literals only, .*use lcg for other formulas"):
        method.generate(formula("glasses | hat"), z)
    with pytest.raises(ValueError, match="'glasses & ~glasses', which contradicts itself"):
        method.edit(z, request("+glasses", "-glasses"))
    with pytest.raises(ValueError, match=r"`z_0` must be latents of shape \(4,\)"):
        method.edit(z[:, 1:], request("+glasses"))
    with pytest.raises(ValueError, match="`strength` must be finite and >= 0"):
        method.edit(z, request("+glasses", strength=-1.0))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="guidance needs gradients"):
        method.edit(z, request("+glasses"))
    with pytest.raises(ValueError, match="was trained on another store"):
        EnergyGuidance(saved(linear(), tmp_path)).fit(training(store="b" * 64))
    with pytest.raises(FileNotFoundError, match="no latent_classifier at"):
        EnergyGuidance(tmp_path / "missing.ckpt").fit(training())
