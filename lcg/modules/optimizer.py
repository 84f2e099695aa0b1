"""The optimiser that all modules share: AdamW with linear warm-up and cosine decay to zero over the planned steps."""

import math
from collections.abc import Iterable

import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import nn


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Factor of the learning rate: rises linearly to 1 over `warmup` steps, then falls to 0 along a half cosine."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def adamw(
    parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, warmup: int, total: float, fused: bool = True
) -> OptimizerLRSchedulerConfig:
    """What `configure_optimizers` returns.

    Args:
        parameters: what is trained.
        lr: peak learning rate.
        weight_decay: AdamW's decoupled weight decay.
        warmup: steps of linear warm-up.
        total: planned optimiser steps; infinite keeps the rate at its peak.
        fused: one kernel for all parameters; under mixed precision Lightning does not clip gradients for that.

    Raises:
        ValueError: the learning rate is not positive, or the weight decay is negative.
    """
    if not 0 < lr < math.inf or not weight_decay >= 0:
        raise ValueError(f"`lr` must be > 0 and `weight_decay` >= 0, got {lr} and {weight_decay}; 1e-3 and 0 are usual")
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused)
    planned = int(total) if math.isfinite(total) else 0

    def factor(step: int) -> float:
        return warmup_cosine(step, warmup, planned) if planned else min(1.0, (step + 1) / max(1, warmup))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
