"""What is drawn, and what is known about it: the plan for a formula, latents, images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lcg.guidance import Dependence, Formula, Support
from lcg.results.display import SHOWN, block, code, grid, note, picture, png, quiet, strong
from lcg.settings import Weight

if TYPE_CHECKING:
    from lcg.pipeline import Pipeline


@dataclass(frozen=True, repr=False)
class Plan:
    """How a formula will be sampled, and why.

    Attributes:
        formula: what shall hold.
        support: the evidence on whether the prior has seen it.
        extrapolate: whether it is sampled beyond the prior's support.
        dependence: how several attributes are read.
        weight: of the guidance.
    """

    formula: Formula
    support: Support
    extrapolate: bool
    dependence: Dependence
    weight: Weight

    @property
    def warnings(self) -> tuple[str, ...]:
        """In plain words, why samples of this formula should not be trusted blindly."""
        if self.extrapolate and self.support.beyond:
            return (f"{self.formula} is beyond the prior's support ({self.support}): samples are extrapolated",)
        if self.support.beyond:
            return (f"{self.formula} is beyond the prior's support ({self.support}): no conditional to sample",)
        return ()

    def __str__(self) -> str:
        how = "extrapolated" if self.extrapolate else "sampled as a conditional"
        where = "beyond" if self.support.beyond else "within"
        read = "one by one" if self.dependence == "independent" else "together"
        weight = f"{self.weight.early:g}"
        if self.weight.late not in (None, self.weight.early):
            weight += f", {self.weight.late:g} once t < {self.weight.since:g}"
        return (
            f"{where} the prior's support ({self.support}): {how}, "
            f"attributes read {read}, weight of the guidance {weight}"
        )

    def __repr__(self) -> str:
        return f"Plan({self.formula}: {self})"

    def _repr_html_(self) -> str:
        return block(f"{strong('Plan')} for {code(str(self.formula))}", quiet(str(self)))


@dataclass(frozen=True)
class Draw:
    """Latents, and what is known about how far to trust them.

    Attributes:
        z_0: (N, *latent) standardised.
        plan: how they were sampled; None for samples of the prior.
        ess: smallest effective sample size on the way as a share of the particles, the mean over samples; nan without
            particles.
        log_p_formula: estimate of log P(formula) under the prior, nan when there is none.
        stderr: of `log_p_formula`.
        warnings: in plain words, why the samples should not be trusted.
        drawn: latents that were sampled for these, with those that were drawn again.
    """

    z_0: Tensor
    plan: Plan | None = None
    ess: float = math.nan
    log_p_formula: float = math.nan
    stderr: float = math.nan
    warnings: tuple[str, ...] = ()
    drawn: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Generated images: a sequence of `Sample`, which shows itself in a notebook.

    Attributes:
        draw: their latents, and how far to trust them.
        images: (N, H, W, C) uint8.
        seeds: the seed of each.
        pipeline: what drew them.
        part: whether they are some of those that were drawn together; `draw` then tells of all of these.

    Example:
        >>> samples = pipeline.generate("glasses", n=4, seed=10)
        >>> len(samples), samples[1]
        (4, Sample(seed 11 for glasses, of which the classifier reads 1.00))
        >>> samples.pil(0).size, samples.sheet(columns=2, scale=1).size
        ((64, 64), (130, 130))
        >>> [sample.seed for sample in samples[2:]]
        [12, 13]
    """

    draw: Draw
    images: NDArray[np.uint8]
    seeds: tuple[int, ...]
    pipeline: Pipeline
    part: bool = False

    @property
    def z_0(self) -> Tensor:
        """(N, *latent) standardised."""
        return self.draw.z_0

    @property
    def plan(self) -> Plan | None:
        """How they were sampled; None for samples of the prior."""
        return self.draw.plan

    @property
    def formula(self) -> Formula | None:
        """What they were guided by."""
        return None if self.draw.plan is None else self.draw.plan.formula

    @property
    def warnings(self) -> tuple[str, ...]:
        """In plain words, why they should not be trusted blindly; none where there is no reason."""
        return self.draw.warnings

    @cached_property
    def probabilities(self) -> NDArray[np.float32] | None:
        """(N,) what the classifier reads for the formula in each, from 0 to 1; None for samples of the prior."""
        if self.formula is None:
            return None
        return self.pipeline.log_probability(self.formula, self.z_0).exp().float().cpu().numpy()

    # --- a sequence ---

    def __len__(self) -> int:
        return len(self.seeds)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            draw = replace(self.draw, z_0=self.z_0[index])
            return Samples(draw, self.images[index], self.seeds[index], self.pipeline, part=True)
        return Sample(self, range(len(self))[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = np.asarray(self.images, dtype)
        return array.copy() if copy else array

    # --- pictures and files ---

    def pil(self, index: int) -> Image.Image:
        """One image, as the generator made it."""
        return Image.fromarray(self.images[index])

    def sheet(self, columns: int = 8, scale: int = 2) -> Image.Image:
        """All images in reading order, each enlarged by a whole factor."""
        from lcg.pictures import contact_sheet

        return contact_sheet(self.images, columns, scale)

    def save(self, folder: str | PathLike[str], overwrite: bool = False) -> Path:
        """Writes what `lcg generate` leaves: images, their seeds, latents, a sheet, and what they were made with.

        Args:
            folder: where; a folder that holds something else is not touched.
            overwrite: whether results of an earlier run of lcg are replaced there.

        Returns:
            The folder.

        Raises:
            FileExistsError: the folder holds something already.
            ValueError: these are some of those that were drawn together.
            OSError: the folder cannot be written.
        """
        from lcg.results.saving import save_samples

        return save_samples(self, folder, overwrite)

    # --- how they show themselves ---

    def __str__(self) -> str:
        height, width = self.images.shape[1:3]
        seeds = f"seed {self.seeds[0]}" if len(self) == 1 else f"seeds {self.seeds[0]} to {self.seeds[-1]}"
        of = "of the prior" if self.formula is None else f"for {self.formula}"
        return f"{self._count} of {width}x{height} {of}, {seeds}{self._judged()}"

    @property
    def _count(self) -> str:
        return "1 image" if len(self) == 1 else f"{len(self)} images"

    def _judged(self) -> str:
        if self.probabilities is None:
            return ""
        return f"; the classifier agrees with {int((self.probabilities > 0.5).sum())} of {len(self)}"

    def __repr__(self) -> str:
        return f"Samples({self})"

    def _repr_html_(self) -> str:
        of = "of the prior" if self.formula is None else f"for {code(str(self.formula))}"
        title = f"{strong(self._count)} {of} {quiet(self._judged().removeprefix('; '))}"
        pictures = grid(sample._figure() for sample in self[:SHOWN])
        more = [] if len(self) <= SHOWN else [quiet(f"and {len(self) - SHOWN} more, in .sheet()")]
        said = [] if self.plan is None else [f'<div style="margin-top:6px">{quiet(str(self.plan))}</div>']
        return block(title, pictures, *more, *map(note, self.warnings), *said)


@dataclass(frozen=True, eq=False, repr=False)
class Sample:
    """One generated image.

    Attributes:
        samples: those that it is one of.
        index: where it is among them.
    """

    samples: Samples = field(repr=False)
    index: int

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, C) uint8."""
        return self.samples.images[self.index]

    @property
    def z_0(self) -> Tensor:
        """(*latent) standardised."""
        return self.samples.z_0[self.index]

    @property
    def seed(self) -> int:
        """What it was drawn from."""
        return self.samples.seeds[self.index]

    @property
    def probability(self) -> float | None:
        """What the classifier reads for the formula in it; None for a sample of the prior."""
        every = self.samples.probabilities
        return None if every is None else float(every[self.index])

    def pil(self) -> Image.Image:
        """The image, as the generator made it."""
        return self.samples.pil(self.index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = np.asarray(self.image, dtype)
        return array.copy() if copy else array

    def __repr__(self) -> str:
        formula, p = self.samples.formula, self.probability
        told = "" if formula is None else f" for {formula}, of which the classifier reads {p:.2f}"
        return f"Sample(seed {self.seed}{told})"

    def _repr_png_(self) -> bytes:
        return png(self.image)

    def _figure(self) -> str:
        p = self.probability
        told = "" if p is None else f" for {self.samples.formula}, read as {p:.2f}"
        caption = f"seed {self.seed}" if p is None else f"seed {self.seed} · {p:.2f}"
        return picture(self.image, f"sample of seed {self.seed}{told}", caption)
