"""The generator and the judge that ship, trained for a moment: they learn, and what is exported can be loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint

from lcg.data.avatars import SCHEMA, AvatarSource
from lcg.data.imagemodule import ImageDataModule
from lcg.data.source import ImageSource
from lcg.generators.autoencoder import AvatarAutoencoder, PCAAutoencoder
from lcg.metrics.judge import AvatarJudge
from lcg.modules.autoencoder import AutoencoderModule
from lcg.modules.export import ExportWeights
from lcg.modules.judge import JudgeModule
from lcg.schema import Attribute, Schema
from lcg.weights import load_weights


@pytest.fixture(scope="module")
def images() -> ImageDataModule:
    return ImageDataModule(AvatarSource("uniform", 256, "export"), AvatarSource("uniform", 64, "export-val"), 64)


def trainer(out: Path, steps: int, *callbacks: Callback) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=out,
        callbacks=list(callbacks),
    )


class First(Callback):
    """The first and the last training loss."""

    values: tuple[float, ...] = ()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.values = (*self.values, float(trainer.callback_metrics["train/loss"]))


def autoencoder(warmup: int = 5) -> AutoencoderModule:
    return AutoencoderModule(PCAAutoencoder(16, 24, 64, 1, latent_noise=0.1), basis_images=128, warmup=warmup)


def test_the_autoencoder_learns_and_its_export_is_a_generator(tmp_path: Path, images: ImageDataModule) -> None:
    seed_everything(0)
    path, losses = tmp_path / "generator.safetensors", First()
    fit = trainer(tmp_path, 40, losses, ExportWeights(str(path)))
    module = autoencoder()
    fit.fit(module, images)
    assert losses.values[-1] < 0.7 * losses.values[0]
    assert fit.callback_metrics["val/psnr"] > 15

    generator, x = AvatarAutoencoder(str(path)), images.images(8)
    module.eval()
    assert (generator.encode(x) - module.autoencoder.encode(x)).abs().max() < 0.05  # float16 in the file
    z = generator.encode(x)
    assert (generator.decode(z) - module.autoencoder.decode(z)).abs().max() < 0.05
    _, config, provenance = load_weights(path)
    assert config["latent_dim"] == 16 and provenance["steps"] == 40
    assert provenance["train"]["split"] == "export" and provenance["figures"]["val/psnr"] > 15


def test_a_resumed_autoencoder_keeps_its_basis(tmp_path: Path, images: ImageDataModule) -> None:
    saved = ModelCheckpoint(tmp_path, "autoencoder", enable_version_counter=False)
    first = autoencoder()
    trainer(tmp_path, 4, saved).fit(first, images)
    again = autoencoder()
    trainer(tmp_path, 6).fit(again, images, ckpt_path=str(tmp_path / "autoencoder.ckpt"), weights_only=True)
    assert again.autoencoder.basis.any() and torch.equal(again.autoencoder.basis, first.autoencoder.basis)


def test_the_judge_learns_and_its_export_judges(tmp_path: Path, images: ImageDataModule) -> None:
    seed_everything(0)
    path, losses = tmp_path / "judge.safetensors", First()
    fit = trainer(tmp_path, 24, losses, ExportWeights(str(path)))
    module = JudgeModule(width=8, features=12, warmup=4, lr=1e-2)
    fit.fit(module, images)
    assert losses.values[-1] < 0.9 * losses.values[0]
    assert {"val/accuracy_all", *(f"val/accuracy/{name}" for name in SCHEMA.names)} <= set(fit.callback_metrics)

    judge, x = AvatarJudge(str(path)), images.images(8)
    seen = judge.judge(x)
    assert seen.labels.shape == seen.probabilities.shape == (8, len(SCHEMA)) and seen.features.shape == (8, 12)
    module.eval()
    assert (seen.features - module.judge.features(x)).abs().max() < 0.05


def test_a_judge_of_any_attributes_is_validated_where_labels_are_known(tmp_path: Path) -> None:
    class Grey(ImageSource):
        """Image i is grey i; bright is known of the even ones, grey of all, and shade of none."""

        schema = Schema((Attribute("bright"), Attribute("grey", "continuous"), Attribute("shade")))
        image_shape = (3, 16, 16)

        def __len__(self) -> int:
            return 40

        def chunk(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            i = np.arange(start, stop)
            images = np.broadcast_to((6 * i)[:, None, None, None], (len(i), 16, 16, 3)).astype(np.uint8)
            labels = np.stack((np.where(i % 2, np.nan, i >= 20), i / 40, np.full(len(i), np.nan)), axis=1)
            return images, labels.astype(np.float32)

        def identity(self) -> dict[str, Any]:
            return {"class": "Grey"}

    seed_everything(0)
    data, module = ImageDataModule(Grey(), Grey(), 40), JudgeModule(width=4, features=6, warmup=2, lr=1e-2, noise=0.0)
    fit = trainer(tmp_path, 40)
    fit.fit(module, data)
    figures = {name: float(value) for name, value in fit.callback_metrics.items() if name.startswith("val/")}
    assert figures.keys() == {"val/accuracy/bright", "val/error/grey", "val/accuracy_all"}
    module.eval()
    labels = torch.from_numpy(Grey().chunk(0, 40)[1])
    seen = module.judge.judge(data.images(40)).labels
    right = float((seen[::2, 0] == labels[::2, 0]).float().mean())
    assert figures["val/accuracy/bright"] == pytest.approx(right) and right > 0.6
    assert figures["val/accuracy_all"] == pytest.approx((1 + right) / 2)  # nobody knows better of the odd ones
    assert figures["val/error/grey"] == pytest.approx(float((seen - labels)[:, 1].abs().mean()), rel=1e-3)


def test_nothing_is_exported_by_a_fit_that_fails(tmp_path: Path, images: ImageDataModule) -> None:
    class Fails(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise OSError("the disk is full")

    path = tmp_path / "generator.safetensors"
    with pytest.raises(OSError, match="the disk is full"):
        trainer(tmp_path, 4, Fails(), ExportWeights(str(path))).fit(autoencoder(), images)
    assert not path.exists()
