"""Batches of standardised latents and their labels for the Trainer, from a latent store.

    {"z_0": (B, *latent_shape) float32, standardised; "labels": (B, A) float32, NaN where missing}

and in prediction "index" (B,) int64 too, the samples' numbers in their source, by which ranks' results are put
together. There are no workers: the latents lie in memory, standardised once, and a batch is one gather
(`lcg.data.batches`), which is faster than handing it from process to process. A store that memory cannot hold is read
from its mapped files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor

from lcg.data.batches import Batch, LatentBatches
from lcg.data.split import in_validation
from lcg.data.statistics import Statistics
from lcg.data.store import LatentStore
from lcg.data.store.checks import check_labels, check_latents
from lcg.data.store.shards import ROWS_AT_ONCE
from lcg.schema import Schema


class LatentDataModule(LightningDataModule):
    """Training, validation, test and prediction batches of a latent store.

    Test and prediction go through the validation samples, which nothing was trained on. `schema`, `latent_shape` and
    `statistics` can be read at any time; they open the store and read no latents.

    Args:
        store: folder of the store.
        batch_size: samples per batch and process.
        val_fraction: expected fraction of validation samples, in [0, 1); which ones is fixed by their index alone.
        seed: of the order in which training goes through the samples.
        in_memory: keep the standardised latents in memory; turn off for a store that is larger.
        statistics_from: folder of another store whose statistics standardise these latents, for a store that shall be
            looked at with networks trained on that one; the store's own when None.

    Raises:
        FileNotFoundError: there is no store (when it is first needed).
        ValueError: a number is out of range, the store is not sound, or the split leaves nothing on one side.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        batch_size: int = 256,
        val_fraction: float = 0.05,
        seed: int = 0,
        in_memory: bool = True,
        statistics_from: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be >= 1, got {batch_size}")
        if seed < 0:
            raise ValueError(f"`seed` must be >= 0, got {seed}")
        in_validation(np.zeros(0, np.int64), val_fraction)  # refuses a wrong fraction now rather than in setup
        self.path, self.batch_size, self.val_fraction, self.seed = os.fspath(store), batch_size, val_fraction, seed
        self.in_memory, self.statistics_from = in_memory, statistics_from

    @staticmethod
    def of(trainer: Trainer) -> LatentDataModule:
        """The one that a Trainer was started with."""
        return trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without declaring it

    @cached_property
    def store(self) -> LatentStore:
        return LatentStore.open(self.path)

    @cached_property
    def statistics(self) -> Statistics:
        """What z_0 is standardised with; a module keeps a copy to restore raw latents later."""
        if self.statistics_from is None:
            return self.store.statistics
        other = LatentStore.open(self.statistics_from)
        if other.latent_shape != self.latent_shape:
            raise ValueError(
                f"`statistics_from` {other.path} has latents of shape {other.latent_shape}, the store has "
                f"{self.latent_shape}; they must come from one generator"
            )
        return other.statistics

    @property
    def schema(self) -> Schema:
        return self.store.schema

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.store.latent_shape

    def prepare_data(self) -> None:
        LatentStore.open(self.path)  # a missing store is reported once, before any process is started

    def setup(self, stage: str | None = None) -> None:
        """Splits and loads the store; called by the Trainer, does nothing the second time."""
        if hasattr(self, "train_rows"):
            return
        index = self.store.index()
        validation = torch.from_numpy(in_validation(index, self.val_fraction))
        if self.in_memory:
            self._memory = self._load()
        self.val_rows, self.train_rows = validation.nonzero()[:, 0], (~validation).nonzero()[:, 0]

    def train_dataloader(self) -> LatentBatches:
        return LatentBatches(self.gather, self.train_rows, self.batch_size, shuffle=True, seed=self.seed)

    def val_dataloader(self) -> LatentBatches | list[LatentBatches]:
        if self.val_fraction == 0:
            return []  # how a Trainer is told that there is no validation
        return self._held_out()

    def test_dataloader(self) -> LatentBatches:
        return self._held_out()

    def predict_dataloader(self) -> LatentBatches:
        return LatentBatches(self.gather_numbered, self.val_rows, self.batch_size)

    def gather(self, rows: Tensor) -> Batch:
        """The batch of the given rows of the store: z_0 (B, *latent_shape) standardised and labels (B, A).

        Args:
            rows: (B,) int64.
        """
        if self.in_memory:
            return {name: values.index_select(0, rows) for name, values in self._memory.items()}
        return {"z_0": self.statistics.standardise(self.store.latents(rows)), "labels": self.store.labels(rows)}

    def gather_numbered(self, rows: Tensor) -> Batch:
        """The same with "index" (B,)."""
        return {**self.gather(rows), "index": self.store.index(rows)}

    def state_dict(self) -> dict[str, Any]:
        """Goes into every checkpoint: the standardisation that its weights were trained under."""
        return {"mean": self.statistics.mean, "std": self.statistics.std}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raises ValueError when the checkpoint was trained under another standardisation than this one gives."""
        self.check_standardisation(state_dict["mean"], state_dict["std"])

    def check_standardisation(self, mean: Tensor, std: Tensor) -> None:
        """Raises ValueError unless these statistics (*latent_shape) standardise as this module does."""
        own = self.statistics
        if mean.shape != own.mean.shape or not (
            ((mean - own.mean).abs() / own.std).max() < 1e-3 and (std / own.std - 1).abs().max() < 1e-3
        ):
            raise ValueError(
                f"the checkpoint was trained on latents standardised otherwise than those of {self.path}; use the "
                "store that it was trained on, or set `statistics_from` to it"
            )

    def _held_out(self) -> LatentBatches:
        return LatentBatches(self.gather, self.val_rows, self.batch_size)

    def _load(self) -> Batch:
        """All latents, standardised chunk by chunk so that memory holds them once, and all labels, both checked."""
        store = self.store
        z_0, labels = torch.empty(len(store), *store.latent_shape), store.labels()
        for start in range(0, len(store), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            z, index = store.latents(rows), store.index(rows).numpy()
            check_latents(z.numpy(), index)
            check_labels(labels[rows].numpy(), store.schema, index)
            z_0[rows] = self.statistics.standardise(z)
        return {"z_0": z_0, "labels": labels}
