"""Directions found without labels: equal to what was planted, and named by what they go with."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lcg.baselines.contract import Training
from lcg.baselines.directions import (
    OVERSAMPLING,
    Kind,
    UnsupervisedDirections,
    accumulate,
    first_weight,
    householder_projector,
    jacobian_directions,
    principal_components,
    reflectors,
)
from lcg.data.statistics import Statistics, Whitening
from lcg.diffusion import CosineSchedule, GaussianDenoiser
from lcg.editing import EditRequest
from lcg.generators.base import Generator
from lcg.guidance import Formula, parse, parse_edit
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.schema import Attribute, Schema

D = 6
KINDS: tuple[Kind, ...] = ("pca", "sefa", "householder", "jacobian")
SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("beard"),
        Attribute("hair", "categorical", ("blond", "red", "black")),
        Attribute("age", "continuous"),
    )
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def orthogonal(size: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(size, size, seed=seed)).Q


AXES = orthogonal(D, seed=1)  # rows: what the world varies along, with these deviations
SPREAD = torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0, 0.5], dtype=torch.float64)
STD = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.7, 1.4])


class Painter(Generator):
    """x = W z, or what a nonlinear layer after it makes of that; beside it a layer of an encoder, never decoded."""

    def __init__(self, weight: Tensor, shape: tuple[int, ...] | None = None, curved: bool = False) -> None:
        super().__init__()
        outputs, size = weight.shape
        self.latent_shape, self.image_shape = shape or (size,), (1, 1, outputs)
        self.encoder = nn.Linear(size, 3)
        self.first = nn.Linear(size, outputs, dtype=torch.float64)
        self.first.weight.data.copy_(weight)
        self.second = nn.Linear(outputs, outputs, dtype=torch.float64)
        self.curved = curved
        self.requires_grad_(False)

    def decode(self, z: Tensor) -> Tensor:
        x = self.first(z.flatten(1))
        return (torch.tanh(self.second(torch.tanh(x))) if self.curved else x).reshape(len(z), *self.image_shape)


class Wordless(Generator):
    """Decodes without a linear layer."""

    latent_shape, image_shape = (D,), (1, 1, D)

    def decode(self, z: Tensor) -> Tensor:
        return z.reshape(len(z), 1, 1, D)


def world(
    generator: Generator,
    std: Tensor | None = None,
    n: int = 600,
    z_0: Tensor | None = None,
    labels: Tensor | None = None,
) -> Training:
    """Latents that vary along planted axes; glasses is read off axis 1, beard off axis 3 and red hair off axis 4."""
    shape, size = generator.latent_shape, math.prod(generator.latent_shape)
    if z_0 is None:
        z_0 = normal(n, size, seed=2) * (SPREAD if size == D else 1) @ (AXES if size == D else torch.eye(size).double())
    if labels is None:
        along = z_0.flatten(1) @ AXES.T if size == D else z_0
        hair = (along[:, 4] > 0.5).double() + 2 * (along[:, 4] < -0.5)
        labels = torch.stack(((along[:, 1] > 0).double(), (along[:, 3] < 0).double(), hair, along[:, 2]), 1)
    denoiser = GaussianDenoiser(torch.zeros(size), torch.eye(size), CosineSchedule())
    statistics = Statistics(torch.ones(shape), torch.ones(shape) if std is None else std.reshape(shape))
    classifier = TimeConditionedClassifier(shape, SCHEMA, width=8, depth=1)
    z_0 = z_0.reshape(len(z_0), *shape)
    return Training(z_0, labels, SCHEMA, generator, statistics, denoiser, denoiser.schedule, classifier)


def planted() -> Tensor:
    """W = U S A with the singular vectors A, so that all four kinds find the same axes where std = 1."""
    return orthogonal(D + 4, seed=3)[:, :D] * SPREAD @ AXES


def fitted(training: Training, kind: Kind = "pca", **options: Any) -> UnsupervisedDirections:
    return UnsupervisedDirections(kind, **options).fit(training)


@pytest.fixture(params=KINDS)
def method(request: pytest.FixtureRequest) -> UnsupervisedDirections:
    return fitted(world(Painter(planted())), request.param)


def formula(text: str) -> Formula:
    return parse(text, SCHEMA)


def request(text: str, strength: float | Tensor | None = None) -> EditRequest:
    return EditRequest(tuple(parse_edit(word, SCHEMA) for word in text.split()), strength=strength)


def assert_same_up_to_sign(found: Tensor, expected: Tensor, atol: float) -> None:
    assert found.shape == expected.shape
    signs = (found * expected).sum(1, keepdim=True).sign()
    torch.testing.assert_close(signs * found, expected, rtol=0, atol=atol)


# --- what is found ---


def test_principal_components_are_the_planted_axes() -> None:
    """Of a sample whose covariance is exactly A^T S^2 A, in the order of the variances, whatever its mean."""
    white = torch.linalg.qr(normal(50, D + 1, seed=4)).Q
    white = torch.linalg.qr(torch.cat((torch.ones(50, 1, dtype=torch.float64), white[:, :D]), 1)).Q[:, 1:]  # mean 0
    z_0 = white * SPREAD @ AXES + 7
    assert_same_up_to_sign(principal_components(z_0), AXES, atol=1e-10)
    assert_same_up_to_sign(principal_components(z_0, 2), AXES[:2], atol=1e-10)


def test_sefa_finds_the_right_singular_vectors_of_the_first_layer() -> None:
    found = fitted(world(Painter(planted())), "sefa").directions
    assert_same_up_to_sign(found, AXES, atol=1e-10)


@pytest.mark.parametrize("kind", ["sefa", "householder", "jacobian"])
def test_standardisation_is_accounted_for(kind: Kind) -> None:
    """With z = mean + std z_0 a layer W / std is one whose singular vectors in z_0 are the planted ones."""
    training = world(Painter(planted() / STD), STD)
    assert_same_up_to_sign(fitted(training, kind).directions, AXES, atol=1e-6)
    assert (fitted(world(Painter(planted()), STD), kind).directions @ AXES.T).abs().diagonal().min() < 0.9


def test_eigenvectors_change_the_layer_most() -> None:
    """|A n|, over unit n, is largest for the first direction: SeFa's own criterion."""
    training = world(Painter(planted(), curved=True), STD)
    weight, first = first_weight(training), fitted(training, "sefa").directions[0]
    others = nn.functional.normalize(normal(2000, D, seed=5), dim=1)
    assert (weight @ first).norm() > (others @ weight.T).norm(dim=1).max()


def test_the_first_layer_is_the_one_that_decode_reaches() -> None:
    """Not the encoder's, which is registered before it and takes as many inputs; nor does a hook stay behind."""
    generator = Painter(planted(), curved=True)
    torch.testing.assert_close(first_weight(world(generator)), planted())
    assert not generator.first._forward_hooks and not generator.encoder._forward_hooks


def test_the_first_weight_of_whitened_latents_is_the_slope_of_decoding() -> None:
    """A W^-1: what the first layer makes of a step in z_0, whatever standardises."""
    training = world(Painter(planted()))
    matrix = torch.eye(D) + 0.1 * torch.ones(D, D)
    whitening = Whitening(matrix, torch.linalg.inv(matrix))
    white = replace(training, statistics=Statistics(torch.ones(D), torch.ones(D), whitening))
    slope = torch.stack([white.statistics.restore(row[None])[0] - torch.ones(D) for row in torch.eye(D)]).double()
    torch.testing.assert_close(first_weight(white), planted() @ slope, rtol=1e-5, atol=1e-5)


# --- Householder ---


def test_accumulated_reflections_are_orthogonal() -> None:
    for rank in (1, 3, 40):
        q = accumulate(normal(rank, 40, seed=6))
        torch.testing.assert_close(q.T @ q, torch.eye(40, dtype=torch.float64), rtol=0, atol=1e-10)
        assert float(torch.linalg.det(q)) == pytest.approx((-1) ** rank)  # of rank reflections


def test_reflectors_triangularise() -> None:
    """H_r ... H_1 M is upper triangular, as in every Householder factorisation."""
    matrix = normal(9, 4, seed=7)
    rest = accumulate(reflectors(matrix)).T @ matrix
    torch.testing.assert_close(rest, rest.triu(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, D])
def test_the_projector_is_the_nearest_of_its_rank(rank: int) -> None:
    """Singular values 1 and 0, and no other such matrix is nearer to A."""
    weight = normal(9, D, seed=8)
    left, right = householder_projector(weight, rank)
    projector = left @ right.T
    for q in (left, right):
        torch.testing.assert_close(q.T @ q, torch.eye(rank, dtype=torch.float64), rtol=0, atol=1e-10)
    expected = torch.tensor([1.0] * rank + [0.0] * (D - rank), dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(projector), expected, rtol=0, atol=1e-10)
    squared = weight.square().sum() + rank - 2 * torch.linalg.svdvals(weight)[:rank].sum()
    torch.testing.assert_close((weight - projector).square().sum(), squared)
    for seed in range(50):
        other = orthogonal(9, seed=seed)[:, :rank] @ orthogonal(D, seed=100 + seed)[:rank]
        assert (weight - other).norm() > (weight - projector).norm()


def test_householder_keeps_the_first_directions_of_sefa() -> None:
    training = world(Painter(normal(40, 30, seed=9)))
    found = fitted(training, "householder").directions
    assert_same_up_to_sign(found, fitted(training, "sefa").directions[:10], atol=1e-9)


# --- the Jacobian ---


def test_jacobian_directions_of_a_linear_generator_are_its_singular_vectors() -> None:
    training = world(Painter(planted()))
    assert_same_up_to_sign(jacobian_directions(training, torch.arange(20)), AXES, atol=1e-9)


@pytest.mark.parametrize("grad", [True, False])
def test_power_iteration_finds_them_where_the_jacobian_is_not_formed(grad: bool) -> None:
    size, rank, iterations = 80, 3, 2
    assert size > (2 * iterations + 1) * (rank + OVERSAMPLING)  # so that it iterates
    spectrum = 2.0 ** -torch.arange(size, dtype=torch.float64)
    axes = orthogonal(size, seed=10)
    training = world(Painter(orthogonal(size, seed=11) * spectrum @ axes), n=20)
    with torch.set_grad_enabled(grad):
        found = jacobian_directions(training, torch.arange(20), rank, iterations)
        assert_same_up_to_sign(found, axes[:rank], atol=1e-8)


@pytest.mark.parametrize("iterations", [0, 12])
def test_the_jacobian_is_the_mean_over_latents(iterations: int) -> None:
    """Of a curved generator, formed whole (12) and by iteration (0 does none, and must not find the same)."""
    size, rank = 40, 2
    torch.manual_seed(0)
    training = world(Painter(orthogonal(size, seed=12) * 1.1 ** -torch.arange(size), curved=True), n=70)
    rows = torch.arange(65)  # more than one batch
    whole = torch.stack([torch.func.jacrev(training.decode)(training.z_0[k : k + 1])[0, 0, 0, :, 0] for k in rows])
    expected = torch.linalg.svd(whole.mean(0)).Vh[:rank]
    found = jacobian_directions(training, rows, rank, iterations)
    error = (found @ expected.T).abs().diagonal() - 1
    assert (error.abs().max() < 1e-8) == (iterations > 0)


# --- names ---


@pytest.mark.parametrize(
    ("text", "axis", "sign"), [("glasses", 1, 1), ("beard", 3, -1), ("hair=red", 4, 1), ("age>0.2", 2, 1)]
)
def test_an_atom_is_matched_to_the_axis_it_was_read_off(
    method: UnsupervisedDirections, text: str, axis: int, sign: int
) -> None:
    match = method.match(formula(text))
    assert match.index == axis
    assert match.correlation * sign * float(method.directions[axis] @ AXES[axis]) > 0.5
    step = method.direction(formula(text)) @ AXES.T
    assert int(step.abs().argmax()) == axis and float(step[axis]) * sign > 0


def test_the_match_is_the_largest_correlation(method: UnsupervisedDirections) -> None:
    training = method.training
    labels = training.labels.clone()
    labels[::5, 0] = torch.nan
    method.fit(Training(**{**vars(training), "labels": labels}))
    known = ~labels[:, 0].isnan()
    projections = training.z_0[known] @ method.directions.T
    table = torch.corrcoef(torch.cat((labels[known, :1], projections), 1).T)[0, 1:]
    match = method.match(formula("glasses"))
    assert match.index == int(table.abs().argmax())
    assert match.correlation == pytest.approx(float(table[match.index]))


def test_fewer_directions_leave_less_to_choose_from(method: UnsupervisedDirections) -> None:
    few = fitted(method.training, method.kind, rank=1)
    assert few.directions.shape == (1, D)
    assert few.match(formula("glasses")).index == 0


def test_latents_that_never_vary_correlate_with_nothing() -> None:
    varied = world(Painter(planted()))
    method = fitted(world(varied.generator, z_0=torch.ones_like(varied.z_0), labels=varied.labels), "sefa")
    assert method.match(formula("glasses")).correlation == 0
    assert not method.direction(formula("glasses")).any()


# --- as an editor and as a sampler ---


def test_an_edit_moves_by_deviations_of_the_projection(method: UnsupervisedDirections) -> None:
    z = method.training.z_0[:5]
    u = method.directions[1]
    spread = (method.training.z_0 @ u).std(correction=0)
    change = method.edit(z, request("+glasses", 0.5)).z_0 - z
    torch.testing.assert_close(change.norm(dim=1), (0.5 * 3 * spread).expand(5))
    torch.testing.assert_close(change @ u, (0.5 * 3 * spread * (u @ AXES[1]).sign()).expand(5))
    torch.testing.assert_close(method.edit(z, request("-glasses", 0.5)).z_0, z - change)
    once = fitted(method.training, method.kind, deviations=1.0)
    torch.testing.assert_close(3 * once.direction(formula("glasses")), method.direction(formula("glasses")))


def test_an_edit_reaches_what_the_axis_carries(method: UnsupervisedDirections) -> None:
    z = method.training.z_0
    moved = method.edit(z, request("+glasses +beard")).z_0 @ AXES.T
    assert ((moved[:, 1] > 0) & (moved[:, 3] < 0)).double().mean() > 0.98
    torch.testing.assert_close(moved[:, [0, 2, 4, 5]], (z @ AXES.T)[:, [0, 2, 4, 5]], rtol=0, atol=0.8)


def test_generation_moves_samples_of_the_prior(method: UnsupervisedDirections) -> None:
    z = method.training.z_0[:5]
    moved = method.generate(formula("glasses & ~beard"), z, strength=2.0)
    assert torch.equal(moved, method.edit(z, request("+glasses -beard", 2.0)).z_0)


def test_latents_of_any_shape_are_flattened(method: UnsupervisedDirections) -> None:
    other = fitted(world(Painter(planted(), (2, 3)), z_0=method.training.z_0), method.kind)
    z = method.training.z_0[:5]
    moved = other.edit(z.reshape(5, 2, 3), request("+glasses")).z_0
    torch.testing.assert_close(moved.flatten(1), method.edit(z, request("+glasses")).z_0)


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "ica"}, "`kind` must be one of pca, sefa, householder, jacobian, got 'ica'"),
        ({"deviations": 0.0}, r"`deviations` must be finite and > 0, got 0.0; .*negate the edit"),
        ({"rank": 0}, "`rank` must be at least 1, got 0"),
        ({"samples": 0}, "`samples` must be at least 1, got 0"),
        ({"iterations": 0}, "`iterations` must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UnsupervisedDirections(**options)


@pytest.mark.parametrize("kind", ["sefa", "householder"])
def test_a_generator_without_a_layer_for_the_latent_is_refused(kind: Kind) -> None:
    with pytest.raises(ValueError, match=r"Wordless decodes without a torch.nn.Linear of 6 inputs.* pca or jacobian"):
        fitted(world(Wordless()), kind)


def test_an_atom_without_both_sides_is_refused() -> None:
    training = world(Painter(planted()))
    training.labels[:, 0] = 1
    with pytest.raises(ValueError, match="no labelled latent for which 'glasses' does not hold"):
        fitted(training).direction(formula("glasses"))
