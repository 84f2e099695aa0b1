"""StyleFlow: with a flow that only translates it is arithmetic, in closed form; and it asks for sensible attributes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lcg.baselines.contract import Training
from lcg.baselines.styleflow import StyleFlow
from lcg.data.statistics import Statistics
from lcg.diffusion import CosineSchedule, GaussianDenoiser, generators
from lcg.editing import EditRequest
from lcg.generators.base import Generator
from lcg.guidance import Formula, parse, parse_edit
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.continuous_flow import ContinuousFlow
from lcg.schema import Attribute, Schema

NAN = float("nan")
SCHEMA = Schema(
    (
        Attribute("hat"),
        Attribute("long", detail_of=("hat",)),
        Attribute("hair", "categorical", ("blond", "red", "black"), applies_if={"hat": False}),
        Attribute("age", "continuous"),
        Attribute("wrinkles", "categorical", ("none", "few", "many"), detail_of=("age",)),
        Attribute("top", "categorical", ("cap", "beret", "short", "bob"), detail_of=("hat", "long")),
    )
)
SIZE = 4


class Line(Generator):
    """One grey pixel for each coordinate."""

    latent_shape, image_shape = (SIZE,), (3, 1, SIZE)

    def decode(self, z: Tensor) -> Tensor:
        return z.tanh()[:, None, None].expand(-1, 3, 1, -1)


def world(n: int = 300) -> tuple[Tensor, Tensor]:
    """Latents and labels: no long hair under a hat, no hat on anybody who is older than 0.8."""
    rng = torch.Generator().manual_seed(0)
    u = torch.rand(n, 6, generator=rng)
    age = u[:, 3]
    hat = ((u[:, 0] < 0.4) & (age < 0.8)).float()
    long = (1 - hat) * (u[:, 1] < 0.6)
    hair = torch.where(hat == 1, NAN, (u[:, 2] > 0.3).float() + (u[:, 2] > 0.9))
    wrinkles = (age > 0.3).float() + (age > 0.7)
    top = torch.where(hat == 1, (u[:, 5] < 0.7).float(), 2 + long)
    return torch.randn(n, SIZE, generator=rng), torch.stack((hat, long, hair, age, wrinkles, top), 1)


def row(**labels: float) -> list[float]:
    return [labels.get(name, NAN) for name in SCHEMA.names]


def literal(text: str) -> Formula:
    return parse(text, SCHEMA)


def training(z_0: Tensor, labels: Tensor) -> Training:
    classifier = TimeConditionedClassifier((SIZE,), SCHEMA, width=8, depth=1).eval()
    nn.init.normal_(classifier.net.output.weight, generator=torch.Generator().manual_seed(1))
    denoiser, schedule = GaussianDenoiser(torch.zeros(SIZE), torch.eye(SIZE), CosineSchedule()), CosineSchedule()
    statistics = Statistics(torch.zeros(SIZE), torch.ones(SIZE))
    return Training(z_0, labels, SCHEMA, Line(), statistics, denoiser, schedule, classifier)


def translation() -> ContinuousFlow:
    """dz/dt = S a: noise is z_0 + S a, whatever z_0."""
    torch.manual_seed(0)
    flow = ContinuousFlow((SIZE,), SCHEMA, ())
    flow.standardise_labels(world()[1])
    for parameter in (flow.layers[0].linear.weight, flow.layers[0].linear.bias):
        nn.init.zeros_(parameter)
    nn.init.normal_(flow.layers[0].shift.weight)
    nn.init.zeros_(flow.layers[0].shift.weight[:, :1])
    for norm in (flow.first, flow.last):
        norm.var.fill_(1 - norm.eps)
    return flow.eval()


def curved() -> ContinuousFlow:
    torch.manual_seed(0)
    flow = ContinuousFlow((SIZE,), SCHEMA, (16,))
    flow.standardise_labels(world()[1])
    return flow.eval()


@pytest.fixture
def fitted(save, tmp_path: Path) -> Callable[[ContinuousFlow], StyleFlow]:
    def fit(flow: ContinuousFlow) -> StyleFlow:
        return StyleFlow(save(flow, tmp_path / "styleflow.ckpt")).fit(training(*world()))

    return fit


@pytest.fixture
def styleflow(fitted) -> StyleFlow:
    return fitted(curved())


def distances(z: Tensor, others: Tensor) -> Tensor:
    return torch.cdist(z, others, compute_mode="donot_use_mm_for_euclid_dist")


def edit(editor: StyleFlow, z_0: Tensor, *words: str, **more: object) -> Tensor:
    return editor.edit(z_0, EditRequest(tuple(parse_edit(word, SCHEMA) for word in words), **more)).z_0


# --- the flow's edit ---


def test_with_a_flow_that_translates_an_edit_is_arithmetic(fitted) -> None:
    """z' = z_0 - s S (a' - a): what the source knows of itself is in the noise, and stays."""
    editor = fitted(translation())
    z_0, labels = (part[:20] for part in world())
    shift = editor.flow.layers[0].shift.weight[:, 1:]
    target = editor.target_labels(labels, editor._wanted([literal("wrinkles=many")]))
    moved = editor.flow.encode(target) - editor.flow.encode(labels)
    for strength in (0.5, 1.0, 2.0):
        found = edit(editor, z_0, "wrinkles=many", labels=labels, strength=strength)
        torch.testing.assert_close(found, z_0 - strength * moved @ shift.T, rtol=1e-4, atol=1e-4)
    assert torch.equal(
        edit(editor, z_0, "wrinkles=many", labels=labels),
        found * 0 + edit(editor, z_0, "wrinkles=many", labels=labels, strength=1.0),
    )


def test_an_edit_keeps_the_noise_under_the_new_attributes(styleflow: StyleFlow) -> None:
    """The source's own noise, read under its attributes, is that of the result under the attributes it was given."""
    z_0, labels = (part[:20] for part in world())
    edited = edit(styleflow, z_0, "+hat", labels=labels)
    target = styleflow.target_labels(labels, styleflow._wanted([literal("hat")]))
    with torch.no_grad():
        before = styleflow.flow.to_noise(z_0, styleflow.flow.encode(labels))
        after = styleflow.flow.to_noise(edited, styleflow.flow.encode(target))
    assert (edited - z_0)[labels[:, 0] == 0].abs().amax(1).min() > 0.05
    assert (after - before).abs().max() < 1e-4


def test_there_and_back_again(styleflow: StyleFlow) -> None:
    z_0, labels = (part[:20] for part in world())
    other = labels.clone()
    other[:, 4] = 2
    away = edit(styleflow, z_0, "wrinkles=many", labels=labels)
    for value in range(3):
        rows = labels[:, 4] == value
        name = SCHEMA["wrinkles"].values[value]
        back = edit(styleflow, away[rows], f"wrinkles={name}", labels=other[rows])
        assert (back - z_0[rows]).abs().max() < 1e-4


def test_no_strength_and_nothing_to_change_are_no_edit(styleflow: StyleFlow) -> None:
    z_0, labels = (part[:20] for part in world())
    assert torch.equal(edit(styleflow, z_0, "+hat", labels=labels, strength=0.0), z_0)
    has = labels[:, 0] == 1
    assert torch.equal(edit(styleflow, z_0[has], "+hat", labels=labels[has]), z_0[has])
    assert edit(styleflow, z_0[:0], "+hat", labels=labels[:0]).shape == (0, SIZE)


def test_a_batch_is_its_rows_each_with_its_strength(styleflow: StyleFlow) -> None:
    z_0, labels = (part[:4] for part in world())
    strength = torch.tensor([0.0, 0.5, 1.0, 2.0])
    together = edit(styleflow, z_0, "+hat", "age>0.5", labels=labels, strength=strength)
    for k in range(4):
        one = slice(k, k + 1)
        alone = edit(styleflow, z_0[one], "+hat", "age>0.5", labels=labels[one], strength=float(strength[k]))
        assert (alone - together[one]).abs().max() < 1e-4
    assert torch.equal(together[0], z_0[0])


def test_weights_multiply_the_strength_of_their_attribute(fitted) -> None:
    editor = fitted(translation())
    z_0, labels = (part[:10] for part in world())
    request = EditRequest((literal("wrinkles=many^2.0"),), labels)
    twice = edit(editor, z_0, "wrinkles=many", labels=labels, strength=2.0)
    torch.testing.assert_close(editor.edit(z_0, request).z_0, twice)


def test_details_are_not_extrapolated(fitted) -> None:
    editor = fitted(translation())
    z_0, labels = world()
    bare = labels[:, 0] == 0
    z_0, labels = z_0[bare][:10], labels[bare][:10]
    once, thrice = (edit(editor, z_0, "+hat", labels=labels, strength=s) for s in (1.0, 3.0))
    hat = editor.flow.layers[0].shift.weight[:, 1]
    torch.testing.assert_close(thrice - once, (-2 * 2 * hat).expand(10, -1), rtol=1e-4, atol=1e-4)  # from -1 to 1


# --- which attributes are asked for ---


def target(editor: StyleFlow, text: str, **labels: float) -> list[float]:
    return editor.target_labels(torch.tensor([row(**labels)]), editor._wanted([literal(text)]))[0].tolist()


def test_details_of_a_new_hat_are_the_most_frequent_under_hats(styleflow: StyleFlow) -> None:
    source = {"hat": 0.0, "long": 1.0, "hair": 0.0, "age": 0.5, "wrinkles": 1.0, "top": 3.0}
    found = dict(zip(SCHEMA.names, target(styleflow, "hat", **source), strict=True))
    assert (found["hat"], found["long"], found["top"]) == (1, 0, 1)  # a beret on short hair
    assert found["hair"] != found["hair"]  # hidden
    assert found["age"] == 0.5 and found["wrinkles"] == 1


def test_details_follow_each_other(styleflow: StyleFlow) -> None:
    """Without the hat hair is long more often than not; the top is then a bob, and not what is most frequent of all."""
    source = {"hat": 1.0, "long": 0.0, "age": 0.5, "wrinkles": 1.0, "top": 0.0}
    found = dict(zip(SCHEMA.names, target(styleflow, "~hat", **source), strict=True))
    assert (found["hat"], found["long"], found["hair"], found["top"]) == (0, 1, 1, 3)


def test_an_attribute_that_is_as_asked_keeps_its_value_and_its_details(styleflow: StyleFlow) -> None:
    source = {"hat": 1.0, "long": 0.0, "age": 0.9, "wrinkles": 0.0, "top": 0.0}
    for text in ("hat", "age>0.6", "top in {cap, bob}", "~wrinkles=many"):
        torch.testing.assert_close(
            torch.tensor(target(styleflow, text, **source)), torch.tensor(row(**source)), equal_nan=True
        )


def test_thresholds_and_sets_ask_for_what_training_has_there(styleflow: StyleFlow) -> None:
    labels = world()[1]
    source = {"hat": 0.0, "long": 0.0, "hair": 0.0, "age": 0.2, "wrinkles": 0.0, "top": 2.0}
    old = dict(zip(SCHEMA.names, target(styleflow, "age>0.75", **source), strict=True))
    assert old["age"] == pytest.approx(float(labels[labels[:, 3] > 0.75, 3].mean())) and old["wrinkles"] == 2
    between = target(styleflow, "age>0.4 & age<0.5", **source)[3]
    inside = (labels[:, 3] > 0.4) & (labels[:, 3] < 0.5)
    assert between == pytest.approx(float(labels[inside, 3].mean()))
    assert target(styleflow, "~hair=blond", **source)[2] == 1  # red is more frequent than black
    assert target(styleflow, "hair=black", **source)[2] == 2


def test_details_that_were_never_seen_so_become_unknown(styleflow: StyleFlow) -> None:
    source = {"hat": 1.0, "long": 0.0, "age": 0.5, "wrinkles": 1.0, "top": 0.0}
    found = dict(zip(SCHEMA.names, target(styleflow, "long", **source), strict=True))
    assert found["long"] == 1 and found["top"] != found["top"]


def test_labels_are_completed_by_the_classifier(styleflow: StyleFlow) -> None:
    z_0, labels = (part[:30] for part in world())
    read = styleflow.source_labels(z_0, None)
    assert torch.equal(torch.isnan(read[:, 2]), read[:, 0] == 1) and 0 < read[:, 0].mean() < 1
    known = torch.full_like(labels, NAN)
    known[:, 0] = labels[:, 0]
    completed = styleflow.source_labels(z_0, known)
    assert torch.equal(completed[:, 0], labels[:, 0]) and torch.equal(completed[:, 3:], read[:, 3:])
    assert bool(completed[labels[:, 0] == 1, 2].isnan().all())
    torch.testing.assert_close(styleflow.source_labels(z_0, labels), labels, equal_nan=True)
    assert not torch.equal(edit(styleflow, z_0, "+hat"), edit(styleflow, z_0, "+hat", labels=labels))


# --- sampling ---


def test_samples_have_the_noise_that_was_drawn_under_labels_of_training(fitted) -> None:
    """With a flow that translates, z = u - S a: samples less their noise lie on the attribute vectors of the rows."""
    editor = fitted(translation())
    seeds, rows = range(40), world()[1]
    z = editor.generate(literal("hat & age>0.5"), torch.zeros(40, SIZE), generators(seeds))
    noise = torch.stack([torch.randn(1 + SIZE, generator=g)[1:] for g in generators(seeds)])
    inside = rows[(rows[:, 0] == 1) & (rows[:, 3] > 0.5)]
    possible = -editor.flow.encode(inside) @ editor.flow.layers[0].shift.weight[:, 1:].T
    distance = distances(z - noise, possible)
    assert distance.amin(1).max() < 1e-4
    assert len(distance.argmin(1).unique()) > 10


def test_a_combination_without_rows_overwrites_labels(fitted) -> None:
    editor = fitted(translation())
    labels = world()[1]
    formula = literal("hat & age>0.85")
    assert not bool(formula.holds(labels).any())
    z = editor.generate(formula, torch.zeros(40, SIZE), generators(range(40)))
    noise = torch.stack([torch.randn(1 + SIZE, generator=g)[1:] for g in generators(range(40))])
    asked = editor.target_labels(labels, editor._wanted([formula]))
    assert bool((asked[:, 0] == 1).all()) and bool((asked[:, 3] > 0.85).all())
    possible = -editor.flow.encode(asked) @ editor.flow.layers[0].shift.weight[:, 1:].T
    assert distances(z - noise, possible).amin(1).max() < 1e-4


def test_of_the_latents_that_samples_are_asked_with_only_the_number_counts(styleflow: StyleFlow) -> None:
    a, b = (styleflow.generate(literal("hat"), torch.full((4, SIZE), x), generators(range(4))) for x in (0.0, 1.0))
    assert torch.equal(a, b)


def test_the_strength_of_samples_starts_at_the_mean_of_training(fitted) -> None:
    editor = fitted(translation())
    z = [editor.generate(literal("hat"), torch.zeros(6, SIZE), generators(range(6)), s) for s in (0.0, 1.0, 2.0)]
    torch.testing.assert_close(z[2] - z[1], z[1] - z[0], rtol=1e-4, atol=1e-4)
    share = 2 * world()[1][:, 0].mean() - 1
    expected = (1 - share) * -editor.flow.layers[0].shift.weight[:, 1]
    torch.testing.assert_close(z[1] - z[0], expected.expand(6, -1), rtol=1e-4, atol=1e-4)


# --- errors ---


def test_what_does_not_fit_is_refused(styleflow: StyleFlow) -> None:
    z_0, labels = (part[:3] for part in world())
    with pytest.raises(ValueError, match=r"`labels` must be \(3, 6\), a row per source .* got \(2, 6\)"):
        edit(styleflow, z_0, "+hat", labels=labels[:2])
    with pytest.raises(
        ValueError, match=r"there is no labelled latent for which 'age>2\.0' holds, so the flow has not"
    ):
        edit(styleflow, z_0, "age>2", labels=labels)
    with pytest.raises(ValueError, match="there is no labelled latent for which 'hat & ~hat' holds"):
        styleflow.generate(literal("hat & ~hat"), z_0)
