"""`lcg fit` of the diffusion prior over standardised latents.

    loss = E_{t ~ U(0,1), eps} |net(alpha_t z_0 + sigma_t eps, t) - target|^2,      target = eps or v

(Ho et al. 2020, arXiv:2006.11239, equation 14; Salimans & Ho 2022 for v). Exponential averaging of the weights is
Lightning's EMAWeightAveraging callback; the checkpoint's `state_dict` then holds the average.
"""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from lcg.checkpoint import describe_network
from lcg.modules.bands import BANDS, band_name, band_times
from lcg.modules.optimizer import adamw
from lcg.nets.denoiser import LatentDenoiser, Prediction, ScheduleName, stratified_times


class PriorModule(LightningModule):
    """Trains a `LatentDenoiser` on the latents of a `LatentDataModule`, whose latent shape it takes.

    Args:
        width: hidden width of the denoiser.
        depth: hidden layers.
        prediction: what the network predicts, `v` or `eps`.
        schedule: `cosine` or `linear`.
        dropout: in training.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        warmup: steps of linear warm-up; then a half cosine to zero over the planned steps.
    """

    def __init__(
        self,
        width: int = 512,
        depth: int = 6,
        prediction: Prediction = "v",
        schedule: ScheduleName = "cosine",
        dropout: float = 0.0,
        lr: float = 1.5e-3,
        weight_decay: float = 0.01,
        warmup: int = 200,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.denoiser: LatentDenoiser

    def configure_model(self) -> None:
        """Builds the denoiser for the latents at hand; called by the Trainer, does nothing the second time."""
        if hasattr(self, "denoiser"):
            return
        h = self.hparams
        shape = self.trainer.datamodule.latent_shape
        self.denoiser = LatentDenoiser(shape, h.width, h.depth, h.prediction, h.schedule, h.dropout)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        z_0 = batch["z_0"]
        loss = self.denoiser.loss(z_0, stratified_times(len(z_0), device=z_0.device), torch.randn_like(z_0)).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        z_0 = batch["z_0"]
        generator = torch.Generator().manual_seed(batch_idx)  # the same noise at every validation
        losses = []
        for band in range(BANDS):
            eps = torch.randn(z_0.shape, generator=generator).to(z_0)
            losses.append(self.denoiser.loss(z_0, band_times(band, len(z_0), z_0.device), eps).mean())
            self.log(f"val/loss/{band_name(band)}", losses[-1], batch_size=len(z_0), sync_dist=True)
        self.log("val/loss", torch.stack(losses).mean(), batch_size=len(z_0), sync_dist=True, prog_bar=True)

    test_step = validation_step

    def configure_optimizers(self) -> dict[str, Any]:
        h = self.hparams
        return adamw(self.parameters(), h.lr, h.weight_decay, h.warmup, self.trainer.estimated_stepping_batches)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        describe_network(checkpoint, "denoiser", self.denoiser.config, self.trainer.datamodule)
