"""What a checkpoint says of its module's arguments is plain: it can be read without running anything."""

import importlib
import io
import json
from pathlib import Path

import pytest
import torch
import yaml
from pytorch_lightning import LightningModule

CONFIGS = Path(__file__).parents[2] / "configs"
FITS = sorted(path for path in CONFIGS.glob("*/*.yaml") if "model" in yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", FITS, ids=lambda path: "/".join(path.parts[-2:]))
def test_hyper_parameters_are_plain_values(path: Path) -> None:
    options = yaml.safe_load(path.read_text())["model"]
    module, _, name = options["class_path"].rpartition(".")
    model: LightningModule = getattr(importlib.import_module(module), name)(**options.get("init_args", {}))
    stored = dict(model.hparams)  # as Lightning puts them into a checkpoint
    assert json.loads(json.dumps(stored)) == stored
    buffer = io.BytesIO()
    torch.save({"hyper_parameters": stored}, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True)["hyper_parameters"] == stored


def test_every_kind_of_training_is_looked_at() -> None:
    assert len(FITS) >= 11
