"""Batches of standardised latents and their labels for the Trainer, from a latent store of any size.

    {"z_0": (B, *latent_shape) float32, standardised; "labels": (B, A) float32, NaN where missing}

and in prediction "index" (B,) int64 too, the samples' numbers in their source, by which ranks' results are put
together. Latents that fit lie in memory, standardised once, and a batch is one gather (`lcg.data.batches`). A store
that memory cannot hold is read from its files by threads that work ahead; what is then held is eight bytes per
training sample, which one and in which order, and the pages that the system can spare.

Who is held out is a matter of hashes of samples' indices (`lcg.data.split`), and so is who keeps its labels when only
a fraction shall be known. Training may go through the store evenly stratified by attributes, with the store's shares
or others (`lcg.data.cells`, `lcg.data.order`).

Other shares than the store's change what is learnt. A prior learns sum_c share_c p(z_0 | c) in place of p(z_0). The
optimum of a classifier becomes

    p'(y | z_t) = p(y | z_t) r_y / sum_y' p(y' | z_t) r_y',        r_y = p'(y) / p(y),

when shares are set by y itself: a binary logit is too high by log r_1 / r_0 everywhere. Guidance with weight 1 is then
no longer Bayes' rule for the store's prior (Saerens, Latinne & Decaestecker 2002, "Adjusting the outputs of a
classifier to new a priori probabilities"), and a temperature cannot mend it, because it scales logits and does not
shift them. Natural shares, which are the default, leave all that exact; rare cells are worth it where ranking matters,
not odds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from lcg.data.batches import Batch, Gather, LatentBatches
from lcg.data.cells import Cells, Shares, check_shares
from lcg.data.memory import available_memory
from lcg.data.order import Strata, row_type
from lcg.data.split import TEST, TRAIN, VALIDATION, check_label_fraction, keeps_labels, side_of
from lcg.data.statistics import Statistics
from lcg.data.store import LatentStore
from lcg.data.store.checks import check_labels, check_latents
from lcg.data.store.shards import ROWS_AT_ONCE
from lcg.schema import Schema

MEMORY_SHARE = 0.25
"""Of the memory that is available, what the latents of all processes of a machine may take."""

WORKERS_FROM_FILES = 2


class LatentDataModule(LightningDataModule):
    """Training, validation, test and prediction batches of a latent store.

    Test and prediction go through the test samples, or where `test_fraction` is 0 through the validation samples;
    nothing was trained on either. `schema`, `latent_shape` and `statistics` can be read at any time; they open the
    store and read no latents.

    Args:
        store: folder or address of the store.
        batch_size: samples per batch and process.
        val_fraction: expected fraction of validation samples, in [0, 1); which ones is fixed by their index alone.
        seed: of the order in which training goes through the samples.
        in_memory: keep the standardised latents in memory, and check them all before; or read them from the files as
            they come (`lcg store verify` checks those). "auto" keeps them if, in float32, for all processes on
            this machine together, they take less than a quarter of the memory that is available now.
        statistics_from: folder of another store whose statistics standardise these latents, for a store that shall be
            looked at with networks trained on that one; the store's own when None.
        test_fraction: expected fraction of test samples, in [0, 1), fixed likewise and apart from the validation's.
        label_fraction: expected fraction of training samples that keep their labels, in [0, 1]; the others' are
            missing (NaN), as if the store had none. One number is for all labels of a sample together. A dictionary has
            numbers by attribute, each chosen for itself, so that samples may keep some of their labels; attributes that
            it does not name keep all. Samples of a smaller fraction are among those of a larger one.
        stratify: binary or categorical attributes whose cells are spread evenly over the epoch; a missing label, be it
            missing or hidden, is a value like any other.
        shares: of the cells in an epoch. "natural": the store's, so that an epoch has every sample once and every batch
            has the store's shares. "equal": every cell that occurs alike, samples of rare ones repeatedly and of
            common ones not all. Or numbers by cell, scaled to sum to 1: `{"hat": 0.5, "~hat": 0.4, "hat=?": 0.1}`.
            Other shares than natural ones change what is learnt: see the module.
        workers: threads that gather batches ahead; None is 0 in memory and 2 from files.
        pin_memory: give batches in page-locked memory; None does where there is a CUDA device.

    Raises:
        FileNotFoundError: there is no store (when it is first needed).
        ValueError: a number is out of range, the store is not sound or lacks an attribute, or the split leaves nothing
            on one side.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        batch_size: int = 256,
        val_fraction: float = 0.05,
        seed: int = 0,
        in_memory: bool | Literal["auto"] = "auto",
        statistics_from: str | os.PathLike[str] | None = None,
        test_fraction: float = 0.0,
        label_fraction: float | dict[str, float] = 1.0,
        stratify: Sequence[str] = (),
        shares: Shares = "natural",
        workers: int | None = None,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be >= 1, got {batch_size}")
        if seed < 0:
            raise ValueError(f"`seed` must be >= 0, got {seed}")
        if workers is not None and workers < 0:
            raise ValueError(f"`workers` must be >= 0 or None, got {workers}; 0 makes each batch when it is asked for")
        if pin_memory and not torch.cuda.is_available():
            raise ValueError("`pin_memory` must be False or None here, got True: there is no CUDA device to copy to")
        side_of(np.zeros(0, np.int64), val_fraction, test_fraction)  # refuses wrong fractions now rather than in setup
        check_shares(shares, stratify)
        check_label_fraction(label_fraction)
        self.path, self.batch_size, self.seed = os.fspath(store), batch_size, seed
        self.val_fraction, self.test_fraction, self.label_fraction = val_fraction, test_fraction, label_fraction
        self.in_memory, self.statistics_from = in_memory, statistics_from
        self.stratify, self.shares = tuple(stratify), shares
        self.workers, self.pin_memory = workers, pin_memory
        self._memory: Batch | None = None

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

    @property
    def train_rows(self) -> Tensor:
        """Rows of the training samples in the store, (N,) int64, increasing."""
        return torch.from_numpy(self._rows[TRAIN].astype(np.int64))

    @property
    def val_rows(self) -> Tensor:
        """Rows of the validation samples."""
        return torch.from_numpy(self._rows[VALIDATION].astype(np.int64))

    @property
    def test_rows(self) -> Tensor:
        """Rows that test and prediction go through: the test samples', or without any the validation samples'."""
        return torch.from_numpy(self._rows[TEST if self.test_fraction else VALIDATION].astype(np.int64))

    def prepare_data(self) -> None:
        # A missing store is reported, and a remote one fetched, once, before any process is started.
        LatentStore.open(self.path)
        if self.statistics_from is not None:
            LatentStore.open(self.statistics_from)

    def setup(self, stage: str | None = None) -> None:
        """Splits and loads the store; called by the Trainer, does nothing the second time."""
        if hasattr(self, "_rows"):
            return
        for name in self.label_fraction if isinstance(self.label_fraction, Mapping) else ():
            self.schema.index(name)  # refuses an unknown one
        if self.stratify:
            Cells(self.schema, self.stratify)  # refuses what it cannot do before anything is read
        self._rows = self._split()
        if self._fits_in_memory():
            self._memory = self._load()

    def train_dataloader(self) -> LatentBatches:
        rows = self._strata() if self.stratify else self._rows[TRAIN]
        return self._batches(self.gather, rows, shuffle=True, seed=self.seed, rows_from=self._rows_from())

    def val_dataloader(self) -> LatentBatches | list[LatentBatches]:
        if self.val_fraction == 0:
            return []  # how a Trainer is told that there is no validation
        return self._batches(self.gather, self.val_rows)

    def test_dataloader(self) -> LatentBatches:
        return self._batches(self.gather, self.test_rows)

    def predict_dataloader(self) -> LatentBatches:
        return self._batches(self.gather_numbered, self.test_rows)

    def gather(self, rows: Tensor) -> Batch:
        """The batch of the given rows of the store: z_0 (B, *latent_shape) standardised and labels (B, A).

        Args:
            rows: (B,) int64.
        """
        if self._memory is not None:
            return {name: values.index_select(0, rows) for name, values in self._memory.items()}
        return {"z_0": self.statistics.standardise(self.store.latents(rows)), "labels": self.labels(rows)}

    def gather_numbered(self, rows: Tensor) -> Batch:
        """The same with "index" (B,)."""
        return {**self.gather(rows), "index": self.store.index(rows)}

    def labels(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """The labels of the given rows, (n, A): those of the store less those that `label_fraction` hides."""
        labels = self.store.labels(rows)
        if self.label_fraction != 1:
            index = self.store.index(rows).numpy()
            training = side_of(index, self.val_fraction, self.test_fraction) == TRAIN
            hidden = training[:, None] & ~keeps_labels(index, self.label_fraction, self.schema.names)
            labels[torch.from_numpy(hidden)] = torch.nan
        return labels

    def state_dict(self) -> dict[str, Any]:
        """Goes into every checkpoint: the store that its weights were trained on, and under which standardisation."""
        own = self.statistics
        whitening = {} if own.whitening is None else {"whitening": own.whitening.matrix}
        return {"mean": own.mean, "std": own.std, **whitening, "store": self.store.fingerprint}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Called by the Trainer with what a checkpoint holds.

        Raises:
            ValueError: the checkpoint was trained under another standardisation than this one gives, or a fit that
                would go on from it has another store.
        """
        trained_on, own = state_dict.get("store"), self.store.fingerprint  # earlier versions did not say
        fitting = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if fitting and trained_on not in (None, own):
            raise ValueError(
                f"the checkpoint belongs to a fit on another store ({trained_on[:12]}) than {self.path} ({own[:12]}); "
                "go on with the store of that fit, or begin anew without `--ckpt_path`, with `--model.start_from` "
                "where the model has it"
            )
        self.check_standardisation(state_dict["mean"], state_dict["std"], state_dict.get("whitening"))

    def check_standardisation(self, mean: Tensor, std: Tensor, whitening: Tensor | None = None) -> None:
        """Raises ValueError unless these statistics standardise as this module does.

        Args:
            mean: (*latent_shape).
            std: (*latent_shape).
            whitening: the matrix (D, D) that replaces division by std, if there is one.
        """
        own = self.statistics
        matrix = None if own.whitening is None else own.whitening.matrix
        same = _agree(mean, own.mean, own.std) and _agree(std, own.std, own.std)
        if not same or not _agree(whitening, matrix, 1.0 if matrix is None else matrix.abs().max()):
            raise ValueError(
                f"the checkpoint was trained on latents standardised otherwise than those of {self.path}; use the "
                "store that it was trained on, or set `statistics_from` to it"
            )

    def _batches(self, gather: Gather, rows: Tensor | np.ndarray | Strata, **order: Any) -> LatentBatches:
        workers = (WORKERS_FROM_FILES if self._memory is None else 0) if self.workers is None else self.workers
        pin = torch.cuda.is_available() if self.pin_memory is None else self.pin_memory
        return LatentBatches(gather, rows, self.batch_size, workers=workers, pin_memory=pin, **order)

    def _split(self) -> dict[int, np.ndarray]:
        """The rows of each side, read chunk by chunk: all indices at once would be twice what is kept of them."""
        parts: dict[int, list[np.ndarray]] = {TRAIN: [], VALIDATION: [], TEST: []}
        for chunk in self._chunks():
            side = side_of(self.store.index(chunk), self.val_fraction, self.test_fraction)
            for which, rows in parts.items():
                rows.append((np.flatnonzero(side == which) + chunk.start).astype(row_type(len(self.store))))
        return {which: np.concatenate(rows) for which, rows in parts.items()}

    def _strata(self) -> Strata:
        """The training rows by the cells of the attributes that are stratified by."""
        cells = Cells(self.schema, self.stratify)
        parts = [cells.of(self.labels(chunk)) for chunk in self._chunks()]
        strata = Strata(np.concatenate(parts)[self._rows[TRAIN]], self._rows[TRAIN])
        return strata.share(cells.shares(self.shares, strata.cells, strata.counts))

    def _rows_from(self) -> dict[str, Any]:
        """What the order of training depends on beside the store and the seed."""
        names = ("val_fraction", "test_fraction", "shares", *(("label_fraction",) if self.stratify else ()))
        return {**{name: getattr(self, name) for name in names}, "stratify": list(self.stratify)}

    def _fits_in_memory(self) -> bool:
        if self.in_memory != "auto":
            return self.in_memory
        processes = self.trainer.num_devices if self.trainer is not None else 1
        numbers = len(self.store) * (math.prod(self.latent_shape) + len(self.schema))
        return 4 * numbers * processes < MEMORY_SHARE * available_memory()

    def _load(self) -> Batch:
        """All latents, standardised chunk by chunk so that memory holds them once, and all labels, both checked."""
        store = self.store
        z_0, labels = torch.empty(len(store), *store.latent_shape), torch.empty(len(store), len(store.schema))
        for chunk in self._chunks():
            z, index = store.latents(chunk), store.index(chunk).numpy()
            check_latents(z.numpy(), index)
            check_labels(store.labels(chunk).numpy(), store.schema, index)
            z_0[chunk], labels[chunk] = self.statistics.standardise(z), self.labels(chunk)
        return {"z_0": z_0, "labels": labels}

    def _chunks(self) -> Iterator[slice]:
        for start in range(0, len(self.store), ROWS_AT_ONCE):
            yield slice(start, min(start + ROWS_AT_ONCE, len(self.store)))


def _agree(given: Tensor | None, own: Tensor | None, scale: Tensor | float) -> bool:
    """Whether two tensors, or the absence of both, are the same to a thousandth of the scale."""
    if given is None or own is None:
        return given is own
    return given.shape == own.shape and bool(((given - own).abs() < 1e-3 * scale).all())
