"""What the studio answers with: frozen values, which belong to whoever asked.

Images are uint8 arrays (H, W, 3) or (N, H, W, 3), not to be written into. Probabilities are what the model's own
classifier believes of a latent, not the truth about an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.uint8]
"""(H, W, 3), or (N, H, W, 3) for several."""

Asked = bool | str | float | tuple[str, ...] | tuple[Literal["<", "<=", ">", ">="], float | str] | None
"""What one control asks of its attribute; None or () for nothing.

toggle: True for yes, False for no. choice: a value, or a tuple of values of which one shall hold; of an ordered one
also a comparison (">=", "large"). number: a comparison (">", 0.6) in formulas, a target 0.7 in edits.
"""


@dataclass(frozen=True)
class Control:
    """What a page needs to make a control for an attribute.

    Attributes:
        name: of the attribute, as formulas spell it.
        title: the same for people, `hair color`.
        kind: `toggle` (yes, no, any), `choice` (some of `values`), `number` (from `low` to `high`).
        values: of a choice.
        ordered: whether the values ascend, so that a threshold makes sense.
        low: least value of a number among the gallery's labels; 0 of the others.
        high: greatest.
        group: that it is a member of, or None.
        detail: whether it is a refinement of other attributes, or applies to some images only: to be shown after the
            others.
        applies_if: when it applies, in words, such as `only without hat`; empty for always.
    """

    name: str
    title: str
    kind: Literal["toggle", "choice", "number"]
    values: tuple[str, ...] = ()
    ordered: bool = False
    low: float = 0.0
    high: float = 1.0
    group: str | None = None
    detail: bool = False
    applies_if: str = ""


@dataclass(frozen=True)
class Check:
    """What became of the text of a formula, or of an edit, while it is typed.

    Attributes:
        text: what was typed.
        canonical: the formula in canonical text; None for an error, and for an empty text.
        problem: what is wrong and what to write instead, one sentence; None when the text can be read.
        start: where the error begins in `text`, counted from 0.
        end: where it ends, start < end, at most one beyond the text.
        nearest: the name that was probably meant, to be offered in the place of text[start:end]; None if there is none.
        asked: the same as a state of the controls, by attribute; None where no state says it (`|`, weights) or there is
            an error.
    """

    text: str
    canonical: str | None = None
    problem: str | None = None
    start: int = 0
    end: int = 0
    nearest: str | None = None
    asked: Mapping[str, Asked] | None = None

    @property
    def ok(self) -> bool:
        """Whether it can be used: as a formula, or, when empty, as none."""
        return self.problem is None


@dataclass(frozen=True)
class Suggestion:
    """Something that may stand at the caret.

    Attributes:
        text: to put in the place of the characters from `start` to `end`.
        about: a line what it is.
        kind: what sort of thing.
        start: first character of what it replaces.
        end: one beyond the last; `start` where nothing is replaced.
    """

    text: str
    about: str
    kind: Literal["attribute", "group", "value", "operator"]
    start: int
    end: int


@dataclass(frozen=True)
class Phrase:
    """A stretch of a description in English.

    Attributes:
        text: as it was typed.
        start: where it begins, counted from 0.
        end: where it ends.
        became: a formula, or the role of a small word such as `and`; None if it was not understood.
    """

    text: str
    start: int
    end: int
    became: str | None


@dataclass(frozen=True)
class Description:
    """A text in plain English, as it was understood.

    Attributes:
        text: what was typed.
        formula: what it means, canonical; None if nothing was understood.
        phrases: what became of every word, from left to right.
        notes: choices that were made where English left one, and what was not understood, a sentence each.
        problem: why there is no formula, one sentence; None if there is one.
    """

    text: str
    formula: str | None
    phrases: tuple[Phrase, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Trust:
    """How far to trust samples of a formula.

    Attributes:
        formula: canonical.
        p: estimate of P(formula) under the prior.
        stderr: of `p`.
        satisfying: labelled latents of the training that satisfy it.
        labelled: of how many whose labels decide.
        support: `common` or `rare` within the prior's support, `beyond` it, or `impossible` and `certain` for formulas
            that no image or every image satisfies: these cannot be sampled.
        extrapolates: whether sampling goes beyond what the prior has seen.
        verdict: one honest sentence for a layman.
        evidence: one sentence with the numbers.
        warnings: the pipeline's own, in plain words.
    """

    formula: str
    p: float
    stderr: float
    satisfying: int
    labelled: int
    support: Literal["common", "rare", "beyond", "impossible", "certain"]
    extrapolates: bool
    verdict: str
    evidence: str
    warnings: tuple[str, ...] = ()

    @property
    def can_sample(self) -> bool:
        """Whether `Studio.generate` accepts the formula."""
        return self.support not in ("impossible", "certain")


@dataclass(frozen=True)
class Generated:
    """Samples.

    Attributes:
        formula: canonical; None for samples of the prior.
        trust: in the formula, None without one.
        images: (N, H, W, 3).
        seeds: of each.
        probabilities: of each, that it satisfies the formula as the classifier reads it; empty without a formula.
        warnings: a sentence each.
        wanted: how many were asked for; more than N while `Studio.generating` is under way.
        z_0: (N, *latent).
    """

    formula: str | None
    trust: Trust | None
    images: Image
    seeds: tuple[int, ...]
    probabilities: tuple[float, ...]
    warnings: tuple[str, ...]
    wanted: int
    z_0: Tensor = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.seeds)


@dataclass(frozen=True)
class Source:
    """What is edited.

    Attributes:
        title: where it is from: `gallery 17`, `seed 5`, `glasses & hat, seed 3`, `your image`.
        image: as it was given (H, W, 3): for an upload the framed image; else the same as `reconstruction`.
        reconstruction: what the generator makes of its latent (H, W, 3): what edits start from.
        z_0: (1, *latent) standardised.
        code: (1, *code) what the latent leaves out, None if nothing.
        labels: (1, A) known labels, NaN where unknown; None if nothing is known.
        error: root-mean-square difference of image and reconstruction as a share of the range of a pixel; 0 where the
            image is the reconstruction.
        warning: that the reconstruction is poor, in a sentence; None if it is good.
    """

    title: str
    image: Image
    reconstruction: Image
    z_0: Tensor = field(repr=False, compare=False)
    code: Tensor | None = field(default=None, repr=False, compare=False)
    labels: Tensor | None = field(default=None, repr=False, compare=False)
    error: float = 0.0
    warning: str | None = None


@dataclass(frozen=True)
class Belief:
    """What the classifier believes about one attribute of an image: where a control stands.

    Attributes:
        name: of the attribute.
        value: most probable: `yes`, `no`, a value's name, or a number as text.
        asked: the same as a control has it: True, False, a value, a number.
        probability: of `value`; of a number 1.
        distribution: every value with its probability; of a number its mean and standard deviation under these names.
        applies: whether it applies to the image, as far as the classifier can tell.
    """

    name: str
    value: str
    asked: bool | str | float
    probability: float
    distribution: Mapping[str, float]
    applies: bool = True


@dataclass(frozen=True)
class Asking:
    """A step of a session that stands, and whether it came true.

    Attributes:
        text: canonical, such as `+glasses`.
        weight: of its guidance.
        probability: that the image satisfies it, as the classifier reads it; of a target that it is near.
    """

    text: str
    weight: float
    probability: float


@dataclass(frozen=True)
class Edited:
    """The image of a session's current state.

    Attributes:
        image: (H, W, 3).
        preview: whether few steps were taken.
        beliefs: by attribute.
        asked: the steps that stand.
        moved: distance of the latent from the source, in standard deviations per dimension.
        changed: mean absolute difference of the image from the source's reconstruction as a share of the range.
        z_0: (1, *latent).
    """

    image: Image
    preview: bool
    beliefs: Mapping[str, Belief]
    asked: tuple[Asking, ...]
    moved: float
    changed: float
    z_0: Tensor = field(repr=False, compare=False)


@dataclass(frozen=True)
class Rival:
    """The same request, answered by a method.

    Attributes:
        name: of the method, as in benchmarks: `lcg`, `lcg without keeping`, `arithmetic`, `probe`, `interfacegan`.
        about: a line what it does.
        edited: its answer; None if it has none.
        problem: why not, a sentence; None if there is an answer.
    """

    name: str
    about: str
    edited: Edited | None
    problem: str | None = None


@dataclass(frozen=True)
class Frame:
    """A picture of a strip: `title` says which step made it."""

    image: Image
    title: str


@dataclass(frozen=True)
class Points:
    """The gallery in the plane.

    Attributes:
        method: `pca` or `tsne`.
        xy: (N, 2) float32, each axis in [-1, 1].
        about: a sentence what the axes are.
        ready: whether `method` is what was asked for; while t-SNE is being computed, PCA is answered.
        attribute: that colours, or None.
        values: of the attribute, each a colour of a discrete scale; empty for a number.
        colours: (N,) index into `values`, or the number itself; NaN where unknown or where it does not apply.
        separation: how well the attribute's values are apart in all of latent space, 0 (mixed) to 1 (apart):
            balanced accuracy of a nearest-neighbours vote above chance; NaN for numbers and without an attribute.
        verdict: the same as a sentence.
    """

    method: Literal["pca", "tsne"]
    xy: NDArray[np.float32]
    about: str
    ready: bool = True
    attribute: str | None = None
    values: tuple[str, ...] = ()
    colours: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    separation: float = float("nan")
    verdict: str = ""

    def nearest(self, x: float, y: float) -> int:
        """The row of the gallery nearest to a place in the plane, x and y in [-1, 1]."""
        return int(((self.xy - np.array([x, y], np.float32)) ** 2).sum(1).argmin())
