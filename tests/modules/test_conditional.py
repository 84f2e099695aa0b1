"""`ConditionalPriorModule` through the Trainer: it learns what labels say, and leaves a network that knows them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint

from lcg.checkpoint import load_network
from lcg.data.datamodule import LatentDataModule
from lcg.modules.bands import BANDS, band_name
from lcg.modules.conditional import ConditionalPriorModule

SMALL: dict[str, Any] = {"width": 48, "depth": 2, "warmup": 5, "lr": 1e-2, "features": 4}


class Losses(Callback):
    """The training losses of all steps."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.values.append(float(trainer.callback_metrics["train/loss"]))


def trainer(out: Path, steps: int, *callbacks: Callback) -> Trainer:
    saved = ModelCheckpoint(out, "conditional", enable_version_counter=False)
    return Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
        callbacks=[saved, *callbacks],
    )


@pytest.mark.parametrize("prediction", ["v", "eps"])
def test_a_fit_learns_labels_and_leaves_a_network(tmp_path: Path, tiny_store, prediction: str) -> None:
    seed_everything(0)
    losses, data = Losses(), LatentDataModule(tiny_store(), batch_size=32)
    fit = trainer(tmp_path, 70, losses, EMAWeightAveraging(decay=0.9))
    fit.fit(ConditionalPriorModule(prediction=prediction, **SMALL), data)
    first, last = (torch.tensor(part).mean() for part in (losses.values[:5], losses.values[-20:]))
    assert last < 0.95 * first
    metrics = fit.callback_metrics
    assert all(metrics[f"val/loss/{band_name(band)}"].isfinite() for band in range(BANDS))
    assert metrics["val/loss"] < 0.95 * metrics["val/loss/unconditional"]  # labels tell something

    torch.load(tmp_path / "conditional.ckpt", weights_only=True)
    loaded = load_network(tmp_path / "conditional.ckpt", "conditional_denoiser")
    assert (loaded.network.prediction, loaded.network.schema) == (prediction, data.schema)
    assert loaded.store == data.store.fingerprint
    age = data.store.labels()[:, 2]
    torch.testing.assert_close(loaded.network.embedding.center[2], age.mean())
    torch.testing.assert_close(loaded.network.embedding.scale[2], age.std())

    # Latents with and without a hat lie at +-1 on the first axis: near pure noise, a label tells which.
    z_t, t = torch.zeros(1, 4), torch.tensor([0.9])
    hat, none = (torch.tensor([[y, torch.nan, torch.nan]]) for y in (1.0, 0.0))
    z_0_hat = [float(-loaded.network(z_t, t, y)[0, 0]) for y in (hat, none)]
    assert z_0_hat[0] > 0 > z_0_hat[1]


def test_latents_of_any_shape_and_uniform_times(tmp_path: Path, tiny_store) -> None:
    module = ConditionalPriorModule(time_spread=None, **SMALL)
    trainer(tmp_path, 2).fit(module, LatentDataModule(tiny_store(shape=(2, 3))))
    assert load_network(tmp_path / "conditional.ckpt", "conditional_denoiser").network.latent_shape == (2, 3)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="`time_spread` must be positive or None, got 0"):
        ConditionalPriorModule(time_spread=0.0)
    with pytest.raises(ValueError, match=r"`unconditional` and `single` must be shares >= 0.*got 0\.8 and 0\.3"):
        ConditionalPriorModule(unconditional=0.8)
