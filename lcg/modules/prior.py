"""`lcg fit` of the diffusion prior over standardised latents.

    loss = E_{t, eps} |net(alpha_t z_0 + sigma_t eps, t) - target|^2,      target = eps or v,     logit(t) ~ N(0, s^2)

(Ho et al. 2020, arXiv:2006.11239, equation 14; Salimans & Ho 2022 for v; Esser et al. 2024 for t). Its optimum is the
conditional mean, which the score is made of; absolute errors, as Diffusion Autoencoders have them, lead to the
conditional median, which is the mean where eps given z_t is symmetric, and near it where little is known. Exponential
averaging of the weights is Lightning's EMAWeightAveraging callback; a checkpoint's `state_dict` then holds the average.

A prior that shall extrapolate to combinations which its store does not have can be trained on latents between latents:
a share `mixup` of each batch becomes u z_a + (1 - u) z_b, u ~ U(1/2, 1) (Zhang et al. 2018, arXiv:1710.09412, without
labels). Ordinary samples suffer from it, so it is off by default; `start_from` fine-tunes a finished prior so.
"""

import math
from functools import partial
from typing import Any, Literal, get_args

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lcg.checkpoint import describe_network, load_network
from lcg.data.datamodule import LatentDataModule
from lcg.modules.bands import BANDS, band_name, band_times
from lcg.modules.draws import StepDraws
from lcg.modules.optimizer import adamw
from lcg.modules.ranks import mean_over_ranks
from lcg.nets.denoiser import LatentDenoiser, Layers, Prediction, ScheduleName

Loss = Literal["squared", "absolute"]


class PriorModule(LightningModule):
    """Trains a `LatentDenoiser` on the latents of a `LatentDataModule`, whose latent shape it takes.

    Args:
        width: hidden width of the denoiser.
        depth: residual blocks, or layers of `concat`.
        prediction: what the network predicts, `v` or `eps`.
        schedule: `cosine`, `linear` or `constant`.
        dropout: in training.
        time_features: dimension of the time's embedding.
        time_spread: standard deviation s of logit(t) in training; None for t ~ U(0, 1). Small values spend the steps at
            middle noise, where attributes are decided, at the cost of the finest details.
        mixup: share of the latents in [0, 1] that are trained on as interpolations with others.
        start_from: checkpoint of a prior to start from, of the same size and store; None for random weights.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        warmup: steps of linear warm-up; then a half cosine to zero over the planned steps.
        compile: train on what `torch.compile` makes of the network, half a minute later; validation does not use it.
        layers: `residual`, or `concat`, the network of Diffusion Autoencoders' latent prior.
        loss: what is averaged, `squared` errors or `absolute` ones.
        decay: whether the rate falls after the warm-up; else it stays.
    """

    def __init__(
        self,
        width: int = 512,
        depth: int = 3,
        prediction: Prediction = "v",
        schedule: ScheduleName = "cosine",
        dropout: float = 0.0,
        time_features: int = 64,
        time_spread: float | None = 0.8,
        mixup: float = 0.0,
        start_from: str | None = None,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        warmup: int = 200,
        compile: bool = False,
        layers: Layers = "residual",
        loss: Loss = "squared",
        decay: bool = True,
    ) -> None:
        super().__init__()
        if loss not in get_args(Loss):
            raise ValueError(f"`loss` must be one of {', '.join(get_args(Loss))}, got {loss!r}")
        if time_spread is not None and not time_spread > 0:
            raise ValueError(f"`time_spread` must be positive or None, got {time_spread}; 1 is broad, None is uniform")
        if not 0 <= mixup <= 1:
            raise ValueError(f"`mixup` must be in [0, 1], got {mixup}; 0.4 extrapolates, 0 is for ordinary samples")
        self.save_hyperparameters()
        self.mixup, self.start_from = mixup, start_from
        self.width, self.depth, self.dropout, self.time_features = width, depth, dropout, time_features
        self.prediction, self.schedule, self.time_spread = prediction, schedule, time_spread
        self.lr, self.weight_decay, self.warmup, self.compiled = lr, weight_decay, warmup, compile
        self.layers, self.loss, self.decay = layers, loss, decay
        self.draws = StepDraws()
        self.denoiser: LatentDenoiser

    def configure_model(self) -> None:
        """Builds the denoiser for the latents at hand; called by the Trainer, does nothing the second time."""
        if hasattr(self, "denoiser"):
            return
        data = LatentDataModule.of(self.trainer)
        shape = data.latent_shape
        self.denoiser = LatentDenoiser(
            shape,
            self.width,
            self.depth,
            self.prediction,
            self.schedule,
            self.dropout,
            self.time_features,
            self.layers,
        )
        if self.start_from is not None:
            other = load_network(self.start_from, "denoiser")
            same = other.network.config == self.denoiser.config and other.store == data.store.fingerprint
            if not same or other.distilled:
                raise ValueError(
                    f"`start_from` must be an undistilled prior of the same network and store, got {self.start_from}; "
                    f"set the options of the model to {other.network.config}"
                )
            self.denoiser.load_state_dict(other.network.state_dict())
        if self.compiled:
            self.denoiser.net.compile()

    def configure_callbacks(self) -> list[Callback]:
        return [self.draws]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        z_0, draws = batch["z_0"], self.draws
        if self.mixup:
            z_0 = interpolate(z_0, draws.share(len(z_0), partial(mixing, share=self.mixup)))
        t, eps = draws.times(len(z_0), self.time_spread), draws.randn_like(z_0)
        loss = self._loss(z_0, t, eps)
        self.log("train/loss", mean_over_ranks(loss), prog_bar=True)
        return loss

    @torch.compiler.set_stance("force_eager")
    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        z_0 = batch["z_0"]
        generator = torch.Generator().manual_seed(batch_idx)  # the same noise at every validation
        losses = []
        for band in range(BANDS):
            eps = torch.randn(z_0.shape, generator=generator).to(z_0)
            losses.append(self._loss(z_0, band_times(band, len(z_0), z_0.device), eps))
            self.log(f"val/loss/{band_name(band)}", losses[-1], batch_size=len(z_0), sync_dist=True)
        self.log("val/loss", torch.stack(losses).mean(), batch_size=len(z_0), sync_dist=True, prog_bar=True)

    test_step = validation_step

    def _loss(self, z_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        error = self.denoiser.error(z_0, t, eps)
        return (error.square() if self.loss == "squared" else error.abs()).flatten(1).mean(dim=1).mean()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total = self.trainer.estimated_stepping_batches if self.decay else math.inf
        clipped = bool(self.trainer.gradient_clip_val)
        return adamw(self.parameters(), self.lr, self.weight_decay, self.warmup, total, fused=not clipped)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        describe_network(checkpoint, "denoiser", self.denoiser.config, LatentDataModule.of(self.trainer))


def mixing(count: int, share: float, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """u (count,): of the first `share` of the rows u ~ U(1/2, 1), of the others 1."""
    u = torch.ones(count, device=device)
    u[: round(share * count)].uniform_(0.5, 1, generator=generator)
    return u


def interpolate(z_0: Tensor, u: Tensor) -> Tensor:
    """u z_a + (1 - u) z_b for every row a of z_0 (B, *latent), u (B,), and the row b that stands B / 2 rows from it.

    B / 2, because W ranks with even batches find the same partners among their own rows as one process does among all.
    """
    return torch.lerp(z_0.roll(-(len(z_0) // 2), 0), z_0, u.to(z_0).view(-1, *(1,) * (z_0.ndim - 1)))
