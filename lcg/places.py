"""Where a job runs, where its results go, and what is said there of how they were made.

A folder that holds something is never touched unless it was asked for, and then only what jobs of lcg leave is removed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lcg import __version__
from lcg.data.atomic import write_atomic
from lcg.pipeline import Pipeline

PROVENANCE = "provenance.json"
OWN_FILES = ("latents.safetensors", ".latents.safetensors.tmp", "samples.csv", "sheet.png", "slider.png")
OWN_IMAGE = re.compile(r"\d{4,}(_\d+)?\.png")
OWN_LATENTS = re.compile(r"\.?\d{9,}\.safetensors(\.tmp)?")
"""Of an earlier run, these are removed before another begins, and nothing else ever is."""


def pick_device(device: str) -> str:
    """`auto` becomes cuda where there is one. Raises ValueError when the device is not there."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if found else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(
            f"`device` must be auto, cpu, cuda or cuda:N, got {device!r}; `auto` takes a GPU if there is one"
        )
    if device.startswith("cuda") and not found:
        raise ValueError(f"`device` is {device!r}, but no CUDA device was found; use --device cpu")
    if int(device.partition(":")[2] or 0) >= max(found, 1):
        raise ValueError(f"`device` is {device!r}, but there are cuda:0 to cuda:{found - 1} only; choose one of them")
    return device


def refuse_occupied(out: str, overwrite: bool) -> None:
    """Raises FileExistsError when the folder for results holds something, NotADirectoryError when it is a file."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"`out` must be a folder, got the file {folder}; choose another")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(
            f"{folder} holds results already; choose another --out, or replace them with --overwrite true"
        )


def make_writable(out: str) -> Path:
    """The folder for results, made; raises PermissionError now rather than after the work."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".writable"
    probe.touch()
    probe.unlink()
    return folder


def claim(out: str) -> Path:
    """The folder for results, made, writable and without those of an earlier run. Called last before work starts."""
    folder = make_writable(out)
    if (folder / PROVENANCE).is_file():
        for part, own in (("latents", OWN_LATENTS), ("images", OWN_IMAGE)):
            for path in sorted((folder / part).glob("*")):  # there may have been more of them
                if own.fullmatch(path.name):
                    path.unlink()
        for name in OWN_FILES:
            (folder / name).unlink(missing_ok=True)
    return folder


def save_images(
    folder: Path, images: NDArray[np.uint8], suffix: str = "", first: int = 0, digits: int = 4
) -> list[str]:
    """Writes images (N, H, W, 3) as {number}{suffix}.png; returns their names relative to the folder's parent."""
    folder.mkdir(exist_ok=True)
    names = [f"{first + i:0{digits}d}{suffix}.png" for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    return [f"{folder.name}/{name}" for name in names]


def made_with(pipeline: Pipeline) -> dict[str, Any]:
    """Versions, the networks' store and the generator, in JSON primitives."""
    return {
        "lcg": __version__,
        "torch": torch.__version__,
        "store": pipeline.store,
        "generator": pipeline.generator.identity(),
    }


def write_provenance(folder: Path, entries: dict[str, Any]) -> None:
    """OUT/provenance.json: what made the results."""
    write_atomic(folder / PROVENANCE, (json.dumps(entries, indent=2) + "\n").encode())
