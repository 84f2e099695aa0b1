"""`lcg generate` and `lcg edit`: the pipeline as jobs that leave pictures, latents and what they were made with.

Everything that can be wrong is found before work starts: names in formulas and edits, the sizes of images, networks
that do not fit together, a folder that holds something already or cannot be written.
"""

from __future__ import annotations

import csv
import json
import math
import re
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors.torch import save_file

from lcg import __version__
from lcg.benchmarks.pictures import contact_sheet, strips
from lcg.data.store import LatentStore, check_latents
from lcg.generators.base import Generator, weights_sha256
from lcg.guidance import parse, parse_edit
from lcg.pipeline import CLASSIFIER, PRIOR, Draw, Pipeline, load
from lcg.settings import Editing, Extrapolate, Guidance, Sampling

OWN_IMAGE = re.compile(r"\d{4,}(_\d+)?\.png")
"""How `save_images` names images; nothing else is ever removed."""


def generate_job(
    formula: str | None = None,
    num: int = 64,
    out: str = "runs/generate",
    seed: int = 0,
    prior: str = PRIOR,
    classifier: str = CLASSIFIER,
    generator: Generator | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen; the defaults are the help)
    guidance: Guidance = Guidance(),  # noqa: B008
    extrapolate: Extrapolate | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Generates images that satisfy a formula over attributes, such as "glasses & smile & hat & ~beard".

    Writes OUT/sheet.png, OUT/images/NNNN.png, OUT/samples.csv (file, seed), OUT/latents.safetensors and
    OUT/provenance.json.

    Args:
        formula: what shall hold; & and, | or, ~ not, NAME=VALUE, a weight as in smile^2.0; None samples the prior.
        num: how many images.
        out: folder for the results.
        seed: of the first image; image i has seed + i and is the same whatever num is.
        prior: checkpoint of the prior.
        classifier: checkpoint of the classifiers.
        generator: the frozen generator; the embedded one when left out.
        sampling: how latents are sampled.
        guidance: how the formula guides.
        extrapolate: auto, always or never; what `guidance.extrapolate` says when left out.
        device: auto, cpu or cuda.
        overwrite: replace what an earlier run left in OUT.
    """
    if num < 1:
        raise ValueError(f"`num` must be at least 1, got {num}")
    refuse_occupied(out, overwrite)
    if extrapolate is not None:
        guidance = replace(guidance, extrapolate=extrapolate)
    pipeline = load(prior, classifier, generator, pick_device(device), sampling=sampling, guidance=guidance)
    if formula is not None:
        pipeline.term(parse(formula, pipeline.schema))
    sampling.build(pipeline.denoiser)
    folder = claim(out)
    started = time.perf_counter()
    samples = pipeline.generate(formula, num, seed)
    seconds = time.perf_counter() - started

    files = save_images(folder / "images", samples.images)
    contact_sheet(samples.images, columns=16 if num > 32 else 8).save(folder / "sheet.png")
    with (folder / "samples.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "seed"), *zip(files, samples.seeds, strict=True)])
    save_file({"z_0": samples.z_0.cpu().contiguous()}, folder / "latents.safetensors")
    write_provenance(
        folder,
        pipeline,
        command="generate",
        formula=None if samples.formula is None else str(samples.formula),
        seeds=[seed, seed + num - 1],
        sampling=asdict(sampling),
        guidance=asdict(guidance),
        seconds=seconds,
        **describe_draw(samples.draw),
    )
    for warning in samples.draw.warnings:
        print(f"warning: {warning}")
    print(f"{num} images in {seconds:.1f} s: {folder / 'sheet.png'}")


def describe_draw(draw: Draw) -> dict[str, Any]:
    """How samples of a formula were drawn and how far to trust them, in JSON primitives; empty without a formula."""
    if draw.plan is None:
        return {}
    plan = draw.plan
    numbers = {"ess": draw.ess, "log_p_formula": draw.log_p_formula, "log_p_formula_stderr": draw.stderr}
    return {
        "extrapolated": plan.extrapolate,
        "dependence": plan.dependence,
        "weight": asdict(plan.weight),
        "support": str(plan.support),
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "warnings": list(draw.warnings),
    }


def edit_job(
    source: list[str],
    edits: list[str],
    rows: list[int] = [0, 1, 2, 3, 4, 5, 6, 7],  # noqa: B006 (never changed; the default is the help)
    out: str = "runs/edit",
    prior: str = PRIOR,
    classifier: str = CLASSIFIER,
    generator: Generator | None = None,
    editing: Editing = Editing(),  # noqa: B008
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Edits images, one attribute after another: lcg edit --source a.png b.png --edits +glasses -hat hair_color=red.

    Writes OUT/strip.png (source, reconstruction, the image after each edit), OUT/images/ROW_STEP.png,
    OUT/latents.safetensors and OUT/provenance.json.

    Args:
        source: image files, or one latent store, whose samples are chosen by `rows`.
        edits: what to change, in order: +NAME, -NAME or NAME=VALUE.
        rows: which samples of a store.
        out: folder for the results.
        prior: checkpoint of the prior.
        classifier: checkpoint of the classifiers.
        generator: the frozen generator; the embedded one when left out.
        editing: how edits are made.
        device: auto, cpu or cuda.
        overwrite: replace what an earlier run left in OUT.
    """
    if not source or not edits:
        raise ValueError("`source` and `edits` must each name at least one; such as --source a.png --edits +glasses")
    refuse_occupied(out, overwrite)
    pipeline = load(prior, classifier, generator, pick_device(device), editing=editing)
    pipeline.editor()
    for edit in edits:
        parse_edit(edit, pipeline.schema)
    z_0, labels, images = read_sources(source, rows, pipeline)
    folder = claim(out)
    started = time.perf_counter()
    results = pipeline.edit_latents(z_0, edits, labels)
    seconds = time.perf_counter() - started

    frames = [pipeline.decode(z_0), *(pipeline.decode(result.z_0) for result in results)]
    titles = ["reconstruction", *edits]
    if images is not None:
        frames, titles = [images, *frames], ["source", *titles]
    for step, frame in enumerate(frames):
        save_images(folder / "images", frame, suffix=f"_{step}")
    strips(np.stack(frames, axis=1), titles).save(folder / "strip.png")
    save_file(
        {"z_0": torch.stack([z_0, *(r.z_0 for r in results)], dim=1).cpu().contiguous()}, folder / "latents.safetensors"
    )
    write_provenance(
        folder,
        pipeline,
        command="edit",
        source=source,
        rows=rows,
        edits=edits,
        editing=asdict(editing),
        seconds=seconds,
    )
    print(f"{len(z_0)} sources, {len(edits)} edits in {seconds:.1f} s: {folder / 'strip.png'}")


def refuse_occupied(out: str, overwrite: bool) -> None:
    """Raises FileExistsError when the folder for results holds something, NotADirectoryError when it is a file."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"`out` must be a folder, got the file {folder}; choose another")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(
            f"{folder} holds results already; choose another --out, or replace them with --overwrite true"
        )


def claim(out: str) -> Path:
    """The folder for results, made, writable and without images of an earlier run. Called last before work starts."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".writable"
    probe.touch()  # raises PermissionError now rather than after the work
    probe.unlink()
    if (folder / "provenance.json").is_file():
        for image in (folder / "images").glob("*.png"):  # there may have been more of them
            if OWN_IMAGE.fullmatch(image.name):
                image.unlink()
    return folder


def pick_device(device: str) -> str:
    """`auto` becomes cuda where there is one. Raises ValueError when the device is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"`device` is {device!r}, but no CUDA device was found; use --device cpu")
    return device


def read_sources(
    source: list[str], rows: list[int], pipeline: Pipeline
) -> tuple[torch.Tensor, torch.Tensor | None, NDArray[np.uint8] | None]:
    """Standardised latents (N, *latent), their labels where known, and the images where given."""
    if len(source) == 1 and Path(source[0]).is_dir():
        store = LatentStore.open(source[0])
        if store.latent_shape != tuple(pipeline.denoiser.latent_shape):
            raise ValueError(
                f"the store {source[0]} has latents of shape {store.latent_shape}, the prior "
                f"{tuple(pipeline.denoiser.latent_shape)}; use the store that it was fitted on"
            )
        if store.schema != pipeline.schema:
            raise ValueError(
                f"the store {source[0]} has other attributes than the classifier; use the store it was fitted on"
            )
        encoder = store.provenance.get("generator", {}).get("weights_sha256", "")
        if encoder and encoder != weights_sha256(pipeline.generator):
            raise ValueError(
                f"the store {source[0]} was encoded by another generator than this one; encode its images again"
            )
        wrong = [row for row in rows if not 0 <= row < len(store)]
        if wrong or not rows:
            got = wrong[0] if wrong else "none"
            raise ValueError(f"`rows` must name samples of the store, 0..{len(store) - 1}, got {got}")
        z = store.latents(rows)
        check_latents(z.numpy(), store.index(rows).numpy())
        z_0 = pipeline.statistics.standardise(z).to(pipeline.device)
        return z_0, store.labels(rows).to(pipeline.device), None
    images = np.stack([read_image(path, pipeline.generator.image_shape) for path in source])
    return pipeline.encode(images), None, images


def read_image(path: str, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """One image (H, W, 3) uint8. Raises FileNotFoundError, or ValueError for another size or no image."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no image at {path}; give image files or one latent store")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: what PIL calls a broken PNG
        raise ValueError(f"{path} is not an image that can be read ({error}); convert it to PNG") from error
    if pixels.shape[:2] != image_shape[1:]:
        expected, got = f"{image_shape[2]}x{image_shape[1]}", f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise ValueError(f"{path} must be {expected} pixels for this generator, got {got}; crop and resize it")
    return pixels


def save_images(folder: Path, images: NDArray[np.uint8], suffix: str = "") -> list[str]:
    """Writes images (N, H, W, 3) as NNNN{suffix}.png; returns their names relative to the folder's parent."""
    folder.mkdir(exist_ok=True)
    names = [f"{i:04d}{suffix}.png" for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    return [f"{folder.name}/{name}" for name in names]


def write_provenance(folder: Path, pipeline: Pipeline, **entries: Any) -> None:
    """OUT/provenance.json: what made the results."""
    entries |= {"lcg": __version__, "torch": torch.__version__, "store": pipeline.store}
    entries["generator"] = pipeline.generator.identity()
    (folder / "provenance.json").write_text(json.dumps(entries, indent=2) + "\n")
