"""GradCtrl: the mask takes out exactly the salient channels, steps have the length they say, and lines are straight."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lcg.baselines.clean import log_probability
from lcg.baselines.contract import Literal, Training, literals
from lcg.baselines.gradctrl import GradCtrl, log_odds, salience, salient
from lcg.data.statistics import Statistics
from lcg.diffusion import CosineSchedule, GaussianDenoiser
from lcg.editing.contract import EditRequest
from lcg.generators.base import Generator
from lcg.guidance import Formula, parse, parse_edit
from lcg.guidance.terms import gradient
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.latent_classifier import LatentClassifier
from lcg.schema import Attribute, Schema

SCHEDULE, DIM = CosineSchedule(), 8

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
    return LatentClassifier((DIM,), SCHEMA, (16,), slope=0.1)


@pytest.fixture
def fitted(tmp_path: Path) -> Callable[..., GradCtrl]:
    def fit(network: LatentClassifier, **options: Any) -> GradCtrl:
        return GradCtrl(saved(network, tmp_path), **options).fit(training())

    return fit


def wanted(*texts: str) -> tuple[Literal, ...]:
    return literals(map(formula, texts), SCHEMA, "a test")


def unit(*values: float) -> Tensor:
    direction = torch.zeros(DIM)
    direction[: len(values)] = torch.tensor(values)
    return direction / direction.norm()


# --- the direction ---


@pytest.mark.parametrize("text", ["glasses", "~hat", "hair=red", "~hair=blond"])
def test_log_odds_point_where_the_probability_does(text: str) -> None:
    """grad p = p (1 - p) grad log-odds: one direction and one order of channels, which is all that the method uses."""
    network, z = mlp().double(), normal(5, DIM).double()
    (literal,) = wanted(text)
    ours = gradient(lambda z: log_odds(literal, network(z)), z)
    theirs = gradient(lambda z: log_probability(network, [literal])(z).exp(), z)
    p = log_probability(network, [literal])(z).detach().exp()
    torch.testing.assert_close((p * (1 - p))[:, None] * ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_certain_classifier_still_has_a_direction(fitted: Callable[..., GradCtrl]) -> None:
    """At a logit of 200 the probability is 1 in float32, and its gradient is 0; so it is at -200."""
    for offset in (200.0, -200.0):
        (direction,) = fitted(linear(offset), masked=0.0).directions(normal(3, DIM), wanted("glasses"))
        torch.testing.assert_close(direction, unit(2.0, 1.0).expand(3, -1))


def test_negation_turns_around(fitted: Callable[..., GradCtrl]) -> None:
    method, z = fitted(mlp()), normal(4, DIM)
    for text in ("glasses", "hair=red", "age>0.3"):
        for a, b in zip(method.directions(z, wanted(text)), method.directions(z, wanted(f"~{text}")), strict=True):
            torch.testing.assert_close(a, -b)


# --- the mask ---


def test_salient_channels_are_those_with_the_largest_gradients() -> None:
    grad = torch.tensor([[0.1, -5.0, 2.0, 0.0], [1.0, 0.0, -3.0, 2.0]])
    assert salient(grad, 0.5).tolist() == [[False, True, True, False], [False, False, True, True]]
    assert salient(grad, 0.25).tolist() == [[False, True, False, False], [False, False, True, False]]
    assert not salient(grad, 0.0).any()
    assert salient(normal(3, 4, 5), 0.3).flatten(1).sum(1).tolist() == [6, 6, 6]


def test_the_mask_removes_exactly_the_salient_channels(fitted: Callable[..., GradCtrl]) -> None:
    network, z = mlp(), normal(6, DIM)
    method = fitted(network, masked=0.25)
    (direction,) = method.directions(z, wanted("glasses"))
    gone = gradient(lambda z: network(z)["hat"], z).abs().argsort(1, descending=True)[:, :2]  # 2 of 8 channels
    kept = torch.ones(6, DIM).scatter(1, gone, 0.0)
    raw = kept * gradient(lambda z: network(z)["glasses"], z)
    torch.testing.assert_close(direction, raw / raw.norm(dim=1, keepdim=True))
    assert ((direction == 0).sum(1) == 2).all()


def test_an_attribute_whose_channels_are_masked_does_not_move(fitted: Callable[..., GradCtrl]) -> None:
    """Hat needs the channels 1 and 2 and no others: with these masked its logit stays, without the mask it moves."""
    network, z = linear(), normal(6, DIM)
    masked, free = (fitted(network, masked=share).edit(z, request("+glasses")).z_0 for share in (0.25, 0.0))
    assert torch.equal(network(masked)["hat"], network(z)["hat"])
    assert (network(free)["hat"] - network(z)["hat"]).min() > 1.0
    assert (network(masked)["glasses"] > network(z)["glasses"] + 1.0).all()


def test_edited_attributes_and_their_details_are_not_protected(fitted: Callable[..., GradCtrl]) -> None:
    def others(method: GradCtrl, *edits: str) -> list[str]:
        return [attribute.name for attribute in method.others(wanted(*edits))]

    method = fitted(linear())
    assert others(method, "hair=red") == ["glasses", "hat"]
    assert others(method, "glasses") == ["hat"]
    assert others(method, "glasses", "~hat") == []
    method = fitted(linear(), protected=["hair", "hat", "age"])
    assert others(method, "glasses") == ["hat", "hair", "age"]
    assert others(method, "~hat") == ["age"]  # what is under a hat is a detail of it


def test_salience_of_other_kinds(fitted: Callable[..., GradCtrl]) -> None:
    """Channels are ordered as by the probability of the most probable value; for an age, as by its mean."""
    network, z = mlp().double(), normal(5, DIM).double()
    ours = gradient(lambda z: salience(SCHEMA["hair"], network(z)["hair"]), z)
    theirs = gradient(lambda z: network(z)["hair"].softmax(1).amax(1), z)
    p = network(z)["hair"].softmax(1).amax(1).detach()[:, None]
    torch.testing.assert_close(p * (1 - p) * ours, theirs, rtol=1e-9, atol=1e-12)
    mean = network(z)["age"][:, 0]
    assert torch.equal(salience(SCHEMA["age"], network(z)["age"]), mean)


def test_where_the_mask_leaves_nothing_the_latent_stays(fitted: Callable[..., GradCtrl]) -> None:
    z = normal(4, DIM)
    method = fitted(linear(), masked=0.25, protected=["hair"])  # age and hair both need channel 3, and no other
    assert torch.equal(method.edit(z, request("age>0.5")).z_0, z)
    assert torch.equal(fitted(linear(), masked=0.9).edit(z, request("+glasses")).z_0, z)


# --- the path ---


def test_with_a_linear_classifier_the_path_is_a_straight_line(fitted: Callable[..., GradCtrl]) -> None:
    z = normal(5, DIM)
    for share, normal_vector in ((0.0, unit(2.0, 1.0)), (0.25, unit(1.0)), (0.125, unit(1.0))):
        method = fitted(linear(), masked=share)
        for strength in (0.5, 1.0, 2.0):
            moved = method.edit(z, request("+glasses", strength=strength)).z_0
            torch.testing.assert_close(moved, z + 4 * strength * normal_vector, rtol=1e-5, atol=1e-5)


def test_steps_have_the_stated_length_and_the_path_bends(fitted: Callable[..., GradCtrl]) -> None:
    """k steps of a path that is k/9 as long are the first k steps of it."""
    network, z = mlp(), normal(5, DIM)
    path = [z] + [fitted(network, steps=k, length=k * 4 / 9).edit(z, request("+glasses")).z_0 for k in range(1, 10)]
    torch.testing.assert_close(path[-1], fitted(network).edit(z, request("+glasses")).z_0)
    steps = torch.stack(path).diff(dim=0)
    torch.testing.assert_close(steps.norm(dim=2), torch.full((9, 5), 4 / 9), rtol=1e-5, atol=1e-5)
    assert (torch.cosine_similarity(steps[0], steps[-1], dim=1) < 0.999).any()


def test_several_edits_have_a_step_each(fitted: Callable[..., GradCtrl]) -> None:
    z = normal(4, DIM)
    method = fitted(linear(), masked=0.0)
    moved = method.edit(z, request("+glasses", "-hat")).z_0
    torch.testing.assert_close(moved, z + 4 * unit(2.0, 1.0) - 4 * unit(0.0, 3.0, 1.0))
    weighted = method.generate(formula("glasses^0.5 & ~hat^2"), z)
    torch.testing.assert_close(weighted, z + 2 * unit(2.0, 1.0) - 8 * unit(0.0, 3.0, 1.0))


def test_latents_of_any_shape(tmp_path: Path) -> None:
    torch.manual_seed(0)
    flat, shaped = mlp(), LatentClassifier((2, 4), SCHEMA, (16,), slope=0.1)
    shaped.load_state_dict(flat.state_dict())
    z = normal(3, DIM)
    expected = GradCtrl(saved(flat, tmp_path)).fit(training()).edit(z, request("+glasses")).z_0
    found = GradCtrl(saved(shaped, tmp_path)).fit(training()).edit(z.view(3, 2, 4), request("+glasses")).z_0
    torch.testing.assert_close(found.view(3, DIM), expected)


# --- as an editor and as a sampler ---


def test_no_strength_is_the_source(fitted: Callable[..., GradCtrl]) -> None:
    z, method = normal(4, DIM), fitted(mlp())
    assert torch.equal(method.edit(z, request("+glasses", "hair=red", "age>0.6", strength=0.0)).z_0, z)


def test_rows_are_independent_and_have_their_own_strength(fitted: Callable[..., GradCtrl]) -> None:
    z, method = normal(3, DIM), fitted(mlp())
    strength = torch.tensor([0.5, 1.0, 2.0])
    with torch.no_grad():
        together = method.edit(z, request("+glasses", "hair=red", strength=strength)).z_0
    for i, each in enumerate((0.5, 1.0, 2.0)):
        alone = method.edit(z[i : i + 1], request("+glasses", "hair=red", strength=each)).z_0
        torch.testing.assert_close(together[i : i + 1], alone)
    assert torch.equal(method.edit(z, request("+glasses")).z_0, method.edit(z, request("+glasses", strength=1.0)).z_0)
    assert not method.edit(z, request("+glasses")).z_0.requires_grad


@pytest.mark.parametrize("text", ["glasses", "~hat", "hair=red", "~hair=black", "age>0.6", "age<-0.6"])
def test_every_kind_of_edit_becomes_more_probable(fitted: Callable[..., GradCtrl], text: str) -> None:
    network, z = mlp(), normal(20, DIM)
    log_p = log_probability(network, wanted(text))
    moved = fitted(network, masked=0.0).generate(formula(text), z, strength=0.5)
    assert (log_p(moved) > log_p(z)).all()


def test_generation_edits_samples_of_the_prior(fitted: Callable[..., GradCtrl]) -> None:
    z, method = normal(4, DIM), fitted(mlp())
    edited = method.edit(z, request("+glasses", "-hat", strength=1.5)).z_0
    assert torch.equal(method.generate(formula("glasses & ~hat"), z, strength=1.5), edited)
    assert method.can_generate(formula("glasses & ~hat & hair=red"))
    assert not method.can_generate(formula("glasses | hat"))


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


def test_what_it_cannot_do_is_refused(fitted: Callable[..., GradCtrl], tmp_path: Path) -> None:
    z, method = normal(4, DIM), fitted(linear())
    with pytest.raises(RuntimeError, match=r"gradctrl has no classifier yet; call `fit\(training\)` first"):
        GradCtrl().edit(z, request("+glasses"))
    with pytest.raises(ValueError, match=r"gradctrl knows literals only, .*use lcg for other formulas"):
        method.generate(formula("glasses | hat"), z)
    with pytest.raises(ValueError, match="the edits contradict each other: glasses & ~glasses; take one back"):
        method.edit(z, request("+glasses", "-glasses"))
    with pytest.raises(ValueError, match=r"`z_0` must be latents of shape \(8,\)"):
        method.edit(z[:, 1:], request("+glasses"))
    with pytest.raises(ValueError, match="`strength` must be finite and >= 0"):
        method.edit(z, request("+glasses", strength=-1.0))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="guidance needs gradients"):
        method.edit(z, request("+glasses"))
    with pytest.raises(ValueError, match="unknown attribute 'glases'; did you mean 'glasses'"):
        fitted(linear(), protected=["glases"])
    with pytest.raises(ValueError, match="was trained on another store"):
        GradCtrl(saved(linear(), tmp_path)).fit(training(store="b" * 64))
    with pytest.raises(FileNotFoundError, match="no latent_classifier at"):
        GradCtrl(tmp_path / "missing.ckpt").fit(training())
