"""Batches of labelled images for the two networks that ship with the package: the embedded generator and the judge.

    {"x": (B, C, H, W) float32 in [-1, 1]; "labels": (B, A) float32, NaN where missing}

Images are drawn or read once, kept as uint8, and converted batch by batch.
"""

from __future__ import annotations

import numpy as np
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor
from tqdm import tqdm

from lcg.data.batches import Batch, LatentBatches
from lcg.data.source import ImageSource
from lcg.generators.base import pixels_to_x
from lcg.schema import Schema


class ImageDataModule(LightningDataModule):
    """Training and validation batches of two image sources.

    Args:
        train: images to train on.
        val: images to validate on.
        batch_size: images per batch and process.
        seed: of the order in which training goes through the images.
    """

    def __init__(self, train: ImageSource, val: ImageSource, batch_size: int = 256, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be >= 1, got {batch_size}")
        self.train, self.val, self.batch_size, self.seed = train, val, batch_size, seed

    @staticmethod
    def of(trainer: Trainer) -> ImageDataModule:
        """The one that a Trainer was started with."""
        return trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without declaring it

    @property
    def schema(self) -> Schema:
        return self.train.schema

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.train.image_shape

    def setup(self, stage: str | None = None) -> None:
        """Draws or reads all images; called by the Trainer, does nothing the second time."""
        if not hasattr(self, "_train"):
            self._train, self._val = load_images(self.train), load_images(self.val)

    def train_dataloader(self) -> LatentBatches:
        rows = torch.arange(len(self._train[0]))
        return LatentBatches(lambda r: batch_of(self._train, r), rows, self.batch_size, shuffle=True, seed=self.seed)

    def val_dataloader(self) -> LatentBatches:
        return LatentBatches(lambda r: batch_of(self._val, r), torch.arange(len(self._val[0])), self.batch_size)

    test_dataloader = val_dataloader

    def images(self, count: int) -> Tensor:
        """The first training images, (count, C, H, W) in [-1, 1]."""
        return batch_of(self._train, torch.arange(min(count, len(self._train[0]))))["x"]


def load_images(source: ImageSource, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """All images (N, H, W, C) uint8 and labels (N, A) of a source."""
    starts = tqdm(range(0, len(source), chunk), desc="images", unit="chunk", leave=False)
    images, labels = zip(*(source.chunk(i, min(i + chunk, len(source))) for i in starts), strict=True)
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels))


def batch_of(data: tuple[Tensor, Tensor], rows: Tensor) -> Batch:
    """The batch of the given rows. rows: (B,) int64."""
    return {"x": pixels_to_x(data[0][rows]), "labels": data[1][rows]}
