"""`lcg fit` of the embedded generator: an autoencoder over principal components, without labels.

    loss = E |D(E(c) + s eps) - c|^2,      eps ~ N(0, I),  s = latent_noise

on scaled coefficients c, whose mean square is 1. As the basis is orthonormal, for detail = 0 this is the relative
squared error of the pixels that the basis can show; see `PCAAutoencoder` for detail > 0. The noise makes the latent a
Gaussian channel of limited capacity.
"""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lcg.data.imagemodule import ImageDataModule
from lcg.generators.autoencoder import PCAAutoencoder
from lcg.modules.draws import StepDraws
from lcg.modules.optimizer import adamw


class AutoencoderModule(LightningModule):
    """Trains a `PCAAutoencoder`.

    Args:
        autoencoder: the network; its basis is fitted to the training images when training starts.
        basis_images: how many images the basis is fitted to.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        warmup: steps of linear warm-up; then a half cosine to zero over the planned steps.
    """

    def __init__(
        self,
        autoencoder: PCAAutoencoder,
        basis_images: int = 12_000,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        warmup: int = 200,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.basis_images, self.lr, self.weight_decay, self.warmup = basis_images, lr, weight_decay, warmup
        self.draws = StepDraws()

    def configure_callbacks(self) -> list[Callback]:
        return [self.draws]

    def on_fit_start(self) -> None:
        if not self.autoencoder.basis.any():  # a resumed training has its basis already
            images = ImageDataModule.of(self.trainer).images(self.basis_images)
            self.autoencoder.fit_basis(images.to(self.device))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        net = self.autoencoder
        c = net.coefficients(batch["x"])
        z = net.normalise(net.encoder(c))
        loss = (net.decoder(z + net.latent_noise * self.draws.randn_like(z)) - c).square().mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        x = batch["x"]
        mse = (self.autoencoder.decode(self.autoencoder.encode(x)) - x).square().flatten(1).mean(1)
        self.log("val/psnr", (10 * torch.log10(4 / mse)).mean(), batch_size=len(x), sync_dist=True, prog_bar=True)
        self.log("val/mse", mse.mean(), batch_size=len(x), sync_dist=True)

    test_step = validation_step

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), self.lr, self.weight_decay, self.warmup, total)

    def exported(self) -> tuple[PCAAutoencoder, dict[str, Any]]:
        """What `ExportWeights` writes."""
        return self.autoencoder, self.autoencoder.config
