"""Observing a classifier on validation latents, and calibrating the checkpoints that a fit has left."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lcg.checkpoint import load_network
from lcg.data.datamodule import LatentDataModule
from lcg.metrics.temperature import compare_readings
from lcg.modules.bands import BANDS, noised
from lcg.modules.calibration import calibrate_checkpoint, diagnose_to, observe, written
from lcg.nets.classifier import LEVELS, TimeConditionedClassifier
from lcg.nets.denoiser import make_schedule
from lcg.nets.heads import joint_log_likelihood, tensors

SCHEDULE = make_schedule("cosine")


@pytest.fixture
def data(tiny_store: Any) -> LatentDataModule:
    data = LatentDataModule(tiny_store(), batch_size=50, val_fraction=0.3)
    data.setup()
    return data


def classifier(data: LatentDataModule, components: int = 1) -> TimeConditionedClassifier:
    torch.manual_seed(0)
    network = TimeConditionedClassifier(data.latent_shape, data.schema, 8, 1, dropout=0.5, components=components)
    torch.nn.init.normal_(network.net.output.weight)
    return network.train()


@pytest.mark.parametrize("components", [1, 3])
def test_the_classifier_is_observed_without_its_temperature_and_left_as_it_is(
    data: LatentDataModule, components: int
) -> None:
    network = classifier(data, components)
    plain = observe(network, SCHEDULE, data)
    network.log_temperature.fill_(0.7)
    tempered = observe(network, SCHEDULE, data)
    for (_, a), (_, b) in zip(tensors(plain.outputs), tensors(tempered.outputs), strict=True):
        assert torch.equal(a, b)  # nor is there any dropout in them
    assert network.training and (network.log_temperature == 0.7).all()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_every_validation_latent_is_observed_once_in_every_band(data: LatentDataModule) -> None:
    observed = observe(classifier(data), SCHEDULE, data)
    count = len(data.val_rows)
    assert len(observed) == BANDS * count > 100
    assert torch.bincount((observed.t * BANDS).long()).tolist() == [count] * BANDS
    known = (~data.gather(data.val_rows)["labels"].isnan()).sum()
    assert (~observed.labels.isnan()).sum() == BANDS * known


def test_it_is_observed_as_validation_sees_it(data: LatentDataModule) -> None:
    """Batch by batch with the same noise: what is reported in detail adds up to what is logged."""
    network = classifier(data).eval()
    observed = observe(network, SCHEDULE, data)
    total = torch.zeros(BANDS)
    for batch_idx, batch in enumerate(data.val_dataloader()):
        for band, z_t, t in noised(SCHEDULE, batch["z_0"], batch_idx):
            with torch.no_grad():
                total[band] -= joint_log_likelihood(data.schema, network(z_t, t), batch["labels"]).sum()
    readings = compare_readings(observed, torch.zeros(LEVELS), BANDS)
    found = torch.tensor(readings.joint_before) * torch.tensor(readings.count)
    assert (found / total - 1).abs().max() < 1e-5


def test_of_too_many_latents_evenly_spread_ones_are_observed(data: LatentDataModule) -> None:
    few = observe(classifier(data), SCHEDULE, data, numbers=BANDS * 2 * 7 * 12)
    assert len(few) == BANDS * 12
    assert len(observe(classifier(data), SCHEDULE, data, numbers=1)) == BANDS


def test_a_checkpoint_gets_its_temperature_and_its_record(demo: Any, tmp_path: Path) -> None:
    path = tmp_path / "classifier.ckpt"
    shutil.copy(demo.classifier, path)
    data = LatentDataModule(demo.store, batch_size=128)
    data.setup()
    before = torch.load(path, weights_only=True)
    before["state_dict"]["classifier.log_temperature"].zero_()
    del before["lcg"]["calibration"]
    torch.save(before, path)
    record = calibrate_checkpoint(path, data)
    after = torch.load(path, weights_only=True)
    loaded = load_network(path, "classifier")
    assert loaded.calibration == record and set(record) == {
        "temperature",
        "dependence",
        "labels",
        "joint",
        "independent",
    }
    assert torch.allclose(loaded.network.log_temperature.exp(), torch.tensor(record["temperature"]))
    assert loaded.network.log_temperature.abs().max() > 0.01
    for reading in ("joint", "independent"):
        assert all(len(record[reading][when]) == BANDS for when in ("before", "after"))
    total = [
        sum(n * nll for n, nll in zip(record["labels"], record["joint"][when], strict=True))
        for when in ("before", "after")
    ]
    assert total[1] < total[0]
    # And nothing else of it has changed.
    assert set(after) == set(before) and set(after["lcg"]) == {*before["lcg"], "calibration"}
    for name, tensor in before["state_dict"].items():
        assert name == "classifier.log_temperature" or torch.equal(after["state_dict"][name], tensor)


def test_every_written_checkpoint_is_found_once(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for path in (here / "a.ckpt", here / "b.ckpt", tmp_path / "another_runs.ckpt"):
        path.touch()
    (here / "last.ckpt").symlink_to(here / "a.ckpt")
    none, saved, resumed = ModelCheckpoint(), ModelCheckpoint(here), ModelCheckpoint(here)
    saved.best_model_path, saved.last_model_path = str(here / "a.ckpt"), str(here / "last.ckpt")
    saved.best_k_models = {str(here / name): torch.tensor(1.0) for name in ("b.ckpt", "gone.ckpt")}
    resumed.best_model_path = str(tmp_path / "another_runs.ckpt")
    trainer: Any = SimpleNamespace(checkpoint_callbacks=[none, saved, resumed])
    assert written(trainer) == [here / "a.ckpt", here / "b.ckpt"]


@pytest.mark.parametrize("components", [1, 3])
def test_a_diagnosis_is_written_as_table_text_and_picture(
    data: LatentDataModule, tmp_path: Path, components: int
) -> None:
    text = diagnose_to(tmp_path / "new", classifier(data, components), SCHEDULE, data)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "calibration.csv",
        "calibration.md",
        "calibration.png",
    ]
    written_text = (tmp_path / "new" / "calibration.md").read_text()
    assert written_text.startswith(text) and "![](calibration.png)" in written_text
    assert len((tmp_path / "new" / "calibration.csv").read_text().splitlines()) == 1 + 3 * BANDS
    assert (tmp_path / "new" / "calibration.png").read_bytes().startswith(b"\x89PNG")
