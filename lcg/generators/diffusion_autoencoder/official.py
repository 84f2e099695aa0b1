"""The released checkpoints of diffusion autoencoders (github.com/phizaz/diffae), turned into safetensors of ours.

`last.ckpt` is a Lightning checkpoint. Only tensors and plain containers are read from it; where it names classes of
Lightning, empty ones stand in for them, and anything else is refused. Its averaged weights, `ema_model.*`, have the
structure of ours layer by layer and other names. What belongs to its own latent prior is left out: lcg fits one.

    lcg convert-diffae last.ckpt ffhq256.safetensors --architecture ffhq256
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from lcg.generators.diffusion_autoencoder.autoencoder import DiffusionAutoencoder
from lcg.generators.diffusion_autoencoder.networks import Architecture
from lcg.weights import save_weights

Released = Literal["ffhq256", "ffhq128", "horse128", "bedroom128", "celeba64", "ffhq64"]

STEPS, T_START = 20, 0.951
"""Their DDIM of 20 steps asks at the steps 0, 50, ..., 950 of the chain."""

AVERAGED = "ema_model."
NAMES = (
    (r"^time_embed\.time_embed\.", "unet.time."),
    (r"^(input|output)_blocks\.", r"unet.\1s."),
    (r"^middle_block\.", "unet.middle."),
    (r"^out\.0\.", "unet.norm."),
    (r"^out\.2\.", "unet.last."),
    (r"^encoder\.input_blocks\.", "encoder.inputs."),
    (r"^encoder\.middle_block\.", "encoder.middle."),
    (r"^encoder\.out\.0\.", "encoder.norm."),
    (r"^encoder\.out\.3\.", "encoder.last."),
    (r"\.in_layers\.0\.", ".norm_in."),
    (r"\.in_layers\.2\.", ".conv_in."),
    (r"\.emb_layers\.1\.", ".time_affine."),
    (r"\.cond_emb_layers\.1\.", ".latent_affine."),
    (r"\.out_layers\.0\.", ".norm_out."),
    (r"\.out_layers\.3\.", ".conv_out."),
    (r"\.skip_connection\.", ".skip."),
    (r"\.proj_out\.", ".projection."),
)
"""Their names, and ours."""


def released(name: Released) -> Architecture:
    """Sizes of a released checkpoint. Raises ValueError for another name."""
    if name not in get_args(Released):
        raise ValueError(f"`architecture` must be one of {', '.join(get_args(Released))}, got {name!r}")
    size = int(re.sub(r"\D", "", name))
    multipliers = {256: [1, 1, 2, 2, 4, 4], 128: [1, 1, 2, 3, 4], 64: [1, 2, 4, 8]}[size]
    channels = 64 if size == 64 else 128
    return Architecture(
        image_size=size,
        latent_dim=512,
        patch=1,
        channels=channels,
        multipliers=multipliers,
        encoder_channels=channels,
        encoder_multipliers=[*multipliers, multipliers[-1]],
        blocks=2,
        attention=[16],
        embed=512,
        dropout=0.1,
        average=True,
        map_channels=0,
    )


def untrained(architecture: Architecture) -> DiffusionAutoencoder:
    """A diffusion autoencoder as theirs: the noise is predicted, on the chain of DDPM."""
    return DiffusionAutoencoder(
        architecture, STEPS, T_START, prediction="eps", chain="linear", normalise=False, latent_noise=0.0, code_std=1.0
    )


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their averaged weights under our names.

    Raises:
        ValueError: there are none.
    """
    found = {}
    for name, tensor in state.items():
        own = name.removeprefix(AVERAGED)
        if own == name or own.startswith("latent_net."):
            continue
        for theirs, ours in NAMES:
            own = re.sub(theirs, ours, own)
        found[own] = tensor.float()
    if not found:
        raise ValueError(
            f"the checkpoint must have averaged weights, {AVERAGED}*, got {', '.join(list(state)[:3]) or 'none'}; "
            "give last.ckpt of a diffusion autoencoder"
        )
    return found


class Inert:
    """Stands in for a class of Lightning: takes anything and does nothing."""

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def read_checkpoint(path: str) -> dict[str, Tensor]:
    """The state dictionary of a Lightning checkpoint, without executing what it brings.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds no state dictionary, or cannot be read without executing code.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; give the last.ckpt of a diffusion autoencoder")
    damaged = f"{path} is no checkpoint or is damaged; download it again"
    try:
        asked = get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{damaged} ({error})") from error
    foreign = [name for name in asked if not name.startswith("pytorch_lightning.")]
    if foreign:
        raise ValueError(
            f"{path} cannot be read without executing code: it brings {', '.join(foreign[:5])}; if you trust where it "
            'comes from, load it with torch.load(..., weights_only=False), write {"state_dict": its state_dict} with '
            "torch.save, and convert that"
        )
    try:
        with safe_globals([(Inert, name) for name in asked]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{damaged} ({error})") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path} must hold a `state_dict` of tensors; give the last.ckpt of a diffusion autoencoder")
    return state


def convert(checkpoint: str, out: str, architecture: Released = "ffhq256") -> None:
    """Writes a released checkpoint as safetensors, for `SavedDiffusionAutoencoder`.

    Args:
        checkpoint: last.ckpt.
        out: the .safetensors file.
        architecture: which of the released ones it is.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it cannot be read, or is of another architecture.
    """
    network = untrained(released(architecture))
    state = {"code": network.code, **renamed(read_checkpoint(checkpoint))}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"{checkpoint} is not of the architecture {architecture} ({str(error)[:500]}); give its own"
        ) from error
    digest = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    save_weights(out, network, network.config, {"converted_from": {"sha256": digest, "architecture": architecture}})
