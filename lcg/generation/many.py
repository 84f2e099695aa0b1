"""Samples in chunks: any number of ranks draws them, nothing is lost when they are stopped, memory does not grow.

Sample i has seed `seed` + i and is a function of that seed, the networks and the settings. The samples of chunk k,
k * chunk <= i < (k + 1) * chunk, are drawn together by one rank, whichever it is, and leave one file, written whole or
not at all. So the number of ranks, and how often they were stopped, changes no bit (on one kind of device and with one
number of threads). Another size of chunks multiplies matrices of other shapes, whose sums are taken in another order:
latents are then equal up to rounding.

    OUT/latents.safetensors               "z_0" (n, *latent) standardised, "seeds" (n,) int64: one chunk
    OUT/latents/FIRST.safetensors         the same of several chunks, each by the number of its first sample
    OUT/images/NNNN.png, OUT/samples.csv  every image, and file and seed of each, where images are asked for
    OUT/sheet.png                         the first samples
    OUT/provenance.json                   the settings at once; when all samples are there, how far to trust them, too
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, arange

from lcg.benchmarks.folder import read_tensors, write_tensors
from lcg.data.store.manifest import difference, plain
from lcg.generation.trust import Said, described, said_of, trust
from lcg.generators.base import weights_sha256
from lcg.guidance import Formula, parse
from lcg.modules.pieces import Crew, Piece, Ranks
from lcg.pictures import contact_sheet
from lcg.pipeline import Pipeline
from lcg.places import PROVENANCE, claim, made_with, make_writable, refuse_occupied, save_images, write_provenance

CHUNK = 512
"""Samples that are drawn together; the batch of `Pipeline.draw`, so that one chunk is what it gives, to the bit."""
IMAGES_UP_TO = 10_000
"""Samples of which images are written unless asked otherwise: names of four digits, a folder that can be browsed."""
SHOWN = 256
"""Images on the sheet, at most."""
SEEDS = 2**32
"""Generators look at 32 bits: further seeds would give the same samples again."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Args:
        formula: what shall hold; None for samples of the prior.
        num: samples.
        seed: of the first.
        chunk: samples that are drawn together.
        images: whether every image is written.
    """

    formula: Formula | None
    num: int
    seed: int
    chunk: int
    images: bool

    def __post_init__(self) -> None:
        for name, value in (("num", self.num), ("chunk", self.chunk)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}")
        if not 0 <= self.seed <= SEEDS - self.num:
            raise ValueError(
                f"`seed` must be at least 0 and `seed` + `num` at most 2^32, got {self.seed} and {self.num}; "
                "further seeds give the same samples again"
            )

    @property
    def chunks(self) -> list[range]:
        """The numbers of the samples of each chunk."""
        return [range(start, min(start + self.chunk, self.num)) for start in range(0, self.num, self.chunk)]


class Generation:
    """Draws what is asked for into a folder.

    Args:
        pipeline: what draws.
        request: what is asked for.
        out: the folder.

    Raises:
        ValueError: the formula never or always holds, or the settings cannot be sampled with.
    """

    def __init__(self, pipeline: Pipeline, request: Request, out: str) -> None:
        self.pipeline, self.request, self.out, self.folder = pipeline, request, out, Path(out)
        if request.formula is not None:
            pipeline.term(request.formula)
        pipeline.sampling.build(pipeline.denoiser)
        self.plan = None if request.formula is None else pipeline.plan(request.formula)

    def settings(self) -> dict[str, Any]:
        """What samples depend on, in JSON primitives; two runs into one folder agree on it."""
        pipeline, request = self.pipeline, self.request
        settings = {
            "command": "generate",
            "formula": None if request.formula is None else str(request.formula),
            "seeds": [request.seed, request.seed + request.num - 1],
            "chunk": request.chunk,
            "images": request.images,
            "sampling": asdict(pipeline.sampling),
            "execution": asdict(pipeline.denoiser.execution),
            "guidance": asdict(pipeline.guidance),
            **({} if self.plan is None else described(self.plan)),
            "device": pipeline.device.type,
            "networks": {"prior": weights_sha256(pipeline.denoiser), "classifier": weights_sha256(pipeline.classifier)},
            **made_with(pipeline),
        }
        return plain(settings, "settings")

    # --- before ---

    def begin(self, overwrite: bool) -> dict[str, Any]:
        """Makes room and says what will be made, or finds what an earlier run with the same settings has left.

        Returns:
            What provenance.json says; with `seconds` if nothing is left to do.

        Raises:
            FileExistsError: the folder holds something else, or samples that were made with other settings.
            OSError: the folder cannot be written.
        """
        settings, provenance = self.settings(), self.folder / PROVENANCE
        if provenance.is_file() and not overwrite:
            told: dict[str, Any] = json.loads(provenance.read_text())
            self._refuse_others(told, settings)
            make_writable(self.out)
            return told
        refuse_occupied(self.out, overwrite)
        write_provenance(claim(self.out), settings)
        return settings

    def _refuse_others(self, found: dict[str, Any], settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            changed = difference(found.get(name), value, name)
            if changed is not None:
                raise FileExistsError(
                    f"{self.folder} holds results already, made with other settings: {changed}; give the same to go on "
                    "with them, choose another --out, or replace them with --overwrite true"
                )

    # --- the work ---

    def path(self, rows: range) -> Path:
        """The file of a chunk, there when its samples and images are."""
        if self.request.num <= self.request.chunk:
            return self.folder / "latents.safetensors"
        return self.folder / "latents" / f"{rows.start:09d}.safetensors"

    def pieces(self) -> list[Piece]:
        """A piece of work per chunk."""
        return [
            Piece(f"{self.request.chunk} at once", path, partial(self.make, rows, path))
            for rows in self.request.chunks
            for path in [self.path(rows)]
        ]

    def make(self, rows: range, path: Path) -> None:
        """Draws a chunk and writes it, the images first."""
        seed = self.request.seed
        draw = self.pipeline.draw(range(seed + rows.start, seed + rows.stop), self.request.formula)
        path.parent.mkdir(exist_ok=True)
        if self.request.images:
            save_images(self.folder / "images", self.pipeline.decode(draw.z_0), first=rows.start, digits=self._digits)
        tensors = {"z_0": draw.z_0, "seeds": seed + arange(rows.start, rows.stop)}
        write_tensors(path, tensors, said_of(draw))

    @property
    def _digits(self) -> int:
        return max(4, len(str(self.request.num - 1)))

    # --- after ---

    def finish(self, **more: Any) -> dict[str, Any]:
        """Shows the samples and says how far to trust them; returns what provenance.json says."""
        told = self.settings() | more
        if self.plan is not None:
            told |= trust(self.plan, [self._said(rows) for rows in self.request.chunks])
        if self.request.images:
            self._list_samples()
        sheet = self.folder / "sheet.png"
        if not sheet.is_file():
            shown = self._shown(min(self.request.num, SHOWN))
            contact_sheet(shown, columns=16 if len(shown) > 32 else 8).save(sheet)
        write_provenance(self.folder, told)
        return told

    def _said(self, rows: range) -> Said:
        return len(rows), _read(self.path(rows))[1]

    def _list_samples(self) -> None:
        with (self.folder / "samples.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("file", "seed"))
            for i in range(self.request.num):
                table.writerow((f"images/{i:0{self._digits}d}.png", self.request.seed + i))

    def _shown(self, count: int) -> NDArray[np.uint8]:
        """The first images (count, H, W, 3)."""
        if self.request.images:
            files = (self.folder / "images" / f"{i:0{self._digits}d}.png" for i in range(count))
            return np.stack([np.asarray(Image.open(file)) for file in files])
        images: list[NDArray[np.uint8]] = []
        for _, z_0 in read_latents(self.folder):
            left = count - sum(map(len, images))
            if left <= 0:
                break
            images.append(self.pipeline.decode(z_0[:left].to(self.pipeline.device)))
        return np.concatenate(images)


def generate_many(
    pipeline: Pipeline,
    out: str | os.PathLike[str],
    formula: str | None = None,
    num: int = 64,
    seed: int = 0,
    chunk: int = CHUNK,
    images: bool | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    overwrite: bool = False,
) -> dict[str, Any] | None:
    """Draws samples into a folder, chunk by chunk, or goes on with those that are missing there.

    Args:
        pipeline: what draws, on this rank's device.
        out: the folder; what it will hold stands above.
        formula: what shall hold; None for samples of the prior.
        num: samples.
        seed: of the first; sample i has `seed` + i.
        chunk: samples that are drawn together.
        images: whether every image is written; None for up to 10 000 samples.
        ranks: how many processes share the work.
        overwrite: begin anew, in the place of what an earlier run left.

    Returns:
        What OUT/provenance.json says, and as `found` how many chunks were there; None on the ranks that do not report.

    Raises:
        FileExistsError: `out` holds something else, or samples that were made with other settings.
        OSError: `out` cannot be written; raised before any work.
        ValueError: the formula cannot be read, can never hold or always does, or a number is out of range.
    """
    parsed = None if formula is None else parse(formula, pipeline.schema)
    request = Request(parsed, num, seed, chunk, num <= IMAGES_UP_TO if images is None else images)
    generation, crew = Generation(pipeline, request, os.fspath(out)), Crew(ranks)
    pieces = generation.pieces()
    before = generation.begin(overwrite) if crew.leads else {}
    started, found = time.perf_counter(), sum(piece.path.is_file() for piece in pieces)
    crew.run("samples", pieces)
    if not crew.leads:
        return None
    if found == len(pieces) and "seconds" in before:
        return before | {"found": found}
    return generation.finish(found=found, ranks=ranks.count, seconds=time.perf_counter() - started)


def read_latents(out: str | os.PathLike[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """What `lcg generate` left, chunk after chunk: seeds (n,) int64 and standardised latents (n, *latent).

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file is damaged.
    """
    folder = Path(out)
    paths = sorted((folder / "latents").glob("[0-9]*.safetensors")) or [folder / "latents.safetensors"]
    if not paths[0].is_file():
        raise FileNotFoundError(f"no latents in {folder}; make them with `lcg generate --out {folder}`")
    for path in paths:
        tensors, _ = _read(path)
        yield tensors["seeds"], tensors["z_0"]


def _read(path: Path) -> tuple[dict[str, Tensor], Any]:
    try:
        return read_tensors(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and generate again, the others stay") from error
