"""`lcg fit` of StyleFlow's conditional continuous normalising flow, by maximum likelihood.

    loss = -E log p(z_0 | a),      the divergence estimated with one random direction per latent

(Abdal et al. 2021, arXiv:2008.02401; see `lcg.nets.continuous_flow` for the flow). As the authors train: Adam with rate
1e-3, an adaptive solver of tolerance 1e-5, five hidden layers of 512 units for 512-d latents, three epochs of 10,000
latents in batches of five.

Where we differ. After `warmup` steps the rate falls along a half cosine to zero over the planned steps, where theirs is
constant: it is what a short training gains most from. Labels can be hidden at random, so that "unknown", which their
data do not have, means something to the flow. `configs/baseline/styleflow.yaml` trains a smaller flow than theirs for a
smaller latent, two hidden layers of 256 units for 64 numbers, in 1,200 batches of 256, at twice their rate, and with a
fixed number of Runge-Kutta steps instead of a tolerance: a minute and a half of one processor. Validation always uses
the adaptive solver, so that a training whose steps are too long shows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lcg.checkpoint import describe_network
from lcg.data.datamodule import LatentDataModule
from lcg.modules.draws import StepDraws
from lcg.modules.optimizer import adamw
from lcg.modules.ranks import mean_over_ranks
from lcg.nets.continuous_flow import ContinuousFlow


class ContinuousFlowModule(LightningModule):
    """Trains a `ContinuousFlow` on the latents and labels of a `LatentDataModule`.

    Args:
        hidden: widths of the flow's hidden layers.
        tolerance: of its adaptive solver.
        steps: Runge-Kutta steps of order 4 in training; None for the adaptive solver.
        hide: share of the labels in [0, 1) that training hides, each by itself.
        lr: peak learning rate of Adam.
        warmup: steps of linear warm-up; then a half cosine to zero over the planned steps.

    Raises:
        ValueError: `hide` is out of range, or steps < 1.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (512, 512, 512, 512, 512),
        tolerance: float = 1e-5,
        steps: int | None = None,
        hide: float = 0.0,
        lr: float = 1e-3,
        warmup: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= hide < 1:
            raise ValueError(f"`hide` must be in [0, 1), got {hide}; 0.1 teaches the flow what unknown means")
        if steps is not None and steps < 1:
            raise ValueError(f"`steps` must be at least 1, got {steps}; None is the adaptive solver")
        hidden = list(hidden)
        self.save_hyperparameters()
        self.hidden, self.tolerance, self.steps, self.hide = hidden, tolerance, steps, hide
        self.lr, self.warmup = lr, warmup
        self.draws = StepDraws()
        self.continuous_flow: ContinuousFlow

    def configure_model(self) -> None:
        """Builds the flow for the latents and attributes at hand; called by the Trainer."""
        if hasattr(self, "continuous_flow"):
            return
        data = LatentDataModule.of(self.trainer)
        self.continuous_flow = ContinuousFlow(data.latent_shape, data.schema, self.hidden, self.tolerance)
        self.continuous_flow.standardise_labels(data.labels())

    def configure_callbacks(self) -> list[Callback]:
        return [self.draws]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        labels = batch["labels"]
        if self.hide:
            labels = hidden(labels, self.hide, self.draws.rand_like(labels))
        attributes = self.continuous_flow.encode(labels)
        loss = -self.continuous_flow.log_prob(batch["z_0"], attributes, probes=1, steps=self.steps).mean()
        self.log("train/loss", mean_over_ranks(loss), prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        z_0, attributes = batch["z_0"], self.continuous_flow.encode(batch["labels"])
        generator = torch.Generator().manual_seed(batch_idx)  # the same directions at every validation
        loss = -self.continuous_flow.log_prob(z_0, attributes, probes=1, generator=generator).mean()
        self.log("val/loss", loss, batch_size=len(z_0), sync_dist=True, prog_bar=True)

    test_step = validation_step

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), self.lr, 0.0, self.warmup, total)  # without weight decay it is Adam

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        data = LatentDataModule.of(self.trainer)
        describe_network(checkpoint, "continuous_flow", self.continuous_flow.config, data)


def hidden(labels: Tensor, share: float, u: Tensor) -> Tensor:
    """Labels (B, A) of which each is missing where u ~ U(0, 1) is below `share`, as well as those that were."""
    return labels.where(u >= share, torch.nan)
