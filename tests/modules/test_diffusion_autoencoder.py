"""The training of a diffusion autoencoder: its loss against closed forms, a moment of it, and what is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import EMAWeightAveraging

from lcg.data.imagemodule import ImageDataModule
from lcg.data.source import ImageSource
from lcg.generators.diffusion_autoencoder import DiffusionAutoencoder, SavedDiffusionAutoencoder
from lcg.modules.diffusion_autoencoder import DiffusionAutoencoderModule
from lcg.modules.export import ExportWeights
from lcg.schema import Attribute, Schema
from tests.generators.small_diffusion_autoencoder import SMALL


class Squares(ImageSource):
    """A bright square in one of four corners on a dark ground."""

    schema, image_shape = Schema((Attribute("left"), Attribute("top"))), (3, 16, 16)

    def __len__(self) -> int:
        return 64

    def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = np.full((stop - start, 16, 16, 3), 40, np.uint8), []
        for image, number in zip(images, range(start, stop), strict=True):
            left, top = number % 2, number // 2 % 2
            image[8 - 8 * top : 16 - 8 * top, 8 - 8 * left : 16 - 8 * left] = 200 + number % 7
            labels.append((left, top))
        return images, np.asarray(labels, np.float32)

    def identity(self) -> dict[str, Any]:
        return {"class": "Squares"}


class Zero(DiffusionAutoencoder):
    """Predicts nothing."""

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return super().predict(x_t, t, z) * 0


def fit(module: DiffusionAutoencoderModule, out: Path, steps: int, *callbacks: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=max(1, steps // 2),  # two batches are an epoch: once, at the end
        default_root_dir=out,
        callbacks=list(callbacks),
    )
    trainer.fit(module, datamodule=ImageDataModule(Squares(), Squares(), 32))
    return trainer


@pytest.mark.parametrize(("prediction", "chain"), [("eps", "linear"), ("v", "cosine")])
def test_the_loss_of_no_prediction_is_the_square_of_the_target(tmp_path: Path, prediction: Any, chain: Any) -> None:
    """E eps^2 = 1; E v^2 = alpha^2 + sigma^2 E x^2, where E sigma^2 = 1/2 + 2/pi^2 under the density 2 t."""
    seed_everything(0)
    module = DiffusionAutoencoderModule(Zero(SMALL, prediction=prediction, chain=chain, spread=1.0), lr=1e-12)
    trainer = fit(module, tmp_path, 1)
    x = ImageDataModule(Squares(), Squares(), 32)
    x.setup()
    noisy, square = 0.5 + 2 / np.pi**2, float(x.images(64).square().mean())
    expected = 1.0 if prediction == "eps" else 1 - noisy + noisy * square
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(expected, rel=0.03)


def test_it_learns_and_its_export_reconstructs(tmp_path: Path) -> None:
    seed_everything(0)
    path = tmp_path / "small.safetensors"
    module = DiffusionAutoencoderModule(DiffusionAutoencoder(SMALL, steps=4, latent_noise=0.1), lr=5e-3, warmup=10)
    trainer = fit(module, tmp_path, 80, EMAWeightAveraging(decay=0.9), ExportWeights(str(path)))
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert figures["val/psnr_with_code"] > figures["val/psnr"] > 15  # the mean image has 11
    saved = SavedDiffusionAutoencoder(path)
    assert saved.provenance["steps"] == 80 and saved.provenance["figures"]["val/psnr"] == figures["val/psnr"]
    averaged = module.autoencoder.eval()
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(saved.decode(z), averaged.decode(z), rtol=0, atol=0.05)  # stored in float16
