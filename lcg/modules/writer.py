"""Predictions on disk: one safetensors file per process, put together again by the samples' numbers.

    OUT/edited-00000.safetensors   "index" (n,), "z_0" (n, *latent), "edited" (n, steps, *latent), standardised
    OUT/provenance.json            what made them

The header of each file says how many there are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lcg.data.atomic import write_atomic

FILES = "edited-*.safetensors"


class Accountable(Protocol):
    """A module that can say what made its predictions."""

    def provenance(self) -> dict[str, Any]:
        """JSON primitives."""
        ...


class EditWriter(BasePredictionWriter):
    """Writes what `EditorModule` gives, once per process, when all its batches are done.

    Args:
        out: folder.
        overwrite: replace what an earlier run left there.

    Raises:
        FileExistsError: in `setup`, when `out` holds results that must not be replaced.
        OSError: `out` cannot be written; raised before any work.
    """

    def __init__(self, out: str | PathLike[str], overwrite: bool = False) -> None:
        super().__init__("epoch")
        self.out, self.overwrite = Path(out), overwrite

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        old = sorted(self.out.glob(FILES))
        if old and not self.overwrite:
            raise FileExistsError(
                f"{self.out} holds {old[0].name} already; choose another `out`, or set `overwrite: true`"
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes room, now that everything fits together; no process goes on before that is done."""
        if trainer.is_global_zero:
            self.out.mkdir(parents=True, exist_ok=True)
            for file in self.out.glob(FILES):  # all of them: an earlier run may have had more processes
                file.unlink()
            provenance = cast("Accountable", pl_module).provenance()
            write_atomic(self.out / "provenance.json", (json.dumps(provenance, indent=2) + "\n").encode())
        trainer.strategy.barrier()

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        tensors = {name: torch.cat([p[name] for p in predictions]).cpu().contiguous() for name in predictions[0]}
        data = save(tensors, {"processes": str(trainer.world_size)})
        write_atomic(self.out / f"edited-{trainer.global_rank:05d}.safetensors", data)


def load_edited(folder: str | PathLike[str]) -> dict[str, Tensor]:
    """What all processes wrote, as one: "index", "z_0" and "edited", in the order of the samples' numbers.

    Raises:
        FileNotFoundError: there is nothing, or not the file of every process.
        ValueError: a file is damaged, or a sample occurs twice.
    """
    files, parts, processes = sorted(Path(folder).glob(FILES)), [], 1
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                parts.append({name: file.get_tensor(name) for name in ("index", "z_0", "edited")})
                processes = int((file.metadata() or {})["processes"])
        except (SafetensorError, KeyError) as error:
            raise ValueError(
                f"{path} is damaged or was not written by `lcg predict` ({error}); predict again"
            ) from error
    if len(files) != processes:
        raise FileNotFoundError(
            f"{folder} holds the files of {len(files)} processes, expected {processes}; predict again"
        )
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    order = joined["index"].argsort()
    if len(joined["index"].unique()) != len(order):
        raise ValueError(f"{folder} holds samples twice, from runs that were mixed; predict again into another folder")
    return {name: tensor[order] for name, tensor in joined.items()}
