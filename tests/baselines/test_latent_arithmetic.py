"""Latent arithmetic: exact on linear worlds, an involution under negation, and honest about what it cannot do."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lcg.baselines import LatentArithmetic
from lcg.baselines.contract import Training
from lcg.baselines.latent_arithmetic import probe
from lcg.data.statistics import Statistics
from lcg.diffusion import CosineSchedule, GaussianDenoiser
from lcg.editing import EditRequest, edit_sequence
from lcg.generators.base import Generator
from lcg.guidance import Formula, parse, parse_edit
from lcg.nets.classifier import TimeConditionedClassifier
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


class Pixels(Generator):
    """Every element of the latent is a pixel."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.latent_shape, self.image_shape = shape, (1, 1, math.prod(shape))
        self.layer = nn.Identity()

    def decode(self, z: Tensor) -> Tensor:
        return self.layer(z).reshape(len(z), *self.image_shape)


def training(z_0: Tensor, labels: Tensor) -> Training:
    shape, size = tuple(z_0.shape[1:]), math.prod(z_0.shape[1:])
    denoiser = GaussianDenoiser(torch.zeros(size), torch.eye(size), CosineSchedule())
    statistics = Statistics(torch.zeros(shape), torch.ones(shape))
    classifier = TimeConditionedClassifier(shape, SCHEMA, width=8, depth=1)
    return Training(z_0, labels, SCHEMA, Pixels(shape), statistics, denoiser, denoiser.schedule, classifier)


def fitted(z_0: Tensor, labels: Tensor, **options: Any) -> LatentArithmetic:
    return LatentArithmetic(**options).fit(training(z_0, labels))


@pytest.fixture(params=["means", "probe"])
def arithmetic(request: pytest.FixtureRequest) -> LatentArithmetic:
    return fitted(*world(), direction=request.param)


@pytest.fixture
def means() -> LatentArithmetic:
    return fitted(*world())


def formula(text: str) -> Formula:
    return parse(text, SCHEMA)


def request(text: str, strength: float | Tensor | None = None) -> EditRequest:
    return EditRequest(tuple(parse_edit(word, SCHEMA) for word in text.split()), strength=strength)


# --- differences of means ---


def test_a_direction_is_a_difference_of_means(means: LatentArithmetic) -> None:
    z, labels = world()
    for text, true, false in (
        ("glasses", labels[:, 0] == 1, labels[:, 0] == 0),
        ("hair=red", labels[:, 2] == 1, (labels[:, 2] == 0) | (labels[:, 2] == 2)),
        ("hair in {blond, black}", (labels[:, 2] == 0) | (labels[:, 2] == 2), labels[:, 2] == 1),
        ("age>0.6", labels[:, 3] > 0.6, labels[:, 3] <= 0.6),
    ):
        expected = z[true].mean(0) - z[false].mean(0)
        torch.testing.assert_close(means.direction(formula(text)), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["means", "probe"])
def test_missing_labels_take_no_part(kind: str) -> None:
    z, labels = world()
    with_missing = labels.clone()
    with_missing[::3, 0] = NAN
    known = torch.arange(len(z)) % 3 != 0
    found = fitted(z, with_missing, direction=kind).direction(formula("glasses"))
    torch.testing.assert_close(found, fitted(z[known], labels[known], direction=kind).direction(formula("glasses")))


def test_two_clusters_are_exchanged_by_a_full_step() -> None:
    """Where an attribute only shifts the latent, one step takes each point to its counterpart exactly."""
    shift, without = normal(5, seed=2), normal(50, 5, seed=3)
    labels = torch.zeros(100, 4)
    labels[50:, 0] = 1
    arithmetic = fitted(torch.cat((without, without + shift)), labels)
    torch.testing.assert_close(arithmetic.edit(without, request("+glasses")).z_0, without + shift)
    torch.testing.assert_close(arithmetic.edit(without + shift, request("-glasses")).z_0, without)


# --- probes ---


def test_a_probe_finds_the_normal_where_all_else_is_symmetric() -> None:
    """Every point has a mirror image of the same class: the optimum has no weight but along the attribute."""
    rotation = torch.linalg.qr(normal(5, 5, seed=5)).Q
    along, across = normal(200, 1, seed=6), 2 * normal(200, 4, seed=7)
    y = (along[:, 0] + 0.5 * normal(200, seed=8) > 0).repeat(2)
    z = torch.cat((torch.cat((along, across), 1), torch.cat((along, -across), 1))) @ rotation.T
    w = probe(torch.cat((z[y], z[~y])), int(y.sum()))
    torch.testing.assert_close(w, rotation[:, 0], rtol=0, atol=1e-6)


def test_a_probe_is_stationary_for_binary_cross_entropy() -> None:
    """At the minimum over bias and length of the found normal no other direction would lower the loss further."""
    z, labels = world()
    z[:, 0] += 2 * labels[:, 0]
    y = labels[:, 0].double()
    w = probe(torch.cat((z[y == 1], z[y == 0])), int(y.sum()))
    length, bias = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for _ in range(50):  # Newton, in the two that the normal leaves open
        p = torch.sigmoid(length * (z @ w) + bias)
        features = torch.stack((z @ w, torch.ones_like(y)), 1)
        gradient = features.T @ (p - y) + torch.stack((length, torch.zeros_like(bias)))
        hessian = features.T @ ((p * (1 - p))[:, None] * features) + torch.diag(torch.tensor([1.0, 0.0])).double()
        step = torch.linalg.solve(hessian, gradient)
        length, bias = length - step[0], bias - step[1]
    residual = z.T @ (torch.sigmoid(length * (z @ w) + bias) - y) + length * w  # of all D weights
    assert residual.abs().max() < 1e-4 * len(z)
    assert length > 1


def test_a_probes_step_is_the_authors() -> None:
    arithmetic = fitted(*world(), direction="probe")
    for text in ("glasses", "~hat", "hair=red", "age>0.6"):
        assert float(arithmetic.direction(formula(text)).norm()) == pytest.approx(0.3 * math.sqrt(5))


def test_a_probe_is_fishers_discriminant_where_classes_are_normal() -> None:
    """z | y ~ N(y m, S) has the log-odds m S^-1 z + const: what varies with the attribute by chance is left out."""
    spread = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    mean = torch.tensor([1.0, 0.5], dtype=torch.float64)
    labels = (torch.arange(20_000) % 2)[:, None].expand(-1, 4).float()
    z = normal(20_000, 2) @ torch.linalg.cholesky(spread).T + labels[:, :1] * mean
    expected = torch.linalg.solve(spread, mean)
    found = fitted(z, labels, direction="probe").direction(formula("glasses"))
    torch.testing.assert_close(found / found.norm(), expected / expected.norm(), rtol=0, atol=0.02)
    torch.testing.assert_close(fitted(z, labels).direction(formula("glasses")), mean, rtol=0, atol=0.05)


def test_names_tell_the_two_apart() -> None:
    assert LatentArithmetic().name == "arithmetic"
    assert LatentArithmetic("probe").name == "probe"


# --- both ---


def test_negation_turns_around_and_double_negation_back(arithmetic: LatentArithmetic) -> None:
    d = arithmetic.direction(formula("glasses"))
    assert torch.equal(arithmetic.direction(formula("~glasses")), -d)
    assert torch.equal(arithmetic.direction(formula("~~glasses")), d)
    complement = arithmetic.direction(formula("hair in {blond, black}"))
    torch.testing.assert_close(complement, arithmetic.direction(formula("~hair=red")), rtol=1e-5, atol=1e-6)


def test_moves_add_up(arithmetic: LatentArithmetic) -> None:
    z = normal(6, 5, seed=4)
    a, b = arithmetic.direction(formula("glasses")), arithmetic.direction(formula("~hair=red"))
    moved = arithmetic.edit(z, request("+glasses ~hair=red", 0.7)).z_0
    torch.testing.assert_close(moved, z + 0.7 * a + 0.7 * b)
    torch.testing.assert_close(arithmetic.edit(moved, request("-glasses hair=red", 0.7)).z_0, z)
    both = arithmetic.direction(formula("glasses & ~hair=red"))
    torch.testing.assert_close(both, arithmetic.direction(formula("glasses"), formula("~hair=red")))


def test_precision_and_shape_of_the_latents_are_kept() -> None:
    z, labels = world()
    z = 1e3 + z.float().view(len(z), 5, 1).expand(-1, -1, 2)
    arithmetic = fitted(z, labels)
    assert arithmetic.edit(z[:3], request("+glasses")).z_0.dtype == torch.float32
    true, false = z[labels[:, 0] == 1].double(), z[labels[:, 0] == 0].double()
    torch.testing.assert_close(arithmetic.direction(formula("glasses")), true.mean(0) - false.mean(0))
    assert fitted(z - 1e3, labels, direction="probe").edit(z[:3], request("+glasses")).z_0.shape == (3, 5, 2)


def test_a_sequence_does_not_drift(arithmetic: LatentArithmetic) -> None:
    """Every step starts from the source, and an edit that is taken back leaves nothing of itself."""
    z = normal(6, 5, seed=4)
    words = ["+glasses", "hair=red", "-glasses"]
    results = edit_sequence(arithmetic, z, [parse_edit(word, SCHEMA) for word in words])
    assert torch.equal(results[1].z_0, arithmetic.edit(z, request("+glasses hair=red")).z_0)
    assert torch.equal(results[2].z_0, arithmetic.edit(z, request("hair=red -glasses")).z_0)


def test_generation_moves_samples_of_the_prior(arithmetic: LatentArithmetic) -> None:
    z = normal(6, 5, seed=4)
    moved = arithmetic.generate(formula("glasses & ~hat & hair=red"), z, strength=1.5)
    assert torch.equal(moved, arithmetic.edit(z, request("+glasses -hat hair=red", 1.5)).z_0)


def test_weights_multiply_the_step(arithmetic: LatentArithmetic) -> None:
    z = normal(6, 5, seed=4)
    a, b = (arithmetic.direction(formula(text)) for text in ("glasses", "hat"))
    torch.testing.assert_close(arithmetic.generate(formula("glasses^2.5 & ~hat"), z), z + 2.5 * a - b)
    torch.testing.assert_close(arithmetic.generate(formula("glasses^0.5"), z), z + 0.5 * a)


def test_fitting_again_forgets(means: LatentArithmetic) -> None:
    before = means.direction(formula("glasses"))
    z, labels = world()
    torch.testing.assert_close(means.fit(training(2 * z, labels)).direction(formula("glasses")), 2 * before)


# --- refusals ---


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="`direction` must be one of means, probe, got 'median'"):
        LatentArithmetic("median")  # type: ignore[arg-type]


def test_a_literal_without_both_sides_has_no_direction() -> None:
    z, labels = world()
    labels[:, 0] = 0
    labels[:, 1] = 1
    for kind in ("means", "probe"):
        arithmetic = fitted(z, labels, direction=kind)
        with pytest.raises(ValueError, match="no labelled latent for which 'glasses' holds, so it has no direction"):
            arithmetic.direction(formula("glasses"))
        with pytest.raises(ValueError, match="no labelled latent for which 'hat' does not hold"):
            arithmetic.edit(z, request("-hat"))


def test_a_target_is_refused(arithmetic: LatentArithmetic) -> None:
    with pytest.raises(ValueError, match=r"none for the target 'age=0.7'; ask for age>0.7 or age<0.7"):
        arithmetic.edit(normal(6, 5), request("age=0.7"))
