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
from lcg.editing import EditSession, Inversion, Step
from lcg.editing.guided import check_strength
from lcg.generators.base import Generator, weights_sha256
from lcg.guidance import parse, parse_edit
from lcg.pipeline import CLASSIFIER, PRIOR, Draw, Pipeline, load
from lcg.settings import Editing, Extrapolate, Guidance, Inverting, Sampling

OWN_IMAGE = re.compile(r"\d{4,}(_\d+)?\.png")
"""How `save_images` names images; of an earlier run, these and its slider are removed, and nothing else ever is."""

POOR = 0.05
"""The reconstruction error above which an image is warned of; those that a generator knows have about .005."""


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
    source: list[str] = [],  # noqa: B006 (never changed; the default is the help)
    edits: list[str] = [],  # noqa: B006
    rows: list[int] = [0, 1, 2, 3, 4, 5, 6, 7],  # noqa: B006
    session: str | None = None,
    strength: float | None = None,
    strengths: list[float] = [],  # noqa: B006
    out: str = "runs/edit",
    prior: str = PRIOR,
    classifier: str = CLASSIFIER,
    generator: Generator | None = None,
    inversion: Inverting = Inverting(),  # noqa: B008
    editing: Editing = Editing(),  # noqa: B008
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Edits images, one attribute after another: lcg edit --source a.png b.png --edits +glasses -hat hair_color=red.

    Writes OUT/strip.png (source, reconstruction, the image after each edit), OUT/images/ROW_STEP.png,
    OUT/latents.safetensors, OUT/session.json, from which the same edits can be made again, OUT/provenance.json and,
    with `strengths`, OUT/slider.png.

    Args:
        source: image files, or one latent store, whose samples are chosen by `rows`.
        edits: what to change, in order: +NAME, -NAME, NAME=VALUE or, of a continuous attribute, NAME=NUMBER.
        rows: which samples of a store.
        session: session.json of an earlier edit, in the place of `source` and `edits`; under the same `editing` it
            gives the same results.
        strength: how far to go, from 0, the source, to 1; what the session or `editing.strength` says when left out.
        strengths: draws all edits together at each of these, side by side.
        out: folder for the results.
        prior: checkpoint of the prior.
        classifier: checkpoint of the classifiers.
        generator: the frozen generator; the embedded one when left out.
        inversion: how images become latents.
        editing: how edits are made.
        device: auto, cpu or cuda.
        overwrite: replace what an earlier run left in OUT.
    """
    check_request(source, edits, session)
    refuse_occupied(out, overwrite)
    for value in strengths:
        check_strength(value)
    if strength is not None:
        editing = replace(editing, strength=strength)
    pipeline = load(prior, classifier, generator, pick_device(device), editing=editing, inversion=inversion)
    pipeline.editor()
    for edit in edits:
        parse_edit(edit, pipeline.schema)
    given = read_sources(source, rows, pipeline) if session is None else reopen(session, strength, pipeline)
    folder = claim(out)
    started = time.perf_counter()
    opened, images, inverted = begin(given, edits, pipeline)
    saved = opened.to_json()  # refuses what is too large for a file before it is edited
    frames, slider = opened.frames(), opened.strip(strengths) if strengths else None
    seconds = time.perf_counter() - started

    write_edits(folder, pipeline, images, frames, [titled(step) for step in opened.steps])
    if slider is not None:
        write_slider(folder, pipeline, slider, strengths)
    (folder / "session.json").write_text(saved + "\n")
    write_provenance(
        folder,
        pipeline,
        command="edit",
        source=source,
        rows=rows,
        session=session,
        edits=[step.text for step in opened.steps],
        strength=opened.strength,
        strengths=strengths,
        editing=asdict(editing),
        inversion=None if inverted is None else {**asdict(inversion), **describe_inversion(inverted)},
        seconds=seconds,
    )
    if inverted is not None:
        print("\n".join(judge_inversion(inverted, source)))
    print(f"{len(opened.z_0)} sources, {len(opened.steps)} edits in {seconds:.1f} s: {folder / 'strip.png'}")


def check_request(source: list[str], edits: list[str], session: str | None) -> None:
    """Raises ValueError unless there are sources and edits, or a session that holds both."""
    if session is None and not (source and edits):
        raise ValueError(
            "`source` and `edits` must each name at least one; such as --source a.png --edits +glasses, "
            "or --session runs/edit/session.json"
        )
    if session is not None and (source or edits):
        named = " and ".join(f"`{name}`" for name, given in (("source", source), ("edits", edits)) if given)
        raise ValueError(
            f"{named} cannot be given beside `session`, which holds sources and edits already; leave out one or other"
        )


def reopen(path: str, strength: float | None, pipeline: Pipeline) -> EditSession:
    """A session from its file, with another strength when one is given or it has none."""
    session = pipeline.open_session(path)
    if strength is not None or session.strength is None:
        session.strength = pipeline.editing.strength
    else:
        check_strength(session.strength)
    return session


def begin(
    given: EditSession | NDArray[np.uint8], edits: list[str], pipeline: Pipeline
) -> tuple[EditSession, NDArray[np.uint8] | None, Inversion | None]:
    """The session with the edits as its steps; of images also these, and how they became latents."""
    images = inverted = None
    if isinstance(given, EditSession):
        session = given
    else:
        images, inverted = given, pipeline.invert(given)
        session = pipeline.session(pipeline.statistics.standardise(inverted.z), None, pipeline.editing.strength)
    for edit in edits:
        session.add(edit)
    return session, images, inverted


def titled(step: Step) -> str:
    """The caption of a step."""
    return step.text if step.weight == 1 else f"{step.text} x{step.weight:g}"


def write_edits(
    folder: Path, pipeline: Pipeline, images: NDArray[np.uint8] | None, frames: list[torch.Tensor], steps: list[str]
) -> None:
    """OUT/images, OUT/strip.png and OUT/latents.safetensors: the sources and what each step made of them."""
    pictures, titles = [pipeline.decode(z_0) for z_0 in frames], ["reconstruction", *steps]
    if images is not None:
        pictures, titles = [images, *pictures], ["source", *titles]
    for number, picture in enumerate(pictures):
        save_images(folder / "images", picture, suffix=f"_{number}")
    strips(np.stack(pictures, axis=1), titles).save(folder / "strip.png")
    save_file({"z_0": torch.stack(frames, dim=1).cpu().contiguous()}, folder / "latents.safetensors")


def write_slider(folder: Path, pipeline: Pipeline, z_0: torch.Tensor, strengths: list[float]) -> None:
    """OUT/slider.png: a row per source, a column per strength; z_0 (B, S, *latent)."""
    pictures = np.stack([pipeline.decode(row) for row in z_0])
    strips(pictures, [f"{strength:g}" for strength in strengths]).save(folder / "slider.png")


def describe_inversion(inverted: Inversion) -> dict[str, Any]:
    """How well images became latents, source by source, in JSON primitives."""
    return {
        "reconstruction_error": inverted.error.tolist(),
        "steps_taken": inverted.steps.tolist(),
        "converged": inverted.converged.tolist(),
    }


def judge_inversion(inverted: Inversion, source: list[str]) -> list[str]:
    """How well images became latents, in plain words: a line, and a warning where one did not."""
    worst = int(inverted.error.argmax())
    error, mean = float(inverted.error[worst]), float(inverted.error.mean())
    lines = [f"reconstruction error: {mean:.3f} on average, {error:.3f} at worst ({source[worst]})"]
    if error > POOR:
        lines.append(
            f"warning: the generator does not reproduce {source[worst]} well (error {error:.3f}, of at most 1), so its "
            "edits show another image; crop it as the training images are, or try --inversion.how both"
        )
    return lines


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
        (folder / "slider.png").unlink(missing_ok=True)
    return folder


def pick_device(device: str) -> str:
    """`auto` becomes cuda where there is one. Raises ValueError when the device is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"`device` is {device!r}, but no CUDA device was found; use --device cpu")
    return device


def read_sources(source: list[str], rows: list[int], pipeline: Pipeline) -> EditSession | NDArray[np.uint8]:
    """Rows of a store as a session without steps, or images (N, H, W, 3) uint8, which must become latents yet."""
    if len(source) == 1 and Path(source[0]).is_dir():
        return read_store(source[0], rows, pipeline)
    pipeline.inversion.check(pipeline.generator)
    return np.stack([read_image(path, pipeline.generator.image_shape) for path in source])


def read_store(path: str, rows: list[int], pipeline: Pipeline) -> EditSession:
    """Rows of a store with their labels. Raises ValueError where the store does not fit the networks."""
    store = LatentStore.open(path)
    if store.latent_shape != tuple(pipeline.denoiser.latent_shape):
        raise ValueError(
            f"the store {path} has latents of shape {store.latent_shape}, the prior "
            f"{tuple(pipeline.denoiser.latent_shape)}; use the store that it was fitted on"
        )
    if store.schema != pipeline.schema:
        raise ValueError(f"the store {path} has other attributes than the classifier; use the store it was fitted on")
    encoder = store.provenance.get("generator", {}).get("weights_sha256", "")
    if encoder and encoder != weights_sha256(pipeline.generator):
        raise ValueError(f"the store {path} was encoded by another generator than this one; encode its images again")
    wrong = [row for row in rows if not 0 <= row < len(store)]
    if wrong or not rows:
        got = wrong[0] if wrong else "none"
        raise ValueError(f"`rows` must name samples of the store, 0..{len(store) - 1}, got {got}")
    z = store.latents(rows)
    check_latents(z.numpy(), store.index(rows).numpy())
    return pipeline.session(pipeline.statistics.standardise(z), store.labels(rows), pipeline.editing.strength)


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
