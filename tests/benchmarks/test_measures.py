"""Every figure by hand, on images whose labels and features are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from lcg.benchmarks.evaluator import Reference, Seen, Sources
from lcg.benchmarks.figures import Figure
from lcg.benchmarks.folder import write_tensors
from lcg.benchmarks.measures import (
    STANDARD,
    Accuracy,
    Frechet,
    Identity,
    Measure,
    Neighbours,
    Pixels,
    Preservation,
    Psnr,
    Sharp,
    SideEffects,
    outside_of,
)
from lcg.benchmarks.tasks import parse_task
from lcg.benchmarks.view import Frame, View, frames_of
from lcg.metrics.frechet import moments
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("hat"),
        Attribute("glasses"),
        Attribute("hair", "categorical", ("blond", "red"), detail_of=("hat",), applies_if={"hat": False}),
        Attribute("eyes", "categorical", ("open", "shut")),
    )
)
NAN = math.nan
LABELS = torch.tensor([[1, 0, NAN, 0], [1, 1, NAN, 0], [0, 1, 1, 1], [1, 0, NAN, 1.0]])


class Truth:
    """An evaluator whose judge sees the first pixel: features are its three values."""

    def __init__(self, features: Tensor, weights: Tensor | None = None) -> None:
        weights = torch.full((len(features),), 1 / len(features)).double() if weights is None else weights
        self.world = SimpleNamespace(schema=SCHEMA)
        self.reference = Reference(features, weights, *moments(features, weights))

    def satisfying(self, formula: object) -> Reference:
        return self.reference

    def biased(self) -> tuple[Reference, Tensor]:
        return self.reference, self.reference.features

    def see(self, images: np.ndarray) -> Seen:
        return Seen(torch.zeros(len(images), len(SCHEMA)), torch.from_numpy(images[:, 0, 0]).float())


def features(n: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def view(tmp_path: Path) -> Callable[..., View]:
    """Images of a task by what was seen of them, in two chunks."""

    def make(
        text: str,
        labels: Tensor = LABELS,
        sources: Sources | None = None,
        strength: str = "",
        evaluator: Truth | None = None,
        **seen: Tensor,
    ) -> View:
        known = {"labels": labels, "features": features(len(labels)), "near": torch.ones(len(labels)), **seen}
        paths = tmp_path / "a", tmp_path / "b"
        for path, rows in zip(paths, (slice(0, 3), slice(3, None)), strict=True):
            write_tensors(path, {name: tensor[None, rows] for name, tensor in known.items()})
        task = parse_task(text, SCHEMA)
        return View(Frame(task, task.name, strength), 0, paths, evaluator or Truth(features()), sources)

    return make


def of(measure: Measure, view: View) -> dict[str, Figure]:
    figures = list(measure.figures(view))
    assert len({figure.metric for figure in figures}) == len(figures)
    for figure in figures:
        if figure.outcomes is not None:  # what it is the mean of
            assert len(figure.outcomes) == figure.n and figure.outcomes.mean() == pytest.approx(figure.value, abs=1e-6)
    return {figure.metric: figure for figure in figures}


def sources(labels: Tensor, images: Tensor | None = None, regions: Tensor | None = None) -> Sources:
    n = len(labels)
    images = torch.zeros(n, 4, 4, 3, dtype=torch.uint8) if images is None else images
    return Sources(images, labels, torch.zeros(n, 2), regions)


# --- accuracy ---


def test_joint_accuracy_is_the_share_that_satisfies_the_formula(view: Callable[..., View]) -> None:
    found = of(Accuracy(), view("generate/hat & ~glasses"))
    assert found.keys() == {"joint_accuracy", "marginal/hat", "marginal/glasses"}
    joint = found["joint_accuracy"]
    assert (joint.value, joint.n) == (0.5, 4) and joint.stderr == pytest.approx(0.25)
    assert joint.outcomes is not None and joint.outcomes.tolist() == [1, 0, 0, 1]
    assert found["marginal/hat"].value == 0.75 and found["marginal/glasses"].value == 0.5


def test_what_comes_along_unasked_is_told_and_one_part_is_the_whole(view: Callable[..., View]) -> None:
    found = of(Accuracy(), view("generate/hat"))
    assert {name: figure.value for name, figure in found.items()} == {"joint_accuracy": 0.75, "marginal/glasses": 0.5}
    prior = of(Accuracy(), view("unconditional"))
    assert {name: figure.value for name, figure in prior.items()} == {"marginal/hat": 0.75, "marginal/glasses": 0.5}


@pytest.mark.parametrize(("text", "value"), [("edit/+hat +glasses", 0.25), ("tradeoff/+hat -glasses", 0.5)])
def test_edits_must_all_be_there(view: Callable[..., View], text: str, value: float) -> None:
    found = of(Accuracy(), view(text, sources=sources(LABELS)))
    assert {name: figure.value for name, figure in found.items()} == {"joint_accuracy": value}
    assert {n: f.value for n, f in of(Accuracy(), view("scale/hat", strength="2")).items()} == {"joint_accuracy": 0.75}


def test_reconstructions_must_have_every_binary_attribute_that_is_known(view: Callable[..., View]) -> None:
    wanted = torch.tensor([[1, 0, NAN, 0], [0, 1, 1, NAN], [0, NAN, 0, 1], [NAN, NAN, NAN, 0]])
    found = of(Accuracy(), view("reconstruction", sources=sources(wanted)))
    assert (found["accuracy/hat"].value, found["accuracy/hat"].n) == (pytest.approx(2 / 3), 3)
    assert (found["accuracy/glasses"].value, found["accuracy/glasses"].n) == (1, 2)
    assert (found["accuracy/hair"].value, found["accuracy/hair"].n) == (0, 2)
    assert (found["accuracy/eyes"].value, found["accuracy/eyes"].n) == (pytest.approx(2 / 3), 3)
    assert found["accuracy/hat"].stderr == pytest.approx(math.sqrt(2 / 9 / 3))
    joint = found["joint_accuracy"]  # of the three of which something is known
    assert joint.outcomes is not None and joint.outcomes.tolist() == [1, 0, 1]


def test_an_attribute_that_nobody_knows_is_left_out(view: Callable[..., View]) -> None:
    wanted = torch.full((4, 4), NAN)
    assert of(Accuracy(), view("reconstruction", sources=sources(wanted))) == {}


# --- ghosts ---


def test_what_is_sharp_satisfies_the_formula_and_is_no_ghost(view: Callable[..., View]) -> None:
    near = torch.tensor([1.0, 1, 0, 0])
    assert of(Sharp(), view("generate/hat", near=near))["sharp"].value == 0.5
    assert of(Sharp(), view("generate/glasses", near=near))["sharp"].value == 0.25
    assert of(Sharp(), view("unconditional", near=near))["sharp"].value == 0.5
    assert of(Sharp(), view("reconstruction", near=near, sources=sources(LABELS))) == {}


# --- distances ---


def test_a_set_has_no_distance_to_itself_and_a_shift_is_its_square(view: Callable[..., View]) -> None:
    same, labels = features(), torch.zeros(40, 4)
    found = of(Frechet(), view("generate/hat", labels, features=same))
    assert found["frechet_distance"].value == pytest.approx(0, abs=1e-9) and found["frechet_distance"].n == 40
    moved = of(Frechet(), view("unconditional", labels, features=same + torch.tensor([3.0, 0, 4])))
    assert moved["frechet_distance"].value == pytest.approx(25, rel=1e-6)
    scaled = of(Frechet(), view("scale/hat", labels, strength="1", features=2 * same))
    spread = float(moments(same)[1].trace() + moments(same)[0].square().sum())
    assert scaled["frechet_distance"].value == pytest.approx(spread, rel=1e-6)  # (2 - 1)^2 of mean and deviation


@pytest.mark.parametrize("text", ["edit/+hat", "tradeoff/+hat", "reconstruction"])
def test_what_has_no_reference_has_no_distance(view: Callable[..., View], text: str) -> None:
    shown = view(text, torch.zeros(40, 4), sources=sources(torch.zeros(40, 4)))
    assert of(Frechet(), shown) == {} and of(Neighbours(), shown) == {}


def test_copies_of_the_references_have_all_of_their_variety(view: Callable[..., View]) -> None:
    same = features()
    found = of(Neighbours(k=5), view("generate/hat", torch.zeros(40, 4), features=same))
    assert found.keys() == {"density", "coverage", "precision", "recall", "diversity"}
    assert [found[name].value for name in ("coverage", "precision", "recall")] == [1, 1, 1]
    assert found["diversity"].value == pytest.approx(float(torch.pdist(same.double()).mean()))
    far = of(Neighbours(k=5), view("generate/hat", torch.zeros(40, 4), features=same + 100))
    assert [far[name].value for name in ("density", "coverage", "precision", "recall")] == [0, 0, 0, 0]
    assert far["diversity"].value == pytest.approx(found["diversity"].value)


def test_few_samples_have_diversity_only_and_many_are_cut(view: Callable[..., View]) -> None:
    assert of(Neighbours(k=5), view("generate/hat", torch.zeros(4, 4))).keys() == {"diversity"}
    assert of(Neighbours(), view("scale/hat", strength="2")).keys() == {"diversity"}
    assert of(Neighbours(most=10), view("unconditional", torch.zeros(40, 4)))["density"].n == 10


def test_references_of_no_weight_are_not_drawn(view: Callable[..., View]) -> None:
    real = torch.cat((features(10), 1000 + features(30)))
    weights = torch.cat((torch.full((10,), 0.1), torch.zeros(30))).double()
    found = of(
        Neighbours(k=5), view("generate/hat", torch.zeros(10, 4), features=real[:10], evaluator=Truth(real, weights))
    )
    assert found["coverage"].value == found["recall"].value == 1


@pytest.mark.parametrize(("k", "most"), [(0, 10), (10, 10)])
def test_neighbours_that_cannot_be_are_refused(k: int, most: int) -> None:
    with pytest.raises(ValueError, match=f"`k` must be at least 1 and below `most`, got {k} and {most}"):
        Neighbours(k, most)


# --- edits ---

BEFORE = torch.tensor([[0, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 1.0]])
AFTER = torch.tensor([[1, 0, NAN, 0], [1, 0, NAN, 0], [1, 1, NAN, 0], [0, 0, 1, 1.0]])
# edit +hat:           done                glasses lost       eyes changed        not done, hair changed


def test_success_is_the_edit_with_everything_else_kept(view: Callable[..., View]) -> None:
    found = of(Preservation(), view("edit/+hat", AFTER, sources(BEFORE)))
    assert found.keys() == {"edit_success", "kept", "kept_fine"}  # nobody knows where the edit may show
    assert found["edit_success"].outcomes is not None and found["edit_success"].outcomes.tolist() == [1, 0, 1, 0]
    assert found["kept"].outcomes is not None and found["kept"].outcomes.tolist() == [1, 0, 1, 1]
    assert found["kept_fine"].outcomes is not None and found["kept_fine"].outcomes.tolist() == [1, 0, 0, 1]


def test_success_asks_that_pixels_outside_stay_where_that_is_known(view: Callable[..., View]) -> None:
    outside = torch.tensor([0.04, 0.0, 0.02, 0.0])
    for text in ("edit/+hat", "tradeoff/+hat"):
        found = of(Preservation(), view(text, AFTER, sources(BEFORE), outside=outside))
        success = found["edit_success"].outcomes
        assert success is not None and success.tolist() == [0, 0, 1, 0]
        assert found["l1_outside"].value == pytest.approx(0.015)


def test_what_is_outside_is_looked_at_step_by_step() -> None:
    regions = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    regions[0, :, 0], regions[1, :, :2] = True, True
    known = sources(torch.zeros(2, 4), regions=regions)
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[0, 1] = 255  # the second row of the first image: outside of the first edit, inside of both
    first, second = outside_of(images, known, 0), outside_of(images, known, 1)
    assert first is not None and first.tolist() == pytest.approx([1 / 3, 0])
    assert second is not None and second.tolist() == [0, 0]
    assert outside_of(images, sources(torch.zeros(2, 4)), 0) is None
    frame, evaluator = frames_of(parse_task("edit/+hat", SCHEMA), ())[0], Truth(features())
    seen = Preservation().look(images, frame, 0, known, evaluator)["outside"]
    assert seen.dtype == torch.float32 and seen.tolist() == pytest.approx([1 / 3, 0])
    assert Preservation().look(images, frame, 0, None, evaluator) == {}
    assert Preservation().look(images, frame, 0, sources(torch.zeros(2, 4)), evaluator) == {}


def test_side_effects_are_shares_of_sources_that_look_otherwise(view: Callable[..., View]) -> None:
    found = of(SideEffects(), view("edit/+hat", AFTER, sources(BEFORE)))
    changed = {name: (figure.value, figure.n) for name, figure in found.items() if name != "des"}
    assert changed == {
        "changed/hat": (0.75, 4),
        "changed/glasses": (0.25, 4),
        "changed/hair": (1, 1),  # of the one who has no hat before and after
        "changed/eyes": (0.25, 4),
    }
    assert found["des"].value == pytest.approx(0.75 - 0.25)  # three hats more; at worst a quarter is hit
    two = of(SideEffects(), view("edit/+hat +glasses", AFTER, sources(BEFORE)))
    assert "des" not in two and two["changed/hat"].value == 0.75
    minus = of(SideEffects(), view("edit/-glasses", AFTER, sources(BEFORE)))
    assert minus["des"].value == pytest.approx(0.25 - 1)  # one more without; the one whose hair is seen has another


def test_equal_images_are_the_same_person(view: Callable[..., View]) -> None:
    images = torch.full((3, 4, 4, 3), 7, dtype=torch.uint8)
    other = images.clone()
    other[1, 0, 0], other[2, 0, 0] = torch.tensor([7, 0, 0]), torch.tensor([14, 14, 14])
    frame = frames_of(parse_task("edit/+hat", SCHEMA), ())[0]
    seen = Identity().look(other.numpy(), frame, 0, sources(torch.zeros(3, 4), images), Truth(features()))
    assert seen["identity"].tolist() == pytest.approx([1, 1 / math.sqrt(3), 1])
    shown = view("edit/+hat", torch.zeros(3, 4), sources(torch.zeros(3, 4)), identity=seen["identity"])
    assert of(Identity(), shown)["identity"].value == pytest.approx((2 + 1 / math.sqrt(3)) / 3)
    assert of(Identity(), view("edit/+hat", AFTER, sources(BEFORE))) == {}  # nobody looked
    generated = frames_of(parse_task("generate/hat", SCHEMA), ())[0]
    assert Identity().look(other.numpy(), generated, 0, None, Truth(features())) == {}


def test_change_is_the_mean_difference_of_all_pixels(view: Callable[..., View]) -> None:
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    other = images.clone()
    other[0] += 51  # a fifth of the range
    other[1, 0] += 51  # in a quarter of the image
    frame, known = frames_of(parse_task("edit/+hat", SCHEMA), ())[0], sources(torch.zeros(2, 4), images)
    seen = Pixels().look(other.numpy(), frame, 0, known, Truth(features()))["change"]
    assert seen.tolist() == pytest.approx([0.2, 0.05])
    shown = view("edit/+hat", torch.zeros(2, 4), known, change=seen)
    assert of(Pixels(), shown)["change"].value == pytest.approx(0.125)
    assert of(Pixels(), view("edit/+hat", AFTER, sources(BEFORE))) == {}  # nobody looked
    generated = frames_of(parse_task("generate/hat", SCHEMA), ())[0]
    assert Pixels().look(other.numpy(), generated, 0, None, Truth(features())) == {}


def test_psnr_is_that_of_the_mean_squared_error(view: Callable[..., View]) -> None:
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    other = images.clone()
    other[0] += 51  # a fifth of the range
    other[1, 0] += 51  # in a quarter of the image
    frame, known = frames_of(parse_task("reconstruction", SCHEMA), ())[0], sources(torch.zeros(2, 4), images)
    seen = Psnr().look(other.numpy(), frame, 0, known, Truth(features()))["psnr"]
    expected = [-20 * math.log10(0.2), -20 * math.log10(0.2) + 10 * math.log10(4)]
    assert seen.tolist() == pytest.approx(expected)
    shown = view("reconstruction", torch.zeros(2, 4), known, psnr=seen)
    assert of(Psnr(), shown)["psnr"].value == pytest.approx(sum(expected) / 2)
    perfect = Psnr().look(images.numpy(), frame, 0, known, Truth(features()))["psnr"]
    assert perfect.isinf().all() and of(Psnr(), view("reconstruction", torch.zeros(2, 4), known, psnr=perfect)) == {}
    edit = frames_of(parse_task("edit/+hat", SCHEMA), ())[0]
    assert Psnr().look(images.numpy(), edit, 0, known, Truth(features())) == {}


def test_a_measure_is_known_by_its_class_and_options() -> None:
    options = [measure().options() for measure in STANDARD]
    assert len({str(option) for option in options}) == len(STANDARD)
    assert Neighbours(k=3).options() != Neighbours().options()
