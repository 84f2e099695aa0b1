"""`lcg fit` of the conditional prior: one network for eps(z_t), eps(z_t | y_j) and eps(z_t | y).

    loss = E_{t, eps, kept} |net(alpha_t z_0 + sigma_t eps, t, y_kept) - target|^2,      target = eps or v

(Ho & Salimans 2022, arXiv:2207.12598, algorithm 1): the prior's loss (`lcg.modules.prior`) given the labels that
`drop_labels` leaves. Composable Diffusion (Liu et al. 2022, arXiv:2206.01714) composes the scores.

The authors train U-Nets of 192 channels on images of 128 x 128, with learning rate 1e-5, batches of 16, weights
averaged by 0.9999, 1000 levels of a cosine schedule, for days; labels are one object's. Latents of 64 numbers need a
perceptron, a minute, and the prior's own learning rate, averaging and times.
"""

from functools import partial
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lcg.checkpoint import describe_network
from lcg.data.datamodule import LatentDataModule
from lcg.modules.bands import BANDS, band_name, band_times
from lcg.modules.draws import StepDraws
from lcg.modules.optimizer import adamw
from lcg.modules.ranks import mean_over_ranks
from lcg.nets.conditional import ConditionalDenoiser, drop_labels
from lcg.nets.denoiser import Prediction, ScheduleName


class ConditionalPriorModule(LightningModule):
    """Trains a `ConditionalDenoiser` on the latents and labels of a `LatentDataModule`.

    Args:
        width: hidden width of the denoiser.
        depth: residual blocks.
        prediction: what the network predicts, `v` or `eps`.
        schedule: `cosine` or `linear`.
        dropout: of hidden units, in training.
        features: of the embedding of each attribute.
        unconditional: share of the rows that are shown without labels; see `drop_labels`.
        single: share of the rows that are shown with one label.
        time_spread: standard deviation s of logit(t) in training; None for t ~ U(0, 1).
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        warmup: steps of linear warm-up; then a half cosine to zero over the planned steps.

    Raises:
        ValueError: time_spread is not positive, or shares that are negative or add up to more than 1.
    """

    def __init__(
        self,
        width: int = 512,
        depth: int = 3,
        prediction: Prediction = "v",
        schedule: ScheduleName = "cosine",
        dropout: float = 0.0,
        features: int = 16,
        unconditional: float = 0.1,
        single: float = 0.3,
        time_spread: float | None = 0.8,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        warmup: int = 200,
    ) -> None:
        super().__init__()
        if time_spread is not None and not time_spread > 0:
            raise ValueError(f"`time_spread` must be positive or None, got {time_spread}; 1 is broad, None is uniform")
        drop_labels(torch.zeros(0, 1), unconditional, single)  # refuses wrong shares now rather than at the first step
        self.save_hyperparameters()
        self.width, self.depth, self.dropout, self.features = width, depth, dropout, features
        self.prediction, self.schedule, self.time_spread = prediction, schedule, time_spread
        self.unconditional, self.single = unconditional, single
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.draws = StepDraws()
        self.conditional_denoiser: ConditionalDenoiser

    def configure_model(self) -> None:
        """Builds the denoiser for the latents and attributes at hand; called by the Trainer."""
        if hasattr(self, "conditional_denoiser"):
            return
        data = LatentDataModule.of(self.trainer)
        self.conditional_denoiser = ConditionalDenoiser(
            data.latent_shape,
            data.schema,
            self.width,
            self.depth,
            self.prediction,
            self.schedule,
            self.dropout,
            self.features,
        )
        self.conditional_denoiser.embedding.standardise(data.labels())

    def configure_callbacks(self) -> list[Callback]:
        return [self.draws]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        z_0, draws = batch["z_0"], self.draws
        labels = draws.share(len(z_0), partial(self._dropped, batch["labels"]))
        t, eps = draws.times(len(z_0), self.time_spread), draws.randn_like(z_0)
        loss = self.conditional_denoiser.loss(z_0, t, eps, labels).mean()
        self.log("train/loss", mean_over_ranks(loss), prog_bar=True)
        return loss

    def _dropped(self, labels: Tensor, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Some labels dropped from `count` rows, of which those of this rank are its labels."""
        everywhere = labels.repeat_interleave(count // len(labels), 0)
        return drop_labels(everywhere, self.unconditional, self.single, generator)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Logs the loss given all labels, in each noise band and in all, and the loss without labels."""
        z_0, labels = batch["z_0"], batch["labels"]
        generator = torch.Generator().manual_seed(batch_idx)  # the same noise at every validation
        losses: dict[str, list[Tensor]] = {"val/loss": [], "val/loss/unconditional": []}
        for band in range(BANDS):
            eps, t = torch.randn(z_0.shape, generator=generator).to(z_0), band_times(band, len(z_0), z_0.device)
            for name, given in zip(losses, (labels, None), strict=True):
                losses[name].append(self.conditional_denoiser.loss(z_0, t, eps, given).mean())
            self.log(f"val/loss/{band_name(band)}", losses["val/loss"][-1], batch_size=len(z_0), sync_dist=True)
        for name, values in losses.items():
            self.log(name, torch.stack(values).mean(), batch_size=len(z_0), sync_dist=True, prog_bar=True)

    test_step = validation_step

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), self.lr, self.weight_decay, self.warmup, total)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        config = self.conditional_denoiser.config
        describe_network(checkpoint, "conditional_denoiser", config, LatentDataModule.of(self.trainer))
