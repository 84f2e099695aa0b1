"""Training that is told to stop, by a cluster or its user, stops at the end of a step and can go on exactly there.

    SIGTERM     the step is finished, a checkpoint saved, loggers are closed; exit code 143
    SIGINT      (Ctrl-C) the same with 130; a second one stops at once and saves nothing
    SIGUSR1     under SLURM with auto-requeue: Lightning saves and requeues the job, but at the end of the step

    Trainer(callbacks=[Survival()])          `lcg fit` has it without being asked

Lightning's own handler of SIGTERM broadcasts from inside the signal handler, wherever in a step that interrupts a rank:
on ranks that are elsewhere that broadcast meets another collective. Here a handler only sets a flag, and when a step
has ended all ranks agree, by one reduction of two numbers, whether any of them has heard something. So they stop at the
same step, whichever of them a signal reached and however many it reached.

A step is an optimiser's step: gradients that are still being accumulated are in no checkpoint. Validation that has
begun is finished. The checkpoint is NAME-interrupted.ckpt in the folder of the first ModelCheckpoint, where
`--ckpt_path last` finds it; it is removed when the run has finished.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.exceptions import SIGTERMException

from lcg.modules.loops import go_on_from_epoch_end
from lcg.modules.resume import candidates, interrupted_path

Handler = Callable[[int, FrameType | None], Any]


class Survival(Callback):
    """Stops a fit at the end of a step when a signal asks for it, and saves what it needs to go on.

    Attributes:
        stopped_by: the signal that all ranks have agreed to stop for, 0 for none.
    """

    def __init__(self) -> None:
        self.stopped_by = self._heard = self._requeue_heard = 0
        self._saved_step = self._validated_step = -1
        self._ended_step = False
        self._requeue: Handler | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Puts its own handlers where Lightning is about to install its own."""
        if stage != "fit":
            return
        self.stopped_by = self._heard = self._requeue_heard = 0
        self._saved_step = self._validated_step = -1
        self._ended_step = False
        connector: Any = trainer._signal_connector
        connector._sigterm_notifier_fn = self._hear
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._requeue = type(connector)._slurm_sigusr_handler_fn.__get__(connector)
            connector._slurm_sigusr_handler_fn = self._hear_requeue

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        go_on_from_epoch_end(trainer)
        step = trainer.strategy.broadcast(trainer.global_step)
        if step != trainer.global_step:
            raise ValueError(
                f"rank {trainer.global_rank} resumes at step {trainer.global_step}, rank 0 at {step}; all ranks must "
                "see the same folder of checkpoints"
            )
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._hear_interrupt)  # the Trainer restores the default with all handlers

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not trainer.fit_loop.epoch_loop._should_accumulate():
            self._agree(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._tell(trainer, False)  # Lightning would break off in its middle, where weights are those of an average

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._validated_step = trainer.global_step
            self._agree(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)
        if self.stopped_by:  # Lightning goes on from here, but not from where it will raise
            self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException) and self.stopped_by:
            self._ended_step = trainer.global_step == self._validated_step
            self._save(trainer)
            exception.code = 128 + self.stopped_by
            # Lightning kills this process when it sees one that it has started end with such a code.
            getattr(trainer.strategy.launcher, "procs", []).clear()
        self._give_back(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """What is saved after validation, and not within it, has counted a step that Lightning counts on resuming."""
        if self._ended_step:
            checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Removes what the run left when it was stopped, if it has saved something since."""
        left = Path(interrupted_path(trainer) or "")
        if trainer.is_global_zero and left.is_file():
            stopped = left.stat().st_mtime_ns
            if any(path.stat().st_mtime_ns > stopped for path in candidates(trainer)):
                trainer.strategy.remove_checkpoint(left)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._give_back(trainer)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_requeue": None}  # for processes that are spawned: they set it up themselves

    def _hear(self, signum: int, _: FrameType | None) -> None:
        self._heard = signum

    def _hear_requeue(self, signum: int, _: FrameType | None) -> None:
        self._requeue_heard = signum

    def _hear_interrupt(self, signum: int, _: FrameType | None) -> None:
        if self._heard == signum:
            raise KeyboardInterrupt
        self._heard = max(self._heard, signum)
        os.write(2, b"\nstopping at the end of this step; press Ctrl-C again to stop at once, without saving\n")

    def _agree(self, trainer: Trainer) -> None:
        """All ranks learn what any of them has heard; called at the same moments on all."""
        heard, requeue = self._heard, self._requeue_heard
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            flags = torch.tensor([heard, requeue], device=trainer.strategy.root_device)
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
            heard, requeue = flags.tolist()
        self.stopped_by = max(self.stopped_by, heard)
        if requeue and self._requeue is not None:
            self._requeue_heard = 0
            self._requeue(requeue, None)
        self._tell(trainer, bool(self.stopped_by))

    def _tell(self, trainer: Trainer, stop: bool) -> None:
        """Lightning's loops raise SIGTERMException, on all ranks, when a step or an epoch has ended."""
        trainer._signal_connector.received_sigterm = stop

    def _save(self, trainer: Trainer) -> None:
        if self._saved_step == trainer.global_step:
            return
        self._saved_step, path = trainer.global_step, interrupted_path(trainer)
        name = signal.Signals(self.stopped_by).name
        if path is None:
            rank_zero_info(f"{name}: stopped after step {trainer.global_step}; checkpoints are turned off, none saved")
            return
        trainer.save_checkpoint(path, weights_only=False)
        rank_zero_info(
            f"{name}: stopped after step {trainer.global_step}, saved {path}; the same command with `--ckpt_path last` "
            "goes on from there"
        )

    def _give_back(self, trainer: Trainer) -> None:
        for name in ("_sigterm_notifier_fn", "_slurm_sigusr_handler_fn"):
            trainer._signal_connector.__dict__.pop(name, None)
