"""`lcg fit` of the judge: an image classifier trained on uniform renders of its own split, not on what guides.

Images are shifted by up to a pixel and noised a little, so that the judge looks at parts rather than at single pixels.
"""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lcg.data.imagemodule import ImageDataModule
from lcg.metrics.judge import Judge
from lcg.modules.optimizer import adamw
from lcg.nets.heads import mean_negative_log_likelihood, predict_labels


class JudgeModule(LightningModule):
    """Trains a `Judge` on an `ImageDataModule`, whose attributes and image shape it takes.

    Args:
        width: channels of the first block.
        features: dimension of the penultimate layer.
        noise: greatest standard deviation of the noise added to images in [-1, 1].
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        warmup: steps of linear warm-up; then a half cosine to zero over the planned steps.
    """

    def __init__(
        self,
        width: int = 32,
        features: int = 128,
        noise: float = 0.1,
        lr: float = 3e-3,
        weight_decay: float = 0.02,
        warmup: int = 100,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.width, self.features, self.noise = width, features, noise
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.judge: Judge

    def configure_model(self) -> None:
        """Builds the judge for the images at hand; called by the Trainer."""
        if not hasattr(self, "judge"):
            data = ImageDataModule.of(self.trainer)
            self.judge = Judge(data.schema, data.image_shape, self.width, self.features)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        x, labels = batch["x"], batch["labels"]
        shift = torch.randint(-1, 2, (2,)).tolist()
        strength = self.noise * torch.rand(len(x), 1, 1, 1, device=x.device)
        x = torch.roll(x, shift, dims=(2, 3)) + strength * torch.randn_like(x)
        outputs = self.judge(x.contiguous(memory_format=torch.channels_last))
        loss = mean_negative_log_likelihood(self.judge.schema, outputs, labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        labels = batch["labels"]
        predicted = predict_labels(self.judge.schema, self.judge(batch["x"]))
        for j, attribute in enumerate(self.judge.schema):
            known = ~labels[:, j].isnan()
            if not bool(known.any()):
                continue
            right = (predicted[:, j] == labels[:, j])[known].float().mean()
            self.log(f"val/accuracy/{attribute.name}", right, batch_size=int(known.sum()), sync_dist=True)
        same = (predicted == labels) | (predicted.isnan() & labels.isnan())
        self.log("val/accuracy_all", same.all(1).float().mean(), batch_size=len(labels), sync_dist=True, prog_bar=True)

    test_step = validation_step

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), self.lr, self.weight_decay, self.warmup, total)

    def exported(self) -> tuple[Judge, dict[str, Any]]:
        """What `ExportWeights` writes."""
        return self.judge, self.judge.config
