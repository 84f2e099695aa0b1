"""A pair of small networks with random weights, and a model exported from them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lcg.checkpoint import LoadedNetwork
from lcg.data.statistics import Statistics
from lcg.models.description import checksum
from lcg.models.folder import write_model
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("hat"),
        Attribute("hair", "categorical", ("blond", "red"), applies_if={"hat": False}),
        Attribute("age", "continuous"),
    )
)
Pair = tuple[LoadedNetwork[LatentDenoiser], LoadedNetwork[TimeConditionedClassifier]]


def shaken(network: Any) -> Any:
    """The network with random weights in the place of zeros, frozen."""
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return network.eval().requires_grad_(False)


def make_pair(trunk: str = "shared") -> Pair:
    """A prior and classifiers of latents (2, 3)."""
    torch.manual_seed(0)
    prior = shaken(LatentDenoiser((2, 3), 8, 2, time_features=6))
    classifier = shaken(
        TimeConditionedClassifier((2, 3), SCHEMA, 5, 1, components=3 if trunk == "shared" else 1, trunk=trunk)  # type: ignore
    )
    classifier.log_temperature.copy_(torch.linspace(-1, 1, 6))
    statistics = Statistics(torch.randn(2, 3), torch.rand(2, 3) + 0.5)
    labels = torch.tensor([[0.0, 1.0, 0.25], [1.0, torch.nan, -2.0], [torch.nan, 0.0, torch.nan]]).repeat(20, 1)
    provenance = {"source": {"name": "mine"}, "generator": {"class": "mine.Gan", "weights_sha256": "0" * 64}}
    common: dict[str, Any] = {"provenance": provenance, "training": {"steps": 7, "options": {"lr": 0.1}}}
    given = (statistics, "f" * 64, "0" * 64)
    return (
        LoadedNetwork(prior, *given, prior.config, Path("prior.ckpt"), **common),
        LoadedNetwork(
            classifier,
            *given,
            {**classifier.config, "schedule": "cosine"},
            Path("classifier.ckpt"),
            {"dependence": "joint" if trunk == "shared" else "independent", "temperature": [1.0, 2.0]},
            labels,
            **common,
        ),
    )


@pytest.fixture
def separate() -> Pair:
    """With a trunk for each attribute."""
    return make_pair("separate")


@pytest.fixture
def pair() -> Pair:
    return make_pair()


@pytest.fixture
def exported(tmp_path: Path, pair: Pair) -> Path:
    write_model(tmp_path / "model", *pair)
    return tmp_path / "model"


@pytest.fixture
def rewrite(exported: Path) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """Changes model.json as somebody would who knows the format: with a checksum that is right again."""

    def change(how: Callable[[dict[str, Any]], Any]) -> Path:
        path = exported / "model.json"
        entries = json.loads(path.read_text())
        how(entries)
        entries["checksum"] = checksum(entries)
        path.write_text(json.dumps(entries))
        return exported

    return change
