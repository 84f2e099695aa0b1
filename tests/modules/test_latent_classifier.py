"""`LatentClassifierModule` through the Trainer: it learns, at the rate it says, and leaves a network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint

from lcg.checkpoint import load_network
from lcg.data.datamodule import LatentDataModule
from lcg.modules.latent_classifier import LatentClassifierModule
from lcg.nets.heads import log_likelihoods
from lcg.nets.latent_classifier import LatentClassifier


class Rates(Callback):
    """The learning rates of all steps."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.values.append(trainer.optimizers[0].param_groups[0]["lr"])


def fit(out: Path, data: LatentDataModule, steps: int, *callbacks: Callback, **options: Any) -> Trainer:
    seed_everything(0)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
        callbacks=[ModelCheckpoint(out, "lace", enable_version_counter=False), *callbacks],
    )
    trainer.fit(LatentClassifierModule(**options), data)
    return trainer


def test_a_fit_learns_every_attribute_and_leaves_a_network(tmp_path: Path, tiny_store) -> None:
    data = LatentDataModule(tiny_store(n=1000), batch_size=128, val_fraction=0.2)
    trainer = fit(tmp_path, data, 80, hidden=(32,), lr=1e-2, warmup=5)
    metrics = trainer.callback_metrics
    assert metrics["val/accuracy/hat"] > 0.97 and metrics["val/accuracy/hair"] > 0.85
    assert "val/accuracy/age" not in metrics  # of a continuous attribute there is none

    torch.load(tmp_path / "lace.ckpt", weights_only=True)
    loaded = load_network(tmp_path / "lace.ckpt", "latent_classifier")
    assert isinstance(loaded.network, LatentClassifier) and loaded.config["hidden"] == [32]
    assert loaded.store == data.store.fingerprint and loaded.network.schema == data.schema

    # Validation of what was saved is -log p per known label, a mean per attribute, summed.
    module = LatentClassifierModule(hidden=(32,))
    (figures,) = trainer.validate(module, data, str(tmp_path / "lace.ckpt"), weights_only=True, verbose=False)
    batches = list(data.test_dataloader())
    losses = []
    for batch in batches:
        log_p = log_likelihoods(data.schema, loaded.network(batch["z_0"]), batch["labels"])
        losses.append(-(log_p.sum(0) / (~batch["labels"].isnan()).sum(0)).sum() * len(log_p))
    assert float(sum(losses)) / len(data.val_rows) == pytest.approx(figures["val/loss"], abs=1e-5)
    batch = batches[0]
    outputs = loaded.network(batch["z_0"])
    assert (outputs["age"][:, 0] - batch["labels"][:, 2]).square().mean() < 0.2  # of a variance of 1


def test_the_rate_rises_and_stays(tmp_path: Path, tiny_store) -> None:
    rates = Rates()
    fit(tmp_path, LatentDataModule(tiny_store(), batch_size=64), 8, rates, hidden=(4,), lr=1e-4, warmup=4)
    expected = [min(1.0, (step + 1) / 5) * 1e-4 for step in range(8)]
    assert rates.values == pytest.approx(expected)


def test_validation_without_labels_of_an_attribute_is_silent_about_it(tmp_path: Path, tiny_store) -> None:
    data = LatentDataModule(tiny_store(), batch_size=64)
    data.setup()
    data._memory["labels"][:, 0] = torch.nan
    metrics = fit(tmp_path, data, 8, hidden=(), warmup=0).callback_metrics
    assert "val/accuracy/hat" not in metrics and metrics["val/loss"].isfinite()


def test_a_negative_warm_up_is_refused() -> None:
    with pytest.raises(ValueError, match="`warmup` must be >= 0, got -1; 0 starts at the full rate"):
        LatentClassifierModule(warmup=-1)
