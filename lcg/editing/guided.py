"""lcg's editor: the source's own noise, guided towards the edits, with everything else asked to stay.

The target is p(z_0 | edits, source) ~ p(z_0) prod p(y_i | z_0)^{w_i} p(keep | z_0) N(z_src; z_0, tau^2 I). Sampling
starts from the deterministic inversion of the source, which unguided leads back to it, and follows the guided score

    s(z_t) = s_theta(z_t) + w sum_edits grad log p(y_i | z_t)
             + w_keep sum_kept grad E_{y_j ~ q_j}[log p(y_j | z_t)] + source term.

The keep terms ask every attribute that no edit touches, the fine categorical ones included, to stay what it is taken
for, with the uncertainty q_j that the classifier has about the source, or none where the label is known: only what a
classifier watches is kept. What an edit brings by itself (the style of the glasses) is kept by the edits beside it.

Strength is one number s in [0, 1] for how far the source binds, tau^2 = s / (1 - s). For a N(0, I) prior, which
standardised latents approximate, and attributes of log-probability g.z_0 the edit's mean is then

    (z_src + tau^2 g) / (1 + tau^2) = (1 - s) z_src + s g:

s = 0 is the source, s = 1 what the edits and the kept labels alone would give, and the scale does not depend on the
generator. In the mode "paper" the kernel's weight is 1 / tau^2, the paper's own at s = 1/2.
"""

import copy
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from lcg.diffusion import DDIM, Denoiser, Sampler, diffuse, generators, randn
from lcg.diffusion.noise import Randomness
from lcg.editing.contract import Editor, EditRequest, EditResult
from lcg.editing.remembered import Remembered
from lcg.guidance import (
    And,
    BeliefReadout,
    Classifier,
    ClassifierTerm,
    Dependence,
    Formula,
    FormulaReadout,
    GuidedDenoiser,
    LabelReadout,
    LayeredTerm,
    PriorTerm,
    Readout,
    SourceMode,
    SourceTerm,
    Term,
    Weighted,
)
from lcg.guidance.formula import Near
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import HeadOutputs, independent, known_outputs, predict_labels
from lcg.schema import Schema

Start = Literal["inversion", "noising", "noise"]

CLEAN = 0.02
"""The time at which labels of a clean latent are read: the lowest noise that classifiers have seen often."""

MOSTLY_NOISE = 0.05
"""The weight of the signal, alpha_t, below which pure noise may stand for a noised latent."""

LOOSEST = 1e4
"""The largest tau, for which the source term is nothing; and its inverse the smallest, for which it is everything."""

FREE_AT = 0.3
"""The time at which an edit's own direction is read off the classifier: there its gradient is smooth."""


class GuidedEditor(Editor):
    """Latent classifier guidance as an editor.

    Args:
        denoiser: the prior's.
        classifier: of noised latents.
        schema: the classifier's attributes.
        sampler: deterministic, and able to invert when `start` is inversion; with correctors
            (`lcg.diffusion.PredictorCorrector`) for the starts that draw noise.
        weight: guidance weight of the edits; one number, or one per row (B,).
        keep_weight: weight of each attribute that is kept; 0 for none; one number, or one per row (B,).
        strength: how far to go, in [0, 1]; see the module. A request may say otherwise.
        source_mode: see `lcg.guidance.SourceTerm`.
        free: whether the source term leaves the direction of each edit free (the gradient of its log-probability).
        start: the deterministic inversion of the source, the source noised, or pure noise.
        t_start: where the path starts, in (0, 1); an inversion beyond the sampler's own t_start is not possible.
        max_step: trust region of a guided step, in units of sqrt(dimension); None for none.
        layers: weights of the guidance on the layers of latents (L, ...), such as W+; None for all alike.
        dependence: how several edits are read: `independent`, as an edit may ask for what was never seen together, or
            `joint`, exact where it was.
        seeds: for the starts that draw noise: one for all rows, or one per source. Where there are several rows of each
            source, one after another (as in a strip of strengths), they share its noise. Equal requests give equal
            results.

    What depends on the sources alone, their inversion and what the classifier makes of them, is computed once for calls
    in a row on the same sources, and once for rows that are equal: edits one after another, or at many strengths, share
    it. The networks are taken to stay as they are.

    Raises:
        ValueError: a number is out of range, or the sampler cannot do what `start` asks.
    """

    strengths = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9, 1.0)
    keeps_details = True

    def __init__(
        self,
        denoiser: Denoiser,
        classifier: Classifier,
        schema: Schema,
        sampler: Sampler,
        weight: float | Tensor = 24.0,
        keep_weight: float | Tensor = 8.0,
        strength: float = 0.9,
        source_mode: SourceMode = "observation",
        free: bool = False,
        start: Start = "inversion",
        t_start: float = 0.7,
        max_step: float | None = None,
        layers: Sequence[float] | None = None,
        dependence: Dependence = "independent",
        seeds: int | Sequence[int] = 0,
    ) -> None:
        if start not in get_args(Start):
            raise ValueError(f"`start` must be one of {', '.join(get_args(Start))}, got {start!r}")
        if start == "inversion" and not (isinstance(sampler, DDIM) and sampler.eta == 0):
            raise ValueError(
                f"`start`='inversion' needs DDIM with eta=0, got {type(sampler).__name__}; use start='noising' or DDIM"
            )
        if not sampler.t_end < t_start <= sampler.t_start:
            raise ValueError(
                f"`t_start` must be in ({sampler.t_end}, {sampler.t_start}], the sampler's range, got {t_start}"
            )
        check_weights(weight, keep_weight)
        if max_step is not None and not max_step > 0:
            raise ValueError(f"`max_step` must be > 0 or None, got {max_step}; None leaves it out")
        if start == "noise" and float(sampler.schedule.alpha(torch.tensor(t_start))) > MOSTLY_NOISE:
            raise ValueError(
                f"`start`='noise' needs a `t_start` where hardly any signal is left, such as 0.99, got {t_start}"
            )
        check_strength(strength)
        if dependence == "independent" and isinstance(classifier, TimeConditionedClassifier):
            classifier = classifier.restricted(schema.names, joint=False)  # nothing else of it is read
        self.denoiser, self.classifier, self.schema, self.sampler = denoiser, classifier, schema, sampler
        self.weight, self.keep_weight, self.strength = weight, keep_weight, strength
        self.source_mode, self.free, self.dependence = source_mode, free, dependence
        self.start, self.t_start, self.max_step = start, t_start, max_step
        self.seeds = seeds if isinstance(seeds, int) else tuple(seeds)
        self.layers = None if layers is None else torch.tensor(list(layers), dtype=torch.float64)
        self._inverted, self._believed = Remembered(self._invert), Remembered(self._believe)

    def weighted(self, weight: float | Tensor, keep_weight: float | Tensor) -> "GuidedEditor":
        """This editor with other weights, one number or one per row (B,); what is known of sources is shared.

        Raises:
            ValueError: a negative weight.
        """
        check_weights(weight, keep_weight)
        other = copy.copy(self)
        other.weight, other.keep_weight = weight, keep_weight
        return other

    def edit(self, z_0: Tensor, request: EditRequest) -> EditResult:
        """See `Editor`.

        Raises:
            ValueError: edits that contradict each other, a strength outside [0, 1], or seeds of other sources.
        """
        strength = self.strength if request.strength is None else request.strength
        check_strength(strength)
        rows = torch.as_tensor(strength, dtype=z_0.dtype, device=z_0.device).expand(len(z_0))
        terms = self.terms(z_0, request, rows)
        guided = GuidedDenoiser(self.denoiser, terms, self.sampler.schedule, max_step=self.max_step)
        randomness = self.randomness(len(z_0))
        edited = self.sampler.sample(guided, self.noised(z_0, randomness), randomness, t_start=self.t_start)
        untouched = (rows == 0).reshape(-1, *(1,) * (z_0.ndim - 1))
        return EditResult(torch.where(untouched, z_0, edited), request)

    def randomness(self, rows: int) -> Randomness:
        """New generators for each request, which it does not share with any other; None where nothing is drawn."""
        if self.start == "inversion":
            return None
        if isinstance(self.seeds, int):
            return generators([self.seeds] * rows)
        if not self.seeds or rows % len(self.seeds):
            raise ValueError(
                f"`seeds` must be one number, or one per source, got {len(self.seeds)} for {rows} rows; "
                "use seeds=range(number of sources)"
            )
        return generators(seed for seed in self.seeds for _ in range(rows // len(self.seeds)))

    def prepare(self, z_0: Tensor) -> None:
        """Computes what all edits of these sources have in common, so that the next ones find it."""
        self.beliefs(z_0)
        if self.start == "inversion":
            self.noised(z_0)

    def noised(self, z_0: Tensor, randomness: Randomness = None) -> Tensor:
        """Where sampling starts, (B, *latent) at t_start."""
        if self.start == "inversion":
            return self._inverted(z_0)["z_t"]
        noise = randn(z_0.shape, randomness, dtype=z_0.dtype, device=z_0.device)
        if self.start == "noise":
            return noise
        t = torch.full((len(z_0),), self.t_start, dtype=z_0.dtype, device=z_0.device)
        return diffuse(self.sampler.schedule, z_0, t, noise)

    def _invert(self, z_0: Tensor) -> dict[str, Tensor]:
        assert isinstance(self.sampler, DDIM)  # checked by the constructor
        return {"z_t": self.sampler.invert(self.denoiser, z_0, self.t_start)}

    # --- terms ---

    def terms(self, z_0: Tensor, request: EditRequest, strength: Tensor) -> list[Term | PriorTerm]:
        """What guides: edits and kept labels in one classifier term, and the source; strength (B,)."""
        readouts = self.readouts(request.edits)
        beliefs, asked = self.kept(z_0, request)
        if bool(torch.as_tensor(self.keep_weight > 0).any()) and bool(asked.any()):
            readouts.append((BeliefReadout(self.schema, beliefs, asked), self.keep_weight))
        term: Term = ClassifierTerm(self.classifier, readouts)
        if self.layers is not None:
            term = LayeredTerm(term, self.layers)
        return [term] if bool((strength == 1).all()) else [term, self.source_term(z_0, request, strength)]

    def readouts(self, edits: Sequence[Formula]) -> list[tuple[Readout, float | Tensor]]:
        """Of the edits: one formula of all that can have a probability, and the density at each target value."""
        pairs = [pair for edit in edits for pair in edit.conjuncts]
        wanted = formula_of(edits)
        readouts: list[tuple[Readout, float | Tensor]] = []
        if wanted is not None:
            readouts.append((FormulaReadout(wanted, self.dependence), self.weight))
        targets = torch.full((1, len(self.schema)), torch.nan)
        weights = torch.ones(len(self.schema))
        for formula, weight in pairs:
            if isinstance(formula, Near):
                targets[0, formula.column], weights[formula.column] = formula.value, weight
        if not bool(targets.isnan().all()):
            readouts.append((LabelReadout(self.schema, targets, weights), self.weight))
        return readouts

    def source_term(self, z_0: Tensor, request: EditRequest, strength: Tensor) -> SourceTerm:
        """The source as an observation, with tau^2 = s / (1 - s) row by row."""
        if self.source_mode == "paper":
            weight = ((1 - strength) / strength).clamp(max=LOOSEST)  # 1 / tau^2
            return SourceTerm(z_0, self.denoiser, self.sampler.schedule, mode="paper", weight=weight)
        tau = (strength / (1 - strength)).sqrt().clamp(1 / LOOSEST, LOOSEST)
        directions = self.directions(z_0, request.edits) if self.free else None
        # The edits and the source together, as latent arithmetic has them.
        return SourceTerm(z_0, self.denoiser, self.sampler.schedule, tau, self.source_mode, free=directions, joint=True)

    def directions(self, z_0: Tensor, edits: Sequence[Formula]) -> Tensor:
        """(B, k, *latent) orthonormal: of each edit the gradient of its log-probability at the source."""
        t = torch.full((len(z_0),), FREE_AT, dtype=z_0.dtype, device=z_0.device)
        z_t = diffuse(self.sampler.schedule, z_0, t, torch.zeros_like(z_0))
        gradients = []
        for edit in edits:
            term = ClassifierTerm(self.classifier, self.readouts([edit]))
            gradients.append(term.score(z_t, t).flatten(1))
        stacked = torch.stack(gradients, dim=2)
        stacked = stacked / stacked.norm(dim=1, keepdim=True).clamp_min(torch.finfo(stacked.dtype).tiny)
        return torch.linalg.qr(stacked).Q.transpose(1, 2).reshape(len(z_0), -1, *z_0.shape[1:])

    # --- what is kept ---

    def kept(self, z_0: Tensor, request: EditRequest) -> tuple[HeadOutputs, Tensor]:
        """Beliefs about every attribute and which of them are kept, (B, A) bool."""
        labels = self.kept_labels(z_0, request)
        sources = [z_0, *(request.alone or ())]
        beliefs = self.beliefs(z_0)
        if request.labels is not None:
            beliefs = known_outputs(self.schema, beliefs, request.labels.to(labels))
        for k, brought in enumerate(self.brought(request)):
            if brought:
                read = self.beliefs(sources[k + 1])
                beliefs |= {name: read[name] for name in brought}
        return beliefs, ~labels.isnan()

    def kept_labels(self, z_0: Tensor, request: EditRequest) -> Tensor:
        """(B, A): the source's labels, NaN for what the edits set free, and the details that each edit brings."""
        labels = self.labels(z_0)
        if request.labels is not None:
            known = request.labels.to(labels)
            labels = torch.where(known.isnan(), labels, known)
            for j, attribute in enumerate(self.schema):  # what was predicted of a beard that is known not to be there
                for parent, value in attribute.applies_if.items():
                    labels[labels[:, self.schema.index(parent)] != float(value), j] = torch.nan
        freed = [self.schema.index(name) for name in self.schema.freed_by(request.attributes)]
        labels[:, freed] = torch.nan
        for k, brought in enumerate(self.brought(request)):
            columns = [self.schema.index(name) for name in brought]
            if columns:
                labels[:, columns] = self.labels((request.alone or ())[k])[:, columns]
        return labels

    def brought(self, request: EditRequest) -> list[list[str]]:
        """For each edit whose own result is known: the details that it alone sets free, and that no edit names."""
        edits, found = request.edits, []
        for k in range(len(request.alone or ())):
            others = self.details(edits[:k] + edits[k + 1 :])
            found.append(sorted(self.details(edits[k : k + 1]) - others - {*request.attributes}))
        return found

    def details(self, edits: tuple[Formula, ...]) -> set[str]:
        """What edits set free beside the edited attributes themselves."""
        edited = {name for edit in edits for name in edit.attributes}
        return set(self.schema.freed_by(edited)) - edited

    def beliefs(self, z_0: Tensor) -> HeadOutputs:
        """What the classifier makes of clean latents."""
        return dict(self._believed(z_0))

    def _believe(self, z_0: Tensor) -> HeadOutputs:
        t = torch.full((len(z_0),), CLEAN, dtype=z_0.dtype, device=z_0.device)
        return dict(independent(self.classifier(z_0, t)))

    def labels(self, z_0: Tensor) -> Tensor:
        """(B, A) most probable labels of clean latents."""
        return predict_labels(self.schema, self.beliefs(z_0))


def formula_of(edits: Sequence[Formula]) -> Formula | None:
    """One formula of all edits that can have a probability, weighted as they are; None if all ask for a number."""
    pairs = [pair for edit in edits for pair in edit.conjuncts]
    others = [Weighted(f, w) if w != 1 else f for f, w in pairs if not isinstance(f, Near)]
    if not others:
        return None
    return others[0] if len(others) == 1 else And(tuple(others))


def check_strength(strength: float | Tensor) -> None:
    """Raises ValueError for a strength outside [0, 1]."""
    values = torch.as_tensor(strength)
    if values.ndim > 1 or not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(
            f"`strength` must be in [0, 1], one number or one per source, got {strength}; 0 is the source, 1 lets it go"
        )


def check_weights(weight: float | Tensor, keep_weight: float | Tensor) -> None:
    """Raises ValueError for a weight below zero."""
    for name, value in (("weight", weight), ("keep_weight", keep_weight)):
        values = torch.as_tensor(value)
        if values.ndim > 1 or not bool((values >= 0).all()):
            raise ValueError(f"`{name}` must be >= 0, got {value}; one number, or one per row")
