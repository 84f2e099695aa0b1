"""Calibration of a classifier on validation data: when a fit ends, and when `lcg validate` asks.

At the end of a fit every checkpoint that was written gets the temperature of the weights in it, which are averaged
ones if training averages them, and a record of how its head is best read (`lcg.metrics.temperature`). That is done on
the files, not on the module: what is in memory then need not be what any checkpoint holds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from lcg.checkpoint import amend_checkpoint, load_network
from lcg.data.datamodule import LatentDataModule
from lcg.diffusion.schedule import Schedule
from lcg.metrics.advice import report
from lcg.metrics.diagnostics import Diagnosis, diagnose
from lcg.metrics.diagnostics_plot import draw
from lcg.metrics.temperature import Observed, compare_readings, fit_log_temperature
from lcg.modules.bands import BANDS, noised
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import make_schedule
from lcg.nets.heads import JointOutputs, Outputs, in_float
from lcg.nets.label_noise import LabelNoise

LOG_TEMPERATURE = "classifier.log_temperature"
"""The name that a checkpoint has for the temperature."""

NUMBERS_TO_FIT = 5_000_000
"""Outputs that a temperature is fitted on: two or three seconds on one core."""

NUMBERS_TO_SHOW = 40_000_000
"""Outputs that are diagnosed: 320 MB of float64 would hold them all."""


def observe(
    network: TimeConditionedClassifier,
    schedule: Schedule,
    data: LatentDataModule,
    numbers: int = NUMBERS_TO_SHOW,
    noise: LabelNoise | None = None,
) -> Observed:
    """What a classifier, its temperature aside, says of the validation latents, each noised to every band of t.

    Args:
        network: the classifier; it is left as it is.
        schedule: of the noise.
        data: set up, with validation samples.
        numbers: how many outputs there may be; if all latents give more, evenly spread ones are taken.
        noise: of the labels.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    network.log_temperature.zero_()
    per_latent = BANDS * (network.components + 1) * (1 + sum(attribute.outputs for attribute in network.schema))
    count = min(len(data.val_rows), max(1, numbers // per_latent))
    rows = data.val_rows[torch.linspace(0, len(data.val_rows) - 1, count).round().long()]
    outputs, times, labels = [], [], []
    for batch_idx, some in enumerate(rows.tensor_split(-(-count // data.batch_size))):
        batch = data.gather(some)
        z_0 = batch["z_0"].to(network.log_temperature.device)
        for _, z_t, t in noised(schedule, z_0, batch_idx):
            with torch.no_grad():
                outputs.append(in_float(network(z_t, t)))
            times.append(t)
            labels.append(batch["labels"])
    return Observed(network.schema, _joined(outputs), torch.cat(times).cpu(), torch.cat(labels).cpu(), noise)


def _joined(outputs: list[Outputs]) -> Outputs:
    def heads(of: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
        parts = list(of)
        return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}

    joint = [part for part in outputs if isinstance(part, JointOutputs)]
    if joint:
        weights = torch.cat([part.log_weights for part in joint]).cpu()
        return JointOutputs(weights, heads(part.heads for part in joint), heads(part.single for part in joint))
    return heads(part for part in outputs if not isinstance(part, JointOutputs))


def calibrate_checkpoint(path: Path, data: LatentDataModule, noise: LabelNoise | None = None) -> dict[str, Any]:
    """Fits the temperature of a classifier's checkpoint and stores it there, with a record.

    Args:
        path: the checkpoint; it is replaced in one step.
        data: set up, with validation samples.
        noise: of the labels.

    Returns:
        The record, JSON primitives: `dependence`, how formulas are best read, `joint` or `independent`; by noise band
        the number of `labels`, and the negative log-likelihood per label, read `joint` or `independent`, `before` and
        `after` temperature; and the `temperature` at its levels.
    """
    loaded = load_network(path, "classifier")
    observed = observe(loaded.network, make_schedule(loaded.config["schedule"]), data, NUMBERS_TO_FIT, noise)
    log_temperature = fit_log_temperature(observed)
    readings = compare_readings(observed, log_temperature, BANDS)
    record = {"temperature": log_temperature.exp().tolist(), **readings.to_dict()}
    amend_checkpoint(path, {LOG_TEMPERATURE: log_temperature}, calibration=record)
    before, after = readings.mean(readings.joint_before), readings.mean(readings.joint_after)
    rank_zero_info(
        f"calibrated {path}: T = {', '.join(f'{T:.2f}' for T in record['temperature'])} from t = 0 to 1, "
        f"{before:.4f} -> {after:.4f} nats per validation label, read as {readings.dependence}"
    )
    return record


def calibrate_written(trainer: Trainer, noise: LabelNoise | None = None) -> None:
    """Calibrates the checkpoints that a fit's callbacks have left; called when the fit has ended, on one rank."""
    data = LatentDataModule.of(trainer)
    paths = written(trainer)
    if paths and len(data.val_rows) == 0:
        rank_zero_info("no validation samples: the classifier's temperature stays 1")
        return
    for path in paths:
        calibrate_checkpoint(path, data, noise)


def written(trainer: Trainer) -> list[Path]:
    """The checkpoint files that the callbacks of a Trainer have in their folders, each once, links resolved.

    A fit that went on from a checkpoint in another folder remembers that, too; it is another run's.
    """
    files: list[Path] = []
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath:
            folder = Path(callback.dirpath).resolve()
            names = (callback.best_model_path, callback.last_model_path, *callback.best_k_models)
            paths = [Path(name).resolve() for name in names if name]
            files += [path for path in paths if path.is_file() and path.is_relative_to(folder)]
    return list(dict.fromkeys(files))


def diagnose_to(
    folder: Path,
    network: TimeConditionedClassifier,
    schedule: Schedule,
    data: LatentDataModule,
    noise: LabelNoise | None = None,
) -> str:
    """Writes calibration.csv, calibration.md and calibration.png.

    Returns:
        What calibration.md says.
    """
    observed = observe(network, schedule, data, noise=noise)
    diagnosis: Diagnosis = diagnose(observed, network.log_temperature, BANDS)
    folder.mkdir(parents=True, exist_ok=True)
    text = report(diagnosis)
    (folder / "calibration.csv").write_text(diagnosis.to_csv(), encoding="utf-8")
    (folder / "calibration.md").write_text(f"{text}\n![](calibration.png)\n", encoding="utf-8")
    draw(diagnosis, folder / "calibration.png")
    return text
