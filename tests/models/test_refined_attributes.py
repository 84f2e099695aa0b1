"""Ordinal attributes and groups in exported models: written, described, and read again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import lcg.models
from lcg.checkpoint import load_network
from lcg.models.description import Description
from lcg.models.folder import write_model
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import tensors
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("accessory_hat", group="accessory"),
        Attribute("age", "categorical", ("young", "adult", "old"), ordered=True),
        Attribute("tall"),
    )
)


@pytest.fixture
def written(pair: Any, tmp_path: Path) -> tuple[Path, TimeConditionedClassifier]:
    prior, other = pair
    network = TimeConditionedClassifier((2, 3), SCHEMA, 5, 1, components=2)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    network.eval().requires_grad_(False)
    config = {**network.config, "schedule": "cosine"}
    labels = torch.tensor([[0.0, 2.0, 1.0], [1.0, torch.nan, 0.0]]).repeat(20, 1)
    write_model(tmp_path / "model", prior, replace(other, network=network, config=config, labels=labels))
    return tmp_path / "model", network


def test_they_come_back(written: tuple[Path, TimeConditionedClassifier]) -> None:
    folder, network = written
    loaded = load_network(folder, "classifier").network
    assert loaded.schema == SCHEMA
    z_t, t = torch.randn(4, 2, 3), torch.full((4,), 0.3)
    for (_, found), (_, expected) in zip(tensors(loaded(z_t, t)), tensors(network(z_t, t)), strict=True):
        torch.testing.assert_close(found, expected)


def test_their_description_follows_the_schema(written: tuple[Path, TimeConditionedClassifier]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    text = (written[0] / "model.json").read_text()
    schema = json.loads((Path(lcg.models.__file__).parent / "model.schema.json").read_text())
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(json.loads(text))) == []
    assert Description.from_json(text).to_json() == text
    told = {entry["name"]: entry for entry in json.loads(text)["schema"]}
    assert told["age"]["ordered"] is True and told["accessory_hat"]["group"] == "accessory"
    assert not {"ordered", "group"} & set(told["tall"])


def test_the_card_tells_ordinal_values_in_their_order(written: tuple[Path, TimeConditionedClassifier]) -> None:
    card = (written[0] / "README.md").read_text()
    (row,) = [line for line in card.splitlines() if line.startswith("| age |") or line.startswith("| `age` |")]
    assert row.index("young") < row.index("adult") < row.index("old")
