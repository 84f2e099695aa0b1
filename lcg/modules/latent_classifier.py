"""`lcg fit` of the classifiers of clean latents that competing methods follow, one perceptron per attribute.

    loss = -sum_j mean log p_phi(y_j | z_0),      over the known labels y_j

As in LACE (Nie, Vahdat & Anandkumar 2021, arXiv:2110.10873): Adam at 1e-4 after 1000 steps of linear warm-up.
Attributes share nothing, so that one fit of all is a fit of each by itself, as theirs are: the loss is a sum over
attributes of means over the rows with that label. What differs: they train 50 epochs of batches of 128 on 9,000 pairs
of a 512-d latent and a label, about 3,500 steps, and keep the best; `configs/baseline/lace.yaml` has 5 epochs of 38,000
pairs and a 64-d latent, about 1,500 steps, after which validation has no errors left. A continuous attribute is fitted
by its log-likelihood with a learnt variance, where they have a squared error: the mean is what they use of it.

GradCtrl (Chen et al. 2022) has Adam at 1e-3 without warm-up and one epoch of batches of 32, and so has
`configs/baseline/gradctrl.yaml`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lcg.checkpoint import describe_network
from lcg.data.datamodule import LatentDataModule
from lcg.modules.ranks import mean_over_ranks, weight_of_known
from lcg.nets.heads import log_likelihoods
from lcg.nets.latent_classifier import LatentClassifier


class LatentClassifierModule(LightningModule):
    """Trains a `LatentClassifier` on the latents and labels of a `LatentDataModule`.

    Args:
        hidden: units of the hidden layers, in order; none for linear classifiers.
        slope: of the leaky rectifier below zero.
        lr: learning rate of Adam.
        warmup: steps of linear warm-up; then the rate stays.

    Raises:
        ValueError: warmup is negative.
    """

    def __init__(
        self, hidden: Sequence[int] = (384, 256, 128), slope: float = 0.2, lr: float = 1e-4, warmup: int = 1000
    ) -> None:
        super().__init__()
        if warmup < 0:
            raise ValueError(f"`warmup` must be >= 0, got {warmup}; 0 starts at the full rate")
        hidden = list(hidden)  # a JSON primitive, as hyper-parameters of a checkpoint must be
        self.save_hyperparameters()
        self.hidden, self.slope, self.lr, self.warmup = hidden, slope, lr, warmup
        self.latent_classifier: LatentClassifier

    def configure_model(self) -> None:
        """Builds the classifier for the latents and attributes at hand; called by the Trainer."""
        if hasattr(self, "latent_classifier"):
            return
        data = LatentDataModule.of(self.trainer)
        self.latent_classifier = LatentClassifier(data.latent_shape, data.schema, self.hidden, self.slope)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = (self._losses(batch) * weight_of_known(batch["labels"], dim=0)).sum()
        self.log("train/loss", mean_over_ranks(loss), prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        z_0, labels = batch["z_0"], batch["labels"]
        self.log("val/loss", self._losses(batch).sum(), batch_size=len(z_0), sync_dist=True, prog_bar=True)
        schema = self.latent_classifier.schema
        outputs = self.latent_classifier(z_0)
        for j, attribute in enumerate(schema):
            known, head = ~labels[:, j].isnan(), outputs[attribute.name]
            if attribute.kind == "continuous" or not bool(known.any()):
                continue
            predicted = (head > 0).float() if attribute.kind == "binary" else head.argmax(-1).float()
            correct = (predicted == labels[:, j])[known].float()
            self.log(f"val/accuracy/{attribute.name}", correct.mean(), batch_size=len(correct), sync_dist=True)

    test_step = validation_step

    def _losses(self, batch: dict[str, Tensor]) -> Tensor:
        """-log p(y_j | z_0) of every attribute (A,), each the mean over the rows that have the label."""
        z_0, labels = batch["z_0"], batch["labels"]
        log_p = log_likelihoods(self.latent_classifier.schema, self.latent_classifier(z_0), labels)
        return -log_p.sum(0) / (~labels.isnan()).sum(0).clamp(min=1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (self.warmup + 1)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        describe_network(
            checkpoint, "latent_classifier", self.latent_classifier.config, LatentDataModule.of(self.trainer)
        )
