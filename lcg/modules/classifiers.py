"""`lcg fit` of the time-conditioned classifiers, one head per attribute on a shared trunk.

    loss = -E_{t ~ U(0,1), eps} mean_j log p_phi(y_j | alpha_t z_0 + sigma_t eps, t),      over the known labels y_j

Its optimum is the exact noisy posterior. Validation reports accuracy and calibration error per noise band.
"""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lcg.checkpoint import describe_network
from lcg.data.datamodule import LatentDataModule
from lcg.diffusion import diffuse
from lcg.metrics.calibration import BandedCalibration
from lcg.modules.bands import BANDS, band_name, band_times
from lcg.modules.optimizer import adamw
from lcg.modules.ranks import draw_own_noise
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import ScheduleName, make_schedule, stratified_times
from lcg.nets.heads import mean_negative_log_likelihood


class ClassifierModule(LightningModule):
    """Trains a `TimeConditionedClassifier` on the latents and labels of a `LatentDataModule`.

    Args:
        width: hidden width.
        depth: residual blocks.
        schedule: must be the prior's.
        dropout: in training.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        warmup: steps of linear warm-up; then a half cosine to zero over the planned steps.
    """

    def __init__(
        self,
        width: int = 256,
        depth: int = 2,
        schedule: ScheduleName = "cosine",
        dropout: float = 0.1,
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        warmup: int = 100,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.width, self.depth, self.dropout = width, depth, dropout
        self.schedule_name, self.schedule = schedule, make_schedule(schedule)
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.classifier: TimeConditionedClassifier

    def configure_model(self) -> None:
        """Builds the classifier for the latents and attributes at hand; called by the Trainer."""
        if hasattr(self, "classifier"):
            return
        data = LatentDataModule.of(self.trainer)
        self.classifier = TimeConditionedClassifier(
            data.latent_shape, data.schema, self.width, self.depth, self.dropout
        )
        self.calibration = BandedCalibration(data.schema, BANDS)

    def on_fit_start(self) -> None:
        draw_own_noise(self)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        z_0, labels = batch["z_0"], batch["labels"]
        t = stratified_times(len(z_0), device=z_0.device)
        outputs = self.classifier(diffuse(self.schedule, z_0, t, torch.randn_like(z_0)), t)
        loss = mean_negative_log_likelihood(self.classifier.schema, outputs, labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        z_0, labels = batch["z_0"], batch["labels"]
        generator = torch.Generator().manual_seed(batch_idx)  # the same noise at every validation
        losses = []
        for band in range(BANDS):
            t = band_times(band, len(z_0), z_0.device)
            eps = torch.randn(z_0.shape, generator=generator).to(z_0)
            outputs = self.classifier(diffuse(self.schedule, z_0, t, eps), t)
            losses.append(mean_negative_log_likelihood(self.classifier.schema, outputs, labels))
            self.calibration.update(outputs, labels, band)
            self.log(f"val/loss/{band_name(band)}", losses[-1], batch_size=len(z_0), sync_dist=True)
        self.log("val/loss", torch.stack(losses).mean(), batch_size=len(z_0), sync_dist=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        for figure, values in self.calibration.compute().items():
            for band in range(BANDS):
                self.log(f"val/{figure}/{band_name(band)}", values[:, band].nanmean().float(), sync_dist=True)
                for row, attribute in enumerate(self.calibration.attributes):
                    name = f"val/{figure}/{attribute.name}/{band_name(band)}"
                    self.log(name, values[row, band].float(), sync_dist=True)
        self.calibration.reset()

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), self.lr, self.weight_decay, self.warmup, total)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        config = {**self.classifier.config, "schedule": self.schedule_name}
        describe_network(checkpoint, "classifier", config, LatentDataModule.of(self.trainer))
