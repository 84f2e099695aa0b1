"""`ClassifierModule` through the Trainer: it learns every kind of attribute and reports calibration by noise."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint

from lcg.checkpoint import load_network
from lcg.data.datamodule import LatentDataModule
from lcg.modules.bands import BANDS, band_name
from lcg.modules.classifiers import ClassifierModule

SMALL: dict[str, Any] = {"width": 48, "depth": 2, "warmup": 5, "lr": 5e-3, "dropout": 0.0}


def fit(out: Path, data: LatentDataModule, steps: int = 120, **options: Any) -> Trainer:
    seed_everything(0)
    saved = ModelCheckpoint(out, "classifier", enable_version_counter=False)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        check_val_every_n_epoch=10,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
        callbacks=[saved, EMAWeightAveraging(decay=0.9)],
    )
    trainer.fit(ClassifierModule(**SMALL, **options), data)
    return trainer


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_fit_learns_every_kind_of_attribute(tmp_path: Path, tiny_store, schedule: str) -> None:
    data = LatentDataModule(tiny_store(n=1000), batch_size=256, val_fraction=0.2)
    metrics = fit(tmp_path, data, schedule=schedule).callback_metrics
    assert metrics["val/accuracy/hat/t0.0-0.2"] > 0.97 and metrics["val/accuracy/hair/t0.0-0.2"] > 0.8
    assert metrics["val/loss/t0.0-0.2"] < metrics["val/loss/t0.8-1.0"]  # noise hides what it hides

    torch.load(tmp_path / "classifier.ckpt", weights_only=True)
    loaded = load_network(tmp_path / "classifier.ckpt", "classifier")
    assert loaded.config["schedule"] == schedule and loaded.network.schema == data.schema
    data.setup()
    batch = data.gather(data.val_rows)
    with torch.no_grad():
        outputs = loaded.network(batch["z_0"], torch.full((len(data.val_rows),), 0.02))
    assert ((outputs["hat"] > 0) == (batch["labels"][:, 0] > 0.5)).float().mean() > 0.97
    mean, log_variance = outputs["age"].unbind(-1)
    error = (mean - batch["labels"][:, 2]).square()
    assert error.mean() < 0.3 and 0.05 < (error / log_variance.exp()).mean() < 5.0  # and it knows how wrong it is


def test_accuracy_and_calibration_are_reported_for_every_band(tmp_path: Path, tiny_store) -> None:
    metrics = fit(tmp_path, LatentDataModule(tiny_store(), batch_size=128), steps=30).callback_metrics
    for band in map(band_name, range(BANDS)):
        assert metrics[f"val/loss/{band}"].isfinite()
        for figure in ("accuracy", "ece"):
            each = torch.stack([metrics[f"val/{figure}/{name}/{band}"] for name in ("hat", "hair")])
            assert ((each >= 0) & (each <= 1)).all()
            assert metrics[f"val/{figure}/{band}"] == pytest.approx(float(each.mean()), abs=1e-6)
        assert f"val/accuracy/age/{band}" not in metrics  # of a continuous attribute there is none


@pytest.mark.parametrize("what", ["prior", "classifier"])
@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_checkpoint_s_figures_can_be_asked_for_by_the_command_line(
    demo, what: str, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["lcg"])
    path = demo.prior if what == "prior" else demo.classifier
    before = Path(path).read_bytes()
    assert demo.train(command, what, "--ckpt_path", path, "--trainer.logger", "false") == 0
    shown = capsys.readouterr().out
    assert "val/loss/t0.0-0.2" in shown and ("ece" in shown) == (what == "classifier")
    assert Path(path).read_bytes() == before
