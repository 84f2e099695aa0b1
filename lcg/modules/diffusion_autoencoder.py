"""`lcg fit` of a diffusion autoencoder, without labels.

    loss = E D_t |U(x_t, t, E(x) + r xi) - target|^2,      x_t = alpha_t x + sigma_t eps,      eps, xi ~ N(0, I)

where the target is eps or v, r = latent_noise and D_t weighs v as the U-Net's own output (Preechakul et al. 2022,
arXiv:2111.15640, equation 6; D_t = 1 for eps). Encoder and U-Net learn together. Times are drawn from the density 2 t:
what z_sem says matters most where there is most noise, and few steps of decoding begin there.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lcg.diffusion import diffuse, expand, velocity
from lcg.generators.diffusion_autoencoder import DiffusionAutoencoder
from lcg.modules.draws import StepDraws
from lcg.modules.optimizer import adamw


class DiffusionAutoencoderModule(LightningModule):
    """Trains a `DiffusionAutoencoder`.

    Args:
        autoencoder: the network.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        warmup: steps of linear warm-up; then a half cosine to zero over the planned steps.
    """

    def __init__(
        self, autoencoder: DiffusionAutoencoder, lr: float = 1e-3, weight_decay: float = 0.01, warmup: int = 200
    ) -> None:
        super().__init__()
        self.autoencoder, self.lr, self.weight_decay, self.warmup = autoencoder, lr, weight_decay, warmup
        self.draws = StepDraws()

    def configure_callbacks(self) -> list[Callback]:
        return [self.draws]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        net, x = self.autoencoder, batch["x"]
        t, eps = self.draws.times(len(x)).sqrt(), self.draws.randn_like(x)
        z = net.encode(x)
        predicted = net.predict(diffuse(net.schedule, x, t, eps), t, z + net.latent_noise * self.draws.randn_like(z))
        target = eps if net.prediction == "eps" else velocity(net.schedule, x, t, eps)
        loss = ((predicted - target).square() * expand(net.variance(t), x)).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        x, net = batch["x"], self.autoencoder
        z = net.encode(x)
        for name, code in (("psnr", None), ("psnr_with_code", net.stochastic_code(x, z))):
            mse = (net.decode(z, code) - x).square().flatten(1).mean(1)
            psnr = (10 * torch.log10(4 / mse)).mean()
            self.log(f"val/{name}", psnr, batch_size=len(x), sync_dist=True, prog_bar=True)

    test_step = validation_step

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), self.lr, self.weight_decay, self.warmup, total)

    def exported(self) -> tuple[DiffusionAutoencoder, dict[str, Any]]:
        """What `ExportWeights` writes."""
        return self.autoencoder, self.autoencoder.config
