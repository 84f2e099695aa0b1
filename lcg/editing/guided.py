"""lcg's editor: the source's own noise, guided towards the edits, with everything else asked to stay.

The target is p(z_0 | edits, source) ~ p(z_0) prod p(y_i | z_0)^{w_i} p(keep | z_0) N(z_src; z_0, tau^2 I). Sampling
starts from the deterministic inversion of the source, which unguided leads back to it, and follows the guided score

    s(z_t) = s_theta(z_t) + w sum_edits grad log p(y_i | z_t)
             + w_keep sum_kept grad log p(y_j = y_j(z_src) | z_t) + source term.

The keep terms ask for every attribute that no edit touches, the fine categorical ones included: only what a classifier
watches is kept. What an edit brought (the style of the glasses) is kept by the edits that follow it.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from lcg.diffusion import DDIM, Denoiser, Sampler, diffuse, randn
from lcg.diffusion.noise import Randomness
from lcg.editing.contract import Editor, EditRequest, EditResult
from lcg.guidance import (
    And,
    Classifier,
    ClassifierTerm,
    Formula,
    FormulaReadout,
    GuidedDenoiser,
    LabelReadout,
    PriorTerm,
    Readout,
    SourceMode,
    SourceTerm,
    Term,
)
from lcg.nets.heads import predict_labels
from lcg.schema import Schema

Start = Literal["inversion", "noising", "noise"]

CLEAN = 0.02
"""The time at which labels of a clean latent are read: the lowest noise that classifiers have seen often."""


MOSTLY_NOISE = 0.05
"""The weight of the signal, alpha_t, below which pure noise may stand for a noised latent."""


class GuidedEditor(Editor):
    """Latent classifier guidance as an editor.

    Args:
        denoiser: the prior's.
        classifier: of noised latents.
        schema: the classifier's attributes.
        sampler: deterministic, and able to invert when `start` is inversion.
        weight: guidance weight of the edits.
        keep_weight: weight of each attribute that is kept; 0 for none.
        tau: standard deviation of the source about the edited latent, in standardised units; None for no source term.
        source_mode: see `lcg.guidance.SourceTerm`.
        start: the deterministic inversion of the source, the source noised, or pure noise.
        t_start: where the path starts, in (0, 1); an inversion beyond the sampler's own t_start is not possible.
        max_step: trust region of a guided step, in units of sqrt(dimension); None for none.
        randomness: for the starts that draw noise.

    Raises:
        ValueError: a number is out of range, or the sampler cannot do what `start` asks.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        classifier: Classifier,
        schema: Schema,
        sampler: Sampler,
        weight: float = 24.0,
        keep_weight: float = 8.0,
        tau: float | None = 4.0,
        source_mode: SourceMode = "observation",
        start: Start = "inversion",
        t_start: float = 0.7,
        max_step: float | None = None,
        randomness: Randomness = None,
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
        for name, value in (("weight", weight), ("keep_weight", keep_weight)):
            if value < 0:
                raise ValueError(f"`{name}` must be >= 0, got {value}")
        for name, bound in (("tau", tau), ("max_step", max_step)):
            if bound is not None and not bound > 0:
                raise ValueError(f"`{name}` must be > 0 or None, got {bound}; None leaves it out")
        if start == "noise" and float(sampler.schedule.alpha(torch.tensor(t_start))) > MOSTLY_NOISE:
            raise ValueError(
                f"`start`='noise' needs a `t_start` where hardly any signal is left, such as 0.99, got {t_start}"
            )
        self.denoiser, self.classifier, self.schema, self.sampler = denoiser, classifier, schema, sampler
        self.weight, self.keep_weight, self.tau, self.source_mode = weight, keep_weight, tau, source_mode
        self.start, self.t_start, self.max_step, self.randomness = start, t_start, max_step, randomness

    def edit(self, z_0: Tensor, request: EditRequest) -> EditResult:
        """See `Editor`. Raises ValueError for edits that contradict each other."""
        guided = GuidedDenoiser(self.denoiser, self.terms(z_0, request), self.sampler.schedule, max_step=self.max_step)
        return EditResult(self.sampler.sample(guided, self.noised(z_0), t_start=self.t_start), request)

    def noised(self, z_0: Tensor) -> Tensor:
        """Where sampling starts, (B, *latent) at t_start."""
        if self.start == "inversion":
            assert isinstance(self.sampler, DDIM)  # checked by the constructor
            return self.sampler.invert(self.denoiser, z_0, self.t_start)
        noise = randn(z_0.shape, self.randomness, dtype=z_0.dtype, device=z_0.device)
        if self.start == "noise":
            return noise
        t = torch.full((len(z_0),), self.t_start, dtype=z_0.dtype, device=z_0.device)
        return diffuse(self.sampler.schedule, z_0, t, noise)

    def terms(self, z_0: Tensor, request: EditRequest) -> list[Term | PriorTerm]:
        """What guides: edits and kept labels in one classifier term, and the source."""
        wanted = request.edits[0] if len(request.edits) == 1 else And(request.edits)
        labels = self.kept_labels(z_0, request)
        # One by one, as the labels that are kept: an edit may ask for what was never seen together.
        readouts: list[tuple[Readout, float]] = [(FormulaReadout(wanted, "independent"), self.weight)]
        if self.keep_weight > 0 and not bool(labels.isnan().all()):
            readouts.append((LabelReadout(self.schema, labels), self.keep_weight))
        terms: list[Term | PriorTerm] = [ClassifierTerm(self.classifier, readouts)]
        if self.tau is not None:
            joint = self.source_mode != "paper"  # the edits and the source together, as latent arithmetic has them
            terms.append(SourceTerm(z_0, self.denoiser, self.sampler.schedule, self.tau, self.source_mode, joint=joint))
        return terms

    def kept_labels(self, z_0: Tensor, request: EditRequest) -> Tensor:
        """(B, A): the source's labels, NaN for what the edits set free, and the details that earlier edits brought."""
        labels = self.labels(z_0)
        if request.labels is not None:
            known = request.labels.to(labels)
            labels = torch.where(known.isnan(), labels, known)
            for j, attribute in enumerate(self.schema):  # what was predicted of a beard that is known not to be there
                for parent, value in attribute.applies_if.items():
                    labels[labels[:, self.schema.index(parent)] != float(value), j] = torch.nan
        freed = [self.schema.index(name) for name in self.schema.freed_by(request.attributes)]
        labels[:, freed] = torch.nan
        if request.previous is not None:
            brought = self.details(request.edits[:-1]) - self.details(request.edits[-1:])
            columns = sorted(self.schema.index(name) for name in brought - {*request.attributes})
            labels[:, columns] = self.labels(request.previous)[:, columns]
        return labels

    def details(self, edits: tuple[Formula, ...]) -> set[str]:
        """What edits set free beside the edited attributes themselves."""
        edited = {name for edit in edits for name in edit.attributes}
        return set(self.schema.freed_by(edited)) - edited

    @torch.no_grad()
    def labels(self, z_0: Tensor) -> Tensor:
        """(B, A) most probable labels of clean latents."""
        t = torch.full((len(z_0),), CLEAN, dtype=z_0.dtype, device=z_0.device)
        return predict_labels(self.schema, self.classifier(z_0, t))
