"""The random numbers of training steps: functions of the seed, the epoch, the batch and the row, of nothing else.

    state(epoch, batch) = SeedSequence(seed, spawn_key=(epoch, batch))

What belongs to a row of a batch, its time and its noise, is drawn for the global batch, the same on all ranks, of which
rank r of W keeps rows r, r + W, r + 2 W, ...: those whose latents `lcg.data.batches` gives it. So W ranks with batches
of B draw what one process draws with batches of W B, and a training that was killed goes on as if it had not been: no
generator's state has to be kept, only the seed, which a checkpoint holds.

Dropout, and whatever else draws from torch's own generators, is seeded anew at every batch too, on each rank otherwise:
a resumed training repeats it exactly, but another number of ranks drops other units.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lcg.nets.denoiser import logit_normal_times, stratified_times


class Draw(Protocol):
    """Draws something for each of `count` rows, on the generator's device; returns (count, ...)."""

    def __call__(self, count: int, /, *, generator: torch.Generator, device: torch.device) -> Tensor: ...


class StepDraws(Callback):
    """Gives the training steps of a module their random numbers; the module returns it from `configure_callbacks`.

    Attributes:
        seed: of the run. That of `seed_everything`, or of the training which is being resumed.
        choice: a generator on the CPU, the same on all ranks, for what is chosen once for a batch.
    """

    def __init__(self) -> None:
        self.seed: int | None = None
        self.choice = torch.Generator()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.seed = None

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seed = state_dict["seed"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seed = trainer.strategy.broadcast(torch.initial_seed() if self.seed is None else self.seed)
        self._rank, self._world = trainer.global_rank, trainer.world_size
        self._rows = torch.Generator(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        sequence = np.random.SeedSequence(self.seed, spawn_key=(trainer.current_epoch, batch_idx))
        # As many words as the rank needs: the first are the same on all, the last is its own.
        rows, choice, *_, own = sequence.generate_state(3 + self._rank, np.uint64).tolist()
        self._rows.manual_seed(rows)
        self.choice.manual_seed(choice)
        torch.default_generator.manual_seed(own)  # not torch.manual_seed, which asks after every kind of device: 0.1 ms
        if self._rows.device.type != "cpu":
            torch.get_device_module(self._rows.device).manual_seed(own)

    def share(self, count: int, draw: Draw) -> Tensor:
        """This rank's rows (count, ...) of what is drawn for the global batch, in which every rank has `count`."""
        drawn = draw(count * self._world, generator=self._rows, device=self._rows.device)
        return drawn[self._rank :: self._world]

    def times(self, count: int, spread: float | None = None) -> Tensor:
        """Stratified times (count,): t ~ U(0, 1), or logit(t) ~ N(0, spread^2)."""
        return self.share(count, stratified_times if spread is None else partial(logit_normal_times, spread=spread))

    def randn_like(self, x: Tensor) -> Tensor:
        """Standard normal numbers of the shape (B, ...) and precision of x."""
        shape, dtype = x.shape[1:], x.dtype
        return self.share(len(x), lambda count, **where: torch.randn((count, *shape), dtype=dtype, **where))

    def rand_like(self, x: Tensor) -> Tensor:
        """Numbers from U(0, 1) of the shape (B, ...) and precision of x."""
        shape, dtype = x.shape[1:], x.dtype
        return self.share(len(x), lambda count, **where: torch.rand((count, *shape), dtype=dtype, **where))
