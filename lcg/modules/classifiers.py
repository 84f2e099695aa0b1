"""`lcg fit` of the time-conditioned classifiers, one head per attribute on a shared trunk.

    loss = -E_{t ~ U(0,1), eps} mean_j log p_phi(y_j | alpha_t z_0 + sigma_t eps, t),      over the known labels y_j

Its optimum is the exact noisy posterior. Validation reports accuracy and calibration error per noise band, and `lcg
validate` in detail, in calibration.csv, calibration.md and calibration.png. When a fit ends, a temperature per noise
level is fitted on the validation samples and stored in its checkpoints (`lcg.modules.calibration`).

Where labels are known to be wrong at some rate, the likelihood is that of observed labels (`lcg.nets.label_noise`), so
that the network itself speaks of true ones. Labels of validation are as wrong as those of training, and what validation
reports compares them with what is to be expected of such labels: accuracy then ends below 1.
"""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lcg.checkpoint import describe_network
from lcg.data.datamodule import LatentDataModule
from lcg.diffusion import diffuse
from lcg.metrics.calibration import BandedCalibration
from lcg.modules.bands import BANDS, band_name, noised
from lcg.modules.calibration import LOG_TEMPERATURE, calibrate_written, diagnose_to
from lcg.modules.draws import StepDraws
from lcg.modules.optimizer import adamw
from lcg.modules.ranks import mean_over_ranks, weight_of_known
from lcg.nets.classifier import TimeConditionedClassifier, Trunk
from lcg.nets.denoiser import ScheduleName, make_schedule
from lcg.nets.heads import mean_negative_log_likelihood
from lcg.nets.label_noise import LabelNoise


class ClassifierModule(LightningModule):
    """Trains a `TimeConditionedClassifier` on the latents and labels of a `LatentDataModule`.

    Args:
        width: hidden width.
        depth: residual blocks.
        schedule: must be the prior's.
        dropout: in training.
        components: of the joint head; 1 takes attributes to be independent given z_t.
        time_features: dimension of the time's embedding.
        trunk: `shared` by all attributes, or `separate`, a network for each, without a joint head.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        warmup: steps of linear warm-up; then a half cosine to zero over the planned steps.
        compile: train on what `torch.compile` makes of the network, half a minute later; validation does not use it.
        label_noise: how often labels are wrong, by attribute: of a binary one the share of wrong labels, or the two of
            false positives and false negatives, `{beard: 0.05, hat: [0.02, 0.1]}`; of a categorical one the share that
            is any other value; of an ordinal one the share that is off by one; of a continuous one the standard
            deviation of its error. Those that are not named are right.
    """

    def __init__(
        self,
        width: int = 256,
        depth: int = 2,
        schedule: ScheduleName = "cosine",
        dropout: float = 0.1,
        components: int = 1,
        time_features: int = 64,
        trunk: Trunk = "shared",
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        warmup: int = 100,
        compile: bool = False,
        label_noise: dict[str, float | list[float]] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.width, self.depth, self.dropout, self.components = width, depth, dropout, components
        self.time_features, self.trunk = time_features, trunk
        self.schedule_name, self.schedule = schedule, make_schedule(schedule)
        self.lr, self.weight_decay, self.warmup, self.compiled = lr, weight_decay, warmup, compile
        self.label_noise = label_noise or {}
        self.draws = StepDraws()
        self.noise: LabelNoise
        self.classifier: TimeConditionedClassifier
        self._report = ""

    def configure_model(self) -> None:
        """Builds the classifier for the latents and attributes at hand; called by the Trainer."""
        if hasattr(self, "classifier"):
            return
        data = LatentDataModule.of(self.trainer)
        self.classifier = TimeConditionedClassifier(
            data.latent_shape,
            data.schema,
            self.width,
            self.depth,
            self.dropout,
            self.components,
            self.time_features,
            self.trunk,
        )
        self.noise = LabelNoise(data.schema, self.label_noise)
        self.calibration = BandedCalibration(data.schema, BANDS)
        if self.compiled:
            self.classifier.compile()

    def configure_callbacks(self) -> list[Callback]:
        return [self.draws]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        z_0, labels = batch["z_0"], batch["labels"]
        t, eps = self.draws.times(len(z_0)), self.draws.randn_like(z_0)
        outputs = self.noise(self.classifier(diffuse(self.schedule, z_0, t, eps), t))
        loss = mean_negative_log_likelihood(self.classifier.schema, outputs, labels) * weight_of_known(labels)
        self.log("train/loss", mean_over_ranks(loss), prog_bar=True)
        return loss

    @torch.compiler.set_stance("force_eager")
    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        z_0, labels = batch["z_0"], batch["labels"]
        losses = []
        for band, z_t, t in noised(self.schedule, z_0, batch_idx):
            outputs = self.noise(self.classifier(z_t, t))
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

    def on_validation_end(self) -> None:
        """When validation is all that was asked for, measures calibration in detail and writes it down."""
        if self.trainer.state.fn != TrainerFn.VALIDATING:
            return
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)  # asks all ranks
        if self.trainer.is_global_zero:
            self._report = diagnose_to(
                folder, self.classifier, self.schedule, LatentDataModule.of(self.trainer), self.noise
            )
            self._report += f"\n{folder}/calibration.csv, calibration.md and calibration.png"

    def on_fit_end(self) -> None:
        """Fits the temperature of the checkpoints that were written."""
        if self.trainer.is_global_zero:
            calibrate_written(self.trainer, self.noise)

    def teardown(self, stage: str) -> None:
        """Prints what validation found, after the figures that the Trainer prints."""
        if self._report:
            print(self._report)
            self._report = ""

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), self.lr, self.weight_decay, self.warmup, total)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        config = {**self.classifier.config, "schedule": self.schedule_name}
        describe_network(checkpoint, "classifier", config, LatentDataModule.of(self.trainer))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Training that goes on does so at temperature 1; what comes of it is calibrated anew."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            for weights in ("state_dict", "current_model_state"):  # where weights are averaged there are two
                if LOG_TEMPERATURE in checkpoint.get(weights, {}):
                    checkpoint[weights][LOG_TEMPERATURE].zero_()
