"""Randomness of the ranks of a distributed training."""

import torch
from pytorch_lightning import LightningModule


def draw_own_noise(module: LightningModule) -> None:
    """Lets every rank draw its own times and noise.

    One seed is set on all ranks, so that they begin with equal weights. Left at that they would also draw equal times
    and noise, and W ranks would see no more of them than one. Rank 0, and so a training on one device, is left alone.
    """
    if module.global_rank > 0:
        torch.manual_seed(torch.initial_seed() + module.global_rank)
