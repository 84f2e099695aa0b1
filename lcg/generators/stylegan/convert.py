"""`lcg convert-stylegan`: the networks that NVIDIA publishes, as weights that are safe to pass on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from lcg import __version__
from lcg.generators.stylegan.files import write
from lcg.generators.stylegan.generator import networks
from lcg.generators.stylegan.isolation import read_isolated
from lcg.generators.stylegan.official import FILTER_TOLERANCE, converted


def convert_stylegan_job(
    pickle: str,
    out: str,
    network: Literal["G_ema", "G"] = "G_ema",
    memory: float = 2.0,
    seconds: int = 600,
    overwrite: bool = False,
) -> None:
    """Converts an official StyleGAN2 or StyleGAN3: lcg convert-stylegan ffhq.pkl ffhq.safetensors.

    Takes the PyTorch pickles of NVIDIA's stylegan2-ada-pytorch and stylegan3 (not those of the TensorFlow era) without
    executing them. A pickle is a program. This one is read by a reader that knows the dozen names which official files
    have need of, and gives each a meaning of its own; the source code in the file is never executed, and any other
    name ends the conversion. The reader works in a process with bounds of memory and time, which can open no file and
    start no process and, where the system allows it, has no network. Trusted are Python's unpickler, with such
    names, and torch.load with weights_only. Whether the weights are what they claim to be, nothing can tell.

    Args:
        pickle: the official file.
        out: the .safetensors file to write, for `weights` of lcg.generators.stylegan.StyleGAN2 or StyleGAN3.
        network: which of its networks, G_ema or G; official images come from G_ema.
        memory: GiB that reading may take, beside eight times the file's size.
        seconds: that reading may take.
        overwrite: replace OUT.
    """
    source, target = Path(pickle), Path(out)
    if memory <= 0 or seconds < 1:
        raise ValueError(f"`memory` must be > 0 and `seconds` at least 1, got {memory:g} and {seconds}")
    if not source.is_file():
        raise FileNotFoundError(f"no pickle at {source}; give the .pkl file of an official StyleGAN")
    if target.suffix != ".safetensors":
        raise ValueError(f"`out` must be a .safetensors file, got {out}")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; use another name or --overwrite true")
    found = read_isolated(source, network, int(memory * 2**30), seconds)
    try:
        kind, architecture, state, filters = converted(found)
        mapping, synthesis = networks(kind, architecture)
        built = nn.ModuleDict({"mapping": mapping, "synthesis": synthesis})
        built.load_state_dict(state)
        for name, theirs in filters.items():
            ours = built.get_buffer(name)
            if ours.shape != theirs.shape or not torch.allclose(ours, theirs, atol=FILTER_TOLERANCE):
                raise ValueError(f"the filter {name} is not what its settings say; it was designed otherwise")
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{source} cannot be converted: {error}") from error
    provenance = {"file": source.name, "sha256": sha256(source), "network": network, "lcg": __version__}
    write(target, kind, architecture, state, provenance)
    count = sum(parameter.numel() for parameter in built.parameters()) / 1e6
    size, latents = synthesis.size, synthesis.latents
    place = "a process" if found.offline else "a process that this system did not let give up the internet"
    print(
        f"{kind}, {count:.2f} M parameters, {size} x {size}, {latents} latents of {len(mapping.w_mean)}: {target}\n"
        f"Nothing that {source.name} brings was executed; it was read in {place}."
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
