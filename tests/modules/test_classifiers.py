"""`ClassifierModule` through the Trainer: it learns every kind of attribute, is calibrated when its fit ends, and
reports calibration by noise.
"""

import csv
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint

from lcg.checkpoint import load_network
from lcg.data.datamodule import LatentDataModule
from lcg.modules.bands import BANDS, band_name
from lcg.modules.classifiers import ClassifierModule

SMALL: dict[str, Any] = {"width": 48, "depth": 2, "warmup": 5, "lr": 5e-3, "dropout": 0.0}


def make_trainer(out: Path, steps: int = 120, **options: Any) -> Trainer:
    saved = ModelCheckpoint(out, "classifier", enable_version_counter=False, save_on_train_epoch_end=True)
    usual: dict[str, Any] = {
        "accelerator": "cpu",
        "max_steps": steps,
        "max_epochs": -1,
        "check_val_every_n_epoch": 10,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": out,
        "callbacks": [saved, EMAWeightAveraging(decay=0.9)],
    }
    return Trainer(**{**usual, **options})


def fit(out: Path, data: LatentDataModule, steps: int = 120, **options: Any) -> Trainer:
    seed_everything(0)
    trainer = make_trainer(out, steps)
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


@pytest.mark.parametrize("components", [1, 3])
def test_a_fit_ends_with_a_temperature_in_its_checkpoint(tmp_path: Path, tiny_store, components: int) -> None:
    data = LatentDataModule(tiny_store(n=800), batch_size=256, val_fraction=0.2)
    trainer = fit(tmp_path, data, steps=40, components=components)
    torch.load(tmp_path / "classifier.ckpt", weights_only=True)
    loaded = load_network(tmp_path / "classifier.ckpt", "classifier")
    levels, record = loaded.network.log_temperature, loaded.calibration
    assert levels.abs().max() > 0.01 and torch.allclose(levels.exp(), torch.tensor(record["temperature"]))
    assert record["dependence"] in (("independent",) if components == 1 else ("joint", "independent"))

    # Validation of the checkpoint is at that temperature, and for the better.
    cold = trainer.callback_metrics["val/loss"]
    (figures,) = make_trainer(tmp_path).validate(
        ClassifierModule(**SMALL, components=components), data, str(tmp_path / "classifier.ckpt"), verbose=False
    )
    assert figures["val/loss"] < cold


def test_a_fit_of_separate_trunks_is_calibrated_and_loads_again(tmp_path: Path, tiny_store) -> None:
    data = LatentDataModule(tiny_store(n=1000), batch_size=256, val_fraction=0.2)
    metrics = fit(tmp_path, data, trunk="separate").callback_metrics
    assert metrics["val/accuracy/hat/t0.0-0.2"] > 0.97 and metrics["val/accuracy/hair/t0.0-0.2"] > 0.8

    loaded = load_network(tmp_path / "classifier.ckpt", "classifier")
    network = loaded.network
    assert loaded.config["trunk"] == "separate" and len(network.nets) == len(data.schema)
    assert network.log_temperature.abs().max() > 0.01 and loaded.calibration["dependence"] == "independent"
    (figures,) = make_trainer(tmp_path).validate(
        ClassifierModule(**SMALL, trunk="separate"), data, str(tmp_path / "classifier.ckpt"), verbose=False
    )
    assert figures["val/loss"] < metrics["val/loss"]  # at its temperature

    data.setup()
    batch, times = data.gather(data.val_rows), torch.tensor([0.02])
    with torch.no_grad():
        outputs = network.restricted(["hat", "age"]).prepare(times)[0](batch["z_0"])
    assert ((outputs["hat"] > 0) == (batch["labels"][:, 0] > 0.5)).float().mean() > 0.97
    assert (outputs["age"][:, 0] - batch["labels"][:, 2]).square().mean() < 0.3


def test_a_fit_that_goes_on_does_so_at_temperature_one_and_is_calibrated_anew(tmp_path: Path, tiny_store) -> None:
    data, path = LatentDataModule(tiny_store(n=1000), batch_size=256, val_fraction=0.2), tmp_path / "classifier.ckpt"
    fit(tmp_path, data, steps=40)
    first = load_network(path, "classifier").network.log_temperature.clone()

    class Watch(Callback):
        seen: ClassVar[list[float]] = []

        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            self.seen.append(float(pl_module.classifier.log_temperature.abs().max()))

        def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            self.seen.append(float(pl_module.classifier.log_temperature.abs().max()))  # of the averaged weights

    trainer = make_trainer(tmp_path, 80, check_val_every_n_epoch=2)
    trainer.callbacks.append(Watch())
    trainer.fit(ClassifierModule(**SMALL), data, ckpt_path=str(path), weights_only=True)
    assert len(Watch.seen) > 40 and max(Watch.seen) == 0
    again = load_network(path, "classifier").network.log_temperature
    assert first.abs().max() > 0.01 and again.abs().max() > 0.01 and not torch.equal(first, again)

    # A fit that has nothing left to do leaves a calibrated checkpoint, too.
    make_trainer(tmp_path, 80).fit(ClassifierModule(**SMALL), data, ckpt_path=str(path), weights_only=True)
    assert torch.equal(load_network(path, "classifier").network.log_temperature, again)


@pytest.mark.parametrize(
    "options", [{"fast_dev_run": 2}, {"enable_checkpointing": False, "callbacks": []}], ids=["dev", "no checkpoints"]
)
def test_a_fit_without_checkpoints_has_nothing_to_calibrate(tmp_path: Path, tiny_store, options: Any) -> None:
    data = LatentDataModule(tiny_store(), batch_size=128)
    make_trainer(tmp_path, 4, **options).fit(ClassifierModule(**SMALL), data)
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_fit_without_validation_samples_keeps_temperature_one(tmp_path: Path, tiny_store, caplog) -> None:
    data = LatentDataModule(tiny_store(), batch_size=128, val_fraction=0.0)
    with caplog.at_level("INFO", "pytorch_lightning"):
        fit(tmp_path, data, steps=4)
    loaded = load_network(tmp_path / "classifier.ckpt", "classifier")
    assert loaded.network.log_temperature.abs().max() == 0 and loaded.calibration == {}
    assert "no validation samples: the classifier's temperature stays 1" in caplog.text


def test_validate_reports_calibration_in_words_table_and_picture(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["lcg"])
    save = ("--ckpt_path", demo.classifier, "--trainer.default_root_dir", str(tmp_path))
    assert demo.train("validate", "classifier", *save) == 0
    folder = tmp_path / "log"  # the logger's
    network = load_network(demo.classifier, "classifier").network
    rows = list(csv.DictReader((folder / "calibration.csv").open()))
    assert len(rows) == len(network.schema) * BANDS
    assert {row["attribute"] for row in rows} == set(network.schema.names)
    assert any(row["nll_before"] != row["nll_after"] for row in rows)
    text = (folder / "calibration.md").read_text()
    levels = ", ".join(f"{T:.2f}" for T in network.log_temperature.exp().tolist())
    assert f"temperature: T = {levels} from t = 0 to 1" in text
    assert (folder / "calibration.png").stat().st_size > 10_000
    shown = capsys.readouterr().out
    assert text.partition("\n![]")[0] in shown and f"{folder}/calibration.csv, calibration.md" in shown
    assert shown.index("val/loss") < shown.index("# Calibration")  # below the Trainer's figures, where it is seen


@pytest.mark.slow
def test_two_ranks_calibrate_and_report_once(demo, tmp_path: Path) -> None:
    """One rank calibrates the checkpoint while the other goes home; either command ends well."""
    devices = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")
    where = (f"--trainer.default_root_dir={tmp_path}",)
    path = tmp_path / "classifier.ckpt"
    saved = '[{"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.9}}, {"class_path": "ModelCheckpoint", '
    saved += f'"init_args": {{"dirpath": "{tmp_path}", "filename": "classifier", "save_on_train_epoch_end": true}}}}]'
    model = ("--model.width=48", "--model.components=3", f"--data.store={demo.store}", "--data.batch_size=128")
    steps = ("--trainer.max_steps=30", "--trainer.enable_progress_bar=false")
    config = ("--config", str(Path(__file__).parents[2] / "configs" / "classifier" / "avatars.yaml"))
    for command, more in (("fit", (f"--trainer.callbacks={saved}",)), ("validate", (f"--ckpt_path={path}",))):
        line = [sys.executable, "-m", "lcg", command, *config, *devices, *where, *model, *steps, *more]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    loaded = load_network(path, "classifier")
    assert loaded.network.log_temperature.abs().max() > 0 and set(loaded.calibration) > {"dependence"}
    assert done.stdout.count("# Calibration") == 1 and (tmp_path / "log" / "calibration.png").is_file()


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


def test_label_noise_is_part_of_the_likelihood_and_of_calibration(tmp_path: Path, tiny_store) -> None:
    """Told that a quarter of the labels may be wrong, a fit trusts none of them more than three to one."""
    data = LatentDataModule(tiny_store(n=600), batch_size=256, val_fraction=0.2)
    trainer = fit(tmp_path, data, steps=40, label_noise={"hat": 0.25})
    assert trainer.callback_metrics["val/loss"].isfinite()
    saved = torch.load(tmp_path / "classifier.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["label_noise"] == {"hat": 0.25} and "label_noise" not in saved["lcg"]["config"]
    record, observed = saved["lcg"]["calibration"], trainer.lightning_module
    # No label is more likely than three in four, so that a nat and more is lost on each of them.
    sure = observed.noise({"hat": torch.tensor([50.0])})["hat"].sigmoid()
    assert sure.item() == pytest.approx(0.75) and min(record["independent"]["after"]) > -math.log(0.75) / 3


def test_label_noise_of_an_unknown_attribute_is_refused_before_training(tmp_path: Path, tiny_store) -> None:
    with pytest.raises(ValueError, match="unknown attribute 'hta'; did you mean 'hat'"):
        fit(tmp_path, LatentDataModule(tiny_store(n=60)), steps=1, label_noise={"hta": 0.1})
