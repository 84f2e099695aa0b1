"""Results of the Python API as the folders that the commands leave, by the commands' own means.

What `lcg generate` and `lcg edit` write has one form, whoever asked for it: so a folder that was saved here can be gone
on with there, and the other way about.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, tensor

from lcg.benchmarks.folder import write_tensors
from lcg.commands import write_edits
from lcg.generation.many import CHUNK, Generation, Request
from lcg.generation.trust import said_of
from lcg.places import PROVENANCE, claim, made_with, save_images, write_provenance
from lcg.results.edited import Edits
from lcg.results.samples import Samples


def save_samples(samples: Samples, folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Writes what `lcg generate` leaves; see `Samples.save`."""
    if samples.part:
        raise ValueError(
            "these are some of the samples that were drawn together, whose trust is told of all; save all of them, or "
            "single images by .pil(i).save(path)"
        )
    out, n = os.fspath(folder), len(samples)
    _refuse_others(Path(out), overwrite)
    request = Request(samples.formula, n, samples.seeds[0], max(CHUNK, n), images=True)
    generation = Generation(samples.pipeline, request, out)
    generation.begin(overwrite)
    save_images(generation.folder / "images", samples.images)
    tensors = {"z_0": samples.z_0.cpu().contiguous(), "seeds": tensor(samples.seeds)}
    write_tensors(generation.path(range(n)), tensors, said_of(samples.draw))
    generation.finish()
    return generation.folder


def save_edits(edits: Edits, folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Writes what `lcg edit` leaves; see `Edits.save`."""
    _refuse_others(Path(folder), overwrite)
    session, strength = None, edits.strength
    if isinstance(strength, float):
        opened = edits.pipeline.session(edits.latents[0], None, strength, edits.code)
        for step in edits.steps:
            opened.add(step)
        session = opened.to_json()  # refuses what is too large for a file before anything is written
    out = claim(os.fspath(folder))
    write_edits(out, edits.pipeline, edits.sources, list(edits.latents), list(edits.steps), edits.code)
    if session is not None:
        (out / "session.json").write_text(session + "\n")
    write_provenance(out, _told(edits, strength))
    return out


def _told(edits: Edits, strength: float | Tensor) -> dict[str, Any]:
    pipeline = edits.pipeline
    return {
        "command": "edit",
        "sources": len(edits.images),
        "edits": list(edits.steps),
        "strength": strength.tolist() if isinstance(strength, Tensor) else strength,
        "editing": asdict(pipeline.editing),
        "took": {step: [round(float(p), 4) for p in took] for step, took in edits.took.items()},
        **made_with(pipeline),
    }


def _refuse_others(folder: Path, overwrite: bool) -> None:
    """Raises OSError for a file, and for a folder that holds something that must not be touched."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"`folder` must be a folder, got the file {folder}; choose another")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(
            f"{folder} holds something already; choose another folder, or replace what lcg left there with "
            "overwrite=True"
        )
    if not (folder / PROVENANCE).is_file():
        raise FileExistsError(
            f"{folder} holds something that lcg did not leave, which is not replaced; choose another folder"
        )
