"""`ContinuousFlowModule` through the Trainer: likelihood rises, and what is saved is a flow that knows its labels."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint

from lcg.checkpoint import load_network
from lcg.data.datamodule import LatentDataModule
from lcg.modules.continuous_flow import ContinuousFlowModule, hidden

SMALL: dict[str, Any] = {"hidden": [16], "tolerance": 1e-3, "steps": 2, "lr": 2e-2}


class Losses(Callback):
    """The training losses of all steps."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.values.append(float(trainer.callback_metrics["train/loss"]))


def trainer(out: Path, steps: int, *callbacks: Callback) -> Trainer:
    saved = ModelCheckpoint(out, "styleflow", enable_version_counter=False, save_on_train_epoch_end=True)
    return Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
        check_val_every_n_epoch=15,  # the adaptive solver takes longer than a few steps of training
        callbacks=[saved, *callbacks],
    )


def test_a_fit_raises_the_likelihood_and_leaves_a_flow_that_knows_its_labels(tmp_path: Path, tiny_store) -> None:
    """The store's first coordinate is the hat's sign, +1 or -1, and the fourth is its opposite."""
    seed_everything(0)
    losses, data = Losses(), LatentDataModule(tiny_store(), batch_size=128)
    fit = trainer(tmp_path, 45, losses)
    fit.fit(ContinuousFlowModule(**SMALL), data)
    first, last = (torch.tensor(part).mean() for part in (losses.values[:5], losses.values[-10:]))
    assert last < first - 3  # of 4 log(sqrt(2 pi e)) = 5.7 nats at the start
    assert abs(float(fit.callback_metrics["val/loss"]) - last) < 3  # of another solver, for weights a moment before

    torch.load(tmp_path / "styleflow.ckpt", weights_only=True)
    loaded = load_network(tmp_path / "styleflow.ckpt", "continuous_flow")
    flow, labels = loaded.network, data.store.labels()
    assert flow.config["hidden"] == [16] and loaded.store == data.store.fingerprint
    assert torch.equal(loaded.statistics.mean, data.statistics.mean)
    torch.testing.assert_close(flow.label_mean[2], labels[:, 2].mean())
    torch.testing.assert_close(flow.label_std[2], labels[:, 2].std(correction=0))

    z_0, other = data.statistics.standardise(data.store.latents()), labels.clone()
    other[:, 0] = 1 - labels[:, 0]
    with torch.no_grad():
        right, wrong = (flow.log_prob(z_0, flow.encode(y)).mean() for y in (labels, other))
        edited = flow.to_latent(flow.to_noise(z_0, flow.encode(labels)), flow.encode(other))
    assert right > wrong + 5
    assert ((edited[:, 0] > 0) == (other[:, 0] > 0.5)).float().mean() > 0.95
    assert ((edited[:, 3] < 0) == (other[:, 0] > 0.5)).float().mean() > 0.95
    assert (edited - z_0)[:, 1:3].abs().mean() < 0.4  # against 2 for the coordinates of the hat
    assert (edited - z_0)[:, 0].abs().mean() > 1.5


def test_the_adaptive_solver_trains_too(tmp_path: Path, tiny_store) -> None:
    seed_everything(0)
    losses, data = Losses(), LatentDataModule(tiny_store(n=200), batch_size=64)
    module = ContinuousFlowModule(hidden=[8], tolerance=1e-3, lr=3e-2)
    trainer(tmp_path, 9, losses).fit(module, data)
    assert losses.values[-1] < losses.values[0] - 0.3


def test_latents_of_any_shape(tmp_path: Path, tiny_store) -> None:
    trainer(tmp_path, 2).fit(ContinuousFlowModule(**SMALL), LatentDataModule(tiny_store(shape=(2, 3))))
    assert load_network(tmp_path / "styleflow.ckpt", "continuous_flow").network.latent_shape == (2, 3)


def test_validation_is_the_same_every_time(tmp_path: Path, tiny_store) -> None:
    data = LatentDataModule(tiny_store(), batch_size=128)
    trainer(tmp_path, 2).fit(ContinuousFlowModule(**SMALL), data)
    path = str(tmp_path / "styleflow.ckpt")
    once, again = (
        trainer(tmp_path, 1).validate(ContinuousFlowModule(**SMALL), data, path, verbose=False) for _ in range(2)
    )
    assert once == again


def test_labels_are_hidden_each_by_itself() -> None:
    torch.manual_seed(0)
    labels = torch.ones(4000, 3)
    labels[:, 2] = torch.nan
    missing = hidden(labels, 0.25, torch.rand_like(labels)).isnan()
    assert bool(missing[:, 2].all()) and (missing[:, :2].float().mean(0) - 0.25).abs().max() < 0.03
    assert abs(float((missing[:, 0] & missing[:, 1]).float().mean()) - 0.25**2) < 0.02


def test_the_authors_options_are_the_defaults() -> None:
    module = ContinuousFlowModule()
    assert (module.hidden, module.tolerance, module.steps, module.lr) == ([512] * 5, 1e-5, None, 1e-3)
    assert module.hide == 0


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`hide` must be in \[0, 1\), got 1.0; 0.1 teaches the flow what unknown"):
        ContinuousFlowModule(hide=1.0)
    with pytest.raises(ValueError, match="`steps` must be at least 1, got 0; None is the adaptive solver"):
        ContinuousFlowModule(steps=0)
