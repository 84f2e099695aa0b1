"""`lcg edit`: the pipeline as a job that leaves pictures, latents and what they were made with.

Everything that can be wrong is found before work starts: names in edits, the sizes of images, networks that do not fit
together, a folder that holds something already or cannot be written.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors.torch import save_file

from lcg.data.framing import rgb
from lcg.data.store import LatentStore
from lcg.data.store.checks import check_latents
from lcg.data.store.manifest import NAME
from lcg.editing import EditSession, Inversion, Step
from lcg.editing.guided import check_strength
from lcg.generators.base import Generator, latents_sha256_of
from lcg.guidance import parse_edit
from lcg.models.choice import chosen
from lcg.nets.execution import Execution
from lcg.pictures import strips
from lcg.pipeline import CLASSIFIER, PRIOR, Pipeline, load
from lcg.places import claim, made_with, pick_device, refuse_occupied, save_images, write_provenance
from lcg.settings import Editing, Inverting

POOR = 0.05
"""The reconstruction error above which an image is warned of; those that a generator knows have about .005."""


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
    model: str | None = None,
    generator: Generator | None = None,
    inversion: Inverting = Inverting(),  # noqa: B008
    editing: Editing = Editing(),  # noqa: B008
    execution: Execution = Execution(),  # noqa: B008
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Edits images, one attribute after another: lcg edit --model avatars --source a.png b.png --edits +glasses -hat.

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
        prior: checkpoint of the prior, the diffusion model of latents, as `lcg fit` leaves it.
        classifier: checkpoint of the classifiers of noised latents, as `lcg fit` leaves it.
        model: in their place, name or folder of an exported model; `avatars` comes with lcg.
        generator: the frozen generator; the embedded one when left out.
        inversion: how images become latents.
        editing: how edits are made.
        execution: by which kernels and in which precision the networks run; `auto` is what was measured to be fastest.
        device: auto, cpu or cuda.
        overwrite: replace what an earlier run left in OUT.
    """
    check_request(source, edits, session)
    refuse_occupied(out, overwrite)
    for value in strengths:
        check_strength(value)
    if strength is not None:
        editing = replace(editing, strength=strength)
    place = pick_device(device)
    networks = chosen(model, prior, classifier)
    pipeline = load(*networks, generator, place, execution, editing=editing, inversion=inversion)
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

    write_edits(folder, pipeline, images, frames, [titled(step) for step in opened.steps], opened.code)
    if slider is not None:
        write_slider(folder, pipeline, slider, strengths, opened.code)
    (folder / "session.json").write_text(saved + "\n")
    write_provenance(
        folder,
        {
            "command": "edit",
            "source": source,
            "rows": rows,
            "session": session,
            "edits": [step.text for step in opened.steps],
            "strength": opened.strength,
            "strengths": strengths,
            "editing": asdict(editing),
            "inversion": None if inverted is None else {**asdict(inversion), **describe_inversion(inverted)},
            "seconds": seconds,
            **made_with(pipeline),
        },
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
        z_0 = pipeline.statistics.standardise(inverted.z)
        session = pipeline.session(z_0, None, pipeline.editing.strength, inverted.code)
    for edit in edits:
        session.add(edit)
    return session, images, inverted


def titled(step: Step) -> str:
    """The caption of a step."""
    return step.text if step.weight == 1 else f"{step.text} x{step.weight:g}"


def write_edits(
    folder: Path,
    pipeline: Pipeline,
    images: NDArray[np.uint8] | None,
    frames: list[torch.Tensor],
    steps: list[str],
    code: torch.Tensor | None,
) -> None:
    """OUT/images, OUT/strip.png and OUT/latents.safetensors: the sources and what each step made of them."""
    pictures, titles = [pipeline.decode(z_0, code=code) for z_0 in frames], ["reconstruction", *steps]
    if images is not None:
        pictures, titles = [images, *pictures], ["source", *titles]
    for number, picture in enumerate(pictures):
        save_images(folder / "images", picture, suffix=f"_{number}")
    strips(np.stack(pictures, axis=1), titles).save(folder / "strip.png")
    codes = {} if code is None else {"code": code.cpu().contiguous()}
    save_file({"z_0": torch.stack(frames, dim=1).cpu().contiguous(), **codes}, folder / "latents.safetensors")


def write_slider(
    folder: Path, pipeline: Pipeline, z_0: torch.Tensor, strengths: list[float], code: torch.Tensor | None
) -> None:
    """OUT/slider.png: a row per source, a column per strength; z_0 (B, S, *latent)."""
    codes = [None] * len(z_0) if code is None else [own.expand(z_0.shape[1], *own.shape) for own in code]
    pictures = np.stack([pipeline.decode(row, code=own) for row, own in zip(z_0, codes, strict=True)])
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


def read_sources(source: list[str], rows: list[int], pipeline: Pipeline) -> EditSession | NDArray[np.uint8]:
    """Rows of a store as a session without steps, or images (N, H, W, 3) uint8, which must become latents yet."""
    if len(source) == 1 and Path(source[0]).is_dir():
        return read_store(source[0], rows, pipeline)
    pipeline.inversion.check(pipeline.generator)
    return np.stack([read_image(path, pipeline.generator.image_shape) for path in source])


def read_store(path: str, rows: list[int], pipeline: Pipeline) -> EditSession:
    """Rows of a store with their labels. Raises ValueError where the store does not fit the networks."""
    if not (Path(path) / NAME).is_file() and any(Path(path).glob("*.[pj][np]*g")):
        raise ValueError(f"`source` must be image files or one latent store, got the folder {path}; give {path}/*")
    store = LatentStore.open(path)
    if store.latent_shape != tuple(pipeline.denoiser.latent_shape):
        raise ValueError(
            f"the store {path} has latents of shape {store.latent_shape}, the prior "
            f"{tuple(pipeline.denoiser.latent_shape)}; use the store that it was fitted on"
        )
    if store.schema != pipeline.schema:
        raise ValueError(f"the store {path} has other attributes than the classifier; use the store it was fitted on")
    encoder = latents_sha256_of(store.provenance.get("generator", {}))
    if encoder and encoder != pipeline.generator.latents_sha256():
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
        quoted = "; without quotes, the shell puts the files in the place of a pattern" if "*" in path else ""
        raise FileNotFoundError(f"no image at {path}; give image files or one latent store{quoted}")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(rgb(ImageOps.exif_transpose(image)))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # SyntaxError: PIL's, of a PNG
        raise ValueError(f"{path} is not an image that can be read ({error}); convert it to PNG") from error
    if pixels.shape[:2] != image_shape[1:]:
        expected, got = f"{image_shape[2]}x{image_shape[1]}", f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise ValueError(f"{path} must be {expected} pixels for this generator, got {got}; crop and resize it")
    return pixels
