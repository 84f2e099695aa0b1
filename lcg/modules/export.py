"""Writes the trained network as released weights when a fit has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from lcg import __version__
from lcg.data.imagemodule import ImageDataModule
from lcg.data.images import provenance_of
from lcg.weights import save_weights


class Exports(Protocol):
    """A module that can be released: gives the network and the arguments that build it."""

    def exported(self) -> tuple[nn.Module, dict[str, Any]]: ...


class ExportWeights(Callback):
    """Saves the fitted network, its last validation figures and what it was trained on to a safetensors file.

    Args:
        path: where to.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises OSError now when the file cannot be written, rather than after the training."""
        path = Path(self.path)
        if stage == "fit" and trainer.is_global_zero:
            if path.is_dir():
                raise IsADirectoryError(
                    f"`path` must be a file, got the folder {path}; add a name such as weights.safetensors"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            probe = path.with_name(f".{path.name}.writable")
            probe.touch()
            probe.unlink()
            data = ImageDataModule.of(trainer)
            self.images = provenance_of(train=data.train, val=data.val)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        network, config = cast(Exports, pl_module).exported()
        provenance = {
            "lcg": __version__,
            "torch": torch.__version__,
            **self.images,
            "steps": trainer.global_step,
            "figures": {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")},
        }
        save_weights(self.path, network, config, provenance)
