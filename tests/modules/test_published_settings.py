"""The settings of papers in configs: what they say of themselves is counted, and each is built and stepped.

Sizes are counted on torch's meta device, which takes no memory: 20 bytes of float32 per parameter are its weight, its
gradient, Adam's two averages and the exponential one; activations are what autograd keeps of a batch.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from lcg import cli
from lcg.checkpoint import load_network
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.schema import Attribute, Schema

CONFIGS = Path(__file__).parents[2] / "configs"
SHAPES = {"diffae": (512,), "stylegan2_w": (512,), "stylegan2_wplus": (18, 512)}
CELEBA = Schema(tuple(Attribute(f"a{i}") for i in range(40)))
SAID = re.compile(
    r"(\d[\d ]+) parameters.*?: ([\d.]+) GB of weights.*? ([\d.]+) GB of activations for a batch of (\d+)"
)

every = pytest.mark.parametrize("name", SHAPES)


def read(kind: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / kind / f"{name}.yaml").read_text())


def build(kind: str, name: str) -> nn.Module:
    """The network on the meta device."""
    options = read(kind, name)["model"]["init_args"]
    cls = LatentDenoiser if kind == "prior" else TimeConditionedClassifier
    known = {key: value for key, value in options.items() if key in inspect.signature(cls).parameters}
    with torch.device("meta"):
        return cls(SHAPES[name], **known) if kind == "prior" else cls(SHAPES[name], CELEBA, **known)


def kept_bytes(network: nn.Module, z_t: Tensor, t: Tensor) -> int:
    """What autograd keeps for the way back, without the weights."""
    kept, weights = {}, {p.untyped_storage()._cdata for p in network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(z_t, t)
    return sum(storage.nbytes() for storage in kept.values())


@every
@pytest.mark.parametrize("kind", ["prior", "classifier"])
def test_the_head_of_a_config_tells_its_size(kind: str, name: str) -> None:
    network, batch = build(kind, name), read(kind, name)["data"]["init_args"]["batch_size"]
    count = sum(p.numel() for p in network.parameters())
    kept = kept_bytes(network, torch.empty(batch, *SHAPES[name], device="meta"), torch.empty(batch, device="meta"))
    expected = (f"{count:,}".replace(",", " "), f"{20 * count / 1e9:.2f}", f"{kept / 1e9:.2f}", str(batch))
    said = SAID.search((CONFIGS / kind / f"{name}.yaml").read_text().replace("\n# ", " "))
    assert said is not None and said.groups() == expected


@every
def test_the_prior_has_the_numbers_of_its_formula(name: str) -> None:
    D, W, L, E, F = int(torch.tensor(SHAPES[name]).prod()), 2048, 10, 512, 64
    time = (F * E + E) + (E * E + E)
    hidden = (L - 1) * (E * W + W + 2 * W)
    linear = (D * W + W) + (L - 2) * ((W + D) * W + W) + ((W + D) * D + D)
    assert sum(p.numel() for p in build("prior", name).parameters()) == time + hidden + linear


@every
def test_the_classifiers_have_the_numbers_of_their_formula(name: str) -> None:
    D, W, F = int(torch.tensor(SHAPES[name]).prod()), read("classifier", name)["model"]["init_args"]["width"], 64
    block = (F * 2 * W + 2 * W) + 2 * (W * W + W)
    each = (F * F + F) + ((D + F) * W + W) + 2 * block + 2 * W + (W + 1)
    assert sum(p.numel() for p in build("classifier", name).parameters()) == 40 * each


@every
def test_prior_and_classifiers_go_together(name: str) -> None:
    prior, classifier = read("prior", name), read("classifier", name)
    assert prior["model"]["init_args"]["schedule"] == classifier["model"]["init_args"]["schedule"]
    assert prior["data"]["init_args"]["store"] == classifier["data"]["init_args"]["store"]
    assert prior["trainer"]["max_steps"] == -(-101_000_000 // prior["data"]["init_args"]["batch_size"])


@pytest.fixture
def fit(tmp_path: Path, tiny_store: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Two steps of a config as it stands on latents of its shape, under its trainer config at the CPU's precision."""
    monkeypatch.setattr("sys.argv", ["lcg"])
    monkeypatch.chdir(tmp_path)

    def fit(kind: str, name: str, *more: str) -> Path:
        out, gpu = tmp_path / kind, str(CONFIGS / "trainer" / "gpu.yaml")
        words = ["--config", str(CONFIGS / kind / f"{name}.yaml"), "--config", gpu, "--trainer.accelerator=cpu"]
        words += ["--data.store", tiny_store(SHAPES[name], n=80), "--data.batch_size=8", "--trainer.max_steps=2"]
        words += ["--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false", "--out", str(out), *more]
        assert cli.main(["fit", *words]) == 0
        return out / f"{kind}.ckpt"

    return fit


@pytest.mark.parametrize(
    "name", ["diffae", *(pytest.param(name, marks=pytest.mark.slow) for name in SHAPES if "2" in name)]
)
def test_a_small_one_of_each_is_stepped_in_mixed_precision(fit: Callable[..., Path], name: str) -> None:
    every_step = "--trainer.callbacks.init_args.every_n_train_steps=1"
    prior = load_network(fit("prior", name, "--model.width=32", every_step), "denoiser")
    classifier = load_network(fit("classifier", name, "--model.width=16", every_step), "classifier")
    assert prior.network.latent_shape == classifier.network.latent_shape == SHAPES[name]
    assert prior.config["layers"] == "concat" and prior.config["depth"] == 10 and prior.config["prediction"] == "eps"
    assert all(p.dtype == torch.float32 for p in prior.network.parameters())


@pytest.mark.slow
@every
def test_each_prior_is_stepped_at_its_size(fit: Callable[..., Path], name: str) -> None:
    """Up to 317 million parameters: 6.3 GB; nothing is saved."""
    fit("prior", name, "--trainer.enable_checkpointing=false", "--trainer.callbacks=[]", "--trainer.max_steps=1")
