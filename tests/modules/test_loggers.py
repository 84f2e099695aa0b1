"""What a fit leaves behind for CSV readers, TensorBoard and W&B, all of it in `default_root_dir`."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lcg import cli

ROOT = Path(__file__).parents[2]
FOLDERS = ("prior", "classifier", "generator", "judge", "baseline")
CONFIGS = sorted(path for folder in FOLDERS for path in ROOT.glob(f"configs/{folder}/*.yaml"))
FITS = [path for path in CONFIGS if "trainer" in yaml.safe_load(path.read_text())]
WANDB = str(ROOT / "configs" / "trainer" / "wandb.yaml")


@pytest.fixture
def fit(tmp_path: Path, tiny_store: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`lcg fit` of a small prior for a moment, in a folder of its own; gives its `default_root_dir`."""
    monkeypatch.setattr("sys.argv", ["lcg"])
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))

    def fit(*more: str) -> Path:
        out, store = tmp_path / "mine", tiny_store()
        words = ["--config", str(ROOT / "configs" / "prior" / "avatars.yaml"), *more]
        words += ["--data.store", store, "--model.width=16", "--model.depth=1", "--model.warmup=2"]
        words += ["--trainer.max_steps=6", "--trainer.check_val_every_n_epoch=1", "--trainer.log_every_n_steps=1"]
        words += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
        words += [f"--trainer.default_root_dir={out}", f"--trainer.callbacks.init_args.dirpath={out}"]
        assert cli.main(["fit", *words]) == 0
        return out

    return fit


def csv_steps(out: Path) -> list[int]:
    with (out / "log" / "metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]


def tensorboard_steps(out: Path) -> list[int]:
    found = EventAccumulator(str(out / "tensorboard")).Reload()
    assert "val/loss" in found.Tags()["scalars"] and "hp_metric" not in found.Tags()["scalars"]
    return [event.step for event in found.Scalars("train/loss")]


def test_a_fit_leaves_csv_and_tensorboard_where_its_folder_is(fit: Callable[..., Path], tmp_path: Path) -> None:
    out = fit()
    assert csv_steps(out) == tensorboard_steps(out) == list(range(6))
    assert yaml.safe_load((out / "log" / "config.yaml").read_text())["trainer"]["default_root_dir"] == str(out)
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "tiny-0"}  # nothing beside it
    assert not (out / "wandb").exists()


def test_wandb_comes_on_top_and_works_offline(fit: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    wandb.teardown()  # it keeps what it has read of the environment
    monkeypatch.setenv("WANDB_MODE", "offline")
    try:
        out = fit("--config", WANDB)
        assert wandb.run is not None and wandb.run.project == "lcg"
        summary = dict(wandb.run.summary)
        (run,) = out.glob("wandb/offline-run-*")
        assert run.name.endswith(wandb.run.id) and dict(wandb.run.config)["width"] == 16
    finally:
        wandb.finish()
        wandb.teardown()  # writes what is left
    assert csv_steps(out) == tensorboard_steps(out) == list(range(6))
    assert summary["trainer/global_step"] == 5 and {"train/loss", "val/loss"} <= set(summary)
    (stored,) = run.glob("run-*.wandb")
    assert stored.read_bytes().count(b"train/loss") >= 6


def test_a_logger_with_a_folder_of_its_own_keeps_it(fit: Callable[..., Path], tmp_path: Path) -> None:
    """A list's options are those of its last entry."""
    out = fit(f"--trainer.logger.init_args.save_dir={tmp_path}/elsewhere")
    assert csv_steps(out) and not (out / "tensorboard").exists() and (tmp_path / "elsewhere" / "tensorboard").is_dir()
    alone = ("--trainer.logger=pytorch_lightning.loggers.CSVLogger", "--trainer.logger.name=one")
    out = fit(*alone, "--trainer.logger.save_dir=.")
    assert (out / "one" / "version_0" / "metrics.csv").is_file()


@pytest.mark.parametrize("path", FITS, ids=lambda path: "/".join(path.parts[-2:]))
def test_every_fit_logs_alike(path: Path) -> None:
    """W&B's config repeats what it replaces."""
    loggers = yaml.safe_load(path.read_text())["trainer"]["logger"]
    repeated = yaml.safe_load(Path(WANDB).read_text())["trainer"]["logger"][:-1]
    assert loggers == repeated and len(FITS) >= 9
