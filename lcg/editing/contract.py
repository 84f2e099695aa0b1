"""The contract of an editing method: `edit(z_0, request) -> EditResult`. lcg's editor and every baseline implement it.

A request holds all edits that shall be true relative to the source, not only the newest. A sequence of edits is a
series of growing requests on the same source, so that errors do not add up and an edit can be taken back by leaving it
out.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lcg.guidance import Formula


@dataclass(frozen=True)
class EditRequest:
    """What shall change.

    Attributes:
        edits: literals that shall hold, such as `parse_edit("+glasses", schema)`; all of them, relative to the source.
        labels: known labels of the sources (B, A), NaN where unknown; None when a method shall find them out itself.
        strength: how far to go, one number or one per source (B,): 0 leaves the source as it is, more goes further, in
            the method's own unit; None for its default.
        alone: the result of each edit by itself, (B, *latent) in the order of `edits`. What it brought (the style of
            the glasses) is kept where a method can, so that the sequence of edits does not matter.
    """

    edits: tuple[Formula, ...]
    labels: Tensor | None = None
    strength: float | Tensor | None = None
    alone: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        if not self.edits:
            raise ValueError("`edits` must hold at least one edit, got none; ask for one such as +glasses")

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that are edited, in order."""
        return tuple(dict.fromkeys(name for edit in self.edits for name in edit.attributes))


@dataclass(frozen=True)
class EditResult:
    """What came out.

    Attributes:
        z_0: (B, *latent) standardised latents.
        request: what was asked.
    """

    z_0: Tensor
    request: EditRequest


class Editor(ABC):
    """An editing method over standardised latents.

    Attributes:
        strengths: of a request that span what is sensible, ascending; what a benchmark tunes and sweeps.
        keeps_details: whether the method looks at `EditRequest.alone`.
    """

    strengths: ClassVar[tuple[float, ...]]
    keeps_details: ClassVar[bool] = False

    @abstractmethod
    def edit(self, z_0: Tensor, request: EditRequest) -> EditResult:
        """Edits sources.

        Args:
            z_0: (B, *latent) standardised latents of the sources.
            request: what shall hold afterwards.

        Returns:
            The edited latents, row by row.
        """


def edit_sequence(
    editor: Editor,
    z_0: Tensor,
    edits: Sequence[Formula],
    labels: Tensor | None = None,
    strength: float | Tensor | None = None,
) -> list[EditResult]:
    """One edit after another: step k asks for edits 1..k of the original source, whatever their order.

    Args:
        editor: the method.
        z_0: (B, *latent) the sources.
        edits: literals in the order in which they are asked for.
        labels: known labels of the sources.
        strength: how far to go; None for the method's default.

    Returns:
        One result per step.
    """
    made: dict[tuple[Formula, ...], EditResult] = {}

    def result(wanted: tuple[Formula, ...]) -> EditResult:
        if wanted not in made:
            several = editor.keeps_details and len(wanted) > 1
            alone = tuple(result((edit,)).z_0 for edit in wanted) if several else None
            made[wanted] = editor.edit(z_0, EditRequest(wanted, labels, strength, alone))
        return made[wanted]

    return [result(standing(edits[:k])) for k in range(1, len(edits) + 1)]


def edit_together(
    editor: Editor,
    z_0: Tensor,
    edits: Sequence[Formula],
    labels: Tensor | None = None,
    strength: float | Tensor | None = None,
) -> EditResult:
    """All edits at once, as the last step of `edit_sequence` has them."""
    wanted = standing(edits)
    alone = None
    if editor.keeps_details and len(wanted) > 1:
        alone = tuple(editor.edit(z_0, EditRequest((edit,), labels, strength)).z_0 for edit in wanted)
    return editor.edit(z_0, EditRequest(wanted, labels, strength, alone))


def standing(edits: Sequence[Formula]) -> tuple[Formula, ...]:
    """The edits that still stand: of several that speak of one attribute, the last.

    Example:
        >>> from lcg.guidance import parse_edit
        >>> from lcg.schema import Attribute, Schema
        >>> schema = Schema((Attribute("hat"), Attribute("smile")))
        >>> standing([parse_edit(text, schema) for text in ("+hat", "+smile", "-hat")])
        (Formula('smile'), Formula('~hat'))
    """
    return tuple(e for k, e in enumerate(edits) if not any({*e.attributes} & {*f.attributes} for f in edits[k + 1 :]))
