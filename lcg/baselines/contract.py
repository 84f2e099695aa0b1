"""The contract of a competing method: options first, then what it learns from, then the same questions to all.

    baseline = LACE(checkpoint="runs/demo/lace/lace.ckpt").fit(training)
    baseline.edit(z_0, request)                  as every `Editor`
    baseline.generate(formula, z_0)              where the method can sample

A constructor takes options only, so that a configuration can name a baseline by its class; `fit` gives it the labelled
latents and the frozen networks that everybody has. What is trained at length is trained by `lcg fit` and comes as a
checkpoint. Defaults are the authors'; each docstring lists where we depart from them.

One number says how far to go, whatever it is in the method itself: strength 0 leaves latents as they are, 1 is the
authors' default, and a benchmark tunes every method over its own grid of `strengths`.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Self

from lcg.checkpoint import COMMAND, Kind, load_network
from lcg.data.statistics import Statistics
from lcg.diffusion import Denoiser, Randomness, Schedule
from lcg.editing.contract import Editor, EditRequest, EditResult
from lcg.generators.base import Generator
from lcg.guidance import Atom, Formula, Not
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.schema import Schema

Found = TypeVar("Found")


@dataclass(frozen=True)
class Training:
    """What every method may learn from: the labelled latents, and the networks that are there before it.

    Attributes:
        z_0: (N, *latent) standardised latents.
        labels: (N, A) in the columns of the schema, NaN where missing.
        schema: the attributes.
        generator: frozen; maps raw latents to images.
        statistics: standardise raw latents.
        denoiser: the prior's.
        schedule: of its noise.
        classifier: of noised latents.
        store: fingerprint of the store that latents and labels are from.

    Raises:
        ValueError: latents and labels that do not fit each other or the schema, or latents that are not finite.
    """

    z_0: Float[Tensor, "n *latent"]
    labels: Float[Tensor, "n attributes"]
    schema: Schema
    generator: Generator
    statistics: Statistics
    denoiser: Denoiser
    schedule: Schedule
    classifier: TimeConditionedClassifier
    store: str = ""

    def __post_init__(self) -> None:
        if self.z_0.ndim < 2 or self.labels.shape != (len(self.z_0), len(self.schema)):
            raise ValueError(
                f"`z_0` must be (N, *latent) and `labels` (N, {len(self.schema)}), a row per latent and a column per "
                f"attribute, got {tuple(self.z_0.shape)} and {tuple(self.labels.shape)}"
            )
        if not bool(self.z_0.isfinite().all()):
            raise ValueError("`z_0` must be finite, got NaN or infinity; check the latent store with `store.verify()`")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent."""
        return tuple(self.z_0.shape[1:])

    def decode(self, z_0: Float[Tensor, "batch *latent"]) -> Float[Tensor, "batch channels height width"]:
        """Images in [-1, 1] of standardised latents, differentiable."""
        return self.generator.decode(self.statistics.restore(z_0))


class Baseline(Editor):
    """A competing method; see the module.

    A constructor keeps its options under their names as JSON primitives: results are known by them.

    Attributes:
        name: in `results.csv`.
        strengths: what a benchmark tunes and sweeps, ascending, at most nine; strength 1 is among them.
    """

    name: str

    @abstractmethod
    def fit(self, training: Training) -> Self:
        """Learns what the method needs; returns itself.

        Raises:
            FileNotFoundError: a checkpoint is missing.
            ValueError: it was trained on another store.
        """

    def can_generate(self, formula: Formula) -> bool:
        """Whether the method can sample this formula; False where it only edits."""
        return False

    def generate(
        self,
        formula: Formula,
        z_0: Float[Tensor, "batch *latent"],
        randomness: Randomness = None,
        strength: float | Tensor = 1.0,
    ) -> Float[Tensor, "batch *latent"]:
        """Samples of a formula.

        Args:
            formula: one that `can_generate` accepts.
            z_0: (B, *latent) samples of the prior, for methods that start there; others take only their number.
            randomness: for those that draw noise, one generator per row or one for all.
            strength: how far to go, one number or one per row (B,).

        Raises:
            ValueError: the formula is one that the method has no answer to.
        """
        raise ValueError(f"{self.name} edits only, it has no samples for {str(formula)!r}; use lcg, or another method")


class Mover(Baseline):
    """A method that takes latents elsewhere: sources where they are edited, samples of the prior to generate."""

    @abstractmethod
    def move(
        self,
        z_0: Float[Tensor, "batch *latent"],
        formulas: Sequence[Formula],
        strength: float | Tensor | None = None,
        randomness: Randomness = None,
    ) -> Float[Tensor, "batch *latent"]:
        """Where latents go.

        Args:
            z_0: (B, *latent) where they begin.
            formulas: literals, or conjunctions of literals with or without weights.
            strength: how far to go, one number or one per row (B,); None for 1.
            randomness: for methods that draw noise, one generator per row or one for all.

        Returns:
            (B, *latent) in the precision of z_0.

        Raises:
            RuntimeError: before `fit`, or under torch.inference_mode where the method needs it off.
            ValueError: latents of another shape, something that is no literal or that the method has no way to, or a
                strength that is negative or not finite.
        """

    def edit(self, z_0: Float[Tensor, "batch *latent"], request: EditRequest) -> EditResult:
        """See `Editor`; labels are not used. Raises as `move`."""
        return EditResult(self.move(z_0, request.edits, request.strength), request)

    def can_generate(self, formula: Formula) -> bool:
        """Conjunctions of literals."""
        return is_conjunction(formula)

    def generate(
        self,
        formula: Formula,
        z_0: Float[Tensor, "batch *latent"],
        randomness: Randomness = None,
        strength: float | Tensor = 1.0,
    ) -> Float[Tensor, "batch *latent"]:
        """Samples of the prior, moved. See `Baseline`; raises as `move`."""
        return self.move(z_0, [formula], strength, randomness)


def when_fitted(found: Found | None, method: Baseline) -> Found:
    """What a method's `fit` has found. Raises RuntimeError before that, when it is None."""
    if found is None:
        raise RuntimeError(f"{method.name} has not been fitted; call `fit(training)` first")
    return found


@dataclass(frozen=True)
class Literal:
    """An atom that shall hold, or shall not.

    Attributes:
        atom: `glasses`, `hair=blond`.
        positive: whether it shall hold.
        weight: of the conjunct.
    """

    atom: Atom
    positive: bool
    weight: float

    @property
    def sign(self) -> float:
        """+1 or -1."""
        return 1.0 if self.positive else -1.0

    def __str__(self) -> str:
        return str(self.atom) if self.positive else f"~{self.atom}"


def literals(formulas: Iterable[Formula], schema: Schema, method: str) -> tuple[Literal, ...]:
    """The literals of a list of formulas, each a literal or a conjunction of some, with or without weights.

    Raises:
        ValueError: something is more than that, or was parsed with another schema.
    """
    found = []
    for formula, weight in (pair for whole in formulas for pair in whole.conjuncts):
        atom, positive = _without_negation(formula)
        if not isinstance(atom, Atom):
            raise ValueError(
                f"{method} knows literals only, such as glasses, ~hat or hair=blond, got {str(formula)!r}; "
                "use lcg for other formulas"
            )
        check_atom(atom, schema)
        found.append(Literal(atom, positive, weight))
    return tuple(found)


def is_conjunction(formula: Formula) -> bool:
    """Whether a formula is a literal or a conjunction of literals."""
    return all(isinstance(_without_negation(f)[0], Atom) for f, _ in formula.conjuncts)


def _without_negation(formula: Formula) -> tuple[Formula, bool]:
    """What stands behind all negations, and whether it shall hold."""
    positive = True
    while isinstance(formula, Not):
        formula, positive = formula.operand, not positive
    return formula, positive


def check_atom(atom: Atom, schema: Schema) -> None:
    """Raises ValueError for an atom of another schema."""
    if schema.attributes[atom.column : atom.column + 1] != (atom.attribute,):
        raise ValueError(f"{str(atom)!r} was parsed with another schema; parse it with that of the labels")


def pretrained(path: str | PathLike[str], kind: Kind, training: Training) -> Any:
    """The frozen network of a checkpoint that `lcg fit` made.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds another network, or one that was trained on another store, on latents of another shape or
            with other attributes.
    """
    loaded = load_network(path, kind, training.z_0.device)
    if training.store and loaded.store != training.store:
        raise ValueError(
            f"{loaded.path} was trained on another store ({loaded.store[:12]}) than the latents at hand "
            f"({training.store[:12]}); fit it again with `{COMMAND[kind]}`"
        )
    network = loaded.network
    schema = getattr(network, "schema", training.schema)
    if network.latent_shape != training.latent_shape or schema != training.schema:
        raise ValueError(
            f"{loaded.path} was trained on latents of shape {network.latent_shape} with the attributes "
            f"{', '.join(schema.names)}, got {training.latent_shape} with {', '.join(training.schema.names)}; fit it "
            f"again with `{COMMAND[kind]}`"
        )
    return network


def check_shape(z_0: Tensor, latent_shape: tuple[int, ...]) -> None:
    """Raises ValueError for latents of another shape than those that a method was fitted on."""
    if tuple(z_0.shape[1:]) != tuple(latent_shape):
        raise ValueError(
            f"`z_0` must be latents of shape {tuple(latent_shape)}, as those that the method was fitted on, "
            f"got {tuple(z_0.shape[1:])}"
        )


def strength_per_row(strength: float | Tensor | None, z_0: Float[Tensor, "batch *latent"]) -> Tensor:
    """A strength for every row, (B, 1, ...), to be multiplied with latents; 1 for None.

    Raises:
        ValueError: it is negative or not finite, or neither one number nor one per row.
    """
    values = torch.as_tensor(1.0 if strength is None else strength, dtype=z_0.dtype, device=z_0.device)
    if values.ndim > 1 or (values.ndim == 1 and len(values) not in (1, len(z_0))):
        raise ValueError(
            f"`strength` must be one number or {len(z_0)}, one per latent, got shape {tuple(values.shape)}"
        )
    if not bool(((values >= 0) & (values < math.inf)).all()):
        raise ValueError(f"`strength` must be finite and >= 0, got {strength}; to go the other way, negate the edit")
    return values.expand(len(z_0)).reshape(-1, *(1,) * (z_0.ndim - 1))
