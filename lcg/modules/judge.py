"""`lcg fit` of the judge: an image classifier trained on images of its own, which nothing that guides has seen.

Images are averaged down to the judge's size where it is smaller, and then shifted by up to a pixel and noised a little,
so that the judge looks at parts rather than at single pixels.
"""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lcg.data.imagemodule import ImageDataModule
from lcg.metrics.judge import Judge
from lcg.modules.draws import StepDraws
from lcg.modules.optimizer import adamw
from lcg.nets.heads import mean_negative_log_likelihood, predict_labels


class JudgeModule(LightningModule):
    """Trains a `Judge` on an `ImageDataModule`, whose attributes and image shape it takes.

    Args:
        width: channels of the first block.
        features: dimension of the penultimate layer.
        shrink: how many times smaller than the images' the judge's sides are, a whole number.
        noise: greatest standard deviation of the noise added to images in [-1, 1].
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        warmup: steps of linear warm-up; then a half cosine to zero over the planned steps.

    Raises:
        ValueError: the images' sides are no multiples of `shrink`, or the smaller ones not of 16.
    """

    def __init__(
        self,
        width: int = 32,
        features: int = 128,
        shrink: int = 1,
        noise: float = 0.1,
        lr: float = 3e-3,
        weight_decay: float = 0.02,
        warmup: int = 100,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if shrink < 1:
            raise ValueError(f"`shrink` must be at least 1, got {shrink}; 1 judges images at their own size")
        self.width, self.features, self.shrink, self.noise = width, features, shrink, noise
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.draws = StepDraws()
        self.judge: Judge

    def configure_model(self) -> None:
        """Builds the judge for the images at hand; called by the Trainer."""
        if not hasattr(self, "judge"):
            data = ImageDataModule.of(self.trainer)
            channels, height, width = data.image_shape
            if height % self.shrink or width % self.shrink:
                raise ValueError(
                    f"`shrink` must divide the images' sides, got {self.shrink} for {height} x {width}; "
                    "choose another, or resize the images"
                )
            size = (channels, height // self.shrink, width // self.shrink)
            self.judge = Judge(data.schema, size, self.width, self.features)

    def configure_callbacks(self) -> list[Callback]:
        return [self.draws]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        x, labels = self.judge.shrunk(batch["x"]), batch["labels"]
        shift = torch.randint(-1, 2, (2,), generator=self.draws.choice).tolist()
        strength = self.noise * self.draws.rand_like(x[:, :1, :1, :1])
        x = torch.roll(x, shift, dims=(2, 3)) + strength * self.draws.randn_like(x)
        outputs = self.judge(x.contiguous(memory_format=torch.channels_last))
        loss = mean_negative_log_likelihood(self.judge.schema, outputs, labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        labels = batch["labels"]
        predicted = predict_labels(self.judge.schema, self.judge(batch["x"]))
        right = (predicted == labels) | labels.isnan()
        for j, attribute in enumerate(self.judge.schema):
            known, name, value = ~labels[:, j].isnan(), "accuracy", right[:, j].float()
            if attribute.kind == "continuous":  # equality means nothing there
                known, name, value = known & ~predicted[:, j].isnan(), "error", (predicted - labels)[:, j].abs()
                right[:, j] = True
            if bool(known.any()):
                mean = value[known].mean()
                self.log(f"val/{name}/{attribute.name}", mean, batch_size=int(known.sum()), sync_dist=True)
        self.log("val/accuracy_all", right.all(1).float().mean(), batch_size=len(labels), sync_dist=True, prog_bar=True)

    test_step = validation_step

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), self.lr, self.weight_decay, self.warmup, total)

    def exported(self) -> tuple[Judge, dict[str, Any]]:
        """What `ExportWeights` writes."""
        return self.judge, self.judge.config
