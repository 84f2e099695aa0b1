"""A small world that methods with a checkpoint are tried in, and how checkpoints come to be there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lcg.baselines.contract import Literal, Training, literals
from lcg.checkpoint import CLASS
from lcg.data.statistics import Statistics
from lcg.diffusion import CosineSchedule, Denoiser, GaussianDenoiser
from lcg.editing.contract import Editor, EditRequest
from lcg.generators.base import Generator
from lcg.guidance import Formula, parse, parse_edit
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.latent_classifier import LatentClassifier
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("hat"),
        Attribute("hair", "categorical", ("blond", "red", "black"), detail_of=("hat",)),
        Attribute("age", "continuous"),
    )
)
STORE = "a" * 64


class Pixels(Generator):
    """Every element of the latent is a pixel, by way of a linear layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.latent_shape, self.image_shape = (size,), (1, 1, size)
        self.layer = nn.Linear(size, size, bias=False)
        nn.init.eye_(self.layer.weight)
        self.requires_grad_(False)

    def decode(self, z: Tensor) -> Tensor:
        return self.layer(z).tanh().view(-1, *self.image_shape)


def write(network: nn.Module, path: Path, store: str = STORE) -> str:
    """A checkpoint of a network, as `lcg fit` leaves it."""
    kind = next(kind for kind, name in CLASS.items() if name.endswith(f".{type(network).__name__}"))
    shape = network.latent_shape
    entry = {"kind": kind, "config": network.config, "mean": torch.zeros(shape), "std": torch.ones(shape)}
    state = {f"{kind}.{name}": value for name, value in network.state_dict().items()}
    torch.save({"lcg": {**entry, "store": store, "generator": ""}, "state_dict": state}, path)
    return str(path)


@dataclass(frozen=True)
class Small:
    """Latents of few numbers with a binary attribute, one that has a detail, and a continuous one.

    Attributes:
        folder: where checkpoints go.
        size: of a latent.
        dtype: of `normal`.
    """

    folder: Path
    size: int = 4
    dtype: torch.dtype = torch.float32
    schema = SCHEMA

    def normal(self, *shape: int, seed: int = 0) -> Tensor:
        return torch.randn(*shape, dtype=self.dtype, generator=torch.Generator().manual_seed(seed))

    def formula(self, text: str) -> Formula:
        return parse(text, SCHEMA)

    def literals(self, *texts: str) -> tuple[Literal, ...]:
        return literals(map(self.formula, texts), SCHEMA, "a test")

    def request(self, *edits: str, strength: float | Tensor | None = None) -> EditRequest:
        return EditRequest(tuple(parse_edit(edit, SCHEMA) for edit in edits), strength=strength)

    def edit(self, method: Editor, z_0: Tensor, *edits: str, strength: float | Tensor | None = None) -> Tensor:
        return method.edit(z_0, self.request(*edits, strength=strength)).z_0

    def training(self, denoiser: Denoiser | None = None, store: str = "", schema: Schema = SCHEMA) -> Training:
        """Latents whose labels are read off their first coordinates."""
        z_0, schedule = self.normal(200, self.size).float(), CosineSchedule()
        hair = (z_0[:, 2] > -0.4).float() + (z_0[:, 2] > 0.4)
        labels = torch.stack(((z_0[:, 0] > 0).float(), (z_0[:, 1] > 0).float(), hair, z_0[:, 3]), 1)
        torch.manual_seed(1)
        classifier = TimeConditionedClassifier((self.size,), schema, width=8, depth=1).eval().requires_grad_(False)
        nn.init.normal_(classifier.net.output.weight)
        return Training(
            z_0,
            labels[:, : len(schema)],
            schema,
            Pixels(self.size),
            Statistics(torch.zeros(self.size), torch.ones(self.size)),
            denoiser or GaussianDenoiser(torch.zeros(self.size), torch.eye(self.size), schedule),
            schedule,
            classifier,
            store,
        )

    def save(self, network: nn.Module, store: str = STORE) -> str:
        """Where its checkpoint is."""
        return write(network, self.folder / f"{type(network).__name__}.ckpt", store)

    def linear(self, offset: float = 0.0) -> LatentClassifier:
        """Linear: glasses off 2 z_0 + z_1, hat off 3 z_1 + z_2, hair's red off z_3, the mean of age z_3."""
        network = LatentClassifier((self.size,), SCHEMA, ())
        (layer,) = network.layers
        layer.weight.data.zero_()
        layer.bias.data.zero_()
        layer.weight.data[0, :2, 0] = torch.tensor([2.0, 1.0])
        layer.weight.data[1, 1:3, 0] = torch.tensor([3.0, 1.0])
        layer.weight.data[2, 3, 1] = 1.0
        layer.weight.data[3, 3, 0] = 1.0
        layer.bias.data[0, 0, 0] = offset
        return network

    def mlp(self, slope: float = 0.2) -> LatentClassifier:
        """With one hidden layer of 16 units."""
        torch.manual_seed(0)
        return LatentClassifier((self.size,), SCHEMA, (16,), slope)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


@pytest.fixture
def wide(tmp_path: Path) -> Small:
    """With latents of 8 numbers, some of which may be masked."""
    return Small(tmp_path, 8)


@pytest.fixture
def precise(tmp_path: Path) -> Small:
    """In double precision."""
    return Small(tmp_path, dtype=torch.float64)


@pytest.fixture
def save() -> Callable[..., str]:
    """Writes a checkpoint of a network: network, path, fingerprint of its store."""
    return write
