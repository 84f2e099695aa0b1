"""PPGN: with an exact denoiser the prior's drift is the score in closed form, and the chain ends where it must."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lcg.baselines.clean import log_probability, own_noise
from lcg.baselines.contract import Training, literals
from lcg.baselines.ppgn import PPGN, reconstruct
from lcg.data.statistics import Statistics
from lcg.diffusion import CosineSchedule, GaussianDenoiser, LinearSchedule, MixtureDenoiser, Schedule, generators, randn
from lcg.editing.contract import EditRequest
from lcg.generators.base import Generator
from lcg.guidance import Formula, parse, parse_edit
from lcg.guidance.terms import gradient
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


MEAN = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
SPREAD = torch.tensor([[1.0, 0.4, 0, 0], [0.4, 0.5, 0, 0], [0, 0, 0.2, 0], [0, 0, 0, 1.5]], dtype=torch.float64)
GAUSSIAN = GaussianDenoiser(MEAN, SPREAD, SCHEDULE)


def mlp() -> LatentClassifier:
    torch.manual_seed(0)
    return LatentClassifier((DIM,), SCHEMA, (16,))


@pytest.fixture
def fitted(tmp_path: Path) -> Callable[..., PPGN]:
    def fit(network: LatentClassifier, **options: Any) -> PPGN:
        return PPGN(saved(network, tmp_path), **{"steps": 10, **options}).fit(training(GAUSSIAN))

    return fit


# --- the prior ---


@pytest.mark.parametrize("sigma", [0.05, 0.2, 1.0, 5.0])
def test_with_a_gaussian_prior_the_drift_is_the_score_in_closed_form(sigma: float) -> None:
    """R(h) - h = sigma^2 grad log N(h; mu, S + sigma^2 I) = -sigma^2 (S + sigma^2 I)^-1 (h - mu)."""
    h = normal(6, DIM).double()
    expected = -(sigma**2) * torch.linalg.solve(SPREAD + sigma**2 * torch.eye(DIM).double(), (h - MEAN).T).T
    torch.testing.assert_close(reconstruct(GAUSSIAN, SCHEDULE, h, sigma) - h, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", [CosineSchedule(), LinearSchedule()])
def test_with_any_prior_it_is_the_smoothed_score(schedule: Schedule) -> None:
    sigma, h = 0.4, normal(6, 2).double()
    weights = torch.tensor([0.3, 0.7]).double()
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).double()
    covariances = torch.stack([0.2 * torch.eye(2), torch.diag(torch.tensor([0.5, 0.1]))]).double()

    def log_density(h: Tensor) -> Tensor:
        smoothed = torch.distributions.MultivariateNormal(means, covariances + sigma**2 * torch.eye(2).double())
        return (weights.log() + smoothed.log_prob(h[:, None])).logsumexp(1)

    denoiser = MixtureDenoiser(weights.log(), means, covariances, schedule)
    drift = reconstruct(denoiser, schedule, h, sigma) - h
    torch.testing.assert_close(drift, sigma**2 * gradient(log_density, h), rtol=1e-9, atol=1e-9)


def test_it_reconstructs_what_was_noised() -> None:
    """The posterior mean: of noised latents closer to the clean ones than these, by what theory says."""
    sigma = 0.8
    z_0 = GAUSSIAN.sample(4000, torch.Generator().manual_seed(0))
    h = z_0 + sigma * randn(z_0.shape, torch.Generator().manual_seed(1), dtype=torch.float64)
    error = (reconstruct(GAUSSIAN, SCHEDULE, h, sigma) - z_0).square().sum(1).mean()
    smoothed = SPREAD + sigma**2 * torch.eye(DIM).double()
    expected = (SPREAD - SPREAD @ torch.linalg.solve(smoothed, SPREAD)).trace()
    torch.testing.assert_close(error, expected, rtol=0.05, atol=0.0)


# --- the chain ---


def test_its_stationary_distribution_is_the_closed_form(fitted: Callable[..., PPGN]) -> None:
    """Equation 11 in the Gaussian case is autoregressive, h' - m = (1 - c)(h - m) + lr eps3 xi on every axis of S.

    c = lr eps1 sigma^2 / (S + sigma^2), and the variance is (lr eps3)^2 / (1 - (1 - c)^2). A classifier far from its
    target is a constant gradient a, which shifts the mean by eps2 (S + sigma^2) a / (eps1 sigma^2).
    """
    sigma, lr, eps1, eps2, eps3 = 0.5, 0.4, 1.2, 0.1, 1.0
    options = {"sigma": sigma, "lr": lr, "eps1": eps1, "eps2": eps2, "eps3": eps3, "normalised": False, "steps": 60}
    method = fitted(linear(-60.0), **options)
    start = torch.zeros(8000, DIM)
    h = method.generate(formula("glasses"), start, torch.Generator().manual_seed(0)).double()
    smoothed, basis = torch.linalg.eigh(SPREAD + sigma**2 * torch.eye(DIM).double())
    c = lr * eps1 * sigma**2 / smoothed
    a = torch.tensor([2.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    mean = MEAN + basis @ (eps2 * smoothed * (basis.T @ a) / (eps1 * sigma**2))
    left = (1 - c) ** 60  # of where it began
    mean = mean + basis @ (left * (basis.T @ (start[0].double() - mean)))
    variance = (lr * eps3) ** 2 / (1 - (1 - c) ** 2) * (1 - left**2)
    error = (variance / 8000).sqrt()
    assert ((h.mean(0) - mean) @ basis / error).abs().max() < 4.5
    torch.testing.assert_close(((h - mean) @ basis).var(0), variance, rtol=0.08, atol=0.0)


def test_as_langevin_sampling_it_samples_the_smoothed_prior(fitted: Callable[..., PPGN]) -> None:
    """With eps1 = eps2 / sigma^2 and eps3 = sqrt(2 eps2 / lr), up to an error of order lr eps2."""
    sigma, lr, eps2 = 0.5, 0.02, 1.0
    options = {"sigma": sigma, "lr": lr, "eps1": eps2 / sigma**2, "eps2": eps2, "eps3": math.sqrt(2 * eps2 / lr)}
    method = fitted(linear(60.0), normalised=False, steps=120, **options)  # a classifier that is content
    h = method.generate(formula("glasses"), GAUSSIAN.sample(4000, torch.Generator().manual_seed(1)).float()).double()
    smoothed = SPREAD + sigma**2 * torch.eye(DIM).double()
    torch.testing.assert_close(h.T.cov(), smoothed, rtol=0.08, atol=0.06)
    torch.testing.assert_close(h.mean(0), MEAN, rtol=0.0, atol=0.08)


def test_one_step_is_equation_11_and_the_published_code_scales_it(fitted: Callable[..., PPGN]) -> None:
    network, z, options = mlp(), normal(5, DIM), {"steps": 1, "lr": 0.03, "eps1": 0.7, "eps2": 1.3, "eps3": 0.2}
    log_p = log_probability(network, literals([formula("glasses & hair=red")], SCHEMA, "a test"))
    xi = randn(z.shape, own_noise(z))
    d = 0.7 * (reconstruct(GAUSSIAN, SCHEDULE, z, 0.2) - z) + 1.3 * gradient(log_p, z) + 0.2 * xi
    moved = fitted(network, normalised=False, **options).edit(z, request("+glasses", "hair=red")).z_0
    torch.testing.assert_close(moved, z + 0.03 * d)
    scaled = fitted(network, **options).edit(z, request("+glasses", "hair=red")).z_0
    torch.testing.assert_close(scaled, z + 0.03 * d / d.abs().mean(1, keepdim=True))
    torch.testing.assert_close((scaled - z).abs().mean(1), torch.full((5,), 0.03), rtol=1e-4, atol=0.0)


def test_where_the_classifier_is_content_the_prior_leads(fitted: Callable[..., PPGN]) -> None:
    """A logit of 200 has no gradient left, and steps go to what the prior finds more probable, however small eps1."""
    z = normal(5, DIM) + 3
    moved = fitted(linear(200.0), steps=1).edit(z, request("+glasses")).z_0
    residue = reconstruct(GAUSSIAN, SCHEDULE, z, 0.2) - z
    torch.testing.assert_close(moved, z + 0.02 * residue / residue.abs().mean(1, keepdim=True))
    torch.testing.assert_close(fitted(linear(200.0), eps1=0.0, eps3=0.0).edit(z, request("+glasses")).z_0, z)


# --- as an editor and as a sampler ---


def test_no_strength_is_the_source(fitted: Callable[..., PPGN]) -> None:
    z = normal(4, DIM)
    method = fitted(mlp(), eps3=1.0)
    assert torch.equal(method.edit(z, request("+glasses", "hair=red", strength=0.0)).z_0, z)


def test_rows_are_independent_and_have_their_own_strength(fitted: Callable[..., PPGN]) -> None:
    z, method = normal(3, DIM), fitted(mlp(), eps3=0.5)
    strength = torch.tensor([0.5, 1.0, 2.0])
    with torch.no_grad():
        together = method.edit(z, request("+glasses", "age>0.6", strength=strength)).z_0
    for i, each in enumerate((0.5, 1.0, 2.0)):
        alone = method.edit(z[i : i + 1], request("+glasses", "age>0.6", strength=each)).z_0
        torch.testing.assert_close(together[i : i + 1], alone)
    assert torch.equal(method.edit(z, request("+glasses")).z_0, method.edit(z, request("+glasses", strength=1.0)).z_0)
    other = fitted(mlp(), eps3=0.5, seed=1)
    assert not torch.isclose(other.edit(z, request("+glasses")).z_0, method.edit(z, request("+glasses")).z_0).any()


@pytest.mark.parametrize("text", ["glasses", "~hat", "hair=red", "~hair=black", "age>0.6"])
def test_every_kind_of_edit_comes_to_hold(fitted: Callable[..., PPGN], text: str) -> None:
    network, z = mlp(), normal(20, DIM)
    log_p = log_probability(network, literals([formula(text)], SCHEMA, "a test"))
    moved = fitted(network, steps=100, lr=0.04).generate(formula(text), z)
    assert (log_p(moved) > log_p(z)).all()
    assert (log_p(moved) > math.log(0.5)).all()


def test_generation_draws_its_own_noise(fitted: Callable[..., PPGN]) -> None:
    z, method = normal(4, DIM), fitted(mlp(), eps3=0.5)
    whole = method.generate(formula("glasses & ~hat"), z, generators(range(4)))
    torch.testing.assert_close(method.generate(formula("glasses & ~hat"), z[2:], generators([2, 3])), whole[2:])
    assert not torch.isclose(method.generate(formula("glasses & ~hat"), z, generators(range(1, 5))), whole).any()
    assert method.can_generate(formula("glasses & ~hat & hair=red"))
    assert not method.can_generate(formula("glasses | hat"))


# --- refusals ---


def test_options_out_of_range_are_refused() -> None:
    for options, message in (
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"lr": 0.0}, r"`lr` must be positive and finite, got 0\.0"),
        ({"sigma": math.inf}, "`sigma` must be positive and finite, got inf"),
        ({"eps1": -1.0}, r"`eps1` must be finite and >= 0, got -1\.0"),
        ({"eps2": math.nan}, "`eps2` must be finite and >= 0, got nan"),
        ({"eps3": math.inf}, "`eps3` must be finite and >= 0, got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            PPGN(**options)


def test_what_it_cannot_do_is_refused(fitted: Callable[..., PPGN], tmp_path: Path) -> None:
    z, method = normal(4, DIM), fitted(linear())
    with pytest.raises(RuntimeError, match=r"ppgn has no classifier and no prior yet; call `fit\(training\)` first"):
        PPGN().edit(z, request("+glasses"))
    with pytest.raises(ValueError, match=r"ppgn knows literals only, .*use lcg for other formulas"):
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
        PPGN(saved(linear(), tmp_path)).fit(training(store="b" * 64))
    with pytest.raises(FileNotFoundError, match="no latent_classifier at"):
        PPGN(tmp_path / "missing.ckpt").fit(training())
