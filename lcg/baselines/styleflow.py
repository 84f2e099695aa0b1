"""StyleFlow: a conditional flow takes a latent to noise under its own attributes, and back under others.

    u = flow(z_0; a),      z' = flow^-1(u; a'),      a' = a with the edited attributes changed

(Abdal et al. 2021, "StyleFlow: Attribute-conditioned Exploration of StyleGAN-Generated Images using Conditional
Continuous Normalizing Flows", ACM TOG 40(3), arXiv:2008.02401.) The authors call the two halves joint reverse encoding
and conditional forward editing. The noise u is what the attributes leave open, so it shall stay. Sampling is the second
half alone, u ~ N(0, I). The flow and its departures are in `lcg.nets.continuous_flow`, its training in
`lcg.modules.continuous_flow`.

A strength s interpolates the attribute vector, a + s (a' - a): 0 is the source, 1 what is asked, and beyond that it is
extrapolated, as the authors' sliders do between an image and a reference.

Where we differ, or had to choose:

- The authors replace only some of a StyleGAN's 18 layers, chosen by hand for every attribute. Here a latent is one
  vector, which has no layers to choose from, so all of it is replaced.
- They encode again after each edit, from the result. Here all edits start from the source, as for every method.
- A source's attributes are the labels where they are known, else what the time-conditioned classifier reads at t = .02
  (theirs come from a face API and a lighting estimator).
- An attribute that satisfies its literals already keeps its value; else it takes the most frequent value of the
  training latents that satisfy them, or their mean if it is continuous.
- Where an edit changes an attribute, its details take what is most frequent (or the mean) among the training latents
  that share the values of all that they are details of, in the order of the schema; what does not apply any more, or
  has never been seen so, becomes unknown, which is 0 in the attribute vector. Details are not extrapolated: beyond
  strength 1 they stay at their target.
- A weight `smile^2.0` multiplies the strength for its attribute. The authors have none.
- To generate a conjunction, attributes that it leaves open come from training label rows which satisfy it, drawn at
  random; where there are none, from any row, in which the formula's attributes are then overwritten as in an edit. The
  authors sample with attributes of their data. A strength moves the formula's attributes from their training mean (0)
  to what is asked (1) and beyond.
- Rows whose attribute vector does not change are returned as they are, without the solver's error.
"""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Self

from lcg.baselines.contract import (
    Baseline,
    Literal,
    Training,
    check_shape,
    is_conjunction,
    literals,
    pretrained,
    strength_per_row,
    when_fitted,
)
from lcg.diffusion import Randomness, randn
from lcg.editing.contract import EditRequest, EditResult
from lcg.editing.guided import CLEAN
from lcg.guidance import Formula
from lcg.nets.continuous_flow import ContinuousFlow
from lcg.nets.heads import predict_labels
from lcg.schema import Attribute

Wanted = dict[int, list[Literal]]
"""Literals by the column of their attribute."""


class StyleFlow(Baseline):
    """Edits and generates with a conditional continuous normalising flow.

    Args:
        checkpoint: of the flow, from `lcg fit --config configs/baseline/styleflow.yaml`.
    """

    name = "styleflow"
    strengths: ClassVar[tuple[float, ...]] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)

    def __init__(self, checkpoint: str | PathLike[str] = "runs/demo/baselines/styleflow.ckpt") -> None:
        self.checkpoint = fspath(checkpoint)
        self._fitted: tuple[ContinuousFlow, Training] | None = None

    def fit(self, training: Training) -> Self:
        """Loads the flow. Raises FileNotFoundError and ValueError as `pretrained`."""
        self._fitted = pretrained(self.checkpoint, "continuous_flow", training), training
        return self

    @property
    def flow(self) -> ContinuousFlow:
        """The flow. Raises RuntimeError before `fit`."""
        return self._ready()[0]

    @torch.no_grad()
    def edit(self, z_0: Float[Tensor, "batch *latent"], request: EditRequest) -> EditResult:
        """See `Editor`.

        Raises:
            ValueError: latents of another shape, labels of another shape, something that is no literal, literals that
                no training latent satisfies, or a strength as `strength_per_row` refuses.
            RuntimeError: before `fit`.
        """
        flow, training = self._ready()
        check_shape(z_0, training.latent_shape)
        wanted = self._wanted(request.edits)
        strength = strength_per_row(request.strength, z_0).flatten()
        source = self.source_labels(z_0, request.labels)
        a, asked = flow.encode(source), flow.encode(self.target_labels(source, wanted))
        a_new = a + self._scale(wanted, strength, a, limit=1.0) * (asked - a)
        moving, edited = (a_new != a).any(1), z_0.clone()
        edited[moving] = flow.to_latent(flow.to_noise(z_0[moving], a[moving]), a_new[moving])
        return EditResult(edited, request)

    def can_generate(self, formula: Formula) -> bool:
        """Conjunctions of literals."""
        return is_conjunction(formula)

    @torch.no_grad()
    def generate(
        self,
        formula: Formula,
        z_0: Float[Tensor, "batch *latent"],
        randomness: Randomness = None,
        strength: float | Tensor = 1.0,
    ) -> Float[Tensor, "batch *latent"]:
        """See `Baseline`; of `z_0` only the shape is used.

        Raises:
            ValueError: as `edit`.
            RuntimeError: before `fit`.
        """
        flow, training = self._ready()
        check_shape(z_0, training.latent_shape)
        wanted = self._wanted([formula])
        s = strength_per_row(strength, z_0).flatten()
        numbers = randn((len(z_0), 1 + z_0[0].numel()), randomness, dtype=z_0.dtype, device=z_0.device)
        rows = formula.holds(training.labels).nonzero()[:, 0]
        labels = training.labels[rows] if len(rows) else training.labels
        drawn = (torch.special.ndtr(numbers[:, 0].double()) * len(labels)).long().clamp(max=len(labels) - 1)
        asked = flow.encode(self.target_labels(labels[drawn.to(labels.device)], wanted)).to(z_0.device)
        mean = flow.encode(training.labels).mean(0)
        a = mean + self._scale(wanted, s, asked) * (asked - mean)
        return flow.to_latent(numbers[:, 1:].reshape(z_0.shape), a)

    @torch.no_grad()
    def source_labels(
        self, z_0: Float[Tensor, "batch *latent"], labels: Float[Tensor, "batch attributes"] | None
    ) -> Float[Tensor, "batch attributes"]:
        """Known labels, completed by what the classifier reads; NaN for details that do not apply.

        Args:
            z_0: the sources.
            labels: NaN where unknown; None when none is known.

        Raises:
            ValueError: labels of another shape.
            RuntimeError: before `fit`.
        """
        _, training = self._ready()
        schema = training.schema
        weights = next(training.classifier.parameters())
        t = torch.full((len(z_0),), CLEAN, dtype=weights.dtype, device=z_0.device)
        completed = predict_labels(schema, training.classifier(z_0.to(weights.dtype), t)).to(z_0.dtype)
        if labels is None:
            return completed
        if labels.shape != completed.shape:
            raise ValueError(
                f"`labels` must be {tuple(completed.shape)}, a row per source and a column per attribute, "
                f"got {tuple(labels.shape)}"
            )
        completed = torch.where(labels.isnan(), completed, labels.to(completed))
        for j, attribute in enumerate(schema):
            for parent, value in attribute.applies_if.items():
                applies = completed[:, schema.index(parent)] == float(value)
                completed[:, j] = torch.where(applies, completed[:, j], torch.nan)
        return completed

    def target_labels(
        self, source: Float[Tensor, "batch attributes"], wanted: Wanted
    ) -> Float[Tensor, "batch attributes"]:
        """The labels that the literals ask for, and the details that go with them; see the module.

        Args:
            source: labels, NaN where unknown.
            wanted: literals by the column of their attribute.

        Raises:
            ValueError: no training latent satisfies all literals of an attribute.
            RuntimeError: before `fit`.
        """
        _, training = self._ready()
        target = source.clone()
        satisfy: dict[int, Tensor] = {}
        for column, asked in wanted.items():
            satisfy[column] = _hold(asked, training.labels)
            if not bool(satisfy[column].any()):
                words = " & ".join(map(str, asked))
                raise ValueError(f"there is no labelled latent for which {words!r} holds, so the flow has not seen it")
            value = _typical(training.schema.attributes[column], training.labels[satisfy[column], column])
            target[:, column] = torch.where(_hold(asked, source), source[:, column], value)
        for column, attribute in enumerate(training.schema):
            if column not in wanted:
                self._fill(target, source, column, attribute, satisfy)
        return target

    def _fill(
        self, target: Tensor, source: Tensor, column: int, attribute: Attribute, satisfy: dict[int, Tensor]
    ) -> None:
        """Gives a detail the typical value, in the rows of `target` where what it is a detail of has changed."""
        _, training = self._ready()
        schema = training.schema
        parents = sorted({schema.index(name) for name in (*attribute.detail_of, *attribute.applies_if)})
        changed = (target != source) & ~(target.isnan() & source.isnan())
        rows = changed[:, parents].any(1).nonzero()[:, 0]
        if not len(rows):
            return
        exact = [parent for parent in parents if schema.attributes[parent].kind != "continuous"]
        alike = torch.ones(len(training.labels), dtype=torch.bool, device=training.labels.device)
        for parent in {*parents} - {*exact}:  # of a continuous one no value comes twice
            alike = alike & satisfy.get(parent, alike)
        values = target[rows][:, exact].nan_to_num(-1.0)  # -1 of a parent that is unknown, and so excludes nothing
        for combination in values.unique(dim=0) if exact else values[:1]:  # few, whatever the number of rows
            found = alike.clone()
            for parent, value in zip(exact, combination, strict=True):
                found &= (training.labels[:, parent] == value) | (value == -1)
            share = (values == combination).all(1)
            target[rows[share], column] = _typical(attribute, training.labels[found, column]).to(target)

    def _scale(self, wanted: Wanted, strength: Tensor, like: Tensor, limit: float | None = None) -> Tensor:
        """How far each number of the attribute vector goes, (B, conditions).

        For attributes of literals it is the strength times the largest of their weights; for others 1, or where `limit`
        is given the strength, up to there.
        """
        flow, training = self._ready()
        strength = strength.to(like)[:, None]
        others = torch.ones_like(strength) if limit is None else strength.clamp(max=limit)
        scale = others.repeat(1, like.shape[1])
        for column, asked in wanted.items():
            name = training.schema.names[column]
            scale[:, flow.columns(name)] = strength * max(literal.weight for literal in asked)
        return scale

    def _wanted(self, formulas: Sequence[Formula]) -> Wanted:
        _, training = self._ready()
        wanted: Wanted = {}
        for literal in literals(formulas, training.schema, self.name):
            wanted.setdefault(literal.atom.column, []).append(literal)
        return wanted

    def _ready(self) -> tuple[ContinuousFlow, Training]:
        return when_fitted(self._fitted, self)


def _hold(asked: Sequence[Literal], labels: Tensor) -> Tensor:
    """Which rows certainly satisfy all literals, (N,)."""
    verdicts = (literal.atom.verdict(labels)[0 if literal.positive else 1] for literal in asked)
    return torch.stack(list(verdicts)).all(0)


def _typical(attribute: Attribute, labels: Tensor) -> Tensor:
    """The most frequent of the known labels (N,), or their mean if the attribute is continuous; NaN of none."""
    known = labels[~labels.isnan()]
    if not len(known):
        return labels.new_tensor(torch.nan)
    if attribute.kind == "continuous":
        return known.double().mean().to(known)
    return known.long().bincount().argmax().to(known)
