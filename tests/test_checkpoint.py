"""Reading networks back: what a checkpoint holds is checked, and no checkpoint runs code."""

import contextlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from lcg.checkpoint import amend_checkpoint, load_network, load_networks
from lcg.data.store import LatentStore
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser


def altered(path: str, out: Path, **entries: Any) -> Path:
    """A copy of a checkpoint with other entries of `lcg`."""
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["lcg"].update(entries)
    torch.save(checkpoint, out)
    return out


def test_networks_come_back_frozen_with_what_they_were_trained_on(demo) -> None:
    store = LatentStore.open(demo.store)
    for path, kind, network in (
        (demo.prior, "denoiser", LatentDenoiser),
        (demo.classifier, "classifier", TimeConditionedClassifier),
    ):
        loaded = load_network(path, kind)
        assert isinstance(loaded.network, network) and not loaded.network.training
        assert not any(p.requires_grad for p in loaded.network.parameters())
        assert torch.equal(loaded.statistics.mean, store.statistics.mean)
        assert torch.equal(loaded.statistics.std, store.statistics.std)
        assert loaded.store == store.fingerprint
        assert loaded.generator == store.provenance["generator"]["weights_sha256"]
        assert loaded.config["schedule"] == "cosine" and str(loaded.path) == path
    assert load_network(demo.classifier, "classifier").network.schema == store.schema


def test_a_network_that_came_back_is_the_one_that_was_saved(demo) -> None:
    state = torch.load(demo.prior, weights_only=True)["state_dict"]
    loaded = load_network(demo.prior, "denoiser").network.state_dict()
    assert {f"denoiser.{name}" for name in loaded} == set(state)
    assert all(torch.equal(tensor, state[f"denoiser.{name}"]) for name, tensor in loaded.items())


def test_a_missing_file_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no denoiser at .*; make one with `lcg fit --config configs/prior"):
        load_network(tmp_path / "prior.ckpt", "denoiser")
    with pytest.raises(FileNotFoundError, match=r"no classifier at .*`lcg fit --config configs/classifier"):
        load_network(tmp_path, "classifier")


def test_another_kind_of_network_is_refused(demo) -> None:
    with pytest.raises(ValueError, match="holds a denoiser, expected a classifier; give the checkpoint of `lcg fit"):
        load_network(demo.prior, "classifier")
    with pytest.raises(ValueError, match="holds a classifier, expected a denoiser"):
        load_network(demo.classifier, "denoiser")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_refused(demo, tmp_path: Path, share: float) -> None:
    data, cut = Path(demo.prior).read_bytes(), tmp_path / "cut.ckpt"
    cut.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"cut\.ckpt is not a readable denoiser checkpoint of lcg .*; fit it again"):
        load_network(cut, "denoiser")


class Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("save", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))])
def test_a_malicious_file_is_refused_and_runs_no_code(tmp_path: Path, save: Any) -> None:
    victim, path = tmp_path / "victim", tmp_path / "bad.ckpt"
    save({"lcg": {"kind": "denoiser"}, "state_dict": Malicious(victim)}, path)
    with pytest.raises(ValueError, match="is not a readable denoiser checkpoint of lcg"):
        load_network(path, "denoiser")
    assert not victim.exists()
    with contextlib.suppress(RuntimeError):  # torch calls a plain pickle corrupt, after it has run it
        torch.load(path, weights_only=False)  # the negative control
    assert victim.exists()


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"lcg": {}}, {"lcg": 3}])
def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="is not a readable classifier checkpoint of lcg"):
        load_network(tmp_path / "other.ckpt", "classifier")


def test_entries_that_do_not_fit_the_weights_are_refused(demo, tmp_path: Path) -> None:
    path = tmp_path / "altered.ckpt"
    config = load_network(demo.prior, "denoiser").config
    for entries in (
        {"config": {**config, "latent_shape": [32]}},  # of latents of another shape
        {"config": {**config, "width": 65}},
        {"config": {**config, "schedule": "sinus"}},
        {"config": {**config, "colour": "red"}},
        {"mean": torch.zeros(64), "std": torch.zeros(64)},
        {"mean": 0.0},
    ):
        with pytest.raises(ValueError, match="is not a readable denoiser checkpoint of lcg"):
            load_network(altered(demo.prior, path, **entries), "denoiser")
    assert load_network(altered(demo.prior, path, store="other"), "denoiser").store == "other"


def test_an_amended_checkpoint_differs_in_what_was_asked_for_and_nothing_else(demo, tmp_path: Path) -> None:
    path = tmp_path / "classifier.ckpt"
    path.write_bytes(Path(demo.classifier).read_bytes())
    before = torch.load(path, weights_only=True)
    name, other = "classifier.log_temperature", "classifier.net.input.bias"
    wanted = torch.linspace(-1, 1, len(before["state_dict"][name]), dtype=torch.float64)
    amend_checkpoint(path, {name: wanted}, calibration={"dependence": "joint", "new": [1.5, None]})
    after = torch.load(path, weights_only=True)
    assert after["lcg"]["calibration"] == {"dependence": "joint", "new": [1.5, None]}
    assert after["state_dict"][name].dtype == torch.float32  # as it was
    assert (after["state_dict"][name] - wanted).abs().max() < 1e-6
    assert torch.equal(after["state_dict"][other], before["state_dict"][other])
    assert set(after) == set(before) and after["loops"] == before["loops"]
    assert [file.name for file in tmp_path.iterdir()] == ["classifier.ckpt"]  # nothing is left beside it
    loaded = load_network(path, "classifier")
    assert loaded.calibration["dependence"] == "joint" and loaded.store == before["lcg"]["store"]
    assert load_network(demo.prior, "denoiser").calibration == {}


def test_a_tensor_that_a_checkpoint_does_not_have_is_not_amended(demo, tmp_path: Path) -> None:
    path = tmp_path / "classifier.ckpt"
    path.write_bytes(before := Path(demo.classifier).read_bytes())
    for tensors, got in (
        ({"classifier.log_temperature": torch.zeros(3)}, r"\(3,\), got one of shape \(6,\)"),
        ({"classifier.heat": torch.zeros(3)}, r"'classifier.heat' of shape \(3,\), got none"),
    ):
        with pytest.raises(ValueError, match=rf"`tensors`: .*{got}; it is not a checkpoint of this network"):
            amend_checkpoint(path, tensors)
    assert path.read_bytes() == before


def test_a_distilled_prior_is_known_as_one(demo, tmp_path: Path) -> None:
    assert not load_network(demo.prior, "denoiser").distilled
    assert load_network(altered(demo.prior, tmp_path / "distilled.ckpt", consistency=True), "denoiser").distilled


def test_a_checkpoint_says_where_its_data_came_from_and_how_it_was_trained(demo, tmp_path: Path) -> None:
    loaded = load_network(demo.prior, "denoiser")
    assert loaded.provenance == LatentStore.open(demo.store).provenance
    assert loaded.training["steps"] == 60 and loaded.training["options"]["width"] == 64
    assert not any(name.startswith("_") for name in loaded.training["options"])
    assert load_network(altered(demo.prior, tmp_path / "old.ckpt", provenance={}), "denoiser").provenance == {}


def test_whitening_is_read_back(demo, tmp_path: Path) -> None:
    W = torch.diag(torch.linspace(0.5, 2, 64))
    path = altered(demo.prior, tmp_path / "w.ckpt", whitening_matrix=W, whitening_inverse=torch.linalg.inv(W))
    statistics, z = load_network(path, "denoiser").statistics, torch.randn(3, 64)
    assert torch.equal(statistics.standardise(z), (z - statistics.mean) @ W)


def test_networks_of_differently_standardised_latents_are_refused(demo, tmp_path: Path) -> None:
    mean = load_network(demo.prior, "denoiser").statistics.mean
    path = altered(demo.prior, tmp_path / "moved.ckpt", mean=mean + 0.1)
    with pytest.raises(ValueError, match="were trained on latents standardised differently; fit both with one"):
        load_networks(path, demo.classifier)
    load_networks(altered(demo.prior, path, mean=mean * (1 + 1e-7)), demo.classifier)  # rounding


def test_a_calibration_that_is_no_mapping_is_refused(demo, tmp_path: Path) -> None:
    path = altered(demo.classifier, tmp_path / "altered.ckpt", calibration=3.0)
    with pytest.raises(ValueError, match="is not a readable classifier checkpoint of lcg"):
        load_network(path, "classifier")
