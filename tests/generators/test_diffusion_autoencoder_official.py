"""Released checkpoints: their names, their safe reading, and what is said of files that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from lcg.generators.diffusion_autoencoder import SavedDiffusionAutoencoder, official
from lcg.generators.diffusion_autoencoder.networks import Architecture, ConditionalUNet, SemanticEncoder
from lcg.generators.diffusion_autoencoder.official import convert, read_checkpoint, released, renamed, untrained

SMALL = replace(
    released("ffhq64"),
    image_size=8,
    latent_dim=8,
    channels=4,
    multipliers=[1, 2],
    encoder_channels=4,
    encoder_multipliers=[1, 2],
    attention=[4],
    embed=8,
)

THEIRS = {
    "unet.time.0.weight": "time_embed.time_embed.0.weight",
    "unet.inputs.0.0.weight": "input_blocks.0.0.weight",
    "unet.inputs.1.0.conv_in.weight": "input_blocks.1.0.in_layers.2.weight",
    "unet.inputs.1.0.time_affine.bias": "input_blocks.1.0.emb_layers.1.bias",
    "unet.inputs.1.0.latent_affine.bias": "input_blocks.1.0.cond_emb_layers.1.bias",
    "unet.inputs.4.0.skip.weight": "input_blocks.4.0.skip_connection.weight",
    "unet.inputs.4.1.projection.weight": "input_blocks.4.1.proj_out.weight",
    "unet.middle.1.qkv.weight": "middle_block.1.qkv.weight",
    "unet.outputs.2.2.conv_out.weight": "output_blocks.2.2.out_layers.3.weight",
    "unet.outputs.5.0.norm_in.weight": "output_blocks.5.0.in_layers.0.weight",
    "unet.norm.weight": "out.0.weight",
    "unet.last.weight": "out.2.weight",
    "encoder.inputs.1.0.norm_in.bias": "encoder.input_blocks.1.0.in_layers.0.bias",
    "encoder.middle.2.conv_in.weight": "encoder.middle_block.2.in_layers.2.weight",
    "encoder.norm.weight": "encoder.out.0.weight",
    "encoder.last.weight": "encoder.out.3.weight",
}
"""Names of ours, and theirs, read in github.com/phizaz/diffae: every kind of layer once."""


def as_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dictionary under their names: the inverse of `renamed`, written down by itself."""
    pairs = {
        "unet.time.": "time_embed.time_embed.",
        "unet.inputs.": "input_blocks.",
        "unet.middle.": "middle_block.",
        "unet.outputs.": "output_blocks.",
        "unet.norm.": "out.0.",
        "unet.last.": "out.2.",
        "encoder.inputs.": "encoder.input_blocks.",
        "encoder.middle.": "encoder.middle_block.",
        "encoder.norm.": "encoder.out.0.",
        "encoder.last.": "encoder.out.3.",
        ".norm_in.": ".in_layers.0.",
        ".conv_in.": ".in_layers.2.",
        ".time_affine.": ".emb_layers.1.",
        ".latent_affine.": ".cond_emb_layers.1.",
        ".norm_out.": ".out_layers.0.",
        ".conv_out.": ".out_layers.3.",
        ".skip.": ".skip_connection.",
        ".projection.": ".proj_out.",
    }
    found = {}
    for name, tensor in state.items():
        for ours, theirs in pairs.items():
            name = name.replace(ours, theirs)
        found[name] = tensor
    return found


def checkpoint(path: Path, architecture: Architecture = SMALL, **more: Any) -> str:
    """Writes what Lightning writes: raw and averaged weights, and a callback's class as a key."""
    torch.manual_seed(0)
    network = untrained(architecture)
    torch.nn.init.normal_(network.unet.last.weight)
    state = {name: tensor for name, tensor in network.state_dict().items() if name != "code"}
    theirs = as_released(state)
    raw = {f"model.{name}": torch.zeros_like(tensor) for name, tensor in theirs.items()}
    averaged = {f"ema_model.{name}": tensor for name, tensor in theirs.items()}
    extra = {"x_T": torch.zeros(2, 3, 8, 8), "ema_model.latent_net.layers.0.linear.weight": torch.zeros(2, 2)}
    content = {"state_dict": {**raw, **averaged, **extra}, "callbacks": {ModelCheckpoint: {"best": None}}, **more}
    torch.save(content, path)
    return str(path)


def test_every_kind_of_layer_has_their_name() -> None:
    state = untrained(SMALL).state_dict()
    assert set(THEIRS) <= set(state)
    for ours, theirs in THEIRS.items():
        assert list(renamed({f"ema_model.{theirs}": state[ours]})) == [ours]


def test_a_checkpoint_becomes_safetensors_with_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "released", lambda name: SMALL)
    convert(checkpoint(tmp_path / "last.ckpt"), str(tmp_path / "ours.safetensors"))
    torch.manual_seed(0)
    original = untrained(SMALL).eval()
    torch.nn.init.normal_(original.unet.last.weight)
    converted = SavedDiffusionAutoencoder(tmp_path / "ours.safetensors", steps=3)
    z = torch.randn(2, 8)
    t, x_t = torch.tensor([0.1, 0.9]), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(converted.predict(x_t, t, z), original.predict(x_t, t, z), rtol=0.02, atol=0.02)
    assert converted.provenance["converted_from"]["architecture"] == "ffhq256"
    assert converted.config["chain"] == "linear" and converted.config["prediction"] == "eps"


def test_the_released_architecture_of_256_pixels_has_its_168_million_parameters() -> None:
    with torch.device("meta"):
        networks = ConditionalUNet(released("ffhq256")), SemanticEncoder(released("ffhq256"))
    assert sum(p.numel() for network in networks for p in network.parameters()) == 168_492_291


def test_a_checkpoint_that_would_execute_code_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "last.ckpt", config=Path("x"))
    with pytest.raises(ValueError, match=r"without executing code: it brings pathlib.*weights_only=False"):
        read_checkpoint(path)


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        read_checkpoint(str(tmp_path / "none.ckpt"))
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(ValueError, match="is no checkpoint or is damaged"):
        read_checkpoint(str(tmp_path / "text.ckpt"))
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="must hold a `state_dict` of tensors"):
        read_checkpoint(str(tmp_path / "other.ckpt"))
    with pytest.raises(ValueError, match=r"must have averaged weights, ema_model.\*, got model.a"):
        renamed({"model.a": torch.zeros(1)})
    with pytest.raises(ValueError, match="`architecture` must be one of ffhq256"):
        released("ffhq1024")  # type: ignore[arg-type]


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint(tmp_path / "last.ckpt")
    monkeypatch.setattr(official, "released", lambda name: replace(SMALL, channels=8))
    with pytest.raises(ValueError, match="is not of the architecture ffhq128"):
        convert(path, str(tmp_path / "ours.safetensors"), "ffhq128")
    assert not (tmp_path / "ours.safetensors").exists()
