"""Every generator through every command: a contract check, then store, prior, classifiers, samples, edits, a benchmark.

Attributes are what anybody can measure of an image, its brightness and its redness, each above its median. Networks are
tiny and fitted for a moment: that the commands work with latents and images of every shape is what is tested here.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from lcg import cli
from lcg.benchmarks.worlds import generated
from lcg.data.encode import encode
from lcg.data.images import provenance_of
from lcg.data.source import ImageSource
from lcg.data.store import LatentStore
from lcg.generators.base import Generator, normal_latents, x_to_pixels
from lcg.generators.check import check_generator, table
from lcg.labels.base import Labeller
from lcg.labels.pictures import DrawnPictures
from lcg.labels.storing import label_store
from lcg.metrics.judge import Judge
from lcg.schema import Attribute, Schema
from lcg.weights import save_weights
from tests.generators.small_diffusers import write_autoencoder
from tests.generators.small_stylegan import write_stylegan2

SCHEMA = Schema((Attribute("bright"), Attribute("red")))
COUNT = 192
"""Latents of a store."""
CONFIGS = Path(__file__).parents[2] / "configs"

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")


# --- what every generator is measured by ------------------------------------------------------------------------------


def measured(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Brightness and redness (N, 2)."""
    colour = images.mean((1, 2), dtype=np.float64)
    return np.stack([colour.mean(1), colour[:, 0] - colour[:, 2]], axis=1)


class Measured(Labeller):
    """An attribute holds where what is measured is above its median."""

    schema = SCHEMA

    def __init__(self, medians: list[float]) -> None:
        self.medians = medians

    def label(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (measured(images) > self.medians).astype(np.float32)

    def identity(self) -> dict[str, Any]:
        return {"class": "Measured", "medians": self.medians}


def draws(generator: Generator) -> bool:
    """Whether it has a prior of its own."""
    try:
        generator.sample_latents(1)
    except NotImplementedError:
        return False
    return True


def normal(generator: Generator, count: int, seed: int) -> Tensor:
    """Latents: the generator's own, or standard normal where it has no prior."""
    random = torch.Generator().manual_seed(seed)
    return generator.sample_latents(count, random) if draws(generator) else normal_latents(generator, count, random)


class Decoded(ImageSource):
    """Images that a generator with an encoder and no prior decodes from noise, in the place of a user's own."""

    schema = SCHEMA

    def __init__(self, generator: Generator, labeller: Measured, count: int, seed: int) -> None:
        self.image_shape, self.told = generator.image_shape, {"class": "Decoded", "count": count, "seed": seed}
        with torch.no_grad():
            self.images = x_to_pixels(generator.decode(normal(generator, count, seed))).numpy()
        self.labels = labeller.label(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return self.images[start:stop], self.labels[start:stop]

    def identity(self) -> dict[str, Any]:
        return self.told


# --- the generators ---------------------------------------------------------------------------------------------------


class Painter(nn.Module):
    """Images of 16 x 16 in [0, 1], of latents (3, 4)."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(12, 48, generator=random) / 3)

    def forward(self, z: Tensor) -> Tensor:
        small = (z.flatten(1) @ self.weight).unflatten(1, (3, 4, 4))
        return torch.sigmoid(nn.functional.interpolate(small, scale_factor=4.0))


def scripted(folder: Path) -> dict[str, Any]:
    path = str(folder / "painter.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Painter()).save(path)
    return {"decode": path, "latent_shape": [3, 4], "black": 0, "trust": True, "normal": True}


def exported(folder: Path) -> dict[str, Any]:
    path, batch = str(folder / "painter.pt2"), ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(Painter(), (torch.zeros(2, 3, 4),), dynamic_shapes=batch), path)
    return {"decode": path, "black": 0, "trust": True, "normal": True}


GENERATORS: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "embedded": ("lcg.generators.autoencoder.AvatarAutoencoder", lambda folder: {}),
    "diffusion autoencoder": (
        "tests.generators.small_diffusion_autoencoder.SmallDiffusionAutoencoder",
        lambda folder: {"steps": 2, "iterations": 2},
    ),
    "faces": ("lcg.generators.faces.FaceDCGAN", lambda folder: {}),
    "diffusers tiny": (
        "lcg.generators.diffusers_autoencoder.DiffusersAutoencoder",
        lambda folder: {"path": write_autoencoder("AutoencoderTiny", folder / "tiny"), "image_size": 16},
    ),
    "TorchScript": ("lcg.generators.programs.ProgramGenerator", scripted),
    "exported program": ("lcg.generators.programs.ProgramGenerator", exported),
    "StyleGAN2 in W": (
        "lcg.generators.stylegan.StyleGAN2",
        lambda folder: {"weights": write_stylegan2(folder / "s.safetensors", (16, 16, 8), 16)},
    ),
}


@dataclass(frozen=True)
class World:
    """A generator with all that is made for it, in a folder."""

    name: str
    folder: Path

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Class and arguments, as a config names them."""
        path, arguments = GENERATORS[self.name]
        return {"class_path": path, "init_args": arguments(self.folder)}

    def build(self) -> Generator:
        module, _, name = self.spec["class_path"].rpartition(".")
        made: Generator = getattr(import_module(module), name)(**self.spec["init_args"])
        return made.eval().requires_grad_(False)

    @cached_property
    def generator(self) -> Generator:
        return self.build()

    @cached_property
    def draws(self) -> bool:
        return draws(self.generator)

    @cached_property
    def encodes(self) -> bool:
        try:
            self.generator.encode(torch.zeros(1, *self.generator.image_shape))
        except NotImplementedError:
            return False
        return True

    @cached_property
    def medians(self) -> list[float]:
        with torch.no_grad():
            images = x_to_pixels(self.generator.decode(normal(self.generator, 64, 1)))
        return [float(value) for value in np.median(measured(images.numpy()), axis=0)]

    @cached_property
    def store(self) -> str:
        """Latents that were encoded where there is an encoder, else drawn."""
        path, labeller = str(self.folder / "store"), Measured(self.medians)
        if self.encodes:
            encode(Decoded(self.generator, labeller, COUNT, 2), self.generator, path, progress=False)
        else:
            label_store(DrawnPictures(self.generator, COUNT), labeller, path, progress=False)
        return path

    @cached_property
    def judge(self) -> dict[str, Any]:
        """An untrained judge with few features; few samples do for it."""
        torch.manual_seed(0)
        judge, path = Judge(SCHEMA, self.generator.image_shape, width=4, features=4).eval(), self.folder / "judge"
        told = provenance_of(train=Decoded(self.generator, Measured(self.medians), 4, 3))
        save_weights(path.with_suffix(".safetensors"), judge, judge.config, told)
        weights = str(path.with_suffix(".safetensors"))
        return {"class_path": "lcg.metrics.judge.TrainedJudge", "init_args": {"weights": weights}}

    @cached_property
    def world(self) -> dict[str, Any]:
        """What a benchmark compares with: draws of its own where there are any, else images that were not stored."""
        labeller = {"class_path": f"{__name__}.Measured", "init_args": {"medians": self.medians}}
        if self.draws:
            arguments = {"generator": self.spec, "labeller": labeller}
            return {"class_path": "lcg.benchmarks.worlds.generated.GeneratedWorld", "init_args": arguments}
        arguments = {"generator": self.spec, "labeller": labeller, "count": COUNT, "seed": 4}
        source = {"class_path": f"{__name__}.Decoded", "init_args": arguments}
        return {"class_path": "lcg.benchmarks.worlds.folder.FolderWorld", "init_args": {"source": source}}

    def fit(self, what: str) -> str:
        """`lcg fit`; the checkpoint."""
        keep = {"dirpath": str(self.folder), "filename": what, "every_n_train_steps": 6}
        options = {
            "model.width": 24,
            "model.depth": 1,
            "model.warmup": 2,
            "data.store": self.store,
            "data.batch_size": 64,
            "trainer.max_steps": 6,
            "trainer.limit_val_batches": 0,
            "trainer.accelerator": "cpu",
            "trainer.logger": "false",
            "trainer.enable_progress_bar": "false",
            "trainer.default_root_dir": str(self.folder),
            "trainer.callbacks": json.dumps([{"class_path": "ModelCheckpoint", "init_args": keep}]),
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        assert cli.main(["fit", "--config", str(CONFIGS / what / "avatars.yaml"), *words]) == 0
        return str(self.folder / f"{what}.ckpt")

    @cached_property
    def networks(self) -> tuple[str, ...]:
        """The options that name prior, classifiers and generator."""
        fitted = ("--prior", self.fit("prior"), "--classifier", self.fit("classifier"))
        return *fitted, "--generator", json.dumps(self.spec)


@pytest.fixture(scope="module", params=GENERATORS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("every")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["lcg"])  # LightningCLI warns when it is given arguments beside those of the process
        patch.chdir(folder)  # an option that is forgotten must not write into the repository
        patch.setattr(generated, "COUNTED", 128)  # images by which shares are estimated: fewer are faster
        yield World(request.param, folder)


# --- tests ------------------------------------------------------------------------------------------------------------


def test_it_keeps_the_contract(world: World) -> None:
    """Shapes, ranges, gradients, independence of rows, determinism, identity; a round trip where it encodes."""
    findings = list(check_generator(world.build, rows=3))
    verdicts = {finding.name: finding.verdict for finding in findings}
    assert "wrong" not in verdicts.values(), table(findings)
    assert {name for name, verdict in verdicts.items() if verdict == "warning"} <= {"encode: round trip"}, table(
        findings
    )
    assert (verdicts["encode"] == "ok") == world.encodes and (verdicts["sample_latents"] == "ok") == world.draws


def test_a_formula_is_generated(world: World, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    words = ("--formula", "bright & ~red", "--num", "3", "--sampling.steps", "3", "--device", "cpu", "--out", out)
    assert cli.main(["generate", *world.networks, *words]) == 0
    z_0 = load_file(tmp_path / "out" / "latents.safetensors")["z_0"]
    assert z_0.shape == (3, *world.generator.latent_shape) and bool(z_0.isfinite().all())
    shown, store = np.asarray(Image.open(tmp_path / "out" / "images" / "0001.png")), LatentStore.open(world.store)
    with torch.no_grad():  # an image is that of its latent, standardised by the store
        expected = x_to_pixels(world.generator.decode(store.statistics.restore(z_0)))[1].numpy()
    assert shown.shape == expected.shape and np.abs(shown.astype(int) - expected).max() <= 1


def test_a_latent_and_an_image_are_edited(world: World, tmp_path: Path) -> None:
    out, latent_shape = tmp_path / "out", world.generator.latent_shape
    few = ("--editing.steps", "2", "--device", "cpu")
    words = ("--source", world.store, "--rows", "0", "5", "--edits", "+bright", "-red", "--out", str(out))
    assert cli.main(["edit", *world.networks, *few, *words]) == 0
    assert load_file(out / "latents.safetensors")["z_0"].shape == (2, 3, *latent_shape)
    with torch.no_grad():
        image = x_to_pixels(world.generator.decode(normal(world.generator, 1, 5)))[0].numpy()
    Image.fromarray(image).save(tmp_path / "image.png")
    words = ("--source", str(tmp_path / "image.png"), "--edits", "+bright", "--inversion.steps", "2")
    assert cli.main(["edit", *world.networks, *few, *words, "--out", str(tmp_path / "photo")]) == 0
    assert load_file(tmp_path / "photo" / "latents.safetensors")["z_0"].shape == (1, 2, *latent_shape)
    made_by = json.loads((tmp_path / "photo" / "provenance.json").read_text())
    assert np.isfinite(made_by["inversion"]["reconstruction_error"]).all()


SIZES = {"samples": 6, "unconditional": 6, "sources": 2, "references": 6, "neighbours": 16}
SIZES |= {"tuning": 2, "chunk": 6, "shown": 2, "compared": 2}


def test_it_is_measured(world: World, tmp_path: Path) -> None:
    tasks = json.dumps(["unconditional", "generate/bright", "edit/+bright"])
    sizes = [word for name, value in SIZES.items() for word in (f"--sizes.{name}", str(value))]
    where = ("--out", str(tmp_path / "bench"), "--cache", str(tmp_path / "cache"), "--store", world.store)
    against = ("--world", json.dumps(world.world), "--judge", json.dumps(world.judge), "--source_formula", "red | ~red")
    few = ("--sampling.steps", "2", "--editing.steps", "2")
    assert cli.main(["bench", "--tasks", tasks, *world.networks, *where, *against, *sizes, *few]) == 0
    with (tmp_path / "bench" / "results.csv").open() as file:
        rows = {(row["method"], row["task"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}
    assert {"lcg", "prior", "real", "gaussian"} <= {method for method, *_ in rows}
    for key in (("prior", "unconditional", "frechet_distance"), ("lcg", "edit/+bright", "edit_success")):
        assert np.isfinite(rows[key]), key
    told = json.loads((tmp_path / "bench" / "provenance.json").read_text())
    assert any("drawn by the generator itself" in note for note in told["notes"]) == world.draws
