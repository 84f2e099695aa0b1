"""Where Lightning's loops go on, put right (2.6.6): what was saved at the end of an epoch begins the next one.

Where training is bounded by `max_steps`, Lightning takes every resumed epoch for an unfinished one. One that was
finished it ends a second time, and counts twice: the batches that follow are those of the epoch after the next, and
what is logged is one step off.
"""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Trainer


def go_on_from_epoch_end(trainer: Trainer) -> None:
    """Corrects a fit that was resumed from a checkpoint of `on_train_epoch_end`; called in `on_train_start`."""
    fit, epoch = trainer.fit_loop, trainer.fit_loop.epoch_loop
    if not fit.restarted_on_epoch_end:
        return
    progress: Any = fit.epoch_progress
    if epoch.batch_progress.current.completed < trainer.num_training_batches:  # it ended early, at max_steps
        for count in (progress.total, progress.current):
            count.processed -= 1
        return
    for count in (progress.total, progress.current):
        count.completed = count.processed
    for loop in (fit, epoch, epoch.val_loop):
        loop._restarting = False  # what the property sets depends on max_steps again
        loop.reset_restart_stage()
