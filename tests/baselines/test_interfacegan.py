"""InterFaceGAN: finds the planted hyperplane, and keeps exactly the scores that it is told to keep."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lcg.baselines.contract import Training
from lcg.baselines.interfacegan import InterFaceGAN, conditional, support_vector_normal
from lcg.data.statistics import Statistics
from lcg.diffusion import CosineSchedule, GaussianDenoiser
from lcg.editing import EditRequest
from lcg.generators.base import Generator
from lcg.guidance import Formula, parse, parse_edit
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import HeadOutputs
from lcg.schema import Attribute, Schema

D = 8
SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("beard"),
        Attribute("smile"),
        Attribute("stubble", detail_of=("beard",)),
        Attribute("style", "categorical", ("round", "square", "tinted"), applies_if={"glasses": True}),
        Attribute("mouth", "categorical", ("open", "shut")),
        Attribute("age", "continuous"),
    )
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


PLANTED = nn.functional.normalize(normal(9, D, seed=11), dim=1)  # of the binary ones, the styles, mouth, age


class Exact(TimeConditionedClassifier):
    """Its log-odds are linear in the latent: the hyperplanes are known."""

    def forward(self, z_t: Tensor, t: Tensor) -> HeadOutputs:
        assert bool((t == 0.02).all())
        score = z_t.flatten(1).double() @ PLANTED.T
        outputs = {name: score[:, k] for k, name in enumerate(("glasses", "beard", "smile", "stubble"))}
        outputs["style"], outputs["mouth"] = score[:, 4:7], torch.stack((score[:, 7], -score[:, 7]), 1)
        outputs["age"] = torch.stack((score[:, 8], torch.zeros(len(score))), 1)
        return {a.name: outputs[a.name] for a in self.schema}


class Pixels(Generator):
    """Every element of the latent is a pixel."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.latent_shape, self.image_shape = shape, (1, 1, math.prod(shape))

    def decode(self, z: Tensor) -> Tensor:
        return z.reshape(len(z), *self.image_shape)


def world(n: int = 4000, shape: tuple[int, ...] = (D,), known: Schema = SCHEMA) -> Training:
    """Normal latents with labels read off the planted scores."""
    z = normal(n, D)
    score = z @ PLANTED.T
    labels = torch.cat(
        ((score[:, :4] > 0).double(), score[:, 4:7].argmax(1)[:, None], (score[:, 7:8] < 0).double(), score[:, 8:]), 1
    )
    labels[labels[:, 0] == 0, 4] = torch.nan
    denoiser = GaussianDenoiser(torch.zeros(D), torch.eye(D), CosineSchedule())
    statistics = Statistics(torch.zeros(shape), torch.ones(shape))
    classifier = Exact(shape, known, width=8, depth=1)
    z = z.reshape(n, *shape)
    return Training(z, labels, SCHEMA, Pixels(shape), statistics, denoiser, denoiser.schedule, classifier)


@pytest.fixture(scope="module")
def training() -> Training:
    return world()


def fitted(training: Training, **options: Any) -> InterFaceGAN:
    return InterFaceGAN(**options).fit(training)


def formula(text: str) -> Formula:
    return parse(text, SCHEMA)


def request(text: str, strength: float | Tensor | None = None) -> EditRequest:
    return EditRequest(tuple(parse_edit(word, SCHEMA) for word in text.split()), strength=strength)


# --- normals ---


def test_two_points_are_separated_by_their_perpendicular_bisector() -> None:
    a, b = normal(1, D, seed=1), normal(1, D, seed=2)
    found, accuracy = support_vector_normal(a, b, train_share=1.0)
    torch.testing.assert_close(found, ((a - b) / (a - b).norm())[0], rtol=0, atol=1e-6)
    assert math.isnan(accuracy)


def test_the_widest_margin_is_found() -> None:
    """Of the squares [1, 3]^2 and [-3, -1] x [1, 3] only x tells, and the margin's normal is exactly that."""
    corners = torch.tensor([[1.0, 1.0], [1.0, 3.0], [3.0, 1.0], [3.0, 3.0]])
    found, _ = support_vector_normal(corners, corners * torch.tensor([-1.0, 1.0]), train_share=1.0)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "planted"),
    [
        ("glasses", PLANTED[0]),
        ("smile", PLANTED[2]),
        ("mouth=open", PLANTED[7]),
        ("mouth=shut", -PLANTED[7]),
        ("age>0.3", PLANTED[8]),
        ("age<0.3", -PLANTED[8]),
    ],
)
@pytest.mark.parametrize("scores", ["classifier", "labels"])
def test_a_support_vector_machine_finds_the_planted_normal(
    training: Training, text: str, planted: Tensor, scores: str
) -> None:
    method = fitted(training, condition="none", scores=scores, share=0.2)
    found = method.normal(formula(text))
    assert float(found.norm()) == pytest.approx(1.0)
    assert float(found @ planted) > 0.98
    assert method.accuracy[text] > 0.95


def test_validation_accuracy_is_of_what_was_held_out() -> None:
    """Sides that are one cloud: what is trained on may be told apart, what is held out is not."""
    cloud = normal(120, 40, seed=3)
    _, accuracy = support_vector_normal(cloud[:60], cloud[60:])
    assert 0.2 < accuracy < 0.8
    shifted = cloud[60:] - 20
    assert support_vector_normal(cloud[:60], shifted)[1] == 1.0


def test_only_the_extremes_are_looked_at(training: Training) -> None:
    """Of all latents but the upper and the lower share nothing is used."""
    method = fitted(training, condition="none", share=0.05)
    score = training.z_0 @ PLANTED[0]
    order = score.argsort()
    extremes = torch.cat((order[:200], order[-200:]))
    z_0 = training.z_0.clone()
    middle = torch.ones(len(z_0), dtype=torch.bool)
    middle[extremes] = False
    # Across the normal the others may lie anywhere.
    z_0[middle] = torch.outer(score[middle], PLANTED[0])
    changed = fitted(Training(**{**vars(training), "z_0": z_0}), condition="none", share=0.05)
    torch.testing.assert_close(changed.normal(formula("glasses")), method.normal(formula("glasses")))


def test_rows_to_which_a_detail_does_not_apply_are_left_out(training: Training) -> None:
    applies = ~training.labels[:, 4].isnan()
    z_0 = torch.where(applies[:, None], training.z_0, 100 * PLANTED[4] - 50 * PLANTED[5])
    changed = fitted(Training(**{**vars(training), "z_0": z_0}), condition="none")
    method = fitted(training, condition="none")
    torch.testing.assert_close(changed.normal(formula("style=round")), method.normal(formula("style=round")))


def test_labels_take_the_place_of_a_classifier_that_does_not_know(training: Training) -> None:
    ignorant = fitted(world(known=Schema(SCHEMA.attributes[:2])), condition="none")
    by_labels = fitted(training, condition="none", scores="labels")
    assert torch.equal(ignorant.normal(formula("smile")), by_labels.normal(formula("smile")))
    by_scores = fitted(training, condition="none")
    assert torch.equal(ignorant.normal(formula("beard")), by_scores.normal(formula("beard")))


def test_the_split_follows_the_seed(training: Training) -> None:
    a, b, c = (fitted(training, seed=seed).normal(formula("glasses")) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


# --- conditional manipulation ---


def test_a_conditional_direction_is_orthogonal_to_all_given() -> None:
    primal, given = PLANTED[0], PLANTED[1:6]
    direction = conditional(primal, given)
    assert (given @ direction).abs().max() < 1e-14
    assert float(direction.norm()) == pytest.approx(1.0)


def test_of_all_orthogonal_directions_it_is_the_nearest() -> None:
    """The projection onto the orthogonal complement, here by least squares."""
    primal, given = PLANTED[0], PLANTED[1:4]
    fit = torch.linalg.lstsq(given.T, primal[:, None]).solution[:, 0]
    rest = primal - given.T @ fit
    torch.testing.assert_close(conditional(primal, given), rest / rest.norm())


def test_one_condition_is_the_papers_formula() -> None:
    """n_1 - (n_1 . n_2) n_2."""
    a, b = PLANTED[0], PLANTED[1]
    rest = a - (a @ b) * b
    torch.testing.assert_close(conditional(a, b[None]), rest / rest.norm())
    torch.testing.assert_close(conditional(a, torch.stack((b, b, -b))), rest / rest.norm())


def test_scores_that_are_kept_do_not_change(training: Training) -> None:
    method, z = fitted(training), training.z_0[:50]
    moved = method.edit(z, request("+glasses", 2.0)).z_0
    for name in ("beard", "smile", "stubble"):
        change = (moved - z) @ method.normal(formula(name))
        assert change.abs().max() < 1e-6
    assert ((moved - z) @ method.normal(formula("glasses"))).min() > 1


def test_without_a_condition_other_scores_change(training: Training) -> None:
    method, z = fitted(training, condition="none"), training.z_0[:50]
    moved = method.edit(z, request("+glasses")).z_0
    change = (moved - z) @ method.normal(formula("beard"))
    expected = 3 * method.normal(formula("glasses")) @ method.normal(formula("beard"))
    torch.testing.assert_close(change, expected.expand(50))
    assert expected.abs() > 0.1


def test_named_conditions_are_kept_and_no_others(training: Training) -> None:
    method, z = fitted(training, condition=["smile", "mouth"]), training.z_0[:50]
    direction = method.edit(z, request("+glasses")).z_0 - z
    for text in ("smile", "mouth=open", "mouth=shut"):
        assert (direction @ method.normal(formula(text))).abs().max() < 1e-6
    assert (direction @ method.normal(formula("beard"))).abs().min() > 0.1


def test_what_depends_on_the_edited_attribute_is_not_kept(training: Training) -> None:
    method = fitted(training, condition=["glasses", "beard", "stubble", "style"])
    of = {a.name: [str(atom) for atom in method.conditions(a)] for a in SCHEMA}
    assert of["beard"] == ["glasses", "style=round", "style=square", "style=tinted"]
    assert of["glasses"] == ["beard", "stubble"]
    assert [str(atom) for atom in fitted(training).conditions(SCHEMA["smile"])] == ["glasses", "beard", "stubble"]
    assert list(fitted(training, condition="none").conditions(SCHEMA["smile"])) == []


# --- as an editor and as a sampler ---


def test_an_edit_is_z_plus_alpha_n(training: Training) -> None:
    method, z = fitted(training, condition="none"), training.z_0[:6]
    n = method.normal(formula("glasses"))
    torch.testing.assert_close(method.edit(z, request("+glasses")).z_0, z + 3 * n)
    torch.testing.assert_close(method.edit(z, request("-glasses", 0.5)).z_0, z - 1.5 * n)
    half = fitted(training, condition="none", alpha=1.5)
    torch.testing.assert_close(half.edit(z, request("+glasses")).z_0, z + 1.5 * n)


def test_an_edit_makes_the_attribute_likelier(training: Training) -> None:
    method = fitted(training)
    lacking = training.z_0[(training.z_0 @ PLANTED[0] < 0) & (training.z_0 @ PLANTED[2] < 0)]
    moved = method.edit(lacking, request("+glasses +smile", 2.5)).z_0
    assert ((moved @ PLANTED[0] > 0) & (moved @ PLANTED[2] > 0)).double().mean() > 0.9


def test_generation_moves_samples_of_the_prior(training: Training) -> None:
    method, z = fitted(training), training.z_0[:5]
    moved = method.generate(formula("glasses & ~smile"), z, strength=2.0)
    assert torch.equal(moved, method.edit(z, request("+glasses -smile", 2.0)).z_0)


def test_latents_of_any_shape_are_flattened(training: Training) -> None:
    method, z = fitted(world(shape=(2, D // 2))), training.z_0[:5]
    moved = method.edit(z.reshape(5, 2, D // 2), request("+glasses")).z_0
    torch.testing.assert_close(moved.flatten(1), fitted(training).edit(z, request("+glasses")).z_0)


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, r"`alpha` must be finite and > 0, got 0.0; .*negate the edit"),
        ({"alpha": math.inf}, r"`alpha` must be finite"),
        ({"share": 0.6}, r"`share` must be in \(0, 0.5\], got 0.6"),
        ({"train_share": 0.0}, r"`train_share` must be in \(0, 1.0\], got 0.0"),
        ({"scores": "logits"}, "`scores` must be one of classifier, labels, got 'logits'"),
        ({"condition": "glasses"}, "`condition` must be none, all or a list of attributes, got 'glasses'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InterFaceGAN(**options)


def test_conditions_that_are_not_there_are_refused(training: Training) -> None:
    with pytest.raises(ValueError, match="unknown attribute 'smlie'; did you mean 'smile'"):
        fitted(training, condition=["smlie"])
    with pytest.raises(ValueError, match="`condition` names the continuous 'age', for which there is no one"):
        fitted(training, condition=["age"]).edit(training.z_0[:2], request("+glasses"))


def test_a_direction_that_others_span_is_refused() -> None:
    training = world()
    twice = Training(**{**vars(training), "labels": training.labels[:, [1, 1, 2, 3, 4, 5, 6]]})
    method = fitted(twice, scores="labels", condition=["beard"])
    with pytest.raises(ValueError, match=r"nothing is left of the direction of 'glasses' when 1 others are kept; name"):
        method.direction(formula("glasses"))


def test_too_few_latents_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`share` 0.02 of 40 latents leaves 0 on either side of 'glasses', too few"):
        fitted(world(40)).normal(formula("glasses"))
    training = world()
    training.labels[:, 2] = 0
    with pytest.raises(ValueError, match="no labelled latent for which 'smile' holds"):
        fitted(training, scores="labels").normal(formula("smile"))
