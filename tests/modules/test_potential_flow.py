"""`PotentialFlowModule`: its terms in closed form, and training through the Trainer, told the attributes and not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn import functional

from lcg.checkpoint import load_network
from lcg.data.datamodule import LatentDataModule
from lcg.generators.base import Generator
from lcg.guidance import FormulaReadout, parse
from lcg.modules.classifiers import ClassifierModule
from lcg.modules.potential_flow import (
    PairClassifier,
    PotentialFlowModule,
    atoms_of,
    single_heads,
    value_log_probs,
)
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import independent
from lcg.nets.potential_flow import PotentialFlow, traverse
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (Attribute("hat"), Attribute("hair", "categorical", ("blond", "red", "black")), Attribute("age", "continuous"))
)


class Screen(Generator):
    """x = A z as an image of 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_shape, self.image_shape = (4,), (3, 32, 32)
        matrix = torch.randn(3 * 32 * 32, 4, generator=torch.Generator().manual_seed(0)) / 2
        self.matrix = torch.nn.Parameter(matrix)

    def decode(self, z: Tensor) -> Tensor:
        return (z @ self.matrix.T).unflatten(1, self.image_shape)


def trainer(out: Path, name: str, steps: int) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
        callbacks=[ModelCheckpoint(out, name, enable_version_counter=False)],
    )


def fit(module: LightningModule, out: Path, name: str, store: str, steps: int, batch_size: int = 64) -> Trainer:
    seed_everything(0)
    made = trainer(out, name, steps)
    made.fit(module, LatentDataModule(store, batch_size))
    return made


def classifier_of(store: str, out: Path, steps: int) -> str:
    """A checkpoint of a small classifier of a store."""
    fit(ClassifierModule(width=32, depth=1, components=2, lr=1e-2, warmup=5), out, "classifier", store, steps)
    return str(out / "classifier.ckpt")


@pytest.fixture
def ready() -> PotentialFlowModule:
    """A module with random networks, as the Trainer finds it."""
    torch.manual_seed(0)
    module = PotentialFlowModule(width=8)
    module.potential_flow = PotentialFlow((4,), 5, 8, atoms=atoms_of(SCHEMA))
    classifier = TimeConditionedClassifier((4,), SCHEMA, 16, 1)
    torch.nn.init.normal_(classifier.net.output.weight)
    module._classifier = (single_heads(classifier),)
    module.register_buffer("middle", torch.tensor([0.5, 1.0, 0.2]))
    return module


# --- what the classifier says of every value ---


def test_every_value_has_the_probability_that_its_formula_has() -> None:
    torch.manual_seed(0)
    middle = torch.tensor([torch.nan, torch.nan, 0.4])
    outputs = {"hat": torch.randn(6), "hair": torch.randn(6, 3), "age": torch.randn(6, 2)}
    true, false = value_log_probs(SCHEMA, outputs, middle)
    for k, atom in enumerate(atoms_of(SCHEMA)):
        formula = parse("age>0.4" if atom == "age" else atom, SCHEMA)
        torch.testing.assert_close(true[:, k], FormulaReadout(formula)(outputs))
        torch.testing.assert_close(false[:, k], FormulaReadout(~formula)(outputs))
    assert atoms_of(SCHEMA) == ("hat", "hair=blond", "hair=red", "hair=black", "age")


def test_certain_classifiers_keep_their_gradients() -> None:
    outputs = {"hat": torch.tensor([-200.0]), "hair": torch.tensor([[-300.0, 0, 1]]), "age": torch.tensor([[-60.0, 0]])}
    for output in outputs.values():
        output.requires_grad_()
    true, false = value_log_probs(SCHEMA, outputs, torch.zeros(3))
    assert true.isfinite().all() and false.isfinite().all()
    (true.sum() + false.sum()).backward()
    assert all(output.grad is not None and output.grad.isfinite().all() for output in outputs.values())


def test_single_heads_are_those_of_the_joint_classifier() -> None:
    torch.manual_seed(0)
    joint = TimeConditionedClassifier((4,), SCHEMA, 16, 1, components=3)
    torch.nn.init.normal_(joint.net.output.weight)
    joint.log_temperature.normal_()
    z, t = torch.randn(5, 4), torch.rand(5)
    found, expected = single_heads(joint)(z, t), independent(joint.eval()(z, t))
    assert isinstance(found, dict) and set(found) == set(expected)
    for name, head in expected.items():
        torch.testing.assert_close(found[name], head)


# --- the terms ---


def test_the_terms_are_those_of_the_modules_equation(ready: PotentialFlowModule) -> None:
    """Each of the drawn numbers drawn again, in the same order."""
    flow, z_0 = ready.potential_flow, torch.randn(15, 4, generator=torch.Generator().manual_seed(5))
    losses = ready.losses(z_0, torch.Generator().manual_seed(1))
    draws = torch.Generator().manual_seed(1)
    way = 2.0 * torch.randint(2, (15, 1), generator=draws) - 1
    step, seen = torch.randint(flow.steps, (2,), generator=draws).tolist()
    probes = 2.0 * torch.randint(2, (2, 15, 4), generator=draws) - 1
    which = range(5)

    def at(number: int) -> Tensor:
        return torch.full((15,), float(number))

    path = traverse(lambda z, number: flow.velocity(z, at(number), which), z_0, flow.steps, way)
    torch.testing.assert_close(losses["initial"], flow.velocity(z_0, at(0), which).square().mean())
    expected = flow.squared_residual(path[step], at(step), which, probes).mean()
    torch.testing.assert_close(losses["residual"], expected)
    (classifier,) = ready._classifier
    outputs = classifier(path[seen + 1], torch.full((15,), 0.02))
    assert isinstance(outputs, dict)
    true, false = value_log_probs(SCHEMA, outputs, ready.get_buffer("middle"))
    log_p = torch.stack([(true if way[row] > 0 else false)[row, row // 3] for row in range(15)])
    torch.testing.assert_close(losses["semantic"], -log_p.mean())
    torch.testing.assert_close(losses["loss"], losses["initial"] + losses["residual"] + losses["semantic"])


def test_flat_potentials_rest_and_obey(ready: PotentialFlowModule) -> None:
    """Without velocity there is no residual, no motion, and the classifier sees the sources."""
    z_0, flow = torch.randn(15, 4), ready.potential_flow
    torch.nn.init.zeros_(flow.output.weight)
    losses = ready.losses(z_0)
    assert losses["initial"] == losses["residual"] == 0
    (classifier,) = ready._classifier
    outputs = classifier(z_0, torch.full((15,), 0.02))
    assert isinstance(outputs, dict)
    tables = torch.stack(value_log_probs(SCHEMA, outputs, ready.get_buffer("middle")))
    of_rows = -torch.stack([tables[:, row, row // 3] for row in range(15)])
    assert of_rows.amin(1).mean() - 1e-5 <= losses["semantic"] <= of_rows.amax(1).mean() + 1e-5


def test_weights_multiply_the_terms(ready: PotentialFlowModule) -> None:
    ready.weight_pde, ready.weight_cls = 0.25, 3.0
    terms = ready.losses(torch.randn(10, 4), torch.Generator().manual_seed(0))
    expected = 0.25 * (terms["initial"] + terms["residual"]) + 3 * terms["semantic"]
    torch.testing.assert_close(terms["loss"], expected)


def test_rows_that_make_no_equal_blocks_serve_twice(ready: PotentialFlowModule) -> None:
    """Two latents for five potentials: as if they had been given again and again."""
    z_0 = torch.randn(2, 4)
    few, many = (ready.losses(z, torch.Generator().manual_seed(0)) for z in (z_0, z_0.repeat(3, 1)[:5]))
    assert all(torch.equal(few[name], many[name]) for name in few)


# --- through the Trainer ---


def test_training_raises_and_lowers_each_attribute(tmp_path: Path, tiny_store: Any) -> None:
    store = tiny_store()
    module = PotentialFlowModule(classifier_of(store, tmp_path, 30), width=8, lr=3e-2, warmup=5)
    metrics = fit(module, tmp_path, "potential_flow", store, 35).callback_metrics
    assert metrics["val/success"] > 0.8 and metrics["val/loss"].isfinite()
    state = torch.load(tmp_path / "potential_flow.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"potential_flow", "middle"}  # nothing of the frozen classifier
    torch.testing.assert_close(state["middle"], LatentDataModule(store).store.labels().nanmean(0))
    loaded = load_network(tmp_path / "potential_flow.ckpt", "potential_flow")
    flow: PotentialFlow = loaded.network
    assert flow.atoms == atoms_of(SCHEMA) and loaded.store == LatentDataModule(store).store.fingerprint
    z_0 = torch.randn(50, 4)
    for sign in (1.0, -1.0):  # a hat is a positive first coordinate
        end = traverse(lambda z, step: flow.velocity(z, torch.full((50,), float(step)), 0), z_0, 5, sign)[-1]
        assert (sign * (end - z_0)[:, 0]).min() > 0


def test_without_attributes_the_generator_takes_the_classifiers_place(tmp_path: Path, tiny_store: Any) -> None:
    screen = Screen()
    module = PotentialFlowModule("nowhere.ckpt", False, count=2, width=8, generator=screen)
    made = fit(module, tmp_path, "potential_flow", tiny_store(), 8)
    assert made.callback_metrics["val/loss"].isfinite() and "val/variation" in made.callback_metrics
    state = torch.load(tmp_path / "potential_flow.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"potential_flow", "index"}  # nothing of the frozen generator
    assert not screen.matrix.requires_grad
    loaded = load_network(tmp_path / "potential_flow.ckpt", "potential_flow")
    assert loaded.network.atoms == () and loaded.network.count == 2


@pytest.mark.slow
def test_without_attributes_paths_learn_to_be_told_apart(tmp_path: Path, tiny_store: Any) -> None:
    options: dict[str, Any] = {"count": 2, "width": 32, "weight_pde": 0.1, "lr": 2e-2, "warmup": 1}
    module = PotentialFlowModule("nowhere.ckpt", False, generator=Screen(), **options)
    metrics = fit(module, tmp_path, "potential_flow", tiny_store(), 150, batch_size=32).callback_metrics
    assert metrics["val/semantic"] < 0.4 and metrics["val/success"] > 0.85  # 0.69 and 0.5 by chance


def test_variation_is_the_mean_squared_change_of_the_image(tmp_path: Path, tiny_store: Any) -> None:
    """For x = A z it is |A std v|^2 over the number of pixels, and what turns around is seen the other way round."""
    screen = Screen()
    module = PotentialFlowModule("nowhere.ckpt", False, count=2, width=8, generator=screen)
    made = fit(module, tmp_path, "potential_flow", tiny_store(), 1)
    module.eval()
    torch.manual_seed(0)
    path = [torch.randn(6, 4) for _ in range(6)]
    terms = module._image_terms(path, torch.ones(6), 2)
    change = screen.decode((path[4] - path[3]) * LatentDataModule.of(made).statistics.std)
    torch.testing.assert_close(terms["variation"], change.square().mean(), rtol=1e-4, atol=0)
    back = module._image_terms([*path[:3], path[4], path[3], path[5]], -torch.ones(6), 2)
    torch.testing.assert_close(back["semantic"], terms["semantic"])
    turned = module._image_terms(path, -torch.ones(6), 2)
    assert (turned["semantic"] - terms["semantic"]).abs() > 1e-6
    first, second = (module._decode(z) for z in path[3:5])
    guess = functional.cross_entropy(module.index(first, second), torch.tensor([0, 0, 0, 1, 1, 1]))
    torch.testing.assert_close(terms["semantic"], guess)


def test_the_embedded_generator_is_the_default() -> None:
    """Its images can be differentiated along a velocity, and give the pair classifier what it takes."""
    generator = PotentialFlowModule._frozen(None)
    z, v = torch.randn(2, 64), torch.randn(2, 64)
    x, change = torch.func.jvp(generator.decode, (z,), (v,))
    step = 1e-2
    torch.testing.assert_close(
        (generator.decode(z + step * v) - generator.decode(z - step * v)) / (2 * step), change, rtol=0.02, atol=2e-3
    )
    assert PairClassifier(3, 7)(x, x).shape == (2, 7)


# --- errors ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_pde": -1.0}, "`weight_pde` must be >= 0, got -1.0"),
        ({"weight_cls": float("nan")}, "`weight_cls` must be >= 0, got nan"),
        ({"level": 1.5}, r"`level` must be in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PotentialFlowModule(**options)


def test_a_classifier_of_another_store_is_refused(tmp_path: Path, tiny_store: Any) -> None:
    path = classifier_of(tiny_store(), tmp_path, 1)
    with pytest.raises(ValueError, match=r"`classifier` must be one of the store .* fit a classifier on this store"):
        fit(PotentialFlowModule(path), tmp_path, "potential_flow", tiny_store(n=300), 1)
